"""HTTP for letters to vendors: a person sees, releases, discards and notes answers (scope ``operations``)."""

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from chassis.auth import require
from chassis.letter import as_html
from contracts.events import LetterChannel
from contracts.records import DisplayState, Timestamp
from contracts.tokens import Claims, Scope
from sync.letter_desk import LetterDesk
from sync.pages import page
from sync.vendor_letters import STEP_TEXT, Answer, LetterState, LetterStep, VendorLetter

router = APIRouter(prefix="/v1/vendor-letters", tags=["函告第三方"])
Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
Reader = Annotated[Claims, Depends(require(Scope.OPERATIONS, Scope.PROPAGATION_READ))]
LetterId = Annotated[str, Path(pattern=r"^vlt_[0-9a-f]{32}$")]


class SightingView(BaseModel):
    """What the public was seen being shown; ``evidence``: hash of the reading in the history."""

    shown: DisplayState | None
    at: datetime
    evidence: str


class AnswerView(BaseModel):
    """What the vendor answered. ``done``: it says that it shows what was decided; ``reference``: of its letter."""

    text: str
    received_on: date
    noted_by: str
    noted_at: datetime
    done: bool
    reference: str | None


class DispatchView(BaseModel):
    """How a released letter leaves; ``sent_at`` null: not yet. ``problem``: why it could not be mailed, so that a person has to take it there."""

    channel: LetterChannel
    sent_at: datetime | None
    sent_by: str | None
    reference: str | None
    problem: str | None


class LetterView(BaseModel):
    """One letter. ``since``: from when on the vendor shows something else; ``closed_at``: when it was seen right, or said so.

    ``notice``: it tells the decision to a vendor that is told by letter alone; nobody has looked (``seen`` null). ``dispatch``: null before
    the release, and of a report; ``copy_dispatch``: of the supervisor's copy.
    """

    id: str
    finding: str
    step: LetterStep
    step_text: str
    state: LetterState
    target_id: str
    record_id: str
    application_id: str | None
    since: datetime
    notice: bool
    seen: SightingView | None
    official: SightingView | None
    drafted_at: datetime
    number: str | None
    released_at: datetime | None
    due_on: date | None
    decided_by: str | None
    reason: str | None
    answer: AnswerView | None
    closed_at: datetime | None
    dispatch: DispatchView | None
    copy_dispatch: DispatchView | None


class LetterPage(BaseModel):
    """Letters in order of their ids; ask again with ``after`` = ``next`` while it is not null."""

    letters: list[LetterView]
    next: str | None


class DiscardBody(BaseModel):
    """Why a draft is not to become a letter."""

    reason: str = Field(min_length=1, max_length=2000)


class AnswerBody(BaseModel):
    """What the vendor answered, and the day (in China) it came."""

    text: str = Field(min_length=1, max_length=4000)
    received_on: date
    done: bool = Field(False, description="It says that it shows what was decided")
    reference: str | None = Field(None, max_length=200, description="文号 or other reference of its answer")


class SentBody(BaseModel):
    """When a letter, or its copy for the supervisor, was taken there, and by what it can be found (a tracking number, a receipt)."""

    sent_at: Timestamp | None = Field(None, description="null: now")
    reference: str = Field(min_length=1, max_length=200)
    to_supervisor: bool = False


def letter_view(letter: VendorLetter) -> LetterView:
    """As it is shown."""
    return LetterView.model_validate(
        {
            **vars(letter),
            "step_text": STEP_TEXT[letter.step],
            "notice": letter.notice,
            "copy_dispatch": letter.copy,
        },
        from_attributes=True,
    )


async def _desk(request: Request) -> LetterDesk:
    desk: LetterDesk = request.app.state.letters
    return desk


Desk = Annotated[LetterDesk, Depends(_desk)]


@router.get("", summary="函告：草稿和已签发的")
async def letters(
    _operator: Operator,
    desk: Desk,
    state: LetterState | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> LetterPage:
    """``state=draft``：等人签发的。"""
    found = await desk.letters.page(state, after, limit)
    return LetterPage(
        letters=[letter_view(each) for each in found], next=found[-1].id if len(found) == limit else None
    )


@router.get("/{letter_id}", summary="一份函告")
async def letter(letter_id: LetterId, _operator: Operator, desk: Desk) -> LetterView:
    """Where it stands."""
    return letter_view(await desk.get(letter_id))


@router.get("/{letter_id}/preview", summary="函告的样子（网页）", response_class=HTMLResponse)
async def preview(letter_id: LetterId, _operator: Operator, desk: Desk) -> Response:
    """As it was issued; a draft as it would be, without number."""
    shown = await desk.shown(letter_id)
    return page("letter.html.j2", title=shown.title, kicker="函告预览", letter=as_html(shown))


@router.get(
    "/{letter_id}/pdf",
    summary="函告的 PDF",
    response_class=Response,
    responses={200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def pdf(letter_id: LetterId, _reader: Reader, desk: Desk) -> Response:
    """The same file every time once it is issued."""
    headers = {
        "Content-Disposition": f'inline; filename="{letter_id}.pdf"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return Response(await desk.print(letter_id), media_type="application/pdf", headers=headers)


@router.post("/{letter_id}/release", summary="签发")
async def release(letter_id: LetterId, operator: Operator, desk: Desk) -> LetterView:
    """再看一次对方的展示：仍在公示才编号签发，按目录中的方式送出；重复签发不会再发一次。暂停共享建议报告只编号，不送出。"""
    return letter_view(await desk.release(letter_id, operator.sub))


@router.post("/{letter_id}/discard", summary="不采用草稿")
async def discard(letter_id: LetterId, body: DiscardBody, operator: Operator, desk: Desk) -> LetterView:
    """写明原因；同一发现不会再起草，可以恢复。"""
    return letter_view(await desk.discard(letter_id, operator.sub, body.reason))


@router.post("/{letter_id}/restore", summary="恢复不采用的草稿")
async def restore(letter_id: LetterId, operator: Operator, desk: Desk) -> LetterView:
    """重新成为待签发的草稿；对方已与决定一致、或另有决定的，不能恢复。"""
    return letter_view(await desk.restore(letter_id, operator.sub))


@router.post("/{letter_id}/sent", summary="登记已由人送出")
async def sent(letter_id: LetterId, body: SentBody, operator: Operator, desk: Desk) -> LetterView:
    """没有电子邮箱、邮件送不出去的函，由人送去后登记：何时、凭什么可查。已送出的再登记，不改变。"""
    done = await desk.sent(
        letter_id,
        operator.sub,
        body.sent_at or datetime.now(UTC),
        body.reference,
        to_supervisor=body.to_supervisor,
    )
    return letter_view(done)


@router.post("/{letter_id}/answer", summary="登记对方的答复")
async def answer(letter_id: LetterId, body: AnswerBody, operator: Operator, desk: Desk) -> LetterView:
    """答复不等于改正：只有再看到展示一致，这件事才算了结。只能函告的平台例外：答复已办妥（`done`）即为确认。"""
    said = Answer(body.text, body.received_on, operator.sub, datetime.now(UTC), body.done, body.reference)
    return letter_view(await desk.answer(letter_id, operator.sub, said))
