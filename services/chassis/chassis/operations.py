"""What an operator may see and do at every service: ``/v1/operations`` (scope ``operations``; shapes: contracts.http.operations).

Every change is audited in its own transaction: who (the token's subject), when, why and what came of it.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from aiokafka.errors import KafkaError
from fastapi import APIRouter, Depends, Query, Request
from pymongo.errors import PyMongoError

from chassis.audit import Audit
from chassis.auth import require
from chassis.bus_look import Bus, connected_bus
from chassis.consumer import BatchConsumer, Outcome, OutcomeKind
from chassis.db import Database, Document, Session, describe
from chassis.dead_letters import AlreadySucceededError, DeadLetters, LetterState, as_received
from chassis.inbox import Received
from chassis.outbox import Outbox
from chassis.parking import KeyState
from chassis.problems import Problem
from chassis.replay import Place, Replays
from chassis.settings import ChassisSettings
from chassis.unit_of_work import UnitOfWork
from contracts.envelope import MalformedEventError
from contracts.errors import ProblemCode
from contracts.http.operations import (
    COUNTED_AT_MOST,
    AuditEntry,
    AuditPage,
    BusStatus,
    ConsumerStatus,
    DatabaseStatus,
    DeadLetter,
    DeadLetterKind,
    DeadLetterPage,
    DeadLetterState,
    DeadLetterWhole,
    Discard,
    EmittedEvent,
    EventOutcome,
    Message,
    OutboxStatus,
    QueuedEvent,
    Replay,
    Replayed,
    ServiceStatus,
    TopicLag,
    Why,
)
from contracts.tokens import Claims, Scope
from contracts.topics import Topic, declaration

Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
Limit = Annotated[int, Query(ge=1, le=200)]

_LOOK_SECONDS = 5.0
_SHOWN_CHARACTERS = 100_000
_SCANNED = 1_000
_IDENTITIES_IN_AUDIT = 20


class Operations:
    """The operator's view of one running service."""

    def __init__(
        self,
        name: str,
        database: Database,
        outbox: Outbox,
        dead_letters: DeadLetters,
        consumers: Sequence[BatchConsumer],
    ) -> None:
        self.name = name
        self.audit = Audit(database)
        self.replays = Replays(database, outbox, self.audit)
        self._db = database
        self._letters = dead_letters
        self._consumers = consumers

    # --- status

    async def status(self, settings: ChassisSettings, topics: Mapping[str, Topic]) -> ServiceStatus:
        """Everything at a glance; what does not answer within some seconds is told as a problem."""
        database, (bus, lags) = await asyncio.gather(self._database(), self._bus(settings, topics))
        outbox: OutboxStatus | None = None
        letters: dict[str, int] = {}
        parked: dict[str, tuple[int, int, int]] = {}
        if database.problem is None:
            outbox = await self.replays.status()
            letters = await self._open_letters()
            parked = {c.spec.name: await self._parked(c.spec.name) for c in self._consumers}
        consumers = []
        for consumer in self._consumers:
            spec = consumer.spec
            parked_keys, dead_keys, parked_events = parked.get(spec.name, (0, 0, 0))
            known = {declaration(topic) for topic in spec.topics}
            consumers.append(
                ConsumerStatus(
                    name=spec.name,
                    topics=list(spec.topics),
                    event_types=sorted({cls.TYPE for topic in known if topic for cls in topic.events}),
                    lag=consumer.lag(),
                    stalled_seconds=round(consumer.stalled_seconds(), 1),
                    parked_keys=parked_keys,
                    dead_keys=dead_keys,
                    parked_events=parked_events,
                    bus_lag=lags.get(spec.name),
                )
            )
        return ServiceStatus(
            service=self.name,
            at=datetime.now(UTC),
            database=database,
            bus=bus,
            consumers=consumers,
            outbox=outbox,
            open_dead_letters=letters,
        )

    async def _database(self) -> DatabaseStatus:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                began = datetime.now(UTC)
                hello = await self._db.hello()
                middle = began + (datetime.now(UTC) - began) / 2
                missing = await self._db.missing_indexes()
        except (PyMongoError, TimeoutError) as error:
            return DatabaseStatus(problem=describe(error))
        return DatabaseStatus(
            problem=None,
            replica_set=hello.get("setName"),
            primary=hello.get("me"),
            members=len(hello.get("hosts", [])),
            clock_ahead_seconds=round((hello["localTime"] - middle).total_seconds(), 3),
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
                connected_bus(settings, f"{self.name}-operations") as bus,
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

    # --- dead letters

    async def page(
        self,
        state: DeadLetterState | None,
        reason: str | None,
        consumer: str | None,
        after: str | None,
        limit: int,
    ) -> DeadLetterPage:
        """A page of letters and keys; by default those that nobody has dealt with yet."""
        states = [state] if state else [DeadLetterState.DEAD, DeadLetterState.OPEN, DeadLetterState.PARKED]
        sources = [source for each in states for source in self._sources(each)]
        index, last = _read_cursor(after, len(sources))
        found: list[DeadLetter] = []
        scanned = 0
        while index < len(sources):
            documents = await sources[index](last, limit)
            for document in documents:
                each = _dead_letter(document)
                if len(found) == limit:
                    return DeadLetterPage(dead_letters=found, next=_write_cursor(index, last))
                last = document["_id"]
                scanned += 1
                if (consumer in (None, each.consumer)) and (reason is None or reason in each.reason):
                    found.append(each)
            if len(documents) < limit:
                index, last = index + 1, None
            elif scanned >= _SCANNED:
                break
        more = index < len(sources)
        return DeadLetterPage(dead_letters=found, next=_write_cursor(index, last) if more else None)

    def _sources(
        self, state: DeadLetterState
    ) -> list[Callable[[str | None, int], Awaitable[Sequence[Document]]]]:
        if state in (DeadLetterState.DEAD, DeadLetterState.PARKED):
            return [partial(c.parking.page, KeyState(state.value)) for c in self._consumers]
        return [partial(self._letters.page, LetterState(state.value))]

    async def whole(self, identity: str) -> DeadLetterWhole:
        """One of them whole. Raises Problem (404)."""
        kind, own_id = _read_id(identity)
        if kind is DeadLetterKind.LETTER:
            letter = await self._letter(own_id)
            return DeadLetterWhole(
                dead_letter=_dead_letter(letter), message=_message(letter), queued=0, events=[]
            )
        key, parking = await self._key(own_id), self._consumer(own_id).parking
        head = await parking.head(own_id)
        return DeadLetterWhole(
            dead_letter=_dead_letter(key),
            message=head and _message(head["message"]),
            queued=key["queued"],
            events=[QueuedEvent.model_validate(event) for event in key["events"]],
        )

    async def dry_run(self, identity: str) -> EventOutcome:
        """What a redrive would do. Raises Problem (404)."""
        kind, own_id = _read_id(identity)
        consumer = self._consumer(own_id)
        try:
            if kind is DeadLetterKind.LETTER:
                letter = await self._letter(own_id)
                promised = letter["state"] == LetterState.OPEN and bool(letter.get("rejected"))
                return _outcome(await consumer.dry_run(as_received(letter), promised=promised))
            await self._key(own_id)
            head = await consumer.parking.head(own_id)
            if head is None:
                raise _not_found()
            return _outcome(await consumer.dry_run(Received.from_document(head["message"]), promised=True))
        except MalformedEventError as error:
            return _outcome(Outcome(OutcomeKind.WOULD_BE_REJECTED, error.reason, error.detail))

    async def redrive(self, identity: str, by: str, reason: str) -> EventOutcome:
        """Try it again. Raises Problem: 404, 409 when it has taken effect or somebody has dealt with it."""
        kind, own_id = _read_id(identity)
        consumer = self._consumer(own_id)
        if kind is DeadLetterKind.KEY:
            await self._key(own_id)

            async def again(session: Session) -> bool:
                done = await consumer.parking.redrive(own_id, session)
                if done:
                    await self._note(by, "redrive", reason, own_id, "queued", session)
                return done

            if not await self._db.transaction(again):
                raise _not_found()
            consumer.retry_loop.wake()
            return _plain("queued")
        letter = _still_open(await self._letter(own_id))

        async def note(unit: UnitOfWork) -> None:
            await self._note(by, "redrive", reason, own_id, OutcomeKind.SUCCEEDED.value, unit.session)

        try:
            outcome = await consumer.redrive(letter, note)
        except AlreadySucceededError:
            await self._note(by, "redrive", reason, own_id, "refused: already succeeded")
            raise _already_succeeded() from None
        if outcome.kind is not OutcomeKind.SUCCEEDED:
            result = f"{outcome.kind.value}: {outcome.reason} {outcome.detail or ''}"[:1000]
            await self._note(by, "redrive", reason, own_id, result)
        return _outcome(outcome)

    async def discard(self, identity: str, by: str, reason: str, *, whole_key: bool) -> EventOutcome:
        """Give it up. Raises Problem: 404, 409 when somebody has dealt with it."""
        kind, own_id = _read_id(identity)
        consumer = self._consumer(own_id)
        if kind is DeadLetterKind.LETTER:
            _still_open(await self._letter(own_id))

            async def mark(session: Session) -> bool:
                done = await self._letters.mark(own_id, LetterState.DISCARDED, session)
                if done:
                    await self._note(by, "discard", reason, own_id, "discarded", session)
                return done

            if not await self._db.transaction(mark):
                raise _dealt_with()
            return _plain("discarded")
        await self._key(own_id)
        dropped = 0
        # an attempt that is under way conflicts with this, and one of the two is repeated
        while True:

            async def drop(session: Session) -> int:
                gone = await consumer.parking.discard(own_id, only_head=not whole_key, session=session)
                if gone:
                    more = (
                        f" and {len(gone) - _IDENTITIES_IN_AUDIT} more"
                        if len(gone) > _IDENTITIES_IN_AUDIT
                        else ""
                    )
                    result = f"discarded {', '.join(gone[:_IDENTITIES_IN_AUDIT])}{more}"
                    await self._note(by, "discard", reason, own_id, result, session)
                return len(gone)

            gone = await self._db.transaction(drop)
            dropped += gone
            if not gone or not whole_key:
                break
        if not dropped:
            raise _not_found()
        consumer.retry_loop.wake()
        return EventOutcome(outcome="discarded", reason=None, detail=f"events: {dropped}", emits=[])

    async def _note(
        self, by: str, action: str, reason: str, subject: str, result: str, session: Session | None = None
    ) -> None:
        await self.audit.add(
            by=by, action=action, reason=reason, subject=subject, result=result, session=session
        )

    def _consumer(self, own_id: str) -> BatchConsumer:
        """Ids of letters and keys begin with the consumer's name."""
        name = own_id.partition("|")[0]
        for consumer in self._consumers:
            if consumer.spec.name == name:
                return consumer
        raise _not_found()

    async def _letter(self, own_id: str) -> Document:
        letter = await self._letters.get(own_id)
        if letter is None:
            raise _not_found()
        return letter

    async def _key(self, own_id: str) -> Document:
        key = await self._consumer(own_id).parking.get(own_id)
        if key is None:
            raise _not_found()
        return key


# --- shapes of documents


def _write_id(kind: DeadLetterKind, own_id: str) -> str:
    return base64.urlsafe_b64encode(f"{kind.value[0]}{own_id}".encode()).decode().rstrip("=")


def _read_id(text: str) -> tuple[DeadLetterKind, str]:
    try:
        written = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        raise _not_found() from None
    for kind in DeadLetterKind:
        if written[:1] == kind.value[0]:
            return kind, written[1:]
    raise _not_found()


def _write_cursor(index: int, last: str | None) -> str:
    return base64.urlsafe_b64encode(json.dumps([index, last]).encode()).decode()


def _read_cursor(text: str | None, sources: int) -> tuple[int, str | None]:
    if text is None:
        return 0, None
    try:
        index, last = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, TypeError):
        index, last = -1, None
    if not isinstance(index, int) or not 0 <= index < sources or not isinstance(last, str | None):
        raise Problem(ProblemCode.VALIDATION, "after 须取自上一页的 next，且查询条件不变。")
    return index, last


def _text(data: bytes | str | None) -> str:
    return data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data or ""


def _dead_letter(document: Document) -> DeadLetter:
    if "first_failed_at" not in document:
        return DeadLetter(
            id=_write_id(DeadLetterKind.LETTER, document["_id"]),
            kind=DeadLetterKind.LETTER,
            state=document["state"],
            consumer=document["consumer"],
            topic=document["topic"],
            key=_text(document.get("key")),
            reason=document["reason"],
            detail=document["detail"],
            at=document["at"],
            event_id=document.get("event_id"),
            size_bytes=document.get("size_bytes"),
            attempts=None,
            next_attempt_at=None,
        )
    kind, _, message = str(document["reason"]).partition(": ")
    return DeadLetter(
        id=_write_id(DeadLetterKind.KEY, document["_id"]),
        kind=DeadLetterKind.KEY,
        state=document["state"],
        consumer=document["_id"].partition("|")[0],
        topic=document["topic"],
        key=document["key"],
        reason=kind,
        detail=message,
        at=document["first_failed_at"],
        event_id=document.get("failing_event"),
        size_bytes=None,
        attempts=document["attempts"],
        next_attempt_at=document["next_attempt_at"] if document["state"] == KeyState.PARKED else None,
    )


def _message(document: Document) -> Message:
    """Of a letter (its headers are bytes) or of a parked event (text)."""
    value: str | None = None
    encoding = "utf-8"
    if (data := document.get("value")) is not None:
        try:
            value = bytes(data).decode()
        except UnicodeDecodeError:
            value, encoding = base64.b64encode(data).decode(), "base64"
    return Message(
        topic=document["topic"],
        partition=document.get("partition"),
        offset=document.get("offset"),
        headers=[(name, _text(each)) for name, each in document["headers"]],
        encoding=encoding,
        value=value and value[:_SHOWN_CHARACTERS],
        value_dropped=bool(document.get("value_dropped")),
        truncated=value is not None and len(value) > _SHOWN_CHARACTERS,
    )


def _outcome(outcome: Outcome) -> EventOutcome:
    return EventOutcome(
        outcome=outcome.kind.value,
        reason=outcome.reason,
        detail=outcome.detail,
        emits=[EmittedEvent(type=e.type, key=e.key, topic=e.topic) for e in outcome.emits],
    )


def _plain(outcome: str) -> EventOutcome:
    return EventOutcome(outcome=outcome, reason=None, detail=None, emits=[])


def _not_found() -> Problem:
    return Problem(
        ProblemCode.NOT_FOUND,
        "没有这条死信或停放的键：可能已处理完，或编号不全。请用 xinfu dlq list 重新查看。",
    )


def _already_succeeded() -> Problem:
    return Problem(
        ProblemCode.ALREADY_SUCCEEDED, "该事件已经生效，无需也不能再次处理；可以放弃（discard）这条死信。"
    )


def _dealt_with() -> Problem:
    return Problem(ProblemCode.INVALID_TRANSITION, "这条死信已被他人处理，请重新查看（操作记录里有经过）。")


def _still_open(letter: Document) -> Document:
    if letter["state"] == LetterState.REDRIVEN:
        raise Problem(ProblemCode.ALREADY_SUCCEEDED, "这条死信已重新处理成功，无需再做；经过见操作记录。")
    if letter["state"] != LetterState.OPEN:
        raise Problem(
            ProblemCode.INVALID_TRANSITION,
            "这条死信已被放弃，不能再处理；确需生效，请让发送方重发（用新的 ce_id）。",
        )
    return letter


# --- routes


def operations_router(settings: ChassisSettings, topics: Mapping[str, Topic]) -> APIRouter:
    """The routes; ``topics``: those the service owns or consumes, as declared."""
    router = APIRouter(prefix="/v1/operations", tags=["运维"])

    def operations(request: Request) -> Operations:
        runtime = request.app.state.runtime
        return Operations(
            runtime.name, runtime.database, runtime.outbox, runtime.dead_letters, runtime.consumers
        )

    Service = Annotated[Operations, Depends(operations)]  # noqa: N806 (a type)

    @router.get("/status", summary="服务一览")
    async def status(_operator: Operator, service: Service) -> ServiceStatus:
        """Consumers with their lag, outbox, dead letters, database and bus. Takes up to 15 seconds when those do not answer."""
        return await service.status(settings, topics)

    @router.get("/dead-letters", summary="死信与停放的键")
    async def dead_letters(
        _operator: Operator,
        service: Service,
        state: DeadLetterState | None = None,
        reason: Annotated[str | None, Query(max_length=200)] = None,
        consumer: Annotated[str | None, Query(max_length=200)] = None,
        after: str | None = None,
        limit: Limit = 50,
    ) -> DeadLetterPage:
        """By default all that nobody has dealt with: dead keys, open letters, parked keys. ``reason``: a part of it."""
        return await service.page(state, reason, consumer, after, limit)

    @router.get("/dead-letters/{identity}", summary="一条死信或一个停放的键的全部内容")
    async def dead_letter(_operator: Operator, service: Service, identity: str) -> DeadLetterWhole:
        """With its message, the value cut after 100,000 characters."""
        return await service.whole(identity)

    @router.post("/dead-letters/{identity}/dry-run", summary="试运行：若重新处理会怎样")
    async def dry_run(_operator: Operator, service: Service, identity: str) -> EventOutcome:
        """Runs the handler and takes everything back; of a key for its first event."""
        return await service.dry_run(identity)

    @router.post("/dead-letters/{identity}/redrive", summary="重新处理")
    async def redrive(operator: Operator, service: Service, identity: str, why: Why) -> EventOutcome:
        """Tries it again. What has already taken effect is refused (409 already-succeeded)."""
        return await service.redrive(identity, operator.sub, why.reason)

    @router.post("/dead-letters/{identity}/discard", summary="放弃")
    async def discard(operator: Operator, service: Service, identity: str, why: Discard) -> EventOutcome:
        """It will never take effect."""
        return await service.discard(identity, operator.sub, why.reason, whole_key=why.whole_key)

    @router.get("/outbox", summary="发件箱")
    async def outbox(_operator: Operator, service: Service) -> OutboxStatus:
        """What waits to be published, and what can be replayed, by topic."""
        return await service.replays.status()

    @router.post("/outbox/replay", summary="重放发件箱")
    async def replay(operator: Operator, service: Service, body: Replay) -> Replayed:
        """Marks published events for publishing again, a step of at most 1,000; ask again with ``after`` = ``next``."""
        by, replays = operator.sub, service.replays
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
        _operator: Operator, service: Service, after: str | None = None, limit: Limit = 50
    ) -> AuditPage:
        """Who changed what, when and why; the newest first."""
        documents = await service.audit.page(after, limit)
        entries = [AuditEntry(id=document["_id"], **document) for document in documents]
        return AuditPage(entries=entries, next=entries[-1].id if len(entries) == limit else None)

    return router
