"""Notices deadlines that have passed, and provisional ones that can be counted for good: each once, even if nobody was running when."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from contracts.working_days import WorkCalendar
from dept_adapter.domain import Review, Transition, confirm, notice_day
from dept_adapter.store import Change, Reviews

log = get_logger(__name__)
_BATCH = 200


class Clock:
    """Looks through the reviews of the served departments. A deadline is a field of its review: nothing is kept in memory."""

    def __init__(
        self,
        outbox: Outbox,
        reviews: Reviews,
        department_codes: Sequence[str],
        poll_seconds: float,
        calendar: WorkCalendar,
    ) -> None:
        self._outbox = outbox
        self._reviews = reviews
        self._codes = department_codes
        self._calendar = calendar
        self.loop = Loop("deadlines", self.step, poll_seconds)

    async def step(self) -> bool:
        """One batch of each, in a transaction each; returns whether there may be more."""
        confirmed = await self._confirm()
        return await self._notice() or confirmed

    async def _confirm(self) -> bool:
        ids = await self._reviews.provisional(self._codes, self._calendar.missing, _BATCH)

        def confirmed(review: Review, now: datetime) -> tuple[Transition, str]:
            cause = f"calendar:{review.item_id}:{review.missing_year}:{review.due_on}"
            return confirm(review, self._calendar, now), cause

        if ids:
            log.info("due days are certain now", reviews=await self._change(ids, confirmed))
        return len(ids) == _BATCH

    async def _notice(self) -> bool:
        ids = await self._reviews.overdue(self._codes, china_date(datetime.now(UTC)), _BATCH)

        def noticed(review: Review, now: datetime) -> tuple[Transition, str]:
            step = "decide" if review.accepted_at else "accept"
            return notice_day(review, now), f"deadline:{review.item_id}:{step}:{review.due_on}"

        if ids:
            log.info("deadlines have passed", reviews=await self._change(ids, noticed))
        return len(ids) == _BATCH

    async def _change(
        self, ids: Sequence[str], step: Callable[[Review, datetime], tuple[Transition, str]]
    ) -> int:
        async def work(unit: UnitOfWork) -> int:
            changes: list[Change] = []
            for stored in (await self._reviews.load(ids, unit.session)).values():
                transition, cause = step(stored.review, unit.now)
                if not transition.events:
                    continue
                changes.append(Change(stored, transition.review, "clock"))
                for event in transition.events:
                    unit.emit(event, cause=cause, trace=stored.trace)
            await self._reviews.save(changes, unit.now, unit.session)
            return len(changes)

        changed: int = await self._outbox.run(work)
        return changed
