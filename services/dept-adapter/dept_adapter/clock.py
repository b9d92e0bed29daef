"""Notices days: deadlines that have passed, provisional ones that can be counted for good, and reminders that are due; each once."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.events import Event
from contracts.working_days import WorkCalendar
from dept_adapter.domain import Review, Transition, confirm, notice_day
from dept_adapter.objection import Objection, confirm_objection, notice_objection_day
from dept_adapter.objections import Objections, StoredObjection
from dept_adapter.reminders import Owing, Reminder, Schedule, remind, reminded
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
        calendar: WorkCalendar,
    ) -> None:
        self._reviews = reviews
        self._objections = objections
        self._codes = department_codes
        self._calendar = calendar
        self.loop = Loop("deadlines", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """One batch of each, in a transaction each; returns whether there may be more."""
        confirmed = await self._confirm()
        noticed = await self._notice()
        return await self._objections_step() or noticed or confirmed

    async def _confirm(self) -> bool:
        missing = self._calendar.missing
        ids = await self._rows.due(
            _BATCH, lambda limit: self._reviews.owed.provisional(self._codes, missing, limit)
        )

        def confirmed(review: Review, now: datetime) -> tuple[Transition, str]:
            cause = f"calendar:{review.item_id}:{review.missing_year}:{review.due_on}"
            return confirm(review, self._calendar, now), cause

        if ids:
            log.info("due days are certain now", reviews=await self._change(ids, confirmed))
        return len(ids) == _BATCH

    async def _notice(self) -> bool:
        today = china_date(datetime.now(UTC))
        ids = await self._rows.due(
            _BATCH, lambda limit: self._reviews.owed.overdue(self._codes, today, limit)
        )

        def noticed(review: Review, now: datetime) -> tuple[Transition, str]:
            step = "decide" if review.accepted_at else "accept"
            return notice_day(review, now), f"deadline:{review.item_id}:{step}:{review.due_on}"

        if ids:
            log.info("deadlines have passed", reviews=await self._change(ids, noticed))
        return len(ids) == _BATCH

    async def _change(
        self, ids: Sequence[str], step: Callable[[Review, datetime], tuple[Transition, str]]
    ) -> int:
        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
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

        return sum(await self._rows.run(ids, work))

    async def _objections_step(self) -> bool:
        owed, missing, today = self._objections.owed, self._calendar.missing, china_date(datetime.now(UTC))
        provisional = await self._rows.due(
            _BATCH, lambda limit: owed.provisional(self._codes, missing, limit)
        )

        def confirmed(objection: Objection, now: datetime) -> tuple[Objection, tuple[Event, ...], str]:
            cause = f"calendar:{objection.objection_id}:{objection.missing_year}:{objection.due_on}"
            return *confirm_objection(objection, self._calendar, now), cause

        await self._change_objections(provisional, confirmed, "calendar")
        late = await self._rows.due(_BATCH, lambda limit: owed.overdue(self._codes, today, limit))

        def noticed(objection: Objection, now: datetime) -> tuple[Objection, tuple[Event, ...], str]:
            return *notice_objection_day(
                objection, now
            ), f"deadline:{objection.objection_id}:{objection.step}"

        await self._change_objections(late, noticed, "clock")
        return _BATCH in (len(provisional), len(late))

    async def _change_objections(
        self,
        ids: Sequence[str],
        step: Callable[[Objection, datetime], tuple[Objection, tuple[Event, ...], str]],
        by: str,
    ) -> None:
        async def work(unit: UnitOfWork, ids: Sequence[str]) -> None:
            changed: list[tuple[StoredObjection, Objection]] = []
            for stored in (await self._objections.load(ids, unit.session)).values():
                objection, events, cause = step(stored.objection, unit.now)
                for event in events:
                    unit.emit(event, cause=cause, trace=stored.trace)
                if events:
                    changed.append((stored, objection))
            await self._objections.save(changed, by, unit.now, unit.session)

        await self._rows.run(ids, work)


class Reminding:
    """Tells the reminders that are due of the reviews and objections of the served departments. The next day of each is a field of it.

    ``hour``: of the day in China from which on reminders are told, so that nobody is written to at night.
    """

    def __init__(
        self,
        outbox: Outbox,
        reviews: Reviews,
        objections: Objections,
        department_codes: Sequence[str],
        schedule: Schedule,
        *,
        hour: int,
        poll_seconds: float,
        calendar: WorkCalendar,
    ) -> None:
        self._calendar = calendar
        self._reviews = reviews
        self._objections = objections
        self._codes = department_codes
        self._schedule = schedule
        self._hour = hour
        self.loop = Loop("reminders", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Remind of one batch of each, in a transaction each; returns whether there may be more."""
        now = datetime.now(CHINA_STANDARD_TIME)
        if now.hour < self._hour or not self._calendar.is_working_day(now.date()):
            return False
        more = await self._remind(self._reviews, now.date())
        return await self._remind(self._objections, now.date()) or more

    async def _remind(self, book: Reviews | Objections, today: date) -> bool:
        ids = await self._rows.due(_BATCH, lambda limit: book.owed.reminders_due(self._codes, today, limit))

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
            changes: dict[str, tuple[Owing, tuple[Reminder, ...]]] = {}
            told = 0
            for id_, stored in (await book.load(ids, unit.session)).items():
                owing, reminders = stored.owing, stored.reminders
                reminder = remind(owing, reminders, self._schedule, unit.now)
                if reminder is not None:
                    told += 1
                    reminders = (*reminders, reminder)
                    cause = f"reminder:{id_}:{reminder.step}:{reminder.due_on}:{reminder.on}"
                    unit.emit(reminded(owing, reminder), cause=cause, trace=stored.trace)
                # without one the day is another one now: of a schedule that has changed
                changes[id_] = owing, reminders
            await book.owed.save_reminders(changes, unit.session)
            return told

        if ids:
            log.info(
                "reminders are told",
                of=type(book).__name__.lower(),
                told=sum(await self._rows.run(ids, work)),
            )
        return len(ids) == _BATCH
