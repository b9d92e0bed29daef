"""Parking: a failing key waits aside, with all its later events behind it in order, while other keys go on.

``parked_keys`` has one document for each parked key: why, how often tried, when next. ``parked_events`` has its events by
position. The consumer adds to a parked key and the retrier empties it; both write the key's document, so one of two
concurrent transactions is retried by MongoDB and no event is left behind.

Disk is bounded: a consumer with ``XINFU_PARK_MAX_EVENTS`` parked events takes no batch that would park more, until a person or a
retry has made room. Nothing is lost: such a batch stays on the bus.
"""

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pymongo import ASCENDING, IndexModel, InsertOne, ReturnDocument, UpdateOne

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document, Session, describe, is_unavailable
from chassis.inbox import Received
from chassis.logs import get_logger
from chassis.metrics import EVENTS_PARKED, PARKED_EVENTS, PARKED_KEYS
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork

log = get_logger(__name__)

_COUNT_SECONDS = 5.0
_EVENTS_A_TURN = 100
_DISCARDED_AT_ONCE = 1_000

PARKING_COLLECTIONS = [
    CollectionSpec(
        "parked_keys",
        [IndexModel([("consumer", ASCENDING), ("state", ASCENDING), ("next_attempt_at", ASCENDING)])],
    ),
    CollectionSpec(
        "parked_events", [IndexModel([("key_id", ASCENDING), ("position", ASCENDING)], unique=True)]
    ),
]


class KeyState(StrEnum):
    """A parked key is tried again on its schedule; a dead one has used up its attempts and waits for a person."""

    PARKED = "parked"
    DEAD = "dead"


class ParkingFullError(Exception):
    """No more events may be parked: redrive or discard parked keys, or raise XINFU_PARK_MAX_EVENTS."""


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
    """The parked keys of one consumer, with at most about ``max_events`` events (replicas know of each other's after seconds)."""

    def __init__(self, database: Database, consumer: str, policy: RetryPolicy, max_events: int) -> None:
        self._keys = database.collection("parked_keys")
        self._events = database.collection("parked_events")
        self._consumer = consumer
        self._policy = policy
        self._max_events = max_events
        self._number = 0
        self._counted_at: float | None = None

    def key_id(self, received: Received) -> str:
        """Identity of the ordering domain an event belongs to."""
        return f"{self._consumer}|{received.topic}|{received.key}"

    async def parked_among(self, received: Sequence[Received], session: Session) -> dict[str, int]:
        """Parked keys of these events -> position of the next event to queue."""
        ids = list({self.key_id(r) for r in received})
        cursor = self._keys.find({"_id": {"$in": ids}}, {"next_position": 1}, session=session)
        return {doc["_id"]: int(doc["next_position"]) async for doc in cursor}

    async def queue_behind(
        self, received: Sequence[Received], positions: dict[str, int], unit: UnitOfWork
    ) -> None:
        """Queue events behind their parked keys, from these positions on. Raises ParkingFullError."""
        if self._number + len(received) > self._max_events:
            raise ParkingFullError(f"{self._number} events are parked, at most {self._max_events} may be")
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
                        "event_id": item.identity,
                        "type": item.envelope.type,
                        "size_bytes": len(item.value),
                        "parked_at": unit.now,
                        "message": item.to_document(),
                    }
                )
            )
            next_positions[key_id] += 1
        await self._events.bulk_write(inserts, session=unit.session, ordered=False)
        await self._keys.bulk_write(
            [
                UpdateOne({"_id": key_id}, {"$set": {"next_position": position}})
                for key_id, position in next_positions.items()
                if position != positions.get(key_id)
            ],
            session=unit.session,
            ordered=False,
        )
        unit.after_commit(lambda: self._added(len(received)))

    def _added(self, number: int) -> None:
        self._number += number
        PARKED_EVENTS.labels(self._consumer).set(self._number)
        EVENTS_PARKED.labels(self._consumer).inc(number)

    async def park(self, received: Received, error: Exception, unit: UnitOfWork) -> None:
        """Park a key with the event that failed for ``error``. Raises ParkingFullError."""
        key_id = self.key_id(received)
        await self._keys.insert_one(
            {
                "_id": key_id,
                "consumer": self._consumer,
                "topic": received.topic,
                "key": received.key,
                "state": KeyState.PARKED.value,
                "reason": describe(error),
                "failing_event": received.identity,
                "attempts": 1,
                "first_failed_at": unit.now,
                "last_failed_at": unit.now,
                "next_attempt_at": unit.now + self._policy.delay(1),
                "next_position": 0,
            },
            session=unit.session,
        )
        await self.queue_behind([received], {key_id: 0}, unit)

    # --- retrying

    async def claim_due(self, lease: timedelta) -> Document | None:
        """Take the parked key that is due longest; nobody else takes it before ``lease`` is over."""
        now = datetime.now(UTC)
        due = {
            "consumer": self._consumer,
            "state": KeyState.PARKED.value,
            "next_attempt_at": {"$lte": now},
        }
        # mostly nothing is parked: an update that finds nothing would still wait for the majority to catch up
        if await self._keys.find_one(due, {"_id": 1}) is None:
            return None
        claimed: Document | None = await self._keys.find_one_and_update(
            due,
            {"$set": {"next_attempt_at": now + lease}},
            sort=[("next_attempt_at", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        return claimed

    async def renew(self, claimed: Document, lease: timedelta) -> Document | None:
        """The claim for another ``lease`` from now; None when it is over: somebody else has the key, or it is free."""
        renewed: Document | None = await self._keys.find_one_and_update(
            _still(claimed),
            {"$set": {"next_attempt_at": datetime.now(UTC) + lease}},
            return_document=ReturnDocument.AFTER,
        )
        return renewed

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
        await self._after_removal(head["key_id"], {"attempts": 0}, session)
        return True

    async def _after_removal(self, key_id: str, changes: Document, session: Session) -> None:
        rest = await self._events.find_one({"key_id": key_id}, {"_id": 1}, session=session)
        if rest is None:
            await self._keys.delete_one({"_id": key_id}, session=session)
        else:
            await self._keys.update_one({"_id": key_id}, {"$set": changes}, session=session)

    async def failed(self, claimed: Document, head: Document, error: Exception) -> None:
        """Note that the head of a claimed key failed: schedule the next attempt, or hand the key to a person."""
        now = datetime.now(UTC)
        attempts = int(claimed["attempts"]) + 1
        state = KeyState.DEAD if attempts >= self._policy.max_attempts else KeyState.PARKED
        changes = {
            "attempts": attempts,
            "state": state.value,
            "reason": describe(error),
            "failing_event": head["event_id"],
            "last_failed_at": now,
            "next_attempt_at": now + self._policy.delay(attempts),
        }
        if attempts == 1:  # the event before it has taken effect: this failure is another one
            changes["first_failed_at"] = now
        await self._keys.update_one(_still(claimed), {"$set": changes})
        report = log.error if state is KeyState.DEAD else log.warning
        report(
            "parked key failed again",
            key_id=claimed["_id"],
            attempts=attempts,
            state=state.value,
            reason=describe(error),
        )

    async def release(self, claimed: Document) -> None:
        """Give a claim back: the key is due now."""
        await self._keys.update_one(_still(claimed), {"$set": {"next_attempt_at": datetime.now(UTC)}})

    # --- for operators

    async def page(self, state: KeyState, after: str | None, limit: int) -> list[Document]:
        """At most ``limit`` keys of this consumer in the order of ``_id``, after the one with id ``after``.

        A key: ``_id``, ``topic``, ``key``, ``state``, ``reason``, ``failing_event`` (its identity), ``attempts``,
        ``first_failed_at``, ``last_failed_at``, ``next_attempt_at``.
        """
        query: Document = {"consumer": self._consumer, "state": state.value}
        if after:
            query["_id"] = {"$gt": after}
        return [key async for key in self._keys.find(query).sort("_id", ASCENDING).limit(limit)]

    async def get(self, key_id: str, *, events: int = 100) -> Document | None:
        """One key, with the number of its events as ``queued`` and the first ones as ``events``.

        Of an event: ``event_id``, ``type``, ``parked_at``, ``size_bytes``, ``position``.
        """
        key: Document | None = await self._keys.find_one({"_id": key_id, "consumer": self._consumer})
        if key is None:
            return None
        own = {"key_id": key_id}
        cursor = self._events.find(own, {"message": 0}).sort("position", ASCENDING).limit(events)
        return {
            **key,
            "queued": await self._events.count_documents(own),
            "events": [event async for event in cursor],
        }

    async def redrive(self, key_id: str, session: Session) -> bool:
        """Let the retry loop try a key again now, with all its attempts; False when it is not parked (any more)."""
        done = await self._keys.update_one(
            {"_id": key_id, "consumer": self._consumer}, {"$set": _anew()}, session=session
        )
        return bool(done.matched_count)

    async def discard(self, key_id: str, *, only_head: bool, session: Session) -> list[str]:
        """Drop the first event of a key, or its events (at most 1,000 in one call: call again until the key is gone).

        Returns the identities of the dropped events, empty when the key is not parked. With its last event the key is free; what
        is left behind a dropped head is tried at once.
        """
        if (
            await self._keys.find_one(
                {"_id": key_id, "consumer": self._consumer}, {"_id": 1}, session=session
            )
            is None
        ):
            return []
        cursor = self._events.find({"key_id": key_id}, {"event_id": 1}, session=session)
        cursor = cursor.sort("position", ASCENDING).limit(1 if only_head else _DISCARDED_AT_ONCE)
        dropped = {event["_id"]: str(event["event_id"]) async for event in cursor}
        await self._events.delete_many({"_id": {"$in": list(dropped)}}, session=session)
        # while there are more to drop, none of them shall be tried
        changes = _anew() if only_head else {"state": KeyState.DEAD.value}
        await self._after_removal(key_id, changes, session)
        return list(dropped.values())

    async def count(self) -> None:
        """Refresh the gauges and what is known of how full the parking is; at most every 5 seconds."""
        now = time.monotonic()
        if self._counted_at is not None and now - self._counted_at < _COUNT_SECONDS:
            return
        self._counted_at = now
        keys: Counter[str] = Counter()
        for state in KeyState:
            keys[state] = await self._keys.count_documents({"consumer": self._consumer, "state": state.value})
            PARKED_KEYS.labels(self._consumer, state.value).set(keys[state])
        prefix = f"{self._consumer}|"
        own = {"key_id": {"$gte": prefix, "$lt": prefix[:-1] + chr(ord("|") + 1)}}
        self._number = await self._events.count_documents(own) if keys.total() else 0
        PARKED_EVENTS.labels(self._consumer).set(self._number)


def _still(claimed: Document) -> Document:
    return {"_id": claimed["_id"], "next_attempt_at": claimed["next_attempt_at"]}


def _anew() -> Document:
    return {"state": KeyState.PARKED.value, "attempts": 0, "next_attempt_at": datetime.now(UTC)}


Apply = Callable[[UnitOfWork, Sequence[Received]], Awaitable[None]]


def retry_loop(
    parking: Parking, outbox: Outbox, apply: Apply, *, interval_seconds: float, lease: timedelta
) -> Loop:
    """The loop that tries parked keys again when they are due, event by event in order.

    ``lease``: longer than an attempt of one event can take.
    """

    async def step() -> bool:
        await parking.count()
        claimed = await parking.claim_due(lease)
        if claimed is None:
            return False
        # a key with many events lets others have their turn
        for _ in range(_EVENTS_A_TURN):
            head = await parking.head(claimed["_id"])
            if head is None:
                return True

            async def work(unit: UnitOfWork, head: Document = head) -> None:
                received = Received.from_document(head["message"])
                if await parking.take(head, unit.session):
                    await apply(unit, [received])

            try:
                await outbox.run(work)
            except Exception as error:
                if is_unavailable(error):
                    raise
                await parking.failed(claimed, head, error)
                return True
            claimed = await parking.renew(claimed, lease)
            if claimed is None:
                return True
        await parking.release(claimed)
        return True

    return Loop("parking-retry", step, interval_seconds)
