"""What was received, and the inbox that makes its effect happen once.

The inbox holds the identity of every event whose effect is in the database; it is written in the same transaction as the
effect. Retention must outlive the outboxes that can be replayed (checked in settings).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from aiokafka import ConsumerRecord
from pymongo import IndexModel

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.telemetry import TRACE_HEADERS
from contracts.envelope import (
    Envelope,
    MalformedEventError,
    RawHeaders,
    decode_headers,
    parse_data,
    parse_headers,
)
from contracts.errors import DeadLetterReason
from contracts.events import Event


def inbox_collections(retention_days: int) -> list[CollectionSpec]:
    """The collection of the inbox."""
    return [
        CollectionSpec("inbox", [IndexModel("at", name="ttl", expireAfterSeconds=retention_days * 86_400)])
    ]


@dataclass(frozen=True, slots=True)
class Received:
    """One valid event as it came from the bus."""

    envelope: Envelope
    event: Event
    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(repr=False)
    trace: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Trace context that effects of this event belong to; set by the consumer for the time of its processing."""
    partition: int | None = field(default=None, compare=False)
    offset: int | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """CloudEvents id; the ``cause`` of what this event leads to."""
        return self.envelope.id

    @property
    def identity(self) -> str:
        """What makes an event unique (CloudEvents 1.0, 3.1: source + id)."""
        return self.envelope.identity

    def to_document(self) -> Document:
        """For parking: enough to process it later as if it had just come."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": self.key,
            # pairs: a header's name may hold what a field's name may not
            "headers": [[name, value] for name, value in self.headers.items()],
            "value": self.value,
        }

    @staticmethod
    def from_document(document: Document) -> "Received":
        """Reads what ``to_document`` wrote. Raises MalformedEventError when it no longer fits the schema."""
        headers = dict(document["headers"])
        received = _known(document["topic"], document["key"], headers, bytes(document["value"]))
        return replace(received, partition=document.get("partition"), offset=document.get("offset"))


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a type this version does not know: skipped and counted."""

    type: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that can never take effect."""

    record: ConsumerRecord
    reason: DeadLetterReason
    detail: str


def _receive(topic: str, key: str, headers: dict[str, str], value: bytes | None) -> Received | None:
    envelope = parse_headers(headers)
    event = parse_data(envelope.type, value)
    if event is None:
        return None
    if event.key != key:
        raise MalformedEventError(
            DeadLetterReason.KEY_MISMATCH, f"message key {key[:100]!r} is not {event.KEY} {event.key!r}"
        )
    if event.topic != topic:
        raise MalformedEventError(
            DeadLetterReason.SCHEMA_MISMATCH, f"{envelope.type} belongs to topic {event.topic}, not {topic}"
        )
    trace = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    return Received(envelope, event, topic, key, value or b"", headers, trace)


def _known(topic: str, key: str, headers: dict[str, str], value: bytes | None) -> Received:
    received = _receive(topic, key, headers, value)
    if received is None:
        raise MalformedEventError(DeadLetterReason.SCHEMA_MISMATCH, f"unknown type {headers['ce_type']}")
    return received


def read_message(topic: str, key: bytes | None, headers: RawHeaders, value: bytes | None) -> Received:
    """Read one message of a known type. Raises MalformedEventError."""
    return _known(topic, _text(key), decode_headers(headers), value)


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "replace")


def receive(record: ConsumerRecord, max_bytes: int) -> Received | Unknown | Malformed:
    """Read one Kafka record of at most ``max_bytes`` of headers and value; never raises."""
    value: bytes | None = record.value
    try:
        size = len(value or b"") + sum(len(name) + len(data or b"") for name, data in record.headers)
        if size > max_bytes:
            detail = f"{size} bytes of headers and value, at most {max_bytes} are taken"
            return Malformed(record, DeadLetterReason.TOO_LARGE, detail)
        headers = decode_headers(record.headers)
        received = _receive(record.topic, _text(record.key), headers, value)
        if received is None:
            return Unknown(headers["ce_type"])
        return replace(received, partition=record.partition, offset=record.offset)
    except MalformedEventError as error:
        return Malformed(record, error.reason, error.detail)
    except Exception as error:  # a surprise costs its message, not the partition
        return Malformed(record, DeadLetterReason.BAD_HEADERS, f"unreadable: {type(error).__name__}")


class Inbox:
    """The inbox of one consumer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._inbox = database.collection("inbox")
        self._prefix = f"{consumer}:"

    async def fresh(self, received: Sequence[Received], session: Session) -> list[Received]:
        """Those without an effect so far, each once, in order."""
        by_id: dict[str, Received] = {}
        for item in received:
            by_id.setdefault(self._prefix + item.identity, item)
        cursor = self._inbox.find({"_id": {"$in": list(by_id)}}, {"_id": 1}, session=session)
        done = {doc["_id"] async for doc in cursor}
        return [item for identity, item in by_id.items() if identity not in done]

    async def add(self, received: Sequence[Received], session: Session, now: datetime) -> None:
        """Note that these took effect (or were parked, which is this consumer's promise that they will)."""
        await self._inbox.insert_many(
            [{"_id": self._prefix + r.identity, "at": now} for r in received], session=session, ordered=False
        )
