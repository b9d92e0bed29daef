"""What we ask of a bus, tried on the broker that BROKER names: the embedded one or Apache Kafka. docs/brokers.md has the outcome.

A consumer process is ``bus_worker.py``: kill -9, SIGTERM and the restart by a supervisor are the real ones.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from integration.recorder import Recorder, by_key, harness, numbered, record
from structlog.testing import capture_logs

from chassis.bus import ensure_topics, make_producer
from chassis.relay import Relay
from chassis.unit_of_work import UnitOfWork
from contracts.topics import RECORDS
from support import Harness, eventually, produce, published
from xinfu_local import Broker, Process, Stack

_WORKER = Path(__file__).parent / "bus_worker.py"
_SESSION_MS = 6_000


@pytest.fixture
async def observer(infra: Stack, broker_kind: Broker) -> AsyncIterator[Recorder]:
    """Looks at what the workers of one group do. Consumes nothing itself."""
    made = Recorder(secrets.token_hex(8))
    harness(infra, broker_kind, made)
    await made.harness.prepare()
    yield made
    made.harness.database.close()


def _worker(stack: Stack, broker: Broker, observer: Recorder, seconds_in_hand: float = 0) -> Process:
    return Process(
        "worker",
        [
            sys.executable,
            str(_WORKER),
            observer.harness.name,
            observer.prefix.removeprefix("rec_"),
            str(seconds_in_hand),
        ],
        {**stack.environment, "BROKER": broker.value, "PYTHONPATH": _path()},
        stop_wait_seconds=20,
    )


def _path() -> str:
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_WORKER.parents[1])]))


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(infra: Stack, broker_kind: Broker, observer: Recorder) -> Iterator[Start]:
    """Starts workers of the observer's group; what still runs at the end is killed."""
    started = []

    def one(seconds_in_hand: float = 0) -> subprocess.Popen[bytes]:
        process = _worker(infra, broker_kind, observer, seconds_in_hand)
        environment = {**os.environ, **{key: value or "" for key, value in process.environment.items()}}
        started.append(subprocess.Popen(process.command, env=environment, stdout=subprocess.DEVNULL))
        return started[-1]

    yield one
    for worker in started:
        worker.kill()
        worker.wait()


async def until_seen(observer: Recorder, number: int, seconds: float = 60) -> None:
    async def done() -> bool:
        return await observer.harness.database.collection("effects").count_documents({}) >= number

    await eventually(done, seconds)


async def until_in_hand(observer: Recorder, pid: int) -> None:
    """Until the worker is in the middle of a batch."""

    async def marked() -> bool:
        return await observer.harness.database.collection("marks").find_one({"pid": pid}) is not None

    await eventually(marked, 60)


@asynccontextmanager
async def reading(infra: Stack, topic: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=infra.kafka_bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=_SESSION_MS,
        heartbeat_interval_ms=1_000,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read(consumer: AIOKafkaConsumer, number: int) -> list[bytes | None]:
    """The values of so many messages."""
    return [(await asyncio.wait_for(consumer.getone(), 90)).value for _ in range(number)]


async def committed(infra: Stack, group: str, partition: TopicPartition) -> int:
    """The group's committed offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=infra.kafka_bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group, partitions=[partition])
    finally:
        await admin.close()
    return int(offsets[partition].offset)


async def new_topic(infra: Stack) -> str:
    name = f"test.{secrets.token_hex(6)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=infra.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    await admin.close()
    return name


async def test_keys_headers_and_values_arrive_as_they_were_sent(infra: Stack) -> None:
    topic = await new_topic(infra)
    headers: dict[str, str | bytes] = {
        "ce_subject": "杭州市教育局 ✓",
        "ключ": "非 ASCII 的名字",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "binary": bytes(range(256)),
        "empty": b"",
    }
    values = ["正文".encode(), b"", None, bytes(range(256)) * 3_900]
    await produce(infra, topic, [("键 1", headers, value) for value in values])
    async with reading(infra, topic) as consumer:
        received = [await asyncio.wait_for(consumer.getone(), 90) for _ in values]
    assert [r.value for r in received] == values
    for r in received:
        assert r.key == "键 1".encode()
        assert list(r.headers) == [(n, v.encode() if isinstance(v, str) else v) for n, v in headers.items()]


async def test_a_group_goes_on_from_what_was_committed(infra: Stack) -> None:
    topic, group = await new_topic(infra), secrets.token_hex(6)
    await produce(infra, topic, [("k", {}, b"%d" % n) for n in range(30)])
    async with reading(infra, topic, group) as consumer:
        assert await read(consumer, 30) == [b"%d" % n for n in range(30)]
        await consumer.commit({TopicPartition(topic, 0): 10})
    # the first member did more than it committed: that comes again
    async with reading(infra, topic, group) as consumer:
        assert await read(consumer, 20) == [b"%d" % n for n in range(10, 30)]
        await consumer.commit()
        assert await committed(infra, group, TopicPartition(topic, 0)) == 30


async def test_ten_thousand_messages_in_order_though_a_consumer_is_killed(
    infra: Stack, observer: Recorder, start: Start
) -> None:
    doomed = start(0.2)
    await produce(infra, RECORDS.name, [numbered(observer, n, 100) for n in range(2_000)])
    await until_in_hand(observer, doomed.pid)
    survivor = start()
    await produce(infra, RECORDS.name, [numbered(observer, n, 100) for n in range(2_000, 10_000)])
    await until_seen(observer, 1)
    # stopped in mid-batch, for the mark of its next batch is there and its effects are not
    await observer.harness.database.collection("marks").delete_many({})
    await until_in_hand(observer, doomed.pid)
    doomed.kill()
    doomed.wait()
    await until_seen(observer, 10_000, 120)
    assert survivor.poll() is None
    await asyncio.sleep(1)  # what comes twice would come now
    assert by_key(await observer.seen(), 100) == [list(range(key, 10_000, 100)) for key in range(100)]


async def test_sigterm_in_mid_batch_finishes_it_and_commits_no_more_than_that(
    infra: Stack, observer: Recorder, start: Start
) -> None:
    sent = await produce(infra, RECORDS.name, [numbered(observer, n, 1) for n in range(20)])
    worker = start(1.5)
    await until_in_hand(observer, worker.pid)
    partition = TopicPartition(RECORDS.name, sent[0][0])
    more = await produce(infra, RECORDS.name, [numbered(observer, n, 1) for n in range(20, 40)])
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 30) == 0
    seen = [int(document[1:-1]) for document in await observer.seen()]
    # the batch in hand is what one fetch brought: some or all of the first 20
    assert 0 < len(seen) <= 20
    assert seen == list(range(len(seen)))
    next_offset = [*sent, *more][len(seen)][1]
    assert await committed(infra, observer.harness.name, partition) == next_offset
    start()
    await until_seen(observer, 40)
    assert [int(document[1:-1]) for document in await observer.seen()] == list(range(40))


async def test_whether_a_producer_may_be_idempotent(infra: Stack, broker_kind: Broker) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=infra.kafka_bootstrap, enable_idempotence=True)
    try:
        if broker_kind.supports_idempotence:
            await producer.start()
        else:
            with pytest.raises((KafkaError, TimeoutError)):
                await asyncio.wait_for(producer.start(), 5)
    finally:
        await producer.stop()


async def emit(made: Harness, observer: Recorder, numbers: range) -> None:
    """One transaction that emits an event for each number, of ten keys."""

    async def work(unit: UnitOfWork) -> None:
        for n in numbers:
            unit.emit(published(record(observer, n % 10), document_number=f"文{n}号"), cause=f"n{n}")

    await made.outbox.run(work)


async def test_a_producer_whose_sequence_is_refused_is_replaced(
    infra: Stack, broker_kind: Broker, observer: Recorder
) -> None:
    if not broker_kind.supports_idempotence:
        pytest.skip("no sequence without idempotence")
    made = observer.harness
    producer = make_producer(made.settings, "test")
    await producer.start()
    relay = Relay(made.database, producer, made.settings)
    await emit(made, observer, range(10))
    assert not await relay.publish_pending()
    for partition in range(RECORDS.partitions):  # as an error that used up numbers leaves it
        producer._txn_manager.increment_sequence_number(TopicPartition(RECORDS.name, partition), 7)
    await emit(made, observer, range(10, 20))
    with capture_logs() as logs:
        await relay.publish_pending()
        assert await made.outbox.pending(100) == 10
        await relay.publish_pending()
    assert await made.outbox.pending(100) == 0
    assert any("new producer" in line["event"] for line in logs)
    await relay.stop()
    await relay.close()


@contextmanager
def supervised(
    broker: Broker, data_dir: Path, observer: Recorder, infra: Stack
) -> Iterator[tuple[Stack, Harness]]:
    """A broker of its own, with a worker that is started again when it ends; the database is that of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGODB_URI", infra.mongodb_uri)
        patch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        own = Stack([], broker, data_dir)
        own = Stack([_worker(own, broker, observer)], broker, data_dir, kafka_port=_port(own))
        with own:
            yield own, harness(own, broker, observer, observer.harness.name)


def _port(stack: Stack) -> int:
    return int(stack.kafka_bootstrap.rpartition(":")[2])


async def replay(made: Harness) -> None:
    """As `xinfu outbox replay` does."""
    await made.database.collection("outbox").update_many(
        {"published_at": {"$exists": True}}, {"$set": {"pending": True}, "$unset": {"published_at": ""}}
    )


async def test_a_restarted_broker(
    infra: Stack, broker_kind: Broker, observer: Recorder, tmp_path: Path
) -> None:
    with supervised(broker_kind, tmp_path / "stack", observer, infra) as (stack, made):
        await emit(made, observer, range(100))
        await until_seen(observer, 100)

        # what nobody has consumed yet, when the broker is killed
        stack.stop_process("worker")
        await ensure_topics(made.settings, {RECORDS.name: RECORDS})
        producer = make_producer(made.settings, "test")
        await producer.start()
        relay = Relay(made.database, producer, made.settings)
        await emit(made, observer, range(100, 200))
        await relay.publish_pending()
        assert await made.outbox.pending(1000) == 0
        await relay.stop()
        await relay.close()
        stack.kill("kafka")
        await asyncio.to_thread(stack.wait_ready, ["kafka"], 120)
        await asyncio.to_thread(stack.start_process, "worker")
        if broker_kind.survives_restart:
            await until_seen(observer, 200)
        else:
            await eventually(lambda: logged(stack, "the bus has lost topics"), 60)
            await asyncio.sleep(1)
            assert len(await observer.seen()) == 100, "an in-memory broker has lost them"
            await replay(made)
            await until_seen(observer, 200)

        # under a running worker: it goes on by itself, or ends and is started again
        pid = stack.pids()["worker"]
        stack.kill("kafka")
        await emit(made, observer, range(200, 300))
        await asyncio.to_thread(stack.wait_ready, ["kafka"], 120)
        if broker_kind.survives_restart:
            await until_seen(observer, 300)
            assert stack.pids()["worker"] == pid
            stack.wipe_kafka(120)
        await eventually(lambda: logged(stack, "the bus is another cluster"), 60)
        await eventually(lambda: logged(stack, "the bus has lost topics"), 60)
        await replay(made)
        await emit(made, observer, range(300, 400))
        await until_seen(observer, 400)
        assert stack.pids()["worker"] != pid
        await asyncio.sleep(1)  # what comes twice would come now
        assert by_key(await observer.seen(), 10) == [list(range(key, 400, 10)) for key in range(10)]
        made.database.close()


async def logged(stack: Stack, text: str) -> bool:
    return text in stack.logs("worker")
