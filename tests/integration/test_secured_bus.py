"""A bus that trusts nobody: TLS, SCRAM, everything denied that deploy/kafka-acls does not allow. Apache Kafka only."""

import asyncio
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.helpers import create_ssl_context
from contract.architecture import REPOSITORY
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from e2e.people import API, DESK, World, open_world
from e2e.test_kinds import EVENTS

from contracts.catalogue import load_catalogue
from contracts.topics import inbound_topic, review_topic
from support import eventually
from xinfu.acls import department_account, service_account
from xinfu.compose import SERVICES, Endpoints, compose
from xinfu_local import CACHE_DIR, Broker, Listener, Stack, free_port, kafka_tool

SCRIPT = REPOSITORY / "deploy" / "kafka-acls" / "acls.sh"
ADMIN = "admin"
TOOLS = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-configs.sh": "org.apache.kafka.tools.ConfigCommand",
}


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    """By account."""
    departments = [d for d in load_catalogue().departments if d.mode == "events"]
    accounts = [*map(service_account, SERVICES), *map(department_account, departments), ADMIN]
    return {account: secrets.token_hex(16) for account in accounts}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PEM files of a CA, and of the broker's certificate with its key."""
    directory = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    issued = ca.issue_cert("127.0.0.1")
    # Java reads keys in PKCS #8 alone
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = [each.bytes() for each in issued.cert_chain_pems]
    (directory / "broker.pem").write_bytes(b"".join([key.private_bytes(*form), *chain]))
    return directory / "ca.pem", directory / "broker.pem"


@pytest.fixture(scope="module")
def port() -> int:
    """Of the listener that asks who comes. The other one is the broker's own way and the stack's, nobody else's."""
    return free_port()


@pytest.fixture(scope="module")
def secured(
    broker_kind: Broker,
    tmp_path_factory: pytest.TempPathFactory,
    passwords: dict[str, str],
    authority: tuple[Path, Path],
    port: int,
) -> Iterator[tuple[Stack, Endpoints]]:
    """The whole stack, every service and the department on the bus with an account of its own."""
    if not broker_kind.survives_restart:
        pytest.skip("the embedded broker knows neither TLS nor accounts nor ACLs")
    data_dir = tmp_path_factory.mktemp("secured")
    ca, certificate = authority
    reached = {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(ca),
    }
    environment = {
        service: {
            **reached,
            "KAFKA_SASL_USERNAME": service_account(service),
            "KAFKA_SASL_PASSWORD": passwords[service_account(service)],
        }
        for service in SERVICES
    }
    slugs = [d.slug for d in load_catalogue().departments if d.mode == "events"]
    own = {slug: passwords[f"dept-{slug}"] for slug in slugs}
    environment["sandbox"] = {**reached, "SANDBOX_BUS_PASSWORDS": json.dumps(own)}
    processes, endpoints = compose(data_dir, broker_kind, environment=environment)

    def prepare(stack: Stack) -> None:
        endpoints.write(data_dir)
        set_up(data_dir, stack.kafka_bootstrap, f"127.0.0.1:{port}", passwords, ca)

    with Stack(
        processes,
        broker_kind,
        data_dir,
        kafka_listeners={"accounts": Listener(port, port, "SASL_SSL")},
        kafka_settings={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:ANONYMOUS;User:{ADMIN}",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.accounts.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate),
        },
        prepare=prepare,
        ready_timeout_seconds=300,
    ) as stack:
        yield stack, endpoints


def set_up(directory: Path, inner: str, outer: str, passwords: dict[str, str], ca: Path) -> None:
    """Accounts by the broker's own way, then the script as an operator runs it."""
    tools = directory / "bin"
    tools.mkdir()
    for name, main_class in TOOLS.items():
        java = shlex.join(kafka_tool(CACHE_DIR, main_class))
        (tools / name).write_text(f'#!/bin/sh\nexec {java} "$@"\n')
        (tools / name).chmod(0o755)
    for account, password in passwords.items():
        added = f"SCRAM-SHA-512=[iterations=4096,password={password}]"
        command = [str(tools / "kafka-configs.sh"), "--bootstrap-server", inner, "--alter"]
        command += ["--entity-type", "users", "--entity-name", account, "--add-config", added]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    configuration = directory / "admin.properties"
    configuration.write_text(
        "security.protocol=SASL_SSL\n"
        "sasl.mechanism=SCRAM-SHA-512\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{ADMIN}" password="{passwords[ADMIN]}";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={ca}\n"
    )
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "BOOTSTRAP": outer,
        "COMMAND_CONFIG": str(configuration),
    }
    done = subprocess.run([str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
async def world(secured: tuple[Stack, Endpoints]) -> AsyncIterator[World]:
    """The services of this stack, and people to act on them."""
    async with open_world(*secured) as world:
        yield world


@pytest.fixture(scope="module")
def outer(port: int, passwords: dict[str, str], authority: tuple[Path, Path]) -> Any:
    """Client options of an account."""

    def options(account: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": f"127.0.0.1:{port}",
            "security_protocol": "SASL_SSL",
            "ssl_context": create_ssl_context(cafile=authority[0]),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": account,
            "sasl_plain_password": passwords[account],
        }

    return options


async def test_an_application_is_decided_and_shown(world: World) -> None:
    """Five services and a department on the bus, each with what the script allows and no more."""
    company = await world.company(*(world.row(slug) for slug in (DESK, API, EVENTS)))
    application_id = (await world.submit(company)).ok()["application_id"]

    items: dict[str, str] = {}

    async def routed() -> bool:
        found = (await world.application(company, application_id))["items"]
        items.update((item["department"]["slug"], item["item_id"]) for item in found if item["department"])
        return DESK in items

    await eventually(routed, 30)
    (await world.desk(items[DESK], "accept")).ok()
    (await world.desk(items[DESK], "grant")).ok()
    done = await world.until_completed(company, application_id, 60)
    assert {item["status"] for item in done["items"]} == {"repaired"}
    for service in SERVICES:
        (await world.ask("GET", world.url(service, "/readyz"))).ok()


async def test_operators_see_the_bus(world: World) -> None:
    """Lag and topics are asked by each service with its own account."""
    for service in SERVICES:
        url = world.url(service, "/v1/operations/status")
        status = (await world.ask("GET", url, await world.ops())).ok()
        assert status["bus"]["problem"] is None, (service, status["bus"])
        assert all(topic["partitions"] == topic["declared_partitions"] for topic in status["bus"]["topics"])
        for consumer in status["consumers"]:
            assert consumer["topics"], (service, consumer)


@asynccontextmanager
async def _producer(options: dict[str, Any]) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**options, acks="all", request_timeout_ms=5_000)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _written(options: dict[str, Any], topic: str) -> str:
    """What the bus says to an empty message."""
    async with _producer(options) as producer:
        try:
            await producer.send_and_wait(topic, b"", key=b"nobody")
        except KafkaError as error:
            return type(error).__name__
    return "taken"


async def _read(options: dict[str, Any], topic: str, group: str | None = None) -> str:
    consumer = AIOKafkaConsumer(
        topic, **options, group_id=group, auto_offset_reset="earliest", request_timeout_ms=5_000
    )
    try:
        await consumer.start()
        async with asyncio.timeout(60):
            await consumer.getone()
    except (KafkaError, TimeoutError) as error:
        return type(error).__name__
    finally:
        await consumer.stop()
    return "read"


DENIED = TopicAuthorizationFailedError.__name__
OTHER = "hz-samr"


async def test_a_department_has_its_two_topics_and_nothing_else(world: World, outer: Any) -> None:
    own = outer(f"dept-{EVENTS}")
    # the empty message is one of the bad ones that dept-adapter puts aside
    assert await _written(own, inbound_topic(EVENTS)) == "taken"
    assert await _read(own, review_topic(EVENTS)) == "read"
    for topic in (review_topic(EVENTS), review_topic(OTHER), "xinfu.decisions", "xinfu.records"):
        assert await _written(own, topic) == DENIED, topic
    for topic in (inbound_topic(EVENTS), review_topic(API), "xinfu.decisions", "xinfu.applications"):
        assert await _read(own, topic) == DENIED, topic
    group = await _read(own, review_topic(EVENTS), "dept-adapter")
    assert group == GroupAuthorizationFailedError.__name__
    admin = AIOKafkaAdminClient(**own)
    await admin.start()
    try:
        made = await admin.create_topics([NewTopic("xinfu.inbound.other", 1, 1)])
    finally:
        await admin.close()
    assert [code for _, code, *_ in made.topic_errors] == [TopicAuthorizationFailedError.errno]


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_writes_what_another_owns(world: World, outer: Any, service: str) -> None:
    own = outer(service_account(service))
    owners = {"xinfu.applications": "intake", "xinfu.routing": "routing", "xinfu.decisions": "dept-adapter"}
    owners |= {"xinfu.propagation": "sync", "xinfu.notifications": "notify", inbound_topic(EVENTS): "nobody"}
    for topic, owner in owners.items():
        if owner != service:
            assert await _written(own, topic) == DENIED, topic


async def test_who_does_not_know_the_password_or_the_ca_is_not_let_in(world: World, outer: Any) -> None:
    wrong = {**outer(service_account("sync")), "sasl_plain_password": "guessed"}
    with pytest.raises(KafkaError):
        await _written(wrong, "xinfu.propagation")
    strange = {**outer(service_account("sync")), "ssl_context": create_ssl_context()}
    with pytest.raises(KafkaError):
        await _written(strange, "xinfu.propagation")
