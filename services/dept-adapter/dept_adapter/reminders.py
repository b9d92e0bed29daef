"""Reminders (催办): whom to remind of what a department owes, and when. Pure.

Working days are counted from the last day of the step that is owed: before it, on it, after it, a level higher each time. A reminder
is told once, on a working day; several that were missed become one, of the highest level. What moves the item ends its reminders: the
step or its last day is another one then, and while the applicant supplements there is none. Objections are reminded of alike.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import overload

from contracts.clock import china_date
from contracts.events import ObjectionReminded, ReminderLevel, ReviewReminded, ReviewStep
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import NotAllowedError, Review, is_provisional
from dept_adapter.objection import Objection
from dept_adapter.states import State

Owing = Review | Objection
"""What a department may owe a step of."""

LEVELS = tuple(ReminderLevel)
"""From the desk upwards."""
IN_PERSON_DAYS: Mapping[ReminderLevel, Sequence[int]] = {
    # somebody has to come, or a courier: earlier than where a click will do
    ReminderLevel.OFFICER: (-5, -2, 0),
    ReminderLevel.APPROVER: (1,),
    ReminderLevel.SUPERVISOR: (3,),
}
DEFAULT_DAYS: Mapping[ReminderLevel, Sequence[int]] = {
    ReminderLevel.OFFICER: (-2, 0),
    ReminderLevel.APPROVER: (1,),
    ReminderLevel.SUPERVISOR: (3,),
}


@dataclass(frozen=True)
class Acknowledgement:
    """An officer has seen a reminder, and says why the item is not done yet."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Reminder:
    """A reminder that was told. ``due_on``: the department's last day for the step; ``on``: the day it was planned for.

    ``promised_on``: the day of the service promise it counts from, which is no legal limit; None: it counts from ``due_on``.
    """

    step: ReviewStep
    level: ReminderLevel
    due_on: date
    on: date
    told_at: datetime
    promised_on: date | None = None
    acknowledged: Acknowledgement | None = None


@dataclass(frozen=True)
class Planned:
    """A reminder and its day."""

    on: date
    level: ReminderLevel
    promised_on: date | None = None


@dataclass(frozen=True)
class Schedule:
    """``days``: working days from the last day of a step, negative before it, for each level.

    ``in_person``: those of what is handed over in person; None: the same.
    ``promised``: day of the request -> working days of the service promise, None where there is none: its reminders go to the
    officers alone, before and on its day, and never higher.
    """

    days: Mapping[ReminderLevel, Sequence[int]]
    promised: Callable[[date], int | None] = lambda _requested_on: None
    in_person: Mapping[ReminderLevel, Sequence[int]] | None = None

    def days_of(self, owing: Owing) -> Mapping[ReminderLevel, Sequence[int]]:
        """Those that hold for a review or an objection."""
        return self.days if self.in_person is None or not owing.record.in_person else self.in_person


NO_REMINDERS = Schedule({})


def faults(days: Mapping[ReminderLevel, Sequence[int]]) -> list[str]:
    """What is wrong with the days of a schedule: a level that would be reminded before a lower one."""
    found = []
    highest: int | None = None
    for level in LEVELS:
        own = days.get(level, ())
        if own and highest is not None and min(own) <= highest:
            found.append(f"{level.value} is reminded before a lower level: its days must all be later")
        highest = max([*own, *([] if highest is None else [highest])], default=None)
    return found


def step_of(owing: Owing) -> ReviewStep | None:
    """What the department owes now; None: nothing, or the applicant has to act."""
    if owing.due_on is None or owing.state is State.SUPPLEMENT:
        return None
    return ReviewStep.DECIDE if owing.accepted_at else ReviewStep.ACCEPT


def _began_on(owing: Owing) -> date:
    if owing.accepted_at:
        return china_date(owing.accepted_at)
    if isinstance(owing, Objection):
        return china_date(owing.received_at)
    received = owing.supplement.received_at if owing.supplement else None
    return china_date(received or owing.requested_at)


def _is_certain(owing: Owing) -> bool:
    return not (owing.is_provisional if isinstance(owing, Objection) else is_provisional(owing.due_count))


def _last_working_day(day: date, back: int = 0) -> date:
    """The day, or the last working day before it; ``back`` working days earlier."""
    while not LIBRARY_CALENDAR.is_working_day(day) or back:
        back -= LIBRARY_CALENDAR.is_working_day(day)
        day -= timedelta(days=1)
    return day


# the same few days of many reviews
@lru_cache(maxsize=10_000)
def _on(due_on: date, working_days: int) -> date:
    if working_days > 0:
        return LIBRARY_CALENDAR.working_days_after(due_on, working_days).on
    return _last_working_day(due_on, -working_days)


def promised_on(review: Owing, schedule: Schedule) -> date | None:
    """The day by which the service promise has the department decide; the applicant's time to supplement is left out.

    None where nothing is promised; of objections there is no promise.
    """
    if isinstance(review, Objection):
        return None
    requested_on = china_date(review.requested_at)
    days = schedule.promised(requested_on)
    if days is None:
        return None
    asked = review.supplement
    if asked and asked.received_at:
        paused = LIBRARY_CALENDAR.working_days_between(asked.requested_on, china_date(asked.received_at))
        days += paused
    return _on(requested_on, days)


def plan(owing: Owing, schedule: Schedule) -> list[Planned]:
    """All reminders of the step that is owed now, in their order, whether they were told or not."""
    step, due_on = step_of(owing), owing.due_on
    # of a provisional day nobody is reminded: nobody is late before it is certain
    if step is None or due_on is None or not _is_certain(owing):
        return []
    began_on = _began_on(owing)
    found: list[Planned] = []
    schedule_days = schedule.days_of(owing)
    for level, days in schedule_days.items():
        for working_days in days:
            on = _on(due_on, working_days)
            if working_days > 0:
                # a step that began too late for that: the next working day, so that somebody is told at all
                found.append(Planned(max(on, _on(began_on, 1)), level))
            elif _is_of_use(on, working_days, began_on):
                found.append(Planned(on, level))
    promise = promised_on(owing, schedule) if step is ReviewStep.DECIDE else None
    if promise is not None and promise < due_on:
        for working_days in schedule_days.get(ReminderLevel.OFFICER, ()):
            on = _on(promise, working_days)
            if working_days <= 0 and _is_of_use(on, working_days, began_on):
                found.append(Planned(on, ReminderLevel.OFFICER, promise))
    return sorted(found, key=_order)


def _is_of_use(on: date, working_days: int, began_on: date) -> bool:
    """Nobody is reminded before a step has begun, nor of a later day on the day it begins."""
    return on > began_on or (on == began_on and working_days == 0)


def _order(planned: Planned) -> tuple[date, int, bool]:
    return planned.on, LEVELS.index(planned.level), planned.promised_on is None


def _current(owing: Owing, told: Iterable[Reminder]) -> list[Reminder]:
    """Those of the step that is owed now, by the day it is due now."""
    step = step_of(owing)
    return [each for each in told if each.step is step and each.due_on == owing.due_on]


def _pending(owing: Owing, told: Sequence[Reminder], schedule: Schedule) -> list[Planned]:
    current = _current(owing, told)
    after = max((each.on for each in current), default=date.min)
    quiet = [LEVELS.index(each.level) for each in current if each.acknowledged]
    reached = max((LEVELS.index(each.level) for each in current), default=0)
    lowest = max([reached, *(level + 1 for level in quiet)])
    return [each for each in plan(owing, schedule) if each.on > after and LEVELS.index(each.level) >= lowest]


def next_on(owing: Owing, told: Sequence[Reminder], schedule: Schedule) -> date | None:
    """The day of the next reminder, today or later or missed; None: there is none."""
    return min((each.on for each in _pending(owing, told, schedule)), default=None)


def last_of(owing: Owing, told: Sequence[Reminder]) -> Reminder | None:
    """The last reminder of what is owed now."""
    return max(_current(owing, told), key=lambda each: each.on, default=None)


def level_of(owing: Owing, told: Iterable[Reminder]) -> ReminderLevel | None:
    """How far up the step that is owed now has got."""
    return max((each.level for each in _current(owing, told)), key=LEVELS.index, default=None)


def remind(owing: Owing, told: Sequence[Reminder], schedule: Schedule, now: datetime) -> Reminder | None:
    """The reminder to tell now: of those that are due the highest. None on a day that is no working day, or when none is due."""
    today, step, due_on = china_date(now), step_of(owing), owing.due_on
    if step is None or due_on is None or not LIBRARY_CALENDAR.is_working_day(today):
        return None
    due = [each for each in _pending(owing, told, schedule) if each.on <= today]
    if not due:
        return None
    last = due[-1]
    highest = max(due, key=lambda each: (LEVELS.index(each.level), each.on, each.promised_on is None))
    # what is told today stands for all that were planned until today
    return Reminder(step, highest.level, due_on, last.on, now, highest.promised_on)


@overload
def reminded(owing: Review, reminder: Reminder) -> ReviewReminded: ...


@overload
def reminded(owing: Objection, reminder: Reminder) -> ObjectionReminded: ...


def reminded(owing: Owing, reminder: Reminder) -> ReviewReminded | ObjectionReminded:
    """What everybody is told of a reminder."""
    told = {
        "application_id": owing.application_id,
        "item_id": owing.item_id,
        "record_id": owing.record_id,
        "subject_id": owing.subject_id,
        "department": owing.department,
        "step": reminder.step,
        "level": reminder.level,
        "due_on": reminder.due_on,
        "in_person": owing.record.in_person,
        "reminded_at": reminder.told_at,
    }
    if isinstance(owing, Objection):
        return ObjectionReminded.model_validate(
            {**told, "objection_id": owing.objection_id, "kind": owing.kind}
        )
    return ReviewReminded.model_validate(
        {**told, "promised_on": reminder.promised_on, "at_desk": owing.at_desk}
    )


def acknowledge(owing: Owing, told: Sequence[Reminder], by: Acknowledgement) -> tuple[Reminder, ...]:
    """The reminders with the last one acknowledged: nothing more of its level, until the next level is due.

    Repeating it changes nothing: the first reason stays. Raises NotAllowedError when nobody was reminded of what is owed now.
    """
    last = last_of(owing, told)
    if last is None:
        raise NotAllowedError("目前没有待确认的催办（或已有进展），请刷新后查看。")
    if last.acknowledged:
        return tuple(told)
    return tuple(replace(each, acknowledged=by) if each is last else each for each in told)
