"""The outbox relay: in order per key, nothing lost, whoever publishes and whatever fails."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from aiokafka import AIOKafkaConsumer

from chassis.bus import ensure_topics, make_producer
from chassis.db import Database
from chassis.outbox import Outbox, outbox_collections
from chassis.relay import BucketLeases, Relay
from chassis.unit_of_work import UnitOfWork
from contracts.topics import RECORDS
from support import PATIENCE, TestSettings, eventually, published, settings_for
from xinfu_local import Broker, Stack

KEYS, ROUNDS = 40, 25


@pytest.fixture
def settings(infra: Stack, broker_kind: Broker) -> TestSettings:
    return settings_for(infra, broker_kind, outbox_buckets=8, outbox_lease_seconds=1.5, outbox_batch=100)


@pytest.fixture
async def database(settings: TestSettings) -> AsyncIterator[Database]:
    made = Database(
        settings.mongodb_uri.get_secret_value(),
        f"test_{secrets.token_hex(6)}",
        pool_size=10,
        timeout_ms=10_000,
    )
    await made.ensure(outbox_collections(30))
    await ensure_topics(settings, {RECORDS.name: RECORDS})
    yield made
    made.close()


def outbox(database: Database) -> Outbox:
    return Outbox(database, source="/test", buckets=8, max_event_bytes=900_000)


async def write(box: Outbox, prefix: str, key: int, number: int) -> None:
    """One transaction that emits one event of one key."""

    async def work(unit: UnitOfWork) -> None:
        unit.emit(published(f"{prefix}{key:08x}", document_number=f"文{number}号"), cause=f"{key}-{number}")

    await box.run(work)


async def on_topic(infra: Stack, prefix: str, expected: int) -> dict[str, list[tuple[str, int]]]:
    """(event id, number) of this test's events by key, in the order of the topic."""
    consumer = AIOKafkaConsumer(
        RECORDS.name,
        bootstrap_servers=infra.kafka_bootstrap,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    try:
        deadline = asyncio.get_running_loop().time() + 20 * PATIENCE
        while len({i for events in found.values() for i, _ in events}) < expected:
            assert asyncio.get_running_loop().time() < deadline, (
                f"{found and sum(map(len, found.values()))} events"
            )
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    key = record.key.decode()
                    if key.startswith(f"rec_{prefix}"):
                        headers = dict(record.headers)
                        number = int(record.value.decode().split('"文')[1].split("号")[0])
                        found[key].append((headers["ce_id"].decode(), number))
    finally:
        await consumer.stop()
    return found


async def test_two_relays_and_a_third_that_vanishes_keep_order_per_key(
    infra: Stack, settings: TestSettings, database: Database
) -> None:
    prefix = secrets.token_hex(12)
    box = outbox(database)
    producers = [make_producer(settings, f"relay-{n}") for n in range(3)]
    for producer in producers:
        await producer.start()
    relays = [Relay(database, producer, settings) for producer in producers]
    for relay in relays:
        relay.loop.start()
    writing = [asyncio.create_task(_write_key(box, prefix, key, settings)) for key in range(KEYS)]
    await asyncio.sleep(0.5)
    await relays[2].loop.stop()  # gone without giving its leases back
    await asyncio.gather(*writing)

    pending = database.collection("outbox")

    async def drained() -> bool:
        return await pending.count_documents({"pending": True}) == 0

    await eventually(drained)
    for relay in relays[:2]:
        await relay.stop()
    for producer in producers:
        await producer.stop()
    found = await on_topic(infra, prefix, KEYS * ROUNDS)
    assert len(found) == KEYS
    for events in found.values():
        first_seen = list(dict.fromkeys(number for _, number in events))
        assert first_seen == list(range(ROUNDS))


async def _write_key(box: Outbox, prefix: str, key: int, _settings: TestSettings) -> None:
    for number in range(ROUNDS):
        await write(box, prefix, key, number)


async def test_a_relay_whose_clock_is_ahead_holds_its_buckets_no_longer(
    settings: TestSettings, database: Database
) -> None:
    """Killed with a clock two minutes ahead, it stops nobody for two minutes."""

    def leases() -> BucketLeases:
        return BucketLeases(database, buckets=8, lease_seconds=settings.outbox_lease_seconds)

    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2), tick=True):
        assert await leases().held() == [*range(8)]
    successor = leases()

    async def all_taken_over() -> bool:
        return await successor.held() == [*range(8)]

    assert not await all_taken_over()
    await eventually(all_taken_over, 20)


async def test_a_replayed_outbox_publishes_the_same_ids(
    infra: Stack, settings: TestSettings, database: Database
) -> None:
    prefix = secrets.token_hex(12)
    box = outbox(database)
    for number in range(5):
        await write(box, prefix, 1, number)
    producer = make_producer(settings, "relay")
    await producer.start()
    relay = Relay(database, producer, settings)
    try:
        while await relay.publish_pending():
            pass
        await database.collection("outbox").update_many({}, {"$set": {"pending": True}})
        while await relay.publish_pending():
            pass
    finally:
        await producer.stop()
    (events,) = (await on_topic(infra, prefix, 5)).values()
    assert [number for _, number in events] == [0, 1, 2, 3, 4] * 2
    assert events[:5] == events[5:]


async def test_an_event_that_is_too_large_is_refused_when_it_is_written(database: Database) -> None:
    box = Outbox(database, source="/test", buckets=8, max_event_bytes=300)
    with pytest.raises(ValueError, match="XINFU_MAX_EVENT_BYTES"):
        await write(box, secrets.token_hex(12), 1, 1)
    assert await database.collection("outbox").count_documents({}) == 0


async def test_a_relay_that_has_failed_for_good_says_so(
    settings: TestSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(database, make_producer(settings, "relay"), settings)
    assert relay.failure() is None, "not started yet"
    await relay.producer.start()
    assert relay.failure() is None

    async def unknown(*_: object) -> None:
        raise RuntimeError("the handler is closed")

    client = relay.producer.client
    monkeypatch.setattr(client, "_get_conn", unknown)
    client.force_metadata_update()

    async def failed() -> bool:
        return relay.failure() is not None

    await eventually(failed)
    # a process would end now; this one has to stop the producer
    monkeypatch.undo()
    client._sync_task = None
    await relay.close()


async def test_a_missing_topic_holds_up_no_other(
    infra: Stack, broker_kind: Broker, settings: TestSettings, database: Database
) -> None:
    if broker_kind is Broker.EMBEDDED:
        pytest.skip("the embedded broker creates any topic that is asked for: on it none is ever missing")
    prefix = secrets.token_hex(12)
    box = outbox(database)
    await write(box, prefix, 1, 0)
    # no declared topic has this name, so nobody ever creates it
    await database.collection("outbox").update_many({}, {"$set": {"topic": "xinfu.missing"}})
    for number in range(1, 4):
        await write(box, prefix, 2, number)
    producer = make_producer(settings, "relay")
    await producer.start()
    relay = Relay(database, producer, settings)
    try:
        await relay.publish_pending()
    finally:
        await producer.stop()
    (events,) = (await on_topic(infra, prefix, 3)).values()
    assert [number for _, number in events] == [1, 2, 3]
    left = [doc["topic"] async for doc in database.collection("outbox").find({"pending": True})]
    assert left == ["xinfu.missing"]
