"""Counts the provisional due days of the human queue again, once the year they reach into is known: each is told once."""

from collections.abc import Sequence

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.events import ItemReferred, ReferralDueConfirmed
from contracts.working_days import Count, WorkCalendar
from routing.domain import confirm
from routing.store import Referrals, count_of

log = get_logger(__name__)
_BATCH = 200
_SECONDS = 15.0
"""The calendar changes with a restart only; what a replica with an older one adds meanwhile is found soon enough."""


class Confirming:
    """Looks for referrals by the year that was missing: nothing is found while it still is."""

    def __init__(self, outbox: Outbox, referrals: Referrals, calendar: WorkCalendar) -> None:
        self._referrals = referrals
        self._calendar = calendar
        self.loop = Loop("provisional referrals", self.step, _SECONDS)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Count one batch again, in one transaction; returns whether there may be more."""
        missing = self._calendar.missing
        ids = await self._rows.due(_BATCH, lambda limit: self._referrals.provisional(missing, limit))

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
            confirmed: dict[str, tuple[ReferralDueConfirmed, Count]] = {}
            for document in await self._referrals.open(ids, unit.session):
                count = count_of(document["count"])
                told = confirm(
                    ItemReferred.model_validate(document["referred"]), count, self._calendar, unit.now
                )
                if told is None:
                    continue
                again, event = told
                confirmed[event.item_id] = event, again
                unit.emit(event, cause=f"calendar:{event.item_id}:{count.missing_year}")
            if confirmed:
                await self._referrals.save_due(confirmed, unit.session)
                log.info("due days are certain now", referrals=len(confirmed))
            return len(confirmed)

        await self._rows.run(ids, work)
        return len(ids) == _BATCH
