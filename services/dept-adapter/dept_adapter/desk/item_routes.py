"""The page of one item at the review desk. What officers do is done by ``officers``, as by the API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from markupsafe import Markup
from pydantic import ValidationError
from starlette.datastructures import FormData

from chassis.letter import as_html
from chassis.letter_form import LetterForm
from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.errors import ProblemCode
from contracts.http.intake import Case
from contracts.records import IN_PERSON
from contracts.tokens import Claims
from dept_adapter import api, letters, letters_api, panels, reminders_api
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    codes_of,
    link_to,
    officers_of,
    reader,
    reviews_of,
    sessions_of,
    trouble_of,
    typed_lines,
    version_of,
)
from dept_adapter.desk.pages import DeskRoute, page
from dept_adapter.desk.sessions import Session
from dept_adapter.desk.texts import DO_TEXT, DONE, HINT, START, TEXT_LABEL, VIEW_TEXT, Do
from dept_adapter.domain import DecisionConflictError, NotAllowedError, NotAtDeskError, Review
from dept_adapter.letters import kind_of
from dept_adapter.materials import commitment_response, material_response
from dept_adapter.officers import (
    Effect,
    Officers,
    Order,
    StaleError,
    version,
)
from dept_adapter.states import ACTION_TEXT, CHANGES, Action
from dept_adapter.store import StoredReview, View, position

_MAX_LINES, _MAX_LINE, _MAX_TEXT = 20, 500, 2000
_REASONED = frozenset({Do.REFUSE, Do.NOT_ACCEPT, Do.EXTEND, Do.REVOKE})
_WORDED = frozenset({Do.ACCEPT, Do.GRANT})
"""Their letters have words of the officer, which are no reason."""


router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


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
    stored = await officers_of(request).find(session.officer, item_id)
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
    stored = await officers_of(request).find(session.officer, item_id)
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
    officer, officers = session.officer, officers_of(request)
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
    officers, text = officers_of(request), str(typed["text"])
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
    stored = await officers_of(request).find(session.officer, item_id)
    return await material_response(request.app.state.cases, stored.review.application_id, material_id)


@router.get("/items/{item_id}/commitment")
async def show_commitment(request: Request, session: SignedIn, item_id: str) -> StreamingResponse:
    """The applicant's commitment as PDF."""
    reader(session.officer)
    stored = await officers_of(request).find(session.officer, item_id)
    return await commitment_response(request.app.state.cases, stored.review.application_id)


@router.get("/items/{item_id}/letters/{letter_id}")
async def show_letter(request: Request, session: SignedIn, item_id: str, letter_id: str) -> Response:
    """A letter of this item as PDF."""
    reader(session.officer)
    return await letters_api.show_letter(request, session.officer, item_id, letter_id, LetterForm.PDF)


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
    reviews, today = reviews_of(request), api.today()
    found = await reviews.queue(codes, view, today, after=here, backwards=backwards, limit=1)
    if not found and around:
        found = await reviews.queue(codes, view, today, limit=2)
    return next((stored.review.item_id for stored in found if stored.review.item_id != item_id), None)


async def _case(request: Request, review: Review) -> tuple[Case | None, str | None]:
    if review.record.in_person:
        return None, "不经平台办理，不显示"
    return await api.application_case(request.app.state.cases, review.application_id)
