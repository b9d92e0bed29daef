"""A department's view of its own work: how many, how fast, how many too late, refused why.

The figures are about the items that reached the department in a period, as they stand now, so that they add up. One aggregation
puts together the items that are alike (``Tally``), and what is counted in working days is counted from the days they hold: anybody
can do it again from the reviews and their history.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, Field

from chassis.db import Database, Document
from contracts.clock import CHINA_STANDARD_TIME
from contracts.records import DepartmentRef
from contracts.working_days import working_days_between
from dept_adapter.domain import AUTOMATIC
from dept_adapter.states import ENDED, State

SHOWN_REASONS = 20
"""Of a kind and department; the others are counted together."""
_REASONED = (State.REFUSED, State.NOT_ACCEPTED)


class Speed(BaseModel):
    """Working days some items took, the applicant's time to supplement left out. Null where there are none.

    A percentile is the nearest rank: the smallest number of days within which so many of them were done.
    """

    number: int
    median_working_days: int | None
    p90_working_days: int | None


class Share(BaseModel):
    """``within`` of ``of`` items."""

    within: int
    of: int
    percent: float | None = Field(description="One decimal place; null of none")


class Reason(BaseModel):
    """A reason as it was written, and how often."""

    reason: str
    number: int


class Reasons(BaseModel):
    """The most frequent ones, and how many items have another."""

    shown: list[Reason]
    others: int


class Figures(BaseModel):
    """Of the items a department received from ``first_day`` to ``last_day`` (China days, both inclusive), as they stand now.

    ``received`` is ``open`` and all ``outcomes``. ``decided``: the department granted or refused, revoked grants included; what is
    recognised was decided elsewhere. ``overdue_now``: open, and the last day of the step the department owes has passed.
    ``accepted_late``, ``decided_late``: after the last day they had, with supplement and extension. ``within_promise``: decided
    within the service promise to applicants, which is no legal limit; null when there is none.
    """

    department: DepartmentRef
    first_day: date
    last_day: date
    received: int
    open: int
    overdue_now: int
    accepted: int
    accepted_late: int
    decided: int
    decided_late: int
    outcomes: dict[State, int]
    to_accept: Speed
    to_decide: Speed
    promise_working_days: int | None
    within_promise: Share | None
    within_law: Share
    supplements: int
    extensions: int
    automatic: int
    refused_why: Reasons
    not_accepted_why: Reasons


@dataclass(frozen=True)
class Tally:
    """``number`` items that are alike. Days are days in China.

    ``decided_on``: None for what was decided elsewhere. ``asked_on``, ``resumed_on``: of the supplement.
    """

    state: State
    requested_on: date
    accepted_on: date | None
    decided_on: date | None
    asked_on: date | None
    resumed_on: date | None
    accept_due_on: date
    decide_due_on: date
    extended: bool
    automatic: bool
    number: int = 1

    @property
    def due_on(self) -> date | None:
        """The last day of the step the department owes now; None: it owes nothing."""
        if self.state in ENDED or self.state is State.SUPPLEMENT:
            return None
        return self.accept_due_on if self.accepted_on is None else self.decide_due_on

    def took(self, until: date) -> int:
        """Working days from the request until that day, less those in which the applicant had to supplement."""
        paused = 0
        if self.asked_on is not None:
            # the department may go on without what it had asked for
            ends = (self.resumed_on, self.accepted_on, until)
            paused = _working_days(self.asked_on, min(day for day in ends if day is not None))
        return max(0, _working_days(self.requested_on, until) - paused)


_working_days = lru_cache(maxsize=20_000)(working_days_between)


@dataclass
class Count:
    """Adds up the items of one department, in memory that does not grow with their number.

    ``today``: the day in China. ``promised``: day of the request -> working days promised then.
    """

    today: date
    promised: Callable[[date], int | None]
    states: Counter[State] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    to_accept: Counter[int] = field(default_factory=Counter)
    to_decide: Counter[int] = field(default_factory=Counter)
    reasons: dict[State, list[Reason]] = field(default_factory=dict)

    def add(self, tally: Tally) -> None:
        """Count items that are alike."""
        number = tally.number
        self.states[tally.state] += number
        self.sums["supplements"] += number * (tally.asked_on is not None)
        self.sums["extensions"] += number * tally.extended
        self.sums["automatic"] += number * tally.automatic
        self.sums["overdue_now"] += number * (tally.due_on is not None and tally.due_on < self.today)
        if tally.accepted_on is not None:
            self.to_accept[tally.took(tally.accepted_on)] += number
            self.sums["accepted_late"] += number * (tally.accepted_on > tally.accept_due_on)
        if tally.decided_on is not None:
            took, promised = tally.took(tally.decided_on), self.promised(tally.requested_on)
            self.to_decide[took] += number
            self.sums["decided_late"] += number * (tally.decided_on > tally.decide_due_on)
            if promised is not None:
                self.sums["promised"] += number
                self.sums["within_promise"] += number * (took <= promised)

    def explain(self, state: State, reasons: Sequence[Reason]) -> None:
        """The most frequent reasons of the items in a state."""
        self.reasons[state] = list(reasons)

    def figures(self, department: DepartmentRef, first_day: date, last_day: date) -> Figures:
        """What was counted."""
        decided, sums = self.to_decide.total(), self.sums
        promise = self.promised(last_day)
        kept = None if promise is None else share(sums["within_promise"], sums["promised"])
        return Figures(
            department=department,
            first_day=first_day,
            last_day=last_day,
            received=self.states.total(),
            open=sum(number for state, number in self.states.items() if state not in ENDED),
            overdue_now=sums["overdue_now"],
            accepted=self.to_accept.total(),
            accepted_late=sums["accepted_late"],
            decided=decided,
            decided_late=sums["decided_late"],
            outcomes={state: self.states[state] for state in State if state in ENDED},
            to_accept=speed(self.to_accept),
            to_decide=speed(self.to_decide),
            promise_working_days=promise,
            within_promise=kept,
            within_law=share(decided - sums["decided_late"], decided),
            supplements=sums["supplements"],
            extensions=sums["extensions"],
            automatic=sums["automatic"],
            refused_why=self._why(State.REFUSED),
            not_accepted_why=self._why(State.NOT_ACCEPTED),
        )

    def _why(self, state: State) -> Reasons:
        shown = self.reasons.get(state, [])
        # the reasons are read a moment after the states: one item may have moved in between
        return Reasons(shown=shown, others=max(0, self.states[state] - sum(r.number for r in shown)))


def speed(days: Counter[int]) -> Speed:
    """Of a number of items for each number of working days."""

    def within(percent: int) -> int | None:
        rank, seen = -(-days.total() * percent // 100), 0
        for value in sorted(days):
            seen += days[value]
            if seen >= rank:
                return value
        return None

    return Speed(number=days.total(), median_working_days=within(50), p90_working_days=within(90))


def share(within: int, of: int) -> Share:
    """``within`` of ``of``, in percent."""
    return Share(within=within, of=of, percent=round(100 * within / of, 1) if of else None)


class ReviewFigures:
    """Counts the reviews as they are stored."""

    def __init__(self, database: Database) -> None:
        self._reviews = database.collection("reviews")

    async def count(
        self,
        departments: Mapping[str, DepartmentRef],
        first_day: date,
        last_day: date,
        today: date,
        promised: Callable[[date], int | None],
    ) -> list[Figures]:
        """Figures of these departments, by code, in their order."""
        counts = {code: Count(today, promised) for code in departments}
        pipeline = pipeline_of(list(departments), first_day, last_day)
        async for row in self._reviews.aggregate(pipeline, allowDiskUse=True):
            key = row["_id"]
            if "reasons" in row:
                told = [Reason(reason=r["reason"], number=r["number"]) for r in row["reasons"]]
                counts[key["code"]].explain(State(key["state"]), told)
            else:
                counts[key.pop("code")].add(_tally(key, row["number"]))
        return [
            counts[code].figures(department, first_day, last_day) for code, department in departments.items()
        ]


def pipeline_of(codes: Sequence[str], first_day: date, last_day: date) -> list[Document]:
    """Rows of items that are alike, then of each department's most frequent reasons. Served by the index ``received``."""
    received: Document = {
        "department.code": {"$in": list(codes)},
        "requested_at": {"$gte": _start(first_day), "$lt": _start(last_day, days=1)},
    }
    recognised = {"$in": [State.RECOGNISED.value, "$history.state"]}
    alike = {
        "code": "$department.code",
        "state": "$state",
        "requested_on": _day("$requested_at"),
        "accepted_on": _day("$accepted_at"),
        "decided_on": {"$cond": [recognised, None, _day("$decision.decided_at")]},
        "asked_on": "$supplement.requested_on",
        "resumed_on": _day("$supplement.received_at"),
        "accept_due_on": "$accept_due_on",
        "decide_due_on": "$decide_due_on",
        "extended": {"$in": [State.EXTENDED.value, "$history.state"]},
        "automatic": {"$eq": ["$decision.by", AUTOMATIC]},
    }
    why = {"$ifNull": ["$decision.reason", {"$ifNull": ["$note", ""]}]}
    reasons: list[Document] = [
        {"$match": {**received, "state": {"$in": [state.value for state in _REASONED]}}},
        {
            "$group": {
                "_id": {"code": "$department.code", "state": "$state", "reason": why},
                "number": {"$sum": 1},
            }
        },
        {
            "$group": {
                "_id": {"code": "$_id.code", "state": "$_id.state"},
                "reasons": {
                    "$topN": {
                        "n": SHOWN_REASONS,
                        "sortBy": {"number": -1, "_id.reason": 1},
                        "output": {"reason": "$_id.reason", "number": "$number"},
                    }
                },
            }
        },
    ]
    return [
        {"$match": received},
        {"$group": {"_id": alike, "number": {"$sum": 1}}},
        {"$unionWith": {"coll": "reviews", "pipeline": reasons}},
    ]


def _start(day: date, *, days: int = 0) -> datetime:
    """The first moment of a day in China, or of the day ``days`` later."""
    return datetime.combine(day + timedelta(days=days), time.min, CHINA_STANDARD_TIME)


def _day(moment: str) -> Document:
    return {"$dateToString": {"date": moment, "format": "%Y-%m-%d", "timezone": "+08:00"}}


def _tally(alike: Document, number: int) -> Tally:
    days = {
        name: value and date.fromisoformat(value) for name, value in alike.items() if name.endswith("_on")
    }
    found: dict[str, Any] = {**dict.fromkeys(_DAYS), **days}
    return Tally(
        **found,
        state=State(alike["state"]),
        extended=alike["extended"],
        automatic=alike["automatic"],
        number=number,
    )


_DAYS = tuple(each.name for each in fields(Tally) if each.name.endswith("_on"))
