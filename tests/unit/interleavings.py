"""What the bus may do with events, as hypothesis strategies; and a consumer over its outbox without broker and database.

The bus promises that events of one topic and key, a stream, come in order, each at least once. So a delivery may mix
streams in any way, and repeat an event any time after its first delivery. The inbox drops the repetitions.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from hypothesis import strategies as st

from chassis.consumer import Handler
from chassis.db import Database, Document
from chassis.inbox import Received
from chassis.outbox import Outbox
from contracts.envelope import Envelope, event_id
from contracts.events import EVENTS, Event

T = TypeVar("T")


@st.composite
def deliveries(draw: st.DrawFn, streams: Sequence[Sequence[T]], *, repeats: int = 5) -> list[T]:
    """One order in which the bus may deliver these streams, with up to ``repeats`` repetitions."""
    order = draw(st.permutations([n for n, stream in enumerate(streams) for _ in stream]))
    queues = [iter(stream) for stream in streams]
    delivered = [next(queues[n]) for n in order]
    if delivered:
        for first in draw(st.lists(st.integers(0, len(delivered) - 1), max_size=repeats)):
            delivered.insert(draw(st.integers(first + 1, len(delivered))), delivered[first])
    return delivered


@st.composite
def batches(draw: st.DrawFn, streams: Sequence[Sequence[T]]) -> list[list[T]]:
    """A delivery cut into batches."""
    delivered = draw(deliveries(streams))
    cuts = sorted(draw(st.lists(st.integers(0, len(delivered)), max_size=4)))
    return [delivered[start:end] for start, end in zip([0, *cuts], [*cuts, len(delivered)], strict=True)]


def received(event: Event, cause: str = "") -> Received:
    """An event as it comes from the bus; the same content from the same cause has the same id."""
    identity = event_id(f"{cause}{event.model_dump_json()}", event.TYPE, event.key, 0)
    envelope = Envelope(identity, event.TYPE, "/test", event.key, datetime(2026, 11, 23, tzinfo=UTC))
    return Received(envelope, event, event.topic, event.key, b"", {})


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("it waits for something outside")


class Consumer:
    """A handler with its inbox and its real outbox, whose documents are ``outbox``."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._done: set[str] = set()
        self._transactions = 0
        self.outbox: list[Document] = []
        database = cast(Database, self)
        self._outbox = Outbox(database, source="/test", buckets=8, max_event_bytes=900_000)

    def take(self, batch: Iterable[Received], *, inbox: bool = True) -> None:
        """Process a batch in one transaction. Without ``inbox`` the handler gets the repetitions too."""
        fresh = list(batch)
        if inbox:
            fresh = [r for r in {r.identity: r for r in fresh}.values() if r.identity not in self._done]
            self._done |= {r.identity for r in fresh}
        finished(self._outbox.run(lambda unit: self._handler(unit, fresh)))

    @property
    def told(self) -> list[Event]:
        """The events of the outbox in the order of publication."""
        documents = sorted(self.outbox, key=lambda document: document["seq"])
        return [EVENTS[d["headers"]["ce_type"]].model_validate_json(d["value"]) for d in documents]

    # --- the parts of chassis.db.Database that the outbox needs

    def collection(self, _name: str) -> "Consumer":
        return self

    relaxed = collection

    async def transaction(self, work: Callable[[None], Awaitable[T]]) -> T:
        return await work(None)

    async def find_one_and_update(self, *_: object, **__: object) -> Document:
        self._transactions += 1
        return {"value": self._transactions}

    async def insert_many(self, documents: Sequence[Document], **_: object) -> None:
        self.outbox += documents
