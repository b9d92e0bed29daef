"""Notices deadlines that have passed: each once, even if nobody was running when it did."""

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from dept_adapter.domain import notice_day
from dept_adapter.store import Change, Reviews

log = get_logger(__name__)
_BATCH = 200


class Clock:
    """Looks through the reviews of the served departments. A deadline is a field of its review: nothing is kept in memory."""

    def __init__(
        self, outbox: Outbox, reviews: Reviews, department_codes: Sequence[str], poll_seconds: float
    ) -> None:
        self._outbox = outbox
        self._reviews = reviews
        self._codes = department_codes
        self.loop = Loop("deadlines", self.step, poll_seconds)

    async def step(self) -> bool:
        """Notice one batch, in one transaction; returns whether there may be more."""
        ids = await self._reviews.overdue(self._codes, china_date(datetime.now(UTC)), _BATCH)
        if not ids:
            return False

        async def work(unit: UnitOfWork) -> int:
            changes: list[Change] = []
            for stored in (await self._reviews.load(ids, unit.session)).values():
                transition = notice_day(stored.review, unit.now)
                if not transition.events:
                    continue
                changes.append(Change(stored, transition.review, "clock"))
                for event in transition.events:
                    review = stored.review
                    step = "decide" if review.accepted_at else "accept"
                    cause = f"deadline:{review.item_id}:{step}:{review.due_on}"
                    unit.emit(event, cause=cause, trace=stored.trace)
            await self._reviews.save(changes, unit.now, unit.session)
            return len(changes)

        noticed: int = await self._outbox.run(work)
        log.info("deadlines have passed", reviews=noticed)
        return len(ids) == _BATCH
