"""What the tamper-evident history costs a push: the transaction that settles 100 answers, with its entries and without, by turns.

    PYTHONPATH=tests python tests/bench/history.py

A mongod alone. Each turn settles the same 100 records at one target: rows read and written as sync.settlement does, and in every other turn
an entry for each appended to its chain. Times are medians over the turns, from the start of the transaction to its commit.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from unit.target_samples import decided

from chassis.db import Database, Session
from contracts.history import Kind
from sync.desired import Record, idempotency_key
from sync.domain import delivery_id, redirect
from sync.history import Fact
from sync.store import Store, collections
from xinfu_local import Broker, Stack

ROWS, TURNS, WARM_UP = 100, 200, 10
TARGET = "credit-china"


def _fact(record: Record) -> Fact:
    facts = {
        "answer": "applied",
        "desired": record.state.value,
        "idempotency_key": idempotency_key(TARGET, record.record_id, record.version),
        "reason": None,
        "version": record.version,
    }
    return Fact(delivery_id(TARGET, record.record_id), record.record_id, Kind.PUSH, facts)


async def _measure(uri: str) -> dict[bool, list[float]]:
    database = Database(uri, "bench", pool_size=3, timeout_ms=30_000)
    await database.ensure(collections(30, 30))
    store, records = Store(database), [decided(n, TARGET) for n in range(ROWS)]
    rows = [redirect(None, record, TARGET, datetime.now(UTC)) for record in records]

    async def decide(session: Session) -> None:
        await store.save_decided(records, rows, session)

    await database.transaction(decide)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * (TURNS + WARM_UP)):
        written = bool(turn % 2)

        async def settle(session: Session, turn: int = turn, written: bool = written) -> None:
            found = await store.by_id([row.id for row in rows], session)
            await store.save([replace(row, attempts=turn) for row in found], session)
            if written:
                await store.history.append([_fact(record) for record in records], datetime.now(UTC), session)

        started = time.perf_counter()
        await database.transaction(settle)
        if turn >= 2 * WARM_UP:
            seconds[written].append(time.perf_counter() - started)
    database.close()
    return seconds


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as directory, Stack([], Broker.EMBEDDED, Path(directory)) as stack:
        seconds = asyncio.run(_measure(stack.mongodb_uri))
    without, with_ = (statistics.median(seconds[written]) for written in (False, True))
    print(f"{ROWS} answers settled in one transaction, medians of {TURNS} turns each")
    print(f"  without history  {without * 1000:7.1f} ms")
    print(f"  with history     {with_ * 1000:7.1f} ms")
    print(
        f"  an entry         {(with_ - without) / ROWS * 1e6:7.0f} µs, {with_ / without:.2f} times the transaction"
    )


if __name__ == "__main__":
    main()
