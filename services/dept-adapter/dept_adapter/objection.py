"""Pure decisions on objections (异议): to a record this department made, or to the result of an item it decided.

Publication goes on meanwhile. What follows from an upheld objection to a result happens to the review (``states``: reopen, restore).
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal

from contracts.clock import china_date
from contracts.events import (
    Event,
    ObjectionAccepted,
    ObjectionDecided,
    ObjectionDueConfirmed,
    ObjectionForwarded,
    ObjectionKind,
    ObjectionOutcome,
    ObjectionOverdue,
    ObjectionRemedy,
    ObjectionWithdrawn,
    ReviewStep,
)
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import LIBRARY_CALENDAR, Count, WorkCalendar
from dept_adapter.domain import (
    DecisionConflictError,
    counted_again,
    counts_as_told,
    is_provisional,
    missing_year,
)
from dept_adapter.states import (
    OBJECTION_CHANGES,
    OBJECTION_ENDED,
    OBJECTION_REPEATED,
    OBJECTION_STATE_TEXT,
    ObjectionAction,
    ObjectionState,
)


@dataclass(frozen=True)
class Objection:
    """One objection at its department. ``item_id``, ``application_id``: of the result; of an objection to a record, its own id.

    ``reason``: the department's. ``accept_count``, ``decide_count``: how its days were counted. ``overdue_told``: the deadline that was noticed to have passed.
    """

    objection_id: str
    kind: ObjectionKind
    subject_id: str
    record_id: str
    application_id: str
    item_id: str
    department: DepartmentRef
    record: RecordFacts
    accept_due_on: date
    decide_due_on: date
    received_at: datetime
    state: ObjectionState = ObjectionState.RECEIVED
    accepted_at: datetime | None = None
    reason: str | None = None
    remedy: ObjectionRemedy | None = None
    decided_at: datetime | None = None
    by: str | None = None
    overdue_told: date | None = None
    accept_count: Count | None = None
    decide_count: Count | None = None

    @property
    def due_on(self) -> date | None:
        """The department's last day for what it owes now; None: nothing."""
        return self._owed[0]

    @property
    def is_provisional(self) -> bool:
        """Whether that day is not certain: nobody is late before it is."""
        return is_provisional(self._owed[1])

    @property
    def _owed(self) -> tuple[date | None, Count | None]:
        match self.state:
            case ObjectionState.RECEIVED:
                return self.accept_due_on, self.accept_count
            case ObjectionState.ACCEPTED:
                return self.decide_due_on, self.decide_count
        return None, None

    @property
    def missing_year(self) -> int | None:
        """The first year whose working days would make a deadline of an open objection certain."""
        return None if self.due_on is None else missing_year(self.accept_count, self.decide_count)

    @property
    def step(self) -> ReviewStep:
        """What is owed until the objection has ended."""
        return ReviewStep.ACCEPT if self.state is ObjectionState.RECEIVED else ReviewStep.DECIDE


@dataclass(frozen=True)
class Ruling:
    """What an officer says. ``record``: of an upheld objection to a record, as it is to be published; None: as it is."""

    action: ObjectionAction
    by: str
    reason: str | None = None
    remedy: ObjectionRemedy | None = None
    record: RecordFacts | None = None


@dataclass(frozen=True)
class Correction:
    """What an upheld objection to a record leads to: it is withdrawn, or corrected in these."""

    remedy: Literal["withdrawn", "corrected"]
    decided_on: date | None = None
    penalty_kinds: str | None = None


@dataclass(frozen=True)
class Said:
    """What an officer says of an objection. ``reason``: not of accepting; ``text``: own words in the letter, of accepting only.

    ``correction``: of an upheld objection to a record; objections to results have none.
    """

    action: ObjectionAction
    reason: str | None = None
    text: str | None = None
    correction: Correction | None = None


@dataclass(frozen=True)
class ObjectionProposal:
    """A decision that an officer proposed and that another has still to confirm (四眼, 复核)."""

    said: Said
    by: str
    at: datetime


def receive_objection(event: ObjectionForwarded, calendar: WorkCalendar = LIBRARY_CALENDAR) -> Objection:
    """The objection a department is asked to decide. Its days are those that everybody was told, however the calendar here counts."""
    accept_count, decide_count = counts_as_told(event, china_date(event.forwarded_at), calendar)
    return Objection(
        **event.model_dump(
            include={"objection_id", "kind", "subject_id", "record_id", "application_id", "item_id"}
        ),
        department=event.department,
        record=event.record,
        accept_due_on=event.accept_due_on,
        decide_due_on=event.decide_due_on,
        received_at=event.forwarded_at,
        accept_count=accept_count,
        decide_count=decide_count,
    )


_WITHOUT_ACCEPTANCE = (ObjectionState.NOT_ACCEPTED, ObjectionState.WITHDRAWN)


def rule_on(objection: Objection, ruling: Ruling, now: datetime) -> tuple[Objection, tuple[Event, ...]]:
    """Apply what an officer, or the subject, says; no events: it was said before. A decision without an acceptance implies it.

    Raises DecisionConflictError for what contradicts the decision made.
    """
    then = OBJECTION_CHANGES[ruling.action].get(objection.state)
    if then is None:
        same_remedy = ruling.remedy in (None, objection.remedy)
        if objection.state in OBJECTION_REPEATED[ruling.action] and same_remedy:
            return objection, ()
        raise DecisionConflictError(
            f"该异议现为“{OBJECTION_STATE_TEXT[objection.state]}”，与本次不一致，本次未生效；请刷新后核对。"
        )
    changed = replace(objection, state=then, by=ruling.by, overdue_told=None)
    events: list[Event] = []
    about = _about(objection)
    if objection.accepted_at is None and then not in _WITHOUT_ACCEPTANCE:
        changed = replace(changed, accepted_at=now)
        events.append(ObjectionAccepted(**about, accepted_at=now))
    if then is ObjectionState.WITHDRAWN:
        return changed, (ObjectionWithdrawn(**about, withdrawn_at=now),)
    if then in OBJECTION_ENDED:
        changed = replace(changed, reason=ruling.reason, remedy=ruling.remedy, decided_at=now)
        decided = {
            "outcome": ObjectionOutcome(then.value),
            "reason": ruling.reason,
            "remedy": ruling.remedy,
            "record": ruling.record or objection.record,
            "decided_at": now,
        }
        events.append(ObjectionDecided.model_validate({**about, **decided}))
    return changed, tuple(events)


def notice_objection_day(objection: Objection, now: datetime) -> tuple[Objection, tuple[Event, ...]]:
    """A deadline that has passed is told once; the objection goes on."""
    due_on = objection.due_on
    if due_on is None or china_date(now) <= due_on or objection.overdue_told == due_on:
        return objection, ()
    if objection.is_provisional:
        return objection, ()
    event = ObjectionOverdue(**_about(objection), step=objection.step, due_on=due_on, noticed_at=now)
    return replace(objection, overdue_told=due_on), (event,)


def confirm_objection(
    objection: Objection, calendar: WorkCalendar, now: datetime
) -> tuple[Objection, tuple[Event, ...]]:
    """Count provisional days again whose missing year is known now, and tell. Nothing while it is not."""
    if objection.missing_year is None or not calendar.knows(objection.missing_year):
        return objection, ()
    accept = counted_again(objection.accept_due_on, objection.accept_count, calendar)
    decide_by = counted_again(objection.decide_due_on, objection.decide_count, calendar)
    changed = replace(
        objection,
        accept_due_on=accept.on,
        accept_count=accept.count,
        decide_due_on=decide_by.on,
        decide_count=decide_by.count,
    )
    event = ObjectionDueConfirmed(
        **_about(objection),
        accept_due_on=accept.on,
        decide_due_on=decide_by.on,
        due_provisional=changed.missing_year is not None,
        calendar_version=calendar.version,
        confirmed_at=now,
    )
    return changed, (event,)


def _about(objection: Objection) -> dict[str, Any]:
    return {
        "objection_id": objection.objection_id,
        "kind": objection.kind,
        "subject_id": objection.subject_id,
        "record_id": objection.record_id,
        "application_id": objection.application_id,
        "item_id": objection.item_id,
        "department": objection.department,
    }
