"""Says loudly which year's working days are missing: in the log at start-up, as a metric, and to ``xinfu doctor``."""

from datetime import UTC, datetime

from chassis.logs import get_logger
from chassis.metrics import CALENDAR_MISSING_YEAR
from contracts.clock import china_date
from contracts.http.operations import CalendarStatus
from contracts.working_days import WorkCalendar

log = get_logger(__name__)
_LONGEST_WORKING_DAYS = 60
"""Longer than any deadline that is counted in working days."""


def look_at(calendar: WorkCalendar) -> CalendarStatus:
    """What is known today."""
    today = china_date(datetime.now(UTC))
    return CalendarStatus(
        version=calendar.version,
        missing_year=calendar.missing,
        needed=calendar.working_days_after(today, _LONGEST_WORKING_DAYS).provisional,
    )


def announce(calendar: WorkCalendar) -> None:
    """At start-up."""
    found = look_at(calendar)
    CALENDAR_MISSING_YEAR.set(found.missing_year)
    if found.needed:
        log.warning(
            "the working days of a year are missing: deadlines that reach into it are provisional, nothing follows from them."
            " Add its notice to catalogue/calendar.yaml and restart",
            year=found.missing_year,
            calendar=found.version,
        )
    else:
        log.info("working-day calendar", calendar=found.version, missing_year=found.missing_year)
