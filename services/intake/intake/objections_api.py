"""HTTP for objections (异议): applicants file and follow them; other services ask what was written (scope ``cases.read``)."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from chassis.auth import require
from chassis.letter_form import LetterForm
from contracts.errors import ProblemCode
from contracts.events import ObjectionKind, ObjectionRemedy
from contracts.http.intake import Material
from contracts.http.mandate import Assistance
from contracts.http.objection import ObjectionCase, ObjectionLookup, ObjectionLookupResult
from contracts.records import DepartmentRef, RecordFacts, Shape, Timestamp
from contracts.tokens import Claims, Scope
from intake.api import IDEMPOTENCY_KEY, idempotency_key_of
from intake.domain.item import ItemLetter
from intake.letters_api import LETTER_MEDIA, AskedForm, read_letter
from intake.objection import REMEDY_TEXT, STATUS_TEXT, Objection, ObjectionStatus
from intake.objections import NewObjection, own_objection
from intake.parts import CurrentApplicant, Intake, Parts
from intake.responses import problems
from intake.submission import Applicant

_SIGNED_IN = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.FORBIDDEN,
    ProblemCode.VALIDATION,
    ProblemCode.UNAVAILABLE,
)
router = APIRouter(tags=["异议"], responses=problems(*_SIGNED_IN))
Reader = Annotated[Claims, Depends(require(Scope.CASES_READ))]


class ObjectionView(Shape):
    """一件异议。公示不因异议中止。"""

    objection_id: str
    kind: ObjectionKind
    status: ObjectionStatus
    status_text: str
    record_id: str
    application_id: str | None = Field(description="对结果的异议：该结果所在的申请")
    item_id: str | None = Field(description="对结果的异议：该结果的事项")
    facts: RecordFacts = Field(description="提出异议时的记录")
    reason: str = Field(description="异议的理由")
    materials: list[Material]
    assistance: Assistance | None
    filed_at: Timestamp
    department: DepartmentRef | None = Field(description="办理的认定单位；尚未确定时为空")
    queue_name: str | None
    accept_due_on: date | None = Field(description="认定单位受理期限")
    decide_due_on: date | None = Field(description="认定单位核查并作出决定的期限")
    due_on: date | None = Field(description="现在应当行动的一方的期限")
    due_provisional: bool = Field(description="期限暂定：跨入的年份尚未公布放假安排，此前不算超期")
    overdue: bool
    withdrawal_requested_at: Timestamp | None = Field(description="已请求撤回，待认定单位确认")
    accepted_at: Timestamp | None
    outcome_reason: str | None = Field(description="认定单位的理由")
    remedy: ObjectionRemedy | None
    remedy_text: str | None = Field(description="异议成立后如何处理")
    decided_at: Timestamp | None
    withdrawn_at: Timestamp | None
    letters: list[ItemLetter] = Field(description="就这件异议出具的文书")

    @staticmethod
    def of(objection: Objection) -> "ObjectionView":
        """The objection as its subject sees it."""
        shown = {
            **vars(objection),
            "department": objection.holder,
            "accept_due_on": objection.department_due[0],
            "decide_due_on": objection.department_due[1],
            "due_provisional": objection.is_provisional,
            "status": objection.status,
            "status_text": STATUS_TEXT[objection.status],
            "queue_name": objection.referral.queue_name if objection.referral else None,
            "due_on": objection.due_on,
            "overdue": objection.is_overdue,
            "remedy_text": REMEDY_TEXT[objection.remedy] if objection.remedy else None,
        }
        return ObjectionView.model_validate(shown)


class ObjectionList(Shape):
    """最新的在前，至多200件。"""

    objections: list[ObjectionView]


@router.post(
    "/v1/objections",
    status_code=201,
    summary="提出异议",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses=problems(
        *_SIGNED_IN,
        ProblemCode.MALFORMED_JSON,
        ProblemCode.IDEMPOTENCY_KEY_MISSING,
        ProblemCode.IDEMPOTENCY_CONFLICT,
        ProblemCode.UNKNOWN_RECORD,
        ProblemCode.UNKNOWN_MATERIAL,
        ProblemCode.NOT_FOUND,
        ProblemCode.OBJECTION_NOT_POSSIBLE,
        ProblemCode.MANDATE_NOT_VALID,
        ProblemCode.BUSY,
    ),
)
async def file_objection(
    applicant: CurrentApplicant,
    intake: Parts,
    body: NewObjection,
    response: Response,
    idempotency_key: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> ObjectionView:
    """对记录（内容或公示期），或对事项的结果（不予受理、不予修复、撤销修复）提出异议，由作出它的认定单位核查。同一键重复提交得到同一件异议。"""
    key = idempotency_key_of(idempotency_key)
    with intake.gate.submission():
        objection, replayed = await intake.objections.file(applicant, body, key)
    response.headers["Location"] = f"/v1/objections/{objection.objection_id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return ObjectionView.of(objection)


@router.get("/v1/objections", summary="我的异议")
async def my_objections(applicant: CurrentApplicant, intake: Parts) -> ObjectionList:
    """每件异议由谁办理、到哪天、结果如何。"""
    found = await intake.objections.of_subject(applicant.subject.subject_id)
    return ObjectionList(objections=[ObjectionView.of(each) for each in found])


@router.get(
    "/v1/objections/{objection_id}",
    summary="异议详情",
    responses=problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
)
async def my_objection(objection_id: str, applicant: CurrentApplicant, intake: Parts) -> ObjectionView:
    """一件异议。"""
    return ObjectionView.of(await _own(applicant, intake, objection_id))


@router.post(
    "/v1/objections/{objection_id}/withdraw",
    summary="撤回异议",
    responses=problems(
        *_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.INVALID_TRANSITION, ProblemCode.MANDATE_NOT_VALID
    ),
)
async def withdraw_objection(objection_id: str, applicant: CurrentApplicant, intake: Parts) -> ObjectionView:
    """由认定单位确认；此前已作出决定的，以决定为准。撤回后可以再次提出。重复请求没有第二次效果。"""
    return ObjectionView.of(await intake.objections.withdraw(applicant, objection_id))


@router.get(
    "/v1/objections/{objection_id}/letters/{letter_id}",
    summary="下载异议的文书",
    response_class=StreamingResponse,
    responses={**LETTER_MEDIA, **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.BUSY)},
)
async def download_objection_letter(
    objection_id: str,
    letter_id: str,
    applicant: CurrentApplicant,
    intake: Parts,
    form: AskedForm = LetterForm.PDF,
) -> StreamingResponse:
    """受理、不予受理、核查结果的文书：PDF/A、网页，或其 SHA-256 记入办理历史的 JSON。"""
    objection = await _own(applicant, intake, objection_id)
    return await read_letter(intake, objection.letters, letter_id, form)


async def _own(applicant: Applicant, intake: Intake, objection_id: str) -> Objection:
    return own_objection(await intake.objections.load([objection_id]), applicant, objection_id)


@router.post("/v1/internal/objections/lookup", summary="查询异议的理由和材料（内部）")
async def look_up_objections(body: ObjectionLookup, _reader: Reader, intake: Parts) -> ObjectionLookupResult:
    """未知的异议不出现在结果中。"""
    found = await intake.objections.load(set(body.objection_ids))
    subjects = await intake.store.subjects({each.subject_id for each in found.values()})
    return ObjectionLookupResult(
        objections=[
            ObjectionCase(
                objection_id=each.objection_id,
                subject=subjects[each.subject_id],
                reason=each.reason,
                materials=each.materials,
                email=each.email,
            )
            for each in found.values()
        ]
    )
