"""Pure decisions of dept-adapter: what a review may become, and which events that leads to.

Everything that happens to a review goes through the table of ``states``: the department's system, its officers, the pushing of
reviews to it, the applicant, and the days that pass.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from contracts.clock import china_date
from contracts.events import (
    Event,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewExtended,
    ReviewNotAccepted,
    ReviewOverdue,
    ReviewRequested,
    ReviewStep,
    ReviewWithdrawn,
    SupplementReceived,
    SupplementRequested,
    WithdrawalReason,
)
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import Deadline, working_days_after, working_days_between
from dept_adapter.states import DECIDED, Action, State, after

AUTOMATIC = "verification"
"""Who decided when no person did: every condition was verified, and the department lets such items through."""
_TICK = timedelta(milliseconds=1)
"""As fine as the database keeps a time: a time read back is earlier than the one told by less than this."""


@dataclass(frozen=True)
class Decision:
    """A decision made: its number, its reason (not of grants), when, and by whom (officer, or ``callback``)."""

    number: str
    reason: str | None
    decided_at: datetime
    by: str


@dataclass(frozen=True)
class Supplement:
    """What was found missing, told once. ``requested_on``, ``due_on``: days in China; ``received_at``: None while it is awaited."""

    missing: tuple[str, ...]
    requested_on: date
    due_on: date
    received_at: datetime | None = None


@dataclass(frozen=True)
class Review:
    """One item at its department. ``at_desk``: officers decide here, not the department's own system.

    ``revocation``: of the grant that ``decision`` is. ``extend_working_days``: by how many the decision may be put off, once; None:
    not at all. ``note``: why it was not accepted, or put off. ``overdue_told``: the deadline that was noticed to have passed.
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
    extend_working_days: int | None = None
    supplement: Supplement | None = None
    note: str | None = None
    overdue_told: date | None = None

    @property
    def due_on(self) -> date | None:
        """The last day of whoever has to act now: the department, or the applicant who has to supplement. None: nobody has."""
        match self.state:
            case State.RECEIVED | State.DELIVERED | State.UNDELIVERABLE:
                return self.accept_due_on
            case State.SUPPLEMENT:
                return self.supplement.due_on if self.supplement else None
            case State.ACCEPTED | State.EXTENDED:
                return self.decide_due_on
        return None


@dataclass(frozen=True)
class Command:
    """What happened, mostly what a department says. ``number`` belongs to decisions.

    ``reason`` belongs to refusals, revocations, extensions and what is not accepted; ``missing`` to a supplement that is asked for,
    ``supplement_working_days`` being the applicant's time; ``platform``, id and name, to a repair made elsewhere. ``occurred_at``: when it happened by the department's clock; None: now.
    ``from_desk``: an officer says it here. ``text``: the officer's words in the letter, where the step itself keeps none.
    """

    action: Action
    by: str
    from_desk: bool
    number: str | None = None
    reason: str | None = None
    occurred_at: datetime | None = None
    missing: tuple[str, ...] = ()
    supplement_working_days: int = 0
    platform: tuple[str, str] | None = None
    text: str | None = None


@dataclass(frozen=True)
class Proposal:
    """A decision that an officer proposed and that another has still to confirm (四眼, 复核). ``text``: as of Command."""

    action: Action
    by: str
    at: datetime
    number: str | None = None
    reason: str | None = None
    text: str | None = None

    def same(self, command: Command) -> bool:
        """Whether a command proposes it again."""
        mine = (self.action, self.by, self.reason, self.text)
        return mine == (command.action, command.by, command.reason, command.text)


@dataclass(frozen=True)
class Transition:
    """The review afterwards, and the events to publish. No events: it was a repetition."""

    review: Review
    events: tuple[Event, ...]


class DecisionConflictError(ValueError):
    """The command contradicts the decision made, or revokes what was not granted. The message (zh-CN) can be shown."""


class NotAtDeskError(ValueError):
    """The department's own system decides on this review. The message (zh-CN) can be shown."""


class NotAllowedError(ValueError):
    """The rules do not allow it now: a second supplement, an extension too late. The message (zh-CN) can be shown."""


_WORDS = {
    State.GRANTED: "准予修复",
    State.REFUSED: "不予修复",
    State.REVOKED: "撤销修复",
    State.NOT_ACCEPTED: "不予受理",
    State.RECOGNISED: "认可别处的修复",
}


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
        extend_working_days=requested.extend_working_days,
    )


def decide(review: Review, command: Command, now: datetime) -> Transition:
    """Apply what happened to a review. A decision without an acceptance before it implies the acceptance.

    Times the department tells are kept between the last known step and ``now``: a wrong clock cannot put a decision before
    its request or into the future. A revocation is always later than its grant, by a millisecond at least.
    Raises DecisionConflictError, NotAtDeskError and NotAllowedError; ValueError when a decision has no number.
    """
    if command.from_desk and not review.at_desk:
        raise NotAtDeskError(f"“{review.department.name}”以自有系统办理该事项，请在该系统中受理和决定。")
    state = after(review.state, command.action)
    made = review.revocation if command.action is Action.REVOKE else review.decision
    other = made is not None and command.number is not None and command.number != made.number
    # what is recognised was decided elsewhere, under a number of its own
    if state is None or (state is review.state and other and review.state is not State.RECOGNISED):
        if command.action is Action.REQUEST_SUPPLEMENT and _same_supplement(review, command):
            return Transition(review, ())
        raise DecisionConflictError(_contradiction(review))
    if state is review.state:
        if command.action is Action.REQUEST_SUPPLEMENT and not _same_supplement(review, command):
            raise NotAllowedError(_TOLD_ONCE)
        return Transition(review, ())
    result = replace(review, state=state)
    if command.action in (Action.DELIVER, Action.GIVE_UP):
        given_up = command.action is Action.GIVE_UP
        return Transition(replace(result, at_desk=review.at_desk or given_up), ())
    # another deadline runs now, perhaps to the same day
    review, result = (replace(each, overdue_told=None) for each in (review, result))
    last = review.decision.decided_at + _TICK if review.decision else review.accepted_at
    at = max(min(command.occurred_at or now, now), last or review.requested_at)
    match command.action:
        case Action.REQUEST_SUPPLEMENT:
            return _request_supplement(review, command, at)
        case Action.SUPPLEMENT:
            return _supplement(review, at)
        case Action.EXTEND:
            return _extend(review, command, at)
        case Action.NOT_ACCEPT:
            event = ReviewNotAccepted(**_about(review), reason=command.reason, not_accepted_at=at)
            return Transition(replace(result, note=command.reason), (event,))
        case Action.WITHDRAW | Action.LAPSE:
            by_applicant = command.action is Action.WITHDRAW
            why = WithdrawalReason.APPLICANT if by_applicant else WithdrawalReason.SUPPLEMENT_OVERDUE
            return Transition(result, (ReviewWithdrawn(**_about(review), reason_code=why, withdrawn_at=at),))
        case Action.RECOGNISE:
            return _recognise(result, command, at)
    events: list[Event] = []
    if review.accepted_at is None and review.state is not State.RECOGNISED:
        result = replace(result, accepted_at=at)
        events.append(ReviewAccepted(**_about(review), accepted_at=at))
    if state in DECIDED:
        if not command.number:
            raise ValueError("a decision needs its number")
        made = Decision(command.number, command.reason, at, command.by)
        revoked = state is State.REVOKED
        result = replace(result, revocation=made) if revoked else replace(result, decision=made)
        events.append(_decision_event(result, made))
    return Transition(result, tuple(events))


def notice_day(review: Review, now: datetime) -> Transition:
    """What follows from the day it is: a deadline that has passed is told once, a supplement that did not come ends the item.

    Nothing when no deadline has passed, or it was told.
    """
    due_on = review.due_on
    if due_on is None or china_date(now) <= due_on or review.overdue_told == due_on:
        return Transition(review, ())
    if review.state is State.SUPPLEMENT:
        return decide(review, Command(Action.LAPSE, by="clock", from_desk=False), now)
    step = ReviewStep.DECIDE if review.accepted_at else ReviewStep.ACCEPT
    event = ReviewOverdue(**_about(review), step=step, due_on=due_on, noticed_at=now)
    return Transition(replace(review, overdue_told=due_on), (event,))


_TOLD_ONCE = (
    "需要补正的内容应一次性告知，该事项此前已经告知过补正，不能再次告知；请据现有材料受理或者不予受理。"
)


def _same_supplement(review: Review, command: Command) -> bool:
    return review.supplement is not None and review.supplement.missing == command.missing


def _request_supplement(review: Review, command: Command, at: datetime) -> Transition:
    if review.supplement is not None:
        if _same_supplement(review, command):
            return Transition(review, ())
        raise NotAllowedError(_TOLD_ONCE)
    today = china_date(at)
    due = working_days_after(today, command.supplement_working_days)
    asked = Supplement(command.missing, today, due.on)
    event = SupplementRequested(
        **_about(review),
        missing=command.missing,
        supplement_due_on=due.on,
        due_provisional=due.provisional,
        requested_at=at,
    )
    return Transition(replace(review, state=State.SUPPLEMENT, supplement=asked), (event,))


def _supplement(review: Review, at: datetime) -> Transition:
    """The clocks run again: each step keeps the working days it had left when the supplement was asked for, one at least."""
    asked = review.supplement
    if asked is None:
        raise ValueError(f"{review.item_id} awaits a supplement that nobody asked for")
    left = max(1, working_days_between(asked.requested_on, review.accept_due_on))
    accept_due = working_days_after(china_date(at), left)
    decide_due = _later(accept_due, working_days_between(review.accept_due_on, review.decide_due_on))
    event = SupplementReceived(
        **_about(review),
        accept_due_on=accept_due.on,
        decide_due_on=decide_due.on,
        due_provisional=decide_due.provisional,
        received_at=at,
    )
    received = replace(
        review,
        state=State.RECEIVED,
        supplement=replace(asked, received_at=at),
        accept_due_on=accept_due.on,
        decide_due_on=decide_due.on,
    )
    return Transition(received, (event,))


def _extend(review: Review, command: Command, at: datetime) -> Transition:
    if review.extend_working_days is None:
        raise NotAllowedError("规则目录中没有该类记录延长办理期限的规定，请在期限内作出决定。")
    if china_date(at) > review.decide_due_on:
        day = review.decide_due_on.isoformat()
        raise NotAllowedError(f"办理期限已于{day}届满，延期须在期限届满前作出并告知申请人。")
    due = working_days_after(review.decide_due_on, review.extend_working_days)
    event = ReviewExtended(
        **_about(review),
        reason=command.reason,
        decide_due_on=due.on,
        due_provisional=due.provisional,
        extended_at=at,
    )
    extended = replace(review, state=State.EXTENDED, decide_due_on=due.on, note=command.reason)
    return Transition(extended, (event,))


def _recognise(review: Review, command: Command, at: datetime) -> Transition:
    if not command.number or command.platform is None:
        raise ValueError("what is recognised needs its number and its platform")
    platform_id, platform_name = command.platform
    made = Decision(command.number, None, at, platform_id)
    event = RepairRecognised(
        **_about(review),
        record=review.record,
        decision_number=command.number,
        decided_at=at,
        platform_id=platform_id,
        platform_name=platform_name,
    )
    return Transition(replace(review, decision=made, note=f"{platform_name}已修复"), (event,))


def _later(start: Deadline, working_days: int) -> Deadline:
    found = working_days_after(start.on, working_days)
    return Deadline(found.on, found.provisional or start.provisional)


def _about(review: Review) -> dict[str, Any]:
    return {
        "application_id": review.application_id,
        "item_id": review.item_id,
        "record_id": review.record_id,
        "subject_id": review.subject_id,
        "department": review.department,
    }


def _contradiction(review: Review) -> str:
    made = review.revocation or review.decision
    if review.state is State.WITHDRAWN:
        return "该事项已撤回（申请人撤回，或逾期未补正），不再办理，本次未生效。"
    if review.state is State.NOT_ACCEPTED:
        return f"该事项已“不予受理”（{review.note}），本次未生效；申请人可以重新申请。"
    if made is None and review.state in (State.ACCEPTED, State.EXTENDED):
        return "该事项已受理，本次未生效；请作出准予或者不予修复的决定。"
    if made is None:
        return "该事项尚未准予修复，无可撤销，本次未生效；请先作出（或告知）准予修复的决定，再撤销。"
    return (
        f"该事项已于此前作出“{_WORDS[review.state]}”决定（{made.number}），与本次不一致，本次未生效；"
        "请核对决定文书。"
    )


def _decision_event(review: Review, decision: Decision) -> Event:
    facts = {
        **_about(review),
        "record": review.record,
        "decision_number": decision.number,
        "decided_at": decision.decided_at,
    }
    if review.state is State.GRANTED:
        return RepairGranted.model_validate({**facts, "automatic": decision.by == AUTOMATIC})
    kind = RepairRevoked if review.state is State.REVOKED else RepairRefused
    return kind.model_validate({**facts, "reason": decision.reason})


_NUMBER_WORDS = {Action.GRANT: "信修", Action.REFUSE: "不予信修", Action.REVOKE: "撤销信修"}


def decision_number(short_name: str, action: Action, year: int, serial: int) -> str:
    """Number of a decision made at the desk: 机关简称 + 信修, 不予信修 or 撤销信修 + 〔year〕 + serial + 号.

    One series of serials for each department and year.
    """
    return f"{short_name}{_NUMBER_WORDS[action]}〔{year}〕{serial}号"
