"""The bus as it tells itself, for operators: its topics, and where a consumer group is in them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from chassis.bus import client_options
from chassis.settings import ChassisSettings
from contracts.http.operations import BusStatus, BusTopic, TopicLag
from contracts.topics import Topic

_OLDEST_SECONDS = 2.0


class Bus:
    """Looks at the bus with connections of its own, which join no group."""

    def __init__(self, admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> None:
        self._admin = admin
        self._reader = reader

    async def status(self, topics: Mapping[str, Topic], wanted_replicas: int) -> BusStatus:
        """How the topics are, beside how they are declared."""
        cluster = await self._admin.describe_cluster()
        described = {
            topic["topic"]: topic["partitions"] for topic in await self._admin.describe_topics(list(topics))
        }
        return BusStatus(
            problem=None,
            brokers=len(cluster["brokers"]),
            wanted_replicas=wanted_replicas,
            topics=[
                BusTopic(
                    topic=name,
                    partitions=len(partitions := described.get(name, [])),
                    declared_partitions=declared.partitions,
                    replicas=min((len(p["replicas"]) for p in partitions), default=0),
                    in_sync_replicas=min((len(p["isr"]) for p in partitions), default=0),
                )
                for name, declared in topics.items()
            ],
        )

    async def lag(self, group: str, topics: Sequence[str]) -> list[TopicLag] | None:
        """Lag of a group by topic. None when the bus contradicts itself (an end before a committed offset: the bus lost data)."""
        described = await self._admin.describe_topics(list(topics))
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        committed = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
        # a reader that does not know its topics asks for them one by one, a tenth of a second each
        self._reader.assign(partitions)
        self._reader.pause(*partitions)
        starts = await self._reader.beginning_offsets(partitions)
        ends = await self._reader.end_offsets(partitions)
        # nothing committed so far: the group begins at the start
        places = {tp: committed[tp].offset if committed[tp].offset >= 0 else starts[tp] for tp in partitions}
        if any(places[tp] > ends[tp] for tp in partitions):
            return None
        waiting = {tp: max(place, starts[tp]) for tp, place in places.items() if place < ends[tp]}
        oldest = await self._oldest(waiting)
        return [
            TopicLag(
                topic=topic,
                partitions=len(own),
                committed=sum(places[tp] for tp in own),
                end=sum(ends[tp] for tp in own),
                lag=sum(ends[tp] - places[tp] for tp in own),
                oldest_waiting_at=min((oldest[tp] for tp in own if tp in oldest), default=None),
            )
            for topic in topics
            if (own := [tp for tp in partitions if tp.topic == topic])
        ]

    async def _oldest(self, places: dict[TopicPartition, int]) -> dict[TopicPartition, datetime]:
        """When the event at each place was published, as far as it can be read in time."""
        if not places:
            return {}
        found: dict[TopicPartition, datetime] = {}
        self._reader.assign(list(places))
        for tp, offset in places.items():
            self._reader.seek(tp, offset)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OLDEST_SECONDS):
                while len(found) < len(places):
                    record = await self._reader.getone(*(places.keys() - found.keys()))
                    tp = TopicPartition(record.topic, record.partition)
                    found[tp] = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                    self._reader.pause(tp)
        return found


@asynccontextmanager
async def connected_bus(settings: ChassisSettings, client_id: str) -> AsyncIterator[Bus]:
    """Connections for some look-ups. Raises KafkaError when the bus does not answer."""
    options = {**client_options(settings), "client_id": client_id, "request_timeout_ms": 5_000}
    # the least of what lies there is enough; the reader joins no group
    reader = AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False, max_partition_fetch_bytes=1)
    admin = AIOKafkaAdminClient(**options)
    async with AsyncExitStack() as stack:
        for client in (admin, reader):
            await client.start()
            stack.push_async_callback(client.close if client is admin else client.stop)
        yield Bus(admin, reader)
