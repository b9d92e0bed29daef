"""The pages of the review desk, for browsers. What officers do is done by ``officers``, as by the API."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from markupsafe import Markup
from pydantic import ValidationError
from starlette.datastructures import FormData

from chassis.cases import CaseDirectory
from chassis.letter import as_html
from chassis.letter_form import LetterForm
from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.catalogue import Catalogue, Department
from contracts.errors import ProblemCode
from contracts.http.intake import Case
from contracts.identifiers import normalise_document_number, normalise_uscc
from contracts.records import IN_PERSON, SubjectType
from contracts.tokens import Claims, Role
from dept_adapter import api, figures_api, letters, letters_api, panels, reminders_api
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    codes_of,
    cookie_name,
    is_secure,
    link_to,
    own_departments,
    position_of,
    reader,
    sessions_of,
    subjects_of,
    trouble_of,
    typed_lines,
    version_of,
)
from dept_adapter.desk.pages import DeskRoute, asset, message, page
from dept_adapter.desk.sessions import SIGN_IN_SECONDS, Session
from dept_adapter.desk.signin import Issuer, SignInRefusedError
from dept_adapter.desk.texts import DO_TEXT, DONE, HINT, START, TEXT_LABEL, Do
from dept_adapter.domain import DecisionConflictError, NotAllowedError, NotAtDeskError, Review
from dept_adapter.intake_side import AWAY
from dept_adapter.letters import kind_of
from dept_adapter.materials import commitment_response, material_response
from dept_adapter.objections import Objections
from dept_adapter.officers import (
    BULK,
    Effect,
    Officers,
    Order,
    StaleError,
    holds,
    version,
)
from dept_adapter.states import ACTION_TEXT, CHANGES, STATE_TEXT, Action
from dept_adapter.store import Reviews, StoredReview, View, position

log = get_logger(__name__)
_MAX_BULK = 200
_MAX_LINES, _MAX_LINE, _MAX_TEXT = 20, 500, 2000
VIEW_TEXT = {
    View.TODO: "待办",
    View.OVERDUE: "逾期",
    View.CONFIRM: "待复核",
    View.WAITING: "待补正",
    View.SPOT_CHECK: "待抽查",
    View.ENDED: "已办结",
    View.ALL: "全部",
}
_REASONED = frozenset({Do.REFUSE, Do.NOT_ACCEPT, Do.EXTEND, Do.REVOKE})
_WORDED = frozenset({Do.ACCEPT, Do.GRANT})
"""Their letters have words of the officer, which are no reason."""


router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


# --- signing in


@router.get("/sign-in")
async def sign_in(
    request: Request, then: Annotated[str, Query(alias="next", max_length=1000)] = "/desk"
) -> Response:
    """Send the browser to the issuer."""
    if not re.fullmatch(r"/desk(?:[/?][^\\]*)?", then):
        then = "/desk"
    state, url = await sessions_of(request).begin(then)
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        cookie_name(request, "sign_in"),
        state,
        max_age=SIGN_IN_SECONDS,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


@router.get("/callback")
async def signed_in(request: Request, state: str = "", code: str = "") -> Response:
    """The browser comes back from the issuer."""
    begun = request.cookies.get(cookie_name(request, "sign_in"))
    refused = "登录没有完成", "这次登录已失效（超过 10 分钟，或不是从本浏览器开始的），请重新登录。"
    if not begun or begun != state or not code:
        return await message(
            request, None, *refused, HTTPStatus.BAD_REQUEST, link=("/desk/sign-in", "重新登录")
        )
    try:
        cookie, then = await sessions_of(request).complete(state, code)
    except SignInRefusedError as error:
        log.warning("a sign-in was refused", error=str(error))
        return await message(
            request, None, *refused, HTTPStatus.BAD_REQUEST, link=("/desk/sign-in", "重新登录")
        )
    response = RedirectResponse(then, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.delete_cookie(
        cookie_name(request, "sign_in"), httponly=True, samesite="lax", secure=is_secure(request)
    )
    # no max-age: the browser forgets it when it is closed; lax, so that links in mails lead to the page they name
    response.set_cookie(
        cookie_name(request), cookie, httponly=True, samesite="lax", secure=is_secure(request)
    )
    return response


@router.post("/sign-out")
async def sign_out(request: Request, session: SignedIn, _form: Posted) -> Response:
    """End the session here; the page links to the issuer's own."""
    await sessions_of(request).end(session.id)
    response = RedirectResponse("/desk/signed-out", HTTPStatus.SEE_OTHER)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="lax", secure=is_secure(request))
    return response


@router.get("/signed-out")
async def signed_out(request: Request) -> Response:
    """What is left to do after signing out."""
    issuer: Issuer | None = request.app.state.desk_issuer
    try:
        url = await issuer.sign_out_url() if issuer else None
    except Problem:
        url = None  # the issuer does not answer: signed out here all the same
    return await page(request, None, "signed_out.html.j2", url=url)


@router.get("/static/{_digest}/{name}")
async def static(_digest: str, name: str) -> Response:
    """Style sheet and script."""
    found = asset(name)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这个文件。")
    return found


@router.get("")
async def home(request: Request, session: SignedIn) -> Response:
    """Where the officer's work is."""
    officer = session.officer
    for role, path in (
        (Role.OFFICER, "queue"),
        (Role.APPROVER, "queue?view=confirm"),
        (Role.SUPERVISOR, "overdue"),
        (Role.EXPERT, "experts"),
    ):
        if officer.holds(role):
            return RedirectResponse(f"/desk/{path}", HTTPStatus.SEE_OTHER)
    return await message(
        request,
        session,
        "您的账号没有工作台角色",
        "请联系本部门管理员，在统一身份认证中授予经办、复核、专家或督办角色，然后刷新本页；不需要重新登录。",
        HTTPStatus.FORBIDDEN,
        link=("/desk", "刷新"),
    )


@router.get("/help")
async def help_page(request: Request, session: SignedIn) -> Response:
    """Shortcuts, and how the desk works."""
    return await page(request, session, "help.html.j2")


# --- the queue


@router.get("/queue")
async def queue(
    request: Request,
    session: SignedIn,
    view: View = View.TODO,
    department: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Items of my departments, what is due first comes first."""
    codes = codes_of(request, session.officer, department)
    reviews, today, query = _reviews(request), api.today(), q.strip()
    note: str | None = None
    narrowed: dict[str, Any] | None = None
    if query:
        narrowed, note = await _search(request, codes, query)
        view = view if "view" in request.query_params else View.ALL
    limit = request.app.state.settings.desk_page_items
    found = await reviews.queue(
        codes, view, today, narrowed=narrowed, after=position_of(after), limit=limit + 1
    )
    more = len(found) > limit
    found = found[:limit]
    subjects, told = await subjects_of(request, [stored.review.subject_id for stored in found])
    catalogue: Catalogue = request.app.state.settings.catalogue
    rows = [presenters.row(stored, subjects, catalogue, today) for stored in found]
    return await page(
        request,
        session,
        "queue.html.j2",
        rows=rows,
        view=view,
        views=VIEW_TEXT,
        counts=await reviews.views(codes, today),
        departments=own_departments(request, session.officer),
        department=department,
        q=query,
        note=note or told,
        after=after,
        next="~".join(position(view, found[-1].review)) if more else None,
        link=lambda **changes: link_to(
            "/desk/queue", {"view": view.value, "department": department, "q": query} | changes
        ),
        bulk=[
            (action, ACTION_TEXT[action], len(presenters.may_bulk(rows, action)))
            for action in sorted(BULK, reverse=True)
        ]
        if session.officer.holds(Role.OFFICER)
        else [],
        today=today,
    )


@router.post("/queue/bulk")
async def bulk(request: Request, session: SignedIn, form: Posted) -> Response:
    """Do one thing to many items, of which every check has passed; first shown, then done. Each item stands for itself."""
    holds(session.officer, Role.OFFICER)
    action = Action(str(form.get("action", "")))
    chosen = [str(value).partition("~") for value in form.getlist("item")][:_MAX_BULK]
    officers = _officers(request)
    lines: list[dict[str, Any]] = []
    stored_of = {
        stored.review.item_id: stored
        for stored in await _reviews(request).where({"_id": {"$in": [item_id for item_id, _, _ in chosen]}})
        if stored.review.department.code in session.officer.departments
    }
    subjects, note = await subjects_of(request, [stored.review.subject_id for stored in stored_of.values()])
    catalogue: Catalogue = request.app.state.settings.catalogue
    confirmed = form.get("confirmed") == "yes"
    for item_id, _, seen in chosen:
        if item_id not in stored_of:
            continue
        row = presenters.row(stored_of[item_id], subjects, catalogue, api.today())
        line: dict[str, Any] = {
            "row": row,
            "seen": seen,
            "result": None,
            "ok": bool(presenters.may_bulk([row], action)),
        }
        if not line["ok"]:
            line["result"] = "核验没有全部通过，或者当前状态不能办理，请逐件审核"
        if confirmed:
            line["ok"], line["result"] = await _one_of_bulk(officers, session.officer, item_id, action, seen)
        lines.append(line)
    return await page(
        request,
        session,
        "bulk.html.j2",
        action=action,
        action_text=ACTION_TEXT[action],
        lines=lines,
        confirmed=confirmed,
        note=note,
        view=str(form.get("view", View.TODO.value)),
    )


async def _one_of_bulk(
    officers: Officers, officer: Claims, item_id: str, action: Action, seen: str
) -> tuple[bool, str]:
    try:
        effect = await officers.act(officer, item_id, Order(action), seen=version_of(seen), bulk=True)
    except StaleError:
        return False, "在您查看之后已有人办理，请打开后查看"
    except Problem as problem:
        return False, problem.detail
    words = {
        Effect.DONE: f"已{ACTION_TEXT[action]}",
        Effect.REPEATED: "此前已办理，没有重复生效",
        Effect.PROPOSED: "已提请复核",
    }
    return True, words[effect]


async def _search(request: Request, codes: list[str], query: str) -> tuple[dict[str, Any], str | None]:
    """What narrows a list to a 文号 (its beginning will do), an item id, a code, or part of a subject's name; and what to say of it."""
    number = normalise_document_number(query)
    ways: list[dict[str, Any]] = [
        {"_id": query},
        {"record.document_number": {"$regex": "^" + re.escape(number)}},
    ]
    cases: CaseDirectory = request.app.state.cases
    note: str | None = None
    try:
        try:
            code = normalise_uscc(query)
        except ValueError:
            limit = request.app.state.settings.desk_search_subjects
            known = await _reviews(request).subjects(codes, limit)
            named = await cases.subjects(known) if known else {}
            ways.append({"subject_id": {"$in": [id_ for id_, s in named.items() if query in s.name]}})
            if len(known) == limit:
                note = f"名称只在最近办理的 {limit} 个主体中查找；找不到时请用文号或统一社会信用代码查询。"
        else:
            kinds = (SubjectType.LEGAL_PERSON, SubjectType.SOLE_TRADER)
            ways.append({"subject_id": {"$in": [await cases.identify(kind, code) for kind in kinds]}})
    except AWAY as error:
        log.warning("intake does not answer", error=type(error).__name__)
        note = "受理端未应答，暂时只能按文号和事项编号查询，请稍后再按主体查询。"
    return {"$or": ways}, note


# --- one item


@router.get("/items/{item_id}")
async def item(
    request: Request,
    session: SignedIn,
    item_id: str,
    do: Do | None = None,
    view: View = View.TODO,
    material: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Everything an officer needs to decide; with ``do`` the form for it, with ``material`` that one opened."""
    reader(session.officer)
    stored = await _officers(request).find(session.officer, item_id)
    return await _item_page(request, session, stored, view, do=do, material=material)


async def _item_page(
    request: Request,
    session: Session,
    stored: StoredReview,
    view: View,
    *,
    do: Do | None = None,
    material: str = "",
    typed: Mapping[str, Any] | None = None,
    trouble: Mapping[str, Any] | None = None,
    status: int = 200,
) -> HTMLResponse:
    state, review, today = request.app.state, stored.review, api.today()
    catalogue: Catalogue = state.settings.catalogue
    case, case_note = await _case(request, review)
    panel = await state.panels.get(review.item_id)
    options = presenters.options(stored, session.officer, today, referred=panel is not None)
    possible = do is not None and any(option.do is do for option in options)
    known = [entry["by"] for entry in stored.history] + ([stored.proposal.by] if stored.proposal else [])
    kept = stored.verification or {}
    known += [kept["spot_check"]["by"]] if kept.get("spot_check") else []
    names = await sessions_of(request).names(known)
    rule = catalogue.rule_for(review.record.category, review.record.tier, None, today)
    subjects = {review.subject_id: case.subject} if case else {}
    given = dict(typed or {})
    if do and possible and "text" not in given:
        given["text"] = _start(do, stored, case, catalogue)
    codes = codes_of(request, session.officer, "")
    here = position(view, review)
    letter = _letter(request, session.officer, stored, case, do, given) if do and possible else None
    return await page(
        request,
        session,
        "item.html.j2",
        status,
        stored=stored,
        review=review,
        row=presenters.row(stored, subjects, catalogue, today),
        case=case,
        case_note=case_note,
        rule=rule,
        panel=panels.panel_view(panel, catalogue) if panel else None,
        history=presenters.history(stored, names),
        names=names,
        options=options,
        do=do if possible else None,
        unusable=do if do and not possible else None,
        DO_TEXT=DO_TEXT,
        HINT=HINT,
        TEXT_LABEL=TEXT_LABEL,
        Do=Do,
        worded=_WORDED,
        ACTION_TEXT=ACTION_TEXT,
        typed=given,
        trouble=trouble,
        letter=letter,
        needs_two=bool(
            do
            and do.value in {a.value for a in Action}
            and state.officers.needs_two(review, Action(do.value))
        ),
        version=version(stored),
        view=view,
        opened=next((m for m in case.materials if m.material_id == material), None) if case else None,
        fact_text=presenters.FACT_TEXT,
        following=await _beside(request, codes, view, here, review.item_id),
        preceding=await _beside(request, codes, view, here, review.item_id, backwards=True),
        due_of=presenters.due_words,
        today=today,
        LEVEL_TEXT=presenters.LEVEL_TEXT,
        in_person=catalogue.in_person_rule(review.record, today) if review.record.in_person else None,
        IN_PERSON=IN_PERSON,
    )


@router.post("/items/{item_id}/preview")
async def preview(request: Request, session: SignedIn, form: Posted, item_id: str) -> Response:
    """The letter as it would be with what is typed: a fragment for the script, the whole page without it."""
    reader(session.officer)
    stored = await _officers(request).find(session.officer, item_id)
    do, typed, view = _do(form), _typed(form), _view(form)
    if form.get("fragment") == "yes":
        case, _ = await _case(request, stored.review)
        return await page(
            request, None, "letter.html.j2", letter=_letter(request, session.officer, stored, case, do, typed)
        )
    return await _item_page(request, session, stored, view, do=do, typed=typed)


@router.post("/items/{item_id}/act")
async def act(request: Request, session: SignedIn, form: Posted, item_id: str) -> Response:
    """Do what the form says, then open the next item. Whoever was overtaken is told by whom, and finds his text again."""
    officer, officers = session.officer, _officers(request)
    reader(officer)
    do, typed, view = _do(form), _typed(form), _view(form)
    before = await officers.find(officer, item_id)
    seen = version_of(str(form.get("seen", "")))
    try:
        effect = await _done(request, officer, item_id, do, typed, seen)
    except (StaleError, Problem) as error:
        trouble, status = await trouble_of(request, error, "这个事项", presenters.step)
        stored = await officers.find(officer, item_id)
        return await _item_page(
            request, session, stored, view, do=do, typed=typed, trouble=trouble, status=status
        )
    words = DONE[do]
    if effect is Effect.PROPOSED:
        words = f"已提请复核（{DO_TEXT[do]}）"
    elif effect is Effect.REPEATED:
        words = f"{DO_TEXT[do]}此前已经生效，这次没有重复办理"
    following = await _beside(
        request, codes_of(request, officer, ""), view, position(view, before.review), item_id, around=True
    )
    notice = f"{words}：{before.review.record.document_number}。"
    notice += "已打开下一件。" if following else f"“{VIEW_TEXT[view]}”中没有其他事项了。"
    await sessions_of(request).notify(session, notice)
    where = f"/desk/items/{following}" if following else "/desk/queue"
    return RedirectResponse(link_to(where, {"view": view.value}), HTTPStatus.SEE_OTHER)


async def _done(
    request: Request, officer: Claims, item_id: str, do: Do, typed: Mapping[str, Any], seen: int | None
) -> Effect:
    officers, text = _officers(request), str(typed["text"])
    if do in TEXT_LABEL and not text:
        raise Problem(ProblemCode.VALIDATION, f"请填写{TEXT_LABEL[do]}。")
    if len(text) > _MAX_TEXT:
        raise Problem(ProblemCode.VALIDATION, f"内容有 {len(text)} 字，最多 {_MAX_TEXT} 字，请精简。")
    match do:
        case Do.CONFIRM:
            return await officers.confirm(officer, item_id, seen=seen)
        case Do.SEND_BACK:
            await officers.send_back(officer, item_id, text, seen=seen)
            return Effect.DONE
        case Do.SPOT_CHECK:
            finding = typed["finding"]
            if finding not in ("confirmed", "wrong"):
                raise Problem(ProblemCode.VALIDATION, "请选择核验结果无误或者有误。")
            kept = cast(Literal["confirmed", "wrong"], finding)
            await officers.spot_check(officer, item_id, kept, text, seen=seen)
            return Effect.DONE
        case Do.ACKNOWLEDGE:
            reason = reminders_api.AcknowledgedReminder(reason=text)
            await reminders_api.acknowledge_reminder(request, officer, item_id, reason)
            return Effect.DONE
        case Do.REFER:
            await panels.referred(request, officer, item_id, text)
            return Effect.DONE
    return await officers.act(officer, item_id, _order(do, typed), seen=seen)


def _order(do: Do, typed: Mapping[str, Any]) -> Order:
    text = str(typed["text"])
    if do is Do.REQUEST_SUPPLEMENT:
        missing = _missing(typed)
        if not missing:
            raise Problem(ProblemCode.VALIDATION, "请至少选择或填写一项需要补正的内容。")
        if len(missing) > _MAX_LINES or any(len(line) > _MAX_LINE for line in missing):
            raise Problem(
                ProblemCode.VALIDATION,
                f"需要补正的内容最多 {_MAX_LINES} 项，每项最多 {_MAX_LINE} 字，请合并或精简。",
            )
        return Order(Action.REQUEST_SUPPLEMENT, missing=missing)
    number = str(typed["number"]) or None
    if do in _REASONED:
        return Order(Action(do.value), number=number, reason=text)
    return Order(Action(do.value), number=number if do is Do.GRANT else None, text=text or None)


def _missing(typed: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*typed["missing"], *_lines(str(typed["free"]))]))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _typed(form: FormData) -> dict[str, Any]:
    texts = typed_lines(form, "text", "free", "number", "finding")
    return {**texts, "missing": [str(line).strip() for line in form.getlist("missing") if str(line).strip()]}


def _do(form: FormData) -> Do:
    try:
        return Do(str(form.get("do", "")))
    except ValueError:
        raise Problem(ProblemCode.VALIDATION, "表单内容有误，请返回事项页面重新操作。") from None


def _view(form: FormData) -> View:
    value = str(form.get("view", ""))
    return View(value) if value in list(View) else View.TODO


def _start(do: Do, stored: StoredReview, case: Case | None, catalogue: Catalogue) -> str:
    """What the officer starts from: the template's words, else ours."""
    if stored.review.record.in_person:
        return ""
    if case and do.value in {a.value for a in Action}:
        review, action = stored.review, Action(do.value)
        kind = kind_of(review.state, CHANGES[action][review.state], "")
        if kind and do is not Do.REQUEST_SUPPLEMENT:
            words = letters.default_text(kind, review, case.subject, datetime.now(UTC), catalogue)
            if words:
                return words
    return START.get(do, "")


def _letter(
    request: Request,
    officer: Claims,
    stored: StoredReview,
    case: Case | None,
    do: Do,
    typed: Mapping[str, Any],
) -> Markup | None:
    """The letter as the applicant would get it; None where there is none, or the applicant is not known now."""
    if case is None:
        return None
    officers: Officers = request.app.state.officers
    catalogue: Catalogue = request.app.state.settings.catalogue
    given = {"text": "", "free": "", "number": "", "finding": "", "missing": [], **typed}
    if do is Do.CONFIRM and stored.proposal:
        proposed = stored.proposal
        order = Order(proposed.action, proposed.number, proposed.reason, text=proposed.text)
    elif do.value in {a.value for a in Action}:
        try:
            order = _order(do, given)
        except Problem:
            return None
    else:
        return None
    command = officers.command(officer.sub, order)
    try:
        letter = letters.preview(stored.review, command, case.subject, datetime.now(UTC), catalogue)
    except (DecisionConflictError, NotAllowedError, NotAtDeskError, ValidationError):
        return None
    return as_html(letter) if letter else None


@router.get("/items/{item_id}/materials/{material_id}")
async def show_material(
    request: Request, session: SignedIn, item_id: str, material_id: str
) -> StreamingResponse:
    """A material of this item's application, to be looked at in place."""
    reader(session.officer)
    stored = await _officers(request).find(session.officer, item_id)
    return await material_response(request.app.state.cases, stored.review.application_id, material_id)


@router.get("/items/{item_id}/commitment")
async def show_commitment(request: Request, session: SignedIn, item_id: str) -> StreamingResponse:
    """The applicant's commitment as PDF."""
    reader(session.officer)
    stored = await _officers(request).find(session.officer, item_id)
    return await commitment_response(request.app.state.cases, stored.review.application_id)


@router.get("/items/{item_id}/letters/{letter_id}")
async def show_letter(request: Request, session: SignedIn, item_id: str, letter_id: str) -> Response:
    """A letter of this item as PDF."""
    reader(session.officer)
    return await letters_api.show_letter(request, session.officer, item_id, letter_id, LetterForm.PDF)


# --- experts


@router.get("/experts")
async def expert_queue(request: Request, session: SignedIn) -> Response:
    """Items I am asked to judge, the next due first."""
    holds(session.officer, Role.EXPERT)
    cases = await panels.expert_cases(request, session.officer)
    return await page(
        request, session, "experts.html.j2", cases=cases, today=api.today(), due_of=presenters.due_words
    )


@router.get("/experts/{item_id}")
async def expert_case(request: Request, session: SignedIn, item_id: str) -> Response:
    """One of them, with the form for an opinion. Without the subject's identity."""
    return await _expert_page(request, session, item_id)


async def _expert_page(
    request: Request,
    session: Session,
    item_id: str,
    typed: Mapping[str, str] | None = None,
    trouble: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    holds(session.officer, Role.EXPERT)
    cases = await panels.expert_cases(request, session.officer)
    found = next((case for case in cases if case.item_id == item_id), None)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有请您评审的这个事项，请刷新列表。")
    catalogue: Catalogue = request.app.state.settings.catalogue
    category = catalogue.category(found.record.category)
    return await page(
        request,
        session,
        "expert.html.j2",
        status,
        case=found,
        category=category.name if category else found.record.category,
        tier=presenters.TIER_TEXT.get(found.record.tier or ""),
        due=presenters.due_words(found.due_on, api.today()),
        over=found.due_on < api.today(),
        typed=typed or {"text": "", "vote": ""},
        trouble=trouble,
    )


@router.post("/experts/{item_id}/act")
async def opine(request: Request, session: SignedIn, form: Posted, item_id: str) -> Response:
    """Give an opinion, or step back because of a conflict of interest."""
    holds(session.officer, Role.EXPERT)
    typed = typed_lines(form, "text", "vote", "do")
    try:
        if typed["do"] == "conflict":
            await panels.declare(request, session.officer, item_id, panels.Conflict(reason=typed["text"]))
            words = "已回避，将另行抽取专家。"
        else:
            opinion = panels.NewOpinion.model_validate({"vote": typed["vote"], "text": typed["text"]})
            await panels.opine(request, session.officer, item_id, opinion)
            words = "意见已提交，不能再更改。"
    except ValidationError:
        trouble = "请选择意见，并填写理由（最多 5,000 字；回避的理由最多 500 字）。"
        return await _expert_page(request, session, item_id, typed, trouble, HTTPStatus.UNPROCESSABLE_ENTITY)
    except Problem as problem:
        if problem.code is ProblemCode.NOT_FOUND:
            raise
        return await _expert_page(request, session, item_id, typed, problem.detail, problem.status)
    await sessions_of(request).notify(session, words)
    return RedirectResponse("/desk/experts", HTTPStatus.SEE_OTHER)


# --- figures, and the credit centre


@router.get("/overdue")
async def overdue(
    request: Request, session: SignedIn, after: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """What is overdue at all departments, and how far reminders have got; without the subjects' identity."""
    holds(session.officer, Role.SUPERVISOR)
    reviews, today, served = _reviews(request), api.today(), request.app.state.departments
    limit = request.app.state.settings.desk_page_items
    catalogue: Catalogue = request.app.state.settings.catalogue
    found = await reviews.overdue_page(list(served), None, api.position(after or None), limit + 1)
    by_department = await reviews.overdue_by_department(list(served), today)
    objections: Objections = request.app.state.objections
    objected = await objections.overdue_page(list(served), None, None, limit + 1)
    last = found[limit - 1].review if len(found) > limit else None
    return await page(
        request,
        session,
        "overdue.html.j2",
        rows=[presenters.row(stored, {}, catalogue, today) for stored in found[:limit]],
        objections=[presenters.objection_row(each, {}, catalogue, today) for each in objected[:limit]],
        more_objections=len(objected) > limit,
        after=after,
        next=f"{last.overdue_told}~{last.item_id}" if last else None,
        departments=sorted(
            ((served[code], number, oldest) for code, (number, oldest) in by_department.items()),
            key=lambda line: (-line[1], line[0].name),
        ),
        today=today,
        due_of=presenters.due_words,
        LEVEL_TEXT=presenters.LEVEL_TEXT,
    )


@router.get("/figures")
async def figures_of_mine(request: Request, session: SignedIn) -> Response:
    """To the figures of my department, or to the departments to choose from."""
    mine = _viewed_departments(request, session.officer)
    if len(mine) == 1:
        return RedirectResponse(f"/desk/departments/{mine[0].code}/figures", HTTPStatus.SEE_OTHER)
    return await page(request, session, "departments.html.j2", departments=mine)


@router.get("/departments/{code}/figures")
async def figures(
    request: Request,
    session: SignedIn,
    code: str,
    first_day: Annotated[date | None, Query(alias="from")] = None,
    last_day: Annotated[date | None, Query(alias="to")] = None,
    form: Annotated[Literal["html", "csv"], Query(alias="format")] = "html",
) -> Response:
    """A department's figures of a period."""
    department = next((d for d in _viewed_departments(request, session.officer) if d.code == code), None)
    if department is None:
        raise Problem(ProblemCode.WRONG_DEPARTMENT, "您的账号不属于该部门；如需查看，请联系管理员授权。")
    if form == "csv":
        csv = figures_api.FiguresFormat.CSV
        return await figures_api.department_figures(
            request, session.officer, code, first_day, last_day, csv, None
        )
    (found,) = await figures_api.count(request, [department], first_day, last_day)
    return await page(
        request,
        session,
        "figures.html.j2",
        figures=found,
        STATE_TEXT=STATE_TEXT,
        several=len(_viewed_departments(request, session.officer)) > 1,
    )


# --- what these pages share


def _reviews(request: Request) -> Reviews:
    reviews: Reviews = request.app.state.reviews
    return reviews


def _officers(request: Request) -> Officers:
    officers: Officers = request.app.state.officers
    return officers


def _viewed_departments(request: Request, officer: Claims) -> list[Department]:
    """Whose figures somebody may see: a supervisor all, others their own."""
    if figures_api.oversees(officer):
        return list(request.app.state.departments.values())
    reader(officer)
    return own_departments(request, officer)


async def _beside(
    request: Request,
    codes: list[str],
    view: View,
    here: tuple[str, str],
    item_id: str,
    *,
    backwards: bool = False,
    around: bool = False,
) -> str | None:
    """The item after this one in a view, or before it; ``around``: after the last comes the first."""
    reviews, today = _reviews(request), api.today()
    found = await reviews.queue(codes, view, today, after=here, backwards=backwards, limit=1)
    if not found and around:
        found = await reviews.queue(codes, view, today, limit=2)
    return next((stored.review.item_id for stored in found if stored.review.item_id != item_id), None)


async def _case(request: Request, review: Review) -> tuple[Case | None, str | None]:
    if review.record.in_person:
        return None, "不经平台办理，不显示"
    return await api.application_case(request.app.state.cases, review.application_id)
