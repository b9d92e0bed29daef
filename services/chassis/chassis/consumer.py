"""The batch consumer: one MongoDB transaction for a batch of events, the offset committed after it.

In the transaction: which events are new (inbox), which keys are parked, the service's handler (state and emitted events), the
inbox, dead letters. When the handler fails, the batch is halved until the failing event stands alone, and its key is parked. When
the database is unavailable the batch is given back to Kafka and comes again. What a kill at any point leaves behind is a
redelivery that the inbox recognises.

Time. A handler is stopped after ``XINFU_HANDLER_TIMEOUT_SECONDS``, and a batch begins no transaction after half of Kafka's poll
interval: it is given back, what is done stays done. So the group does not give its partitions to another while it works.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import chain

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import KafkaAckableMessage
from opentelemetry.trace import Link, Span, SpanKind, set_span_in_context
from pymongo.errors import PyMongoError

from chassis.background import Loop
from chassis.bus import error_of
from chassis.db import Database, Document, describe, is_unavailable
from chassis.dead_letters import (
    AlreadySucceededError,
    DeadLetters,
    LetterState,
    as_received,
    malformed_letter,
    rejected_letter,
)
from chassis.inbox import Inbox, Malformed, Received, Unknown, receive
from chassis.logs import get_logger
from chassis.metrics import (
    BATCH_EVENTS,
    BATCH_FALLBACKS,
    BATCH_RETRIES,
    BATCH_SECONDS,
    CONSUMER_LAG,
    EVENTS_DUPLICATE,
    EVENTS_PROCESSED,
    EVENTS_SKIPPED,
)
from chassis.outbox import Outbox
from chassis.parking import Parking, ParkingFullError, RetryPolicy, retry_loop
from chassis.settings import ChassisSettings
from chassis.telemetry import links, recording, remote_context, span_context, trace_headers, tracer
from chassis.unit_of_work import UnitOfWork
from contracts.envelope import MalformedEventError
from contracts.events import Event
from contracts.topics import declaration

log = get_logger(__name__)

Handler = Callable[[UnitOfWork, Sequence[Received]], Awaitable[None]]
_MAX_POLL_SECONDS = 300
_LOOK_MS = 1000
_SECONDS_FOR_A_BATCH = _MAX_POLL_SECONDS / 2
# a rebalance waits until every member has ended its batch; after that the attempt hangs
_SECONDS_TO_JOIN = _MAX_POLL_SECONDS + 30
_RETRY_MARGIN_SECONDS = 120.0
"""What a transaction may take beside its handler: retries of conflicts, and the commit."""
_MAX_UNKNOWN_TYPES = 100
# What is fetched ahead waits in memory, for each partition: dept-adapter reads 160 of them.
_FETCH_BYTES = 4 << 20
_PARTITION_FETCH_BYTES = 256 << 10


class OutcomeKind(StrEnum):
    """What a redrive did (``succeeded`` ...), or a dry run says it would do."""

    ALREADY_SUCCEEDED = "already_succeeded"
    WOULD_SUCCEED = "would_succeed"
    WOULD_FAIL = "would_fail"
    WOULD_BE_REJECTED = "would_be_rejected"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that one event leads to."""

    type: str
    key: str
    topic: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one event. ``reason`` and ``detail`` say why not; ``emits`` what it leads to."""

    kind: OutcomeKind
    reason: str | None = None
    detail: str | None = None
    emits: Sequence[Emitted] = ()


class HandlerTimeoutError(Exception):
    """A handler took too long, though the database answers."""


class OutOfTimeError(Exception):
    """The time for a batch is over before all of it is done: the rest comes again."""


class _RolledBack(Exception):  # noqa: N818 (no error: how a transaction ends without effect)
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


@dataclass(frozen=True)
class ConsumerSpec:
    """What a service consumes: ``name`` is the Kafka consumer group.

    ``handler`` gets new events of one batch in order and changes state only through the unit of work's session. It may be
    called again for the same events after a conflict. ``events``: those that concern it; others of its topics are skipped as unknown
    ones are, and leave no trace in the inbox: a later version that wants them can have them replayed. None: all.
    ``fetch_max_wait_ms`` overrides the common setting.
    """

    name: str
    topics: Sequence[str]
    handler: Handler
    events: frozenset[type[Event]] | None = None
    fetch_max_wait_ms: int | None = None

    @property
    def event_types(self) -> list[str]:
        """Types of its topics that concern it."""
        declared = [found for topic in self.topics if (found := declaration(topic))]
        return sorted({cls.TYPE for topic in declared for cls in topic.events if self.concerned_by(cls)})

    def concerned_by(self, event: type[Event]) -> bool:
        """Whether the handler is given such events."""
        return self.events is None or event in self.events


class BatchConsumer:
    """Consumes batches for one ConsumerSpec."""

    def __init__(
        self,
        spec: ConsumerSpec,
        broker: KafkaBroker,
        database: Database,
        outbox: Outbox,
        dead_letters: DeadLetters,
        settings: ChassisSettings,
    ) -> None:
        self.spec = spec
        self._outbox = outbox
        self._max_event_bytes = settings.max_event_bytes
        self._inbox = Inbox(database, spec.name)
        self._database = database
        self._handler_timeout = settings.handler_timeout_seconds
        self._dead_letters = dead_letters
        policy = RetryPolicy(
            settings.park_base_seconds, settings.park_max_seconds, settings.park_max_attempts
        )
        self.parking = Parking(database, spec.name, policy, settings.park_max_events)
        self.retry_loop = retry_loop(
            self.parking,
            outbox,
            self._apply,
            interval_seconds=settings.park_poll_seconds,
            lease=timedelta(seconds=self._handler_timeout + _RETRY_MARGIN_SECONDS),
        )
        self._unknown_types: set[str] = set()
        self._failures = 0
        self._looked_at = time.monotonic()
        self._in_hand_since: float | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._taken_at: dict[TopicPartition, datetime] = {}
        self._in_hand: frozenset[TopicPartition] = frozenset()
        self._beyond_end: dict[TopicPartition, int] = {}
        self._read_again_at: dict[TopicPartition, datetime] = {}
        self.offset_loop = Loop(
            f"offset-watch:{spec.name}", self._leave_lost_offsets, settings.bus_watch_seconds
        )
        # at-least-once: the offset is committed after the handler returns; an exception seeks back to the batch's start
        self._subscriber = broker.subscriber(
            *spec.topics,
            batch=True,
            group_id=spec.name,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            max_records=settings.batch_max_records,
            fetch_max_wait_ms=spec.fetch_max_wait_ms or settings.kafka_fetch_max_wait_ms,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 3,
            max_poll_interval_ms=_MAX_POLL_SECONDS * 1000,
            title=spec.name,
        )
        self._subscriber(self._on_message, parser=self._parse, decoder=_undecoded)
        # FastStream's own waits, and then sleeps as long again without looking: short waits cost processor time, long ones time
        self._subscriber.get_msg = partial(self._next_batch, max_records=settings.batch_max_records)  # type: ignore[method-assign]

    async def start(self) -> None:
        """Join the group and begin; nothing when that is done. Raises KafkaError, OSError, TimeoutError: nothing is left of the attempt.

        A member that is half started would hold partitions that nobody reads.
        """
        if self._subscriber.running:
            return
        try:
            async with asyncio.timeout(_SECONDS_TO_JOIN):
                await self._subscriber.start()
        except BaseException:
            await self._subscriber.stop()
            raise
        self._looked_at = time.monotonic()

    async def _next_batch(
        self, consumer: AIOKafkaConsumer, *, max_records: int
    ) -> tuple[ConsumerRecord, ...]:
        """What has come, as soon as it does; nothing after a while."""
        self._looked_at = time.monotonic()
        found = await consumer.getmany(timeout_ms=_LOOK_MS, max_records=max_records)
        return tuple(chain.from_iterable(found.values()))

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
        self._in_hand = frozenset(TopicPartition(record.topic, record.partition) for record in batch)
        try:
            await self.process(batch)
        except Exception as error:
            BATCH_RETRIES.labels(self.spec.name).inc()
            await self._give_back(error)
            raise
        self._failures = 0
        self._in_hand_since = None
        self._looked_at = time.monotonic()  # it is to be committed now
        self._in_hand = frozenset()
        for record in batch:
            partition = TopicPartition(record.topic, record.partition)
            self._positions[partition] = record.offset + 1
            self._taken_at[partition] = datetime.fromtimestamp(record.timestamp / 1000, UTC)

    async def _give_back(self, error: Exception) -> None:
        """Say why, and wait: FastStream seeks back at once."""
        facts = {"consumer": self.spec.name, "error": describe(error)}
        if isinstance(error, OutOfTimeError):  # part of the batch is done: no reason to wait
            log.warning("time for a batch is over; the rest comes again", **facts)
            return
        if isinstance(error, ParkingFullError):
            log.error("parking is full; the batch comes again", **facts)
        else:
            ours = not isinstance(error, PyMongoError)
            log.warning("batch failed; it comes again", exc_info=ours, **facts)
        self._failures += 1
        await asyncio.sleep(min(0.2 * 2.0 ** min(self._failures, 6), 10.0))

    async def process(self, records: Sequence[ConsumerRecord]) -> None:
        """Make the effects of these records happen, each once.

        Raises when they have to come again: the database is unavailable, the parking is full, or the time is over.
        """
        started = time.perf_counter()
        name = self.spec.name
        valid: list[Received] = []
        malformed: list[Malformed] = []
        for record in records:
            match receive(record, self._max_event_bytes):
                case Received() as received if self.spec.concerned_by(type(received.event)):
                    valid.append(received)
                case Received(envelope=envelope):
                    EVENTS_SKIPPED.labels(name, record.topic, envelope.type).inc()
                case Unknown(type=unknown):
                    EVENTS_SKIPPED.labels(name, record.topic, self._shown_type(unknown)).inc()
                case Malformed() as bad:
                    malformed.append(bad)
        with self._spans(valid) as traced:
            if malformed:
                letters = await self._dead_letters.store(malformed_letter(name, bad) for bad in malformed)
                self._dead_letters.report(letters)
            if traced:
                await self._settle(traced)
        BATCH_SECONDS.labels(name).observe(time.perf_counter() - started)
        BATCH_EVENTS.labels(name).observe(len(records))

    async def _settle(self, received: Sequence[Received]) -> None:
        """Each of these takes effect or is parked. In order: the later half of a key finds it parked and queues behind."""
        until = time.monotonic() + _SECONDS_FOR_A_BATCH
        todo = [received]
        while todo:
            left = sum(map(len, todo))
            if left < len(received) and time.monotonic() > until:
                raise OutOfTimeError(f"{left} of {len(received)} events are left")
            part = todo.pop()
            try:
                await self._transact(part)
            except Exception as error:
                if is_unavailable(error) or isinstance(error, ParkingFullError):
                    raise
                if len(part) == 1:
                    await self._park(part[0], error)
                    continue
                if part is received:
                    log.warning("batch failed; dividing it", consumer=self.spec.name, error=describe(error))
                    BATCH_FALLBACKS.labels(self.spec.name).inc()
                # halving would wait for the slow event again and again
                size = 1 if isinstance(error, HandlerTimeoutError) else (len(part) + 1) // 2
                todo += [part[i : i + size] for i in range(0, len(part), size)][::-1]

    async def _transact(self, received: Sequence[Received]) -> None:
        fresh: list[Received] = []

        async def work(unit: UnitOfWork) -> None:
            nonlocal fresh
            fresh = await self._inbox.fresh(received, unit.session)
            if not fresh:
                return
            parked = await self.parking.parked_among(fresh, unit.session)
            now_parked = [r for r in fresh if self.parking.key_id(r) in parked]
            if now_parked:
                await self.parking.queue_behind(now_parked, parked, unit)
            free = [r for r in fresh if self.parking.key_id(r) not in parked] if now_parked else fresh
            if free:
                await self._apply(unit, free)
            await self._inbox.add(fresh, unit.session, unit.now)

        await self._outbox.run(work)
        self._count(fresh, received)

    def _count(self, fresh: Sequence[Received], received: Sequence[Received]) -> None:
        for event_type, number in Counter(received.envelope.type for received in fresh).items():
            EVENTS_PROCESSED.labels(self.spec.name, event_type).inc(number)
        duplicates = Counter(item.topic for item in received) - Counter(item.topic for item in fresh)
        for topic, number in duplicates.items():
            EVENTS_DUPLICATE.labels(self.spec.name, topic).inc(number)

    def _shown_type(self, unknown: str) -> str:
        # whoever sends chooses the type: the number of time series must not be theirs to choose
        shown = unknown[:100]
        if len(self._unknown_types) < _MAX_UNKNOWN_TYPES:
            self._unknown_types.add(shown)
        return shown if shown in self._unknown_types else "other"

    async def _park(self, item: Received, error: Exception) -> None:
        async def work(unit: UnitOfWork) -> None:
            if await self._inbox.fresh([item], unit.session):
                await self.parking.park(item, error, unit)
                await self._inbox.add([item], unit.session, unit.now)

        await self._outbox.run(work)
        log.warning(
            "key parked",
            consumer=self.spec.name,
            topic=item.topic,
            key=item.key,
            id=item.id,
            reason=describe(error),
            exc_info=None if isinstance(error, PyMongoError | HandlerTimeoutError) else error,
        )

    async def _apply(self, unit: UnitOfWork, received: Sequence[Received]) -> None:
        await self._handle(unit, received)
        if unit.rejections:
            letters = [rejected_letter(self.spec.name, rejection, unit.now) for rejection in unit.rejections]
            new = await self._dead_letters.store(letters, unit.session)
            unit.after_commit(lambda: self._dead_letters.report(new))

    async def _handle(self, unit: UnitOfWork, received: Sequence[Received]) -> None:
        try:
            async with asyncio.timeout(self._handler_timeout) as limit:
                await self.spec.handler(unit, received)
        except TimeoutError:
            if not limit.expired():
                raise
            await self._database.probe()  # a slow database is the fault of no event
            raise HandlerTimeoutError(
                f"the handler took longer than {self._handler_timeout:g} s for {len(received)} events"
                " (XINFU_HANDLER_TIMEOUT_SECONDS)"
            ) from None

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

    # --- for operators

    async def dry_run(self, received: Received, *, promised: bool = False) -> Outcome:
        """What this event would do now; everything is rolled back.

        ``promised``: its inbox entry stands for no effect, because it is parked (the head of a key:
        ``Received.from_document(head["message"])``) or its letter is open and ``rejected``. Raises PyMongoError when the database is
        unavailable.
        """

        async def work(unit: UnitOfWork) -> Outcome:
            if not promised and not await self._inbox.fresh([received], unit.session):
                raise _RolledBack(Outcome(OutcomeKind.ALREADY_SUCCEEDED))
            await self._handle(unit, [received])
            if unit.rejections:
                raise _RolledBack(_rejected(OutcomeKind.WOULD_BE_REJECTED, unit))
            raise _RolledBack(Outcome(OutcomeKind.WOULD_SUCCEED, emits=_emitted(unit)))

        return await self._outcome(work, OutcomeKind.WOULD_FAIL)

    async def redrive(self, letter: Document, also: Callable[[UnitOfWork], Awaitable[None]]) -> Outcome:
        """Make the effect of a dead letter happen in one transaction, which also marks it and does what ``also`` does (the audit).

        Unless the outcome is ``succeeded`` nothing has changed and ``also`` has no effect. Raises AlreadySucceededError when the letter
        is no longer open or its event has taken effect, PyMongoError when the database is unavailable.
        """
        try:
            received = as_received(letter)
        except MalformedEventError as error:
            return Outcome(OutcomeKind.REJECTED, error.reason, error.detail)

        async def work(unit: UnitOfWork) -> Outcome:
            if not await self._dead_letters.mark(letter["_id"], LetterState.REDRIVEN, unit.session):
                raise AlreadySucceededError(f"{letter['_id']} is not open")
            fresh = await self._inbox.fresh([received], unit.session)
            if not fresh and not letter["rejected"]:
                raise AlreadySucceededError(f"{received.identity} has taken effect")
            await self._handle(unit, [received])
            if unit.rejections:
                raise _RolledBack(_rejected(OutcomeKind.REJECTED, unit))
            if fresh:
                await self._inbox.add(fresh, unit.session, unit.now)
            await also(unit)
            return Outcome(OutcomeKind.SUCCEEDED, emits=_emitted(unit))

        return await self._outcome(work, OutcomeKind.FAILED)

    async def _outcome(
        self, work: Callable[[UnitOfWork], Awaitable[Outcome]], failure: OutcomeKind
    ) -> Outcome:
        try:
            return await self._outbox.run(work)
        except _RolledBack as done:
            return done.outcome
        except AlreadySucceededError:
            raise
        except Exception as error:
            if is_unavailable(error):
                raise
            return Outcome(failure, describe(error))

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

    async def taken_until(self) -> datetime | None:
        """Everything published before this was taken from the partitions this replica reads; None while that is not known.

        For parity: what was published later may still be on its way, so its absence says nothing yet.
        """
        consumer = self._subscriber.consumer
        if consumer is None:
            return None
        times: list[datetime] = []
        try:
            async with asyncio.timeout(1):
                for partition in consumer.assignment():
                    position, end = await consumer.position(partition), consumer.highwater(partition)
                    polled = consumer.last_poll_timestamp(partition)
                    if end is None or polled is None:
                        return None
                    if position > end:
                        # all that lies before was taken, if it was read from the beginning
                        if partition not in self._read_again_at or partition in self._in_hand:
                            return None
                        times.append(self._read_again_at[partition])
                    elif position == end and partition not in self._in_hand:
                        times.append(datetime.fromtimestamp(polled / 1000, UTC))
                    elif partition in self._taken_at:
                        times.append(self._taken_at[partition])
                    else:
                        return None
        except (KafkaError, AssertionError, TimeoutError):  # the partition has just gone to another replica
            return None
        return min(times, default=None)

    async def _leave_lost_offsets(self) -> bool:
        """Read from the beginning where the offset lies beyond the partition's end: the bus lost what lay before it.

        A process about to commit when the bus was emptied commits its old offset to the new one. Apache Kafka answers
        OffsetOutOfRange and ``auto_offset_reset`` applies; the embedded broker says nothing, and all that comes to lie before the offset
        would be skipped (docs/brokers.md). Only an offset that stood still since the last look counts. The inbox knows what has taken
        effect. A partition whose end the broker tells wrong is read again each time: what parity misses of it is lost.
        """
        consumer = self._subscriber.consumer
        before, self._beyond_end = self._beyond_end, {}
        if consumer is None:
            return False
        try:
            async with asyncio.timeout(5):
                for partition in consumer.assignment() - self._in_hand:
                    offset, end = await consumer.position(partition), consumer.highwater(partition)
                    if end is not None and offset > end:
                        self._beyond_end[partition] = offset
                lost = [p for p, offset in self._beyond_end.items() if before.get(p) == offset]
                if lost:
                    log.error(
                        "offsets lie beyond the end of their partitions: the bus has lost data; reading from the beginning",
                        consumer=self.spec.name,
                        partitions=[f"{p.topic}[{p.partition}]" for p in lost],
                    )
                    now = datetime.now(UTC)
                    await consumer.seek_to_beginning(*lost)
                    for partition in lost:
                        self._taken_at.pop(partition, None)
                        self._read_again_at[partition] = now
        except (KafkaError, AssertionError, TimeoutError):  # the partition has just gone to another replica
            pass
        return False

    def failure(self) -> BaseException | None:
        """Why this consumer gets no message any more; None while it can.

        aiokafka's tasks in the background end for good at an error they do not know, that of the metadata without a word, and whoever
        waits for one of them, as a commit does, waits for ever (docs/brokers.md).
        """
        consumer = self._subscriber.consumer
        if consumer is None:
            return None
        return error_of(
            consumer._client._sync_task,
            getattr(consumer._coordinator, "_coordination_task", None),
            getattr(consumer._fetcher, "_fetch_task", None),
        )

    def stalled_seconds(self) -> float:
        """Since when the batch in hand does not succeed or cannot be committed, or the group could not be joined; 0 when all is well."""
        now = time.monotonic()
        if self._in_hand_since is not None:
            return now - self._in_hand_since
        idle = now - self._looked_at
        return idle if not self._subscriber.running or idle > 2 * _LOOK_MS / 1000 else 0.0


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


def _rejected(kind: OutcomeKind, unit: UnitOfWork) -> Outcome:
    return Outcome(kind, unit.rejections[0].reason, unit.rejections[0].detail)


def _emitted(unit: UnitOfWork) -> list[Emitted]:
    events = [emission.event for emission in unit.emissions]
    return [Emitted(event.TYPE, event.key, event.topic) for event in events]
