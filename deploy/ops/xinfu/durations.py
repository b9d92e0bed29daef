"""Durations as people write them on a command line."""

import re
from datetime import timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """``90s``, ``30m``, ``24h`` or ``7d``. Raises typer.BadParameter (zh-CN)."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None:
        raise typer.BadParameter(f"“{text}”不是时长，请写成 90s、30m、24h 或 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
