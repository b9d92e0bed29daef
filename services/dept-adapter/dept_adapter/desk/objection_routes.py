"""The pages of the review desk for objections (异议). What officers do is done by ``rulings``, as by the API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from markupsafe import Markup
from pydantic import ValidationError
from starlette.datastructures import FormData

from chassis.letter import as_html
from chassis.letter_form import LetterForm, letter_response
from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.errors import ProblemCode
from contracts.events import ObjectionKind
from contracts.http.objection import ObjectionCase
from contracts.records import IN_PERSON
from contracts.tokens import Claims, Role
from dept_adapter import letters
from dept_adapter.api import today
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    codes_of,
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
from dept_adapter.desk.pages import DeskRoute, page
from dept_adapter.desk.sessions import Session
from dept_adapter.domain import DecisionConflictError, Review
from dept_adapter.issuing import Letters
from dept_adapter.letters import REMEDY_TEXT, objection_kind
from dept_adapter.materials import objection_material
from dept_adapter.objection import Correction, Said
from dept_adapter.objections import Objections, ObjectionView, StoredObjection, position
from dept_adapter.objections_api import Uphold, objection_case
from dept_adapter.officers import Effect, StaleError
from dept_adapter.reminders_api import AcknowledgedReminder
from dept_adapter.rulings import Rulings
from dept_adapter.states import (
    OBJECTION_ACTION_TEXT,
    OBJECTION_CHANGES,
    OBJECTION_STATE_TEXT,
    STATE_TEXT,
    ObjectionAction,
)

router = APIRouter(prefix="/desk/objections", include_in_schema=False, route_class=DeskRoute)
VIEW_TEXT = {
    ObjectionView.TODO: "待办",
    ObjectionView.OVERDUE: "逾期",
    ObjectionView.CONFIRM: "待复核",
    ObjectionView.ENDED: "已办结",
    ObjectionView.ALL: "全部",
}
_KEYS = {
    ObjectionAction.ACCEPT: "a",
    ObjectionAction.UPHOLD: "g",
    ObjectionAction.DISMISS: "r",
    ObjectionAction.NOT_ACCEPT: "n",
}
"""What an officer may do, in the order of the page, and its letter."""
_HINTS = {
    ObjectionAction.ACCEPT: "受理后开始核查，申请人收到受理通知书。公示不因异议停止。",
    ObjectionAction.UPHOLD: "认定成立后立即生效：记录更正或撤回，或者原结果不再有效；申请人收到核查结果。",
    ObjectionAction.DISMISS: "认定不成立须说明理由，申请人收到核查结果和救济途径。",
    ObjectionAction.NOT_ACCEPT: "不予受理须说明理由，该异议随即办结。",
}
_DONE = {
    ObjectionAction.ACCEPT: "异议已受理",
    ObjectionAction.UPHOLD: "异议已认定成立",
    ObjectionAction.DISMISS: "异议已认定不成立",
    ObjectionAction.NOT_ACCEPT: "异议已不予受理",
}
_TEXT_LABELS = {
    ObjectionAction.ACCEPT: "文书中的补充说明（可以留空）",
    ObjectionAction.UPHOLD: "核查情况",
    ObjectionAction.DISMISS: "不成立的理由",
    ObjectionAction.NOT_ACCEPT: "不予受理的理由",
}
_MAX_TEXT = 2000
_TYPED = ("text", "remedy", "decided_on", "penalty_kinds")


@router.get("")
async def queue(
    request: Request,
    session: SignedIn,
    view: ObjectionView = ObjectionView.TODO,
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Objections of my departments, what is due first comes first."""
    codes, day = codes_of(request, session.officer, ""), today()
    limit = request.app.state.settings.desk_page_items
    found = await _objections(request).queue(codes, view, day, after=position_of(after), limit=limit + 1)
    more, found = len(found) > limit, found[:limit]
    subjects, note = await subjects_of(request, [stored.objection.subject_id for stored in found])
    catalogue: Catalogue = request.app.state.settings.catalogue
    return await page(
        request,
        session,
        "objections.html.j2",
        rows=[presenters.objection_row(stored, subjects, catalogue, day) for stored in found],
        view=view,
        views=VIEW_TEXT,
        counts=await _objections(request).views(codes, day),
        departments=own_departments(request, session.officer),
        note=note,
        after=after,
        next="~".join(position(view, found[-1].objection)) if more else None,
        link=lambda **changes: link_to("/desk/objections", {"view": view.value} | changes),
    )


@router.get("/{objection_id}")
async def objection(
    request: Request,
    session: SignedIn,
    objection_id: str,
    do: ObjectionAction | None = None,
    view: ObjectionView = ObjectionView.TODO,
    material: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Everything an officer needs to decide; with ``do`` the form for it, with ``material`` that one opened."""
    reader(session.officer)
    stored = await _rulings(request).find(session.officer, objection_id)
    return await _page(request, session, stored, view, do=do, material=material)


async def _page(
    request: Request,
    session: Session,
    stored: StoredObjection,
    view: ObjectionView,
    *,
    do: ObjectionAction | None = None,
    material: str = "",
    typed: Mapping[str, str] | None = None,
    trouble: Mapping[str, Any] | None = None,
    status: int = 200,
) -> HTMLResponse:
    found, day = stored.objection, today()
    catalogue: Catalogue = request.app.state.settings.catalogue
    case, note = await _case(request, stored)
    review = await _rulings(request).review(found)
    may, proposal, sub = session.officer.holds(Role.OFFICER), stored.proposal, session.officer.sub
    possible = [
        action for action in _KEYS if may and not proposal and found.state in OBJECTION_CHANGES[action]
    ]
    approves, own = session.officer.holds(Role.APPROVER), proposal is not None and proposal.by == sub
    given = dict(typed or {})
    if do in possible and "text" not in given:
        given["text"] = _start(do, stored, case, catalogue)
    said = proposal.said if proposal else _tried(do, given) if do in possible else None
    here, codes = position(view, found), codes_of(request, session.officer, "")

    async def beside(*, backwards: bool) -> str | None:
        return await _beside(request, codes, view, here, found.objection_id, backwards=backwards)

    return await page(
        request,
        session,
        "objection.html.j2",
        status,
        objection=found,
        row=presenters.objection_row(
            stored, {found.subject_id: case.subject} if case else {}, catalogue, day
        ),
        case=case,
        case_note=note,
        review=review,
        result=STATE_TEXT[review.state] if review else None,
        history=[
            presenters.objection_step(entry, await _names(request, stored))
            for entry in reversed(stored.history)
        ],
        may_acknowledge=may,
        proposal=proposal,
        may_confirm=proposal and approves and not own,
        may_send_back=proposal and (approves or own),
        second=do in possible and _rulings(request).needs_two(found, do),
        names=await _names(request, stored),
        LEVEL_TEXT=presenters.LEVEL_TEXT,
        options=[(action, OBJECTION_ACTION_TEXT[action], _KEYS[action]) for action in possible],
        do=do if do in possible else None,
        unusable=do if do and do not in possible else None,
        ACTION_TEXT=OBJECTION_ACTION_TEXT,
        STATE_TEXT=OBJECTION_STATE_TEXT,
        REMEDY_TEXT=REMEDY_TEXT,
        HINTS=_HINTS,
        TEXT_LABELS=_TEXT_LABELS,
        Do=ObjectionAction,
        of_record=found.kind is ObjectionKind.RECORD,
        typed=given,
        trouble=trouble,
        letter=_letter(request, session.officer, stored, review, case, said),
        version=len(stored.history),
        view=view,
        opened=next((m for m in case.materials if m.material_id == material), None) if case else None,
        following=await beside(backwards=False),
        preceding=await beside(backwards=True),
        in_person=catalogue.in_person_rule(found.record, day) if found.record.in_person else None,
        IN_PERSON=IN_PERSON,
    )


@router.post("/{objection_id}/preview")
async def preview(request: Request, session: SignedIn, form: Posted, objection_id: str) -> Response:
    """The letter as it would be with what is typed: a fragment for the script, the whole page without it."""
    reader(session.officer)
    stored = await _rulings(request).find(session.officer, objection_id)
    do, typed = _do(form), typed_lines(form, *_TYPED)
    if form.get("fragment") == "yes":
        case, _ = await _case(request, stored)
        review = await _rulings(request).review(stored.objection)
        letter = _letter(request, session.officer, stored, review, case, _tried(do, typed))
        return await page(request, None, "letter.html.j2", letter=letter)
    return await _page(request, session, stored, _view(form), do=do, typed=typed)


@router.post("/{objection_id}/act")
async def act(request: Request, session: SignedIn, form: Posted, objection_id: str) -> Response:
    """Do what the form says, then open the next one. Whoever was overtaken is told by whom, and finds his text again."""
    officer, rulings = session.officer, _rulings(request)
    reader(officer)
    do, typed, view = _do(form), typed_lines(form, *_TYPED), _view(form)
    before = await rulings.find(officer, objection_id)
    try:
        seen = version_of(str(form.get("seen", "")))
        effect = await rulings.rule(officer, objection_id, _said(do, typed), seen=seen)
    except (StaleError, Problem) as error:
        trouble, status = await trouble_of(request, error, "这件异议", presenters.objection_step)
        stored = await rulings.find(officer, objection_id)
        return await _page(request, session, stored, view, do=do, typed=typed, trouble=trouble, status=status)
    words = _DONE[do]
    if effect is Effect.REPEATED:
        words = f"{OBJECTION_ACTION_TEXT[do]}此前已经生效，这次没有重复办理"
    if effect is Effect.PROPOSED:
        words = f"已提请复核“{OBJECTION_ACTION_TEXT[do]}”，由另一名复核人员确认后生效"
    return await _onwards(request, session, before, view, words)


async def _onwards(
    request: Request, session: Session, before: StoredObjection, view: ObjectionView, words: str
) -> RedirectResponse:
    """Say what was done, and open the next one of the view."""
    codes, here = codes_of(request, session.officer, ""), position(view, before.objection)
    following = await _beside(request, codes, view, here, before.objection.objection_id)
    notice = f"{words}：{before.objection.record.document_number}。" + ("已打开下一件。" if following else "")
    await sessions_of(request).notify(session, notice)
    where = f"/desk/objections/{following}" if following else "/desk/objections"
    return RedirectResponse(link_to(where, {"view": view.value}), HTTPStatus.SEE_OTHER)


@router.post("/{objection_id}/second")
async def second(request: Request, session: SignedIn, form: Posted, objection_id: str) -> Response:
    """Confirm what another officer proposed, or send it back; then open the next one."""
    officer, rulings, view = session.officer, _rulings(request), _view(form)
    reader(officer)
    before = await rulings.find(officer, objection_id)
    confirms, reason = form.get("do") == "confirm", typed_lines(form, "reason").get("reason", "").strip()
    try:
        seen = version_of(str(form.get("seen", "")))
        if confirms:
            await rulings.confirm(officer, objection_id, seen=seen)
        elif not reason or len(reason) > _MAX_TEXT:
            raise Problem(ProblemCode.VALIDATION, f"退回须说明理由，最多{_MAX_TEXT}字。")
        else:
            await rulings.send_back(officer, objection_id, reason, seen=seen)
    except (StaleError, Problem) as error:
        trouble, status = await trouble_of(request, error, "这件异议", presenters.objection_step)
        stored = await rulings.find(officer, objection_id)
        typed = {"reason": reason}
        return await _page(request, session, stored, view, typed=typed, trouble=trouble, status=status)
    return await _onwards(request, session, before, view, "复核已通过" if confirms else "已退回经办")


@router.post("/{objection_id}/acknowledge")
async def acknowledge(request: Request, session: SignedIn, form: Posted, objection_id: str) -> Response:
    """Say why an objection of which somebody was reminded is not decided yet."""
    reader(session.officer)
    view, reason = _view(form), typed_lines(form, "reason").get("reason", "")
    try:
        said = AcknowledgedReminder(reason=reason)
    except ValidationError as error:
        raise Problem(ProblemCode.VALIDATION, "请填写尚未办结的原因，最多2000字。") from error
    await _rulings(request).acknowledge(session.officer, objection_id, said.reason)
    await sessions_of(request).notify(session, "已说明催办。")
    where = link_to(f"/desk/objections/{objection_id}", {"view": view.value})
    return RedirectResponse(where, HTTPStatus.SEE_OTHER)


@router.get("/{objection_id}/materials/{material_id}")
async def show_material(
    request: Request, session: SignedIn, objection_id: str, material_id: str
) -> StreamingResponse:
    """A material of this objection, to be looked at in place."""
    reader(session.officer)
    await _rulings(request).find(session.officer, objection_id)
    return await objection_material(request.app.state.cases, objection_id, material_id)


@router.get("/{objection_id}/letters/{letter_id}")
async def show_letter(request: Request, session: SignedIn, objection_id: str, letter_id: str) -> Response:
    """A letter of this objection as PDF."""
    reader(session.officer)
    await _rulings(request).find(session.officer, objection_id)
    kept: Letters = request.app.state.letters
    issued = await kept.get(letter_id)
    if issued is None or issued.item_id != objection_id:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份文书，请刷新页面后重试。")
    press, name = request.app.state.letter_press, issued.number or issued.title
    return await letter_response(press, issued.letter, issued.content, LetterForm.PDF, name)


# --- what these pages share


def _objections(request: Request) -> Objections:
    objections: Objections = request.app.state.objections
    return objections


def _rulings(request: Request) -> Rulings:
    rulings: Rulings = request.app.state.rulings
    return rulings


async def _case(request: Request, stored: StoredObjection) -> tuple[ObjectionCase | None, str | None]:
    if stored.objection.record.in_person:
        return None, "不经平台办理，不显示"
    return await objection_case(request.app.state.cases, stored.objection.objection_id)


async def _names(request: Request, stored: StoredObjection) -> Mapping[str, str]:
    return await sessions_of(request).names(entry["by"] for entry in stored.history)


async def _beside(
    request: Request,
    codes: list[str],
    view: ObjectionView,
    here: tuple[str, str],
    objection_id: str,
    *,
    backwards: bool = False,
) -> str | None:
    found = await _objections(request).queue(codes, view, today(), after=here, backwards=backwards, limit=1)
    return next((s.objection.objection_id for s in found if s.objection.objection_id != objection_id), None)


def _do(form: FormData) -> ObjectionAction:
    value = str(form.get("do", ""))
    if value not in list(_KEYS):
        raise Problem(ProblemCode.VALIDATION, "表单内容有误，请返回异议页面重新操作。")
    return ObjectionAction(value)


def _view(form: FormData) -> ObjectionView:
    value = str(form.get("view", ""))
    return ObjectionView(value) if value in list(ObjectionView) else ObjectionView.TODO


def _said(do: ObjectionAction, typed: Mapping[str, str]) -> Said:
    """What the form says. Raises Problem VALIDATION."""
    text = typed.get("text") or None
    if do is ObjectionAction.ACCEPT:
        return Said(do, text=text)
    if text is None:
        raise Problem(ProblemCode.VALIDATION, f"请填写{_TEXT_LABELS[do]}。")
    if do is not ObjectionAction.UPHOLD or not typed.get("remedy"):
        return Said(do, text)
    corrects = typed["remedy"] == "corrected"
    given = {name: typed.get(name) or None if corrects else None for name in ("decided_on", "penalty_kinds")}
    try:
        body = Uphold.model_validate({"reason": text, "remedy": typed["remedy"], **given})
    except ValidationError as error:
        asked = "更正的，请填写应有的认定日期（如2026-01-31）或处罚类别；文字最多2000字。"
        raise Problem(ProblemCode.VALIDATION, asked) from error
    correction = Correction(body.remedy, body.decided_on, body.penalty_kinds) if body.remedy else None
    return Said(do, body.reason, correction=correction)


def _start(
    do: ObjectionAction | None, stored: StoredObjection, case: ObjectionCase | None, catalogue: Catalogue
) -> str:
    """What the officer starts from: the template's words."""
    if do is None or case is None:
        return ""
    kind = objection_kind(stored.objection.state, OBJECTION_CHANGES[do][stored.objection.state])
    if kind is None:
        return ""
    return letters.objection_text(kind, stored.objection, case.subject, datetime.now(UTC), catalogue)


def _tried(do: ObjectionAction | None, typed: Mapping[str, str]) -> Said | None:
    """What the form says so far; None: not yet something that can be said."""
    try:
        return None if do is None else _said(do, typed)
    except Problem:
        return None


def _letter(
    request: Request,
    officer: Claims,
    stored: StoredObjection,
    review: Review | None,
    case: ObjectionCase | None,
    said: Said | None,
) -> Markup | None:
    """The letter as the applicant would get it; None where it cannot be told yet, or the applicant is not known now."""
    if case is None or said is None:
        return None
    catalogue: Catalogue = request.app.state.settings.catalogue
    try:
        ruling = _rulings(request).ruling(officer.sub, stored.objection, said, review)
        letter = letters.preview_objection(
            stored.objection, ruling, said.text, case.subject, datetime.now(UTC), catalogue
        )
    except (DecisionConflictError, Problem, ValidationError):
        return None
    return as_html(letter) if letter else None
