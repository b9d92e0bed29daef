"""A target that joins the catalogue later is told of what was decided before: page by page, resumed, and never more than it can take."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from integration.test_examples import sync_settings
from unit.target_samples import decided

from chassis.db import Database, Document, Session
from chassis.outbox import Outbox, outbox_collections
from contracts.catalogue import Protocol, load_catalogue
from contracts.records import DisplayState, SubjectType
from support import settings_for
from sync import catch_up, letter_store
from sync.catch_up import CatchUp
from sync.desired import Record
from sync.domain import redirect
from sync.store import Store, collections
from xinfu_local import Broker, Stack

CATALOGUE = load_catalogue()
NATION, VENDOR, PAPER = "credit-china", "qichacha", "shili-zhengxin"


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    uri = settings_for(infra, broker_kind).mongodb_uri.get_secret_value()
    made = Database(uri, f"test_{secrets.token_hex(6)}", pool_size=5, timeout_ms=10_000)
    await made.ensure(
        [*outbox_collections(30), *collections(30, 30), *letter_store.COLLECTIONS, *catch_up.COLLECTIONS]
    )
    yield made
    made.close()


def record(number: int, *, person: bool = False, expired: bool = False) -> Record:
    return decided(
        number,
        NATION,
        subject_type=SubjectType.NATURAL_PERSON if person else SubjectType.LEGAL_PERSON,
        completed_version=1,
        expired=expired,
        **({"application_id": None, "item_id": None} if expired else {}),
    )


class Replica:
    """One process with these targets in its catalogue."""

    def __init__(self, database: Database, *targets: str, protocol: Protocol | None = None) -> None:
        chosen = tuple(
            target.model_copy(update={"protocol": protocol}) if protocol and target.id == VENDOR else target
            for target in CATALOGUE.targets
            if target.id in targets
        )
        catalogue = CATALOGUE.model_copy(update={"targets": chosen})
        policies = {target.id: sync_settings().policy(target, CATALOGUE.calendar) for target in chosen}
        outbox = Outbox(database, source="/xinfu/sync", buckets=4, max_event_bytes=900_000)
        self.catch_up = CatchUp(database, Store(database), outbox, catalogue, policies, 5)

    async def steps(self) -> int:
        """Until there is nothing more to do; how many steps that took."""
        for number in range(1, 100):
            before = dict.fromkeys(self.catch_up._done)
            if not await self.catch_up.step() and dict.fromkeys(self.catch_up._done) == before:
                return number
        raise AssertionError("it never ends")


async def rows(database: Database, target: str) -> dict[str, Document]:
    found = database.collection("deliveries").find({"target_id": target})
    return {row["record_id"]: row async for row in found}


async def decide(database: Database, *records: Record) -> None:
    """As the handler did when they were decided, and the nation has shown them since."""
    store, now = Store(database), datetime.now(UTC)
    done = [
        replace(
            redirect(None, each, NATION, now),
            acknowledged_version=each.version,
            seen_version=each.version,
            differs_since=None,
            next_action_at=None,
        )
        for each in records
    ]

    async def work(session: Session) -> None:
        await store.save_decided(records, done, session)

    await database.transaction(work)


async def test_a_target_that_joins_is_told_of_earlier_decisions_once_in_pages_and_resumed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGE", 10)
    await Replica(database, NATION).steps()
    records = [record(n) for n in range(35)]
    by_hand = replace(record(92), facts=record(92).facts.reduced())
    await decide(database, *records, record(90, person=True), record(91, expired=True), by_hand)
    one = Replica(database, NATION, VENDOR, PAPER)
    await one.catch_up.step()
    assert len(await rows(database, VENDOR)) == 10, "one page a step"
    two = Replica(database, NATION, VENDOR, PAPER)
    await two.catch_up.step()
    assert len(await rows(database, VENDOR)) == 20, "another process goes on where the first one died"
    await one.steps()
    await two.steps()
    vendor, paper = await rows(database, VENDOR), await rows(database, PAPER)
    ordinary = {each.record_id for each in records}
    assert set(vendor) == ordinary | {record(91).record_id}, (
        "never of natural persons, nor of what goes by no system"
    )
    assert set(paper) == ordinary, "nobody decided about the one that expired: there is no letter to write"
    for id_ in ordinary:
        row = vendor[id_]
        assert (row["desired_version"], row["acknowledged_version"], row["waits_for"]) == (1, 0, [])
        assert row["next_action_at"] <= datetime.now(UTC), "the nation has acknowledged: it waits for nobody"
        assert row["due_on"] is not None
        assert paper[id_]["due_on"] is None
    expired = vendor[record(91).record_id]
    assert (expired["acknowledged_version"], expired["desired_version"]) == (1, 1), "it is looked at first"
    stored = await database.collection("records").find_one({"_id": records[0].record_id})
    assert stored is not None
    assert stored["targets"] == [NATION, VENDOR, PAPER]
    assert (stored["completed_version"], stored["incomplete"]) == (1, False), "what was complete stays so"


async def test_no_more_is_told_while_a_target_is_behind_and_one_that_comes_back_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGE", 10)
    monkeypatch.setattr(catch_up, "OPEN_AT_MOST", 15)
    deliveries = database.collection("deliveries")
    records = [record(n) for n in range(40)]
    await decide(database, *records)
    replica = Replica(database, NATION, VENDOR)
    for _ in range(10):
        await replica.catch_up.step()
    assert len(await rows(database, VENDOR)) == 20, "it is behind with so many: no more are added"
    shown = {"acknowledged_version": 1, "seen_version": 1, "differs_since": None}
    await deliveries.update_many({"target_id": VENDOR}, {"$set": shown})
    for _ in range(10):
        await replica.catch_up.step()
    assert len(await rows(database, VENDOR)) == 40
    await deliveries.update_many({"target_id": VENDOR}, {"$set": shown})
    await replica.steps()
    # it leaves; one is revoked meanwhile, one has open work; it comes back
    await Replica(database, NATION).steps()
    revoked = replace(records[0], version=2, state=DisplayState.PUBLISHED)
    await decide(database, revoked)
    behind = {"_id": f"{VENDOR}|{records[1].record_id}"}
    await deliveries.update_one(behind, {"$set": {"differs_since": datetime.now(UTC), "attempts": 3}})
    await Replica(database, NATION, VENDOR).steps()
    found = await rows(database, VENDOR)
    assert (
        found[revoked.record_id]["desired_version"],
        found[revoked.record_id]["differs_since"] is None,
    ) == (
        2,
        False,
    )
    assert found[records[1].record_id]["attempts"] == 3, "open work goes on as it was"
    assert [row["differs_since"] for row in found.values()].count(None) == 38, "the others are left alone"
    # told in another way from now on: what differs starts again, what is right stays
    await deliveries.update_one(behind, {"$set": {"next_action_at": None}})
    await Replica(database, NATION, VENDOR, protocol=Protocol.PULL).steps()
    found = await rows(database, VENDOR)
    assert found[records[1].record_id]["next_action_at"] is not None
    assert found[records[1].record_id]["attempts"] == 0
    assert [row["differs_since"] for row in found.values()].count(None) == 38
