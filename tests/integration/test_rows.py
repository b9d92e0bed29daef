"""Due rows of a background loop on a real database: whichever of a batch fail, the others take effect once, and those are left alone."""

import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import time_machine
from pymongo.errors import AutoReconnect
from structlog.testing import capture_logs

from chassis.background import Loop
from chassis.db import CollectionSpec, Database
from chassis.outbox import Outbox, outbox_collections
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from support import TestSettings, published, settings_for
from xinfu_local import Broker, Stack

IDS = [f"{number:08x}" for number in range(20)]
TOO_LARGE = "文" * 400_000


class Work:
    """Writes a row and emits an event of it; fails for some, after having written others in the same transaction."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        async def nothing() -> bool:
            return False

        self.loop = Loop("rows", nothing, 3600)
        self.rows = Rows(self.loop, outbox)
        self.bad: set[str] = set()
        self.large: set[str] = set()
        self.fault: Exception = ValueError("no such day")
        self.tried = 0
        self._database = database

    async def __call__(self, unit: UnitOfWork, ids: Sequence[str]) -> int:
        self.tried += 1
        for id_ in ids:
            await self._database.collection("done").insert_one({"_id": id_}, session=unit.session)
            event = published(id_)
            if id_ in self.large:
                facts = event.record.model_copy(update={"document_number": TOO_LARGE})
                event = event.model_copy(update={"record": facts})
            unit.emit(event, cause=id_)
            if id_ in self.bad:
                raise self.fault
        return len(ids)

    async def step(self) -> list[int]:
        """What a loop does with rows that are due until they are done."""
        done = {document["_id"] async for document in self._database.collection("done").find()}

        async def find(limit: int) -> list[str]:
            return [id_ for id_ in IDS if id_ not in done][:limit]

        return await self.rows.run(await self.rows.due(5, find), self)

    async def looks_for(self, limit: int) -> int:
        """How many rows are looked for."""
        asked = []

        async def find(number: int) -> list[str]:
            asked.append(number)
            return []

        assert await self.rows.due(limit, find) == []
        return sum(asked)

    async def effects(self) -> tuple[set[str], int]:
        done = {document["_id"] async for document in self._database.collection("done").find()}
        return done, await self._database.collection("outbox").count_documents({})


@pytest.fixture
async def work(infra: Stack, broker_kind: Broker) -> AsyncIterator[Work]:
    settings: TestSettings = settings_for(infra, broker_kind)
    uri = settings.mongodb_uri.get_secret_value()
    database = Database(uri, f"test_{secrets.token_hex(6)}", pool_size=5, timeout_ms=10_000)
    await database.ensure([*outbox_collections(30), CollectionSpec("done")])
    with capture_logs():
        yield Work(database, Outbox(database, source="/test", buckets=8, max_event_bytes=900_000))
    database.close()


async def test_rows_that_fail_cost_themselves_alone_and_hold_up_nothing_behind_them(work: Work) -> None:
    """More bad ones than a batch holds, and all of them first: the others come all the same, each once."""
    work.bad, work.large = set(IDS[:6]), {IDS[6]}
    with time_machine.travel(datetime.now(UTC), tick=False):  # nobody comes again meanwhile
        for _ in range(6):
            await work.step()
        assert await work.effects() == (set(IDS[7:]), len(IDS) - 7)
        assert [step.error for step in work.loop.failed] == ["ValueError"] * 7
        before = work.tried
        assert await work.step() == []
        assert work.tried == before, "what was left alone is not tried at every step"


async def test_what_was_left_alone_comes_again_later_and_later(work: Work) -> None:
    work.bad = {IDS[0]}
    start = datetime.now(UTC)
    with time_machine.travel(start, tick=False) as clock:
        waited = timedelta()
        attempts = []
        for _ in range(1500):
            failures = len(work.loop.failed)
            await work.rows.run(work.rows.ready(IDS[:1]), work)
            if len(work.loop.failed) > failures:
                attempts.append(waited)
            waited += timedelta(seconds=10)
            clock.move_to(start + waited)
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert timedelta(seconds=15) <= pauses[0] <= timedelta(seconds=40)
        assert timedelta(minutes=30) <= pauses[-1] <= timedelta(hours=1, seconds=10)
        work.bad = set()
        clock.move_to(start + waited + timedelta(hours=2))
        assert await work.rows.run(work.rows.ready(IDS[:1]), work) == [1]
        work.bad = {IDS[1]}
        for seconds in (0, 31):  # of another row, to see that the first wait is a short one for each
            clock.move_to(start + waited + timedelta(hours=3, seconds=seconds))
            assert work.rows.ready(IDS[1:2]) == IDS[1:2]
            assert await work.rows.run(IDS[1:2], work) == []
        assert await work.looks_for(5) == 6
        work.bad = set()
        clock.move_to(start + waited + timedelta(hours=4))
        assert await work.looks_for(5) == 5, "those that may come again are among the due ones"
        assert await work.rows.run(IDS[1:2], work) == [1]
        work.bad = {IDS[1]}
        await work._database.collection("done").delete_many({})
        await work._database.collection("outbox").delete_many({})
        assert await work.rows.run(IDS[1:2], work) == []
        clock.move_to(start + waited + timedelta(hours=4, seconds=31))
        assert work.rows.ready(IDS[1:2]) == IDS[1:2], "what went well is forgotten: its wait begins anew"


async def test_a_database_that_cannot_serve_is_no_rows_fault(work: Work) -> None:
    work.bad, work.fault = {IDS[3]}, AutoReconnect("gone")
    with pytest.raises(AutoReconnect):
        await work.step()
    assert await work.effects() == (set(), 0)
    assert await work.looks_for(5) == 5
