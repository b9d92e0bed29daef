"""Parking: a failing key waits aside, with all its later events behind it in order, while other keys go on.

``parked_keys`` has one document for each parked key: why, how often tried, when next. ``parked_events`` has its events by
position. The consumer adds to a parked key and the retrier empties it; both write the key's document, so one of two
concurrent transactions is retried by MongoDB and no event is left behind.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING, IndexModel, InsertOne, ReturnDocument, UpdateOne

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document, Session, describe, is_unavailable
from chassis.inbox import Received
from chassis.logs import get_logger
from chassis.metrics import EVENTS_PARKED, PARKED_KEYS
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork

log = get_logger(__name__)

PARKING_COLLECTIONS = [
    CollectionSpec(
        "parked_keys",
        [IndexModel([("consumer", ASCENDING), ("state", ASCENDING), ("next_attempt_at", ASCENDING)])],
    ),
    CollectionSpec(
        "parked_events", [IndexModel([("key_id", ASCENDING), ("position", ASCENDING)], unique=True)]
    ),
]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential with full jitter on the upper half: base, 2 x base, ... up to max; then a person has to look."""

    base_seconds: float
    max_seconds: float
    max_attempts: int

    def delay(self, attempts: int) -> timedelta:
        """Wait before the next attempt, after ``attempts`` failures (>= 1)."""
        full = min(self.base_seconds * 2.0 ** min(attempts - 1, 40), self.max_seconds)
        return timedelta(seconds=full * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)


class Parking:
    """The parked keys of one consumer."""

    def __init__(self, database: Database, consumer: str, policy: RetryPolicy) -> None:
        self._keys = database.collection("parked_keys")
        self._events = database.collection("parked_events")
        self._consumer = consumer
        self._policy = policy

    def key_id(self, received: Received) -> str:
        """Identity of the ordering domain an event belongs to."""
        return f"{self._consumer}|{received.topic}|{received.key}"

    async def parked_among(self, received: Sequence[Received], session: Session) -> dict[str, int]:
        """Parked keys of these events -> position of the next event to queue."""
        ids = list({self.key_id(r) for r in received})
        cursor = self._keys.find({"_id": {"$in": ids}}, {"next_position": 1}, session=session)
        return {doc["_id"]: int(doc["next_position"]) async for doc in cursor}

    async def queue_behind(
        self, received: Sequence[Received], positions: dict[str, int], session: Session, now: datetime
    ) -> None:
        """Queue events behind their parked keys, from these positions on."""
        inserts = []
        next_positions = dict(positions)
        for item in received:
            key_id = self.key_id(item)
            inserts.append(
                InsertOne(
                    {
                        "_id": f"{key_id}|{item.identity}",
                        "key_id": key_id,
                        "position": next_positions[key_id],
                        "parked_at": now,
                        "message": item.to_document(),
                    }
                )
            )
            next_positions[key_id] += 1
        await self._events.bulk_write(inserts, session=session, ordered=False)
        await self._keys.bulk_write(
            [
                UpdateOne({"_id": key_id}, {"$set": {"next_position": position}})
                for key_id, position in next_positions.items()
                if position != positions.get(key_id)
            ],
            session=session,
            ordered=False,
        )
        EVENTS_PARKED.labels(self._consumer).inc(len(received))

    async def park(
        self, received: Sequence[Received], error: Exception, session: Session, now: datetime
    ) -> None:
        """Park a key with its events; ``error`` is why the first of them failed."""
        key_id = self.key_id(received[0])
        await self._keys.insert_one(
            {
                "_id": key_id,
                "consumer": self._consumer,
                "topic": received[0].topic,
                "key": received[0].key,
                "state": "parked",
                "reason": describe(error),
                "attempts": 1,
                "first_failed_at": now,
                "last_failed_at": now,
                "next_attempt_at": now + self._policy.delay(1),
                "next_position": 0,
            },
            session=session,
        )
        await self.queue_behind(received, {key_id: 0}, session, now)
        log.warning("key parked", topic=received[0].topic, key=received[0].key, reason=describe(error))

    # --- retrying

    async def claim_due(self, lease: timedelta) -> Document | None:
        """Take the parked key that is due longest; nobody else takes it before ``lease`` is over."""
        now = datetime.now(UTC)
        claimed: Document | None = await self._keys.find_one_and_update(
            {"consumer": self._consumer, "state": "parked", "next_attempt_at": {"$lte": now}},
            {"$set": {"next_attempt_at": now + lease}},
            sort=[("next_attempt_at", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        return claimed

    async def head(self, key_id: str) -> Document | None:
        """The oldest parked event of a key."""
        found: Document | None = await self._events.find_one(
            {"key_id": key_id}, sort=[("position", ASCENDING)]
        )
        return found

    async def take(self, head: Document, session: Session) -> bool:
        """Remove an event inside the transaction of its effect; False when somebody else already did.

        The key is freed with its last event.
        """
        removed = await self._events.delete_one({"_id": head["_id"]}, session=session)
        if not removed.deleted_count:
            return False
        rest = await self._events.find_one({"key_id": head["key_id"]}, {"_id": 1}, session=session)
        if rest is None:
            await self._keys.delete_one({"_id": head["key_id"]}, session=session)
        else:
            await self._keys.update_one({"_id": head["key_id"]}, {"$set": {"attempts": 0}}, session=session)
        return True

    async def failed(self, key_id: str, error: Exception) -> None:
        """Note another failure: schedule the next attempt, or hand the key to a person."""
        now = datetime.now(UTC)
        document = await self._keys.find_one({"_id": key_id}, {"attempts": 1})
        if document is None:
            return
        attempts = int(document["attempts"]) + 1
        state = "dead" if attempts >= self._policy.max_attempts else "parked"
        await self._keys.update_one(
            {"_id": key_id},
            {
                "$set": {
                    "attempts": attempts,
                    "state": state,
                    "reason": describe(error),
                    "last_failed_at": now,
                    "next_attempt_at": now + self._policy.delay(attempts),
                }
            },
        )
        report = log.error if state == "dead" else log.warning
        report(
            "parked key failed again", key_id=key_id, attempts=attempts, state=state, reason=describe(error)
        )

    async def count(self) -> None:
        """Refresh the gauges."""
        for state in ("parked", "dead"):
            number = await self._keys.count_documents({"consumer": self._consumer, "state": state})
            PARKED_KEYS.labels(self._consumer, state).set(number)


Apply = Callable[[UnitOfWork, Sequence[Received]], Awaitable[None]]


def retry_loop(parking: Parking, outbox: Outbox, apply: Apply, *, interval_seconds: float) -> Loop:
    """The loop that tries parked keys again when they are due, event by event in order."""
    lease = timedelta(seconds=60)

    async def step() -> bool:
        claimed = await parking.claim_due(lease)
        if claimed is None:
            await parking.count()
            return False
        while (head := await parking.head(claimed["_id"])) is not None:

            async def work(unit: UnitOfWork, head: Document = head) -> None:
                received = Received.from_document(head["message"])
                if await parking.take(head, unit.session):
                    await apply(unit, [received])

            try:
                await outbox.run(work)
            except Exception as error:
                if is_unavailable(error):
                    raise
                await parking.failed(claimed["_id"], error)
                return True
        return True

    return Loop("parking-retry", step, interval_seconds)
