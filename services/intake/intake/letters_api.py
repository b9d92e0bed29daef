"""HTTP for the letters of an applicant's own applications."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from chassis.letter_form import LetterForm
from chassis.problems import Problem
from contracts.errors import ProblemCode
from intake.domain.application import Application
from intake.domain.item import Item, ItemLetter
from intake.parts import CurrentApplicant, Intake, Parts
from intake.responses import problems
from intake.submission import Applicant

_SIGNED_IN = (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.UNAVAILABLE)
LETTER_MEDIA: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/pdf": {}, "text/html": {}, "application/json": {}}}
}
AskedForm = Annotated[LetterForm, Query(alias="format", description="pdf（默认）、html、json")]
router = APIRouter(prefix="/v1", tags=["文书"], responses=problems(*_SIGNED_IN))


class LetterView(ItemLetter):
    """一份文书。``content_hash``：以 ``format=json`` 下载的内容的 SHA-256。"""

    item_id: str
    document_number: str


@router.get(
    "/applications/{application_id}/letters",
    summary="申请的文书",
    responses=problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
)
async def list_letters(application_id: str, applicant: CurrentApplicant, intake: Parts) -> list[LetterView]:
    """按出具的先后。每一步办理（受理、补正、延期、决定等）作出后数秒内出具。"""
    items = await _items(intake, applicant, application_id)
    found = [
        LetterView(**letter.model_dump(), item_id=item.item_id, document_number=item.facts.document_number)
        for item in items
        for letter in item.letters
    ]
    return sorted(found, key=lambda letter: letter.issued_at)


@router.get(
    "/applications/{application_id}/letters/{letter_id}",
    summary="下载文书",
    response_class=StreamingResponse,
    responses={**LETTER_MEDIA, **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.BUSY)},
)
async def download_letter(
    application_id: str,
    letter_id: str,
    applicant: CurrentApplicant,
    intake: Parts,
    form: AskedForm = LetterForm.PDF,
) -> StreamingResponse:
    """PDF/A、网页，或其 SHA-256 记入办理历史的 JSON。"""
    items = await _items(intake, applicant, application_id)
    return await read_letter(intake, [letter for item in items for letter in item.letters], letter_id, form)


async def read_letter(
    intake: Intake, letters: Iterable[ItemLetter], letter_id: str, form: LetterForm
) -> StreamingResponse:
    """One of these letters. Raises Problem: NOT_FOUND, UNAVAILABLE, BUSY."""
    if letter_id not in {letter.letter_id for letter in letters}:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份文书，请刷新文书列表后重试。")
    return await intake.letters.response(letter_id, form.value)


async def _items(intake: Intake, applicant: Applicant, application_id: str) -> list[Item]:
    await own_application(intake, applicant, application_id)
    return await intake.store.items_of([application_id])


async def own_application(intake: Intake, applicant: Applicant, application_id: str) -> Application:
    """Raises Problem NOT_FOUND, also for one of somebody else."""
    application = await intake.store.application(application_id)
    if application is None or application.subject_id != applicant.subject.subject_id:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份申请，请在“我的申请”中查看。")
    return application
