"""Invariants and parity on a stack of its own: nothing to object to after a clean run; then each kind of damage is done in the
databases, the right check finds it, and what can be healed is healed."""

import asyncio
import copy
import json
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientError
from bson import Binary
from e2e.people import API, World, open_world
from pymongo.collection import Collection

from contracts.envelope import source_of
from contracts.events import (
    ApplicationCompleted,
    ApplicationSubmitted,
    NotificationSent,
    RepairGranted,
    RepairRefused,
)
from contracts.http.operations import ServiceStatus
from contracts.topics import APPLICATIONS
from support import eventually
from xinfu.client import Client
from xinfu.compose import SERVICES, compose
from xinfu.operators import Services
from xinfu.parity import Report, compare
from xinfu.verify import BOOKS_AGREE, SERVICES_AGREE, Verification, verify
from xinfu_local import Broker, Stack

Document = dict[str, Any]
OBJECTIONS = "objection-ends-or-waits"
HISTORY = "history-agrees"
MAILS = "mail-ends-or-waits"
ENDS, DECIDED, SEEN, NOTIFIED, TIMELINE, COMPLETED = (
    "application-ends-or-waits",
    "decided-once",
    "seen-not-beyond-decided",
    "notified-once",
    "timeline-once",
    "completed-once",
)


class Case:
    """A stack on which one application was granted, one refused, one granted and revoked, and one waits at a desk."""

    def __init__(self, world: World, granted: Document, refused: Document, waiting: Document) -> None:
        self.world = world
        self.granted, self.refused, self.waiting = granted, refused, waiting
        self.item_id: str = granted["items"][0]["item_id"]
        self.record_id: str = granted["items"][0]["record_id"]
        self.application_id: str = granted["application_id"]

    def documents(self, service: str, collection: str) -> Collection[Document]:
        return self.world.database(service)[collection]

    async def services(self) -> Services:
        client = Client(self.world.http, await self.world.ops(), patience_seconds=2)
        return Services(client, self.world.endpoints.services)

    async def verify(self) -> Verification:
        return await verify(await self.services(), settle_seconds=0)

    async def parity(self, *, repair: bool = False) -> Report:
        since = datetime.now(UTC) - timedelta(hours=1)
        return await compare(await self.services(), since=since, until=None, repair=repair, backwards=since)

    @contextmanager
    def changed(self, service: str, collection: str, query: Document, change: Document) -> Iterator[None]:
        """One document is changed, and afterwards as it was."""
        documents = self.documents(service, collection)
        before = documents.find_one(query)
        assert before is not None, query
        documents.update_one({"_id": before["_id"]}, change)
        try:
            yield
        finally:
            documents.replace_one({"_id": before["_id"]}, before)

    @contextmanager
    def removed(self, service: str, collection: str, query: Document) -> Iterator[Document]:
        documents = self.documents(service, collection)
        before = documents.find_one_and_delete(query)
        assert before is not None, query
        try:
            yield before
        finally:
            documents.replace_one({"_id": before["_id"]}, before, upsert=True)

    @contextmanager
    def added(self, service: str, collection: str, document: Document) -> Iterator[None]:
        documents = self.documents(service, collection)
        documents.insert_one(document)
        try:
            yield
        finally:
            documents.delete_one({"_id": document["_id"]})

    def emitted(self, service: str, event_type: str, key: str | None = None) -> Document:
        """A published event of a service."""
        query = {"headers.ce_type": event_type, **({"key": key} if key else {})}
        found = self.documents(service, "outbox").find_one(query)
        assert found is not None, query
        return found

    def forged(self, service: str, event_type: str, key: str | None = None, **changes: Any) -> Document:
        """Such an event once more, under another id and place, with changed data."""
        row = copy.deepcopy(self.emitted(service, event_type, key))
        last = self.documents(service, "outbox").find_one(sort=[("seq", -1)])
        assert last is not None
        row["_id"] = row["headers"]["ce_id"] = secrets.token_hex(16)
        row["seq"] = last["seq"] + 1
        row["value"] = Binary(json.dumps({**json.loads(bytes(row["value"])), **changes}).encode())
        return row


async def _quiet(case: Case, seconds: float = 40) -> None:
    """Wait until nothing is on its way any more."""

    found = await case.verify()

    async def settled() -> bool:
        nonlocal found
        found = await case.verify()
        return found.holds

    try:
        await eventually(settled, seconds)
    except AssertionError:
        pytest.fail(f"still not settled: {found}")


@asynccontextmanager
async def _prepared(stack: Stack, endpoints: Any) -> AsyncIterator[Case]:
    async with open_world(stack, endpoints) as world:
        granted, api, refused, revoked, waiting = [
            await world.company(*rows) for rows in ((), (world.row(API),), (), (), (world.row(None),))
        ]
        done = await world.repaired(granted)
        at_api = (await world.submit(api)).ok()["application_id"]
        refused_id = (await world.submit(refused)).ok()["application_id"]
        (item,) = (await world.application(refused, refused_id))["items"]
        (await world.desk(item["item_id"], "refuse", {"reason": "尚未缴清罚款"})).ok()
        gone = await world.repaired(revoked)
        (await world.desk(gone["items"][0]["item_id"], "revoke", {"reason": "材料虚假"})).ok()
        open_one = (await world.submit(waiting)).ok()
        await world.until_completed(api, at_api)
        case = Case(world, done, await world.until_completed(refused, refused_id), open_one)
        await _quiet(case)
        yield case


@pytest.fixture(scope="module")
async def case(broker_kind: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Case]:
    """Without the scheduled parity: it would heal what is damaged here before anybody can look."""
    data_dir = tmp_path_factory.mktemp("verify")
    processes, endpoints = compose(data_dir, broker_kind, parity=False)
    stack = Stack(
        processes,
        broker_kind,
        data_dir,
        prepare=lambda _: endpoints.write(data_dir),
        ready_timeout_seconds=300,
    )
    with stack:
        async with _prepared(stack, endpoints) as prepared:
            yield prepared


async def _xinfu(case: Case, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "xinfu", *arguments, "--data-dir", str(case.world.stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 240)
    return process.returncode or 0, output.decode()


# --- a clean run


async def test_after_a_clean_run_every_invariant_holds(case: Case) -> None:
    status, output = await _xinfu(case, "verify", "--settle-seconds", "0", "--json")
    assert status == 0, output
    found = json.loads(output)
    checked = {(each["service"], each["name"]): each for each in found["invariants"]}
    assert {name for _, name in checked} == {
        ENDS,
        DECIDED,
        SEEN,
        NOTIFIED,
        TIMELINE,
        COMPLETED,
        BOOKS_AGREE,
        SERVICES_AGREE,
        OBJECTIONS,
        HISTORY,
        MAILS,
    }
    # nobody objects in this run
    assert [name for _, name in checked if not checked[_, name]["checked"]] == [OBJECTIONS], checked
    ends = checked["intake", ENDS]
    assert ends["counts"] == {"completed": 4, "open": 1, "waiting_for_queue": 1}
    status, output = await _xinfu(case, "parity", "--grace-seconds", "0")
    assert status == 0, output
    assert (await _xinfu(case, "parity", "--service", "nobody"))[0] == 1


async def test_only_an_operator_may_look(case: Case) -> None:
    world = case.world
    desk = await world.officer("hz-jyj")
    for path in ("invariants", "consumers", f"outbox/events?topic={APPLICATIONS.name}"):
        url = world.url("intake", f"/v1/operations/{path}")
        assert (await world.ask("GET", url)).status == 401
        assert (await world.ask("GET", url, desk)).status == 403


# --- damage


async def _violated(case: Case) -> dict[str, int]:
    found = await case.verify()
    assert found.failures == {}
    return found.violated


async def test_damage_in_one_service_is_found_by_the_right_invariant(case: Case) -> None:
    item, record, application = case.item_id, case.record_id, case.application_id
    refused = case.refused["items"][0]["item_id"]

    with case.changed("dept-adapter", "reviews", {"_id": item}, {"$set": {"state": "refused"}}):
        assert await _violated(case) == {DECIDED: 1, SERVICES_AGREE: 1}
    with case.changed("intake", "items", {"_id": refused}, {"$set": {"decision_number": "伪造1号"}}):
        assert await _violated(case) == {SERVICES_AGREE: 1}
    with case.changed("intake", "applications", {"_id": application}, {"$set": {"open_items": 1}}):
        assert await _violated(case) == {ENDS: 1}
    with case.changed("intake", "applications", {"_id": application}, {"$set": {"status": "open"}}):
        assert await _violated(case) == {ENDS: 1}
    open_item = case.waiting["items"][0]["item_id"]
    with case.changed("intake", "items", {"_id": open_item}, {"$set": {"referral": None}}):
        assert await _violated(case) == {ENDS: 1}
    with case.changed("sync", "deliveries", {"record_id": record}, {"$set": {"seen_version": 2}}):
        assert await _violated(case) == {SEEN: 1}
    with case.changed("sync", "deliveries", {"record_id": record}, {"$set": {"seen_state": "published"}}):
        assert await _violated(case) == {SEEN: 1}
    with case.removed("sync", "deliveries", {"record_id": record}):
        assert await _violated(case) == {SEEN: 1}
    with case.changed("sync", "records", {"_id": record}, {"$set": {"decision_number": "伪造1号"}}):
        assert await _violated(case) == {HISTORY: 1, SERVICES_AGREE: 1}
    with case.removed("sync", "records", {"_id": record}):
        assert await _violated(case) == {SERVICES_AGREE: 1}
    with case.removed("dept-adapter", "reviews", {"_id": item}):
        assert await _violated(case) == {DECIDED: 1, SERVICES_AGREE: 1}

    timeline = case.documents("intake", "timeline")
    line = timeline.find_one({"application_id": application, "type": "granted"})
    assert line is not None
    twice = {**line, "_id": f"{application}:1000", "seq": 1000}
    with case.added("intake", "timeline", twice):
        assert await _violated(case) == {TIMELINE: 2}  # shown twice, and a gap before it
    with case.removed("intake", "timeline", {"_id": line["_id"]}):
        assert await _violated(case) == {TIMELINE: 1}

    message = case.documents("notify", "messages").find_one({"application_id": application})
    assert message is not None
    with case.added("notify", "messages", {**message, "_id": "once-more"}):
        assert await _violated(case) == {NOTIFIED: 1}
    # the mailer does not look at it while it is leased
    unmarked = {
        "state": "sending",
        "attempts": 5,
        "last_error": None,
        "next_attempt_at": datetime(2099, 1, 1, tzinfo=UTC),
    }
    with case.changed("notify", "emails", {"application_id": application}, {"$set": unmarked}):
        assert await _violated(case) == {MAILS: 1}
    kept = {**unmarked, "last_error": "邮件服务器暂不接收（SMTP 451）"}
    with case.changed("notify", "emails", {"application_id": application}, {"$set": kept}):
        assert await _violated(case) == {}
    assert await _violated(case) == {}


async def test_an_event_too_many_is_found(case: Case) -> None:
    granted = case.forged("dept-adapter", RepairGranted.TYPE, case.item_id, decision_number="另一号")
    with case.added("dept-adapter", "outbox", granted):
        # it contradicts the review, it is the second of its kind, and three consumers never got it
        assert await _violated(case) == {DECIDED: 2, BOOKS_AGREE: 3}
    refused = case.forged("dept-adapter", RepairGranted.TYPE, case.item_id, reason="不同意")
    refused["headers"]["ce_type"] = RepairRefused.TYPE
    with case.added("dept-adapter", "outbox", refused):
        # a refusal does not concern sync
        assert await _violated(case) == {DECIDED: 1, BOOKS_AGREE: 2}
    with case.added("intake", "outbox", case.forged("intake", ApplicationCompleted.TYPE)):
        assert await _violated(case) == {COMPLETED: 1, BOOKS_AGREE: 2}
    with case.added("notify", "outbox", case.forged("notify", NotificationSent.TYPE)):
        assert await _violated(case) == {NOTIFIED: 1}
    with case.removed("intake", "outbox", {"headers.ce_type": ApplicationCompleted.TYPE}):
        # it was told to two consumers, and now nobody has ever said it
        assert await _violated(case) == {COMPLETED: 1, BOOKS_AGREE: 2}
    stuck = case.forged("intake", ApplicationCompleted.TYPE)
    stuck |= {"pending": True, "published_at": None, "bucket": 10_000, "key": "app_" + "9" * 32}
    with case.added("intake", "outbox", stuck):
        assert await _violated(case) == {BOOKS_AGREE: 1}
    assert await _violated(case) == {}


# --- parity


def _inbox_id(consumer: str, event: Document) -> str:
    return f"{consumer}:{event['headers']['ce_source']}#{event['_id']}"


async def test_a_lost_event_is_found_and_takes_effect_after_all(case: Case) -> None:
    """What a loss on the bus leaves behind: neither the inbox has the event, nor is there its effect."""
    submitted = case.emitted("intake", ApplicationSubmitted.TYPE, case.application_id)
    # of the two consumers, notify has lost it
    inbox = case.documents("notify", "inbox")
    assert inbox.delete_one({"_id": _inbox_id("notify", submitted)}).deleted_count == 1
    messages = case.documents("notify", "messages")
    lost = messages.find_one_and_delete(
        {"application_id": case.application_id, "fact": {"$regex": "submitted"}}
    )
    assert lost is not None
    outbox = case.documents("notify", "outbox")
    told = outbox.find({"headers.ce_type": NotificationSent.TYPE})
    (sent,) = [r for r in told if json.loads(r["value"])["notification_id"] == lost["_id"]]
    outbox.delete_one({"_id": sent["_id"]})
    assert await _violated(case) == {BOOKS_AGREE: 1}

    seen = await case.parity()
    (difference,) = [d for d in seen.differences if d.missing]
    assert (difference.topic, difference.owner, difference.consumer) == (
        APPLICATIONS.name,
        "intake",
        "notify",
    )
    assert difference.examples == [submitted["_id"]]
    assert messages.find_one({"_id": lost["_id"]}) is None

    before = case.documents("routing", "outbox").count_documents({})
    status, output = await _xinfu(case, "parity", "--repair", "--grace-seconds", "0", "--service", "intake")
    assert status == 0, output
    assert submitted["_id"] in output

    async def healed() -> bool:
        return messages.find_one({"_id": lost["_id"]}) is not None

    await eventually(healed)
    assert (await case.parity()).agrees
    # routing had it already: no second effect
    assert case.documents("routing", "outbox").count_documents({}) == before
    again = case.emitted("intake", ApplicationSubmitted.TYPE, case.application_id)
    assert again["replays"] == 1
    # the same cause has the same effect, under the same id
    assert outbox.find_one({"_id": sent["_id"]}) is not None
    assert await _violated(case) == {}


async def test_rows_and_ids_of_all_kinds_stop_nothing(case: Case) -> None:
    good = case.emitted("intake", ApplicationSubmitted.TYPE, case.application_id)
    inbox = case.documents("notify", "inbox")
    place = 1 << 50
    bad: list[Document] = [
        {"_id": "empty"},
        {"_id": "no-place", "topic": APPLICATIONS.name},
        {"_id": 7, "topic": APPLICATIONS.name, "seq": place},
        {**good, "_id": "x" * 1000, "seq": place + 1},
        {**good, "_id": "no-headers", "seq": place + 2, "headers": None},
        {**good, "_id": "no-time", "seq": place + 3, "created_at": "yesterday"},
        {**good, "_id": "not-published", "seq": place + 4, "published_at": None},
    ]
    outbox = case.documents("intake", "outbox")
    outbox.insert_many(bad)
    taken = inbox.find_one_and_delete({"_id": _inbox_id("notify", good)})
    assert taken is not None
    try:
        found = await case.parity()
        assert len(found.unreadable) == len(bad), found.unreadable
        assert sum(d.missing for d in found.differences) == 1
        assert not found.agrees
        assert await _violated(case) == {BOOKS_AGREE: len(bad) + 1}
    finally:
        outbox.delete_many({"_id": {"$in": [row["_id"] for row in bad]}})
        inbox.insert_one(taken)
    assert (await case.parity()).agrees


async def test_what_was_put_aside_for_a_person_is_not_missing(case: Case) -> None:
    event = case.emitted("intake", ApplicationSubmitted.TYPE, case.application_id)
    letter = {
        "_id": "letter",
        "consumer": "notify",
        "event_id": f"{source_of('intake')}#{event['_id']}",
        "state": "open",
    }
    with case.removed("notify", "inbox", {"_id": _inbox_id("notify", event)}):
        assert (await case.parity()).total("missing") == 1
        with case.added("notify", "dead_letters", letter):
            assert (await case.parity()).agrees
        with case.added("notify", "dead_letters", {**letter, "consumer": "routing"}):
            assert (await case.parity()).total("missing") == 1


async def test_a_page_is_asked_for_after_the_other(case: Case) -> None:
    world = case.world
    ops = await world.ops()

    async def ids(limit: int) -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            url = f"/v1/operations/outbox/events?topic={APPLICATIONS.name}&limit={limit}{after}"
            page = (await world.ask("GET", world.url("intake", url), ops)).ok()
            found += [event["id"] for event in page["events"]]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    whole = await ids(1000)
    assert len(whole) == len(set(whole)) == 9  # five submitted, four completed
    assert await ids(1) == await ids(4) == whole


async def test_what_the_bus_loses_is_published_again(case: Case) -> None:
    """The embedded broker keeps nothing. Whatever it had in hand when it was killed, every application ends all the same."""
    world, stack = case.world, case.world.stack
    companies = [await world.company() for _ in range(10)]
    command = ("--repair", "--every-seconds", "2", "--grace-seconds", "2", "--since", "1h")
    with (stack.data_dir / "parity.log").open("wb") as log:
        parity = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "xinfu", "parity", *command, "--data-dir", str(stack.data_dir)),
            stdout=log,
        )
    try:
        applications = [(await world.submit(company)).ok() for company in companies[1:]]
        await asyncio.to_thread(stack.stop_process, "kafka")
        await asyncio.to_thread(stack.kill, "intake")

        async def takes_in_without_a_bus() -> bool:
            try:
                return (await world.ask("GET", world.url("intake", "/livez"))).status == 200
            except ClientError:
                return False

        await eventually(takes_in_without_a_bus, 60)
        applications += [(await world.submit(companies[0])).ok()]
        assert (await world.ask("GET", world.url("intake", "/readyz"))).status == 503
        await asyncio.to_thread(stack.start_process, "kafka")
        # the services find another cluster: they start anew
        await asyncio.to_thread(stack.wait_ready, None, 120)
        applications += [(await world.submit(await world.company())).ok()]
        items = [item["item_id"] for application in applications for item in application["items"]]
        reviews = case.documents("dept-adapter", "reviews")

        async def all_at_their_departments() -> bool:
            return reviews.count_documents({"_id": {"$in": items}}) == len(items)

        await eventually(all_at_their_departments, 120)
        for item in items:
            (await world.desk(item, "grant")).ok()
        await asyncio.to_thread(stack.kill, "kafka")
        ended = case.documents("intake", "applications")
        ids = [application["application_id"] for application in applications]

        async def all_ended() -> bool:
            return ended.count_documents({"_id": {"$in": ids}, "status": "completed"}) == len(ids)

        await eventually(all_ended, 120)
        await asyncio.to_thread(stack.wait_ready, None, 120)
        await _quiet(case, 60)
    finally:
        parity.terminate()
        await parity.wait()
    lines = [json.loads(line) for line in (stack.data_dir / "parity.log").read_text().splitlines()]
    assert all(line["event"].startswith("parity") for line in lines)
    print("published again:", sum(line.get("repaired", 0) for line in lines), "in", len(lines), "runs")


async def test_a_damaged_row_holds_up_no_other_whose_day_has_come(case: Case) -> None:
    """In each loop that looks for days: a row that cannot be dealt with, due before a good one of the same batch."""
    world = case.world
    filed = (await world.submit(await world.company())).ok()
    (good,) = [item["item_id"] for item in filed["items"]]
    await world.review(good)
    waiting = case.waiting["items"][0]["item_id"]
    followed = case.documents("intake", "follow_ups").find_one({"item_id": case.item_id})
    assert followed is not None
    delivery = case.documents("sync", "deliveries").find_one({"record_id": case.record_id})
    mail = case.documents("notify", "emails").find_one({"state": "sent", "office": None})
    assert delivery is not None
    assert mail is not None
    again = {**mail, "_id": f"again-{mail['_id']}"}
    record = case.documents("sync", "records").find_one({"_id": case.record_id})
    assert record is not None
    damaged_record = {**record, "_id": f"damaged-{case.record_id}", "version": "damaged", "incomplete": False}
    day, before = "2026-01-06", "2026-01-05"
    now = datetime.now(UTC)
    moment, earlier = now - timedelta(hours=1), now - timedelta(hours=2)
    due: dict[tuple[str, str], tuple[str, Document, Document]] = {
        # service, collection: the good row, what makes it due, what breaks a copy of it
        ("routing", "referrals"): (waiting, {"deadline_on": day}, {"referred": {}}),
        ("dept-adapter", "reviews"): (
            good,
            {"deadline_on": day, "accept_due_on": day, "verification.next_attempt_at": moment},
            {"state": "damaged", "verification": {"next_attempt_at": earlier}},
        ),
        ("intake", "follow_ups"): (followed["_id"], {"due_on": day}, {"days": "damaged"}),
        ("intake", "records"): (case.record_id, {"period.ends_on": day}, {"status": "damaged"}),
        ("sync", "deliveries"): (
            delivery["_id"],
            {"next_action_at": moment},
            {"record_id": damaged_record["_id"]},
        ),
        ("notify", "emails"): (
            again["_id"],
            {"next_attempt_at": moment, "state": "pending"},
            {"state": "pending", "vendor_letter": {"damaged": True}},
        ),
    }

    def dealt_with() -> set[tuple[str, str]]:
        rows = {
            place: case.documents(*place).find_one({"_id": id_}) or {} for place, (id_, _, _) in due.items()
        }
        done = {
            ("routing", "referrals"): rows["routing", "referrals"]["deadline_on"] is None,
            ("dept-adapter", "reviews"): rows["dept-adapter", "reviews"]["deadline_on"] is None
            and "next_attempt_at" not in rows["dept-adapter", "reviews"]["verification"],
            ("intake", "follow_ups"): rows["intake", "follow_ups"]["told_at"] is not None,
            # it was repaired, and its day found anew
            ("intake", "records"): rows["intake", "records"].get("period", {}).get("ends_on") != day,
            ("sync", "deliveries"): rows["sync", "deliveries"]["next_action_at"].replace(tzinfo=UTC) > now,
            ("notify", "emails"): rows["notify", "emails"]["state"] == "sent",
        }
        return {place for place, is_done in done.items() if is_done}

    damaged: list[tuple[tuple[str, str], Document]] = []
    case.documents("notify", "emails").insert_one(again)
    case.documents("sync", "records").insert_one(damaged_record)
    try:
        for place, (id_, changes, damage) in due.items():
            documents = case.documents(*place)
            row = documents.find_one({"_id": id_})
            assert row is not None
            copied = {**row, **damage, "_id": f"damaged-{id_}"}
            documents.insert_one(copied)
            damaged.append((place, copied))
            name = next(iter(changes))
            first = earlier if isinstance(changes[name], datetime) else before
            documents.update_one({"_id": copied["_id"]}, {"$set": {name: first}})
            documents.update_one({"_id": id_}, {"$set": changes})

        async def all_dealt_with() -> bool:
            return dealt_with() == set(due)

        await eventually(all_dealt_with, 40)
        for place, copied in damaged:
            left = case.documents(*place).find_one({"_id": copied["_id"]})
            assert left is not None, place
        failing = {
            (service, loop.name)
            for service in SERVICES
            for loop in (await (await case.services()).ask(ServiceStatus, service, "status")).failing_loops
        }
        assert failing == {
            ("routing", "deadlines"),
            ("dept-adapter", "deadlines"),
            ("dept-adapter", "verify"),
            ("intake", "follow-ups"),
            ("intake", "publication periods"),
            ("sync", f"target {delivery['target_id']}"),
            ("notify", "mailer"),
        }
    finally:
        case.documents("notify", "emails").delete_one({"_id": again["_id"]})
        case.documents("sync", "records").delete_one({"_id": damaged_record["_id"]})
        for place, copied in damaged:
            case.documents(*place).delete_one({"_id": copied["_id"]})


async def test_a_service_that_is_down_hides_nothing_of_the_others(case: Case) -> None:
    await _quiet(case)
    urls = {**case.world.endpoints.services, "routing": "http://127.0.0.1:9"}
    client = Client(case.world.http, await case.world.ops(), patience_seconds=0)
    found = await verify(Services(client, urls), settle_seconds=0)
    assert set(found.failures) == {"routing"}
    assert not found.holds
    assert found.violated == {}
    assert {service for service, _ in found.reports} >= set(SERVICES) - {"routing"}
