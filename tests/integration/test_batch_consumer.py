"""The batch consumer on a real broker and a real database: once, in order, and one bad event costs only its own key."""

import asyncio
import secrets
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, UnknownError
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from integration.recorder import Recorder, by_key, harness, numbered, record

from chassis.bus import make_producer
from chassis.db import Document
from contracts.errors import DeadLetterReason
from contracts.events import RecordPublished, RecordWithdrawn
from contracts.topics import RECORDS
from support import PATIENCE, eventually, message, produce, published
from xinfu_local import Broker, Stack


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(secrets.token_hex(8))


async def test_redelivered_and_repeated_events_take_effect_once(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    messages = [
        message(published(record(recorder, n % 5), document_number=f"文{n}号"), f"{recorder.prefix}-{n}")
        for n in range(50)
    ]
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(infra, RECORDS.name, messages + messages[:20])
    async with made.running():

        async def done() -> bool:
            return len(await recorder.seen()) >= 50

        await eventually(done)
        # the whole topic once more, as after a lost offset
        await produce(infra, RECORDS.name, messages)
        await asyncio.sleep(1)
        seen = await recorder.seen()
    assert sorted(seen) == sorted(f"文{n}号" for n in range(50))
    for key in range(5):
        assert [s for s in seen if int(s[1:-1]) % 5 == key] == [f"文{n}号" for n in range(50) if n % 5 == key]


async def test_a_start_that_fails_half_way_leaves_no_member_behind(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the bus is killed while a group is joined: the next attempt has the whole topic, and reads it once."""
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 4) for n in range(20)])
    await made.broker.connect()
    joins, members = AIOKafkaConsumer.start, []

    async def joined_and_lost(self: AIOKafkaConsumer) -> None:
        await joins(self)
        members.append(self)
        if len(members) == 1:
            raise KafkaConnectionError("the bus is gone")

    monkeypatch.setattr(AIOKafkaConsumer, "start", joined_and_lost)
    try:
        with pytest.raises(KafkaConnectionError):
            await made.consumer.start()
        assert made.consumer.stalled_seconds() > 0, "it has not joined: it is not ready"
        for _ in range(2):
            await made.consumer.start()
        assert len(members) == 2
        assert made.consumer.stalled_seconds() == 0

        async def done() -> bool:
            return len(await recorder.seen()) == 20

        await eventually(done)
        assert len(members[1].assignment()) == RECORDS.partitions, "the first holds none of them"
    finally:
        await made.broker.stop()


async def test_what_does_not_concern_a_consumer_leaves_no_trace_and_holds_up_nothing(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    made = harness(infra, broker_kind, recorder, events=frozenset({RecordPublished}))
    await made.prepare()
    key = record(recorder, 1)
    withdrawn = RecordWithdrawn(record_id=f"rec_{key}", reason="撤回", withdrawn_at=datetime.now(UTC))
    # of the same key, before and after what concerns it
    told = [message(published(key, document_number=f"文{n}号")) for n in range(2)]
    other = [message(withdrawn) for _ in range(2)]
    await produce(infra, RECORDS.name, [other[0], told[0], other[1], told[1]])
    async with made.running():

        async def done() -> bool:
            return len(await recorder.seen()) == 2

        await eventually(done)
        assert await recorder.seen() == ["文0号", "文1号"]
        taken = {row["_id"].rpartition("#")[2] async for row in made.database.collection("inbox").find()}
        concerning, others = ({headers["ce_id"] for _, headers, _ in sent} for sent in (told, other))
        assert concerning <= taken
        assert not others & taken
        # what the books say it takes, by which parity compares
        assert made.consumer.spec.event_types == [RecordPublished.TYPE]
        # the topic holds what other tests have left on it
        mine = {"key": {"$in": [f"rec_{key}", f"rec_{key}".encode()]}}
        for each in (made.database.collection("dead_letters"), made.database.collection("parked_keys")):
            assert await each.count_documents(mine) == 0


async def test_failing_key_is_parked_in_order_and_others_go_on(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    bad, good = record(recorder, 1), record(recorder, 2)
    recorder.failing = {f"rec_{bad}"}
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(
        infra,
        RECORDS.name,
        [message(published(bad if n % 2 else good, document_number=f"文{n}号")) for n in range(10)],
    )
    async with made.running():

        async def good_done() -> bool:
            return len(await recorder.seen()) == 5

        await eventually(good_done)
        # a later event of the parked key must queue behind it, not overtake
        await produce(infra, RECORDS.name, [message(published(bad, document_number="文11号"))])
        parked = made.database.collection("parked_events")

        async def queued() -> bool:
            return await parked.count_documents({}) == 6

        await eventually(queued)
        key = await made.database.collection("parked_keys").find_one({})
        assert key is not None
        assert "told to fail" in key["reason"]
        assert (await recorder.seen()) == [f"文{n}号" for n in range(0, 10, 2)]
        recorder.failing = set()

        async def all_done() -> bool:
            return len(await recorder.seen()) == 11

        await eventually(all_done)
        assert (await recorder.seen())[5:] == ["文1号", "文3号", "文5号", "文7号", "文9号", "文11号"]
        assert await made.database.collection("parked_keys").count_documents({}) == 0
        assert await parked.count_documents({}) == 0


async def test_key_is_handed_to_a_person_after_the_last_attempt(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    bad = record(recorder, 1)
    recorder.failing = {f"rec_{bad}"}
    made = harness(infra, broker_kind, recorder, park_max_attempts=3)
    await made.prepare()
    await produce(infra, RECORDS.name, [message(published(bad))])
    async with made.running():
        keys = made.database.collection("parked_keys")

        async def dead() -> bool:
            return await keys.count_documents({"state": "dead"}) == 1

        await eventually(dead)
        found = await keys.find_one({})
        assert found is not None
        assert found["attempts"] == 3
        assert found["first_failed_at"] < found["last_failed_at"]


async def test_malformed_messages_become_dead_letters_and_the_pipeline_goes_on(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    key, headers, value = message(published(record(recorder, 1), document_number="文1号"))
    mark = secrets.token_hex(8)
    headers = {**headers, "x-test": mark}
    bad: list[tuple[str, dict[str, str | bytes], bytes | None, DeadLetterReason]] = [
        (key, {**headers}, b"not json", DeadLetterReason.NOT_JSON),
        (key, {**headers}, None, DeadLetterReason.NOT_JSON),
        (key, {**headers}, b"[" * 100_000, DeadLetterReason.NOT_JSON),
        (key, {n: v for n, v in headers.items() if n != "ce_type"}, value, DeadLetterReason.BAD_HEADERS),
        (key, {**headers, "ce_specversion": "0.3"}, value, DeadLetterReason.BAD_HEADERS),
        (key, {**headers, "ce_source": b"\xff\xfe"}, value, DeadLetterReason.BAD_HEADERS),
        (key, {**headers}, b'{"record_id": 5}', DeadLetterReason.SCHEMA_MISMATCH),
        ("another-key", {**headers}, value, DeadLetterReason.KEY_MISMATCH),
        (key, {**headers}, b" " * 950_000, DeadLetterReason.TOO_LARGE),
        (key, {**headers, "ce_type": "cn.xinfu.repair.granted.v1"}, value, DeadLetterReason.SCHEMA_MISMATCH),
    ]
    future: tuple[str, dict[str, str | bytes], bytes] = (
        key,
        {**headers, "ce_type": "cn.xinfu.record.published.v9"},
        value,
    )
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(
        infra, RECORDS.name, [(k, h, v) for k, h, v, _ in bad] + [future, (key, {**headers}, value)]
    )
    async with made.running():

        async def put_aside() -> list[Document]:
            letters = made.database.collection("dead_letters").find()
            return [letter async for letter in letters if ["x-test", mark.encode()] in letter["headers"]]

        async def done() -> bool:
            # another key may be on another partition, which is read when it is read
            return await recorder.seen() == ["文1号"] and len(await put_aside()) >= len(bad)

        await eventually(done)
        letters = await put_aside()
        assert sorted(letter["reason"] for letter in letters) == sorted(reason.value for *_, reason in bad)
        assert all(letter["detail"] for letter in letters)
        assert await made.database.collection("parked_keys").count_documents({}) == 0


class NotUtf8(str):
    """A header name as no honest client sends it."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe" + str(self).encode()


async def test_a_header_name_that_is_not_text_neither_stops_nor_costs_others(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the compiled builder takes the characters of a name, whatever its encode() says
    for module in (producer, message_accumulator):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    messages = [numbered(recorder, n, 5) for n in range(60)]
    hostile: list[tuple[str, dict[str, str | bytes], bytes]] = [
        (key, {**headers, NotUtf8("x"): b"v"} if n % 10 == 5 else {**headers}, value)
        for n, (key, headers, value) in enumerate(messages)
    ]
    await produce(infra, RECORDS.name, hostile)
    async with made.running():

        async def done() -> bool:
            return len(await recorder.seen()) >= 60

        await eventually(done)
        assert by_key(await recorder.seen(), 5) == [list(range(key, 60, 5)) for key in range(5)]


@pytest.mark.parametrize("task", ["coordination", "metadata"])
async def test_a_consumer_that_has_failed_for_good_says_so(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """An error that aiokafka does not know ends a task of its own: nobody would ever get a message from it again."""
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    async with made.running():

        async def joined() -> bool:
            return made.consumer._subscriber.consumer is not None and bool(
                made.consumer._subscriber.consumer.assignment()
            )

        await eventually(joined, 30)
        assert made.consumer.failure() is None
        coordinator = made.consumer._subscriber.consumer._coordinator  # type: ignore[union-attr]
        client = coordinator._client

        async def closed(*_: object, **__: object) -> bool:
            raise RuntimeError(
                "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
            )

        if task == "coordination":
            monkeypatch.setattr(client, "ready", closed)
            coordinator.coordinator_dead()
        else:
            monkeypatch.setattr(client, "_get_conn", closed)
            client.force_metadata_update()

        async def gone() -> bool:
            return made.consumer.failure() is not None

        await eventually(gone, 20)
        assert "handler is closed" in str(made.consumer.failure())
        # a process would end now; this one has to stop the consumer
        monkeypatch.undo()
        client._sync_task = None


async def test_a_commit_that_never_returns_is_no_idleness(
    infra: Stack, broker_kind: Broker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hangs(*_: object) -> None:
        asked.set()
        await asyncio.sleep(60)

    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    async with made.running():
        await asyncio.sleep(3)
        assert made.consumer.stalled_seconds() == 0, "nothing has come: it looks, and all is well"
        monkeypatch.setattr(AIOKafkaConsumer, "commit", hangs)
        await produce(infra, RECORDS.name, [numbered(recorder, 0, 1)])
        await asyncio.wait_for(asked.wait(), 30 * PATIENCE)

        async def stalled() -> bool:
            return made.consumer.stalled_seconds() > 3

        await eventually(stalled)


async def test_an_offset_from_before_the_bus_lost_its_data_hides_nothing(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    """A process that was about to commit when the bus was emptied commits its old offset to the new one, beyond its end."""
    made = harness(infra, broker_kind, recorder)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 5) for n in range(20)])
    before = AIOKafkaConsumer(
        bootstrap_servers=infra.kafka_bootstrap, group_id=made.name, enable_auto_commit=False
    )
    await before.start()
    try:
        partitions = [TopicPartition(RECORDS.name, n) for n in range(RECORDS.partitions)]
        before.assign(partitions)
        await before.commit(dict.fromkeys(partitions, 100_000))
    finally:
        await before.stop()
    async with made.running():

        async def done() -> bool:
            return len(await recorder.seen()) >= 20

        await eventually(done)
        await asyncio.sleep(1)
        assert sorted(await recorder.seen()) == sorted(f"文{n}号" for n in range(20))


async def test_a_partition_whose_end_is_told_too_low_counts_as_taken_all_the_same(
    infra: Stack, broker_kind: Broker, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded broker takes what is published to a topic that is not there; when it is created, its ends begin at 0 again."""
    if broker_kind.survives_restart:
        pytest.skip("no broker takes anything for a topic that does not exist, but the embedded one")
    monkeypatch.setenv("MONGODB_URI", infra.mongodb_uri)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with Stack([], broker_kind, tmp_path / "stack") as bus:
        made = harness(bus, broker_kind, recorder, bus_watch_seconds=1)
        await made.prepare()
        producer = make_producer(made.settings, "of before")
        await producer.start()

        async def publish(*numbers: int) -> None:
            batch = producer.create_batch()
            for n in numbers:
                key, headers, value = numbered(recorder, n, 1)
                encoded = [(name, text.encode()) for name, text in headers.items()]
                batch.append(timestamp=None, key=key.encode(), value=value, headers=encoded)
            await (await producer.send_batch(batch, RECORDS.name, partition=0))

        async def seen(number: int) -> bool:
            return len(await recorder.seen()) >= number

        await producer.partitions_for(RECORDS.name)
        bus.kill("kafka")
        await asyncio.to_thread(bus.wait_ready)
        await publish(0, 1, 2)
        async with made.running():
            with pytest.raises(UnknownError):  # at 0, where the three lie; now it tells 1 for the end
                await publish(3)
            await eventually(lambda: seen(3))
            published_at = datetime.now(UTC)

            async def taken() -> bool:
                until = await made.consumer.taken_until()
                return until is not None and until > published_at

            await eventually(taken)
            # at 1 and 2, where nobody reads; then behind the three
            for _ in range(3):
                await publish(3)
            await eventually(lambda: seen(4))
            assert await recorder.seen() == [f"文{n}号" for n in range(4)]
        await producer.stop()
