"""Transactional outbox: events are written in the transaction of the state they tell about, and published from there.

Order. Every transaction takes one number from a counter *after* its snapshot exists; transactions that change the same
aggregate conflict, so of two that both commit, the later one has the larger number whatever the clocks say. Within a
transaction the position decides. The relay publishes a key's events in this order.

The counter is written with w=1 outside the transaction: the transaction's own majority commit comes later in the oplog,
so what it depends on is at least as durable as itself.

Replaying. A published event (``published_at``, no ``pending``) is published again by taking its mark away. The index
``by_topic`` is on (topic, seq): whoever goes through published events, to replay or to compare them, goes in the order they are
published in, and seq is unique. ``Outbox.seq_at`` turns a time into a place in that order.
"""

import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pymongo import ASCENDING, IndexModel, ReturnDocument

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.unit_of_work import Emission, UnitOfWork
from contracts.envelope import Envelope, event_id

T = TypeVar("T")
_POSITION_BITS = 20
_CLOCK_DIFFERENCE = timedelta(minutes=5)


def outbox_collections(retention_days: int) -> list[CollectionSpec]:
    """Collections of the outbox and its relay."""
    return [
        CollectionSpec(
            "outbox",
            [
                IndexModel(
                    [("bucket", ASCENDING), ("seq", ASCENDING)],
                    name="pending_by_bucket",
                    partialFilterExpression={"pending": True},
                ),
                IndexModel([("topic", ASCENDING), ("seq", ASCENDING)], name="by_topic"),
                IndexModel("published_at", name="ttl", expireAfterSeconds=retention_days * 86_400),
            ],
        ),
        CollectionSpec("outbox_counter"),
        CollectionSpec("outbox_leases"),
    ]


class Outbox:
    """Writes a service's outbox. ``source`` is the CloudEvents source, for example ``/xinfu/intake``."""

    def __init__(self, database: Database, *, source: str, buckets: int, max_event_bytes: int) -> None:
        self._db = database
        self._source = source
        self._buckets = buckets
        self._max_event_bytes = max_event_bytes
        self._outbox = database.collection("outbox")
        self._counter = database.relaxed("outbox_counter")
        self.wake: Callable[[], None] = lambda: None
        """Called after each commit that wrote events; the relay puts its wake-up here."""

    async def run(self, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction together with the events it emits.

        ``work`` runs again after a write conflict: it must have no effect outside its session. Raises ValueError when
        an event is larger than ``max_event_bytes``.
        """
        wake_ups: list[Callable[[], None]] = []

        async def attempt(session: Session) -> T:
            nonlocal wake_ups
            unit = UnitOfWork(session, datetime.now(UTC))
            result = await work(unit)
            wake_ups = unit.wake_ups
            if unit.emissions:
                await self._outbox.insert_many(await self._documents(unit), session=session, ordered=False)
                wake_ups = [self.wake, *wake_ups]
            return result

        result = await self._db.transaction(attempt)
        for wake in wake_ups:
            wake()
        return result

    async def end_seq(self) -> int:
        """A seq that no event has so far, and every later one exceeds."""
        counter = await self._counter.find_one({"_id": "transactions"})
        return ((int(counter["value"]) if counter else 0) + 1) << _POSITION_BITS

    async def seq_at(self, topic: str, since: datetime) -> int:
        """A seq such that every event of the topic created at or after ``since`` has this one or a larger one.

        Some of those may be older: replicas' clocks differ (by 5 minutes at most is assumed). Some 30 index look-ups.
        """
        low, high = 0, await self.end_seq() >> _POSITION_BITS
        while low < high:
            middle = (low + high) // 2
            found = await self._outbox.find_one(
                {
                    "topic": topic,
                    "seq": {"$gte": middle << _POSITION_BITS},
                    "created_at": {"$type": "date"},
                },
                {"created_at": 1},
                sort=[("seq", 1)],
            )
            if found is None or found["created_at"] >= since - _CLOCK_DIFFERENCE:
                high = middle
            else:
                low = middle + 1
        return low << _POSITION_BITS

    async def pending(self, limit: int) -> int:
        """Events that wait to be published, counted up to ``limit``."""
        waiting = {"bucket": {"$gte": 0}, "pending": True}  # what the partial index serves
        return await self._outbox.count_documents(waiting, limit=limit)

    async def has_published(self, topics: Sequence[str]) -> bool:
        """Whether an event was published to one of these topics, as far back as the outbox goes."""
        found = await self._outbox.find_one({"topic": {"$in": topics}, "published_at": {"$exists": True}})
        return found is not None

    async def _documents(self, unit: UnitOfWork) -> list[Document]:
        counter = await self._counter.find_one_and_update(
            {"_id": "transactions"}, {"$inc": {"value": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        first = int(counter["value"]) << _POSITION_BITS
        ordinals: Counter[tuple[str, str, str]] = Counter()
        documents = []
        for position, emission in enumerate(unit.emissions):
            same = (emission.cause, emission.event.TYPE, emission.event.key)
            identity = event_id(*same, ordinals[same])
            ordinals[same] += 1
            documents.append(self._document(emission, identity, unit.now, first + position))
        return documents

    def _document(self, emission: Emission, identity: str, now: datetime, seq: int) -> Document:
        event = emission.event
        value = event.model_dump_json().encode()
        if len(value) > self._max_event_bytes:
            raise ValueError(
                f"{event.TYPE} {event.key} has {len(value)} bytes, more than XINFU_MAX_EVENT_BYTES={self._max_event_bytes}"
            )
        envelope = Envelope(identity, event.TYPE, self._source, event.key, now)
        return {
            "_id": envelope.id,
            "seq": seq,
            "bucket": zlib.crc32(event.key.encode()) % self._buckets,
            "topic": event.topic,
            "key": event.key,
            "headers": envelope.headers({}),
            "trace": dict(emission.trace),
            "value": value,
            "created_at": now,
            "pending": True,
        }
