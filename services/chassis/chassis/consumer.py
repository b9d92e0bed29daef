"""The batch consumer: one MongoDB transaction for a batch of events, the offset committed after it.

In the transaction: which events are new (inbox), which keys are parked, the service's handler (state and emitted events), the
inbox, dead letters. When the handler fails, the batch is done again key by key, and the failing key is parked. When the database
is unavailable the batch is given back to Kafka and comes again. What a kill at any point leaves behind is a redelivery that
the inbox recognises.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiokafka import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import KafkaAckableMessage
from opentelemetry.trace import Link, Span, SpanKind, set_span_in_context
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from chassis.db import Database, Document, Session, describe, is_unavailable
from chassis.inbox import Inbox, Malformed, Received, Unknown, receive
from chassis.logs import get_logger
from chassis.metrics import (
    BATCH_EVENTS,
    BATCH_FALLBACKS,
    BATCH_RETRIES,
    BATCH_SECONDS,
    CONSUMER_LAG,
    EVENTS_DEAD,
    EVENTS_DUPLICATE,
    EVENTS_PROCESSED,
    EVENTS_SKIPPED,
)
from chassis.outbox import Outbox
from chassis.parking import Parking, RetryPolicy, retry_loop
from chassis.settings import ChassisSettings
from chassis.telemetry import links, recording, remote_context, span_context, trace_headers, tracer
from chassis.unit_of_work import Rejection, UnitOfWork

log = get_logger(__name__)

Handler = Callable[[UnitOfWork, Sequence[Received]], Awaitable[None]]
_MAX_STORED_BYTES = 1_000_000


@dataclass(frozen=True)
class ConsumerSpec:
    """What a service consumes: ``name`` is the Kafka consumer group.

    ``handler`` gets new events of one batch in order and changes state only through the unit of work's session. It may be
    called again for the same events after a conflict. ``fetch_max_wait_ms`` overrides the common setting.
    """

    name: str
    topics: Sequence[str]
    handler: Handler
    fetch_max_wait_ms: int | None = None


class BatchConsumer:
    """Consumes batches for one ConsumerSpec."""

    def __init__(
        self,
        spec: ConsumerSpec,
        broker: KafkaBroker,
        database: Database,
        outbox: Outbox,
        settings: ChassisSettings,
    ) -> None:
        self.spec = spec
        self._outbox = outbox
        self._max_event_bytes = settings.max_event_bytes
        self._inbox = Inbox(database, spec.name)
        self._dead_letters = database.collection("dead_letters")
        policy = RetryPolicy(
            settings.park_base_seconds, settings.park_max_seconds, settings.park_max_attempts
        )
        self._parking = Parking(database, spec.name, policy)
        self.retry_loop = retry_loop(
            self._parking, outbox, self._apply, interval_seconds=settings.park_poll_seconds
        )
        self._failures = 0
        self._created_at = time.monotonic()
        self._in_hand_since: float | None = None
        self._positions: dict[TopicPartition, int] = {}
        # at-least-once: the offset is committed after the handler returns; an exception seeks back to the batch's start
        self._subscriber = broker.subscriber(
            *spec.topics,
            batch=True,
            group_id=spec.name,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            max_records=settings.batch_max_records,
            batch_timeout_ms=settings.batch_poll_timeout_ms,
            fetch_max_wait_ms=spec.fetch_max_wait_ms or settings.kafka_fetch_max_wait_ms,
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 3,
            max_poll_interval_ms=300_000,
            title=spec.name,
        )
        self._subscriber(self._on_message, parser=self._parse, decoder=_undecoded)

    async def _parse(self, records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
        # FastStream's own parser decodes headers and fails the whole batch on a non-UTF-8 one
        consumer = self._subscriber.consumer
        if consumer is None:
            raise RuntimeError("message without a running consumer")
        return KafkaAckableMessage(raw_message=records, body=b"", consumer=consumer)

    async def _on_message(self, message: KafkaMessage) -> None:
        records = message.raw_message
        batch = records if isinstance(records, tuple) else (records,)
        if self._in_hand_since is None:
            self._in_hand_since = time.monotonic()
        try:
            await self.process(batch)
        except Exception as error:
            ours = not isinstance(error, PyMongoError)
            log.warning(
                "batch failed; it comes again", consumer=self.spec.name, error=describe(error), exc_info=ours
            )
            BATCH_RETRIES.labels(self.spec.name).inc()
            self._failures += 1
            # FastStream seeks back at once: the wait has to be here
            await asyncio.sleep(min(0.2 * 2.0 ** min(self._failures, 6), 10.0))
            raise
        self._failures = 0
        self._in_hand_since = None
        for record in batch:
            self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1

    async def process(self, records: Sequence[ConsumerRecord]) -> None:
        """Make the effects of these records happen, each once. Raises only when the database is unavailable."""
        started = time.perf_counter()
        name = self.spec.name
        valid: list[Received] = []
        malformed: list[Malformed] = []
        for record in records:
            match receive(record, self._max_event_bytes):
                case Received() as received:
                    valid.append(received)
                case Unknown(type=unknown):
                    EVENTS_SKIPPED.labels(name, unknown[:100]).inc()
                case Malformed() as bad:
                    malformed.append(bad)
        with self._spans(valid) as traced:
            if malformed:
                await self._store_dead_letters([_dead_letter(name, bad) for bad in malformed])
            if traced:
                try:
                    await self._transact(traced)
                except Exception as error:
                    if is_unavailable(error):
                        raise
                    log.warning("batch failed; trying key by key", consumer=name, error=describe(error))
                    BATCH_FALLBACKS.labels(name).inc()
                    await self._key_by_key(traced)
        BATCH_SECONDS.labels(name).observe(time.perf_counter() - started)
        BATCH_EVENTS.labels(name).observe(len(records))

    async def _transact(self, received: Sequence[Received]) -> None:
        fresh: list[Received] = []

        async def work(unit: UnitOfWork) -> None:
            nonlocal fresh
            fresh = await self._inbox.fresh(received, unit.session)
            if not fresh:
                return
            parked = await self._parking.parked_among(fresh, unit.session)
            now_parked = [r for r in fresh if self._parking.key_id(r) in parked]
            if now_parked:
                await self._parking.queue_behind(now_parked, parked, unit.session, unit.now)
            free = [r for r in fresh if self._parking.key_id(r) not in parked] if now_parked else fresh
            if free:
                await self._apply(unit, free)
            await self._inbox.add(fresh, unit.session, unit.now)

        await self._outbox.run(work)
        self._count(fresh, len(received) - len(fresh))

    def _count(self, fresh: Sequence[Received], duplicates: int) -> None:
        for event_type, number in Counter(received.envelope.type for received in fresh).items():
            EVENTS_PROCESSED.labels(self.spec.name, event_type).inc(number)
        if duplicates:
            EVENTS_DUPLICATE.labels(self.spec.name).inc(duplicates)

    async def _key_by_key(self, received: Sequence[Received]) -> None:
        by_key: dict[str, list[Received]] = {}
        for item in received:
            by_key.setdefault(self._parking.key_id(item), []).append(item)
        for items in by_key.values():
            await self._one_key(items)

    async def _one_key(self, items: list[Received]) -> None:
        for position, item in enumerate(items):
            try:
                await self._transact([item])
            except Exception as error:
                if is_unavailable(error):
                    raise
                ours = not isinstance(error, PyMongoError)
                log.warning("event failed", consumer=self.spec.name, id=item.id, exc_info=ours)
                await self._park(items[position:], error)
                return

    async def _park(self, items: Sequence[Received], error: Exception) -> None:
        async def work(unit: UnitOfWork) -> None:
            fresh = await self._inbox.fresh(items, unit.session)
            if fresh:
                await self._parking.park(fresh, error, unit.session, unit.now)
                await self._inbox.add(fresh, unit.session, unit.now)

        await self._outbox.run(work)

    async def _apply(self, unit: UnitOfWork, received: Sequence[Received]) -> None:
        await self.spec.handler(unit, received)
        if unit.rejections:
            letters = [_rejected_letter(self.spec.name, rejection, unit.now) for rejection in unit.rejections]
            await self._store_dead_letters(letters, unit.session)

    async def _store_dead_letters(self, letters: Sequence[Document], session: Session | None = None) -> None:
        # ids are made of the content: a redelivery changes nothing
        await self._dead_letters.bulk_write(
            [UpdateOne({"_id": doc["_id"]}, {"$setOnInsert": doc}, upsert=True) for doc in letters],
            ordered=False,
            session=session,
        )
        for letter in letters:
            EVENTS_DEAD.labels(self.spec.name, letter["reason"]).inc()
            log.warning(
                "dead letter",
                consumer=self.spec.name,
                topic=letter["topic"],
                reason=letter["reason"],
                detail=letter["detail"],
            )

    @contextlib.contextmanager
    def _spans(self, received: list[Received]) -> Iterator[list[Received]]:
        """Trace a batch: the parent is the message when there is one, links when there are several.

        With several messages each gets a span of its own in its own trace as well, so that a trace goes on through a batch.
        """
        if not received or not recording():
            yield received
            return
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.consumer.group.name": self.spec.name,
            "messaging.destination.name": received[0].topic,
            "messaging.batch.message_count": len(received),
        }
        if len(received) == 1:
            with tracer.start_as_current_span(
                f"process {received[0].envelope.type}",
                remote_context(received[0].trace),
                kind=SpanKind.CONSUMER,
                attributes={**attributes, **_facts(received[0])},
            ) as span:
                yield [_in_span(received[0], span)]
            return
        batch_links = links([span_context(r.trace) for r in received])
        with tracer.start_as_current_span(
            f"process batch {self.spec.name}",
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=batch_links,
        ) as batch_span:
            to_batch = [Link(batch_span.get_span_context())] if batch_span.is_recording() else []
            spans = [
                tracer.start_span(
                    f"process {r.envelope.type}",
                    remote_context(r.trace),
                    kind=SpanKind.CONSUMER,
                    attributes={**attributes, **_facts(r)},
                    links=to_batch,
                )
                for r in received
            ]
            try:
                yield [_in_span(r, span) for r, span in zip(received, spans, strict=True)]
            finally:
                for span in spans:
                    span.end()

    # --- health

    def lag(self) -> int:
        """Events between what took effect and the end of the partitions, as far as this consumer has seen them."""
        consumer = self._subscriber.consumer
        if consumer is None:
            return 0
        assigned = consumer.assignment()
        self._positions = {tp: offset for tp, offset in self._positions.items() if tp in assigned}
        total = sum(
            max((consumer.highwater(tp) or offset) - offset, 0) for tp, offset in self._positions.items()
        )
        CONSUMER_LAG.labels(self.spec.name).set(total)
        return total

    def stalled_seconds(self) -> float:
        """Since when the batch in hand does not succeed, or the group could not be joined; 0 when all is well."""
        since = self._in_hand_since
        if self._subscriber.consumer is None:
            since = self._created_at
        return 0.0 if since is None else time.monotonic() - since


async def _undecoded(_message: object) -> bytes:
    return b""


def _facts(received: Received) -> dict[str, str]:
    facts = {"messaging.message.id": received.id, "cloudevents.event_type": received.envelope.type}
    for name in ("application_id", "item_id", "record_id", "target_id"):
        value = getattr(received.event, name, None)
        if value is not None:
            facts[f"xinfu.{name}"] = value
    return facts


def _in_span(received: Received, span: Span) -> Received:
    if not span.is_recording():
        return received
    return replace(received, trace=trace_headers(set_span_in_context(span)))


def _dead_letter(consumer: str, bad: Malformed) -> Document:
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
        "value": value[:_MAX_STORED_BYTES],
        "reason": bad.reason.value,
        "detail": bad.detail[:2000],
        "at": datetime.now(UTC),
    }


def _rejected_letter(consumer: str, rejection: Rejection, at: datetime) -> Document:
    item = rejection.received
    return {
        "_id": f"{consumer}|{item.identity}",
        "consumer": consumer,
        "topic": item.topic,
        "key": item.key.encode(),
        "headers": [[name, data.encode()] for name, data in item.headers.items()],
        "value": item.value,
        "reason": rejection.reason.value,
        "detail": rejection.detail[:2000],
        "at": at,
    }
