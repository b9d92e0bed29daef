"""Notices deadlines that have passed: each once, even if nobody was running when it did."""

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from dept_adapter.domain import notice_day
from dept_adapter.objection import Objection, notice_objection_day
from dept_adapter.objections import Objections
from dept_adapter.store import Change, Reviews

log = get_logger(__name__)
_BATCH = 200


class Clock:
    """Looks through the reviews and objections of the served departments. A deadline is a field of its document: nothing is kept in memory."""

    def __init__(
        self,
        outbox: Outbox,
        reviews: Reviews,
        objections: Objections,
        department_codes: Sequence[str],
        poll_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._reviews = reviews
        self._objections = objections
        self._codes = department_codes
        self.loop = Loop("deadlines", self.step, poll_seconds)

    async def step(self) -> bool:
        """Notice one batch of reviews and one of objections; returns whether there may be more."""
        more = await self._reviews_step()
        return await self._objections_step() or more

    async def _reviews_step(self) -> bool:
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

    async def _objections_step(self) -> bool:
        ids = await self._objections.overdue(self._codes, china_date(datetime.now(UTC)), _BATCH)
        if not ids:
            return False

        async def work(unit: UnitOfWork) -> None:
            changed: list[Objection] = []
            for stored in (await self._objections.load(ids, unit.session)).values():
                objection, events = notice_objection_day(stored.objection, unit.now)
                for event in events:
                    cause = f"deadline:{objection.objection_id}:{objection.step}"
                    unit.emit(event, cause=cause, trace=stored.trace)
                    changed.append(objection)
            await self._objections.save(changed, "clock", unit.now, unit.session)

        await self._outbox.run(work)
        return len(ids) == _BATCH
