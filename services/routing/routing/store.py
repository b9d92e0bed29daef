"""Routing's documents: ``referrals``, the named human queue. What is routed needs no document: its events say all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne

from chassis.db import CollectionSpec, Database, Document, Session
from contracts.events import ItemReferred, ObjectionFiled, ObjectionReferred, ReferralDueConfirmed
from contracts.records import RecordFacts
from contracts.working_days import Count
from routing.domain import Item, Referred

COLLECTIONS = [
    CollectionSpec(
        "referrals",
        [
            IndexModel([("status", ASCENDING), ("due_on", ASCENDING), ("_id", ASCENDING)]),
            IndexModel(
                "count.missing_year",
                name="provisional",
                partialFilterExpression={"count.missing_year": {"$gt": 0}},
            ),
            IndexModel(
                [("deadline_on", ASCENDING)],
                name="deadlines",
                partialFilterExpression={"deadline_on": {"$type": "string"}},
            ),
        ],
    )
]


class Referrals:
    """Items and objections that wait for a person to name their department. ``_id`` is the item or objection id, ``status`` open,
    assigned or withdrawn; ``filed``: of an objection, how it was filed; ``deadline_on``: the day whose passing is still to be noticed.
    """

    def __init__(self, database: Database) -> None:
        self._referrals = database.collection("referrals")

    async def add(self, referred: Sequence[Referred], session: Session) -> None:
        """Queue several items."""
        await self._referrals.bulk_write(
            [
                InsertOne(
                    {
                        "_id": r.item.id,
                        "status": "open",
                        "due_on": r.referred.due_on.isoformat(),
                        "count": count_document(r.count),
                        # of a provisional day nobody can be late
                        "deadline_on": None if r.referred.due_provisional else r.referred.due_on.isoformat(),
                        "record": r.item.record.model_dump(mode="json"),
                        "referred": r.referred.model_dump(mode="json"),
                    }
                )
                for r in referred
            ],
            session=session,
            ordered=False,
        )

    async def add_objections(
        self, referred: Sequence[tuple[ObjectionFiled, ObjectionReferred]], session: Session
    ) -> None:
        """Queue several objections."""
        await self._referrals.bulk_write(
            [
                InsertOne(
                    {
                        "_id": filed.objection_id,
                        "status": "open",
                        "due_on": told.due_on.isoformat(),
                        "deadline_on": None if told.due_provisional else told.due_on.isoformat(),
                        "record": filed.record.model_dump(mode="json"),
                        "referred": told.model_dump(mode="json"),
                        "filed": filed.model_dump(mode="json"),
                    }
                )
                for filed, told in referred
            ],
            session=session,
            ordered=False,
        )

    async def page(self, status: str, after: str | None, limit: int) -> list[Document]:
        """Referrals in order of item id, ``limit`` at most, after the given item id."""
        query: dict[str, Any] = {"status": status}
        if after:
            query["_id"] = {"$gt": after}
        return await self._referrals.find(query).sort("_id", ASCENDING).limit(limit).to_list(limit)

    async def get(self, item_id: str, session: Session) -> Document | None:
        """One referral."""
        found: Document | None = await self._referrals.find_one({"_id": item_id}, session=session)
        return found

    async def provisional(self, before_year: int, limit: int) -> list[str]:
        """Items in the queue whose due day was counted over a year before ``before_year`` that was not known."""
        query = {"count.missing_year": {"$gt": 0, "$lt": before_year}, "status": "open"}
        found = await self._referrals.find(query, {"_id": 1}).limit(limit).to_list(limit)
        return [document["_id"] for document in found]

    async def open(self, item_ids: Sequence[str], session: Session) -> list[Document]:
        """Those of these items that still wait."""
        query = {"_id": {"$in": list(item_ids)}, "status": "open"}
        return await self._referrals.find(query, session=session).to_list(None)

    async def save_due(self, due: Mapping[str, tuple[ReferralDueConfirmed, Count]], session: Session) -> None:
        """Item id -> its due day as counted again. ``referred`` is what is shown of it."""
        await self._referrals.bulk_write(
            [
                UpdateOne(
                    {"_id": item_id},
                    {
                        "$set": {
                            "due_on": event.due_on.isoformat(),
                            "deadline_on": None if event.due_provisional else event.due_on.isoformat(),
                            "count": count_document(count),
                            "referred.due_on": event.due_on.isoformat(),
                            "referred.due_provisional": event.due_provisional,
                            "referred.calendar_version": event.calendar_version,
                        }
                    },
                )
                for item_id, (event, count) in due.items()
            ],
            session=session,
            ordered=False,
        )

    async def mark_assigned(self, item_id: str, assignment: Document, session: Session) -> None:
        """Close a referral; ``assignment`` says who named which department when."""
        await self._referrals.update_one(
            {"_id": item_id},
            {"$set": {"status": "assigned", "assignment": assignment, "deadline_on": None}},
            session=session,
        )

    async def mark_withdrawn(self, item_id: str, at: datetime, session: Session) -> None:
        """Close a referral that nobody needs any more."""
        await self._referrals.update_one(
            {"_id": item_id},
            {"$set": {"status": "withdrawn", "withdrawn_at": at, "deadline_on": None}},
            session=session,
        )

    async def overdue(self, today: date, limit: int) -> list[str]:
        """Ids of open referrals whose day has passed without being noticed, the oldest first."""
        cursor = self._referrals.find(_overdue(today), {"_id": 1}).sort("deadline_on", ASCENDING).limit(limit)
        return [row["_id"] for row in await cursor.to_list(limit)]

    async def referred(
        self, ids: Sequence[str], today: date, session: Session
    ) -> dict[str, ItemReferred | ObjectionReferred]:
        """Those of them that are overdue still, by id."""
        query = {"_id": {"$in": list(ids)}, **_overdue(today)}
        rows = self._referrals.find(query, {"referred": 1, "filed": 1}, session=session)
        return {
            row["_id"]: (ObjectionReferred if "filed" in row else ItemReferred).model_validate(
                row["referred"]
            )
            async for row in rows
        }

    async def mark_overdue(self, item_ids: Sequence[str], at: datetime, session: Session) -> None:
        """Note that it was told."""
        await self._referrals.update_many(
            {"_id": {"$in": list(item_ids)}},
            {"$set": {"deadline_on": None, "overdue_told_at": at}},
            session=session,
        )


def item_of(document: Document) -> Item:
    """The item a referral is about."""
    referred = ItemReferred.model_validate(document["referred"])
    return Item(referred.application_id, referred.subject_id, RecordFacts.model_validate(document["record"]))


def objection_of(document: Document) -> ObjectionFiled | None:
    """The objection a referral is about; None: it is about an item."""
    filed = document.get("filed")
    return ObjectionFiled.model_validate(filed) if filed else None


def _overdue(today: date) -> Document:
    return {"deadline_on": {"$type": "string", "$lt": today.isoformat()}}


def count_document(count: Count) -> Document:
    """How a due day was counted."""
    return {**asdict(count), "start": count.start.isoformat()}


def count_of(document: Document) -> Count:
    """The inverse of ``count_document``."""
    return Count(**{**document, "start": date.fromisoformat(document["start"])})
