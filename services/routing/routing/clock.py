"""Notices referrals whose last day has passed: each once, even if nobody was running when it did."""

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from routing.domain import overdue
from routing.store import Referrals

log = get_logger(__name__)
_BATCH = 200


class Clock:
    """Looks through the human queue. The deadline is a field of its referral: nothing is kept in memory."""

    def __init__(self, outbox: Outbox, referrals: Referrals, poll_seconds: float) -> None:
        self._referrals = referrals
        self.loop = Loop("deadlines", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Tell of one batch, in one transaction; returns whether there may be more."""
        today = china_date(datetime.now(UTC))
        ids = await self._rows.due(_BATCH, lambda limit: self._referrals.overdue(today, limit))

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
            found = await self._referrals.referred(ids, today, unit.session)
            for waiting, referred in found.items():
                unit.emit(overdue(referred, unit.now), cause=f"deadline:{waiting}")
            await self._referrals.mark_overdue(list(found), unit.now, unit.session)
            return len(found)

        if told := sum(await self._rows.run(ids, work)):
            log.info("referrals are overdue", referrals=told)
        return len(ids) == _BATCH
