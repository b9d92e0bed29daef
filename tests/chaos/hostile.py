"""Hostile events: a flood of messages that must not take effect, into every topic, while good applications go through.

    make hostile COUNT=100000

What must come of each kind at every consumer of its topic is known when it is made: a dead letter, a skip (unknown type) or a
recognised duplicate. The account printed at the end compares that with what each consumer says it did.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from chaos.drills import (
    DrillFailedError,
    Promises,
    console,
    drill_world,
    ended,
    main,
    memory,
    metrics,
    population,
    statuses,
    table,
    until_ended,
)
from chaos.load import Citizens, Officers
from chaos.population import API, DESKS, Population
from e2e.people import World
from pydantic import BaseModel

from contracts.catalogue import Catalogue, load_catalogue
from contracts.envelope import Envelope
from contracts.events import EVENTS, Event, RecordWithdrawn, ReviewRequested
from contracts.records import DepartmentRef, DisplayState
from contracts.topics import NOTIFICATIONS, OFFICE_NOTIFICATIONS, REVIEWS, Topic, expand, review_topic
from xinfu.compose import SERVICES
from xinfu_local import Broker

CONSUMERS = {
    "xinfu.records": ("intake", "sync", "notify"),
    "xinfu.applications": ("routing", "notify"),
    "xinfu.routing": ("intake", "notify"),
    REVIEWS.name: ("dept-adapter",),
    "xinfu.decisions": ("intake", "sync", "notify"),
    "xinfu.propagation": ("intake", "notify"),
    NOTIFICATIONS.name: (),
    OFFICE_NOTIFICATIONS.name: ("sync",),
}
"""Consumers by the registry's name of the topic."""

MARK = "伪造重放"
"""In everything that replays under a known id tell: it must be found nowhere."""

_EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
_FAR_FUTURE = datetime(2999, 12, 31, tzinfo=UTC)
"""The last day that a schema takes."""
_LARGEST_TAKEN_BYTES, _LARGEST_SENT_BYTES = 900_000, 1_040_000
_SAMPLES_PER_TOPIC = 400
_SEND_CHUNK = 2_000
_WARM_UP = 30
_ACCOUNT_STALL_SECONDS = 60.0

Message = tuple[bytes | None, list[tuple[str, bytes | None]], bytes | None]


class Fate(StrEnum):
    """What must become of a hostile event at each consumer of its topic."""

    DEAD = "dead letters"
    SKIPPED = "skipped"
    DUPLICATE = "duplicates"


@dataclass(frozen=True)
class Genuine:
    """A message of the flow that every consumer of its topic has taken."""

    key: bytes
    headers: dict[str, bytes]
    value: bytes

    @property
    def type(self) -> str:
        return self.headers["ce_type"].decode()

    @property
    def identity(self) -> str:
        return f"{self.headers['ce_source'].decode()}#{self.headers['ce_id'].decode()}"


class Hostile:
    """Makes hostile events for a topic, each with its fate. The same seed and genuine messages make the same events."""

    def __init__(self, seed: int, catalogue: Catalogue, genuine: Mapping[str, Sequence[Genuine]]) -> None:
        self._rng = random.Random(seed)
        self._genuine = genuine
        self._seed = seed
        self._number = 0
        self._departments = {review_topic(d.slug): d for d in catalogue.departments}
        examples = [EVENTS[t].model_validate(_example(t)) for t in EVENTS]
        self._examples: defaultdict[str, list[Event]] = defaultdict(list)
        for example in examples:
            self._examples[example.TOPIC].append(example)
        self._all = examples
        self._kinds: list[Callable[[str], tuple[Message, Fate]]] = [
            self._random_bytes,
            self._deep,
            self._wrong_types,
            self._wrong_version,
            self._unknown_type,
            self._replay,
            self._bad_headers,
            self._wrong_key,
            self._no_value,
            self._from_the_future,
            self._wrong_topic,
        ]

    def make(self, topic: str) -> tuple[str, Message, Fate]:
        """(kind, message, what must become of it). One in a thousand is too large."""
        self._number += 1
        kind = self._too_large if self._rng.random() < 0.001 else self._rng.choice(self._kinds)
        message, fate = kind(topic)
        return kind.__name__.strip("_"), message, fate

    # --- parts

    def _event(self, topic: str) -> Event:
        """A valid event of this topic about something nobody knows."""
        department = self._departments.get(topic)
        event = self._rng.choice(self._examples[REVIEWS.name if department else topic])
        if isinstance(event, ReviewRequested) and department is not None:
            ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
            return event.model_copy(update={"department": ref})
        return event

    def _headers(self, event_type: str, key: str) -> dict[str, bytes]:
        identity = f"hostile-{self._seed}-{self._number}"
        envelope = Envelope(identity, event_type, "/hostile", key, datetime.now(UTC))
        return {name: value.encode() for name, value in envelope.headers({}).items()}

    def _message(self, event: Event, value: bytes | None, **headers: bytes) -> Message:
        made = {**self._headers(event.TYPE, event.key), **headers}
        return event.key.encode(), list(made.items()), value

    # --- kinds

    def _random_bytes(self, topic: str) -> tuple[Message, Fate]:
        value = self._rng.randbytes(self._rng.randint(1, 4_000))
        return self._message(self._event(topic), value), Fate.DEAD

    def _too_large(self, topic: str) -> tuple[Message, Fate]:
        size = self._rng.randint(_LARGEST_TAKEN_BYTES + 1, _LARGEST_SENT_BYTES)
        return self._message(self._event(topic), b'"' + b"x" * (size - 2) + b'"'), Fate.DEAD

    def _deep(self, topic: str) -> tuple[Message, Fate]:
        depth = self._rng.choice((150, 300, 3_000)) if self._rng.random() < 0.98 else 100_000
        opened, closed = self._rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
        end = closed * depth if self._rng.random() < 0.5 else b""
        return self._message(self._event(topic), opened * depth + b"1" + end), Fate.DEAD

    def _wrong_types(self, topic: str) -> tuple[Message, Fate]:
        event = self._event(topic)
        data = event.model_dump(mode="json")
        name = self._rng.choice([n for n in data if n.endswith(("_id", "_at"))])
        if self._rng.random() < 0.2:
            del data[name]
        else:
            data[name] = self._rng.choice((None, [], {}, [dict(data)], "\ud800"))
        return self._message(event, json.dumps(data).encode()), Fate.DEAD

    def _wrong_version(self, topic: str) -> tuple[Message, Fate]:
        event = self._event(topic)
        future = event.TYPE[: -len("v1")] + f"v{self._rng.randint(2, 9)}"
        return self._message(event, b'{"new": true}', ce_type=future.encode()), Fate.SKIPPED

    def _unknown_type(self, topic: str) -> tuple[Message, Fate]:
        unknown = f"cn.example.{self._rng.randbytes(4).hex()}.happened.v1".encode()
        value = self._rng.choice((b"{}", None, self._rng.randbytes(100)))
        return self._message(self._event(topic), value, ce_type=unknown), Fate.SKIPPED

    def _replay(self, topic: str) -> tuple[Message, Fate]:
        genuine = self._genuine.get(topic)
        if not genuine:
            return self._unknown_type(topic)
        known = self._rng.choice(genuine)
        event = EVENTS[known.type].model_validate_json(known.value)
        value = _tampered(event).model_dump_json().encode()
        return (known.key, list(known.headers.items()), value), Fate.DUPLICATE

    def _bad_headers(self, topic: str) -> tuple[Message, Fate]:
        event = self._event(topic)
        headers: dict[str, bytes | None] = {**self._headers(event.TYPE, event.key)}
        required = self._rng.choice(("ce_specversion", "ce_id", "ce_type", "ce_source"))
        more: list[tuple[str, bytes | None]] = []
        match self._rng.randrange(8):
            case 0:
                del headers[required]
            case 1:
                headers[required] = b""
            case 2:
                headers[required] = None
            case 3:
                headers[self._rng.choice((required, "traceparent", "x-whatever"))] = b"\xff\xfe\xc0"
            case 4:
                more = [(required, b"another")]
            case 5:
                headers["ce_specversion"] = self._rng.choice((b"0.3", b"1.1", b"2.0"))
            case 6:
                headers["ce_time"] = self._rng.choice(
                    (b"yesterday", b"2026-01-01T00:00:00", b"9999-99-99T00:00:00Z")
                )
            case 7:
                headers["ce_id"] = b"x" * self._rng.randint(201, 5_000)
        value = event.model_dump_json().encode()
        return (event.key.encode(), [*headers.items(), *more], value), Fate.DEAD

    def _wrong_key(self, topic: str) -> tuple[Message, Fate]:
        event = self._event(topic)
        _, headers, value = self._message(event, event.model_dump_json().encode())
        key = self._rng.choice(
            (None, b"", b"\xff\xff", b"somebody else", event.key.encode() + b" ", b"k" * 10_000)
        )
        return (key, headers, value), Fate.DEAD

    def _no_value(self, topic: str) -> tuple[Message, Fate]:
        return self._message(self._event(topic), self._rng.choice((None, b""))), Fate.DEAD

    def _from_the_future(self, topic: str) -> tuple[Message, Fate]:
        if self._rng.random() < 0.3:
            event = self._event(topic)
            data = event.model_dump(mode="json")
            name = self._rng.choice([n for n in data if n.endswith("_at")])
            data[name] = self._rng.choice(("3000-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", 1e15))
            return self._message(event, json.dumps(data).encode()), Fate.DEAD
        if topic == RecordWithdrawn.TOPIC and self._rng.random() < 0.5:
            unknown = f"rec_{self._rng.randbytes(16).hex()}"
            event = RecordWithdrawn(record_id=unknown, reason=MARK, withdrawn_at=_FAR_FUTURE)
            return self._message(event, event.model_dump_json().encode()), Fate.DEAD
        (key, headers, value), fate = self._replay(topic)
        if fate is Fate.DUPLICATE:
            headers = [
                *(h for h in headers if h[0] != "ce_time"),
                ("ce_time", _FAR_FUTURE.isoformat().encode()),
            ]
        return (key, headers, value), fate

    def _wrong_topic(self, topic: str) -> tuple[Message, Fate]:
        event = self._rng.choice([e for e in self._all if e.topic != topic])
        return self._message(event, event.model_dump_json().encode()), Fate.DEAD


def _example(event_type: str) -> Any:
    return json.loads((_EXAMPLES / f"{event_type}.json").read_text(encoding="utf-8"))["data"]


def _tampered(event: Event) -> Event:
    """The same key and type, and all else that could do harm: later, newer, other words, the opposite state."""

    def changed(model: BaseModel) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in type(model).model_fields:
            value = getattr(model, name)
            if isinstance(value, datetime):
                found[name] = _FAR_FUTURE
            elif isinstance(value, DisplayState):
                found[name] = next(state for state in DisplayState if state is not value)
            elif name in ("document_number", "decision_number", "reason", "target_name", "queue_name"):
                found[name] = MARK
            elif name == "version":
                found[name] = value + 1_000
            elif name == "record" and isinstance(value, BaseModel):
                found[name] = value.model_copy(update=changed(value))
        return found

    return event.model_copy(update=changed(event))


# --- the bus


async def genuine_messages(world: World, topics: Mapping[str, Topic]) -> dict[str, list[Genuine]]:
    """Up to ``_SAMPLES_PER_TOPIC`` messages of the services in each topic."""
    found: defaultdict[str, list[Genuine]] = defaultdict(list)
    consumer = AIOKafkaConsumer(bootstrap_servers=world.stack.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [
            TopicPartition(name, number)
            for name, topic in topics.items()
            for number in range(topic.partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        left = {partition for partition, end in ends.items() if end > 0}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in records:
                    headers = dict(record.headers)
                    ours = headers.get("ce_source", b"").startswith(b"/xinfu/")
                    if ours and len(found[record.topic]) < _SAMPLES_PER_TOPIC:
                        found[record.topic].append(Genuine(record.key, headers, record.value))
                if records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
    finally:
        await consumer.stop()
    return found


Concerns = Mapping[str, frozenset[str]]
"""Service -> event types that concern it; others of its topics it skips."""


async def concerns(world: World) -> Concerns:
    """As the services say."""
    return {
        name: frozenset(each for consumer in status.consumers for each in consumer.event_types)
        for name, status in (await statuses(world)).items()
    }


async def until_taken(world: World, genuine: Mapping[str, Sequence[Genuine]], concerned: Concerns) -> None:
    """Wait until every consumer of a topic has taken those of these messages that concern it."""
    for topic, messages in genuine.items():
        for service in consumers_of(topic):
            inbox = world.database(service)["inbox"]
            ids = [f"{service}:{m.identity}" for m in messages if m.type in concerned[service]]
            deadline = time.monotonic() + _ACCOUNT_STALL_SECONDS
            while inbox.count_documents({"_id": {"$in": ids}}) < len(set(ids)):
                if time.monotonic() > deadline:
                    raise DrillFailedError(f"{service} does not take the events of {topic}")
                await asyncio.sleep(0.2)


def consumers_of(topic: str) -> tuple[str, ...]:
    """Services that consume a topic."""
    return CONSUMERS[topic] if topic in CONSUMERS else CONSUMERS[REVIEWS.name]


@dataclass
class Sent:
    """What was sent: by topic, fate and, of replays, event type ("" of others); and by kind."""

    fates: Counter[tuple[str, Fate, str]]
    kinds: Counter[str]
    seconds: float = 0.0


async def send(world: World, hostile: Hostile, topics: Sequence[str], count: int, seed: int) -> Sent:
    """Send so many events, half of them into the review topics."""
    rng = random.Random(f"topics {seed}")
    reviews = [topic for topic in topics if topic not in CONSUMERS]
    shared = [topic for topic in topics if topic in CONSUMERS]
    sent, started = Sent(Counter(), Counter()), time.monotonic()
    producer = AIOKafkaProducer(
        bootstrap_servers=world.stack.kafka_bootstrap, acks="all", linger_ms=5, max_request_size=1_100_000
    )
    await producer.start()
    try:
        while left := count - sum(sent.kinds.values()):
            futures = []
            for _ in range(min(left, _SEND_CHUNK)):
                topic = rng.choice(reviews if rng.random() < 0.5 else shared)
                kind, (key, headers, value), fate = hostile.make(topic)
                futures.append(await producer.send(topic, value, key=key, headers=headers))
                replayed = dict(headers)["ce_type"] if fate is Fate.DUPLICATE else None
                sent.fates[topic, fate, (replayed or b"").decode()] += 1
                sent.kinds[kind] += 1
            await asyncio.gather(*futures)
    finally:
        await producer.stop()
    sent.seconds = time.monotonic() - started
    return sent


# --- the account

Account = Counter[tuple[str, str, Fate]]
"""Number by (topic, consumer, fate)."""


async def account(world: World, concerned: Concerns) -> Account:
    """What every consumer has done so far with what it could not let take effect; what the services told each other, and a consumer
    skipped because it does not concern it, apart.
    """
    done: Account = Counter()
    by_type: list[dict[str, Any]] = [
        {"$match": {"pending": {"$ne": True}}},
        {"$group": {"_id": {"topic": "$topic", "type": "$headers.ce_type"}, "n": {"$sum": 1}}},
    ]
    counted = {"xinfu_events_skipped": Fate.SKIPPED, "xinfu_events_duplicate": Fate.DUPLICATE}
    for service in SERVICES:
        by_topic = [{"$group": {"_id": {"topic": "$topic", "consumer": "$consumer"}, "n": {"$sum": 1}}}]
        for group in world.database(service)["dead_letters"].aggregate(by_topic):
            done[group["_id"]["topic"], group["_id"]["consumer"], Fate.DEAD] += group["n"]
        for group in world.database(service)["outbox"].aggregate(by_type):
            for consumer in consumers_of(group["_id"]["topic"]):
                if group["_id"]["type"] not in concerned[consumer]:
                    done[group["_id"]["topic"], consumer, Fate.SKIPPED] -= group["n"]
        for metric in await metrics(world, service):
            if fate := counted.get(metric.name):
                for sample in metric.samples:
                    if sample.name.endswith("_total"):
                        labels = sample.labels
                        done[labels["topic"], labels["consumer"], fate] += int(sample.value)
    return done


def expected(sent: Sent, concerned: Concerns) -> Account:
    """What the account must be: a replay of what does not concern a consumer is skipped there, like the first of its kind."""
    wanted: Account = Counter()
    for (topic, fate, replayed), number in sent.fates.items():
        for consumer in consumers_of(topic):
            skips = fate is Fate.DUPLICATE and replayed not in concerned[consumer]
            wanted[topic, consumer, Fate.SKIPPED if skips else fate] += number
    return wanted


async def until_accounted(
    world: World, before: Account, wanted: Account, concerned: Concerns
) -> tuple[Account, float]:
    """Wait for the account; returns it, right or not, and since when it has not come nearer."""
    nearest, since = sys.maxsize, time.monotonic()
    while True:
        now = await account(world, concerned)
        now.subtract(before)
        difference = sum(abs(now[each] - wanted[each]) for each in now.keys() | wanted.keys())
        if difference < nearest:
            nearest, since = difference, time.monotonic()
        if not difference or time.monotonic() - since > _ACCOUNT_STALL_SECONDS:
            return now, since
        await asyncio.sleep(1)


def account_rows(topics: Sequence[str], sent: Sent, done: Account) -> list[tuple[str | int, ...]]:
    """Rows of the table: shared topics one by one, the review topics together, and each with a difference by itself."""

    by_topic: Counter[str] = Counter()
    for (topic, _, _), number in sent.fates.items():
        by_topic[topic] += number

    def row(name: str, consumer: str, members: Sequence[str]) -> tuple[str | int, ...]:
        number = sum(by_topic[topic] for topic in members)
        fates = [sum(done[topic, consumer, fate] for topic in members) for fate in Fate]
        return name, consumer, number, *fates, number - sum(fates)

    reviews = [topic for topic in topics if topic not in CONSUMERS]
    rows: list[tuple[str | int, ...]] = []
    for topic in [topic for topic in topics if topic in CONSUMERS]:
        if not consumers_of(topic):
            rows.append((topic, "nobody", by_topic[topic], *("–" for _ in Fate), "–"))
        rows += [row(topic, consumer, [topic]) for consumer in consumers_of(topic)]
    for consumer in CONSUMERS[REVIEWS.name]:
        rows.append(row(f"{REVIEWS.name.format(department='*')} ({len(reviews)} topics)", consumer, reviews))
        rows += [wrong for topic in reviews if (wrong := row(topic, consumer, [topic]))[-1]]
    return rows


# --- the drill


def marked(world: World) -> list[str]:
    """Documents of the services that tell what only replays under known ids told."""
    looked_at = {
        "intake": ("records", "items", "applications", "timeline", "subjects"),
        "routing": ("referrals",),
        "dept-adapter": ("reviews",),
        "sync": ("records", "deliveries"),
        "notify": ("messages", "emails", "office_notices"),
    }
    return [
        f"{service}.{name} {document['_id']}"
        for service, names in looked_at.items()
        for name in names
        for document in world.database(service)[name].find()
        if any(mark in str(document) for mark in (MARK, "2999-12-31", "2999, 12, 31"))
    ]


async def one_review_each(world: World) -> None:
    """An application with a record for each department the others do not meet, so that most review topics have a genuine event."""
    others = [d for d in world.catalogue.departments if d.slug not in (*API, *DESKS)]
    slugs = [d.slug for d in others if "administrative_penalty" in d.categories]
    company = await world.company(*(world.row(slug) for slug in slugs))
    (await world.submit(company)).ok()


def _split(whole: Population, first: int) -> tuple[Population, Population]:
    return Population(whole.companies[:first]), Population(whole.companies[first:])


async def drill(count: int, good: int, seed: int, broker: Broker) -> None:
    """Run it. Raises DrillFailedError when a promise did not hold."""
    promises = Promises()
    topics = expand(d.slug for d in load_catalogue().departments)
    async with drill_world(broker) as world:
        everybody = population(seed, good)
        await everybody.publish(world, world.stack.data_dir)
        early, later = _split(everybody, _WARM_UP)
        first, rest = Citizens(world, early, seed), Citizens(world, later, seed)
        officers = Officers(world, everybody, first, seed)
        async with officers.working(), memory(world) as seen:
            await one_review_each(world)
            await first.apply_all(0)
            await until_ended(world, len(first.acknowledged))
            genuine = await genuine_messages(world, topics)
            concerned = await concerns(world)
            await until_taken(world, genuine, concerned)
            console.print(
                f"seed {seed}: genuine events in {len(genuine)} of {len(topics)} topics; now {count:,} hostile ones"
            )
            seen.before = world.stack.memory()
            pids, before = world.stack.pids(), await account(world, concerned)
            hostile = Hostile(seed, world.catalogue, genuine)
            applying = asyncio.create_task(rest.apply_all(count / 4_000))
            started = time.monotonic()
            sent = await send(world, hostile, list(topics), count, seed)
            await applying
            done, finished = await until_accounted(world, before, expected(sent, concerned), concerned)
            with contextlib.suppress(DrillFailedError):  # the account is worth seeing all the same
                await until_ended(world, good)
        rows = account_rows(list(topics), sent, done)
        consumed = sum(done.values())
        console.print(table("kinds sent", ("kind", "number"), sorted(sent.kinds.items())))
        columns = ("topic", "consumer", "sent", *(fate.value for fate in Fate), "difference")
        console.print(table("account", columns, rows))
        console.print(seen.table("memory, MB"))
        console.print(
            f"sent {count / sent.seconds:,.0f} events/s; accounted for {consumed:,} at their consumers,"
            f" {consumed / (finished - started):,.0f} events/s"
        )
        promises.check(all(row[-1] in (0, "–") for row in rows), "every hostile event is accounted for")
        promises.check(world.stack.pids() == pids, "no process has ended")
        ready = [
            service
            for service in SERVICES
            if (await world.ask("GET", world.url(service, "/readyz"))).status != 200
        ]
        promises.check(not ready, f"all services are ready {ready or ''}")
        refused = [*first.refused, *rest.refused]
        promises.check(
            ended(world) == good and not refused, f"{ended(world)} of {good} good applications ended"
        )
        found = marked(world)
        promises.check(not found, f"replays under known ids had no effect {found[:3] or ''}")
        parked = sum(world.database(service)["parked_keys"].count_documents({}) for service in SERVICES)
        promises.check(not parked, f"nothing is parked ({parked})")
    promises.settle()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100_000, help="hostile events")
    parser.add_argument("--good", type=int, default=300, help="good applications in between")
    parser.add_argument("--seed", type=int, default=20260401)
    parser.add_argument("--broker", type=Broker, default=Broker.APACHE)
    arguments = parser.parse_args()
    main(drill(arguments.count, arguments.good, arguments.seed, arguments.broker))
