"""A running service at a glance: database, bus, consumers with their lag, outbox, dead letters."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from aiokafka.errors import KafkaError
from pymongo.errors import PyMongoError

from chassis.background import Loop
from chassis.bus_look import Bus, connected_bus
from chassis.calendar_watch import look_at
from chassis.consumer import BatchConsumer
from chassis.db import Database, Document, describe
from chassis.dead_letters import LetterState
from chassis.parking import KeyState
from chassis.replay import Replays
from chassis.settings import ChassisSettings
from contracts.http.operations import (
    COUNTED_AT_MOST,
    BusStatus,
    ConsumerStatus,
    DatabaseStatus,
    LoopStatus,
    OutboxStatus,
    ServiceStatus,
    TopicLag,
)
from contracts.topics import Topic
from contracts.working_days import WorkCalendar

_LOOK_SECONDS = 5.0
_LATELY = timedelta(minutes=15)


class Overview:
    """Looks at everything one service depends on and has in hand."""

    def __init__(
        self,
        name: str,
        database: Database,
        replays: Replays,
        consumers: Sequence[BatchConsumer],
        loops: Sequence[Loop],
    ) -> None:
        self._name = name
        self._db = database
        self._replays = replays
        self._consumers = consumers
        self._loops = loops

    async def look(
        self, settings: ChassisSettings, topics: Mapping[str, Topic], calendar: WorkCalendar | None
    ) -> ServiceStatus:
        """Everything at a glance; what does not answer within some seconds is told as a problem."""
        database, (bus, lags) = await asyncio.gather(self._database(), self._bus(settings, topics))
        outbox: OutboxStatus | None = None
        letters: dict[str, int] = {}
        parked: dict[str, tuple[int, int, int]] = {}
        if database.problem is None:
            outbox = await self._replays.status()
            letters = await self._open_letters()
            parked = {c.spec.name: await self._parked(c.spec.name) for c in self._consumers}
        consumers = []
        for consumer in self._consumers:
            spec = consumer.spec
            parked_keys, dead_keys, parked_events = parked.get(spec.name, (0, 0, 0))
            consumers.append(
                ConsumerStatus(
                    name=spec.name,
                    topics=list(spec.topics),
                    event_types=spec.event_types,
                    lag=consumer.lag(),
                    stalled_seconds=round(consumer.stalled_seconds(), 1),
                    parked_keys=parked_keys,
                    dead_keys=dead_keys,
                    parked_events=parked_events,
                    bus_lag=lags.get(spec.name),
                )
            )
        return ServiceStatus(
            service=self._name,
            at=datetime.now(UTC),
            database=database,
            bus=bus,
            consumers=consumers,
            failing_loops=list(self._failing()),
            outbox=outbox,
            open_dead_letters=letters,
            calendar=calendar and look_at(calendar),
        )

    def _failing(self) -> Iterator[LoopStatus]:
        since = datetime.now(UTC) - _LATELY
        for loop in self._loops:
            if lately := [step for step in loop.failed if step.at >= since]:
                last = lately[-1]
                yield LoopStatus(
                    name=loop.name, failed=len(lately), last_failed_at=last.at, last_error=last.error
                )

    async def _database(self) -> DatabaseStatus:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                began = datetime.now(UTC)
                hello = await self._db.hello()
                middle = began + (datetime.now(UTC) - began) / 2
                lifetime = await self._db.parameter("transactionLifetimeLimitSeconds")
                window = await self._db.parameter("minSnapshotHistoryWindowInSeconds")
                missing = await self._db.missing_indexes()
        except (PyMongoError, TimeoutError) as error:
            return DatabaseStatus(problem=describe(error))
        return DatabaseStatus(
            problem=None,
            replica_set=hello.get("setName"),
            primary=hello.get("me"),
            members=len(hello.get("hosts", [])),
            clock_ahead_seconds=round((hello["localTime"] - middle).total_seconds(), 3),
            transaction_lifetime_seconds=lifetime,
            snapshot_history_seconds=window,
            missing_indexes=missing,
        )

    async def _bus(
        self, settings: ChassisSettings, topics: Mapping[str, Topic]
    ) -> tuple[BusStatus, dict[str, list[TopicLag] | None]]:
        async def look(bus: Bus) -> tuple[BusStatus, dict[str, list[TopicLag] | None]]:
            status = await bus.status(topics, settings.kafka_replication_factor)
            there = {topic.topic for topic in status.topics if topic.partitions}
            lags = {
                c.spec.name: await bus.lag(c.spec.name, [t for t in c.spec.topics if t in there])
                for c in self._consumers
            }
            return status, lags

        try:
            async with (
                asyncio.timeout(2 * _LOOK_SECONDS),
                connected_bus(settings, f"{self._name}-operations") as bus,
            ):
                return await look(bus)
        except (KafkaError, OSError, TimeoutError) as error:
            return BusStatus(problem=f"{type(error).__name__}: {error}"[:300]), {}

    async def _open_letters(self) -> dict[str, int]:
        pipeline: list[Document] = [
            {"$match": {"state": LetterState.OPEN.value}},
            {"$limit": COUNTED_AT_MOST},
            {"$group": {"_id": "$reason", "number": {"$sum": 1}}},
        ]
        groups = self._db.collection("dead_letters").aggregate(pipeline)
        return {group["_id"]: group["number"] async for group in groups}

    async def _parked(self, consumer: str) -> tuple[int, int, int]:
        keys, events = self._db.collection("parked_keys"), self._db.collection("parked_events")
        parked, dead = [
            await keys.count_documents({"consumer": consumer, "state": state.value}, limit=COUNTED_AT_MOST)
            for state in (KeyState.PARKED, KeyState.DEAD)
        ]
        own = {"key_id": {"$gt": f"{consumer}|", "$lt": f"{consumer}}}"}}  # "}" follows "|"
        return parked, dead, await events.count_documents(own, limit=COUNTED_AT_MOST)
