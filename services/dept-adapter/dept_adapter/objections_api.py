"""HTTP for officers who decide objections (异议), scope ``desk``."""

from datetime import date, datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints, model_validator

from chassis.cases import CaseDirectory
from contracts.events import ObjectionKind, ObjectionRemedy, ReminderLevel, ReviewStep
from contracts.http.objection import ObjectionCase
from contracts.records import DepartmentRef, RecordFacts
from contracts.tokens import Claims
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.api import Officer, Reasoned, position, served, today
from dept_adapter.figures_api import Viewer, only_overseers
from dept_adapter.intake_side import looked_up
from dept_adapter.issuing import Letters
from dept_adapter.letters_api import LetterView
from dept_adapter.materials import FILE, objection_material
from dept_adapter.objection import Correction, Said
from dept_adapter.objections import Objections, StoredObjection
from dept_adapter.reminders import level_of
from dept_adapter.reminders_api import AcknowledgedReminder
from dept_adapter.rulings import Rulings
from dept_adapter.states import OBJECTION_STATE_TEXT, ObjectionAction, ObjectionState, State
from dept_adapter.views import ReminderView

router = APIRouter(prefix="/v1", tags=["异议"])


class ObjectionStepView(BaseModel):
    """One step of the objection's history."""

    at: datetime
    state: ObjectionState
    by: str
    detail: str | None = None
    letter_id: str | None = None


class ObjectionProposalView(BaseModel):
    """A decision that awaits its confirmation by a second officer."""

    action: ObjectionAction
    reason: str | None
    by: str
    at: datetime


class ObjectionSummary(BaseModel):
    """An objection in a list. ``due_on``: the department's last day for what it owes now; ``overdue``: it has passed; ``due_provisional``: its year is not published yet.

    ``item_id``: the item whose result is objected to; null for an objection to the record. ``reason``: the department's.
    ``proposal``: a decision that awaits a second officer.
    """

    objection_id: str
    kind: ObjectionKind
    state: ObjectionState
    state_text: str
    department: DepartmentRef
    record: RecordFacts
    item_id: str | None
    accept_due_on: date
    decide_due_on: date
    received_at: datetime
    accepted_at: datetime | None
    reason: str | None
    remedy: ObjectionRemedy | None
    decided_at: datetime | None
    by: str | None
    due_on: date | None
    due_provisional: bool
    overdue: bool
    reminders: list[ReminderView]
    proposal: ObjectionProposalView | None


class ObjectionDetail(ObjectionSummary):
    """An objection with its history and, where intake answers, the subject's words. ``case_note`` (zh-CN): why ``case`` is null.

    ``result_state``: where the review whose result is objected to stands now.
    """

    history: list[ObjectionStepView]
    result_state: State | None = None
    case: ObjectionCase | None = None
    case_note: str | None = None


class OverdueObjection(BaseModel):
    """An objection whose last day has passed: never what it is about. ``level``: how far up reminders have got."""

    objection_id: str
    kind: ObjectionKind
    department: DepartmentRef
    state: ObjectionState
    step: ReviewStep
    due_on: date
    working_days_late: int
    level: ReminderLevel | None
    reminders: list[ReminderView]


class OverdueObjections(BaseModel):
    """The longest overdue first. Ask again with ``after`` = ``next`` while it is not null."""

    objections: list[OverdueObjection]
    next: str | None = Field(description="Opaque position")


class ObjectionPage(BaseModel):
    """Ask again with ``after`` = ``next`` while it is not null."""

    objections: list[ObjectionSummary]
    next: str | None = Field(description="Opaque position")


class Uphold(Reasoned):
    """Body of uphold. To a record: whether it is withdrawn, or corrected in ``decided_on``, ``penalty_kinds`` or both. To a result: only the reason."""

    remedy: Literal["withdrawn", "corrected"] | None = None
    decided_on: date | None = None
    penalty_kinds: Annotated[
        str | None, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
    ] = None

    @model_validator(mode="after")
    def _corrects_something(self) -> Self:
        corrects = self.decided_on is not None or self.penalty_kinds is not None
        if corrects != (self.remedy == "corrected"):
            raise ValueError("remedy 为 corrected 时填写 decided_on 或 penalty_kinds，其他时候不填")
        return self


def _fields(stored: StoredObjection) -> dict[str, object]:
    objection = stored.objection
    result = objection.kind is ObjectionKind.RESULT
    proposed = stored.proposal
    return {
        **vars(objection),
        "item_id": objection.item_id if result else None,
        "state_text": OBJECTION_STATE_TEXT[objection.state],
        "due_on": objection.due_on,
        "due_provisional": objection.is_provisional,
        "overdue": objection.due_on is not None and objection.due_on == objection.overdue_told,
        "reminders": stored.reminders,
        "proposal": proposed and {**vars(proposed), **vars(proposed.said)},
    }


def _summary(stored: StoredObjection) -> ObjectionSummary:
    return ObjectionSummary.model_validate(_fields(stored), from_attributes=True)


@router.get("/departments/{code}/objections", summary="部门的异议")
async def list_objections(
    request: Request,
    officer: Officer,
    code: str,
    state: ObjectionState | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ObjectionPage:
    """In order of the day by which the department has to decide. Also of departments with a system of their own."""
    served(request, officer, code)
    objections: Objections = request.app.state.objections
    found = await objections.page(code, state, position(after), limit)
    last = found[-1].objection if len(found) == limit else None
    return ObjectionPage(
        objections=[_summary(stored) for stored in found],
        next=f"{last.decide_due_on.isoformat()}~{last.objection_id}" if last else None,
    )


async def objection_case(cases: CaseDirectory, objection_id: str) -> tuple[ObjectionCase | None, str | None]:
    """What the subject wrote, or why (zh-CN) it cannot be shown."""
    return await looked_up(
        cases.objections([objection_id]),
        objection_id,
        what="申请人的理由和材料",
        unknown="受理端查无该异议，请联系平台管理员核实。",
    )


@router.get("/objections/{objection_id}", summary="异议详情")
async def show_objection(request: Request, officer: Officer, objection_id: str) -> ObjectionDetail:
    """With the subject's reason and materials, as long as intake answers."""
    rulings = _rulings(request)
    stored = await rulings.find(officer, objection_id)
    shown = ObjectionDetail.model_validate(
        {**_fields(stored), "history": stored.history}, from_attributes=True
    )
    review = await rulings.review(stored.objection)
    shown.result_state = review.state if review else None
    shown.case, shown.case_note = await objection_case(request.app.state.cases, objection_id)
    return shown


@router.get(
    "/objections/{objection_id}/materials/{material_id}",
    summary="查看异议的材料",
    response_class=StreamingResponse,
    responses=FILE,
)
async def show_objection_material(
    request: Request, officer: Officer, objection_id: str, material_id: str
) -> StreamingResponse:
    """The content of a material of this objection, to be looked at in place; nothing in it is run."""
    await _rulings(request).find(officer, objection_id)
    return await objection_material(request.app.state.cases, objection_id, material_id)


@router.get("/objections/{objection_id}/letters", summary="异议的文书")
async def list_objection_letters(request: Request, officer: Officer, objection_id: str) -> list[LetterView]:
    """In the order of the steps they tell of."""
    await _rulings(request).find(officer, objection_id)
    letters: Letters = request.app.state.letters
    found = await letters.of_item(objection_id)
    return [LetterView.model_validate(each, from_attributes=True) for each in found]


@router.post("/objections/{objection_id}/accept", summary="受理异议")
async def accept_objection(request: Request, officer: Officer, objection_id: str) -> ObjectionSummary:
    """Accept the objection and verify it. Repeating it, also after the decision, changes nothing."""
    return await _rule(request, officer, objection_id, Said(ObjectionAction.ACCEPT))


@router.post("/objections/{objection_id}/not-accept", summary="不予受理异议")
async def not_accept_objection(
    request: Request, officer: Officer, objection_id: str, body: Reasoned
) -> ObjectionSummary:
    """Do not accept the objection: it ends. Repeating it changes nothing; after an acceptance it is a 409 problem."""
    return await _rule(request, officer, objection_id, Said(ObjectionAction.NOT_ACCEPT, body.reason))


@router.post("/objections/{objection_id}/dismiss", summary="异议不成立")
async def dismiss_objection(
    request: Request, officer: Officer, objection_id: str, body: Reasoned
) -> ObjectionSummary:
    """The objection is not upheld. Repeating it changes nothing; after an upheld one it is a 409 problem.

    Where the department has it confirmed by a second officer, it is only proposed: ``proposal`` in the answer.
    """
    return await _rule(request, officer, objection_id, Said(ObjectionAction.DISMISS, body.reason))


@router.post("/objections/{objection_id}/uphold", summary="异议成立")
async def uphold_objection(
    request: Request, officer: Officer, objection_id: str, body: Uphold
) -> ObjectionSummary:
    """The objection is right. To a record: it is withdrawn or corrected. To a refusal: the item is reopened, here at the desk. To a
    revocation: the repair is granted again, and every target follows.

    Where the department has it confirmed by a second officer, it is only proposed: ``proposal`` in the answer.
    """
    correction = Correction(body.remedy, body.decided_on, body.penalty_kinds) if body.remedy else None
    said = Said(ObjectionAction.UPHOLD, body.reason, correction=correction)
    return await _rule(request, officer, objection_id, said)


@router.post("/objections/{objection_id}/confirm", summary="异议复核通过")
async def confirm_objection(request: Request, officer: Officer, objection_id: str) -> ObjectionSummary:
    """Make the decision that another officer proposed (role ``approver``). Repeating it changes nothing."""
    await _rulings(request).confirm(officer, objection_id)
    return _summary(await _rulings(request).find(officer, objection_id))


@router.post("/objections/{objection_id}/send-back", summary="异议复核退回")
async def send_back_objection(
    request: Request, officer: Officer, objection_id: str, body: Reasoned
) -> ObjectionSummary:
    """Give a proposal back with a reason; whoever proposed it may take it back."""
    await _rulings(request).send_back(officer, objection_id, body.reason)
    return _summary(await _rulings(request).find(officer, objection_id))


@router.post("/objections/{objection_id}/acknowledge-reminder", summary="确认异议的催办")
async def acknowledge_objection_reminder(
    request: Request, officer: Officer, objection_id: str, body: AcknowledgedReminder
) -> ObjectionSummary:
    """Say why the objection is not decided yet: its level is reminded no more, until the next level's day.

    Repeating it changes nothing: the first reason stays. Without a reminder of what is owed now it is a 409 problem.
    """
    await _rulings(request).acknowledge(officer, objection_id, body.reason)
    return _summary(await _rulings(request).find(officer, objection_id))


@router.get("/overdue/objections", summary="超期异议")
async def list_overdue_objections(
    request: Request,
    viewer: Viewer,
    level: Annotated[ReminderLevel | None, Query(description="催办已到的层级；不填为全部")] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OverdueObjections:
    """全部所接部门超期未办的异议，最久的在前，只有编号和期限，不含内容。需要督办角色（supervisor）或运维权限。"""
    only_overseers(viewer)
    objections: Objections = request.app.state.objections
    codes = list(request.app.state.departments)
    found = await objections.overdue_page(codes, level, position(after), limit)
    last = found[-1].objection if len(found) == limit else None
    return OverdueObjections(
        objections=[_overdue(stored, today()) for stored in found],
        next=f"{last.overdue_told}~{last.objection_id}" if last else None,
    )


def _overdue(stored: StoredObjection, day: date) -> OverdueObjection:
    objection, due_on = stored.objection, stored.objection.due_on
    if due_on is None:
        raise ValueError(f"nothing is owed for {objection.objection_id}")
    late = {
        "due_on": due_on,
        "step": objection.step,
        "working_days_late": LIBRARY_CALENDAR.working_days_between(due_on, day),
        "level": level_of(objection, stored.reminders),
        "reminders": stored.reminders,
    }
    return OverdueObjection.model_validate({**vars(objection), **late}, from_attributes=True)


async def _rule(request: Request, officer: Claims, objection_id: str, said: Said) -> ObjectionSummary:
    rulings = _rulings(request)
    await rulings.rule(officer, objection_id, said)
    return _summary(await rulings.find(officer, objection_id))


def _rulings(request: Request) -> Rulings:
    rulings: Rulings = request.app.state.rulings
    return rulings
