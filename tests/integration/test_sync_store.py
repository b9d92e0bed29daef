"""Two replicas of sync on one database: no row is dealt with twice, no target asked more than it may be, no list entry overtaken."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs
from unit.target_samples import decided

from chassis.background import Loop
from chassis.db import Database, Session
from chassis.outbox import Outbox
from chassis.rows import Rows
from contracts.records import DisplayState
from support import settings_for
from sync.desired import Record
from sync.domain import Reading, delivery_id, redirect
from sync.quota import Grant, Limits, Quota, give_back, take
from sync.store import READINGS_OF_DRIFTS, Attempt, AttemptRow, Store, collections
from xinfu_local import Broker, Stack

LEASE = timedelta(seconds=60)


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    uri = settings_for(infra, broker_kind).mongodb_uri.get_secret_value()
    made = Database(uri, f"test_{secrets.token_hex(6)}", pool_size=10, timeout_ms=10_000)
    await made.ensure(collections(30, 30))
    yield made
    made.close()


@pytest.fixture
def claiming(database: Database) -> Rows:
    async def nothing() -> bool:
        return False

    outbox = Outbox(database, source="/test", buckets=8, max_event_bytes=900_000)
    return Rows(Loop("target alpha", nothing, 3600), outbox)


def record(number: int) -> Record:
    return decided(number, "alpha")


async def test_a_row_belongs_to_one_replica_and_a_quota_to_all(database: Database, claiming: Rows) -> None:
    one, two = Store(database), Store(database)
    now = datetime.now(UTC)
    records = [record(n) for n in range(60)]

    async def decide(session: Session) -> None:
        await one.save_decided(records, [redirect(None, r, "alpha", now) for r in records], session)

    await database.transaction(decide)
    assert await one.due("alpha", 1000, now) == 60
    assert await one.due("alpha", 25, now) == 25
    leases = await asyncio.gather(*(s.claim("alpha", 40, now, LEASE, claiming) for s in (one, two, one, two)))
    claimed = [d.id for lease in leases for d in lease.deliveries]
    assert len(claimed) == len(set(claimed)) <= 60
    assert claimed

    limits = Limits(rate_per_second=0.001, burst=100, concurrency=4, batch_size=10)
    replicas = [(store, f"r{n}") for n, store in enumerate([one, two] * 5)]

    async def ask(store: Store, replica: str) -> Grant:
        return await store.change_quota("alpha", lambda q: take(q, limits, replica, 15, now, LEASE))

    grants = await asyncio.gather(*(ask(*each) for each in replicas))
    assert sum(grant.batches for grant in grants) == 4, "calls at once, of all replicas together"
    rows = sum(grant.rows for grant in grants)
    assert rows <= 40

    async def end(store: Store, replica: str) -> None:
        def change(quota: Quota | None) -> tuple[Quota, None]:
            assert quota is not None
            return give_back(quota, limits, replica, 0, now), None

        await store.change_quota("alpha", change)

    # until the bucket is empty, however often they ask
    for _ in range(10):
        await asyncio.gather(*(end(*each) for each in replicas))
        rows += sum(grant.rows for grant in await asyncio.gather(*(ask(*each) for each in replicas)))
    assert 90 < rows <= 100


async def test_a_new_decision_does_not_wait_behind_looks_that_are_overdue(
    database: Database, claiming: Rows
) -> None:
    store = Store(database)
    now = datetime.now(UTC)
    looked_at, new = [record(n) for n in range(50)], [record(n) for n in range(50, 60)]

    async def prepare(session: Session) -> None:
        due = [redirect(None, r, "alpha", now - timedelta(days=1)) for r in looked_at]
        await store.save_decided(looked_at, [replace(each, differs_since=None) for each in due], session)
        await store.save_decided(new, [redirect(None, r, "alpha", now) for r in new], session)

    await database.transaction(prepare)
    first, second = [await store.claim("alpha", 15, now, LEASE, claiming) for _ in range(2)]
    assert {d.record_id for d in first.deliveries} >= {r.record_id for r in new}
    assert len(first.deliveries) == len(second.deliveries) == 15
    assert all(d.differs_since is None for d in second.deliveries)


async def test_a_delivery_that_cannot_be_read_holds_up_no_other(database: Database, claiming: Rows) -> None:
    store = Store(database)
    now = datetime.now(UTC)
    records = [record(n) for n in range(20)]

    async def decide(session: Session) -> None:
        await store.save_decided(records, [redirect(None, r, "alpha", now) for r in records], session)

    await database.transaction(decide)
    damaged = delivery_id("alpha", records[7].record_id)
    await database.collection("deliveries").update_one({"_id": damaged}, {"$set": {"drifts": "many"}})
    with capture_logs() as logs:
        lease = await store.claim("alpha", 100, now, LEASE, claiming)
    claimed = {delivery.id for delivery in lease.deliveries}
    assert claimed == {delivery_id("alpha", r.record_id) for r in records} - {damaged}
    assert [line["row"] for line in logs] == [damaged]
    assert set(claiming.ready([damaged, *claimed])) == claimed
    again = await store.claim("alpha", 100, now, LEASE, claiming)
    assert again.deliveries == (), "not before the lease is over"


async def test_whoever_sees_an_entry_of_a_list_sees_all_before_it(database: Database) -> None:
    store = Store(database)
    seen: list[int] = []
    writing = True

    async def write(writer: int) -> None:
        for n in range(10):

            async def work(session: Session, n: int = n) -> None:
                entries = [(f"rec_{writer}_{n}_{k}", 1) for k in range(3)]
                await store.append("fetcher", entries, session)

            await database.transaction(work)

    async def read() -> None:
        while writing or await store.listed("fetcher", len(seen), 1):
            seen.extend(entry.seq for entry in await store.listed("fetcher", len(seen), 7))

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(n) for n in range(4)))
    writing = False
    await reader
    assert seen == list(range(1, 121))
    assert await store.cursor("fetcher") == (0, 120)
    assert await store.listed("another", 0, 10) == []

    async def taken(session: Session) -> None:
        await store.advance("fetcher", 100, session)

    await database.transaction(taken)
    assert [e.seq for e in await store.listed("fetcher", 0, 5)] == [101, 102, 103, 104, 105]


async def test_evidence_is_bounded_and_attempts_show_one_record_alone(database: Database) -> None:
    store = Store(database)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    times = itertools.count()

    def reading(right: bool, drifts: int) -> Reading:
        at = start + timedelta(seconds=next(times))
        return Reading("alpha", "rec_1", 1, right, drifts, DisplayState.PUBLISHED, "0" * 64, at)

    kept = [reading(True, 0)]
    for drift in range(1, READINGS_OF_DRIFTS + 11):
        kept += [reading(False, drift), reading(True, drift)]

    async def keep(session: Session) -> None:
        await store.save_readings(kept, session)
        await store.save_readings(kept[-1:], session)

    await database.transaction(keep)
    found = await store.readings(["rec_1"])
    assert found[0] == kept[0], "the first time it was right stays"
    assert found[1:] == kept[-2 * READINGS_OF_DRIFTS :]

    rows = (AttemptRow("rec_1", 1, "applied"), AttemptRow("rec_2", 1, "rejected", "查无此记录"))
    await store.log(Attempt("alpha", "push", start, 0.1, rows))
    (shown,) = await store.attempts("rec_2", start + timedelta(days=1), 10)
    assert shown.rows == rows[1:]
    assert await store.attempts("rec_2", start, 10) == []
