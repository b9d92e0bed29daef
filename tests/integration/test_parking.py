"""Parking and dead letters on a real database: bounded, seen, and to be dealt with by a person."""

import asyncio
import secrets
from collections.abc import Sequence

import pytest
from integration.recorder import Recorder, by_key, harness, numbered, record
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.consumer import OutcomeKind
from chassis.db import Session
from chassis.dead_letters import AlreadySucceededError, LetterState, as_received
from chassis.inbox import Received
from chassis.parking import KeyState
from chassis.unit_of_work import UnitOfWork
from contracts.errors import DeadLetterReason
from contracts.events import RecordWithdrawn
from contracts.topics import RECORDS
from support import Harness, eventually, message, produce, published, settings_for
from xinfu_local import Broker, Stack


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(secrets.token_hex(8))


async def until_parked(made: Harness, number: int) -> None:
    async def parked() -> bool:
        return await made.database.collection("parked_events").count_documents({}) == number

    await eventually(parked)


async def until_seen(recorder: Recorder, number: int) -> None:
    async def done() -> bool:
        return len(await recorder.seen()) >= number

    await eventually(done, 30)


async def test_a_full_parking_takes_no_more_loses_nothing_and_says_so(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    recorder.failing = {f"rec_{record(recorder, 0)}"}
    made = harness(infra, broker_kind, recorder, park_max_events=3, park_max_attempts=100)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 1) for n in range(5)])
    with capture_logs() as logs:
        async with made.running():

            async def stalled() -> bool:
                return made.consumer.stalled_seconds() > 1

            await eventually(stalled)
            await asyncio.sleep(6)  # the number is looked up again every 5 seconds
            parked = await made.database.collection("parked_events").count_documents({})
            assert 0 < parked <= 3
            assert REGISTRY.get_sample_value("xinfu_parked_events", {"consumer": made.name}) == parked
            recorder.failing = set()
            await until_seen(recorder, 5)
            assert by_key(await recorder.seen(), 1) == [[0, 1, 2, 3, 4]]
            assert await made.database.collection("parked_keys").count_documents({}) == 0
    errors = {line["event"] for line in logs if line["log_level"] == "error"}
    assert errors == {"parking is full; the batch comes again"}


async def test_a_person_looks_at_a_dead_key_redrives_and_discards_it(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    recorder.failing = {f"rec_{record(recorder, n)}" for n in range(3)}
    made = harness(infra, broker_kind, recorder, park_max_attempts=2, park_base_seconds=0.1)
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 3) for n in range(9)])
    parking = made.consumer.parking
    async with made.running():

        async def dead() -> bool:
            return len(await parking.page(KeyState.DEAD, None, 10)) == 3

        await until_parked(made, 9)
        await eventually(dead)
        first = await parking.page(KeyState.DEAD, None, 2)
        rest = await parking.page(KeyState.DEAD, first[-1]["_id"], 2)
        ids = sorted(key["_id"] for key in [*first, *rest])
        assert len(set(ids)) == 3
        assert await parking.page(KeyState.PARKED, None, 10) == []
        key = await parking.get(ids[1])
        assert key is not None
        assert (key["queued"], key["attempts"]) == (3, 2)
        assert [event["position"] for event in key["events"]] == [0, 1, 2]
        assert key["events"][0]["event_id"] == key["failing_event"]
        assert await parking.get("somebody-else|t|k") is None

        # what a redrive would do, before and after the cause is gone
        head = await parking.head(ids[1])
        assert head is not None
        event = Received.from_document(head["message"])
        refused = await made.consumer.dry_run(event, promised=True)
        assert (refused.kind, "told to fail" in str(refused.reason)) == (OutcomeKind.WOULD_FAIL, True)
        recorder.failing = set()
        assert (await made.consumer.dry_run(event, promised=True)).kind is OutcomeKind.WOULD_SUCCEED
        assert await recorder.seen() == []

        async def act(session: Session) -> list[object]:
            return [
                await parking.redrive(ids[0], session),
                await parking.discard(ids[1], only_head=True, session=session),
                await parking.discard(ids[2], only_head=False, session=session),
            ]

        redriven, head_only, whole = await made.database.transaction(act)
        assert redriven is True
        assert head_only == [f"/test#{recorder.prefix}-1"]
        assert whole == [f"/test#{recorder.prefix}-{n}" for n in (2, 5, 8)]
        made.consumer.retry_loop.wake()
        await until_seen(recorder, 5)
        await until_parked(made, 0)
        assert by_key(await recorder.seen(), 3) == [[0, 3, 6], [4, 7], []]
        # the keys are free again, and what was dropped stays dropped when it comes again
        await produce(infra, RECORDS.name, [numbered(recorder, n, 3) for n in (1, 2, 9, 10, 11)])
        await until_seen(recorder, 8)
        assert by_key(await recorder.seen(), 3) == [[0, 3, 6, 9], [4, 7, 10], [11]]
        gone = await made.database.transaction(lambda session: parking.redrive(ids[0], session))
        assert gone is False


async def test_a_new_failure_of_a_key_starts_its_count_anew(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    made = harness(infra, broker_kind, recorder, park_base_seconds=0.3)
    recorder.failing = {f"rec_{record(recorder, 0)}"}
    await made.prepare()
    await produce(infra, RECORDS.name, [numbered(recorder, n, 1) for n in range(2)])
    keys = made.database.collection("parked_keys")
    async with made.running():

        async def tried() -> bool:
            return await keys.count_documents({"attempts": {"$gte": 3}}) == 1

        await eventually(tried)
        before = await keys.find_one({})
        assert before is not None
        assert before["first_failed_at"] < before["last_failed_at"] < before["next_attempt_at"]
        only_the_first_succeeds = iter([set[str]()])

        async def fail_again() -> None:
            recorder.failing = next(only_the_first_succeeds, recorder.failing) or {
                f"rec_{record(recorder, 0)}"
            }

        recorder.after = fail_again
        recorder.failing = set()

        async def another() -> bool:
            return await keys.count_documents({"failing_event": f"/test#{recorder.prefix}-1"}) == 1

        await eventually(another)
        after = await keys.find_one({})
        assert after is not None
        assert after["attempts"] < before["attempts"]
        assert after["first_failed_at"] > before["last_failed_at"]
        recorder.after = None
        recorder.failing = set()
        await until_seen(recorder, 2)


# --- dead letters


class Gate:
    """Rejects what it does not know yet; what it knows takes effect and leads to an event."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.harness: Harness

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for received in batch:
            if received.key not in self.known:
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, "not known")
                continue
            effects = self.harness.database.collection("effects")
            await effects.insert_one({"key": received.key}, session=unit.session)
            unit.emit(
                RecordWithdrawn(record_id=received.key, reason="test", withdrawn_at=unit.now),
                cause=received.id,
            )


@pytest.fixture
async def gate(infra: Stack, broker_kind: Broker) -> Gate:
    gate = Gate()
    gate.harness = Harness(settings_for(infra, broker_kind), gate)
    await gate.harness.prepare()
    return gate


async def noted(unit: UnitOfWork) -> None:
    """What the operations API does besides, in the same transaction."""


async def test_a_rejected_event_is_redriven_once(infra: Stack, gate: Gate) -> None:
    made, suffix = gate.harness, secrets.token_hex(16)
    await produce(infra, RECORDS.name, [message(published(suffix), f"{suffix}-1")])
    letters, consumer = made.dead_letters, made.consumer
    letter_id = f"{made.name}|/test#{suffix}-1"
    async with made.running():

        async def rejected() -> bool:
            return await letters.get(letter_id) is not None

        await eventually(rejected)
        letter = await letters.get(letter_id)
        assert letter is not None
        assert letter["event_id"] == f"/test#{suffix}-1"
        assert (letter["state"], letter["size_bytes"]) == ("open", len(letter["value"]))
        assert letter["offset"] is not None
        event = as_received(letter)
        assert (await consumer.dry_run(event)).kind is OutcomeKind.ALREADY_SUCCEEDED
        assert (await consumer.dry_run(event, promised=True)).kind is OutcomeKind.WOULD_BE_REJECTED
        assert (await consumer.redrive(letter, noted)).kind is OutcomeKind.REJECTED
        gate.known.add(event.key)
        would = await consumer.dry_run(event, promised=True)
        assert would.kind is OutcomeKind.WOULD_SUCCEED
        assert [(e.type, e.key, e.topic) for e in would.emits] == [
            (RecordWithdrawn.TYPE, event.key, RECORDS.name)
        ]
        effects, outbox = made.database.collection("effects"), made.database.collection("outbox")
        assert await effects.count_documents({}) == await outbox.count_documents({}) == 0

        done = await asyncio.gather(
            *(consumer.redrive(letter, noted) for _ in range(5)), return_exceptions=True
        )
        refused = [each for each in done if isinstance(each, AlreadySucceededError)]
        assert len(refused) == 4, done
        assert await effects.count_documents({}) == await outbox.count_documents({}) == 1
        assert [row["_id"] for row in await letters.page(LetterState.REDRIVEN, None, 10)] == [letter_id]
        # a redelivery changes nothing of it
        await produce(infra, RECORDS.name, [message(published(suffix), f"{suffix}-1")])
        await asyncio.sleep(1)
        again = await letters.get(letter_id)
        assert again is not None
        assert again["state"] == "redriven"
        assert await effects.count_documents({}) == 1


async def test_a_malformed_message_whose_event_took_effect_is_not_redriven(infra: Stack, gate: Gate) -> None:
    made, suffix = gate.harness, secrets.token_hex(16)
    key, headers, value = message(published(suffix), f"{suffix}-1")
    gate.known.add(key)
    await produce(infra, RECORDS.name, [(key, headers, b"not json"), (key, headers, value)])
    effects, letters = made.database.collection("effects"), made.database.collection("dead_letters")
    async with made.running():

        async def done() -> bool:
            return await effects.count_documents({}) == 1

        await eventually(done)
        bad = await letters.find_one({"event_id": f"/test#{suffix}-1"})
        assert bad is not None
        outcome = await made.consumer.redrive(bad, noted)
        assert (outcome.kind, outcome.reason) == (OutcomeKind.REJECTED, DeadLetterReason.NOT_JSON)
        # as if a newer version could read it
        with pytest.raises(AlreadySucceededError):
            await made.consumer.redrive({**bad, "value": value}, noted)
        assert await effects.count_documents({}) == 1


async def test_many_hostile_messages_fill_neither_the_disk_nor_the_log(
    infra: Stack, broker_kind: Broker, recorder: Recorder
) -> None:
    made = harness(infra, broker_kind, recorder, dead_letter_quota_mb=1)
    key, headers, _ = numbered(recorder, 0, 1)
    await made.prepare()
    noise = [(key, {**headers, "x-mark": recorder.prefix}, secrets.token_bytes(20_000)) for _ in range(400)]
    await produce(infra, RECORDS.name, [*noise, numbered(recorder, 0, 1)])
    letters = made.database.collection("dead_letters")
    ours = {"event_id": f"/test#{recorder.prefix}-0"}
    with capture_logs() as logs:
        async with made.running():
            await until_seen(recorder, 1)
            assert await letters.count_documents(ours) == 400
            dropped = await letters.count_documents({**ours, "value_dropped": True})
            assert 0 < dropped < 400
            one = await letters.find_one({**ours, "value_dropped": True})
            kept = await letters.find_one({**ours, "value_dropped": False})
            assert one is not None
            assert kept is not None
            assert (one["value"], one["headers"], one["size_bytes"]) == (None, [], 20_000)
            assert len(one["sha256"]) == 64
            assert (one["topic"], one["partition"] >= 0, one["offset"] >= 0) == (RECORDS.name, True, True)
            assert len(kept["value"]) == 20_000
            size = REGISTRY.get_sample_value("xinfu_dead_letter_bytes")
            assert size is not None
            assert size <= 1_000_000
    lines = [line for line in logs if line["event"] == "dead letters"]
    assert 0 < len(lines) < 40
    assert sum(line["reasons"].get("not_json", 0) for line in lines) >= 400
