"""HTTP for the commitment: shown before an application is filed, read afterwards by the applicant and by departments."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chassis.auth import require
from chassis.letter import Letter
from chassis.letter_form import LetterForm, letter_response
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.records import RecordId
from contracts.tokens import Claims, Scope
from intake.domain.application import Application
from intake.letters_api import LETTER_MEDIA, AskedForm, own_application
from intake.parts import CurrentApplicant, Intake, Parts
from intake.responses import problems
from intake.submission import valid_record_ids

_SIGNED_IN = (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.UNAVAILABLE)
router = APIRouter(prefix="/v1", tags=["承诺书"], responses=problems(*_SIGNED_IN))
Reader = Annotated[Claims, Depends(require(Scope.CASES_READ))]


class CommitmentDraft(BaseModel):
    """要为哪些记录提交申请。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record_ids: Annotated[list[RecordId], AfterValidator(valid_record_ids)]


class CommitmentPreview(BaseModel):
    """承诺书全文；申请人确认后，以 ``commitment_hash`` 提交申请。当日有效，记录变化后须重新展示。"""

    commitment_hash: str = Field(description="承诺书内容的 SHA-256")
    letter: Letter


@router.post(
    "/applications/commitment-preview",
    summary="生成承诺书，供申请人阅读和确认",
    response_model=CommitmentPreview,
    responses={
        **LETTER_MEDIA,
        **problems(*_SIGNED_IN, ProblemCode.VALIDATION, ProblemCode.UNKNOWN_RECORD, ProblemCode.BUSY),
    },
)
async def preview_commitment(
    applicant: CurrentApplicant,
    intake: Parts,
    body: CommitmentDraft,
    form: Annotated[
        LetterForm, Query(alias="format", description="json（默认）、html、pdf")
    ] = LetterForm.JSON,
) -> Response:
    """不作任何登记。HTML 和 PDF 的哈希在 Commitment-Hash 头中。"""
    letter = await intake.submission.commitment(applicant, body.record_ids)
    preview = CommitmentPreview(commitment_hash=letter.content_hash, letter=letter)
    response = await letter_response(intake.press, letter, preview.model_dump_json(), form, letter.title)
    response.headers["Commitment-Hash"] = letter.content_hash
    return response


@router.get(
    "/applications/{application_id}/commitment",
    summary="下载所确认的承诺书",
    response_class=Response,
    responses={**LETTER_MEDIA, **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.BUSY)},
)
async def download_commitment(
    application_id: str,
    applicant: CurrentApplicant,
    intake: Parts,
    form: AskedForm = LetterForm.PDF,
) -> Response:
    """``format=json`` 的内容的 SHA-256 即 ``content_hash``。"""
    return await _confirmed(intake, await own_application(intake, applicant, application_id), form)


@router.get(
    "/internal/applications/{application_id}/commitment",
    summary="承诺书的内容（内部）",
    response_class=Response,
    responses={**LETTER_MEDIA, **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.BUSY)},
)
async def download_commitment_internally(
    application_id: str, _reader: Reader, intake: Parts, form: LetterForm = LetterForm.PDF
) -> Response:
    """供审核工作台和部门系统查看。"""
    return await _confirmed(intake, await intake.store.application(application_id), form)


async def _confirmed(intake: Intake, application: Application | None, form: LetterForm) -> Response:
    if application is None or application.commitment is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份承诺书，请在“我的申请”中核对。")
    content = application.commitment.content
    letter = Letter.model_validate_json(content)
    return await letter_response(intake.press, letter, content, form, letter.title)
