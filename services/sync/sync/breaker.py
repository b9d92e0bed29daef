"""Circuit breaker of one target, of this process. Pure: times are seconds of a monotonic clock, handed in."""

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """``half_open``: one probe decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass
class Breaker:
    """Opens for ``open_seconds`` after ``max_failures`` calls failed in a row, or for as long as the target asked for."""

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

    def succeeded(self) -> None:
        """A call was answered. A wait the target asked for meanwhile stays."""
        self.failures = 0
        self.last_error = None

    def failed(self, now: float, reason: str, retry_after_seconds: float = 0.0) -> None:
        """A call was not answered, or the target asked to be left alone for ``retry_after_seconds``."""
        self.failures += 1
        self.last_error = reason
        if self.failures >= self.max_failures:
            self.open_until = max(self.open_until, now + self.open_seconds)
        self.open_until = max(self.open_until, now + retry_after_seconds)
