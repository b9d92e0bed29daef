"""Kafka clients with every default that matters set explicitly, and topic creation from the registry."""

import ssl
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from chassis.settings import ChassisSettings
from contracts.topics import Topic

_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
MAX_MESSAGE_BYTES = 1_000_000


def _ssl_context(settings: ChassisSettings) -> ssl.SSLContext | None:
    if "SSL" not in settings.kafka_security_protocol:
        return None
    context: ssl.SSLContext = create_ssl_context(cafile=settings.kafka_ssl_cafile)
    return context


def _client_options(settings: ChassisSettings) -> dict[str, Any]:
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
        graceful_timeout=settings.graceful_timeout_seconds,
        logger=None,
    )


def make_producer(settings: ChassisSettings, client_id: str) -> AIOKafkaProducer:
    """The relay's producer: acks=all, idempotent where the broker can, one request in flight for each partition."""
    return AIOKafkaProducer(
        **_client_options(settings),
        client_id=client_id,
        acks="all",
        enable_idempotence=settings.kafka_enable_idempotence,
        linger_ms=0,  # the relay hands over whole batches
        max_batch_size=MAX_MESSAGE_BYTES,
        max_request_size=MAX_MESSAGE_BYTES + 100_000,
        request_timeout_ms=20_000,
        retry_backoff_ms=100,
    )


async def ensure_topics(settings: ChassisSettings, topics: dict[str, Topic]) -> Sequence[str]:
    """Create missing topics as the registry declares them (``contracts.topics.expand``); returns the created names.

    Safe to repeat and to run from several processes. Raises a KafkaError that names the topic when the broker refuses.
    """
    admin = AIOKafkaAdminClient(**_client_options(settings))
    await admin.start()
    try:
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
        for name, code, *rest in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"cannot create topic {name}: {rest[0] if rest else error.__name__}")
        return missing
    finally:
        await admin.close()
