"""Circuit breaker of one outside system, of this process: after several failures in a row nothing is tried for a while, then one
probe, then all or nothing again. Pure: times are seconds of a monotonic clock, handed in.
"""

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """Closed: try all. Open: try nothing. Half-open: one probe decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"

    @property
    def gauge(self) -> int:
        """Value of a metric: 0 closed, 1 half-open, 2 open."""
        return (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN).index(self)


@dataclass
class Breaker:
    """Opens for ``open_seconds`` after ``max_failures`` calls failed in a row, or for as long as the other side asked for."""

    max_failures: int
    open_seconds: float
    failures: int = 0
    open_until: float = 0.0
    last_error: str | None = None

    def state(self, now: float) -> BreakerState:
        """What may be done now."""
        if now < self.open_until:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if self.failures >= self.max_failures else BreakerState.CLOSED

    def remaining_seconds(self, now: float) -> float:
        """Until a probe may be tried; 0 when not open."""
        return max(self.open_until - now, 0.0)

    def succeeded(self) -> None:
        """A call was answered. A wait the other side asked for meanwhile stays."""
        self.failures = 0
        self.last_error = None

    def failed(self, now: float, reason: str, retry_after_seconds: float = 0.0) -> None:
        """A call was not answered, or the other side asked to be left alone for ``retry_after_seconds``.

        A call that was under way when the breaker opened does not keep it open longer.
        """
        self.last_error = reason
        if self.state(now) is not BreakerState.OPEN:
            self.failures += 1
            if self.failures >= self.max_failures:
                self.open_until = now + self.open_seconds
        self.open_until = max(self.open_until, now + retry_after_seconds)
