"""Due rows of a background loop, a batch in one transaction: a row whose work fails costs itself alone."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from chassis.background import Loop
from chassis.db import describe, is_unavailable
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.parking import RetryPolicy
from chassis.unit_of_work import UnitOfWork

log = get_logger(__name__)
T = TypeVar("T")
_POLICY = RetryPolicy(base_seconds=30.0, max_seconds=3600.0, max_attempts=0)
_LEFT_AT_MOST = 10_000


@dataclass(frozen=True)
class _Left:
    attempts: int
    until: datetime


class Rows:
    """What events have in parking, for rows that are due by themselves.

    A batch that fails is halved until the failing row stands alone. That row is left alone for 30 seconds, then longer, up to an
    hour (in memory: a process that starts tries it at once), is logged, and counts as a failed step of the ``loop``. At most
    10,000 are remembered.
    """

    def __init__(self, loop: Loop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self._left: dict[str, _Left] = {}

    def wanted(self, limit: int) -> int:
        """How many due rows to look for, so that ``limit`` are found behind those that are left alone."""
        now = datetime.now(UTC)
        return limit + sum(left.until > now for left in self._left.values())

    def due(self, ids: Iterable[str], limit: int) -> list[str]:
        """The first ``limit`` of due rows that are not left alone now."""
        now = datetime.now(UTC)
        ready = [id_ for id_ in ids if not (left := self._left.get(id_)) or left.until <= now]
        return ready[:limit]

    async def run(
        self, ids: Sequence[str], work: Callable[[UnitOfWork, Sequence[str]], Awaitable[T]]
    ) -> list[T]:
        """``work`` on these rows in one transaction, after a failure in several; what it returned for those that went well.

        Raises what says that the database cannot serve now: that is no row's fault.
        """
        if not ids:
            return []
        try:
            done = await self._outbox.run(lambda unit: work(unit, ids))
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(ids) == 1:
                self.leave(ids[0], error)
                return []
            half = len(ids) // 2
            return [*await self.run(ids[:half], work), *await self.run(ids[half:], work)]
        for id_ in ids:
            self._left.pop(id_, None)
        return [done]

    def leave(self, id_: str, error: Exception) -> None:
        """Leave a row alone for a while, because of what was raised for it."""
        attempts = self._left[id_].attempts + 1 if id_ in self._left else 1
        self._left[id_] = _Left(attempts, datetime.now(UTC) + _POLICY.delay(attempts))
        while len(self._left) > _LEFT_AT_MOST:
            del self._left[next(iter(self._left))]
        self._loop.step_failed(error)
        log.exception(
            "a row is left alone", loop=self._loop.name, row=id_, attempts=attempts, error=describe(error)
        )
