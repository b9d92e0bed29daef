"""What may happen to reviews in the course of time, at random, and their figures counted again the plain way."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from math import ceil

from unit.review_samples import REQUESTED

from contracts.clock import china_date
from contracts.events import ClosureReason
from contracts.records import DepartmentRef
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import (
    AUTOMATIC,
    Command,
    DecisionConflictError,
    NotAllowedError,
    Review,
    decide,
    receive,
)
from dept_adapter.states import ENDED, Action, State

# figures count an item as it stands: what an earlier round had decided is not told apart
_LEFT_OUT = (Action.DELIVER, Action.GIVE_UP, Action.LAPSE, Action.REOPEN, Action.RESTORE)
ACTIONS = [a for a in Action if a not in _LEFT_OUT]
REASONS = ["未履行", "=1+1", "材料不全", "不属于本机关", "未满最短公示期", "长" * 50]


@dataclass(frozen=True)
class Step:
    """What a review became, when, and by what."""

    at: datetime
    review: Review
    command: Command | None


def moment(rng: random.Random, first: date, days: int) -> datetime:
    """Some moment of these days, the edges of China's days among them."""
    hour = rng.choice([0, 3, 15, 16, 23])
    return datetime.combine(first + timedelta(days=rng.randrange(days)), time(hour, 59), UTC)


def live(rng: random.Random, department: DepartmentRef) -> list[Step]:
    """One review from its request on, through up to seven of the things that may happen."""
    at = moment(rng, date(2026, 9, 20), 40)
    today = china_date(at)
    accept_due = LIBRARY_CALENDAR.working_days_after(today, 3).on
    requested = REQUESTED.model_copy(
        update={
            "item_id": f"itm_{secrets.token_hex(16)}",
            "department": department,
            "requested_at": at,
            "accept_due_on": accept_due,
            "decide_due_on": LIBRARY_CALENDAR.working_days_after(accept_due, 7).on,
            "extend_working_days": 10,
        }
    )
    steps = [Step(at, receive(requested, at_desk=True), None)]
    for _ in range(rng.randrange(8)):
        action = rng.choice(ACTIONS)
        at += timedelta(hours=rng.randrange(24 * 9))
        command = Command(
            action,
            rng.choice(["officer", AUTOMATIC]),
            from_desk=True,
            number="1号" if action is not Action.REVOKE else "撤1号",
            reason=rng.choice(REASONS),
            missing=("凭证",),
            supplement_working_days=15,
            platform=("gsxt", "公示系统"),
            ended_on=date(2026, 11, 20),
            closure=ClosureReason.RECORD_WITHDRAWN,
        )
        if action is Action.GRANT:
            command = replace(command, reason=None)
        try:
            transition = decide(steps[-1].review, command, at)
        except (DecisionConflictError, NotAllowedError):
            continue
        if transition.events:
            steps.append(Step(at, transition.review, command))
    return steps


def _working(first: date, last: date) -> int:
    day, found = first, 0
    while day < last:
        day += timedelta(days=1)
        found += LIBRARY_CALENDAR.is_working_day(day)
    return found


def _nearest(values: Sequence[int], percent: int) -> int | None:
    return sorted(values)[ceil(len(values) * percent / 100) - 1] if values else None


def plainly(lives: Sequence[Sequence[Step]], today: date, promised: int) -> dict[str, object]:
    """The figures of these reviews from their histories, one after the other."""
    now = [steps[-1].review for steps in lives]
    accept, decided, late_accept, late_decide, overdue = [], [], 0, 0, 0
    for steps, review in zip(lives, now, strict=True):
        when = {step.review.state: china_date(step.at) for step in reversed(steps)}
        requested = china_date(steps[0].at)
        asked = when.get(State.SUPPLEMENT)
        back = [
            china_date(s.at)
            for i, s in enumerate(steps)
            if i and steps[i - 1].review.state is State.SUPPLEMENT
        ]
        recognised = when.get(State.RECOGNISED)
        decision = None if recognised else when.get(State.GRANTED) or when.get(State.REFUSED)
        acceptance = when.get(State.ACCEPTED) or decision
        pause = _working(asked, back[0]) if asked and back else 0
        if acceptance:
            accept.append(_working(requested, acceptance) - pause)
            late_accept += acceptance > review.accept_due_on
        if decision:
            decided.append(_working(requested, decision) - pause)
            late_decide += decision > review.decide_due_on
        if review.state not in ENDED and review.state is not State.SUPPLEMENT:
            overdue += today > (review.decide_due_on if acceptance else review.accept_due_on)
    return {
        "received": len(lives),
        "open": sum(review.state not in ENDED for review in now),
        "overdue_now": overdue,
        "accepted": len(accept),
        "accepted_late": late_accept,
        "decided": len(decided),
        "decided_late": late_decide,
        "outcomes": {s: sum(r.state is s for r in now) for s in State if s in ENDED},
        "to_accept": (len(accept), _nearest(accept, 50), _nearest(accept, 90)),
        "to_decide": (len(decided), _nearest(decided, 50), _nearest(decided, 90)),
        "within_promise": (sum(days <= promised for days in decided), len(decided)),
        "within_law": (len(decided) - late_decide, len(decided)),
        "supplements": sum(r.supplement is not None for r in now),
        "extensions": sum(any(s.review.state is State.EXTENDED for s in steps) for steps in lives),
        "automatic": sum(r.decision is not None and r.decision.by == AUTOMATIC for r in now),
        "refused_why": _why([r.decision.reason for r in now if r.state is State.REFUSED and r.decision]),
        "not_accepted_why": _why([r.note for r in now if r.state is State.NOT_ACCEPTED]),
    }


def _why(reasons: Sequence[str | None]) -> list[tuple[str, int]]:
    return sorted(((r or "", reasons.count(r)) for r in {*reasons}), key=lambda each: (-each[1], each[0]))
