"""Stopping in the middle of a batch finishes it and commits it; killing there repeats the work, not the effect."""

import asyncio
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.topics import RECORDS
from support import Harness, eventually, message, produce, published, settings_for
from xinfu_local import Broker, Stack, free_port


class Slow:
    """A handler that is in the middle of its work for a while."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.harness: Harness
        self.entered = asyncio.Event()
        self.seconds = 1.5
        self.handled = 0

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        mine = [r for r in batch if r.key.startswith(self.prefix)]
        if not mine:
            return
        self.entered.set()
        await asyncio.sleep(self.seconds)
        await self.harness.database.collection("effects").insert_many(
            [{"_id": f"{r.id}-{secrets.token_hex(4)}", "event": r.id} for r in mine], session=unit.session
        )
        self.handled += len(mine)


async def committed(infra: Stack, group: str, partition: int) -> int:
    """The group's committed offset on a partition of the records topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=infra.kafka_bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        return int(await consumer.committed(TopicPartition(RECORDS.name, partition)) or 0)
    finally:
        await consumer.stop()


async def test_stop_in_mid_batch_finishes_and_commits_it(infra: Stack, broker_kind: Broker) -> None:
    slow = Slow(f"rec_{secrets.token_hex(8)}")
    slow.harness = made = Harness(settings_for(infra, broker_kind), slow)
    await made.prepare()
    key = f"{slow.prefix.removeprefix('rec_')}{1:016x}"
    messages = [message(published(key, document_number=f"文{n}号")) for n in range(20)]
    partition, last_offset = (await produce(infra, RECORDS.name, messages))[-1]
    async with made.running():
        await asyncio.wait_for(slow.entered.wait(), 30)
    # the block ended while the handler slept: stopping waited for it
    again = Harness(settings_for(infra, broker_kind), slow, made.name)
    slow.harness = again
    assert slow.handled == 20
    assert await again.database.collection("effects").count_documents({}) == 20
    assert await committed(infra, made.name, partition) == last_offset + 1
    again.database.close()


async def test_work_that_was_cut_off_before_its_commit_is_done_again_once(
    infra: Stack, broker_kind: Broker
) -> None:
    slow = Slow(f"rec_{secrets.token_hex(8)}")
    slow.seconds = 60
    slow.harness = made = Harness(settings_for(infra, broker_kind, graceful_timeout_seconds=0.2), slow)
    await made.prepare()
    key = f"{slow.prefix.removeprefix('rec_')}{1:016x}"
    await produce(
        infra, RECORDS.name, [message(published(key, document_number=f"文{n}号")) for n in range(20)]
    )
    async with made.running():
        await asyncio.wait_for(slow.entered.wait(), 30)
    assert slow.handled == 0
    slow.seconds = 0
    slow.harness = again = Harness(settings_for(infra, broker_kind), slow, made.name)
    async with again.running():

        async def done() -> bool:
            return await again.database.collection("effects").count_documents({}) >= 20

        await eventually(done)
    slow.harness = last = Harness(settings_for(infra, broker_kind), slow, made.name)
    assert len(await last.database.collection("effects").distinct("event")) == 20
    assert await last.database.collection("effects").count_documents({}) == 20
    last.database.close()


def test_a_service_ends_with_status_0_after_sigterm_and_says_what_is_missing(
    infra: Stack, broker_kind: Broker
) -> None:
    port = free_port(None)
    environment = {
        **infra.environment,
        "PATH": "/usr/bin:/bin",
        "ROUTING_HTTP_PORT": str(port),
        "ROUTING_MONGODB_DATABASE": f"test_{secrets.token_hex(6)}",
        "XINFU_OIDC_ISSUER": "http://127.0.0.1:1/oidc",
        "KAFKA_ENABLE_IDEMPOTENCE": str(broker_kind.supports_idempotence).lower(),
    }
    process = subprocess.Popen([sys.executable, "-m", "routing"], env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_ready(f"http://127.0.0.1:{port}/readyz")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            with urlopen(url, timeout=2) as response:
                assert response.status == 200
                return
        except (URLError, OSError):
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("service", "environment", "named"),
    [
        ("intake", {}, "KAFKA_BOOTSTRAP_SERVERS"),
        (
            "intake",
            {"KAFKA_BOOTSTRAP_SERVERS": "x", "MONGODB_URI": "y", "XINFU_OIDC_ISSUER": "z"},
            "INTAKE_SUBJECT_KEY",
        ),
        (
            "routing",
            {
                "KAFKA_BOOTSTRAP_SERVERS": "x",
                "MONGODB_URI": "y",
                "XINFU_OIDC_ISSUER": "z",
                "ROUTING_HTTP_PORT": "x",
            },
            "ROUTING_HTTP_PORT",
        ),
        (
            "routing",
            {
                "KAFKA_BOOTSTRAP_SERVERS": "x",
                "MONGODB_URI": "y",
                "XINFU_OIDC_ISSUER": "z",
                "XINFU_INBOX_RETENTION_DAYS": "5",
            },
            "XINFU_INBOX_RETENTION_DAYS",
        ),
    ],
)
def test_a_bad_setting_is_named_in_one_line(service: str, environment: dict[str, str], named: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", service],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 78
    (line,) = ended.stderr.decode().strip().splitlines()
    assert named in line
