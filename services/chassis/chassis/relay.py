"""The outbox relay: publishes pending events in order, at least once, whatever is killed.

Buckets of keys are shared among all replicas by lease, so one relay at a time publishes a key. Within a (topic, partition)
the next batch leaves only after the one before is acknowledged: a failure never lets a later event of a key overtake.
A relay that wakes up after its lease was taken can only publish duplicates, which every inbox drops.
"""

import asyncio
import contextlib
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId
from aiokafka.partitioner import DefaultPartitioner
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, set_span_in_context
from pymongo.errors import DuplicateKeyError

from chassis.background import Loop
from chassis.bus import error_of, make_producer
from chassis.db import Database, Document
from chassis.logs import get_logger
from chassis.metrics import OUTBOX_ERRORS, OUTBOX_PENDING, OUTBOX_PUBLISHED, OUTBOX_SECONDS
from chassis.settings import ChassisSettings
from chassis.telemetry import recording, remote_context, trace_headers, tracer

log = get_logger(__name__)
_PENDING_COUNT_LIMIT = 10_000
_DRAIN_SECONDS = 5.0
_METADATA_SECONDS = 2.0
_CLOSE_SECONDS = 5.0
# The broker and an idempotent producer disagree on the sequence of a partition, as after an error that used up a number:
# aiokafka goes on from there and fails for ever.
_NEEDS_NEW_PRODUCER = (OutOfOrderSequenceNumber, UnknownProducerId, ProducerFenced, InvalidProducerEpoch)


class BucketLeases:
    """A fair share of the buckets, held by lease.

    A replica holds at most its share (buckets divided by living replicas, rounded up), takes what is free or expired, and gives
    back what is too much. All times are the database's: one whose own clock is ahead would hold its buckets that much longer.
    """

    def __init__(self, database: Database, *, buckets: int, lease_seconds: float) -> None:
        self._database = database
        self._leases = database.relaxed("outbox_leases")
        self._buckets = buckets
        self._lease = timedelta(seconds=lease_seconds)
        self._owner = secrets.token_hex(8)
        self._held: list[int] = []
        self._renew_at = 0.0

    async def held(self) -> list[int]:
        """The buckets this relay may publish now; renews the leases when a third of their time is over."""
        asked_at = time.monotonic()
        if asked_at < self._renew_at:
            return self._held
        now = await self._database.now()
        until = now + self._lease
        await self._leases.update_one(
            {"_id": f"replica:{self._owner}"}, {"$set": {"until": until}}, upsert=True
        )
        await self._leases.delete_many({"_id": {"$regex": "^replica:"}, "until": {"$lt": now - self._lease}})
        living = await self._leases.count_documents({"_id": {"$regex": "^replica:"}, "until": {"$gt": now}})
        share = -(-self._buckets // max(living, 1))
        await self._leases.update_many(
            {"owner": self._owner, "until": {"$gt": now}}, {"$set": {"until": until}}
        )
        mine = [
            doc["bucket"] async for doc in self._leases.find({"owner": self._owner, "until": {"$gt": now}})
        ]
        for bucket in mine[share:]:
            await self._leases.update_one(
                {"_id": f"bucket:{bucket}", "owner": self._owner}, {"$set": {"until": now}}
            )
        mine = mine[:share]
        taken = {
            doc["bucket"]
            async for doc in self._leases.find({"bucket": {"$exists": True}, "until": {"$gt": now}})
        }
        for bucket in sorted(set(range(self._buckets)) - taken - set(mine)):
            if len(mine) >= share:
                break
            if await self._take(bucket, now, until):
                mine.append(bucket)
        self._held = sorted(mine)
        self._renew_at = asked_at + self._lease.total_seconds() / 3
        return self._held

    async def _take(self, bucket: int, now: datetime, until: datetime) -> bool:
        try:
            result = await self._leases.update_one(
                {"_id": f"bucket:{bucket}", "until": {"$lte": now}},
                {"$set": {"bucket": bucket, "owner": self._owner, "until": until}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False  # another replica was faster
        return bool(result.modified_count or result.upserted_id)

    async def release(self) -> None:
        """Give everything back, so that another replica can take over at once."""
        with contextlib.suppress(Exception):
            now = await self._database.now()
            await self._leases.update_many({"owner": self._owner}, {"$set": {"until": now}})
            await self._leases.delete_one({"_id": f"replica:{self._owner}"})


class Relay:
    """Publishes the outbox of one service.

    ``producer`` is started by the caller, replaced when the broker refuses its sequence, and stopped by ``close``.
    """

    def __init__(
        self,
        database: Database,
        producer: AIOKafkaProducer,
        settings: ChassisSettings,
        client_id: str = "outbox-relay",
    ) -> None:
        # an event published and then taken back by a new primary would be an effect without a cause; the marks are written with
        # majority too, or the next look would not see them and publish again
        self._outbox = database.committed("outbox")
        self.producer = producer
        self._settings = settings
        self._client_id = client_id
        self._needs_new_producer = False
        self._batch = settings.outbox_batch
        self._leases = BucketLeases(
            database, buckets=settings.outbox_buckets, lease_seconds=settings.outbox_lease_seconds
        )
        self._partitioner = DefaultPartitioner()
        self.loop = Loop("outbox-relay", self.publish_pending, settings.outbox_poll_ms / 1000)

    async def stop(self) -> None:
        """Publish what is pending now, for a few seconds at most, then hand the leases over."""
        await self.loop.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._drain(), _DRAIN_SECONDS)
        await self._leases.release()

    async def close(self) -> None:
        """Stop the producer. Waits a few seconds at most: an idempotent one would try for ever while the bus is away."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.producer.stop(), _CLOSE_SECONDS)

    def failure(self) -> BaseException | None:
        """Why this relay will never publish again; None while it can. As ``BatchConsumer.failure``."""
        client, sender = self.producer.client, self.producer._sender
        return error_of(client._sync_task, getattr(sender, "_sender_task", None))

    async def _renew_producer(self) -> None:
        log.warning("the broker refuses the producer's sequence; going on with a new producer")
        producer = make_producer(self._settings, self._client_id)
        await producer.start()
        await self.close()
        self.producer = producer
        self._needs_new_producer = False

    async def _drain(self) -> None:
        while await self.publish_pending():
            pass

    async def publish_pending(self) -> bool:
        """Publish up to one batch of events; returns whether more may be waiting."""
        if self._needs_new_producer:
            await self._renew_producer()
        buckets = await self._leases.held()
        if not buckets:
            return False
        cursor = (
            self._outbox.find({"pending": True, "bucket": {"$in": buckets}}).sort("seq", 1).limit(self._batch)
        )
        documents = await cursor.to_list(self._batch)
        if not documents:
            OUTBOX_PENDING.set(0)
            return False
        partitions = await self._partitions({document["topic"] for document in documents})
        lanes: dict[tuple[str, int], list[Document]] = defaultdict(list)
        for document in documents:
            topic = document["topic"]
            if known := partitions.get(topic):
                partition = self._partitioner(document["key"].encode(), known, known)
                lanes[topic, partition].append(document)
        published = await asyncio.gather(*(self._publish_lane(*lane, docs) for lane, docs in lanes.items()))
        done = [document for lane in published for document in lane]
        if done:
            await self._mark(done)
        full = len(documents) == self._batch
        waiting = {"bucket": {"$gte": 0}, "pending": True}  # what the partial index serves
        left = full or len(done) < len(documents)
        OUTBOX_PENDING.set(
            await self._outbox.count_documents(waiting, limit=_PENDING_COUNT_LIMIT) if left else 0
        )
        return full and bool(done)

    async def _partitions(self, topics: set[str]) -> dict[str, list[int]]:
        """Partitions by topic. A topic that cannot be published to is left out, and holds up the others no longer than that."""

        async def ask(topic: str) -> list[int]:
            try:
                return sorted(await asyncio.wait_for(self.producer.partitions_for(topic), _METADATA_SECONDS))
            except Exception as error:
                OUTBOX_ERRORS.labels(topic).inc()
                log.error(
                    "cannot publish to topic; its events stay in the outbox", topic=topic, error=repr(error)
                )
                return []

        names = sorted(topics)
        return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))

    async def _publish_lane(
        self, topic: str, partition: int, documents: Sequence[Document]
    ) -> Sequence[Document]:
        """Publish the events of one partition in order; returns those that were acknowledged, always a prefix."""
        position = 0
        while position < len(documents):
            batch = self.producer.create_batch()
            spans: list[Span] = []
            for document in documents[position:]:
                span, headers = _publish_span(document)
                appended = batch.append(
                    timestamp=None, key=document["key"].encode(), value=document["value"], headers=headers
                )
                if appended is None:
                    break
                spans.append(span)
            if not spans:
                OUTBOX_ERRORS.labels(topic).inc()
                log.error(
                    "event is larger than the producer takes", topic=topic, id=documents[position]["_id"]
                )
                break
            failure = ""
            try:
                await (await self.producer.send_batch(batch, topic, partition=partition))
            except Exception as error:
                failure = str(error)
                self._needs_new_producer |= isinstance(error, _NEEDS_NEW_PRODUCER)
                OUTBOX_ERRORS.labels(topic).inc()
                log.warning("publish failed; events stay in the outbox", topic=topic, error=failure)
            for span in spans:
                if failure:
                    span.set_status(Status(StatusCode.ERROR, failure))
                span.end()
            if failure:
                break
            position += len(spans)
        return documents[:position]

    async def _mark(self, documents: Sequence[Document]) -> None:
        """One update for all that was acknowledged; what a crash leaves unmarked is published again and recognised."""
        now = datetime.now(UTC)
        await self._outbox.update_many(
            {"_id": {"$in": [document["_id"] for document in documents]}},
            {"$set": {"published_at": now}, "$unset": {"pending": ""}},
        )
        for topic, number in Counter(document["topic"] for document in documents).items():
            OUTBOX_PUBLISHED.labels(topic).inc(number)
        for document in documents:
            OUTBOX_SECONDS.observe(max((now - document["created_at"]).total_seconds(), 0))


def _publish_span(document: Document) -> tuple[Span, list[tuple[str, bytes]]]:
    """A producer span from the commit to the acknowledgement, and the Kafka headers that carry it on."""
    span: Span = INVALID_SPAN
    context: Mapping[str, str] = document["trace"]
    if recording():
        span = tracer.start_span(
            f"send {document['topic']}",
            remote_context(context),
            kind=SpanKind.PRODUCER,
            start_time=int(document["created_at"].timestamp() * 1e9),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": document["topic"],
                "messaging.kafka.message.key": document["key"],
                "messaging.message.id": document["_id"],
                "cloudevents.event_type": document["headers"]["ce_type"],
            },
        )
        context = trace_headers(set_span_in_context(span))
    headers = [*document["headers"].items(), *context.items()]
    return span, [(name, value.encode()) for name, value in headers]
