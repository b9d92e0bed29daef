"""HTTP for the 信用修复告知书 of a record: for its subject, and for the department that serves it with its decision."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from chassis.auth import require
from chassis.letter_form import LetterForm, letter_response
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import Subject
from contracts.tokens import Claims, Scope
from intake.domain.record import Record
from intake.notice import repair_notice
from intake.parts import CurrentApplicant, Intake, Parts
from intake.responses import problems

_COMMON = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.FORBIDDEN,
    ProblemCode.NOT_FOUND,
    ProblemCode.BUSY,
    ProblemCode.UNAVAILABLE,
)
router = APIRouter(prefix="/v1", tags=["信用修复告知书"], responses=problems(*_COMMON))
Server = Annotated[Claims, Depends(require(Scope.RECORDS_WRITE, Scope.OPERATIONS))]
Form = Annotated[LetterForm, Query(alias="format", description="pdf（默认）、html、json")]


@router.get(
    "/subjects/me/records/{record_id}/notice", summary="我的记录的信用修复告知书", response_class=Response
)
async def my_notice(
    record_id: str, applicant: CurrentApplicant, intake: Parts, form: Form = LetterForm.PDF
) -> Response:
    """公示什么、公示多久、何时可以申请修复、如何申请、需要什么材料。"""
    record = (await intake.store.records([record_id])).get(record_id)
    if record is None or record.subject_id != applicant.subject.subject_id:
        raise Problem(ProblemCode.NOT_FOUND, "没有这条记录，请在“我的失信记录”中查看。")
    return await _notice(intake, record, applicant.subject, form)


@router.get(
    "/operations/records/{record_id}/notice",
    summary="与决定书一并送达的信用修复告知书（两书同达）",
    response_class=Response,
)
async def notice_to_serve(
    record_id: str, _server: Server, intake: Parts, form: Form = LetterForm.PDF
) -> Response:
    """供认定单位打印，与处罚决定书、列入决定书一并送达。"""
    record = (await intake.store.records([record_id])).get(record_id)
    if record is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这条记录：请先公示（导入）该记录。")
    subject = (await intake.store.subjects([record.subject_id])).get(record.subject_id)
    if subject is None:
        raise Problem(ProblemCode.NOT_FOUND, "该记录的主体尚未登记，不知致谁：请先登记信用主体。")
    return await _notice(intake, record, subject, form)


async def _notice(intake: Intake, record: Record, subject: Subject, form: LetterForm) -> Response:
    if record.facts.in_person:
        raise Problem(
            ProblemCode.NOT_FOUND, "该记录不经平台办理，也不公示，没有告知书；请由认定单位当面告知。"
        )
    letter = repair_notice(record, subject, intake.catalogue, intake.settings.transition)
    name = f"{letter.title} {record.facts.document_number}"
    return await letter_response(intake.press, letter, letter.model_dump_json(), form, name)
