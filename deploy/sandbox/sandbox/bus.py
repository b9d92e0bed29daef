"""Departments that live on the bus: read their reviews from Kafka, ask for what events do not say, write their decisions to Kafka."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from contracts.envelope import Envelope
from contracts.events import DecisionReported, ReviewCancelled, ReviewRequested, SupplementForwarded
from contracts.http.department import ReviewSubmission
from contracts.records import DepartmentRef
from contracts.topics import inbound_topic, review_topic
from sandbox.callbacks import Callbacks
from sandbox.cases import Asked, Cases
from sandbox.catalogue import Department
from sandbox.db import Row
from sandbox.faults import Faults, Mode
from sandbox.settings import Settings

LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


def _client_options(settings: Settings, slug: str) -> dict[str, Any]:
    """How the department reaches the bus: with its own account where the bus asks for one."""
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        options["ssl_context"] = create_ssl_context(cafile=settings.kafka_ssl_cafile)
    if protocol.startswith("SASL_"):
        options |= {
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": f"dept-{slug}",
            "sasl_plain_password": settings.bus_passwords[slug],
        }
    return options


class BusSystem:
    """The system of one department of mode events."""

    def __init__(
        self,
        department: Department,
        settings: Settings,
        faults: Faults,
        callbacks: Callbacks,
        book: Cases,
    ) -> None:
        self._department = department
        self._options = _client_options(settings, department.slug)
        self._url = f"{settings.dept_adapter_url.rstrip('/')}/v1/departments/{department.code}/reviews"
        self._faults = faults
        self._callbacks = callbacks
        self._book = book

    async def run(self) -> None:
        """Read and write for ever, whatever becomes of the bus."""
        while True:
            try:
                async with self._clients() as (consumer, producer), asyncio.TaskGroup() as group:
                    group.create_task(self._read(consumer))
                    group.create_task(self._write(producer))
            except* (KafkaError, aiohttp.ClientError, OSError, RuntimeError) as errors:
                log.warning(
                    "%s: %s, again in %.0f s", self._department.slug, errors.exceptions[0], _PAUSE_SECONDS
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaProducer]]:
        slug = self._department.slug
        await self._topics({review_topic(slug), inbound_topic(slug)})
        consumer = AIOKafkaConsumer(
            review_topic(slug),
            **self._options,
            group_id=f"dept-{slug}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=2000,
        )
        producer = AIOKafkaProducer(**self._options, acks="all")
        try:
            await consumer.start()
            await producer.start()
            yield consumer, producer
        finally:
            await asyncio.gather(consumer.stop(), producer.stop(), return_exceptions=True)

    async def _topics(self, wanted: set[str]) -> None:
        """Wait for them: they are not ours to make, and some brokers make whatever is asked for."""
        admin = AIOKafkaAdminClient(**self._options)
        await admin.start()
        try:
            while True:
                if wanted <= set(await admin.list_topics()):
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await admin.close()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            async for message in consumer:
                await self._take(session, message)
                await consumer.commit()

    async def _take(self, session: aiohttp.ClientSession, message: ConsumerRecord) -> None:
        headers = {name: value.decode() for name, value in message.headers}
        match headers.get("ce_type"):
            case ReviewCancelled.TYPE:
                event = ReviewCancelled.model_validate_json(message.value)
                self._book.cancel(self._department.slug, event.item_id)
            case ReviewRequested.TYPE if ReviewRequested.model_validate_json(message.value).record.in_person:
                log.info("%s: %s is handed over in person", self._department.slug, message.key.decode())
            case ReviewRequested.TYPE | SupplementForwarded.TYPE:
                item_id = message.key.decode()
                review = await self._whole(session, item_id)
                if review is None:
                    return
                if headers["ce_type"] == ReviewRequested.TYPE:
                    review = review.model_copy(update={"supplement": None})
                self._book.receive(self._department, Asked.of(review, traceparent=headers.get("traceparent")))

    async def _whole(self, session: aiohttp.ClientSession, item_id: str) -> ReviewSubmission | None:
        """The review with its applicant's side. dept-adapter may hear of it later than we do."""
        while True:
            now = datetime.now(UTC)
            headers = {
                "webhook-id": item_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._department.webhook.sign(item_id, now, ""),
            }
            async with session.get(f"{self._url}/{item_id}", headers=headers) as answer:
                if answer.status == 200:
                    return ReviewSubmission.model_validate_json(await answer.read())
                log.info("%s: dept-adapter answers %d", item_id, answer.status)
                if answer.status in (401, 403):
                    return None
            await asyncio.sleep(LOOK_SECONDS)

    async def _write(self, producer: AIOKafkaProducer) -> None:
        slug = self._department.slug
        while True:
            for row in self._callbacks.due(slug, 100):
                await self._send(producer, row)
                if self._faults.take(slug, frozenset({Mode.ANSWER_TWICE})):
                    await self._send(producer, row)
                self._callbacks.sent([row], settled=True)
            await asyncio.sleep(LOOK_SECONDS)

    async def _send(self, producer: AIOKafkaProducer, row: Row) -> None:
        department = self._department
        ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
        event = DecisionReported.model_validate({**json.loads(row["body"]), "department": ref})
        source = f"https://{department.slug}.example/credit"
        envelope = Envelope(row["webhook_id"], event.TYPE, source, event.key, event.occurred_at)
        trace = {"traceparent": row["traceparent"]} if row["traceparent"] else {}
        await producer.send_and_wait(
            inbound_topic(department.slug),
            event.model_dump_json().encode(),
            key=event.key.encode(),
            headers=[(name, value.encode()) for name, value in envelope.headers(trace).items()],
        )
