"""Pure decisions of dept-adapter: what a review may become, and which events that leads to.

Everything that happens to a review goes through ``TRANSITIONS``: the department's system, its officers, and the pushing
of reviews to it.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from contracts.events import Event, RepairGranted, RepairRefused, ReviewAccepted, ReviewRequested
from contracts.records import DepartmentRef, RecordFacts


class State(StrEnum):
    """Where a review stands. ``undeliverable``: the department's system refuses to take it, so its officers decide."""

    RECEIVED = "received"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"
    ACCEPTED = "accepted"
    GRANTED = "granted"
    REFUSED = "refused"


DECIDED = frozenset({State.GRANTED, State.REFUSED})


class Action(StrEnum):
    """What can happen to a review."""

    DELIVER = "deliver"
    GIVE_UP = "give_up"
    ACCEPT = "accept"
    GRANT = "grant"
    REFUSE = "refuse"


TRANSITIONS: dict[tuple[State, Action], State | None] = {
    (State.RECEIVED, Action.DELIVER): State.DELIVERED,
    (State.RECEIVED, Action.GIVE_UP): State.UNDELIVERABLE,
    (State.RECEIVED, Action.ACCEPT): State.ACCEPTED,
    (State.RECEIVED, Action.GRANT): State.GRANTED,
    (State.RECEIVED, Action.REFUSE): State.REFUSED,
    (State.DELIVERED, Action.DELIVER): State.DELIVERED,
    (State.DELIVERED, Action.GIVE_UP): State.DELIVERED,
    (State.DELIVERED, Action.ACCEPT): State.ACCEPTED,
    (State.DELIVERED, Action.GRANT): State.GRANTED,
    (State.DELIVERED, Action.REFUSE): State.REFUSED,
    # a push whose lease had run out may still be answered: the department has the review after all
    (State.UNDELIVERABLE, Action.DELIVER): State.DELIVERED,
    (State.UNDELIVERABLE, Action.GIVE_UP): State.UNDELIVERABLE,
    (State.UNDELIVERABLE, Action.ACCEPT): State.ACCEPTED,
    (State.UNDELIVERABLE, Action.GRANT): State.GRANTED,
    (State.UNDELIVERABLE, Action.REFUSE): State.REFUSED,
    # a department may call back before its answer to the push is here
    (State.ACCEPTED, Action.DELIVER): State.ACCEPTED,
    (State.ACCEPTED, Action.GIVE_UP): State.ACCEPTED,
    (State.ACCEPTED, Action.ACCEPT): State.ACCEPTED,
    (State.ACCEPTED, Action.GRANT): State.GRANTED,
    (State.ACCEPTED, Action.REFUSE): State.REFUSED,
    (State.GRANTED, Action.DELIVER): State.GRANTED,
    (State.GRANTED, Action.GIVE_UP): State.GRANTED,
    (State.GRANTED, Action.ACCEPT): State.GRANTED,
    (State.GRANTED, Action.GRANT): State.GRANTED,
    (State.GRANTED, Action.REFUSE): None,
    (State.REFUSED, Action.DELIVER): State.REFUSED,
    (State.REFUSED, Action.GIVE_UP): State.REFUSED,
    (State.REFUSED, Action.ACCEPT): State.REFUSED,
    (State.REFUSED, Action.GRANT): None,
    (State.REFUSED, Action.REFUSE): State.REFUSED,
}
"""(state, what happens) -> next state; None: it contradicts the decision made. The same state again: a repetition."""


def changed_by(action: Action) -> list[State]:
    """The states that ``action`` changes; for the conditions of bulk writes."""
    return [
        state for (state, what), after in TRANSITIONS.items() if what is action and after not in (state, None)
    ]


@dataclass(frozen=True)
class Decision:
    """A decision made: its number, its reason (refusals only), when, and by whom (officer, or ``callback``)."""

    number: str
    reason: str | None
    decided_at: datetime
    by: str


@dataclass(frozen=True)
class Review:
    """One item at its department. ``at_desk``: officers decide here, not the department's own system."""

    item_id: str
    application_id: str
    record_id: str
    subject_id: str
    department: DepartmentRef
    record: RecordFacts
    accept_due_on: date
    decide_due_on: date
    requested_at: datetime
    at_desk: bool
    state: State = State.RECEIVED
    accepted_at: datetime | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Command:
    """What happened, mostly what a department says. ``number`` belongs to grants and refusals, ``reason`` to refusals.

    ``occurred_at``: when it happened by the department's clock; None: now. ``from_desk``: an officer says it here.
    """

    action: Action
    by: str
    from_desk: bool
    number: str | None = None
    reason: str | None = None
    occurred_at: datetime | None = None


@dataclass(frozen=True)
class Transition:
    """The review afterwards, and the events to publish. No events: it was a repetition."""

    review: Review
    events: tuple[Event, ...]


class DecisionConflictError(ValueError):
    """The command contradicts the decision made. The message (zh-CN) can be shown."""


class NotAtDeskError(ValueError):
    """The department's own system decides on this review. The message (zh-CN) can be shown."""


_WORDS = {State.GRANTED: "准予修复", State.REFUSED: "不予修复"}


def receive(requested: ReviewRequested, *, at_desk: bool) -> Review:
    """The review a department is asked for."""
    return Review(
        item_id=requested.item_id,
        application_id=requested.application_id,
        record_id=requested.record_id,
        subject_id=requested.subject_id,
        department=requested.department,
        record=requested.record,
        accept_due_on=requested.accept_due_on,
        decide_due_on=requested.decide_due_on,
        requested_at=requested.requested_at,
        at_desk=at_desk,
    )


def decide(review: Review, command: Command, now: datetime) -> Transition:
    """Apply what happened to a review. A decision without an acceptance before it implies the acceptance.

    Times the department tells are kept between the last known step and ``now``: a wrong clock cannot put a decision before
    its request or into the future. Raises DecisionConflictError and NotAtDeskError; ValueError when a decision has no number.
    """
    if command.from_desk and not review.at_desk:
        raise NotAtDeskError(f"“{review.department.name}”以自有系统办理该事项，请在该系统中受理和决定。")
    after = TRANSITIONS[review.state, command.action]
    decision = review.decision
    if after is None or (
        after is review.state and decision and command.number and command.number != decision.number
    ):
        number = decision.number if decision else ""
        raise DecisionConflictError(
            f"该事项已于此前作出“{_WORDS[review.state]}”决定（{number}），与本次不一致，本次未生效；请核对决定文书。"
        )
    if after is review.state:
        return Transition(review, ())
    if command.action in (Action.DELIVER, Action.GIVE_UP):
        given_up = command.action is Action.GIVE_UP
        return Transition(replace(review, state=after, at_desk=review.at_desk or given_up), ())
    at = max(min(command.occurred_at or now, now), review.accepted_at or review.requested_at)
    events: list[Event] = []
    result = replace(review, state=after)
    if review.accepted_at is None:
        result = replace(result, accepted_at=at)
        events.append(
            ReviewAccepted(
                application_id=review.application_id,
                item_id=review.item_id,
                record_id=review.record_id,
                subject_id=review.subject_id,
                department=review.department,
                accepted_at=at,
            )
        )
    if after in DECIDED:
        if not command.number:
            raise ValueError("a decision needs its number")
        result = replace(result, decision=Decision(command.number, command.reason, at, command.by))
        events.append(_decision_event(result))
    return Transition(result, tuple(events))


def _decision_event(review: Review) -> RepairGranted | RepairRefused:
    decision = review.decision
    assert decision is not None  # noqa: S101 (the caller has just set it)
    facts = {
        "application_id": review.application_id,
        "item_id": review.item_id,
        "record_id": review.record_id,
        "subject_id": review.subject_id,
        "department": review.department,
        "record": review.record,
        "decision_number": decision.number,
        "decided_at": decision.decided_at,
    }
    if review.state is State.GRANTED:
        return RepairGranted.model_validate(facts)
    return RepairRefused.model_validate({**facts, "reason": decision.reason})


def decision_number(short_name: str, action: Action, year: int, serial: int) -> str:
    """Number of a decision made at the desk: 机关简称 + 信修 or 不予信修 + 〔year〕 + serial within department and year + 号."""
    kind = "信修" if action is Action.GRANT else "不予信修"
    return f"{short_name}{kind}〔{year}〕{serial}号"
