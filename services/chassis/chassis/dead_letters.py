"""Dead letters: messages that cannot take effect, kept for a person.

What they may use on disk is bounded: above the quota a letter is stored without key, headers and value. Its topic, partition,
offset and hash still find the original in Kafka until the topic's retention ends. A retention removes old letters.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from aiokafka import ConsumerRecord
from pymongo import ASCENDING, IndexModel, UpdateOne

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document, Session
from chassis.inbox import Malformed, Received, read_message
from chassis.logs import get_logger
from chassis.metrics import DEAD_LETTER_BYTES, EVENTS_DEAD
from chassis.unit_of_work import Rejection
from contracts.envelope import MalformedEventError, decode_headers, parse_headers
from contracts.errors import DeadLetterReason

log = get_logger(__name__)

_MAX_STORED_BYTES = 1_000_000
_MEASURE_SECONDS = 60.0
_OVERHEAD_BYTES = 1_000
"""What a letter uses beside its content, about."""


class LetterState(StrEnum):
    """What has become of a dead letter. Only an open one can be redriven or discarded."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class AlreadySucceededError(Exception):
    """A redrive was refused: the event has taken effect, or somebody has dealt with its letter already."""


def dead_letter_collections(retention_days: int) -> list[CollectionSpec]:
    """The collection of the dead letters."""
    return [
        CollectionSpec(
            "dead_letters",
            [
                IndexModel([("state", ASCENDING), ("_id", ASCENDING)], name="by_state"),
                IndexModel("event_id", name="by_event"),
                IndexModel("event_id", name="by_event"),  # asked by the parity check
                IndexModel("at", name="ttl", expireAfterSeconds=retention_days * 86_400),
            ],
        )
    ]


class DeadLetters:
    """The dead letters of one service.

    A letter: ``_id``, ``consumer``, ``topic``, ``partition`` and ``offset``, ``key`` (bytes or None), ``headers`` (pairs of name and
    bytes), ``value`` (bytes or None), ``value_dropped`` (then key and headers are gone too), ``size_bytes`` and ``sha256`` of the
    value, ``event_id`` ("<source>#<id>", None when the headers are unusable), ``rejected`` (by the handler: then the inbox has the
    event, without an effect), ``reason``, ``detail``, ``state``, ``at``.
    """

    def __init__(self, database: Database, quota_bytes: int) -> None:
        self._letters = database.collection("dead_letters")
        self._quota_bytes = quota_bytes
        self._stored_bytes = 0
        self.loop = Loop("dead-letters-measure", self._measure, _MEASURE_SECONDS)
        """Follows how much is stored, by other replicas too and after the retention."""

    async def store(self, letters: Iterable[Document], session: Session | None = None) -> list[Document]:
        """Store letters in one bulk write; returns those that are new. Ids are made of the content: a redelivery changes nothing."""
        within = [self._within_quota(letter) for letter in letters]
        result = await self._letters.bulk_write(
            [UpdateOne({"_id": letter["_id"]}, {"$setOnInsert": letter}, upsert=True) for letter in within],
            ordered=False,
            session=session,
        )
        return [within[index] for index in result.upserted_ids or {}]

    def _within_quota(self, letter: Document) -> Document:
        size = _stored_size(letter)
        if size <= _MAX_STORED_BYTES and self._stored_bytes + size <= self._quota_bytes:
            self._stored_bytes += size
            return letter
        return {**letter, "key": None, "headers": [], "value": None, "value_dropped": True}

    def report(self, letters: Sequence[Document]) -> None:
        """Count new letters, with one log line for all of them. For letters of a transaction: after its commit."""
        if not letters:
            return
        reasons = Counter(str(letter["reason"]) for letter in letters)
        example = letters[0]
        for reason, number in reasons.items():
            EVENTS_DEAD.labels(example["consumer"], reason).inc(number)
        DEAD_LETTER_BYTES.set(self._stored_bytes)
        log.warning(
            "dead letters",
            consumer=example["consumer"],
            reasons=dict(reasons),
            without_value=sum(letter["value_dropped"] for letter in letters),
            example={name: example[name] for name in ("topic", "partition", "offset", "reason", "detail")},
        )

    async def page(self, state: LetterState, after: str | None, limit: int) -> list[Document]:
        """At most ``limit`` letters in the order of ``_id``, after the one with id ``after``; without headers and value."""
        query: Document = {"state": state.value, **({"_id": {"$gt": after}} if after else {})}
        cursor = self._letters.find(query, {"headers": 0, "value": 0}).sort("_id", ASCENDING).limit(limit)
        return [letter async for letter in cursor]

    async def get(self, letter_id: str) -> Document | None:
        """One whole letter."""
        found: Document | None = await self._letters.find_one({"_id": letter_id})
        return found

    async def mark(self, letter_id: str, state: LetterState, session: Session) -> bool:
        """Give an open letter another state; False when there is no open letter of this id (any more)."""
        done = await self._letters.update_one(
            {"_id": letter_id, "state": LetterState.OPEN.value},
            {"$set": {"state": state.value}},
            session=session,
        )
        return bool(done.modified_count)

    async def _measure(self) -> bool:
        # what MongoDB keeps about the collection anyway: a sum over the letters would read all of them
        shards = self._letters.aggregate([{"$collStats": {"storageStats": {}}}])
        self._stored_bytes = sum([int(shard["storageStats"]["size"]) async for shard in shards])
        DEAD_LETTER_BYTES.set(self._stored_bytes)
        if self._stored_bytes >= self._quota_bytes:
            log.error(
                "dead letters use up their quota: further ones are stored without their value",
                stored_bytes=self._stored_bytes,
                quota_bytes=self._quota_bytes,
            )
        return False


def malformed_letter(consumer: str, bad: Malformed) -> Document:
    """The letter of a message that can never be read."""
    record = bad.record
    value = record.value or b""
    digest = hashlib.sha256(b"\0".join([value, repr(record.headers).encode()])).hexdigest()[:16]
    return {
        "_id": f"{consumer}|{record.topic}|{record.partition}|{record.offset}|{digest}",
        "consumer": consumer,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key,
        "headers": [[name, data] for name, data in record.headers],
        "value": record.value,
        "event_id": _event_id(record),
        "rejected": False,
        **_common(value, bad.reason, bad.detail, datetime.now(UTC)),
    }


def rejected_letter(consumer: str, rejection: Rejection, at: datetime) -> Document:
    """The letter of an event that the handler rejected."""
    item = rejection.received
    return {
        "_id": f"{consumer}|{item.identity}",
        "consumer": consumer,
        "topic": item.topic,
        "partition": item.partition,
        "offset": item.offset,
        "key": item.key.encode(),
        "headers": [[name, data.encode()] for name, data in item.headers.items()],
        "value": item.value,
        "event_id": item.identity,
        "rejected": True,
        **_common(item.value, rejection.reason, rejection.detail, at),
    }


def as_received(letter: Document) -> Received:
    """The event of a letter. Raises MalformedEventError when it (still) cannot be read, or its value was not kept."""
    if letter["value_dropped"]:
        raise MalformedEventError(
            DeadLetterReason(letter["reason"]),
            f"the value was not kept: see {letter['topic']}, partition {letter['partition']}, offset {letter['offset']}",
        )
    return read_message(letter["topic"], letter["key"], letter["headers"], letter["value"])


def _common(value: bytes, reason: DeadLetterReason, detail: str, at: datetime) -> Document:
    return {
        "size_bytes": len(value),
        "sha256": hashlib.sha256(value).hexdigest(),
        "value_dropped": False,
        "reason": reason.value,
        "detail": detail[:2000],
        "state": LetterState.OPEN.value,
        "at": at,
    }


def _stored_size(letter: Document) -> int:
    headers = sum(len(name) + len(data or b"") for name, data in letter["headers"])
    return len(letter["value"] or b"") + len(letter["key"] or b"") + headers + _OVERHEAD_BYTES


def _event_id(record: ConsumerRecord) -> str | None:
    try:
        return parse_headers(decode_headers(record.headers)).identity
    except MalformedEventError:
        return None
