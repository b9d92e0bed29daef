"""Routing's documents: ``referrals``, the named human queue. What is routed needs no document: its events say all."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, InsertOne

from chassis.db import CollectionSpec, Database, Document, Session
from contracts.events import ItemReferred
from contracts.records import RecordFacts
from routing.domain import Item, Referred

COLLECTIONS = [
    CollectionSpec(
        "referrals",
        [
            IndexModel([("status", ASCENDING), ("due_on", ASCENDING), ("_id", ASCENDING)]),
            IndexModel(
                [("deadline_on", ASCENDING)],
                name="deadlines",
                partialFilterExpression={"deadline_on": {"$type": "string"}},
            ),
        ],
    )
]


class Referrals:
    """Items that wait for a person to name their department. ``_id`` is the item id, ``status`` open, assigned or withdrawn.

    ``deadline_on``: the day whose passing is still to be noticed.
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
                        "deadline_on": r.referred.due_on.isoformat(),
                        "record": r.item.record.model_dump(mode="json"),
                        "referred": r.referred.model_dump(mode="json"),
                    }
                )
                for r in referred
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

    async def overdue(self, today: date, limit: int, session: Session | None = None) -> list[ItemReferred]:
        """Open referrals whose day has passed without being noticed, the oldest first."""
        query = {"deadline_on": {"$lt": today.isoformat()}}
        cursor = self._referrals.find(query, {"referred": 1}, session=session).sort("deadline_on", ASCENDING)
        return [
            ItemReferred.model_validate(row["referred"]) for row in await cursor.limit(limit).to_list(limit)
        ]

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
