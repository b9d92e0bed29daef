"""Notices days: deadlines that have passed, and reminders that are due; each once, even if nobody was running then."""

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.working_days import is_working_day
from dept_adapter.domain import notice_day
from dept_adapter.reminders import Reminder, Schedule, remind, reminded
from dept_adapter.store import Change, Reviews, StoredReview

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


class Reminding:
    """Tells the reminders that are due of the reviews of the served departments. The next day of each is a field of its review.

    ``hour``: of the day in China from which on reminders are told, so that nobody is written to at night.
    """

    def __init__(
        self,
        outbox: Outbox,
        reviews: Reviews,
        department_codes: Sequence[str],
        schedule: Schedule,
        *,
        hour: int,
        poll_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._reviews = reviews
        self._codes = department_codes
        self._schedule = schedule
        self._hour = hour
        self.loop = Loop("reminders", self.step, poll_seconds)

    async def step(self) -> bool:
        """Remind of one batch, in one transaction; returns whether there may be more."""
        now = datetime.now(CHINA_STANDARD_TIME)
        if now.hour < self._hour or not is_working_day(now.date())[0]:
            return False
        ids = await self._reviews.reminders_due(self._codes, now.date(), _BATCH)
        if not ids:
            return False

        async def work(unit: UnitOfWork) -> int:
            changes: list[tuple[StoredReview, tuple[Reminder, ...]]] = []
            told = 0
            for stored in (await self._reviews.load(ids, unit.session)).values():
                review = stored.review
                reminder = remind(review, stored.reminders, self._schedule, unit.now)
                if reminder is not None:
                    told += 1
                    cause = f"reminder:{review.item_id}:{reminder.step}:{reminder.due_on}:{reminder.on}"
                    unit.emit(reminded(review, reminder), cause=cause, trace=stored.trace)
                # without one the day is another one now: of a schedule that has changed
                more = () if reminder is None else (reminder,)
                changes.append((stored, (*stored.reminders, *more)))
            await self._reviews.save_reminders(changes, unit.session)
            return told

        told: int = await self._outbox.run(work)
        log.info("reminders are told", reviews=told)
        return len(ids) == _BATCH
