"""Sync's documents: ``records``, what was decided, and ``deliveries``, each of them at each target that has to follow."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel, UpdateOne

from chassis.db import CollectionSpec, Database, Document, Session
from contracts.canonical import Digest
from sync import history
from sync.domain import Delivery, Record, delivery_id
from sync.history import History

COLLECTIONS = [
    CollectionSpec("records"),
    CollectionSpec(
        "deliveries",
        [
            IndexModel([("target_id", ASCENDING), ("next_action_at", ASCENDING)], name="due"),
            IndexModel(
                [("target_id", ASCENDING), ("differs_since", ASCENDING)],
                name="differing",
                partialFilterExpression={"differs_since": {"$type": "date"}},
            ),
        ],
    ),
    *history.COLLECTIONS,
]

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)
_DELIVERY: TypeAdapter[Delivery] = TypeAdapter(Delivery)
_FREE: Document = {"lease_token": None, "lease_until": datetime.fromtimestamp(0, UTC)}


@dataclass(frozen=True)
class Lease:
    """Deliveries taken by one step of one replica; what it learns counts only while it holds them."""

    token: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True)
class Difference:
    """Deliveries of one target: ``desired`` all of them, of which so many are ``acknowledged`` and ``seen`` right; ``drifting``: not right after they had been."""

    desired: int
    acknowledged: int
    seen: int
    drifting: int
    oldest: Delivery | None


class Store:
    """Records have the record id as ``_id``, deliveries ``<target>|<record>``.

    ``history``: what is written down for ever of both, in the same transactions; ``digest``: of its entries.

    A record is a JSON document (its times are text: MongoDB would cut microseconds off, and decisions are compared by them); a
    delivery has real dates, to be searched by.
    """

    def __init__(self, database: Database, digest: Digest = Digest.SHA256) -> None:
        self.history = History(database, digest)
        self._records = database.collection("records")
        self._deliveries = database.collection("deliveries")

    async def records(self, ids: Iterable[str], session: Session | None = None) -> dict[str, Record]:
        """Records by id; unknown ids are missing."""
        cursor = self._records.find({"_id": {"$in": list(ids)}}, session=session)
        return {doc["_id"]: _RECORD.validate_python(doc) async for doc in cursor}

    async def page(self, after: str, limit: int, session: Session) -> list[Record]:
        """Records in order of their id, after the given one ("" for the first)."""
        cursor = self._records.find({"_id": {"$gt": after}}, session=session).sort("_id", ASCENDING)
        return [_RECORD.validate_python(doc) async for doc in cursor.limit(limit)]

    async def deliveries(
        self, records: Iterable[Record], session: Session | None = None
    ) -> dict[str, Delivery]:
        """Deliveries of some records at all their targets, by id."""
        ids = [delivery_id(target, record.record_id) for record in records for target in record.targets]
        cursor = self._deliveries.find({"_id": {"$in": ids}}, session=session)
        return {doc["_id"]: _DELIVERY.validate_python(doc) async for doc in cursor}

    async def save_decided(
        self, records: Sequence[Record], deliveries: Sequence[Delivery], session: Session
    ) -> None:
        """Store new decisions. A lease is left alone: what is under way ends first, and its answer changes nothing."""
        await self._records.bulk_write(
            [
                UpdateOne({"_id": r.record_id}, {"$set": _RECORD.dump_python(r, mode="json")}, upsert=True)
                for r in records
            ],
            session=session,
            ordered=False,
        )
        if deliveries:
            await self._deliveries.bulk_write(
                [
                    UpdateOne({"_id": d.id}, {"$set": _document(d), "$setOnInsert": _FREE}, upsert=True)
                    for d in deliveries
                ],
                session=session,
                ordered=False,
            )

    async def claim(self, target_id: str, limit: int, now: datetime, lease: timedelta) -> Lease:
        """Take up to ``limit`` due deliveries of a target, the longest due first. No two replicas get the same one."""
        token = uuid.uuid4().hex
        due = {"target_id": target_id, "next_action_at": {"$lte": now}, "lease_until": {"$lte": now}}
        cursor = self._deliveries.find(due, {"_id": 1}).sort("next_action_at", ASCENDING).limit(limit)
        ids = [doc["_id"] async for doc in cursor]
        if not ids:
            return Lease(token, ())
        claimed = {"_id": {"$in": ids}}
        await self._deliveries.update_many(
            {**claimed, **due}, {"$set": {"lease_token": token, "lease_until": now + lease}}
        )
        return Lease(token, tuple(await self._leased(claimed, token)))

    async def held(self, lease: Lease, ids: Iterable[str], session: Session) -> list[Delivery]:
        """Those of ``ids`` that still belong to the lease, as they are now."""
        return await self._leased({"_id": {"$in": list(ids)}}, lease.token, session)

    async def _leased(
        self, query: dict[str, Any], token: str, session: Session | None = None
    ) -> list[Delivery]:
        cursor = self._deliveries.find({**query, "lease_token": token}, session=session)
        return [_DELIVERY.validate_python(doc) async for doc in cursor]

    async def save_and_release(self, lease: Lease, deliveries: Sequence[Delivery], session: Session) -> None:
        """Store what became of deliveries of a lease, and free them."""
        await self._deliveries.bulk_write(
            [
                UpdateOne({"_id": d.id, "lease_token": lease.token}, {"$set": {**_document(d), **_FREE}})
                for d in deliveries
            ],
            session=session,
            ordered=False,
        )

    async def save_completed(self, records: Iterable[Record], session: Session) -> None:
        """Store how far records are complete.

        The counter makes this a change even when nothing else changes (MongoDB takes a write of the same value for none): two
        targets that settle at the same time conflict here, and the later one sees what the other did.
        """
        await self._records.bulk_write(
            [
                UpdateOne(
                    {"_id": r.record_id},
                    {"$set": {"completed_version": r.completed_version}, "$inc": {"settlements": 1}},
                )
                for r in records
            ],
            session=session,
            ordered=False,
        )

    async def difference(self, target_id: str) -> Difference:
        """How far a target is. Counts by index: all of the target's, then only those that differ."""
        differing = {"target_id": target_id, "differs_since": {"$type": "date"}}
        same = {"$expr": {"$eq": ["$acknowledged_version", "$desired_version"]}}
        desired = await self._deliveries.count_documents({"target_id": target_id})
        behind = await self._deliveries.count_documents(differing)
        unseen = await self._deliveries.count_documents({**differing, **same}) if behind else 0
        drifting = (
            await self._deliveries.count_documents({**differing, "drifts": {"$gt": 0}}) if behind else 0
        )
        oldest = await self.oldest(target_id)
        return Difference(desired, desired - behind + unseen, desired - behind, drifting, oldest)

    async def differing(
        self, target_id: str, until: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Deliveries that differ since ``until`` or earlier, the oldest first, after (since, id) of the last one seen."""
        query: Document = {"target_id": target_id, "differs_since": {"$type": "date", "$lte": until}}
        if after is not None:
            since, id_ = after
            query["$or"] = [{"differs_since": {"$gt": since}}, {"differs_since": since, "_id": {"$gt": id_}}]
        order = [("differs_since", ASCENDING), ("_id", ASCENDING)]
        found = await self._deliveries.find(query).sort(order).limit(limit).to_list(limit)
        return [_DELIVERY.validate_python(document) for document in found]

    async def oldest(self, target_id: str) -> Delivery | None:
        """The delivery that has differed for longest."""
        query = {"target_id": target_id, "differs_since": {"$type": "date"}}
        found = await self._deliveries.find_one(query, sort=[("differs_since", ASCENDING)])
        return None if found is None else _DELIVERY.validate_python(found)


def _document(delivery: Delivery) -> Document:
    document: Document = _DELIVERY.dump_python(delivery)
    document["seen_state"] = None if delivery.seen_state is None else delivery.seen_state.value
    return document
