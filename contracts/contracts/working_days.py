"""Working days (工作日) by the State Council's calendar with its make-up workdays, from the library chinesecalendar.

A year the library does not know yet is counted Monday to Friday and marked provisional, in the events too
(``due_provisional``): nobody may be refused anything because of such a day.
"""

from datetime import date, timedelta
from typing import NamedTuple

import chinese_calendar


class Deadline(NamedTuple):
    """A day, and whether the calendar of its year was still unknown when it was computed."""

    on: date
    provisional: bool


def is_working_day(day: date) -> tuple[bool, bool]:
    """(is a working day, is only a guess)."""
    try:
        return bool(chinese_calendar.is_workday(day)), False
    except NotImplementedError:
        return day.weekday() < 5, True


def working_days_after(start: date, days: int) -> Deadline:
    """The ``days``-th working day after ``start``; the day itself does not count (民法典 第二百零一条)."""
    day, provisional, left = start, False, days
    while left > 0:
        day += timedelta(days=1)
        works, guess = is_working_day(day)
        provisional = provisional or guess
        left -= works
    return Deadline(day, provisional)


def working_days_between(start: date, end: date) -> int:
    """How many working days come after ``start`` and not after ``end``; 0 when ``end`` is not later."""
    return sum(is_working_day(start + timedelta(days=n))[0] for n in range(1, (end - start).days + 1))
