"""What departments owe, found by its days: of reviews and of objections alike, whose documents have the same fields for it."""

from collections.abc import Mapping, Sequence
from datetime import date

from pymongo import ASCENDING, UpdateOne

from chassis.db import Collection, Document, Session
from contracts.events import ReminderLevel
from dept_adapter.reminder_fields import told_fields
from dept_adapter.reminders import Owing, Reminder, Schedule


class Owed:
    """Looks through one collection, always at these departments (by code). ``schedule``: of reminders."""

    def __init__(self, collection: Collection, schedule: Schedule) -> None:
        self._rows = collection
        self._schedule = schedule

    async def overdue(self, department_codes: Sequence[str], today: date, limit: int) -> list[str]:
        """Ids whose deadline has passed without being noticed, the oldest first."""
        late = {"$type": "string", "$lt": today.isoformat()}
        return await self._ids(department_codes, {"deadline_on": late}, "deadline_on", limit)

    async def provisional(self, department_codes: Sequence[str], before_year: int, limit: int) -> list[str]:
        """Ids with a day that was counted over a year before ``before_year`` that was not known."""
        missing = {"$gt": 0, "$lt": before_year}
        return await self._ids(department_codes, {"missing_year": missing}, None, limit)

    async def reminders_due(self, department_codes: Sequence[str], today: date, limit: int) -> list[str]:
        """Ids of which somebody is to be reminded, those that wait longest first."""
        due = {"$type": "string", "$lte": today.isoformat()}
        return await self._ids(department_codes, {"reminder_on": due}, "reminder_on", limit)

    async def overdue_rows(
        self,
        department_codes: Sequence[str],
        level: ReminderLevel | None,
        after: tuple[date, str] | None,
        limit: int,
    ) -> list[Document]:
        """Documents whose last day has passed, by (that day, id). ``level``: how far up reminders have got."""
        query: Document = {
            "department.code": {"$in": list(department_codes)},
            "overdue_told": {"$type": "string"},
        }
        if level is not None:
            query["reminder_level"] = level.value
        if after is not None:
            day, last = after[0].isoformat(), after[1]
            query["$or"] = [{"overdue_told": {"$gt": day}}, {"overdue_told": day, "_id": {"$gt": last}}]
        order = [("overdue_told", ASCENDING), ("_id", ASCENDING)]
        return await self._rows.find(query).sort(order).limit(limit).to_list(limit)

    async def save_reminders(
        self,
        changes: Mapping[str, tuple[Owing, Sequence[Reminder]]],
        session: Session,
        noted: Document | None = None,
    ) -> None:
        """Store the reminders of what is owed, by id, and when the next is due. ``noted``: what an officer did about them, for the history."""
        more = {"$push": {"history": noted}} if noted else {}
        writes = [
            UpdateOne({"_id": id_}, {"$set": told_fields(owing, reminders, self._schedule), **more})
            for id_, (owing, reminders) in changes.items()
        ]
        if writes:
            await self._rows.bulk_write(writes, session=session, ordered=False)

    async def _ids(
        self, department_codes: Sequence[str], query: Document, first: str | None, limit: int
    ) -> list[str]:
        query = {**query, "department.code": {"$in": list(department_codes)}}
        cursor = self._rows.find(query, {"_id": 1})
        if first is not None:
            cursor = cursor.sort(first, ASCENDING)
        return [row["_id"] for row in await cursor.limit(limit).to_list(limit)]
