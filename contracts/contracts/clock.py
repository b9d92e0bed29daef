"""Days in Chinese law are days of China Standard Time (UTC+8, no daylight saving since 1991)."""

from datetime import date, datetime, timedelta, timezone

CHINA_STANDARD_TIME = timezone(timedelta(hours=8), "CST")


def china_date(moment: datetime) -> date:
    """The calendar day in China at this moment (which must have an offset)."""
    return moment.astimezone(CHINA_STANDARD_TIME).date()
