"""A circuit breaker: after several failures in a row nothing is tried for a while, then one probe, then all or nothing again.

Pure: the time is an argument (seconds of any steady clock).
"""

from dataclasses import dataclass, field
from enum import IntEnum


class BreakerState(IntEnum):
    """Also the value of the gauge."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass
class Breaker:
    """Opens after ``failures`` failures in a row, for ``seconds``; a failed probe opens it again."""

    failures: int
    seconds: float
    _failed: int = field(default=0, init=False)
    _open_until: float | None = field(default=None, init=False)

    def state(self, now: float) -> BreakerState:
        """Closed: try all. Half-open: try one. Open: try nothing."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def remaining_seconds(self, now: float) -> float:
        """Until the probe; 0 when not open."""
        return 0.0 if self._open_until is None else max(self._open_until - now, 0.0)

    def succeeded(self) -> None:
        """An attempt was answered."""
        self._failed = 0
        self._open_until = None

    def failed(self, now: float) -> None:
        """An attempt failed. One that was under way when the breaker opened does not keep it open longer."""
        self._failed += 1
        state = self.state(now)
        if state is BreakerState.HALF_OPEN or (
            state is BreakerState.CLOSED and self._failed >= self.failures
        ):
            self._open_until = now + self.seconds
