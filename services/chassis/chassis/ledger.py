"""What this service has emitted, and what its consumers have taken: the books that ``xinfu parity`` compares (scope ``operations``).

Ids only, page by page, each page a look-up or two by index. What expires never counts as missing: no event older than the
retention of the outbox is told, and the inbox keeps its ids for longer (checked in settings).
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from bson.codec_options import CodecOptions
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime

from chassis.auth import require
from chassis.consumer import BatchConsumer
from chassis.db import Database, Document
from chassis.outbox import Outbox
from chassis.problems import Problem
from contracts.envelope import source_of
from contracts.errors import ProblemCode
from contracts.http.verification import (
    MAX_IDS,
    Consumer,
    Consumers,
    IdList,
    IdPage,
    IdQuestion,
    InboxQuestion,
    OutboxEvent,
    OutboxPage,
    UnreadableRow,
)
from contracts.tokens import Claims, Scope

_PENDING_AT_MOST = 10_000
_UNREADABLE_AT_MOST = 100
_TOLD = {"headers": 1, "key": 1, "created_at": 1, "published_at": 1, "replays": 1, "seq": 1}
_ANY_TEXT: CodecOptions[Document] = CodecOptions(
    tz_aware=True, tzinfo=UTC, unicode_decode_error_handler="replace"
)
"""A row with a text that is not UTF-8 shall not hide the others."""

Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
Limit = Annotated[int, Query(ge=1, le=MAX_IDS)]


class Ledger:
    """The books of one service."""

    def __init__(self, name: str, database: Database, outbox: Outbox, retention_days: int) -> None:
        self.source = source_of(name)
        self._outbox = outbox
        self._rows = database.collection("outbox").with_options(codec_options=_ANY_TEXT)
        self._inbox = database.collection("inbox")
        self._dead_letters = database.collection("dead_letters")
        self._retention = timedelta(days=retention_days)

    async def published(
        self, topic: str, since: datetime | None, until: datetime | None, after: int | None, limit: int
    ) -> OutboxPage:
        """Events of a topic in the order they are published in, from ``since`` on, published until ``until``."""
        if after is None:
            oldest = datetime.now(UTC) - self._retention
            start = await self._outbox.seq_at(topic, max(since or oldest, oldest)) - 1
        else:
            start = after
        query: Document = {"topic": topic, "seq": {"$gt": start}, "pending": {"$ne": True}}
        if until is not None:
            query["$or"] = [{"published_at": {"$lte": until}}, {"published_at": None}]
        rows = await self._rows.find(query, _TOLD).sort("seq", 1).limit(limit).to_list(limit)
        told = [_told(row) for row in rows]
        events = [each for each in told if isinstance(each, OutboxEvent)]
        return OutboxPage(
            events=[e for e in events if since is None or e.created_at >= since],
            unreadable=[
                *(each for each in told if isinstance(each, UnreadableRow)),
                *(await self._without_place(topic) if after is None else ()),
            ],
            pending=await self._pending(topic, until) if after is None else None,
            next=str(rows[-1]["seq"]) if len(rows) == limit else None,
        )

    async def _without_place(self, topic: str) -> list[UnreadableRow]:
        """Rows that no page can hold, as they lack their place in the order; those without a topic too."""
        query = {"topic": {"$in": [topic, None]}, "seq": None}
        rows = self._rows.find(query, {"_id": 1}).limit(_UNREADABLE_AT_MOST)
        return [UnreadableRow(id=_shown(row["_id"]), problem="lacks topic or seq") async for row in rows]

    async def _pending(self, topic: str, until: datetime | None) -> int:
        waiting: Document = {"bucket": {"$gte": 0}, "pending": True, "topic": topic}
        if until is not None:
            waiting["created_at"] = {"$lte": until}
        return await self._rows.count_documents(waiting, limit=_PENDING_AT_MOST)

    async def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that were never emitted here."""
        found = {row["_id"] async for row in self._rows.find({"_id": {"$in": list(ids)}}, {"_id": 1})}
        return [id_ for id_ in ids if id_ not in found]

    async def missing(self, consumer: str, source: str, ids: Sequence[str]) -> list[str]:
        """Those of the ids that the consumer has neither done, nor parked, nor put aside as dead letters."""
        identities = {f"{source}#{id_}": id_ for id_ in ids}
        taken = self._inbox.find({"_id": {"$in": [f"{consumer}:{i}" for i in identities]}}, {"_id": 1})
        for row in await taken.to_list(None):
            identities.pop(row["_id"].removeprefix(f"{consumer}:"), None)
        if identities:
            dead = self._dead_letters.find(
                {"event_id": {"$in": list(identities)}, "consumer": consumer}, {"event_id": 1}
            )
            for row in await dead.to_list(None):
                identities.pop(row["event_id"], None)
        return list(identities.values())

    async def taken(
        self, consumer: str, source: str, since: datetime | None, after: str | None, limit: int
    ) -> IdPage:
        """Ids of one source that the consumer has taken, in order.

        None is told that is so old that the outbox it came from, which has the same retention, may have dropped it.
        """
        prefix = f"{consumer}:{source}#"
        oldest = datetime.now(UTC) - self._retention + timedelta(days=1)
        query: Document = {
            "_id": {"$gt": prefix + (after or ""), "$lt": prefix[:-1] + chr(ord("#") + 1)},
            "at": {"$gte": max(since or oldest, oldest)},
        }
        rows = await self._inbox.find(query, {"_id": 1}).sort("_id", 1).limit(limit).to_list(limit)
        ids = [row["_id"].removeprefix(prefix) for row in rows]
        return IdPage(ids=ids, next=ids[-1] if len(ids) == limit else None)


def _told(row: Document) -> OutboxEvent | UnreadableRow:
    try:
        headers = row["headers"]
        if headers["ce_id"] != row["_id"]:
            raise ValueError("its ce_id is not its _id")
        return OutboxEvent(
            id=row["_id"],
            source=headers["ce_source"],
            type=headers["ce_type"],
            key=row["key"],
            created_at=row["created_at"],
            published_at=row["published_at"],
            replays=row.get("replays", 0),
        )
    except KeyError as error:
        problem = f"lacks {error}"
    except (TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        problem = f"{type(error).__name__}: {error}"
    return UnreadableRow(id=_shown(row["_id"]), problem=problem[:300])


def _shown(row_id: Any) -> str:
    return str(row_id)[:200]


async def _consumer(consumer: BatchConsumer) -> Consumer:
    spec = consumer.spec
    return Consumer(
        name=spec.name,
        topics=list(spec.topics),
        types=spec.event_types,
        taken_until=await consumer.taken_until(),
    )


def ledger_router(retention_days: int) -> APIRouter:
    """The routes; ``retention_days``: of the outbox."""
    router = APIRouter(prefix="/v1/operations", tags=["运维：对账"])

    async def ledger(request: Request) -> Ledger:
        runtime = request.app.state.runtime
        return Ledger(runtime.name, runtime.database, runtime.outbox, retention_days)

    books = Annotated[Ledger, Depends(ledger)]

    @router.get("/outbox/events", summary="某主题已发布的事件")
    async def outbox_events(
        _operator: Operator,
        ledger: books,
        topic: str,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        after: Annotated[int | None, Query(ge=-1)] = None,
        limit: Limit = MAX_IDS,
    ) -> OutboxPage:
        """Created from ``since`` on and published until ``until``, in the order they are published in."""
        return await ledger.published(topic, since, until, after, limit)

    @router.post("/outbox/unknown", summary="本服务从未发出的事件编号")
    async def outbox_unknown(_operator: Operator, ledger: books, question: IdQuestion) -> IdList:
        """Those of the ids that the outbox does not hold."""
        return IdList(ids=await ledger.unknown(question.ids))

    @router.get("/consumers", summary="本服务的消费者")
    async def consumers(request: Request, _operator: Operator, ledger: books) -> Consumers:
        """What is consumed here, and how far it is."""
        own: list[BatchConsumer] = request.app.state.runtime.consumers
        return Consumers(source=ledger.source, consumers=await asyncio.gather(*map(_consumer, own)))

    @router.post("/inbox/missing", summary="某消费者尚未收到的事件编号")
    async def inbox_missing(
        request: Request, _operator: Operator, ledger: books, question: InboxQuestion
    ) -> IdList:
        """Those of the ids that have neither taken effect, nor are parked, nor were put aside for a person."""
        _known(request, question.consumer)
        return IdList(ids=await ledger.missing(question.consumer, question.source, question.ids))

    @router.get("/inbox/ids", summary="某消费者已收到的事件编号")
    async def inbox_ids(
        request: Request,
        _operator: Operator,
        ledger: books,
        consumer: str,
        source: str,
        since: AwareDatetime | None = None,
        after: str | None = None,
        limit: Limit = MAX_IDS,
    ) -> IdPage:
        """Those of one source, taken from ``since`` on, in order."""
        _known(request, consumer)
        return await ledger.taken(consumer, source, since, after, limit)

    return router


def _known(request: Request, consumer: str) -> None:
    own: list[BatchConsumer] = request.app.state.runtime.consumers
    if consumer not in {each.spec.name for each in own}:
        raise Problem(
            ProblemCode.NOT_FOUND, f"本服务没有消费者“{consumer}”，请查看 /v1/operations/consumers。"
        )
