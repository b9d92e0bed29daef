"""The database module: retries what MongoDB asks to retry, and follows a changed retention."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from chassis.db import CollectionSpec, Database, Session, describe
from support import settings_for
from xinfu_local import Broker, Stack


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    settings = settings_for(infra, broker_kind)
    made = Database(
        settings.mongodb_uri.get_secret_value(),
        f"test_{secrets.token_hex(6)}",
        pool_size=10,
        timeout_ms=10_000,
    )
    yield made
    made.close()


async def test_conflicting_transactions_all_happen_once(database: Database) -> None:
    await database.ensure([CollectionSpec("counts")])
    counts = database.collection("counts")
    await counts.insert_one({"_id": "one", "n": 0})

    async def add(session: Session) -> None:
        found = await counts.find_one({"_id": "one"}, session=session)
        assert found is not None
        await asyncio.sleep(0.002)
        await counts.update_one({"_id": "one"}, {"$set": {"n": found["n"] + 1}}, session=session)

    await asyncio.gather(*(database.transaction(add) for _ in range(40)))
    found = await counts.find_one({"_id": "one"})
    assert found is not None
    assert found["n"] == 40


async def test_replicas_that_start_together_create_everything_once(database: Database) -> None:
    specs = [CollectionSpec(f"c{n}", [IndexModel("at", name="at")]) for n in range(20)]
    await asyncio.gather(*(database.ensure(specs) for _ in range(8)))
    assert await database.missing_indexes() == []


async def test_a_changed_retention_changes_the_index(database: Database) -> None:
    def spec(seconds: int) -> CollectionSpec:
        return CollectionSpec("inbox", [IndexModel("at", name="ttl", expireAfterSeconds=seconds)])

    await database.ensure([spec(60)])
    await database.ensure([spec(120)])
    indexes = [index async for index in database.collection("inbox").list_indexes()]
    assert [index["expireAfterSeconds"] for index in indexes if index["name"] == "ttl"] == [120]


async def test_an_error_is_described_without_quoting_documents(database: Database) -> None:
    await database.ensure([CollectionSpec("people")])
    people = database.collection("people")
    await people.insert_one({"_id": "13812345678"})
    with pytest.raises(DuplicateKeyError) as caught:
        await people.insert_one({"_id": "13812345678"})
    assert "13812345678" in str(caught.value)
    assert describe(caught.value) == "DuplicateKeyError (code 11000)"
