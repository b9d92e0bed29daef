"""Working days (工作日) by the State Council's calendar with its make-up workdays.

Known are the years of the library chinesecalendar and those of ``catalogue/calendar.yaml``, which operators extend when the yearly
notice comes. The notice of a year may also change the last days of the year before (2018-12-29 was made a working day by that of
2019): those are known only when both are.

An unknown day is counted Monday to Friday, for display. A last day that was reached over such days is provisional: nothing that
cannot be undone may follow from it (nobody is late, nothing lapses, nobody is refused) until it has been counted again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from itertools import count

import chinese_calendar

FIRST_YEAR = 2004
"""Of the library; earlier years are no concern of ours."""
_LIBRARY = f"chinesecalendar-{version('chinesecalendar')}"


@dataclass(frozen=True)
class Count:
    """How a last day was counted: ``working_days`` after ``start``, by this version of the calendar.

    ``missing_year``: the first year on the way that was unknown; None: the day is certain.
    """

    start: date
    working_days: int
    missing_year: int | None
    calendar: str


@dataclass(frozen=True)
class Deadline:
    """A last day, and how it was counted."""

    on: date
    count: Count

    @property
    def provisional(self) -> bool:
        """Whether it was reached over days that are not known yet."""
        return self.count.missing_year is not None


@cache
def library_knows(year: int) -> bool:
    """Whether chinesecalendar has this year."""
    try:
        chinese_calendar.is_workday(date(year, 7, 1))
    except NotImplementedError:
        return False
    return True


@lru_cache(maxsize=4096)  # some ten years: the library looks a day up in five places each time
def _library_says(day: date) -> bool:
    return bool(chinese_calendar.is_workday(day))


def first_day(year: int) -> date:
    """The first day that the notice of a year may speak of: around New Year, days of December are exchanged."""
    return date(year - 1, 12, 28)


@dataclass(frozen=True)
class WorkCalendar:
    """``days``: day -> whether people work, of each year that operators added. Those days win over the library's."""

    days: Mapping[int, Mapping[date, bool]] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """Names the content: library and its version, and what operators added."""
        if not self.days:
            return _LIBRARY
        lines = [
            f"{day}:{works:d}" for year in sorted(self.days) for day, works in sorted(self.days[year].items())
        ]
        digest = hashlib.sha256("\n".join([*map(str, sorted(self.days)), *lines]).encode()).hexdigest()
        return f"{_LIBRARY}+{digest[:12]}"

    @cached_property
    def missing(self) -> int:
        """The first year that is not known."""
        return next(year for year in count(FIRST_YEAR) if not self.knows(year))

    def knows(self, year: int) -> bool:
        """Whether the notice of this year is here."""
        return year in self.days or library_knows(year)

    def missing_for(self, day: date) -> int | None:
        """The year whose notice is still needed to know this day; None: it is certain."""
        needed = (day.year, day.year + 1) if day >= first_day(day.year + 1) else (day.year,)
        return next((year for year in needed if year >= FIRST_YEAR and not self.knows(year)), None)

    def is_working_day(self, day: date) -> bool:
        """Whether people work; for a day that is not known, whether it is one of Monday to Friday."""
        for year in (day.year + 1, day.year):
            told = self.days.get(year, {}).get(day)
            if told is not None:
                return told
        if day.year not in self.days and library_knows(day.year):
            return _library_says(day)
        return day.weekday() < 5

    def working_days_after(self, start: date, days: int) -> Deadline:
        """The ``days``-th working day after ``start``; the day itself does not count (民法典 第二百零一条)."""
        day, missing, left = start, None, days
        while left > 0:
            day += timedelta(days=1)
            missing = missing or self.missing_for(day)
            left -= self.is_working_day(day)
        return Deadline(day, Count(start, days, missing, self.version))

    def working_days_between(self, start: date, end: date) -> int:
        """How many working days come after ``start`` and not after ``end``; 0 when ``end`` is not later."""
        return sum(self.is_working_day(start + timedelta(days=n)) for n in range(1, (end - start).days + 1))

    def again(self, deadline: Deadline) -> Deadline:
        """A provisional deadline as this calendar counts it; one that is certain stays as it is."""
        if not self.may_confirm(deadline.count):
            return deadline
        return self.working_days_after(deadline.count.start, deadline.count.working_days)

    def may_confirm(self, count: Count) -> bool:
        """Whether the year that was missing is here now."""
        return count.missing_year is not None and self.knows(count.missing_year)


LIBRARY_CALENDAR = WorkCalendar()
"""What is known without any row of operators. Counting by it fails safe: what it does not know is provisional."""
