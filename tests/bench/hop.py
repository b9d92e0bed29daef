"""One hop: consume, inbox, state, outbox, publish. Ours beside two yardsticks, in one run on the same broker and database.

limit      a bare loop of aiokafka with the same database operations in the same batches, and no framework
per_event  plain FastStream handlers, one event at a time, one transaction each, publish after it

The clock runs from the first event received to the last event published, so that joining a consumer group, which all
three do alike, is not measured. Run by `make bench`. Prints events/s of each round and ends with the ratios of the medians.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from pymongo import InsertOne, UpdateOne

from chassis.bus import ensure_topics, make_producer
from chassis.db import CollectionSpec, Database, Session
from chassis.inbox import Received
from chassis.relay import Relay
from chassis.unit_of_work import UnitOfWork
from contracts.events import PropagationCompleted, RecordPublished
from contracts.records import DisplayState
from contracts.topics import PROPAGATION, RECORDS
from support import Harness, TestSettings, message, produce, published, settings_for
from xinfu_local import Broker, Stack

_APPLICATION, _ITEM, _SUBJECT = "app_" + "0" * 32, "itm_" + "0" * 32, "sub_" + "0" * 32
BATCH = 200
KEYS = 1000


class HopHandler:
    """State of ours: one counter a key; one event out for each event in."""

    def __init__(self) -> None:
        self.harness: Harness
        self.started = 0.0

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        self.started = self.started or time.perf_counter()
        state = self.harness.database.collection("effects")
        await state.bulk_write(
            [
                UpdateOne({"_id": r.key}, {"$inc": {"n": 1}, "$set": {"last": r.id}}, upsert=True)
                for r in batch
            ],
            session=unit.session,
            ordered=False,
        )
        for received in batch:
            event = PropagationCompleted(
                application_id=_APPLICATION,
                item_id=_ITEM,
                record_id=received.key,
                subject_id=_SUBJECT,
                version=1,
                state=DisplayState.PUBLICATION_ENDED,
                target_ids=("credit-china", "credit-zhejiang", "qichacha", "tianyancha"),
                completed_at=unit.now,
            )
            unit.emit(event, cause=received.id, trace=received.trace)


async def ours(infra: Stack, settings: TestSettings, group: str, events: int) -> float:
    """BatchConsumer and Relay."""
    handler = HopHandler()
    made = Harness(settings, handler, group)
    handler.harness = made
    await made.prepare()
    producer = make_producer(settings, "bench")
    await producer.start()
    relay = Relay(made.database, producer, settings)
    made.outbox.wake = relay.loop.wake
    relay.loop.start()
    outbox = made.database.collection("outbox")
    try:
        await made.broker.start()
        # the filter is the one the relay's partial index serves
        waiting = {"bucket": {"$gte": 0}, "pending": True}
        while True:
            if await outbox.estimated_document_count() >= events and not await outbox.find_one(waiting):
                break
            await asyncio.sleep(0.05)
        return time.perf_counter() - handler.started
    finally:
        await made.broker.stop()
        await relay.stop()
        await producer.stop()
        made.database.close()


async def limit(infra: Stack, settings: TestSettings, group: str, events: int) -> float:
    """The same work in a bare loop."""
    database = Database(settings.mongodb_uri.get_secret_value(), group, pool_size=5, timeout_ms=10_000)
    harness = Harness(settings, HopHandler(), group)
    await harness.prepare()
    harness.database.close()
    consumer = AIOKafkaConsumer(
        RECORDS.name,
        bootstrap_servers=infra.kafka_bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=settings.kafka_fetch_max_wait_ms,
    )
    producer = make_producer(settings, "limit")
    await producer.start()
    await consumer.start()
    inbox, parked, state, outbox = (
        database.collection(name) for name in ("inbox", "parked_keys", "effects", "outbox")
    )
    relaxed, counter = database.relaxed("outbox"), database.relaxed("outbox_counter")
    done, started = 0, 0.0
    publishing: asyncio.Task[None] | None = None
    try:
        while done < events:
            found = await consumer.getmany(timeout_ms=200, max_records=BATCH)
            records = [record for part in found.values() for record in part]
            if not records:
                continue
            started = started or time.perf_counter()
            ids = [dict(r.headers)["ce_id"].decode() for r in records]
            documents = [
                {
                    "_id": i,
                    "seq": n,
                    "bucket": 0,
                    "topic": RECORDS.name,
                    "key": r.key.decode(),
                    "headers": {name: value.decode() for name, value in r.headers},
                    "trace": {},
                    "value": r.value,
                    "created_at": datetime.now(UTC),
                    "pending": True,
                }
                for n, (i, r) in enumerate(zip(ids, records, strict=True))
            ]

            async def work(
                session: Session, ids: list[str] = ids, documents: list[dict[str, object]] = documents
            ) -> None:
                await inbox.find({"_id": {"$in": ids}}, {"_id": 1}, session=session).to_list(None)
                keys = list({str(d["key"]) for d in documents})
                await parked.find({"_id": {"$in": keys}}, session=session).to_list(None)
                await state.bulk_write(
                    [
                        UpdateOne(
                            {"_id": d["key"]}, {"$inc": {"n": 1}, "$set": {"last": d["_id"]}}, upsert=True
                        )
                        for d in documents
                    ],
                    session=session,
                    ordered=False,
                )
                now = datetime.now(UTC)
                await inbox.insert_many([{"_id": i, "at": now} for i in ids], session=session, ordered=False)
                await counter.find_one_and_update({"_id": "t"}, {"$inc": {"value": 1}}, upsert=True)
                await outbox.insert_many(documents, session=session, ordered=False)

            await database.transaction(work)
            await consumer.commit()
            if publishing:
                await publishing

            async def publish(documents: list[dict[str, object]] = documents) -> None:
                futures = [
                    await producer.send(
                        PROPAGATION.name,
                        d["value"],
                        key=str(d["key"]).encode(),
                        headers=[(n, v.encode()) for n, v in d["headers"].items()],  # type: ignore[attr-defined]
                    )
                    for d in documents
                ]
                await asyncio.gather(*futures)
                await relaxed.update_many(
                    {"_id": {"$in": [d["_id"] for d in documents]}},
                    {"$set": {"published_at": datetime.now(UTC)}, "$unset": {"pending": ""}},
                )

            publishing = asyncio.create_task(publish())
            done += len(records)
        if publishing:
            await publishing
        return time.perf_counter() - started
    finally:
        await consumer.stop()
        await producer.stop()
        database.close()


async def per_event(infra: Stack, settings: TestSettings, group: str, events: int) -> float:
    """What people usually write with FastStream."""
    database = Database(settings.mongodb_uri.get_secret_value(), group, pool_size=5, timeout_ms=10_000)
    await database.ensure([CollectionSpec(name) for name in ("inbox", "effects", "outbox")])
    inbox, state, outbox = (database.collection(name) for name in ("inbox", "effects", "outbox"))
    broker = KafkaBroker(infra.kafka_bootstrap, logger=None, allow_auto_create_topics=False)
    done = asyncio.Event()
    count, started = 0, 0.0

    @broker.subscriber(
        RECORDS.name, group_id=group, ack_policy=AckPolicy.NACK_ON_ERROR, auto_offset_reset="earliest"
    )
    async def on_record(event: RecordPublished, message: KafkaMessage) -> None:
        nonlocal count, started
        started = started or time.perf_counter()
        if count >= events:
            return

        async def work(session: Session) -> None:
            identity = message.headers["ce_id"]
            if await inbox.find_one({"_id": identity}, session=session):
                return
            await state.update_one({"_id": event.key}, {"$inc": {"n": 1}}, upsert=True, session=session)
            await inbox.bulk_write([InsertOne({"_id": identity, "at": datetime.now(UTC)})], session=session)
            await outbox.insert_one({"_id": identity, "value": event.model_dump_json()}, session=session)

        await database.transaction(work)
        await broker.publish(event, PROPAGATION.name, key=event.key.encode())
        await outbox.update_one(
            {"_id": message.headers["ce_id"]}, {"$set": {"published_at": datetime.now(UTC)}}
        )
        count += 1
        if count >= events:
            done.set()

    await broker.start()
    await done.wait()
    elapsed = time.perf_counter() - started
    await broker.stop()
    database.close()
    return elapsed


async def timed(
    name: str,
    work: Callable[[Stack, TestSettings, str, int], Awaitable[float]],
    infra: Stack,
    settings: TestSettings,
    events: int,
) -> float:
    """Events per second in a database and a consumer group of its own."""
    rate = events / await work(infra, settings, f"bench_{secrets.token_hex(5)}", events)
    print(f"  {name:10} {events:>6} events  {rate:>8.0f} events/s", flush=True)
    return rate


async def bench(infra: Stack, broker: Broker, events: int, rounds: int) -> None:
    settings = settings_for(infra, broker, batch_max_records=BATCH, outbox_poll_ms=200)
    await ensure_topics(settings, {RECORDS.name: RECORDS, PROPAGATION.name: PROPAGATION})
    messages = [
        message(published(f"{n % KEYS:x}", document_number=f"杭测罚〔2026〕{n}号")) for n in range(events)
    ]
    await produce(infra, RECORDS.name, messages)
    few = max(events // 20, 200)
    rates: dict[str, list[float]] = {"ours": [], "limit": [], "per_event": []}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        rates["ours"].append(await timed("ours", ours, infra, settings, events))
        rates["limit"].append(await timed("limit", limit, infra, settings, events))
        rates["per_event"].append(await timed("per_event", per_event, infra, settings, few))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"medians on {broker.value}: " + "  ".join(f"{n} {v:.0f}/s" for n, v in median.items()))
    print(f"hop_vs_limit={median['ours'] / median['limit']:.2f}")
    print(f"hop_vs_per_event={median['ours'] / median['per_event']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--broker", default=os.environ.get("BROKER", "embedded"))
    args = parser.parse_args()
    broker = Broker(args.broker)
    with tempfile.TemporaryDirectory() as folder, Stack([], broker, Path(folder)) as infra:
        asyncio.run(bench(infra, broker, args.events, args.rounds))


if __name__ == "__main__":
    main()
