"""What the commands share: the console, the option for the data directory, and how they end when something is wrong."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from contracts.clock import CHINA_STANDARD_TIME

console = Console()

DataDir = Annotated[
    Path, typer.Option(envvar="XINFU_DATA_DIR", help="本地环境的数据目录", show_default=False)
]


def fail(text: object) -> NoReturn:
    """Say what is wrong on standard error and exit with status 1."""
    Console(stderr=True).print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def plain(text: str, *, keep: str = "") -> str:
    """Text from outside for the terminal: no markup, no control characters (but those in ``keep``)."""
    safe = (c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
    return escape("".join(safe))


def clock_time(moment: datetime) -> str:
    """A moment as a wall clock in China shows it."""
    return moment.astimezone(CHINA_STANDARD_TIME).strftime("%m-%d %H:%M:%S")


def age(moment: datetime | None) -> str:
    """How long ago, in the unit that fits."""
    if moment is None:
        return "—"
    return lasting((datetime.now(UTC) - moment).total_seconds())


def lasting(seconds: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("天", 86_400), ("小时", 3600), ("分钟", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} 秒"
