"""Batches while things break: a poison event, a stepped-down primary, a hanging handler or database, a rebalance."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from integration.recorder import Recorder, by_key, harness, numbered, record
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
)
from structlog.testing import capture_logs

from chassis.db import is_unavailable
from chassis.parking import KeyState
from contracts.topics import RECORDS
from support import Harness, eventually, message, produce, published
from xinfu_local import Broker, Stack

Step = Callable[[], Awaitable[None]]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(secrets.token_hex(8))


async def until_seen(recorder: Recorder, number: int, seconds: float = 30) -> list[str]:
    async def done() -> bool:
        return len(await recorder.seen()) >= number

    await eventually(done, seconds)
    return await recorder.seen()


def in_order(numbers: int, keys: int) -> list[list[int]]:
    return [list(range(key, numbers, keys)) for key in range(keys)]


async def nothing_is_parked(made: Harness) -> bool:
    return await made.database.collection("parked_keys").count_documents({}) == 0


async def test_a_poison_event_costs_only_its_key_and_few_transactions(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    keys, poison = 100, 42
    recorder.failing = {f"rec_{record(recorder, poison)}"}
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, keys) for n in range(200)])
    async with made.running():
        seen = await until_seen(recorder, 198)
        parked = made.database.collection("parked_events")

        async def queued() -> bool:
            return await parked.count_documents({}) == 2

        await eventually(queued)
        (key,) = await made.consumer.parking.page(KeyState.PARKED, None, 10)
    expected = in_order(200, keys)
    expected[poison] = []
    assert by_key(seen, keys) == expected
    assert key["failing_event"].endswith(f"-{poison}")
    # key by key it would have been a hundred
    assert sum(1 for call in recorder.calls if call) < 45


class OneNode:
    """Makes the primary of the one-node replica set step down; it is elected again after a second or two."""

    def __init__(self, uri: str) -> None:
        self._client: AsyncIOMotorClient[dict[str, object]] = AsyncIOMotorClient(uri)
        self.times = 0

    async def step_down(self) -> None:
        if self.times >= 2:
            return
        self.times += 1
        await self._client.admin.command({"replSetStepDown": 1, "force": True})

    async def writable(self) -> None:
        async def primary() -> bool:
            try:
                return bool((await self._client.admin.command("hello"))["isWritablePrimary"])
            except PyMongoError:
                return False

        await eventually(primary, 30)
        self._client.close()


@pytest.fixture
async def node(infra: Stack) -> AsyncIterator[OneNode]:
    node = OneNode(infra.mongodb_uri)
    yield node
    await node.writable()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_step_down_in_mid_batch_repeats_the_batch_and_parks_nothing(
    infra: Stack, broker_kind: Broker, recorder: Recorder, node: OneNode, moment: str
) -> None:
    setattr(recorder, moment, node.step_down)
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 5) for n in range(50)])
    with capture_logs() as logs:
        async with made.running():
            seen = await until_seen(recorder, 50, 60)
            assert await nothing_is_parked(made)
    assert node.times == 2
    assert by_key(seen, 5) == in_order(50, 5)
    assert not [line for line in logs if line["event"] in {"batch failed; dividing it", "key parked"}]


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (NotPrimaryError("not primary"), True),
        (AutoReconnect("connection closed"), True),
        (OperationFailure("stepped down", 189), True),
        (OperationFailure("interrupted", 11602), True),
        (OperationFailure("shutting down", 11600), True),
        (OperationFailure("cursor id 1 not found", 43), True),
        (OperationFailure("WriteConflict error", 112), True),
        (ConfigurationError("Sessions are not supported by this MongoDB deployment"), True),
        (ConfigurationError("Unknown option"), False),
        (BulkWriteError({"writeErrors": [{"code": 11602}]}), True),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 91}]}), True),
        (BulkWriteError({"writeErrors": [{"code": 11602}, {"code": 11000}]}), False),
        (DuplicateKeyError("duplicate", 11000), False),
        (OperationFailure("bad update", 9), False),
        (ValueError("bad event"), False),
    ],
)
def test_an_unavailable_database_is_told_from_wrong_work(error: Exception, *, unavailable: bool) -> None:
    assert is_unavailable(error) is unavailable


async def test_a_hanging_handler_is_stopped_and_only_its_key_parked(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    keys, slow = 20, 7
    recorder.slow = {f"rec_{record(recorder, slow)}"}
    made = harness(infra, broker_kind, recorder, handler_timeout_seconds=1, park_base_seconds=60)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, keys) for n in range(60)])
    async with made.running():
        seen = await until_seen(recorder, 57)
        parked = made.database.collection("parked_events")

        async def queued() -> bool:
            return await parked.count_documents({}) == 3

        await eventually(queued)
        (key,) = await made.consumer.parking.page(KeyState.PARKED, None, 10)
    expected = in_order(60, keys)
    expected[slow] = []
    assert by_key(seen, keys) == expected
    assert "XINFU_HANDLER_TIMEOUT_SECONDS" in key["reason"]


async def test_a_hanging_database_is_the_fault_of_no_key(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongod = infra.pids().get("mongodb")
    if mongod is None:
        pytest.skip("the database is not ours to stop")
    stopped, asked = False, asyncio.Event()

    async def stop() -> None:
        nonlocal stopped
        if not stopped:
            os.kill(mongod, signal.SIGSTOP)
            stopped = True

    recorder.before = stop
    made = harness(infra, broker_kind, recorder, handler_timeout_seconds=1)
    await made.prepare()
    probe = made.database.probe

    async def probed() -> None:
        try:
            await probe()
        finally:
            asked.set()

    monkeypatch.setattr(made.database, "probe", probed)
    await produce(infra, RECORDS.name, [numbered(recorder, n, 5) for n in range(20)])
    with capture_logs() as logs:
        async with made.running():
            try:
                await asyncio.wait_for(asked.wait(), 60)  # it hangs until it was asked and did not answer
            finally:
                os.kill(mongod, signal.SIGCONT)
            seen = await until_seen(recorder, 20, 60)
            assert await nothing_is_parked(made)
    assert by_key(seen, 5) == in_order(20, 5)
    assert [line for line in logs if line["event"] == "batch failed; it comes again"]
    assert not [line for line in logs if line["event"] in {"batch failed; dividing it", "key parked"}]


async def test_a_rebalance_in_mid_batch_repeats_no_effect(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    inside, joined = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        inside.set()
        await joined.wait()

    recorder.before = wait
    first = harness(infra, broker_kind, recorder, kafka_session_timeout_ms=6000)
    other = Recorder(recorder.prefix.removeprefix("rec_"))
    second = harness(infra, broker_kind, other, first.name, kafka_session_timeout_ms=6000)
    await first.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 12) for n in range(120)])
    async with first.running():
        await asyncio.wait_for(inside.wait(), 60)
        async with second.running():
            # the second one does the first one's batch as well, while that is still inside its handler
            await until_seen(other, 1)
            joined.set()
            await until_seen(recorder, 120, 60)
            # both go on, each with its own partitions
            await produce(infra, RECORDS.name, [numbered(recorder, n, 12) for n in range(120, 240)])
            await until_seen(recorder, 240, 60)
            await asyncio.sleep(1)
            seen = await recorder.seen()
            assert await nothing_is_parked(first)
    assert by_key(seen, 12) == in_order(240, 12)
    assert sum(other.calls) > 0


async def test_a_batch_whose_time_is_over_is_given_back_with_what_is_done(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two slow keys, and time for one of them in one go: the second go does the rest
    monkeypatch.setattr("chassis.consumer._SECONDS_FOR_A_BATCH", 2.0)
    recorder.slow = {f"rec_{record(recorder, n)}" for n in (3, 8)}
    made = harness(infra, broker_kind, recorder, handler_timeout_seconds=1.2, park_base_seconds=60)
    await made.prepare()
    await produce(
        infra,
        RECORDS.name,
        [message(published(record(recorder, n), document_number=f"文{n}号")) for n in range(12)],
    )
    with capture_logs() as logs:
        async with made.running():
            seen = await until_seen(recorder, 10)

            async def both() -> bool:
                return await made.database.collection("parked_keys").count_documents({}) == 2

            await eventually(both)
    assert sorted(int(s[1:-1]) for s in seen) == [n for n in range(12) if n not in {3, 8}]
    assert any(line["event"] == "time for a batch is over; the rest comes again" for line in logs)
