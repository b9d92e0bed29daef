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

    async def due(self, limit: int, find: Callable[[int], Awaitable[Iterable[str]]]) -> list[str]:
        """Up to ``limit`` of the due rows, without those that are left alone now. ``find`` gives their ids in order, up to a number: as
        many more as are left alone, so that nothing starves behind them.
        """
        now = datetime.now(UTC)
        left_alone = sum(left.until > now for left in self._left.values())
        return self.ready(await find(limit + left_alone))[:limit]

    def ready(self, ids: Iterable[str]) -> list[str]:
        """Those of these rows that are not left alone now."""
        now = datetime.now(UTC)
        return [id_ for id_ in ids if not (left := self._left.get(id_)) or left.until <= now]

    async def run(
        self, ids: Sequence[str], work: Callable[[UnitOfWork, Sequence[str]], Awaitable[T]]
    ) -> list[T]:
        """``work`` on these rows in one transaction, after a failure in several; what it returned for those that went well.

        Raises what says that the database cannot serve now: that is no row's fault.
        """

        async def transact(part: Sequence[str]) -> list[T]:
            done = await self._outbox.run(lambda unit: work(unit, part))
            for id_ in part:
                self._left.pop(id_, None)
            return [done]

        return await self._halved(ids, transact)

    async def read(
        self, ids: Sequence[str], read: Callable[[Sequence[str]], Awaitable[Iterable[T]]]
    ) -> list[T]:
        """What ``read`` makes of rows that are claimed, without those that cannot be read: each is logged and counts as a failed step. It
        comes again when its claim is over.

        Raises what says that the database cannot serve now.
        """
        return await self._halved(ids, read)

    async def _halved(
        self, ids: Sequence[str], work: Callable[[Sequence[str]], Awaitable[Iterable[T]]]
    ) -> list[T]:
        if not ids:
            return []
        try:
            return list(await work(ids))
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(ids) == 1:
                self.leave(ids[0], error)
                return []
            half = len(ids) // 2
            return [*await self._halved(ids[:half], work), *await self._halved(ids[half:], work)]

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
