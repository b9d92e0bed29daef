"""Pure decisions of dept-adapter: what a review may become, and which events that leads to.

Everything that happens to a review goes through ``TRANSITIONS``: the department's system, its officers, and the pushing
of reviews to it.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from contracts.events import (
    Event,
    RepairGranted,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewRequested,
)
from contracts.records import DepartmentRef, RecordFacts


class State(StrEnum):
    """Where a review stands. ``undeliverable``: the department's system refuses to take it, so its officers decide."""

    RECEIVED = "received"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"
    ACCEPTED = "accepted"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"


DECIDED = frozenset({State.GRANTED, State.REFUSED, State.REVOKED})

_TICK = timedelta(milliseconds=1)
"""As fine as the database keeps a time: a time read back is earlier than the one told by less than this."""


class Action(StrEnum):
    """What can happen to a review."""

    DELIVER = "deliver"
    GIVE_UP = "give_up"
    ACCEPT = "accept"
    GRANT = "grant"
    REFUSE = "refuse"
    REVOKE = "revoke"


TRANSITIONS: dict[tuple[State, Action], State | None] = {
    (State.RECEIVED, Action.DELIVER): State.DELIVERED,
    (State.RECEIVED, Action.GIVE_UP): State.UNDELIVERABLE,
    (State.RECEIVED, Action.ACCEPT): State.ACCEPTED,
    (State.RECEIVED, Action.GRANT): State.GRANTED,
    (State.RECEIVED, Action.REFUSE): State.REFUSED,
    (State.RECEIVED, Action.REVOKE): None,
    (State.DELIVERED, Action.DELIVER): State.DELIVERED,
    (State.DELIVERED, Action.GIVE_UP): State.DELIVERED,
    (State.DELIVERED, Action.ACCEPT): State.ACCEPTED,
    (State.DELIVERED, Action.GRANT): State.GRANTED,
    (State.DELIVERED, Action.REFUSE): State.REFUSED,
    (State.DELIVERED, Action.REVOKE): None,
    # a push whose lease had run out may still be answered: the department has the review after all
    (State.UNDELIVERABLE, Action.DELIVER): State.DELIVERED,
    (State.UNDELIVERABLE, Action.GIVE_UP): State.UNDELIVERABLE,
    (State.UNDELIVERABLE, Action.ACCEPT): State.ACCEPTED,
    (State.UNDELIVERABLE, Action.GRANT): State.GRANTED,
    (State.UNDELIVERABLE, Action.REFUSE): State.REFUSED,
    (State.UNDELIVERABLE, Action.REVOKE): None,
    # a department may call back before its answer to the push is here
    (State.ACCEPTED, Action.DELIVER): State.ACCEPTED,
    (State.ACCEPTED, Action.GIVE_UP): State.ACCEPTED,
    (State.ACCEPTED, Action.ACCEPT): State.ACCEPTED,
    (State.ACCEPTED, Action.GRANT): State.GRANTED,
    (State.ACCEPTED, Action.REFUSE): State.REFUSED,
    (State.ACCEPTED, Action.REVOKE): None,
    (State.GRANTED, Action.DELIVER): State.GRANTED,
    (State.GRANTED, Action.GIVE_UP): State.GRANTED,
    (State.GRANTED, Action.ACCEPT): State.GRANTED,
    (State.GRANTED, Action.GRANT): State.GRANTED,
    (State.GRANTED, Action.REFUSE): None,
    (State.GRANTED, Action.REVOKE): State.REVOKED,
    (State.REFUSED, Action.DELIVER): State.REFUSED,
    (State.REFUSED, Action.GIVE_UP): State.REFUSED,
    (State.REFUSED, Action.ACCEPT): State.REFUSED,
    (State.REFUSED, Action.GRANT): None,
    (State.REFUSED, Action.REFUSE): State.REFUSED,
    (State.REFUSED, Action.REVOKE): None,
    (State.REVOKED, Action.DELIVER): State.REVOKED,
    (State.REVOKED, Action.GIVE_UP): State.REVOKED,
    (State.REVOKED, Action.ACCEPT): State.REVOKED,
    # the grant that was revoked may be reported again, late
    (State.REVOKED, Action.GRANT): State.REVOKED,
    (State.REVOKED, Action.REFUSE): None,
    (State.REVOKED, Action.REVOKE): State.REVOKED,
}
"""(state, what happens) -> next state; None: it contradicts the decision made, or there is no grant to revoke.

The same state again: a repetition.
"""


def changed_by(action: Action) -> list[State]:
    """The states that ``action`` changes; for the conditions of bulk writes."""
    return [
        state for (state, what), after in TRANSITIONS.items() if what is action and after not in (state, None)
    ]


@dataclass(frozen=True)
class Decision:
    """A decision made: its number, its reason (not of grants), when, and by whom (officer, or ``callback``)."""

    number: str
    reason: str | None
    decided_at: datetime
    by: str


@dataclass(frozen=True)
class Review:
    """One item at its department. ``at_desk``: officers decide here, not the department's own system.

    ``revocation``: of the grant that ``decision`` is.
    """

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
    revocation: Decision | None = None


@dataclass(frozen=True)
class Command:
    """What happened, mostly what a department says. ``number`` belongs to decisions, ``reason`` to refusals and revocations.

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
    """The command contradicts the decision made, or revokes what was not granted. The message (zh-CN) can be shown."""


class NotAtDeskError(ValueError):
    """The department's own system decides on this review. The message (zh-CN) can be shown."""


_WORDS = {State.GRANTED: "准予修复", State.REFUSED: "不予修复", State.REVOKED: "撤销修复"}


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
    its request or into the future. A revocation is always later than its grant, by a millisecond at least.
    Raises DecisionConflictError and NotAtDeskError; ValueError when a decision has no number.
    """
    if command.from_desk and not review.at_desk:
        raise NotAtDeskError(f"“{review.department.name}”以自有系统办理该事项，请在该系统中受理和决定。")
    after = TRANSITIONS[review.state, command.action]
    made = review.revocation if command.action is Action.REVOKE else review.decision
    if after is None or (after is review.state and made and command.number and command.number != made.number):
        raise DecisionConflictError(_contradiction(review))
    if after is review.state:
        return Transition(review, ())
    if command.action in (Action.DELIVER, Action.GIVE_UP):
        given_up = command.action is Action.GIVE_UP
        return Transition(replace(review, state=after, at_desk=review.at_desk or given_up), ())
    last = review.decision.decided_at + _TICK if review.decision else review.accepted_at
    at = max(min(command.occurred_at or now, now), last or review.requested_at)
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
        made = Decision(command.number, command.reason, at, command.by)
        revoked = after is State.REVOKED
        result = replace(result, revocation=made) if revoked else replace(result, decision=made)
        events.append(_decision_event(result, made))
    return Transition(result, tuple(events))


def _contradiction(review: Review) -> str:
    made = review.revocation or review.decision
    if made is None:
        return "该事项尚未准予修复，无可撤销，本次未生效；请先作出（或告知）准予修复的决定，再撤销。"
    return (
        f"该事项已于此前作出“{_WORDS[review.state]}”决定（{made.number}），与本次不一致，本次未生效；"
        "请核对决定文书。"
    )


def _decision_event(review: Review, decision: Decision) -> Event:
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
    kind = RepairRevoked if review.state is State.REVOKED else RepairRefused
    return kind.model_validate({**facts, "reason": decision.reason})


_NUMBER_WORDS = {Action.GRANT: "信修", Action.REFUSE: "不予信修", Action.REVOKE: "撤销信修"}


def decision_number(short_name: str, action: Action, year: int, serial: int) -> str:
    """Number of a decision made at the desk: 机关简称 + 信修, 不予信修 or 撤销信修 + 〔year〕 + serial + 号.

    One series of serials for each department and year.
    """
    return f"{short_name}{_NUMBER_WORDS[action]}〔{year}〕{serial}号"
