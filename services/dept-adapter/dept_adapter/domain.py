"""Pure decisions of dept-adapter: what a review may become, and which events that leads to.

Everything that happens to a review goes through the table of ``states``: the department's system, its officers, the pushing of
reviews to it, the applicant, and the days that pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from contracts.clock import china_date
from contracts.events import (
    ClosureReason,
    Event,
    FalseMaterial,
    FalseMaterialForwarded,
    Ground,
    ItemReopened,
    ObjectionForwarded,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewDueConfirmed,
    ReviewExpired,
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
from contracts.working_days import LIBRARY_CALENDAR, Count, Deadline, WorkCalendar
from dept_adapter.states import CHANGES, DECIDED, ENDED, Action, State, after

AUTOMATIC = "verification"
"""Who decided when no person did: every condition was verified, and the department lets such items through."""
FALSE_MATERIAL = "false-material"
"""Who decided when no person did: what the item rests on was found false at another item, or no longer counts as false."""
_TICK = timedelta(milliseconds=1)
"""As fine as the database keeps a time: a time read back is earlier than the one told by less than this."""


@dataclass(frozen=True)
class Decision:
    """A decision made: its number, its reason (not of grants), when, and by whom (officer, or ``callback``).

    ``false_material``, ``ground``: the fields of the shapes of that name, if the decision makes, or rests on, such a finding.
    """

    number: str
    reason: str | None
    decided_at: datetime
    by: str
    false_material: Mapping[str, Any] | None = None
    ground: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Supplement:
    """What was found missing, told once. ``requested_on``, ``due_on``: days in China; ``received_at``: None while it is awaited;
    ``count``: how ``due_on`` was counted.
    """

    missing: tuple[str, ...]
    requested_on: date
    due_on: date
    received_at: datetime | None = None
    count: Count | None = None


@dataclass(frozen=True)
class Dispute:
    """A finding at another item that what this one rests on is false. ``ground``: the fields of that shape."""

    ground: Mapping[str, Any]
    reason: str
    found_at: datetime

    @property
    def finding(self) -> tuple[str, int]:
        """Which finding: item and round."""
        return self.ground["item_id"], self.ground["round"]


@dataclass(frozen=True)
class Review:
    """One item at its department. ``at_desk``: officers decide here, not the department's own system.

    ``revocation``: of the grant that ``decision`` is. ``extend_working_days``: by how many the decision may be put off, once; None:
    not at all. ``note``: why it was not accepted, or put off. ``overdue_told``: the deadline that was noticed to have passed.
    ``round``: how often it was reopened or restored after an upheld objection, last at ``reopened_at``; ``overturned``: numbers of
    the decisions that no longer stand. ``disputes``: findings at other items that its material is false. ``accept_count``,
    ``decide_count``: how the days they owe a step by were counted.
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
    round: int = 0
    reopened_at: datetime | None = None
    overturned: tuple[str, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    accept_count: Count | None = None
    decide_count: Count | None = None

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

    @property
    def due_count(self) -> Count | None:
        """How ``due_on`` was counted. While it is provisional, nothing that cannot be undone follows from its passing."""
        match self.state:
            case State.RECEIVED | State.DELIVERED | State.UNDELIVERABLE:
                return self.accept_count
            case State.SUPPLEMENT:
                return self.supplement.count if self.supplement else None
            case State.ACCEPTED | State.EXTENDED:
                return self.decide_count
        return None

    @property
    def missing_year(self) -> int | None:
        """The first year whose working days would make a deadline of an open review certain."""
        if self.state in ENDED:
            return None
        asked = self.supplement.count if self.supplement and self.state is State.SUPPLEMENT else None
        return missing_year(self.accept_count, self.decide_count, asked)


@dataclass(frozen=True)
class Command:
    """What happened, mostly what a department says. ``number`` belongs to decisions.

    ``reason`` belongs to refusals, revocations, extensions and what is not accepted; ``missing`` to a supplement that is asked for,
    ``supplement_working_days`` being the applicant's time; ``platform``, id and name, to a repair made elsewhere; ``ended_on`` to a publication that has ended by itself, ``closure`` to what needs no repair. ``occurred_at``: when it happened by the department's clock; None: now.
    ``from_desk``: an officer says it here. ``text``: the officer's words in the letter, where the step itself keeps none.
    ``accept_working_days``, ``decide_working_days``: of what is reopened.
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
    false_material: FalseMaterial | None = None
    ground: Ground | None = None
    accept_working_days: int = 0
    decide_working_days: int = 0
    ended_on: date | None = None
    closure: ClosureReason | None = None
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
    false_material: FalseMaterial | None = None

    def same(self, command: Command) -> bool:
        """Whether a command proposes it again."""
        mine = (self.action, self.by, self.reason, self.text, self.false_material)
        return mine == (command.action, command.by, command.reason, command.text, command.false_material)


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


def receive(
    requested: ReviewRequested, *, at_desk: bool, calendar: WorkCalendar = LIBRARY_CALENDAR
) -> Review:
    """The review a department is asked for. Its days are those that everybody was told, however the calendar here counts them."""
    start = china_date(requested.requested_at)

    accept_count, decide_count = counts_as_told(requested, start, calendar)
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
        accept_count=accept_count,
        decide_count=decide_count,
    )


def counts_as_told(
    asked: ReviewRequested | ObjectionForwarded, start: date, calendar: WorkCalendar
) -> tuple[Count, Count]:
    """How the days to accept and to decide were counted by whoever told them, as far as the calendar here can tell."""

    def count(due_on: date, told: int | None, *, again: bool) -> Count:
        days = calendar.working_days_between(start, due_on) if told is None else told
        due = calendar.working_days_after(start, days)
        # whoever told it knew less: the last day is counted again at once, the others where they differ
        knew_less = asked.due_provisional and (again or due.on != due_on)
        missing = due.count.missing_year or (due_on.year if knew_less else None)
        return replace(due.count, missing_year=missing, calendar=asked.calendar_version)

    return (
        count(asked.accept_due_on, asked.accept_working_days, again=False),
        count(asked.decide_due_on, asked.decide_working_days, again=True),
    )


def decide(
    review: Review, command: Command, now: datetime, calendar: WorkCalendar = LIBRARY_CALENDAR
) -> Transition:
    """Apply what happened to a review. A decision without an acceptance before it implies the acceptance.

    Times the department tells are kept between the last known step and ``now``: a wrong clock cannot put a decision before
    its request or into the future. A revocation is always later than its grant, by a millisecond at least.
    Raises DecisionConflictError, NotAtDeskError and NotAllowedError; ValueError when a decision has no number.
    """
    if command.from_desk and not review.at_desk:
        raise NotAtDeskError(f"“{review.department.name}”以自有系统办理该事项，请在该系统中受理和决定。")
    if command.number is not None and command.number in review.overturned and command.from_desk:
        raise NotAllowedError(f"文号{command.number}的决定已因异议成立不再有效，请使用新的文号。")
    if _overtaken(review, command):
        return Transition(review, ())
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
    made_at = [made.decided_at for made in (review.decision, review.revocation) if made]
    made_at += [review.reopened_at] if review.reopened_at else []
    last = max(made_at) + _TICK if made_at else review.accepted_at
    at = max(min(command.occurred_at or now, now), last or review.requested_at)
    match command.action:
        case Action.REQUEST_SUPPLEMENT:
            return _request_supplement(review, command, at, calendar)
        case Action.SUPPLEMENT:
            return _supplement(review, at, calendar)
        case Action.EXTEND:
            return _extend(review, command, at, calendar)
        case Action.NOT_ACCEPT:
            event = ReviewNotAccepted(**_about(review), reason=command.reason, not_accepted_at=at)
            return Transition(replace(result, note=command.reason), (event,))
        case Action.WITHDRAW | Action.LAPSE:
            by_applicant = command.action is Action.WITHDRAW
            why = WithdrawalReason.APPLICANT if by_applicant else WithdrawalReason.SUPPLEMENT_OVERDUE
            return Transition(result, (ReviewWithdrawn(**_about(review), reason_code=why, withdrawn_at=at),))
        case Action.EXPIRE:
            if command.ended_on is None:
                raise ValueError("what has expired needs the day")
            expired = ReviewExpired(**_about(review), ended_on=command.ended_on, expired_at=at)
            note = f"公示期已于{command.ended_on.isoformat()}届满"
            return Transition(replace(result, note=note), (expired,))
        case Action.CLOSE:
            if command.closure is None or command.reason is None:
                raise ValueError("what is closed needs the reason")
            closed = ReviewClosed(
                **_about(review), reason_code=command.closure, reason=command.reason, closed_at=at
            )
            return Transition(replace(result, note=command.reason), (closed,))
        case Action.RECOGNISE:
            return _recognise(result, command, at)
        case Action.REOPEN:
            return _reopen(review, state, command, at, calendar)
        case Action.RESTORE:
            return _restore(review, command, at)
    events: list[Event] = []
    if review.accepted_at is None and review.state is not State.RECOGNISED:
        result = replace(result, accepted_at=at)
        events.append(ReviewAccepted(**_about(review), accepted_at=at))
    if state in DECIDED:
        if not command.number:
            raise ValueError("a decision needs its number")
        made = Decision(
            command.number,
            command.reason,
            at,
            command.by,
            command.false_material.model_dump(mode="json") if command.false_material else None,
            command.ground.model_dump(mode="json") if command.ground else None,
        )
        revoked = state is State.REVOKED
        result = replace(result, revocation=made) if revoked else replace(result, decision=made)
        events.append(_decision_event(result, made))
    return Transition(result, tuple(events))


def acts_on(review: Review, event: FalseMaterialForwarded) -> Action | None:
    """What a finding at another item decides here: what was granted is revoked; what was revoked for that alone is restored.

    None: nothing, so that no number is needed. An item that is open is its officers' to decide, who are warned.
    """
    others = [each for each in review.disputes if each.finding != (event.ground.item_id, event.ground.round)]
    if not event.lifted:
        granted = review.state in CHANGES[Action.REVOKE]
        return Action.REVOKE if granted and len(others) == len(review.disputes) else None
    by_itself = review.revocation is not None and review.revocation.ground is not None
    return Action.RESTORE if review.state is State.REVOKED and by_itself and not others else None


def dispute(review: Review, event: FalseMaterialForwarded, number: str | None, now: datetime) -> Transition:
    """Take in such a finding, or that it does not stand. Told again it changes nothing. ``number``: of what ``acts_on`` names."""
    finding = event.ground.item_id, event.ground.round
    others = tuple(each for each in review.disputes if each.finding != finding)
    action = acts_on(review, event)
    if not event.lifted:
        if len(others) < len(review.disputes):
            return Transition(review, ())
        others = (*others, Dispute(event.ground.model_dump(mode="json"), event.reason, event.found_at))
    elif len(others) == len(review.disputes):
        return Transition(review, ())
    told = replace(review, disputes=others)
    if action is None:
        return Transition(told, ())
    made = event.ground
    reason = f"{made.department.name}（{made.decision_number}）认定本事项所依据的材料虚假：{event.reason}"[
        :2000
    ]
    revoke = Command(action, FALSE_MATERIAL, from_desk=False, number=number, reason=reason, ground=made)
    return decide(told, revoke, now)


def notice_day(review: Review, now: datetime) -> Transition:
    """What follows from the day it is: a deadline that has passed is told once, a supplement that did not come ends the item.

    Nothing when no deadline has passed, or it was told, or the day is provisional.
    """
    due_on = review.due_on
    if due_on is None or china_date(now) <= due_on or review.overdue_told == due_on:
        return Transition(review, ())
    if is_provisional(review.due_count):
        return Transition(review, ())
    if review.state is State.SUPPLEMENT:
        return decide(review, Command(Action.LAPSE, by="clock", from_desk=False), now)
    step = ReviewStep.DECIDE if review.accepted_at else ReviewStep.ACCEPT
    event = ReviewOverdue(**_about(review), step=step, due_on=due_on, noticed_at=now)
    return Transition(replace(review, overdue_told=due_on), (event,))


_DEPARTMENTS_WORD = frozenset(
    {
        Action.ACCEPT,
        Action.NOT_ACCEPT,
        Action.REQUEST_SUPPLEMENT,
        Action.EXTEND,
        Action.GRANT,
        Action.REFUSE,
        Action.REVOKE,
    }
)


def _overtaken(review: Review, command: Command) -> bool:
    """A department's system tells again what was said before the item was reopened: that no longer stands."""
    if command.from_desk or review.reopened_at is None or command.action not in _DEPARTMENTS_WORD:
        return False
    earlier = command.occurred_at is not None and command.occurred_at < review.reopened_at
    return earlier or command.number in review.overturned


def _reopen(
    review: Review, state: State, command: Command, at: datetime, calendar: WorkCalendar
) -> Transition:
    """The same department decides again, at the desk, within new time limits; a refused item stays accepted."""
    today = china_date(at)
    accepted = state is State.ACCEPTED
    accept_due = calendar.working_days_after(today, command.accept_working_days)
    before = 0 if accepted else command.accept_working_days
    decide_due = calendar.working_days_after(today, before + command.decide_working_days)
    result = replace(
        review,
        state=state,
        at_desk=True,
        accept_due_on=accept_due.on,
        accept_count=accept_due.count,
        decide_due_on=decide_due.on,
        decide_count=decide_due.count,
        decision=None,
        note=None,
        round=review.round + 1,
        reopened_at=at,
        overturned=(*review.overturned, *([review.decision.number] if review.decision else [])),
    )
    event = ItemReopened(
        **_about(result),
        accepted=accepted,
        accept_due_on=accept_due.on,
        decide_due_on=decide_due.on,
        due_provisional=accept_due.provisional or decide_due.provisional,
        calendar_version=calendar.version,
        reopened_at=at,
    )
    return Transition(result, (event,))


def is_provisional(count: Count | None) -> bool:
    """Whether a day is not certain. None: it was not counted."""
    return count is not None and count.missing_year is not None


def missing_year(*counts: Count | None) -> int | None:
    """The first year that would make one of these days certain; None: all are."""
    return min((c.missing_year for c in counts if c and c.missing_year), default=None)


def confirm(review: Review, calendar: WorkCalendar, now: datetime) -> Transition:
    """Count provisional days again whose missing year is known now, and tell. Nothing while it is not, or when nobody waits any more."""
    if review.missing_year is None or not calendar.knows(review.missing_year):
        return Transition(review, ())
    accept = counted_again(review.accept_due_on, review.accept_count, calendar)
    decide_by = counted_again(review.decide_due_on, review.decide_count, calendar)
    result = replace(
        review,
        accept_due_on=accept.on,
        accept_count=accept.count,
        decide_due_on=decide_by.on,
        decide_count=decide_by.count,
    )
    asked = review.supplement
    if asked is not None and review.state is State.SUPPLEMENT:
        by = counted_again(asked.due_on, asked.count, calendar)
        result = replace(result, supplement=replace(asked, due_on=by.on, count=by.count))
    event = ReviewDueConfirmed(
        **_about(review),
        accept_due_on=accept.on,
        decide_due_on=decide_by.on,
        supplement_due_on=result.due_on if result.state is State.SUPPLEMENT else None,
        due_provisional=result.missing_year is not None,
        calendar_version=calendar.version,
        confirmed_at=now,
    )
    return Transition(result, (event,))


def _restore(review: Review, command: Command, at: datetime) -> Transition:
    """Granted again, as a newer decision: so every target follows."""
    if not command.number:
        raise ValueError("a decision needs its number")
    gone = [made.number for made in (review.decision, review.revocation) if made]
    made = Decision(command.number, None, at, command.by)
    result = replace(
        review,
        state=State.GRANTED,
        # what was recognised had not been accepted here
        accepted_at=review.accepted_at or at,
        decision=made,
        revocation=None,
        round=review.round + 1,
        reopened_at=at,
        overturned=(*review.overturned, *gone),
    )
    return Transition(result, (_decision_event(result, made),))


def counted_again(on: date, count: Count | None, calendar: WorkCalendar) -> Deadline:
    """A day as the calendar counts it now; one that is certain stays as it is."""
    counted = count or Count(on, 0, None, "")
    return calendar.again(Deadline(on, counted))


_TOLD_ONCE = (
    "需要补正的内容应一次性告知，该事项此前已经告知过补正，不能再次告知；请据现有材料受理或者不予受理。"
)


def _same_supplement(review: Review, command: Command) -> bool:
    return review.supplement is not None and review.supplement.missing == command.missing


def _request_supplement(review: Review, command: Command, at: datetime, calendar: WorkCalendar) -> Transition:
    if review.supplement is not None:
        if _same_supplement(review, command):
            return Transition(review, ())
        raise NotAllowedError(_TOLD_ONCE)
    today = china_date(at)
    due = calendar.working_days_after(today, command.supplement_working_days)
    asked = Supplement(command.missing, today, due.on, count=due.count)
    event = SupplementRequested(
        **_about(review),
        missing=command.missing,
        supplement_due_on=due.on,
        due_provisional=due.provisional,
        calendar_version=calendar.version,
        requested_at=at,
    )
    return Transition(replace(review, state=State.SUPPLEMENT, supplement=asked), (event,))


def _supplement(review: Review, at: datetime, calendar: WorkCalendar) -> Transition:
    """The clocks run again: each step keeps the working days it had left when the supplement was asked for, one at least."""
    asked = review.supplement
    if asked is None:
        raise ValueError(f"{review.item_id} awaits a supplement that nobody asked for")
    accept, decide_by = review.accept_count, review.decide_count
    if accept is None or decide_by is None:
        raise ValueError(f"{review.item_id} has days that nobody counted")
    left = max(1, accept.working_days - calendar.working_days_between(accept.start, asked.requested_on))
    then = decide_by.working_days - accept.working_days
    start = china_date(at)
    accept_due = calendar.working_days_after(start, left)
    decide_due = calendar.working_days_after(start, left + then)
    event = SupplementReceived(
        **_about(review),
        accept_due_on=accept_due.on,
        decide_due_on=decide_due.on,
        due_provisional=decide_due.provisional,
        calendar_version=calendar.version,
        received_at=at,
    )
    received = replace(
        review,
        state=State.RECEIVED,
        supplement=replace(asked, received_at=at),
        accept_due_on=accept_due.on,
        accept_count=accept_due.count,
        decide_due_on=decide_due.on,
        decide_count=decide_due.count,
    )
    return Transition(received, (event,))


def _extend(review: Review, command: Command, at: datetime, calendar: WorkCalendar) -> Transition:
    if review.extend_working_days is None:
        raise NotAllowedError("规则目录中没有该类记录延长办理期限的规定，请在期限内作出决定。")
    count = review.decide_count
    provisional = is_provisional(count)
    if china_date(at) > review.decide_due_on and not provisional:
        day = review.decide_due_on.isoformat()
        raise NotAllowedError(f"办理期限已于{day}届满，延期须在期限届满前作出并告知申请人。")
    # from a day that is certain; else all of it is counted again once the year is known
    start, days = (count.start, count.working_days) if count and provisional else (review.decide_due_on, 0)
    due = calendar.working_days_after(start, days + review.extend_working_days)
    event = ReviewExtended(
        **_about(review),
        reason=command.reason,
        decide_due_on=due.on,
        due_provisional=due.provisional,
        calendar_version=calendar.version,
        extended_at=at,
    )
    extended = replace(
        review, state=State.EXTENDED, decide_due_on=due.on, decide_count=due.count, note=command.reason
    )
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


def _about(review: Review) -> dict[str, Any]:
    return {
        "application_id": review.application_id,
        "item_id": review.item_id,
        "record_id": review.record_id,
        "subject_id": review.subject_id,
        "department": review.department,
        "round": review.round,
    }


def _contradiction(review: Review) -> str:
    made = review.revocation or review.decision
    if review.state is State.WITHDRAWN:
        return "该事项已撤回（申请人撤回，或逾期未补正），不再办理，本次未生效。"
    if review.state is State.NOT_ACCEPTED:
        return f"该事项已“不予受理”（{review.note}），本次未生效；申请人可以重新申请。"
    if review.state is State.EXPIRED:
        return f"该记录的{review.note}，公示已自动终止，事项随之结束，本次未生效；无需再作决定。"
    if review.state is State.CLOSED:
        return f"{review.note}该事项随之结束，本次未生效；无需再作决定。"
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
    found = {"false_material": decision.false_material, "ground": decision.ground}
    return kind.model_validate({**facts, "reason": decision.reason, **found})


_NUMBER_WORDS = {
    Action.GRANT: "信修",
    Action.REFUSE: "不予信修",
    Action.REVOKE: "撤销信修",
    Action.RESTORE: "恢复信修",
}


def decision_number(short_name: str, action: Action, year: int, serial: int) -> str:
    """Number of a decision made at the desk: 机关简称 + 信修, 不予信修, 撤销信修 or 恢复信修 + 〔year〕 + serial + 号.

    One series of serials for each department and year.
    """
    return f"{short_name}{_NUMBER_WORDS[action]}〔{year}〕{serial}号"
