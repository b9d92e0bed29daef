"""Background loops: do a step, wait for a wake-up or the next tick, survive errors, stop when told."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chassis.logs import get_logger
from chassis.metrics import BACKGROUND_FAILURES

log = get_logger(__name__)
_REMEMBERED = 20


@dataclass(frozen=True)
class FailedStep:
    """When a step failed, and with what (the type alone: a text may quote what is personal)."""

    at: datetime
    error: str


@dataclass
class Loop:
    """Runs ``step`` again and again until stopped.

    ``step`` returns whether it found work: if so it runs again at once, otherwise after ``interval_seconds`` or ``wake()``. An
    error is logged and the next try waits longer, up to ``max_backoff_seconds``. A step in progress is finished before the
    loop stops, for at most ``grace_seconds``. ``failed``: its last failed steps, the newest last; a step in between may have
    gone well.
    """

    name: str
    step: Callable[[], Awaitable[bool]]
    interval_seconds: float
    max_backoff_seconds: float = 10.0
    grace_seconds: float = 15.0
    failed: deque[FailedStep] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _next_pause: float | None = None

    def wake(self) -> None:
        """Run the next step now."""
        self._wake.set()

    def again_within(self, seconds: float) -> None:
        """To be called by a step: the pause after it is that long at most, and not negative."""
        self._next_pause = max(seconds, 0.0)

    def step_failed(self, error: Exception) -> None:
        """Count a step, or a part of one, that failed."""
        self.failed.append(FailedStep(datetime.now(UTC), type(error).__name__))
        BACKGROUND_FAILURES.labels(self.name).inc()

    @property
    def stopping(self) -> bool:
        """Whether the loop was told to stop; a long step should end early."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start the loop in a task of the running event loop."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Finish the step in hand and stop."""
        self._stop.set()
        self._wake.set()
        if self._task is None:
            return
        try:
            await asyncio.wait_for(self._task, self.grace_seconds)
        except TimeoutError:
            log.warning(
                "background loop did not finish in time", loop=self.name, grace_seconds=self.grace_seconds
            )

    async def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            self._next_pause = None
            try:
                busy = await self.step()
                failures = 0
            except Exception as error:
                failures += 1
                busy = False
                self.step_failed(error)
                log.exception("background step failed", loop=self.name, failures=failures)
            if busy:
                await asyncio.sleep(0)
                continue
            pause = self.interval_seconds
            if self._next_pause is not None:
                pause = min(pause, self._next_pause)
            if failures:
                pause = min(max(pause, 0.2) * 2 ** min(failures, 10), self.max_backoff_seconds)
            if not self._stop.is_set():
                await self._pause(pause, interruptible=not failures)

    async def _pause(self, seconds: float, *, interruptible: bool) -> None:
        # after an error only a stop cuts the wait short: a wake-up must not turn a failing step into a tight loop
        event = self._wake if interruptible else self._stop
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
