"""HTTP for letters: anybody checks one by its code, officers read those of their items, intake fetches them for applicants."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field

from chassis.auth import require
from chassis.letter_form import PAGE_HEADERS, LetterForm, letter_response, page
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.letters import LetterKind, normalise_verification_code
from contracts.tokens import Claims, Scope
from dept_adapter.api import Officer, find_review
from dept_adapter.issuing import IssuedLetter, Letters

router = APIRouter(prefix="/v1", tags=["文书"])
Reader = Annotated[Claims, Depends(require(Scope.LETTERS_READ))]
Form = Annotated[LetterForm, Query(alias="format", description="pdf（默认）、html、json")]
_TEMPLATES = Environment(loader=PackageLoader("dept_adapter"), autoescape=True, undefined=StrictUndefined)
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/pdf": {}, "text/html": {}, "application/json": {}}}
}


class LetterView(BaseModel):
    """A letter of an item. ``content_hash``: SHA-256 of what it says, as ``?format=json`` answers it."""

    letter_id: str
    item_id: str
    kind: LetterKind
    title: str
    number: str | None
    content_hash: str
    verification_code: str
    issued_at: datetime


class LetterCheck(BaseModel):
    """What anybody learns of a genuine letter: nothing that its holder does not know, and less of the addressee."""

    genuine: bool = True
    kind: LetterKind
    title: str
    number: str | None
    issuer: str
    dated: date
    addressee: str = Field(description="Masked")
    verification_code: str
    content_hash: str = Field(description="SHA-256 of what the letter says")
    superseded: str | None = Field(description="zh-CN: what has been decided since, where it holds no more")
    checked_at: datetime

    @property
    def dated_text(self) -> str:
        """``2026年11月25日``."""
        return f"{self.dated.year}年{self.dated.month}月{self.dated.day}日"


@router.get(
    "/letters/{code}",
    summary="查验文书真伪",
    response_model=LetterCheck,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def check_letter(
    request: Request,
    code: Annotated[str, Path(max_length=40, description="文书上的验证码，大小写和连字符不限")],
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Not signed in. A page for browsers, JSON for others; 404 for a code that no letter bears."""
    problem = "没有文书使用这一验证码：请对照文书逐位核对；确认无误仍查不到的，该文书不是本平台出具的。"
    found: LetterCheck | None = None
    try:
        issued = await _letters(request).by_code(normalise_verification_code(code))
        found = await _checked(request, issued) if issued else None
    except ValueError as error:
        problem = f"{error}。"
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    if "text/html" in (accept or ""):
        body = Markup(_TEMPLATES.get_template("letter_check.html.j2").render(found=found, problem=problem))  # noqa: S704
        status = 200 if found else 404
        return Response(
            page("文书查验", body), status, {**headers, **PAGE_HEADERS}, media_type="text/html; charset=utf-8"
        )
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, problem)
    return Response(found.model_dump_json(), headers=headers, media_type="application/json")


async def _checked(request: Request, issued: IssuedLetter) -> LetterCheck:
    letter = issued.letter
    superseded = None
    if issued.kind is LetterKind.GRANTED:
        later = await _letters(request).of_item(issued.item_id)
        revoked = next((each for each in later if each.kind is LetterKind.REVOKED), None)
        if revoked is not None:
            superseded = f"该决定已被撤销（{revoked.number or revoked.title}，{revoked.letter.dated_text}）。"
    return LetterCheck(
        kind=issued.kind,
        title=letter.title,
        number=letter.number,
        issuer=letter.issuer,
        dated=letter.dated,
        addressee=issued.addressee,
        verification_code=issued.verification_code,
        content_hash=issued.content_hash,
        superseded=superseded,
        checked_at=datetime.now(UTC),
    )


@router.get("/reviews/{item_id}/letters", summary="事项的文书")
async def list_letters(request: Request, officer: Officer, item_id: str) -> list[LetterView]:
    """In the order of the steps they tell of. A letter follows its step within seconds, later while intake does not answer."""
    await find_review(request, officer, item_id)
    found = await _letters(request).of_item(item_id)
    return [LetterView.model_validate(each, from_attributes=True) for each in found]


@router.get(
    "/reviews/{item_id}/letters/{letter_id}",
    summary="查看文书",
    response_class=Response,
    responses=_FILES,
)
async def show_letter(
    request: Request, officer: Officer, item_id: str, letter_id: str, form: Form = LetterForm.PDF
) -> Response:
    """As PDF/A, as a page, or the JSON whose SHA-256 stands in the history."""
    await find_review(request, officer, item_id)
    issued = await _letters(request).get(letter_id)
    return await _file(request, issued if issued and issued.item_id == item_id else None, form)


@router.get(
    "/internal/letters/{letter_id}",
    summary="文书的内容（内部）",
    response_class=Response,
    responses=_FILES,
)
async def read_letter(
    request: Request, _reader: Reader, letter_id: str, form: Form = LetterForm.PDF
) -> Response:
    """For intake, which passes it on to the applicant it is addressed to."""
    return await _file(request, await _letters(request).get(letter_id), form)


def _letters(request: Request) -> Letters:
    letters: Letters = request.app.state.letters
    return letters


async def _file(request: Request, issued: IssuedLetter | None, form: LetterForm) -> Response:
    if issued is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份文书，请刷新文书列表后重试。")
    name = issued.number or issued.title
    return await letter_response(request.app.state.letter_press, issued.letter, issued.content, form, name)
