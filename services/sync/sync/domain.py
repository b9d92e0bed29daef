"""Pure decisions of sync about a record at a target: what it acknowledged, what was seen there, and what to do about the difference to
what has to be shown (``sync.desired``).
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.events import (
    Event,
    PropagationCompleted,
    TargetAcknowledged,
    TargetDrifted,
    TargetEvent,
    TargetOverdue,
    TargetVerified,
)
from contracts.http.target import RecordView, RepairResult, RepairStatus
from contracts.records import DisplayState
from contracts.working_days import Count, Deadline
from sync.desired import Record, idempotency_key, is_outdated, shows
from sync.policy import Policy

_MAX_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Delivery:
    """One record at one target.

    ``acknowledged_version``: the target answered that it took it over. ``seen_version``: the public sees it; both fall back
    to 0 when a read-back shows something else, so that it is told as TargetVerified once more after each drift.
    ``seen_at``: the last look, with ``seen_state`` and ``shown_version``, the target's last word on the push it applied last;
    ``seen_outdated``: shown with its content as it was before a correction.
    ``superseded``: the target says it has a newer version, so only what it shows can tell. ``attempts``: failures since it was
    last seen right. ``checks``: times it was seen right in a row. ``drifts``: findings so far. ``differs_since``: None while
    right. ``next_action_at`` None: nothing more to do until the next decision, or until the target says something.
    ``sent_version``: handed over, and the target has yet to say what became of it. ``waits_for``: targets that have not
    acknowledged yet and are told before this one. ``due_on``: the last day by which it has to be right,
    ``due_count``: how that was counted, both None while right; ``overdue_told``: the last such day whose passing was told.
    """

    target_id: str
    record_id: str
    desired_version: int
    differs_since: datetime | None
    next_action_at: datetime | None
    trace: Mapping[str, str]
    acknowledged_version: int = 0
    seen_version: int = 0
    seen_state: DisplayState | None = None
    seen_at: datetime | None = None
    seen_outdated: bool = False
    superseded: bool = False
    attempts: int = 0
    checks: int = 0
    drifts: int = 0
    last_error: str | None = None
    due_on: date | None = None
    due_count: Count | None = None
    overdue_told: date | None = None
    sent_version: int = 0
    waits_for: tuple[str, ...] = ()
    shown_version: int | None = None

    @property
    def id(self) -> str:
        """Also the document's id."""
        return delivery_id(self.target_id, self.record_id)


@dataclass(frozen=True)
class Reading:
    """Evidence of what the public saw: the first time it was right, and every drift.

    ``answer_sha256``: of the target's answer about this record, as JSON of contracts.http.target.RecordView.
    """

    target_id: str
    record_id: str
    version: int
    right: bool
    drifts: int
    seen_state: DisplayState | None
    answer_sha256: str
    at: datetime
    seen_outdated: bool = False


@dataclass(frozen=True)
class Failure:
    """A push or read-back without a usable answer; ``retry_after`` is the target's own wish."""

    reason: str
    retry_after: timedelta = timedelta(0)


class Action(StrEnum):
    """What to do with a delivery now."""

    PUSH = "push"
    READ_BACK = "read back"


Step = tuple[Delivery, tuple[Event, ...]]


def delivery_id(target_id: str, record_id: str) -> str:
    """``<target>|<record>``."""
    return f"{target_id}|{record_id}"


def redirect(delivery: Delivery | None, record: Record, target_id: str, now: datetime) -> Delivery:
    """A target's delivery after a newer decision: push now; at the target that told it, and of what has expired, look."""
    fresh = Delivery(target_id, record.record_id, record.version, now, now, record.trace)
    if target_id == record.source or target_id in record.look_first:
        fresh = replace(fresh, acknowledged_version=record.version)
        delivery = delivery and replace(delivery, acknowledged_version=record.version)
    if delivery is None:
        return fresh
    return replace(
        delivery,
        desired_version=record.version,
        differs_since=delivery.differs_since or now,
        next_action_at=now,
        trace=record.trace,
        superseded=False,
        attempts=0,
        checks=0,
        last_error=None,
        waits_for=(),
    )


def join(
    record: Record,
    target_id: str,
    deliveries: Mapping[str, Delivery],
    policies: Mapping[str, Policy],
    now: datetime,
    *,
    anew: bool = False,
) -> tuple[Record, Delivery] | None:
    """A target that came into the catalogue, or came back, after this was decided; None: there is nothing to tell it.

    ``deliveries``: of the record, by id. ``anew``: the way in which the target is told has changed: what differs starts again.
    """
    policy, current = policies[target_id], deliveries.get(delivery_id(target_id, record.record_id))
    known = target_id in record.targets and current is not None and current.desired_version == record.version
    if known and not (anew and current is not None and current.differs_since is not None):
        return None
    # nobody decided, and it shows the record or counts its period: there is nothing to write a letter about
    as_ever = record.state is DisplayState.PUBLISHED and record.content is None
    if policy.by_letter and record.item_id is None and (record.expired or as_ever):
        return None
    first = (record.expired or record.only_corrected) and policy.reads_back
    looked_at = record.look_first + ((target_id,) if first else ())
    joined = replace(
        record,
        targets=tuple(dict.fromkeys((*record.targets, target_id))),
        look_first=tuple(dict.fromkeys(looked_at)),
    )
    held = hold(clocked(redirect(current, joined, target_id, now), policy, now), joined, policies, now)
    for earlier in held.waits_for:
        other = deliveries.get(delivery_id(earlier, record.record_id))
        if other is not None and other.acknowledged_version == record.version:
            held = release(held, earlier, record.version, now) or held
    # it waits for nobody: its time limit counts from now
    return joined, held if held.waits_for or policy.by_letter else clocked(held, policy, now)


# --- the time limit


def clocked(delivery: Delivery, policy: Policy, now: datetime) -> Delivery:
    """The clock of a difference that begins now: a decision that has arrived, or a drift that was found."""
    due = policy.calendar.working_days_after(china_date(now), policy.time_limit_working_days)
    return replace(delivery, due_on=due.on, due_count=due.count)


def due(delivery: Delivery, policy: Policy) -> Deadline | None:
    """The last day for what differs, as it is counted now; None while nothing does."""
    if delivery.differs_since is None or delivery.due_on is None or delivery.due_count is None:
        return None
    return policy.calendar.again(Deadline(delivery.due_on, delivery.due_count))


def is_overdue(delivery: Delivery, policy: Policy, now: datetime) -> bool:
    """Whether the time limit has passed; a provisional day has not."""
    last = due(delivery, policy)
    return last is not None and not last.provisional and china_date(now) > last.on


def notice_day(delivery: Delivery, record: Record, policy: Policy, now: datetime) -> Step:
    """A time limit that has passed is told once."""
    last = due(delivery, policy)
    if last is None or not is_overdue(delivery, policy, now) or delivery.overdue_told == last.on:
        return delivery, ()
    told = replace(delivery, due_on=last.on, due_count=last.count, overdue_told=last.on)
    return told, _told(record, TargetOverdue, policy, due_on=last.on, noticed_at=now)


# --- order


def hold(delivery: Delivery, record: Record, policies: Mapping[str, Policy], now: datetime) -> Delivery:
    """A redirected delivery, kept back where its target is told later than others, or by letter alone.

    It waits for those that are told before it until they acknowledge, at the latest until their time limit has passed: the
    decision is in force, and must not stay unknown elsewhere because one platform is down.
    """
    policy = policies[delivery.target_id]
    if policy.by_letter:
        # a letter is to be drafted; until one has left, its time limit does not run
        return replace(delivery, next_action_at=now, due_on=None, due_count=None)
    # those that are only looked at have nothing to acknowledge
    told = [t for t in record.targets if t in policies and t != record.source and t not in record.look_first]
    first = tuple(t for t in policy.after if t in told)
    if not first or delivery.acknowledged_version == delivery.desired_version:
        return delivery
    until = max(_limit_ends(policies[t], now) for t in first)
    # its own time limit counts from when it is told
    return clocked(replace(delivery, waits_for=first, next_action_at=until), policy, until)


def release(delivery: Delivery, acknowledged_by: str, version: int, now: datetime) -> Delivery | None:
    """A delivery that waited for a target which has now acknowledged ``version``; None: it did not wait for that."""
    if delivery.desired_version != version or acknowledged_by not in delivery.waits_for:
        return None
    left = tuple(target for target in delivery.waits_for if target != acknowledged_by)
    told = (
        delivery.attempts > 0 or delivery.sent_version == version or delivery.acknowledged_version == version
    )
    return replace(delivery, waits_for=left, next_action_at=delivery.next_action_at if left or told else now)


def _limit_ends(policy: Policy, now: datetime) -> datetime:
    """The end, in China, of the last day of a target's time limit that starts now."""
    last = policy.calendar.working_days_after(china_date(now), policy.time_limit_working_days).on
    return datetime.combine(last + timedelta(days=1), time(), CHINA_STANDARD_TIME)


# --- one target


def next_action(delivery: Delivery) -> Action:
    """What to do once ``next_action_at`` has come (the store searches by it)."""
    behind = delivery.acknowledged_version < delivery.desired_version
    return Action.PUSH if behind and not delivery.superseded else Action.READ_BACK


def after_push(
    delivery: Delivery, record: Record, result: RepairResult | Failure, policy: Policy, now: datetime
) -> Step:
    """Take in the answer to a push of ``record``; one that is no longer asked for changes nothing."""
    if record.version != delivery.desired_version or next_action(delivery) is not Action.PUSH:
        return delivery, ()
    if isinstance(result, Failure):
        return _failed(delivery, result, policy, now), ()
    if result.status is RepairStatus.REJECTED:
        failure = Failure(f"rejected: {result.reason or 'no reason given'}")
        return _failed(replace(delivery, sent_version=0), failure, policy, now), ()
    if result.status is RepairStatus.RECEIVED:
        return _received(delivery, policy, now), ()
    if result.status is RepairStatus.SUPERSEDED:
        if not policy.reads_back:
            return _failed(delivery, Failure("superseded: the target has a newer version"), policy, now), ()
        return replace(delivery, superseded=True, next_action_at=now + policy.read_back_delay), ()
    acknowledged = replace(
        delivery,
        acknowledged_version=delivery.desired_version,
        superseded=False,
        last_error=None,
        next_action_at=now + policy.read_back_delay if policy.reads_back else None,
        differs_since=delivery.differs_since if policy.reads_back else None,
        due_on=delivery.due_on if policy.reads_back else None,
        due_count=delivery.due_count if policy.reads_back else None,
    )
    return acknowledged, _told(record, TargetAcknowledged, policy, acknowledged_at=now)


def _received(delivery: Delivery, policy: Policy, now: datetime) -> Delivery:
    sent = replace(delivery, sent_version=delivery.desired_version)
    if policy.fetches:
        return replace(sent, last_error=None, next_action_at=None)
    if policy.receipt_wait is None:
        return _failed(
            delivery, Failure("received, yet no receipts are agreed with this target"), policy, now
        )
    if delivery.sent_version == delivery.desired_version:
        late = _failed(sent, Failure("no receipt in time: pushed again"), policy, now)
        return replace(late, next_action_at=now + policy.receipt_wait)
    return replace(sent, last_error=None, next_action_at=now + policy.receipt_wait)


def after_sending(
    delivery: Delivery, record: Record, policy: Policy, sent_at: datetime, again_at: datetime | None
) -> Delivery:
    """A letter has left: the target's time limit runs from the first one. ``again_at``: when the next letter is to be looked at."""
    if not policy.by_letter or record.version != delivery.desired_version or settled(delivery, policy):
        return delivery
    sent = replace(delivery, sent_version=delivery.desired_version, next_action_at=again_at)
    return sent if delivery.sent_version == delivery.desired_version else clocked(sent, policy, sent_at)


def after_letter(delivery: Delivery, record: Record, policy: Policy, now: datetime) -> Step:
    """A target that is told by letter has answered that it is done."""
    if not policy.by_letter or record.version != delivery.desired_version or settled(delivery, policy):
        return delivery, ()
    done = replace(
        delivery,
        acknowledged_version=delivery.desired_version,
        differs_since=None,
        due_on=None,
        due_count=None,
        next_action_at=None,
    )
    return done, _told(record, TargetAcknowledged, policy, acknowledged_at=now)


def after_visit(
    delivery: Delivery,
    record: Record,
    shown: DisplayState | None,
    looked_at: datetime,
    policy: Policy,
    now: datetime,
    *,
    outdated: bool = False,
) -> Step:
    """A person has looked at a target that cannot be read back, and saw ``shown`` (None: nothing), ``outdated`` with its content as it
    was before a correction. A newer look counts.
    """
    if policy.reads_back or record.version != delivery.desired_version:
        return delivery, ()
    if delivery.seen_at is not None and looked_at <= delivery.seen_at:
        return delivery, ()
    seen = replace(delivery, seen_state=shown, seen_at=looked_at, seen_outdated=outdated)
    if shows(shown, record, outdated=outdated):
        right = replace(
            seen,
            acknowledged_version=record.version,
            seen_version=record.version,
            attempts=0,
            last_error=None,
            differs_since=None,
            due_on=None,
            due_count=None,
            next_action_at=None,
        )
        first = delivery.seen_version != record.version
        return right, _told(record, TargetVerified, policy, verified_at=now) if first else ()
    if not settled(delivery, policy):
        return replace(seen, seen_version=0), ()
    drifted = replace(
        seen,
        acknowledged_version=0,
        seen_version=0,
        sent_version=0,
        drifts=seen.drifts + 1,
        differs_since=now,
        last_error=f"drifted: shows {_seen(shown, outdated=outdated)}",
        next_action_at=now,
    )
    if not policy.by_letter:
        drifted = clocked(drifted, policy, now)
    told = shown or DisplayState.PUBLICATION_ENDED
    return drifted, _told(record, TargetDrifted, policy, seen_state=told, outdated=outdated, drifted_at=now)


def after_read_back(
    delivery: Delivery, record: Record, view: RecordView | Failure, policy: Policy, now: datetime
) -> Step:
    """Compare what the public sees with ``record``; a view of what is no longer asked for changes nothing."""
    if record.version != delivery.desired_version or next_action(delivery) is Action.PUSH:
        return delivery, ()
    if isinstance(view, Failure):
        return _failed(delivery, view, policy, now), ()
    outdated = is_outdated(view, record)
    seen = replace(
        delivery,
        seen_state=view.state,
        shown_version=view.version,
        seen_at=now,
        seen_outdated=outdated,
        superseded=False,
    )
    if shows(view.state, record, outdated=outdated):
        return _seen_right(seen, record, policy, now)
    shown = _seen(view.state, outdated=outdated)
    if delivery.superseded:
        error = f"superseded: the target has a newer version, yet shows {shown}"
        return _failed(replace(seen, acknowledged_version=0, seen_version=0), Failure(error), policy, now), ()
    drifted = replace(
        _failed(seen, Failure(f"drifted: shows {shown}"), policy, now),
        acknowledged_version=0,
        seen_version=0,
        sent_version=0,
        checks=0,
        drifts=seen.drifts + 1,
        differs_since=seen.differs_since or now,
    )
    if seen.differs_since is None:
        drifted = clocked(drifted, policy, now)
    # what is not shown at all is told as what it means to the public (see shows)
    told = view.state or DisplayState.PUBLICATION_ENDED
    return drifted, _told(record, TargetDrifted, policy, seen_state=told, outdated=outdated, drifted_at=now)


def reading_of(delivery: Delivery, events: Sequence[Event], answer_sha256: str) -> Reading | None:
    """What to keep of a read-back that led to ``delivery`` and these events; None when it tells nothing new."""
    telling = next((e for e in events if isinstance(e, TargetVerified | TargetDrifted)), None)
    if telling is None or delivery.seen_at is None:
        return None
    return Reading(
        target_id=delivery.target_id,
        record_id=delivery.record_id,
        version=delivery.desired_version,
        right=isinstance(telling, TargetVerified),
        drifts=delivery.drifts,
        seen_state=delivery.seen_state,
        answer_sha256=answer_sha256,
        at=delivery.seen_at,
        seen_outdated=delivery.seen_outdated,
    )


def found_the_same(before: Delivery, after: Delivery) -> bool:
    """Whether a look that led from one to the other has found what was known: only its time is new, and how often that was so."""
    again = replace(before, seen_at=after.seen_at, checks=after.checks, next_action_at=after.next_action_at)
    return again == after


def _seen(shown: DisplayState | None, *, outdated: bool) -> str:
    return "its content as it was before the correction" if outdated else shown or "nothing"


def settled(delivery: Delivery, policy: Policy) -> bool:
    """Whether the target needs nothing more for the desired version."""
    reached = delivery.seen_version if policy.reads_back else delivery.acknowledged_version
    return reached == delivery.desired_version


def complete(
    record: Record, deliveries: Sequence[Delivery], policies: Mapping[str, Policy], now: datetime
) -> tuple[Record, tuple[Event, ...]]:
    """Once per version: every target that has to follow is settled. A target that left the catalogue need not follow, and
    nobody waits for one that is told by letter.
    """
    followed = [d for d in deliveries if d.target_id in policies and not policies[d.target_id].by_letter]
    if record.completed_version == record.version or not all(
        settled(delivery, policies[delivery.target_id]) for delivery in followed
    ):
        return record, ()
    completed = replace(record, completed_version=record.version)
    if record.item_id is None:
        return completed, ()
    event = PropagationCompleted(
        **_item(record),
        version=record.version,
        state=record.state,
        target_ids=tuple(sorted(d.target_id for d in followed)),
        decision_number=record.decision_number,
        completed_at=now,
    )
    return completed, (event,)


def cause_of(delivery: Delivery) -> str:
    """What an event about this delivery comes from: a repetition has the same id, a push after a new finding another one."""
    key = idempotency_key(delivery.target_id, delivery.record_id, delivery.desired_version)
    return f"{key}:{delivery.drifts}"


def _seen_right(delivery: Delivery, record: Record, policy: Policy, now: datetime) -> Step:
    version = delivery.desired_version
    pause = policy.recheck[min(delivery.checks, len(policy.recheck) - 1)]
    right = replace(
        delivery,
        acknowledged_version=version,
        seen_version=version,
        attempts=0,
        checks=delivery.checks + 1,
        last_error=None,
        differs_since=None,
        due_on=None,
        due_count=None,
        next_action_at=now + pause,
    )
    if delivery.seen_version == version:
        return right, ()
    return right, _told(record, TargetVerified, policy, verified_at=now)


def _failed(delivery: Delivery, failure: Failure, policy: Policy, now: datetime) -> Delivery:
    """Exponential backoff, half of it jitter: the delivery's own, so that this stays a function of its arguments."""
    attempts = delivery.attempts + 1
    full = min(policy.backoff_base * 2 ** min(attempts - 1, 20), policy.backoff_max)
    share = zlib.crc32(f"{delivery.id}#{attempts}".encode()) / 2**32
    return replace(
        delivery,
        attempts=attempts,
        last_error=failure.reason[:_MAX_ERROR_LENGTH],
        next_action_at=now + max(full * (0.5 + share / 2), failure.retry_after),
    )


def _told(record: Record, kind: type[TargetEvent], policy: Policy, **facts: Any) -> tuple[Event, ...]:
    """What happened at a target, if there is an item that waits for it."""
    return () if record.item_id is None else (kind(**_about(record, policy), **facts),)


def _item(record: Record) -> dict[str, Any]:
    return {
        "application_id": record.application_id,
        "item_id": record.item_id,
        "record_id": record.record_id,
        "subject_id": record.subject_id,
    }


def _about(record: Record, policy: Policy) -> dict[str, Any]:
    return {
        **_item(record),
        "target_id": policy.target_id,
        "target_name": policy.target_name,
        "version": record.version,
        "state": record.state,
    }
