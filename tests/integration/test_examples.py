"""Consumers accept the committed example of every event, on a real database, in one batch and once more."""

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka import ConsumerRecord

from chassis.consumer import Handler
from chassis.db import CollectionSpec, Database
from chassis.inbox import Received, receive
from chassis.outbox import Outbox, outbox_collections
from chassis.unit_of_work import Rejection, UnitOfWork
from contracts.catalogue import load_catalogue
from contracts.errors import DeadLetterReason
from contracts.events import EVENTS, FalseMaterialForwarded, ReviewRequested
from contracts.http.eligibility import Transition
from contracts.signatures import new_secret
from contracts.topics import TOPICS
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter import objections as dept_objections
from dept_adapter import store as dept_store
from dept_adapter.handlers import ReviewHandler
from dept_adapter.kinds.events import EventsKind
from dept_adapter.kinds.port import Parts
from dept_adapter.words import Listener
from intake import store as intake_store
from intake.findings import Findings
from intake.follow_ups import FollowUps
from intake.handlers import ProgressHandler
from intake.materials import Materials
from intake.notices import Notices
from intake.objections import Objections
from notify import store as notify_store
from notify.handlers import FactHandler
from notify.offices import Offices
from notify.texts import Texts
from routing import store as routing_store
from routing.handlers import ApplicationHandler
from support import settings_for
from sync import letter_store
from sync import store as sync_store
from sync.handlers import DecisionHandler, in_turn
from sync.letter_store import LetterStore
from sync.sending import Sending
from sync.settings import SyncSettings
from xinfu_local import Broker, Stack

EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
CATALOGUE = load_catalogue()


def examples(topics: set[str]) -> list[Received]:
    """The committed examples of these topics as they would come from the bus."""
    found = []
    for path in sorted(EXAMPLES.glob("*.json")):
        example = json.loads(path.read_text("utf-8"))
        event = EVENTS[path.stem].model_validate(example["data"])
        if event.TOPIC not in topics:
            continue
        record = ConsumerRecord(
            topic=event.topic,
            partition=0,
            offset=0,
            timestamp=0,
            timestamp_type=0,
            key=example["key"].encode(),
            value=json.dumps(example["data"]).encode(),
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            headers=[(name, value.encode()) for name, value in example["headers"].items()],
        )
        received = receive(record, 900_000)
        assert isinstance(received, Received), received
        found.append(received)
    return found


def _sync(database: Database) -> Handler:
    settings = sync_settings()
    store = sync_store.Store(database)
    policies = {target.id: settings.policy(target, CATALOGUE.calendar) for target in CATALOGUE.targets}
    sending = Sending(LetterStore(database), store, policies, settings.letter_policy(CATALOGUE.calendar))
    return in_turn(DecisionHandler(CATALOGUE, policies, store, {}), sending)


def sync_settings() -> SyncSettings:
    return SyncSettings(
        kafka_bootstrap_servers="x",
        mongodb_uri="x",
        oidc_issuer="x",
        intake_url="http://127.0.0.1",
        client_secret="x",
        signing_key=new_secret("ed25519"),
        public_url="http://127.0.0.1",
    )


def _notify(database: Database) -> Handler:
    texts = Texts({target.id: target.name for target in CATALOGUE.targets})
    return FactHandler(
        texts,
        notify_store.Messages(database),
        notify_store.Emails(database),
        Offices(CATALOGUE),
        notify_store.OfficeNotices(database),
    )


def _intake(database: Database) -> Handler:
    store = intake_store.Store(database)
    outbox = Outbox(database, source="/xinfu/intake", buckets=4, max_event_bytes=900_000)
    found = Findings(database, store)
    objected = Objections(database, store, cast(Materials, None), found, outbox, CATALOGUE, 30)
    follow_ups = FollowUps(database, store, outbox, [30], 60)
    notices = Notices(store, CATALOGUE, Transition.EITHER, within_days=36_500)
    return ProgressHandler(store, follow_ups, found, objected, notices, CATALOGUE)


def _dept_adapter(database: Database) -> Handler:
    departments = {d.slug: d for d in CATALOGUE.departments}
    objections = dept_objections.Objections(database)
    return ReviewHandler(
        departments, dept_store.Reviews(database, set()), objections, {}, lambda: None, LIBRARY_CALENDAR
    )


def _on_the_bus(database: Database) -> Handler:
    """Of the department that writes its decisions to a topic of its own."""
    department = next(d for d in CATALOGUE.departments if d.mode == "events")
    reviews, callbacks = dept_store.Reviews(database, set()), dept_store.Callbacks(database)
    parts = SimpleNamespace(listener=Listener(reviews, callbacks, 15, LIBRARY_CALENDAR))
    (consumer,) = EventsKind(department, cast(Parts, parts)).consumers
    return consumer.handler


SERVICES: dict[str, tuple[set[str], Callable[[Database], Handler], Sequence[CollectionSpec]]] = {
    "intake": (
        {"xinfu.records", "xinfu.routing", "xinfu.decisions", "xinfu.propagation"},
        _intake,
        intake_store.COLLECTIONS,
    ),
    "routing": (
        {"xinfu.applications"},
        lambda db: ApplicationHandler(CATALOGUE, routing_store.Referrals(db), 2),
        routing_store.COLLECTIONS,
    ),
    "dept-adapter": (
        {"xinfu.reviews.{department}"},
        _dept_adapter,
        [*dept_store.collections(30), *dept_objections.COLLECTIONS],
    ),
    "dept-adapter, on the bus": (
        {"xinfu.inbound.{department}"},
        _on_the_bus,
        dept_store.collections(30),
    ),
    "sync": (
        {"xinfu.records", "xinfu.decisions", "xinfu.office-notifications"},
        _sync,
        [*sync_store.collections(30, 30), *letter_store.COLLECTIONS],
    ),
    "notify": (
        {"xinfu.applications", "xinfu.routing", "xinfu.decisions", "xinfu.propagation"},
        _notify,
        notify_store.COLLECTIONS,
    ),
}


def test_every_topic_with_a_consumer_is_tried() -> None:
    tried = set().union(*(topics for topics, _, _ in SERVICES.values()))
    assert {topic.name for topic in TOPICS} - tried == {"xinfu.notifications"}


@pytest.mark.parametrize("service", SERVICES)
async def test_examples_are_accepted(service: str, infra: Stack, broker_kind: Broker) -> None:
    topics, make, collections = SERVICES[service]
    settings = settings_for(infra, broker_kind)
    database = Database(
        settings.mongodb_uri.get_secret_value(),
        f"test_{secrets.token_hex(6)}",
        pool_size=3,
        timeout_ms=10_000,
    )
    try:
        await database.ensure([*outbox_collections(30), *collections])
        outbox = Outbox(database, source=f"/xinfu/{service}", buckets=4, max_event_bytes=900_000)
        handler = make(database)
        batch = examples(topics)
        assert batch
        rejected: list[Rejection] = []

        async def work(unit: UnitOfWork) -> None:
            assert unit.now <= datetime.now(UTC)
            await handler(unit, batch)
            rejected[:] = unit.rejections

        await outbox.run(work)
        # the examples are single events: what they are about need not be known here, but nothing else may be wrong
        assert {rejection.reason for rejection in rejected} <= {DeadLetterReason.UNKNOWN_AGGREGATE}
        # these two know what the examples are about from events of other topics
        if service not in ("intake", "dept-adapter, on the bus"):
            # there is one example of each event: of two items with the same false material one alone is asked for
            asked = {received.key for received in batch if isinstance(received.event, ReviewRequested)}
            known = [r.received.event for r in rejected if r.received.key in asked]
            other = [r.received.event for r in rejected if r.received.key not in asked]
            assert known == []
            assert all(isinstance(event, FalseMaterialForwarded) for event in other)
    finally:
        database.close()
