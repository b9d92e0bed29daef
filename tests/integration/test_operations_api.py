"""The operations interface of one service, on a real broker and database: what a person does with what was put aside, and replays."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI

from chassis.audit import AUDIT_COLLECTIONS
from chassis.bus import make_producer
from chassis.bus_look import connected_bus
from chassis.db import CollectionSpec
from chassis.inbox import Received
from chassis.operations import operations_router
from chassis.outbox import outbox_collections
from chassis.problems import add_problem_handlers
from chassis.relay import Relay
from chassis.unit_of_work import UnitOfWork
from contracts.http import operations as shapes
from contracts.tokens import Claims, Scope
from contracts.topics import RECORDS
from support import Harness, eventually, message, produce, published, settings_for
from xinfu_local import Broker, Stack, free_port

REASON = {"reason": "演练"}
OPERATIONS = "/v1/operations"


class AnyToken:
    """Takes every token for that of an operator."""

    async def verify(self, token: str) -> Claims:
        return Claims(sub=token, scope=Scope.OPERATIONS.value)


class Effects:
    """A handler that notes what took effect, and fails for what it is told to."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    async def __call__(self, unit: UnitOfWork, received: Sequence[Received]) -> None:
        for item in received:
            if item.key in self.broken:
                raise ValueError("not today")
            await self.database.collection("effects").insert_one(
                {"key": item.key, "id": item.id, "n": secrets.token_hex(8)}, session=unit.session
            )

    database: Any = None


@dataclass
class Service:
    """A harness with the HTTP interface in front of it."""

    harness: Harness
    effects: Effects
    url: str
    http: ClientSession
    topics: dict[str, Any] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body."""
        async with self.http.request(
            method, f"{self.url}{OPERATIONS}{path}", json=body, headers={"authorization": "Bearer li.si"}
        ) as response:
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The body of a 200."""
        status, answer = await self.ask(method, path, body)
        assert status == 200, answer
        return answer

    async def listed(self, query: str = "") -> list[dict[str, Any]]:
        """All pages of the list, two at a time."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await self.ok("GET", f"/dead-letters?limit=2{after}{query}")
            found += page["dead_letters"]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    async def done(self, key: str) -> list[str]:
        """Ids of the events of a key that took effect, in order."""
        effects = self.harness.database.collection("effects").find({"key": key}).sort("_id", 1)
        return [doc["id"] async for doc in effects]


@dataclass
class _Runtime:
    name: str
    database: Any
    outbox: Any
    tokens: Any
    dead_letters: Any
    consumers: list[Any]
    loops: tuple[Any, ...] = ()


@asynccontextmanager
async def serving(infra: Stack, broker: Broker, **settings: Any) -> AsyncIterator[Service]:
    effects = Effects()
    harness = Harness(settings_for(infra, broker, **settings), effects)
    effects.database = harness.database
    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(operations_router(harness.settings, {RECORDS.name: RECORDS}, None))
    app.state.runtime = _Runtime(
        harness.name,
        harness.database,
        harness.outbox,
        AnyToken(),
        harness.dead_letters,
        [harness.consumer],
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    async with harness.running(), ClientSession() as http:
        await harness.database.ensure(
            [*AUDIT_COLLECTIONS, *outbox_collections(30), CollectionSpec("effects")]
        )
        serving = asyncio.create_task(server.serve())

        async def started() -> bool:
            return server.started

        await eventually(started)
        try:
            yield Service(harness, effects, f"http://127.0.0.1:{port}", http)
        finally:
            server.should_exit = True
            await serving


async def test_a_key_that_fails(infra: Stack, broker_kind: Broker) -> None:
    """Dead after its attempts; its events are tried in order once the cause is gone; one of another key is given up."""
    async with serving(infra, broker_kind, park_max_attempts=2) as service:
        good, bad, hopeless = (published(secrets.token_hex(16)) for _ in range(3))
        service.effects.broken = {bad.key, hopeless.key}
        ids = [secrets.token_hex(8) + "|#/" for _ in range(3)]
        events = [message(bad, id_) for id_ in ids] + [message(hopeless), message(hopeless), message(good)]
        await produce(infra, RECORDS.name, [(k, {**h}, v) for k, h, v in events])

        async def dead() -> bool:
            # the topic is shared: what other tests sent is put aside too
            return [each["state"] for each in await service.listed("&state=dead")] == ["dead", "dead"]

        async def passed() -> bool:
            # on a partition of its own, perhaps, which may be fetched after both have died
            return len(await service.done(good.key)) == 1

        await eventually(dead, 30)
        await eventually(passed, 20)
        found = {each["key"]: each for each in await service.listed("&reason=ValueError")}
        key = found[bad.key]
        assert (key["kind"], key["detail"], key["event_id"]) == ("key", "not today", f"/test#{ids[0]}")
        path = f"/dead-letters/{key['id']}"
        whole = await service.ok("GET", path)
        assert [event["event_id"] for event in whole["events"]] == [f"/test#{id_}" for id_ in ids]
        assert bad.record_id in whole["message"]["value"]
        status = await service.ok("GET", "/status")
        (consumer,) = status["consumers"]
        assert (consumer["dead_keys"], consumer["parked_keys"], consumer["parked_events"]) == (2, 0, 5)
        assert status["database"]["missing_indexes"] == []

        tried = await service.ok("POST", f"{path}/dry-run")
        assert (tried["outcome"], await service.done(bad.key)) == ("would_fail", [])
        service.effects.broken = {hopeless.key}
        tried = await service.ok("POST", f"{path}/dry-run")
        assert (tried["outcome"], await service.done(bad.key)) == ("would_succeed", [])
        assert (await service.ok("POST", f"{path}/redrive", REASON))["outcome"] == "queued"

        async def freed() -> bool:
            return await service.done(bad.key) == ids

        await eventually(freed, 20)
        assert (await service.ask("POST", f"{path}/redrive", REASON))[0] == 404

        other = f"/dead-letters/{found[hopeless.key]['id']}"
        for body in ({}, {"reason": " "}, {"reason": "x" * 501}):
            assert (await service.ask("POST", f"{other}/discard", body))[0] == 422
        gone = await service.ok("POST", f"{other}/discard", {**REASON, "whole_key": True})
        assert gone["detail"] == "events: 2"
        assert await service.listed("&state=dead") == []
        audit = (await service.ok("GET", "/audit"))["entries"]
        assert [(entry["by"], entry["action"], entry["reason"]) for entry in audit] == [
            ("li.si", "discard", "演练"),
            ("li.si", "redrive", "演练"),
        ]


async def emitted(service: Service, keys: int, rounds: int) -> None:
    """Events of some keys, round by round: so their seq is interleaved."""
    events = [published(f"{number:x}") for number in range(keys)]
    for number in range(rounds):

        async def work(unit: UnitOfWork, number: int = number) -> None:
            for event in events:
                unit.emit(event, cause=f"round-{number}")

        await service.harness.outbox.run(work)


async def test_a_replay_in_steps_keeps_the_order(
    infra: Stack, broker_kind: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the relay at work beside it; what is emitted meanwhile comes behind what is replayed."""
    monkeypatch.setattr("chassis.replay.REPLAY_STEP", 7)
    async with serving(infra, broker_kind, outbox_batch=5) as service:
        await emitted(service, keys=4, rounds=10)
        outbox = service.harness.database.collection("outbox")
        old = datetime.now(UTC) - timedelta(days=29)
        await outbox.update_many({}, {"$set": {"published_at": old}, "$unset": {"pending": ""}})
        seqs = {doc["_id"]: doc["seq"] async for doc in outbox.find()}
        producer = make_producer(service.harness.settings, "test")
        await producer.start()
        relay = Relay(service.harness.database, producer, service.harness.settings)
        reader = AIOKafkaConsumer(
            RECORDS.name, bootstrap_servers=infra.kafka_bootstrap, auto_offset_reset="latest"
        )
        await reader.start()
        await reader.seek_to_end()
        relay.loop.start()
        try:
            marked, after = [], None
            while True:
                step = await service.ok("POST", "/outbox/replay", {**REASON, "after": after})
                marked.append(step["marked"])
                after = step["next"]
                if after is None:
                    break
            assert marked == [7, 7, 7, 7, 7, 5]

            async def published_again() -> bool:
                return await outbox.count_documents({"pending": True}) == 0

            await eventually(published_again)
            order: dict[str, list[int]] = {}
            seen = 0
            while seen < len(seqs):
                for records in (await reader.getmany(timeout_ms=1000)).values():
                    for record in records:
                        identity = dict(record.headers)["ce_id"].decode()
                        if identity in seqs:
                            seen += 1
                            order.setdefault(record.key.decode(), []).append(seqs[identity])
            assert len(order) == 4
            for replayed in order.values():
                assert replayed == sorted(replayed)
                assert len(set(replayed)) == 10
        finally:
            await reader.stop()
            await relay.stop()
            await producer.stop()
        entries = (await service.ok("GET", "/audit"))["entries"]
        assert [entry["result"] for entry in entries] == ["marked 40"]


async def test_what_a_replay_marks(infra: Stack, broker_kind: Broker) -> None:
    """By time, by id, by topic; nothing that still waits, and nothing that a TTL could delete before it is published."""
    async with serving(infra, broker_kind) as service:
        await emitted(service, keys=3, rounds=4)
        outbox = service.harness.database.collection("outbox")
        ids = [doc["_id"] async for doc in outbox.find().sort("seq", 1)]
        now = datetime.now(UTC)
        for position, id_ in enumerate(ids):  # an event every two minutes, the last one just now
            at = now - timedelta(minutes=2 * (len(ids) - 1 - position))
            await outbox.update_one({"_id": id_}, {"$set": {"created_at": at}})

        async def replayed(body: dict[str, Any]) -> list[str]:
            await outbox.update_many({}, {"$set": {"published_at": now}, "$unset": {"pending": ""}})
            await outbox.update_one(
                {"_id": ids[0]}, {"$set": {"pending": True}, "$unset": {"published_at": ""}}
            )
            answer = await service.ok("POST", "/outbox/replay", {**REASON, **body})
            waiting = [doc async for doc in outbox.find({"pending": True}).sort("seq", 1)]
            assert not any("published_at" in doc for doc in waiting)
            assert answer == {"marked": len(waiting) - 1, "next": None}
            return [doc["_id"] for doc in waiting[1:]]

        assert await replayed({}) == ids[1:]
        assert await replayed({"topic": RECORDS.name}) == ids[1:]
        since = (now - timedelta(minutes=7)).isoformat()
        assert await replayed({"since": since}) == ids[-4:]
        assert await replayed({"ids": [ids[5], ids[0], "unknown"]}) == [ids[5]]
        status = await service.ok("GET", "/outbox")
        assert (status["pending"], status["topics"][0]["published"]) == (2, len(ids) - 2)
        for body, expected in (
            ({"topic": "xinfu.nothing"}, 404),
            ({"after": "x"}, 422),
            ({"ids": ["x"] * 1001}, 422),
            ({"ids": ["x"], "topic": RECORDS.name}, 422),
            ({"reason": " "}, 422),
        ):
            assert (await service.ask("POST", "/outbox/replay", {**REASON, **body}))[0] == expected, body


async def test_lag_from_the_bus(infra: Stack, broker_kind: Broker) -> None:
    """Counted between the committed offsets and the ends, with the time of the oldest that waits."""
    if broker_kind is Broker.EMBEDDED:
        pytest.skip("tells the beginning of the last batch for the end of a partition")
    async with serving(infra, broker_kind) as service:
        group = "lag-" + secrets.token_hex(4)
        began = datetime.now(UTC) - timedelta(seconds=1)
        consumer = AIOKafkaConsumer(
            RECORDS.name, bootstrap_servers=infra.kafka_bootstrap, group_id=group, enable_auto_commit=False
        )
        await consumer.start()

        async def joined() -> bool:
            return bool(consumer.assignment())

        await eventually(joined)
        await consumer.seek_to_end()
        await consumer.commit({tp: await consumer.position(tp) for tp in consumer.assignment()})

        async def lag() -> list[shapes.TopicLag]:
            async with connected_bus(service.harness.settings, "test") as bus:
                found = await bus.lag(group, [RECORDS.name])
                assert found is not None
                return found

        try:
            (nothing,) = await lag()
            assert (nothing.lag, nothing.oldest_waiting_at, nothing.partitions) == (0, None, 6)
            events = [message(published(f"{number:x}")) for number in range(20)]
            await produce(infra, RECORDS.name, [(k, {**h}, v) for k, h, v in events])
            (some,) = await lag()
            assert (some.lag, some.end - some.committed) == (20, 20)
            assert some.oldest_waiting_at is not None
            assert began < some.oldest_waiting_at < datetime.now(UTC)
        finally:
            await consumer.stop()
