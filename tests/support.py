"""What several tests need: settings against the real parts, synthetic events, a raw producer."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from pydantic_settings import SettingsConfigDict

from chassis.bus import ensure_topics, make_broker
from chassis.consumer import BatchConsumer, ConsumerSpec, Handler
from chassis.db import CollectionSpec, Database
from chassis.dead_letters import DeadLetters, dead_letter_collections
from chassis.inbox import inbox_collections
from chassis.outbox import Outbox, outbox_collections
from chassis.parking import PARKING_COLLECTIONS
from chassis.settings import ChassisSettings
from contracts.envelope import Envelope
from contracts.events import Event, RecordPublished
from contracts.records import RecordFacts, SubjectType
from contracts.topics import RECORDS
from xinfu_local import Broker, Stack

PATIENCE = 3 if os.environ.get("CI") else 1
"""How many times as long tests wait on a machine that nobody watches: only what fails takes longer."""


class TestSettings(ChassisSettings):
    """Chassis settings that read nothing from the environment of the developer."""

    __test__ = False
    model_config = SettingsConfigDict(env_prefix="NOTHING_", populate_by_name=True)


def settings_for(infra: Stack, broker: Broker, **overrides: Any) -> TestSettings:
    """Settings of a service on the test session's broker and database."""
    values: dict[str, Any] = {
        "kafka_bootstrap_servers": infra.kafka_bootstrap,
        "mongodb_uri": infra.mongodb_uri,
        "kafka_enable_idempotence": broker is Broker.APACHE,
        "oidc_issuer": "http://127.0.0.1:1/oidc",
        "park_base_seconds": 0.2,
        "park_poll_seconds": 0.05,
        "outbox_poll_ms": 50,
        **overrides,
    }
    return TestSettings(**values)


def published(record: str, *, document_number: str = "杭测罚〔2026〕1号") -> RecordPublished:
    """A RecordPublished about the record with this suffix."""
    record_id = f"rec_{record:0>32}"
    return RecordPublished(
        record_id=record_id,
        record=RecordFacts(
            record_id=record_id,
            subject_id="sub_" + "0" * 32,
            subject_type=SubjectType.LEGAL_PERSON,
            category="administrative_penalty",
            document_number=document_number,
            authority_code=None,
            authority_name="杭州市教育局",
            decided_on=date(2026, 1, 5),
        ),
        published_at=datetime(2026, 1, 6, tzinfo=UTC),
    )


def message(event: Event, event_id: str | None = None) -> tuple[str, dict[str, str], bytes]:
    """Key, headers and value of an event as an outside producer would send it."""
    envelope = Envelope(
        event_id or secrets.token_hex(16), event.TYPE, "/test", event.key, datetime(2026, 1, 6, tzinfo=UTC)
    )
    return event.key, envelope.headers({}), event.model_dump_json().encode()


async def produce(
    infra: Stack, topic: str, messages: Sequence[tuple[str, Mapping[str, str | bytes], bytes | None]]
) -> list[tuple[int, int]]:
    """Send messages in order and wait until the broker has them; (partition, offset) of each."""
    producer = AIOKafkaProducer(bootstrap_servers=infra.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        futures = [
            await producer.send(
                topic,
                value,
                key=key.encode(),
                headers=[(n, v.encode() if isinstance(v, str) else v) for n, v in headers.items()],
            )
            for key, headers, value in messages
        ]
        return [(metadata.partition, metadata.offset) for metadata in await asyncio.gather(*futures)]
    finally:
        await producer.stop()


class Harness:
    """A database, an outbox and a consumer of xinfu.records, as a service has them."""

    def __init__(
        self,
        settings: TestSettings,
        handler: Handler,
        name: str | None = None,
        events: frozenset[type[Event]] | None = None,
    ) -> None:
        self.name = name or f"test_{secrets.token_hex(6)}"
        self.settings = settings
        self.database = Database(
            settings.mongodb_uri.get_secret_value(), self.name, pool_size=5, timeout_ms=10_000
        )
        self.outbox = Outbox(
            self.database, source="/test", buckets=settings.outbox_buckets, max_event_bytes=900_000
        )
        self.dead_letters = DeadLetters(self.database, settings.dead_letter_quota_mb * 1_000_000)
        self.broker = make_broker(settings, "test")
        self.consumer = BatchConsumer(
            ConsumerSpec(self.name, [RECORDS.name], handler, events),
            self.broker,
            self.database,
            self.outbox,
            self.dead_letters,
            settings,
        )

    async def prepare(self) -> None:
        """Create collections and topics."""
        await ensure_topics(self.settings, {RECORDS.name: RECORDS})
        await self.database.ensure(
            [
                *inbox_collections(60),
                *dead_letter_collections(180),
                *outbox_collections(30),
                *PARKING_COLLECTIONS,
                CollectionSpec("effects"),
                CollectionSpec("counts"),
            ]
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Harness"]:
        """Consume until the block ends."""
        await self.prepare()
        loops = [self.consumer.retry_loop, self.consumer.offset_loop, self.dead_letters.loop]
        for loop in loops:
            loop.start()
        await self.broker.connect()
        await self.consumer.start()
        try:
            yield self
        finally:
            await self.broker.stop()
            await asyncio.gather(*(loop.stop() for loop in loops))
            self.database.close()


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until ``check`` holds; fail after ``seconds`` times PATIENCE."""
    deadline = asyncio.get_running_loop().time() + seconds * PATIENCE
    while not await check():
        assert asyncio.get_running_loop().time() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)
