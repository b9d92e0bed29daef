"""Kafka clients with every default that matters set explicitly, topic creation from the registry, and a watch over the topics."""

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.metrics import TOPICS_RECREATED
from chassis.records import read_leniently
from chassis.settings import ChassisSettings
from contracts.topics import Topic

log = get_logger(__name__)
_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
MAX_MESSAGE_BYTES = 1_000_000
# how soon a consumer sees partitions of a topic that was created again; 5 min by default
_METADATA_MAX_AGE_MS = 10_000
_EX_TEMPFAIL = 75


def _ssl_context(settings: ChassisSettings) -> ssl.SSLContext | None:
    if "SSL" not in settings.kafka_security_protocol:
        return None
    context: ssl.SSLContext = create_ssl_context(cafile=settings.kafka_ssl_cafile)
    return context


def client_options(settings: ChassisSettings) -> dict[str, Any]:
    """Arguments that every aiokafka client needs to reach the bus."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _ssl_context(settings),
    }
    if settings.kafka_sasl_username and settings.kafka_sasl_password:
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return options


def make_broker(settings: ChassisSettings, client_id: str) -> KafkaBroker:
    """FastStream's broker for consuming. Publishing is the relay's (docs/decisions/0003)."""
    read_leniently()
    security: BaseSecurity | None = None
    context = _ssl_context(settings)
    if settings.kafka_sasl_username and settings.kafka_sasl_password:
        security = _SASL[settings.kafka_sasl_mechanism](
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            ssl_context=context,
            use_ssl=context is not None,
        )
    elif context is not None:
        security = BaseSecurity(ssl_context=context, use_ssl=True)
    return KafkaBroker(
        settings.kafka_bootstrap_servers,
        client_id=client_id,
        security=security,
        consumer_only=True,
        allow_auto_create_topics=False,
        metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        graceful_timeout=settings.graceful_timeout_seconds,
        logger=None,
    )


def make_producer(settings: ChassisSettings, client_id: str) -> AIOKafkaProducer:
    """The relay's producer: acks=all, idempotent where the broker can, one request in flight for each partition."""
    return AIOKafkaProducer(
        **client_options(settings),
        client_id=client_id,
        acks="all",
        enable_idempotence=settings.kafka_enable_idempotence,
        linger_ms=0,  # the relay hands over whole batches
        max_batch_size=MAX_MESSAGE_BYTES,
        max_request_size=MAX_MESSAGE_BYTES + 100_000,
        request_timeout_ms=20_000,
        retry_backoff_ms=100,
    )


@contextlib.asynccontextmanager
async def _admin(settings: ChassisSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=10_000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def ensure_topics(settings: ChassisSettings, topics: Mapping[str, Topic]) -> Sequence[str]:
    """Create missing topics as the registry declares them (``contracts.topics.expand``); returns the created names.

    Safe to repeat and to run from several processes. Raises a KafkaError that names the topic when the broker refuses.
    """
    async with _admin(settings) as admin:
        return await _ensure(admin, settings, topics)


async def _ensure(
    admin: AIOKafkaAdminClient, settings: ChassisSettings, topics: Mapping[str, Topic]
) -> Sequence[str]:
    existing = set(await admin.list_topics())
    missing = [name for name in topics if name not in existing]
    if not missing:
        return []
    response = await admin.create_topics(
        [
            NewTopic(
                name,
                num_partitions=topics[name].partitions,
                replication_factor=settings.kafka_replication_factor,
                topic_configs={"retention.ms": str(topics[name].retention_ms)},
            )
            for name in missing
        ]
    )
    created = []
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if not code:
            created.append(name)
        elif error is not TopicAlreadyExistsError:  # another was faster, or the list was behind
            raise error(f"cannot create topic {name}: {rest[0] if rest else error.__name__}")
    return created


def error_of(*tasks: asyncio.Task[None] | None) -> BaseException | None:
    """The error that one of these tasks of a client has ended with; None while none has."""
    ended = (task.exception() for task in tasks if task and task.done() and not task.cancelled())
    return next(filter(None, ended), None)


def end_to_be_started_again() -> None:
    """End the process at once, like a kill -9: nothing of it is worth keeping, and its supervisor starts another."""
    sys.stdout.flush()
    os._exit(_EX_TEMPFAIL)


class BusWatch:
    """Looks, while the service runs, whether the bus has lost what the service needs.

    Topics are missing: they are created again, empty. The cluster has another id than at the start, so its data is gone with
    its offsets and producer ids: the process ends at once, to be started again by its supervisor. Going on would be
    worse: a consumer commits its old offset in the new topic and so skips what comes to lie before it (measured,
    docs/brokers.md). Either way the outboxes have what was lost.
    """

    def __init__(
        self,
        settings: ChassisSettings,
        topics: Mapping[str, Topic],
        published_before: Callable[[Sequence[str]], Awaitable[bool]],
    ) -> None:
        """``published_before``: whether the outbox knows events that were published to one of these topics."""
        self._settings = settings
        self._topics = topics if settings.create_topics else {}
        self._published_before = published_before
        self._cluster_id: str | None = None
        self._answered = True
        self.loop = Loop("bus-watch", self._step, settings.bus_watch_seconds)

    async def begin(self) -> None:
        """Create missing topics, and remember the cluster. Raises KafkaError."""
        self._cluster_id, created = await self._look()
        if created and await self._published_before(created):
            _report_lost(created)

    async def _step(self) -> bool:
        try:
            cluster_id, created = await self._look()
        except (KafkaError, OSError, TimeoutError) as error:
            if self._answered:
                log.warning("the bus does not answer", error=str(error)[:300])
            self._answered = False
            return False
        self._answered = True
        if created:
            _report_lost(created)
        if self._cluster_id and cluster_id and cluster_id != self._cluster_id:
            log.critical(
                "the bus is another cluster than at the start: its data is gone. Ending, to be started again;"
                " then run `xinfu outbox replay`",
                cluster_id=cluster_id,
                before=self._cluster_id,
            )
            end_to_be_started_again()
        return False

    async def _look(self) -> tuple[str | None, Sequence[str]]:
        async with _admin(self._settings) as admin:
            cluster = await admin.describe_cluster()
            if self._cluster_id and cluster["cluster_id"] != self._cluster_id:
                return cluster["cluster_id"], []
            return cluster["cluster_id"], await _ensure(admin, self._settings, self._topics)


def _report_lost(topics: Sequence[str]) -> None:
    TOPICS_RECREATED.inc(len(topics))
    log.error(
        "the bus has lost topics; they are there again, empty: run `xinfu outbox replay`", topics=topics
    )
