"""HTTP for the operators' pages: how far every target is, the matrix of a record, letters. They change nothing."""

import asyncio
import json
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from chassis.auth import require
from chassis.letter import as_html
from chassis.problems import Problem
from contracts.clock import CHINA_STANDARD_TIME
from contracts.errors import ProblemCode
from contracts.history import HistoryEntry, Kind
from contracts.records import DisplayState, RecordId
from contracts.tokens import Claims, Scope
from sync.api import convergence_of, record_view
from sync.certificate import STATE_TEXT
from sync.letter_desk import LetterDesk
from sync.letter_store import WaitsFor
from sync.page_sessions import COOKIE, SESSION_SECONDS, PageSessions
from sync.pages import page
from sync.vendor_letters import STEP_TEXT, LetterState

router = APIRouter(tags=["收敛情况"])
Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
_HISTORY_SHOWN = 500
_LETTERS_SHOWN = 200
LETTER_STATE_TEXT = {
    LetterState.DRAFT: "待签发",
    LetterState.RELEASED: "已签发",
    LetterState.DISCARDED: "不采用",
    LetterState.LAPSED: "已失效（签发前已一致）",
}
WAITS_FOR_TEXT = {
    WaitsFor.RELEASE: "待签发",
    WaitsFor.SENDING: "待送出",
    WaitsFor.ANSWER: "逾期未答复",
}
KIND_TEXT = {
    Kind.DECISION: "决定",
    Kind.PUSH: "推送",
    Kind.READING: "回读",
    Kind.CERTIFICATE: "证明",
    Kind.LETTER: "函告",
}

FACT_TEXT = {
    "answer": "答复",
    "reason": "原因",
    "desired": "应展示",
    "shown": "所见",
    "right": "一致",
    "outdated": "内容未更正",
    "version": "版本",
    "state": "应展示",
    "decision_number": "决定",
    "document_number": "文号",
    "authority_name": "认定单位",
    "what": "函",
    "number": "文号",
    "target_id": "平台",
    "by": "经办",
    "certificate": "证明摘要",
}
"""What of an entry's facts the page shows, and as what; the rest is for machines."""
VALUE_TEXT = {
    **{state.value: text for state, text in STATE_TEXT.items()},
    "applied": "已接受",
    "rejected": "拒绝",
    "received": "已送达，待回执",
    "superseded": "对方已有更新的版本",
    "none": "没有可用的答复",
    "True": "是",
    "False": "否",
    "drafted": "起草",
    "released": "签发",
    "discarded": "不采用",
    "answered": "登记答复",
    "closed": "了结",
    "sent": "送出",
    "unsent": "邮件未能送出",
    "copy sent": "送出抄送件",
    "copy unsent": "抄送邮件未能送出",
}


class PageLink(BaseModel):
    """Opens the pages once, until ``expires_at``."""

    url: str
    expires_at: datetime


async def _sessions(request: Request) -> PageSessions:
    found: PageSessions = request.app.state.page_sessions
    return found


Sessions = Annotated[PageSessions, Depends(_sessions)]


async def _viewer(request: Request, sessions: Sessions) -> None:
    if not await sessions.holds(request.cookies.get(COOKIE)):
        raise Problem(
            ProblemCode.UNAUTHENTICATED, "请在终端运行 xinfu convergence --open，打开它给出的一次性链接。"
        )


VIEWER = Depends(_viewer)


@router.post("/v1/pages/links", summary="打开运维页面的一次性链接")
async def link(request: Request, operator: Operator, sessions: Sessions) -> PageLink:
    """在浏览器里打开一次，一分钟内有效；此后该浏览器可看八小时。"""
    token, until = await sessions.link(operator.sub)
    return PageLink(url=f"{request.app.state.public_url}/v1/pages/open?link={token}", expires_at=until)


@router.get("/v1/pages/open", include_in_schema=False)
async def open_session(
    request: Request, sessions: Sessions, link: Annotated[str, Query(max_length=100)]
) -> Response:
    """Turn a link into a session, and its address into one without the link."""
    token = await sessions.open(link)
    if token is None:
        raise Problem(
            ProblemCode.UNAUTHENTICATED, "链接已用过或已过期，请再运行一次 xinfu convergence --open。"
        )
    answer = RedirectResponse("convergence", 303, headers={"Referrer-Policy": "no-referrer"})
    answer.set_cookie(
        COOKIE,
        token,
        max_age=SESSION_SECONDS,
        path="/v1/pages",
        httponly=True,
        samesite="strict",
        secure=request.app.state.public_url.startswith("https:"),
    )
    return answer


@router.get(
    "/v1/pages/convergence", include_in_schema=False, dependencies=[VIEWER], response_class=HTMLResponse
)
async def convergence(request: Request) -> Response:
    """Every target: desired, acknowledged, seen, differing, against its time limit."""
    desk: LetterDesk = request.app.state.letters
    found = await convergence_of(request.app.state)
    return page(
        "convergence.html.j2",
        title="各平台收敛情况",
        kicker="信复 · 公示同步",
        targets=found.targets,
        departed=found.departed,
        waits_for=WAITS_FOR_TEXT.__getitem__,
        letters=await desk.letters.page(LetterState.DRAFT, None, _LETTERS_SHOWN),
        step=STEP_TEXT.__getitem__,
        target=_names(request).get,
        time=_time,
    )


@router.get(
    "/v1/pages/records/{record_id}",
    include_in_schema=False,
    dependencies=[VIEWER],
    response_class=HTMLResponse,
)
async def record(request: Request, record_id: Annotated[RecordId, Path()]) -> Response:
    """The whole matrix of a record, its letters and its history."""
    desk: LetterDesk = request.app.state.letters
    found, letters, history = await asyncio.gather(
        record_view(request.app.state, record_id),
        desk.letters.of_record(record_id),
        request.app.state.store.history.entries(record_id, "", _HISTORY_SHOWN),
    )
    names = _names(request)
    lines = sorted((_line(entry, names) for entry in history.entries), reverse=True)
    return page(
        "record.html.j2",
        title=f"记录 {record_id}",
        kicker="信复 · 公示同步",
        record=found,
        letters=letters,
        history=lines,
        more=history.next is not None,
        step=STEP_TEXT.__getitem__,
        target=_names(request).get,
        letter_state=LETTER_STATE_TEXT.__getitem__,
        time=_time,
        state=_state,
    )


@router.get(
    "/v1/pages/vendor-letters/{letter_id}",
    include_in_schema=False,
    dependencies=[VIEWER],
    response_class=HTMLResponse,
)
async def letter(request: Request, letter_id: str) -> Response:
    """A letter as it is, or would be, issued."""
    desk: LetterDesk = request.app.state.letters
    shown = await desk.shown(letter_id)
    return page("letter.html.j2", title=shown.title, kicker="函告预览", letter=as_html(shown))


def _names(request: Request) -> dict[str, str]:
    """Target id -> name."""
    return {target.id: target.name for target in request.app.state.catalogue.targets}


def _line(entry: HistoryEntry, names: dict[str, str]) -> tuple[str, str, str, str, str]:
    """(time, chain, what, facts, hash): sorted by time."""
    body = json.loads(entry.text)
    facts = "，".join(
        f"{FACT_TEXT[name]} {VALUE_TEXT.get(str(value), value)}"
        for name, value in body["facts"].items()
        if name in FACT_TEXT and value is not None
    )
    target, bar, _ = body["chain"].partition("|")
    where = names.get(target, target) if bar else "本记录"
    return body["at"], where, KIND_TEXT[Kind(body["kind"])], facts, entry.hash.partition(":")[2][:16]


def _state(state: DisplayState | None) -> str:
    return STATE_TEXT[state] if state else "未展示"


def _time(moment: datetime | date | str | None) -> str:
    if moment is None:
        return "—"
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return moment.astimezone(CHINA_STANDARD_TIME).strftime("%Y-%m-%d %H:%M:%S")
    return moment.isoformat()
