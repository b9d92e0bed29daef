"""What an operator may see and do at every service: ``/v1/operations`` (scope ``operations``; shapes: contracts.http.operations)."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from chassis.audit import Audit
from chassis.auth import require
from chassis.dead_letter_desk import DeadLetterDesk
from chassis.overview import Overview
from chassis.problems import Problem
from chassis.replay import Place, Replays
from chassis.settings import ChassisSettings
from contracts.errors import ProblemCode
from contracts.http.operations import (
    AuditEntry,
    AuditPage,
    DeadLetterPage,
    DeadLetterState,
    DeadLetterWhole,
    Discard,
    EventOutcome,
    OutboxStatus,
    Replay,
    Replayed,
    ServiceStatus,
    Why,
)
from contracts.tokens import Claims, Scope
from contracts.topics import Topic
from contracts.working_days import WorkCalendar

Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
Limit = Annotated[int, Query(ge=1, le=200)]


# the service is put together in chassis.service, which mounts these routes: they take its parts from the application


async def _audit(request: Request) -> Audit:
    return Audit(request.app.state.runtime.database)


async def _replays(request: Request) -> Replays:
    runtime = request.app.state.runtime
    return Replays(runtime.database, runtime.outbox, await _audit(request))


async def _desk(request: Request) -> DeadLetterDesk:
    runtime = request.app.state.runtime
    return DeadLetterDesk(runtime.database, runtime.dead_letters, runtime.consumers, await _audit(request))


async def _overview(request: Request) -> Overview:
    runtime = request.app.state.runtime
    return Overview(runtime.name, runtime.database, await _replays(request), runtime.consumers, runtime.loops)


Desk = Annotated[DeadLetterDesk, Depends(_desk)]


def operations_router(
    settings: ChassisSettings, topics: Mapping[str, Topic], calendar: WorkCalendar | None
) -> APIRouter:
    """The routes; ``topics``: those the service owns or consumes, as declared; ``calendar``: by which it counts working days."""
    router = APIRouter(prefix="/v1/operations", tags=["运维"])

    @router.get("/status", summary="服务一览")
    async def status(_operator: Operator, overview: Annotated[Overview, Depends(_overview)]) -> ServiceStatus:
        """Consumers with their lag, outbox, dead letters, database and bus. Takes up to 15 seconds when those do not answer."""
        return await overview.look(settings, topics, calendar)

    @router.get("/dead-letters", summary="死信与停放的键")
    async def dead_letters(
        _operator: Operator,
        desk: Desk,
        state: DeadLetterState | None = None,
        reason: Annotated[str | None, Query(max_length=200)] = None,
        consumer: Annotated[str | None, Query(max_length=200)] = None,
        after: str | None = None,
        limit: Limit = 50,
    ) -> DeadLetterPage:
        """By default all that nobody has dealt with: dead keys, open letters, parked keys. ``reason``: a part of it."""
        return await desk.page(state, reason, consumer, after, limit)

    @router.get("/dead-letters/{identity}", summary="一条死信或一个停放的键的全部内容")
    async def dead_letter(_operator: Operator, desk: Desk, identity: str) -> DeadLetterWhole:
        """With its message, the value cut after 100,000 characters."""
        return await desk.whole(identity)

    @router.post("/dead-letters/{identity}/dry-run", summary="试运行：若重新处理会怎样")
    async def dry_run(_operator: Operator, desk: Desk, identity: str) -> EventOutcome:
        """Runs the handler and takes everything back; of a key for its first event."""
        return await desk.dry_run(identity)

    @router.post("/dead-letters/{identity}/redrive", summary="重新处理")
    async def redrive(operator: Operator, desk: Desk, identity: str, why: Why) -> EventOutcome:
        """Tries it again. What has already taken effect is refused (409 already-succeeded)."""
        return await desk.redrive(identity, operator.sub, why.reason)

    @router.post("/dead-letters/{identity}/discard", summary="放弃")
    async def discard(operator: Operator, desk: Desk, identity: str, why: Discard) -> EventOutcome:
        """It will never take effect."""
        return await desk.discard(identity, operator.sub, why.reason, whole_key=why.whole_key)

    @router.get("/outbox", summary="发件箱")
    async def outbox(_operator: Operator, replays: Annotated[Replays, Depends(_replays)]) -> OutboxStatus:
        """What waits to be published, and what can be replayed, by topic."""
        return await replays.status()

    @router.post("/outbox/replay", summary="重放发件箱")
    async def replay(
        operator: Operator, replays: Annotated[Replays, Depends(_replays)], body: Replay
    ) -> Replayed:
        """Marks published events for publishing again, a step of at most 1,000; ask again with ``after`` = ``next``."""
        by = operator.sub
        if body.ids is not None:
            if body.topic or body.since or body.after:
                raise Problem(ProblemCode.VALIDATION, "ids 不能与 topic、since、after 同用。")
            return Replayed(marked=await replays.some(body.ids, by, body.reason), next=None)
        if body.topic is not None and body.topic not in (known := await replays.topics()):
            raise Problem(
                ProblemCode.NOT_FOUND,
                f"发件箱里没有主题 {body.topic} 的事件；有的是：{'、'.join(known) or '（空）'}。",
            )
        try:
            after = Place.read(body.after) if body.after else None
        except ValueError:
            raise Problem(ProblemCode.VALIDATION, "after 须取自上一次回答的 next。") from None
        marked, place = await replays.step(body.topic, body.since, after, by, body.reason)
        return Replayed(marked=marked, next=place and place.write())

    @router.get("/audit", summary="操作记录")
    async def audit(
        _operator: Operator,
        book: Annotated[Audit, Depends(_audit)],
        after: str | None = None,
        limit: Limit = 50,
    ) -> AuditPage:
        """Who changed what, when and why; the newest first."""
        documents = await book.page(after, limit)
        entries = [AuditEntry(id=document["_id"], **document) for document in documents]
        return AuditPage(entries=entries, next=entries[-1].id if len(entries) == limit else None)

    return router
