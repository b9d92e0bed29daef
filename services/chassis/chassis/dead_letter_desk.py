"""What a person sees of dead letters and parked keys, and does about them.

Every change is audited in its own transaction: who (the token's subject), when, why and what came of it.
"""

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from chassis.audit import Audit
from chassis.consumer import BatchConsumer, Outcome, OutcomeKind
from chassis.db import Database, Document, Session
from chassis.dead_letters import AlreadySucceededError, DeadLetters, LetterState, as_received
from chassis.inbox import Received
from chassis.parking import KeyState
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.envelope import MalformedEventError
from contracts.errors import ProblemCode
from contracts.http.operations import (
    DeadLetter,
    DeadLetterKind,
    DeadLetterPage,
    DeadLetterState,
    DeadLetterWhole,
    EmittedEvent,
    EventOutcome,
    Message,
    QueuedEvent,
)

_SHOWN_CHARACTERS = 100_000
_SCANNED = 1_000
_IDENTITIES_IN_AUDIT = 20


class DeadLetterDesk:
    """The dead letters and parked keys of one service. Their ids hold the kind and the own id of the document."""

    def __init__(
        self, database: Database, letters: DeadLetters, consumers: Sequence[BatchConsumer], audit: Audit
    ) -> None:
        self._db = database
        self._letters = letters
        self._consumers = consumers
        self._audit = audit

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
        await self._audit.add(
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
