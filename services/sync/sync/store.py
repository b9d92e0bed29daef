"""Sync's documents: ``records``, what was decided, and ``deliveries``, each of them at each target that has to follow; beside them
what was asked (``attempts``) and seen (``readings``), lists that targets fetch (``lists``), and quotas.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.rows import Rows
from contracts.canonical import Digest
from contracts.records import DisplayState
from sync import history
from sync.desired import Record
from sync.domain import Delivery, Reading, delivery_id
from sync.history import History
from sync.quota import Quota

READINGS_OF_DRIFTS = 50
"""Drifts of one record at one target whose evidence is kept: the newest ones."""


def collections(attempt_retention_days: int, receipt_retention_days: int) -> list[CollectionSpec]:
    """All collections of sync, with their indexes."""
    return [
        CollectionSpec(
            "records",
            [
                IndexModel(
                    [("incomplete", ASCENDING), ("_id", ASCENDING)],
                    name="incomplete",
                    partialFilterExpression={"incomplete": True},
                )
            ],
        ),
        CollectionSpec(
            "deliveries",
            [
                IndexModel([("target_id", ASCENDING), ("next_action_at", ASCENDING)], name="due"),
                IndexModel(
                    [("target_id", ASCENDING), ("differs_since", ASCENDING)],
                    name="differing",
                    partialFilterExpression={"differs_since": {"$type": "date"}},
                ),
                IndexModel(
                    [("target_id", ASCENDING), ("next_action_at", ASCENDING)],
                    name="differing_due",
                    partialFilterExpression={"differs_since": {"$type": "date"}},
                ),
                IndexModel(
                    [("target_id", ASCENDING), ("due_on", ASCENDING)],
                    name="time_limits",
                    partialFilterExpression={"due_on": {"$type": "string"}},
                ),
            ],
        ),
        CollectionSpec(
            "attempts",
            [
                IndexModel([("rows.record_id", ASCENDING), ("at", DESCENDING)], name="by_record"),
                IndexModel("at", name="ttl", expireAfterSeconds=attempt_retention_days * 86_400),
            ],
        ),
        CollectionSpec(
            "readings",
            [IndexModel([("record_id", ASCENDING), ("at", ASCENDING)], name="by_record")],
        ),
        CollectionSpec("lists"),
        CollectionSpec("list_cursors"),
        CollectionSpec("quotas"),
        CollectionSpec(
            "receipts", [IndexModel("at", name="ttl", expireAfterSeconds=receipt_retention_days * 86_400)]
        ),
        *history.COLLECTIONS,
    ]


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)
_DELIVERY: TypeAdapter[Delivery] = TypeAdapter(Delivery)
_READING: TypeAdapter[Reading] = TypeAdapter(Reading)
_QUOTA: TypeAdapter[Quota] = TypeAdapter(Quota)
T = TypeVar("T")
_END = 2**62
_CODE = re.compile(r"(?<![0-9A-Za-z])[0-9A-Z]{15,18}[Xx]?(?![0-9A-Za-z])")
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


@dataclass(frozen=True)
class AttemptRow:
    """What a call said about one record."""

    record_id: str
    version: int
    result: str
    reason: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One call to a target, or one word of it to us. ``answer``: of a call that failed, cut short and without personal data."""

    target_id: str
    action: str
    at: datetime
    seconds: float
    rows: tuple[AttemptRow, ...]
    error: str | None = None
    answer: str | None = None


_ATTEMPT: TypeAdapter[Attempt] = TypeAdapter(Attempt)


@dataclass(frozen=True)
class ListEntry:
    """A place in the list a target fetches: this record had to be told it in this version."""

    seq: int
    record_id: str
    version: int


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
        self._readings = database.collection("readings")
        self._lists = database.collection("lists")
        self._cursors = database.collection("list_cursors")
        self._receipts = database.collection("receipts")
        # both may lose their last moments without harm: a log, and limits that the next seconds make good
        self._attempts = database.relaxed("attempts")
        self._quotas = database.relaxed("quotas")

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

    async def deliveries_at(
        self, records: Iterable[Record], target_id: str, session: Session
    ) -> dict[str, Delivery]:
        """Deliveries of some records at all their targets and at this one, by id."""
        ids = [
            delivery_id(target, record.record_id)
            for record in records
            for target in (*record.targets, target_id)
        ]
        cursor = self._deliveries.find({"_id": {"$in": ids}}, session=session)
        return {doc["_id"]: _DELIVERY.validate_python(doc) async for doc in cursor}

    async def deliveries_of(self, record_id: str, targets: Sequence[str]) -> dict[str, Delivery]:
        """Deliveries of one record at these targets and at those that have left the catalogue since, by id; these first."""
        left = await self._deliveries.distinct("target_id")  # by the index on it: a few values
        ids = [delivery_id(target, record_id) for target in dict.fromkeys([*targets, *left])]
        cursor = self._deliveries.find({"_id": {"$in": ids}})
        found = {doc["_id"]: _DELIVERY.validate_python(doc) async for doc in cursor}
        return {id_: found[id_] for id_ in ids if id_ in found}

    async def save_decided(
        self, records: Sequence[Record], deliveries: Sequence[Delivery], session: Session
    ) -> None:
        """Store new decisions. A lease is left alone: what is under way ends first, and its answer changes nothing."""
        await self._records.bulk_write(
            [
                UpdateOne(
                    {"_id": r.record_id},
                    {
                        "$set": {
                            **_RECORD.dump_python(r, mode="json"),
                            "incomplete": r.completed_version < r.version,
                        }
                    },
                    upsert=True,
                )
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

    async def next_due(self, target_id: str, until: datetime, now: datetime) -> datetime | None:
        """When the first delivery of a target that nobody holds is due; None: not before ``until``."""
        free = {"target_id": target_id, "next_action_at": {"$lte": until}, "lease_until": {"$lte": now}}
        found = await self._deliveries.find_one(
            free, {"next_action_at": 1}, sort=[("next_action_at", ASCENDING)]
        )
        return None if found is None else found["next_action_at"]

    async def due(self, target_id: str, limit: int, now: datetime) -> int:
        """How many deliveries of a target are due and free, counted up to ``limit``."""
        due = {"target_id": target_id, "next_action_at": {"$lte": now}, "lease_until": {"$lte": now}}
        return await self._deliveries.count_documents(due, limit=limit)

    async def claim(self, target_id: str, limit: int, now: datetime, lease: timedelta, rows: Rows) -> Lease:
        """Take up to ``limit`` due deliveries of a target. No two replicas get the same one. Left to ``rows``: those that cannot be read.

        Those that differ come before those that are only looked at again, however long these have been due: after a standstill, or
        where there is more to look at than the target takes, a new decision does not wait. Of each kind the longest due first.
        """
        token = uuid.uuid4().hex
        due = {"target_id": target_id, "next_action_at": {"$lte": now}, "lease_until": {"$lte": now}}
        ids: list[str] = []
        for which in ({"differs_since": {"$type": "date"}}, {"differs_since": None}):
            if len(ids) < limit:
                found = self._deliveries.find({**due, **which}, {"_id": 1}).sort("next_action_at", ASCENDING)
                ids += [doc["_id"] async for doc in found.limit(limit - len(ids))]
        if not ids:
            return Lease(token, ())
        await self._deliveries.update_many(
            {"_id": {"$in": ids}, **due}, {"$set": {"lease_token": token, "lease_until": now + lease}}
        )
        held = await rows.read(ids, lambda part: self._leased({"_id": {"$in": list(part)}}, token))
        return Lease(token, tuple(held))

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

    async def save(self, deliveries: Sequence[Delivery], session: Session) -> None:
        """Store what became of deliveries without a lease; whoever has one finds them changed."""
        await self._deliveries.bulk_write(
            [UpdateOne({"_id": d.id}, {"$set": _document(d)}) for d in deliveries],
            session=session,
            ordered=False,
        )

    async def waiting(self, records: Iterable[Record], target_id: str, session: Session) -> list[Delivery]:
        """Deliveries of some records that wait for this target."""
        ids = [delivery_id(target, record.record_id) for record in records for target in record.targets]
        found = self._deliveries.find({"_id": {"$in": ids}, "waits_for": target_id}, session=session)
        return [_DELIVERY.validate_python(doc) async for doc in found]

    async def behind(self, records: Iterable[Record], target_ids: Iterable[str]) -> set[str]:
        """Which of these records differ at one of these targets."""
        targets = set(target_ids)
        ids = [delivery_id(t, record.record_id) for record in records for t in record.targets if t in targets]
        differing = {"_id": {"$in": ids}, "differs_since": {"$type": "date"}}
        return {doc["record_id"] async for doc in self._deliveries.find(differing, {"record_id": 1})}

    async def incomplete(self, after: str, limit: int) -> list[Record]:
        """Records that are not shown everywhere as decided, in order of their id."""
        cursor = self._records.find({"incomplete": True, "_id": {"$gt": after}}).sort("_id", ASCENDING)
        return [_RECORD.validate_python(doc) async for doc in cursor.limit(limit)]

    async def save_completed(self, records: Iterable[Record], session: Session) -> None:
        """Store how far records are complete."""
        await self._records.bulk_write(
            [
                UpdateOne(
                    {"_id": r.record_id},
                    {"$set": {"completed_version": r.completed_version}, "$unset": {"incomplete": ""}},
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

    async def past_due(self, target_id: str, today: date, limit: int) -> list[Delivery]:
        """Deliveries that differ and whose last day lies before today, the longest due first."""
        query = {"target_id": target_id, "due_on": {"$type": "string", "$lt": today.isoformat()}}
        cursor = self._deliveries.find(query).sort("due_on", ASCENDING).limit(limit)
        return [_DELIVERY.validate_python(doc) async for doc in cursor]

    async def untold(self, target_id: str, today: date, limit: int) -> list[str]:
        """Ids of those whose passing of that day was not told yet."""
        query = {
            "target_id": target_id,
            "due_on": {"$type": "string", "$lt": today.isoformat()},
            "$expr": {"$ne": ["$due_on", "$overdue_told"]},
        }
        cursor = self._deliveries.find(query, {"_id": 1}).sort("due_on", ASCENDING).limit(limit)
        return [doc["_id"] async for doc in cursor]

    async def due_ids(self, target_id: str, limit: int, now: datetime) -> list[str]:
        """Ids of due deliveries of a target without a driver, the longest due first."""
        due = {"target_id": target_id, "next_action_at": {"$lte": now}}
        cursor = self._deliveries.find(due, {"_id": 1}).sort("next_action_at", ASCENDING).limit(limit)
        return [doc["_id"] async for doc in cursor]

    async def by_id(self, ids: Iterable[str], session: Session | None) -> list[Delivery]:
        """Deliveries as they are now."""
        cursor = self._deliveries.find({"_id": {"$in": list(ids)}}, session=session)
        return [_DELIVERY.validate_python(doc) async for doc in cursor]

    async def save_told(self, deliveries: Sequence[Delivery], session: Session) -> None:
        """Store whose overdue day was told. A lease is left alone: whoever holds it reads again before it writes."""
        names = ("due_on", "due_count", "overdue_told")
        await self._deliveries.bulk_write(
            [
                UpdateOne({"_id": d.id}, {"$set": {name: _document(d)[name] for name in names}})
                for d in deliveries
            ],
            session=session,
            ordered=False,
        )

    async def differing_number(self, target_id: str, limit: int) -> int:
        """How many deliveries of a target differ, counted up to ``limit``."""
        query = {"target_id": target_id, "differs_since": {"$type": "date"}}
        return await self._deliveries.count_documents(query, limit=limit)

    async def departed(self, target_ids: Iterable[str]) -> dict[str, int]:
        """Deliveries that differ at targets which are none of these, counted by target: work of targets that left the catalogue."""
        known = list(target_ids)
        groups = self._deliveries.aggregate(
            [
                {"$match": {"differs_since": {"$type": "date"}, "target_id": {"$nin": known}}},
                {"$group": {"_id": "$target_id", "n": {"$sum": 1}}},
                {"$sort": {"_id": 1}},
            ]
        )
        return {doc["_id"]: doc["n"] async for doc in groups}

    async def oldest(self, target_id: str) -> Delivery | None:
        """The delivery that has differed for longest."""
        query = {"target_id": target_id, "differs_since": {"$type": "date"}}
        found = await self._deliveries.find_one(query, sort=[("differs_since", ASCENDING)])
        return None if found is None else _DELIVERY.validate_python(found)

    # --- evidence

    async def save_readings(self, readings: Iterable[Reading], session: Session) -> None:
        """Keep what was seen. Of one version at one target the first reading that was right stays, and the newest READINGS_OF_DRIFTS
        drifts with the reading that ended each.
        """
        writes = []
        for reading in readings:
            place = reading.drifts and 1 + (reading.drifts - 1) % READINGS_OF_DRIFTS
            kind = "right" if reading.right else "drift"
            id_ = f"{delivery_id(reading.target_id, reading.record_id)}|{reading.version}|{kind}|{place}"
            document = {**_READING.dump_python(reading), "seen_state": _value(reading.seen_state)}
            writes.append(ReplaceOne({"_id": id_}, document, upsert=True))
        if writes:
            await self._readings.bulk_write(writes, session=session, ordered=False)

    async def readings(self, record_ids: Iterable[str], session: Session | None = None) -> list[Reading]:
        """What was seen of some records, oldest first."""
        query = {"record_id": {"$in": list(record_ids)}}
        cursor = self._readings.find(query, session=session).sort([("record_id", 1), ("at", 1)])
        return [_READING.validate_python(doc) async for doc in cursor]

    async def log(self, attempt: Attempt) -> None:
        """Keep a line about a call."""
        await self._attempts.insert_one({"_id": uuid.uuid4().hex, **_ATTEMPT.dump_python(attempt)})

    async def attempts(self, record_id: str, before: datetime, limit: int) -> list[Attempt]:
        """Calls that held this record, newest first, with its own row only."""
        query = {"rows.record_id": record_id, "at": {"$lt": before}}
        shown = {"rows": {"$elemMatch": {"record_id": record_id}}}
        fields = dict.fromkeys(("target_id", "action", "at", "seconds", "error", "answer"), 1)
        cursor = self._attempts.find(query, {**fields, **shown}).sort("at", DESCENDING).limit(limit)
        return [_ATTEMPT.validate_python(doc) async for doc in cursor]

    # --- receipts and lists

    async def first_receipt(
        self, target_id: str, webhook_id: str, digest: str, now: datetime, session: Session
    ) -> str:
        """Remember a receipt; the digest of the one that had this webhook-id first."""
        found = await self._receipts.find_one_and_update(
            {"_id": f"{target_id}|{webhook_id}"},
            {"$setOnInsert": {"digest": digest, "at": now}},
            upsert=True,
            return_document=ReturnDocument.BEFORE,
            session=session,
        )
        return digest if found is None else str(found["digest"])

    async def receipt_digest(self, target_id: str, webhook_id: str) -> str | None:
        """The digest of a receipt that has come."""
        found = await self._receipts.find_one({"_id": f"{target_id}|{webhook_id}"})
        return None if found is None else str(found["digest"])

    async def append(self, target_id: str, entries: Sequence[tuple[str, int]], session: Session) -> None:
        """Put (record, version) at the end of a target's list.

        The counter is written in the transaction: two that append at once conflict, so that whoever sees an entry sees all before it.
        """
        counter = await self._cursors.find_one_and_update(
            {"_id": target_id},
            {"$inc": {"last": len(entries)}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        first = int(counter["last"]) - len(entries) + 1
        await self._lists.insert_many(
            [
                {
                    "_id": {"target_id": target_id, "seq": first + n},
                    "record_id": record_id,
                    "version": version,
                }
                for n, (record_id, version) in enumerate(entries)
            ],
            session=session,
        )

    async def listed(
        self, target_id: str, after: int, limit: int, session: Session | None = None
    ) -> list[ListEntry]:
        """Entries of a target's list after a place, in order."""
        span = {"$gt": {"target_id": target_id, "seq": after}, "$lt": {"target_id": target_id, "seq": _END}}
        cursor = self._lists.find({"_id": span}, session=session).sort("_id", ASCENDING).limit(limit)
        return [ListEntry(doc["_id"]["seq"], doc["record_id"], doc["version"]) async for doc in cursor]

    async def cursor(self, target_id: str, session: Session | None = None) -> tuple[int, int]:
        """(how far the target has acknowledged its list, where the list ends)."""
        found = await self._cursors.find_one({"_id": target_id}, session=session) or {}
        return int(found.get("acknowledged", 0)), int(found.get("last", 0))

    async def advance(self, target_id: str, upto: int, session: Session) -> None:
        """The target has taken its list up to there; what lies before is let go."""
        await self._cursors.update_one({"_id": target_id}, {"$set": {"acknowledged": upto}}, session=session)
        span = {"$gt": {"target_id": target_id, "seq": 0}, "$lte": {"target_id": target_id, "seq": upto}}
        await self._lists.delete_many({"_id": span}, session=session)

    # --- quotas

    async def change_quota(self, target_id: str, change: Callable[[Quota | None], tuple[Quota, T]]) -> T:
        """Change what is left of a target's quota, whoever else does at the same time."""
        while True:
            found = await self._quotas.find_one({"_id": target_id})
            quota, result = change(None if found is None else _QUOTA.validate_python(found))
            document = {**_QUOTA.dump_python(quota), "revision": found["revision"] + 1 if found else 1}
            try:
                if found is None:
                    await self._quotas.insert_one({"_id": target_id, **document})
                    return result
                written = await self._quotas.replace_one(
                    {"_id": target_id, "revision": found["revision"]}, document
                )
            except DuplicateKeyError:
                continue
            if written.modified_count:
                return result


def masked(text: str) -> str:
    """A text from outside, cut to 500 characters, without what looks like a code of a subject (15 to 18 characters)."""
    return _CODE.sub("***", text)[:500]


def _value(state: DisplayState | None) -> str | None:
    return None if state is None else state.value


def _document(delivery: Delivery) -> Document:
    document: Document = _DELIVERY.dump_python(delivery)
    document["seen_state"] = _value(delivery.seen_state)
    document["waits_for"] = list(delivery.waits_for)
    for name in ("due_on", "overdue_told"):
        document[name] = document[name] and document[name].isoformat()
    if document["due_count"]:
        document["due_count"] |= {"start": document["due_count"]["start"].isoformat()}
    return document
