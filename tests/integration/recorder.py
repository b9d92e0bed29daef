"""A handler that records what took effect, and fails where told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.events import Event, RecordPublished
from support import Harness, message, published, settings_for
from xinfu_local import Broker, Stack


class Recorder:
    """A handler that writes every event it sees into ``effects``, in order, and fails where told."""

    def __init__(self, prefix: str) -> None:
        self.prefix = f"rec_{prefix}"
        self.harness: Harness
        self.failing: set[str] = set()
        self.slow: set[str] = set()
        self.calls: list[int] = []
        self.before: Callable[[], Awaitable[None]] | None = None
        """Called before the effects are written."""
        self.after: Callable[[], Awaitable[None]] | None = None
        """Called after they are written, before the commit."""

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        mine = [r for r in batch if r.key.startswith(self.prefix)]
        self.calls.append(len(mine))
        for received in mine:
            if received.key in self.failing:
                raise RuntimeError(f"told to fail on {received.key}")
            if received.key in self.slow:
                await asyncio.sleep(60)
        if mine:
            if self.before:
                await self.before()
            effects = self.harness.database.collection("effects")
            counter = self.harness.database.collection("counts")
            before = await counter.find_one({"_id": "n"}, session=unit.session)
            first = int(before["n"]) if before else 0
            await counter.update_one(
                {"_id": "n"}, {"$inc": {"n": len(mine)}}, upsert=True, session=unit.session
            )
            await effects.insert_many(
                [
                    {"n": first + i, "key": r.key, "id": r.id, "document": _document(r)}
                    for i, r in enumerate(mine)
                ],
                session=unit.session,
            )
            if self.after:
                await self.after()

    async def seen(self) -> list[str]:
        """Document numbers in the order they took effect."""
        effects = self.harness.database.collection("effects")
        return [doc["document"] async for doc in effects.find().sort("n", 1)]


def _document(received: Received) -> str:
    assert isinstance(received.event, RecordPublished)
    return received.event.record.document_number


def harness(
    infra: Stack,
    broker: Broker,
    recorder: Recorder,
    name: str | None = None,
    events: frozenset[type[Event]] | None = None,
    **overrides: object,
) -> Harness:
    """A consumer with this recorder as its handler."""
    made = Harness(settings_for(infra, broker, **overrides), recorder, name, events)
    recorder.harness = made
    return made


def record(recorder: Recorder, n: int) -> str:
    """The n-th record of a recorder, as ``support.published`` wants it."""
    return f"{recorder.prefix.removeprefix('rec_')}{n:016x}"


def numbered(recorder: Recorder, n: int, keys: int) -> tuple[str, dict[str, str], bytes]:
    """The n-th message, of the key n modulo ``keys``."""
    event = published(record(recorder, n % keys), document_number=f"文{n}号")
    return message(event, f"{recorder.prefix}-{n}")


def by_key(seen: Sequence[str], keys: int) -> list[list[int]]:
    """Numbers of messages in the order they took effect, for each key."""
    numbers = [int(document[1:-1]) for document in seen]
    return [[n for n in numbers if n % keys == key] for key in range(keys)]
