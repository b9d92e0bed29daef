"""Looks that come round every few seconds read what is due, not all there is."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from chassis.db import Database
from chassis.outbox import Outbox
from contracts.catalogue import load_catalogue
from contracts.http.eligibility import Transition
from dept_adapter import objections
from dept_adapter import store as reviews
from intake import expiry
from intake import store as records
from routing import store as referrals
from support import settings_for
from sync import letter_store
from sync import store as deliveries
from xinfu_local import Broker, Stack

NUMBER = 1_000
TODAY = date(2026, 11, 26)
DEPARTMENTS = [f"d{n}" for n in range(30)]


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    uri = settings_for(infra, broker_kind).mongodb_uri.get_secret_value()
    made = Database(uri, f"test_{secrets.token_hex(6)}", pool_size=10, timeout_ms=10_000)
    yield made
    made.close()


def ending(database: Database) -> expiry.Expiry:
    outbox = Outbox(database, source="/xinfu/intake", buckets=1, max_event_bytes=1_000_000)
    return expiry.Expiry(
        database, records.Store(database), outbox, load_catalogue(), Transition.APPLICATION_DAY, 1
    )


LOOKS: dict[str, tuple[list[Any], str, dict[str, Any], Callable[[Database], Awaitable[object]]]] = {
    "reviews overdue": (
        reviews.collections(1),
        "reviews",
        {"deadline_on": None, "state": "requested"},
        lambda db: reviews.Reviews(db, frozenset()).owed.overdue(DEPARTMENTS, TODAY, 200),
    ),
    "reminders": (
        reviews.collections(1),
        "reviews",
        {"reminder_on": None, "state": "granted"},
        lambda db: reviews.Reviews(db, frozenset()).owed.reminders_due(DEPARTMENTS, TODAY, 200),
    ),
    "objections overdue": (
        objections.COLLECTIONS,
        "objections",
        {"deadline_on": None, "state": "filed"},
        lambda db: objections.Objections(db).owed.overdue(DEPARTMENTS, TODAY, 200),
    ),
    "reminders of objections": (
        objections.COLLECTIONS,
        "objections",
        {"reminder_on": None, "state": "upheld"},
        lambda db: objections.Objections(db).owed.reminders_due(DEPARTMENTS, TODAY, 200),
    ),
    "referrals overdue": (
        referrals.COLLECTIONS,
        "referrals",
        {"deadline_on": None, "status": "assigned"},
        lambda db: referrals.Referrals(db).overdue(TODAY, 200),
    ),
    "targets beyond their limit": (
        deliveries.collections(1, 1),
        "deliveries",
        {"target_id": "alpha", "due_on": None},
        lambda db: deliveries.Store(db).past_due("alpha", TODAY, 200),
    ),
    "targets beyond their limit, not told": (
        deliveries.collections(1, 1),
        "deliveries",
        {"target_id": "alpha", "due_on": None},
        lambda db: deliveries.Store(db).untold("alpha", TODAY, 200),
    ),
    "letters that tell what was seen": (
        letter_store.COLLECTIONS,
        "vendor_letters",
        {"target_id": "alpha", "state": "draft", "open": True, "seen": None},
        lambda db: letter_store.LetterStore(db).open_findings("", 200),
    ),
    "periods that have passed": (
        records.COLLECTIONS,
        "records",
        {"period": {"rules": "x", "ends_on": None}},
        lambda db: ending(db)._notice(TODAY),
    ),
}


@pytest.mark.parametrize("name", LOOKS)
async def test_a_look_for_what_is_due_reads_nothing_else(database: Database, name: str) -> None:
    specs, collection, settled, look = LOOKS[name]
    await database.ensure(specs)
    moment = datetime.now(UTC) - timedelta(days=1)
    await database.collection(collection).insert_many(
        {"_id": f"{n}", "department": {"code": DEPARTMENTS[n % 30]}, "requested_at": moment, **settled}
        for n in range(NUMBER)
    )
    await database._db.command("profile", 2)
    assert not await look(database)
    await database._db.command("profile", 0)
    asked = await database._db["system.profile"].find({"ns": {"$regex": f"{collection}$"}}).to_list(100)
    assert asked, "the look must have asked this collection"
    read = sum(each.get("docsExamined", 0) + each.get("keysExamined", 0) for each in asked)
    assert read < NUMBER / 5, [(each["planSummary"], each["docsExamined"]) for each in asked]


async def test_letters_that_wait_to_be_released_are_counted_without_being_read(database: Database) -> None:
    await database.ensure(letter_store.COLLECTIONS)
    first = datetime(2026, 11, 1, tzinfo=UTC)
    await database.collection("vendor_letters").insert_many(
        {
            "_id": f"{n}",
            "target_id": f"t{n % 2}",
            "state": "draft",
            "open": n < NUMBER - 2,
            "drafted_at": first + timedelta(hours=n),
        }
        for n in range(NUMBER)
    )
    await database._db.command("profile", 2)
    waiting = await letter_store.LetterStore(database).waiting(TODAY)
    await database._db.command("profile", 0)
    number = NUMBER // 2 - 1
    assert [(each.target_id, each.waits_for, each.count, each.since) for each in waiting] == [
        ("t0", "release", number, first),
        ("t1", "release", number, first + timedelta(hours=1)),
    ]
    asked = await database._db["system.profile"].find({"ns": {"$regex": "vendor_letters$"}}).to_list(100)
    assert asked
    assert sum(each.get("docsExamined", 0) for each in asked) == 0
