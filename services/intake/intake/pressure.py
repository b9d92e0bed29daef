"""Back-pressure: intake takes no more than the database, the bus and the targets get done.

``refuse_submission`` and ``refuse_import`` decide, from what was measured, without I/O. ``Gate`` measures: what is at work here at
each request, backlogs in the database every few seconds, counted no further than twice their limit.
"""

import asyncio
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import Counter, Gauge

from chassis.background import Loop
from chassis.outbox import Outbox
from chassis.problems import Problem
from contracts.errors import ProblemCode
from intake.domain.item import ItemStatus
from intake.settings import IntakeSettings
from intake.store import Store

_OUTBOX_SECONDS = 1.0
_ITEMS_SECONDS = 3.0
_SHORTEST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1, 60
_WEIGHT = 0.1
"""Of the newest value in a moving average."""

AT_WORK = Gauge("xinfu_intake_at_work", "Submissions and imports at work", ["kind"])
COMMIT_SECONDS = Gauge("xinfu_intake_commit_seconds", "Time of a submission's transaction, moving average")
BACKLOG = Gauge("xinfu_intake_backlog", "Work not done yet, counted up to twice its limit", ["cause"])
REFUSALS = Counter("xinfu_intake_refused_total", "Submissions and imports answered 429", ["cause"])


class Cause(StrEnum):
    """Why intake takes nothing more for a moment."""

    SUBMISSIONS = "submissions"
    IMPORTS = "imports"
    DATABASE = "database"
    OUTBOX = "outbox"
    ROUTING = "routing"
    TARGETS = "targets"


_SAID = {
    Cause.SUBMISSIONS: "正在受理的申请过多",
    Cause.IMPORTS: "正在进行的导入已达上限",
    Cause.DATABASE: "数据库响应缓慢",
    Cause.OUTBOX: "待发布的事件积压过多",
    Cause.ROUTING: "待分派的事项积压过多",
    Cause.TARGETS: "待公示平台更新的事项积压过多",
}
_WAITING = {
    Cause.ROUTING: (ItemStatus.SUBMITTED,),
    Cause.TARGETS: (ItemStatus.GRANTED, ItemStatus.SYNCING),
}
"""Items that machines have to deal with. Those that wait for people (referred, routed, accepted) have deadlines instead."""


@dataclass(frozen=True)
class Backlog:
    """Work not done yet, and how fast it becomes less: items or events per second, 0 when it does not."""

    count: int = 0
    drained_per_second: float = 0.0
    measured_at: float | None = None

    def measured(self, count: int, now: float) -> "Backlog":
        """After another count; ``now`` in seconds of any clock that only rises."""
        if self.measured_at is None or now <= self.measured_at:
            return Backlog(count, self.drained_per_second, now)
        drained = max(self.count - count, 0) / (now - self.measured_at)
        return Backlog(count, _moved(self.drained_per_second, drained), now)

    def seconds_until(self, limit: int) -> float:
        """When it will be below the limit if it goes on like this; infinite when it does not."""
        return (self.count - limit + 1) / self.drained_per_second if self.drained_per_second else math.inf


def _moved(average: float, value: float) -> float:
    return average + _WEIGHT * (value - average)


@dataclass(frozen=True)
class Limits:
    """What is taken at most: at work at once, seconds of a commit, and backlogs by cause."""

    submissions: int
    imports: int
    commit_seconds: float
    backlogs: Mapping[Cause, int]


@dataclass
class Pressure:
    """What was measured last."""

    submissions: int = 0
    imports: int = 0
    commit_seconds: float = 0.0
    backlogs: dict[Cause, Backlog] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """Why not, and when to come again."""

    cause: Cause
    retry_after_seconds: int


def _refusal(cause: Cause, seconds: float) -> Refusal:
    bounded = min(max(seconds, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
    return Refusal(cause, math.ceil(bounded))


def _behind(limits: Limits, pressure: Pressure, causes: tuple[Cause, ...]) -> Refusal | None:
    for cause in causes:
        backlog = pressure.backlogs.get(cause, Backlog())
        if backlog.count >= limits.backlogs[cause]:
            return _refusal(cause, backlog.seconds_until(limits.backlogs[cause]))
    return None


def refuse_submission(limits: Limits, pressure: Pressure) -> Refusal | None:
    """None when one more application may be taken.

    A slow database narrows the door in proportion and never closes it: what still goes through shows when it is fast again.
    """
    if behind := _behind(limits, pressure, (Cause.OUTBOX, Cause.ROUTING, Cause.TARGETS)):
        return behind
    slowness = max(pressure.commit_seconds / limits.commit_seconds, 1.0)
    if pressure.submissions < max(int(limits.submissions / slowness), 1):
        return None
    # a place is free after one commit
    return _refusal(Cause.DATABASE if slowness > 1 else Cause.SUBMISSIONS, pressure.commit_seconds)


def refuse_import(limits: Limits, pressure: Pressure) -> Refusal | None:
    """None when one more file may be taken."""
    if pressure.imports >= limits.imports:
        return _refusal(Cause.IMPORTS, _LONGEST_RETRY_SECONDS / 4)
    return refuse_rows(limits, pressure)


def refuse_rows(limits: Limits, pressure: Pressure) -> Refusal | None:
    """None when a file that is being imported may go on: its rows only become events."""
    return _behind(limits, pressure, (Cause.OUTBOX,))


class Gate:
    """Stands before submissions and imports. Its loops measure; in between it decides on what they saw."""

    def __init__(self, settings: IntakeSettings, store: Store, outbox: Outbox) -> None:
        self._limits = Limits(
            settings.max_submissions_at_work,
            settings.max_concurrent_imports,
            settings.max_commit_seconds,
            {
                Cause.OUTBOX: settings.max_outbox_pending,
                Cause.ROUTING: settings.max_unrouted_items,
                Cause.TARGETS: settings.max_unshown_items,
            },
        )
        self._pressure = Pressure()
        self._store = store
        self._outbox = outbox
        self.loops = [
            Loop("outbox backlog", self._measure_outbox, _OUTBOX_SECONDS),
            Loop("item backlogs", self._measure_items, _ITEMS_SECONDS),
        ]

    @contextmanager
    def submission(self) -> Iterator[None]:
        """The time of a submission's transaction. Raises Problem BUSY."""
        pressure = self._pressure
        _raise_if(refuse_submission(self._limits, pressure), "请用同一 Idempotency-Key")
        pressure.submissions += 1
        AT_WORK.labels("submissions").set(pressure.submissions)
        started = time.monotonic()
        try:
            yield
        finally:
            pressure.submissions -= 1
            AT_WORK.labels("submissions").set(pressure.submissions)
            pressure.commit_seconds = _moved(pressure.commit_seconds, time.monotonic() - started)
            COMMIT_SECONDS.set(pressure.commit_seconds)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """The time of an import, from its upload to the end of the report. Raises Problem BUSY."""
        pressure = self._pressure
        _raise_if(refuse_import(self._limits, pressure), "请")
        pressure.imports += 1
        AT_WORK.labels("imports").set(pressure.imports)
        try:
            yield
        finally:
            pressure.imports -= 1
            AT_WORK.labels("imports").set(pressure.imports)

    async def room(self) -> None:
        """Wait until there is room for more rows of a file that is being imported. Raises Problem BUSY after a minute."""
        deadline = time.monotonic() + _LONGEST_RETRY_SECONDS
        while refusal := refuse_rows(self._limits, self._pressure):
            if time.monotonic() > deadline:
                _raise_if(refusal, "已导入的行不受影响，已有的行会自动跳过，请")
            await asyncio.sleep(_OUTBOX_SECONDS)

    async def _measure_outbox(self) -> bool:
        self._measured(Cause.OUTBOX, await self._outbox.pending(2 * self._limits.backlogs[Cause.OUTBOX]))
        return False

    async def _measure_items(self) -> bool:
        for cause, statuses in _WAITING.items():
            self._measured(cause, await self._store.count_items(statuses, 2 * self._limits.backlogs[cause]))
        return False

    def _measured(self, cause: Cause, count: int) -> None:
        backlogs = self._pressure.backlogs
        backlogs[cause] = backlogs.get(cause, Backlog()).measured(count, time.monotonic())
        BACKLOG.labels(cause).set(count)


def _raise_if(refusal: Refusal | None, advice: str) -> None:
    if refusal is None:
        return
    REFUSALS.labels(refusal.cause).inc()
    # up to half as long again, so that not all come back together
    longest = min(math.ceil(refusal.retry_after_seconds * 1.5), _LONGEST_RETRY_SECONDS)
    seconds = random.randint(refusal.retry_after_seconds, longest)  # noqa: S311 (jitter, not a secret)
    raise Problem(
        ProblemCode.BUSY,
        f"{_SAID[refusal.cause]}，暂不受理，{advice}在 {seconds} 秒后重试。",
        headers={"Retry-After": str(seconds)},
        cause=refusal.cause.value,
    )
