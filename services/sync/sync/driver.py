"""Drives one target to what was decided: a loop that pushes, looks at what the public sees, and works on the difference."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from aiohttp import ClientError
from opentelemetry.trace import Span

from chassis.background import Loop
from chassis.breaker import Breaker, BreakerState
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Target as CatalogueTarget
from contracts.http.intake import Subject
from contracts.http.target import RecordKey, RecordView, RepairPush, RepairResult
from contracts.records import SubjectType
from sync.domain import (
    Action,
    Delivery,
    Failure,
    Policy,
    Record,
    Step,
    after_push,
    after_read_back,
    cause_of,
    complete,
    delivery_id,
    idempotency_key,
    next_action,
    redirect,
    settled,
    shows,
)
from sync.facts import answer_fact
from sync.history import Fact
from sync.metrics import BREAKER, DRIFTS, PUSHES, READ_BACKS
from sync.settings import SyncSettings
from sync.store import Lease, Store
from sync.target import RefusedError, Target, UnavailableError
from sync.tracing import delivery_spans, headers_of, note_failure

log = get_logger(__name__)

PROTOCOL_BATCH = 500
"""Most rows of one call (contracts.http.target)."""

Answer = RepairResult | RecordView | Failure
Answers = Mapping[str, Answer]
Q = TypeVar("Q")
K = TypeVar("K")
A = TypeVar("A", RepairResult, RecordView)


class Driver:
    """The loop of one target. ``policies``: of all targets, to know when a record is complete everywhere."""

    def __init__(
        self,
        target: CatalogueTarget,
        port: Target,
        policies: Mapping[str, Policy],
        store: Store,
        outbox: Outbox,
        directory: CaseDirectory,
        settings: SyncSettings,
    ) -> None:
        self.target = target
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self._port = port
        self._policies = policies
        self._policy = policies[target.id]
        self._store = store
        self._outbox = outbox
        self._directory = directory
        self._batch_size = min(target.batch_size, PROTOCOL_BATCH)
        self._max_concurrency = settings.max_concurrency
        self._lease = timedelta(seconds=settings.lease_seconds)
        self.loop = Loop(f"target {target.id}", self.step, interval_seconds=settings.poll_ms / 1000)

    async def step(self) -> bool:
        """Take what is due and deal with it; whether there was any."""
        state = self.breaker.state(time.monotonic())
        BREAKER.labels(self.target.id).set(state.gauge)
        if state is BreakerState.OPEN:
            return False
        batches = 1 if state is BreakerState.HALF_OPEN else self._max_concurrency
        now = datetime.now(UTC)
        lease = await self._store.claim(self.target.id, batches * self._batch_size, now, self._lease)
        if not lease.deliveries:
            return False
        records = await self._store.records(d.record_id for d in lease.deliveries)
        due: dict[Action, list[tuple[Delivery, Record]]] = {action: [] for action in Action}
        for delivery in lease.deliveries:
            record = records.get(delivery.record_id)
            if record is None:  # both are written in one transaction: somebody has deleted one by hand
                log.error("delivery without its record", delivery=delivery.id)
                continue
            # a decision made since the claim is pushed in place of the one that was claimed
            action = Action.PUSH if delivery.desired_version < record.version else next_action(delivery)
            due[action].append((delivery, record))
        outcomes = await asyncio.gather(
            *(
                self._deal_with(action, lease, rows[i : i + self._batch_size])
                for action, rows in due.items()
                for i in range(0, len(rows), self._batch_size)
            ),
            return_exceptions=True,  # so that none is still running when the next step starts
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return True

    async def _deal_with(
        self, action: Action, lease: Lease, batch: Sequence[tuple[Delivery, Record]]
    ) -> None:
        with delivery_spans(action, batch) as spans:
            answers = await self._ask(action, batch)
            for id_, answer in answers.items():
                if isinstance(answer, Failure):
                    note_failure(spans[id_], answer)
            drifts = await self._take_in(action, lease, [record for _, record in batch], answers, spans)
        DRIFTS.labels(self.target.id).inc(drifts)
        self._count(action, [record for _, record in batch], answers)

    async def look(self, batch: Sequence[tuple[Delivery, Record]]) -> Answers:
        """What the public sees now of records that need not be due, by delivery id; a Failure where nobody can tell."""
        if self.breaker.state(time.monotonic()) is BreakerState.OPEN:
            return {delivery.id: Failure("the target is left alone for a while") for delivery, _ in batch}
        return await self._ask(Action.READ_BACK, batch)

    # --- asking

    async def _ask(self, action: Action, batch: Sequence[tuple[Delivery, Record]]) -> Answers:
        """An answer for every delivery, by delivery id. Never raises for what intake or the target does."""
        try:
            subjects = await self._directory.subjects(record.subject_id for _, record in batch)
        except (ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            log.warning("subjects cannot be looked up", target=self.target.id, error=repr(error))
            failure = Failure(f"intake did not answer: {type(error).__name__}")
            return {delivery.id: failure for delivery, _ in batch}
        answers: dict[str, Answer] = {}
        askable: dict[str, tuple[Record, Subject]] = {}
        for delivery, record in batch:
            subject = subjects.get(record.subject_id)
            if subject is None:
                answers[delivery.id] = Failure("intake does not know the subject")
            elif subject.subject_type is SubjectType.NATURAL_PERSON and not self.target.natural_persons:
                answers[delivery.id] = Failure("natural persons are never sent to this target")
            else:
                askable[delivery.id] = (record, subject)
        if action is Action.PUSH:
            pushes = {id_: self._push(record, subject) for id_, (record, subject) in askable.items()}
            results = await self._call(pushes, self._port.push, lambda push: push.idempotency_key)
            answers |= {id_: _without(askable[id_][1], answer) for id_, answer in results.items()}
        else:
            keys = {id_: _key(record, subject) for id_, (record, subject) in askable.items()}
            answers |= await self._call(keys, self._port.read_back, lambda key: key)
        return answers

    def _push(self, record: Record, subject: Subject) -> RepairPush:
        return RepairPush(
            idempotency_key=idempotency_key(self.target.id, record.record_id, record.version),
            record=_key(record, subject),
            subject_name=subject.name,
            state=record.state,
            version=record.version,
            decision_number=record.decision_number,
            decided_at=record.decided_at,
        )

    async def _call(
        self,
        questions: Mapping[str, Q],
        call: Callable[[Sequence[Q]], Awaitable[Mapping[K, A]]],
        key: Callable[[Q], K],
    ) -> dict[str, A | Failure]:
        """Ask the target. A refused batch is halved until the row it is refused for stands alone."""
        if not questions:
            return {}
        try:
            found = await call(list(questions.values()))
        except UnavailableError as error:
            self.breaker.failed(time.monotonic(), error.reason, error.retry_after_seconds)
            log.warning("target unavailable", target=self.target.id, rows=len(questions), error=error.reason)
            failure = Failure(error.reason, timedelta(seconds=error.retry_after_seconds))
            return dict.fromkeys(questions, failure)
        except RefusedError as error:
            self.breaker.succeeded()
            if len(questions) == 1:
                return dict.fromkeys(questions, Failure(f"refused: {error}"))
            rows = list(questions.items())
            half = len(rows) // 2
            return {
                **await self._call(dict(rows[:half]), call, key),
                **await self._call(dict(rows[half:]), call, key),
            }
        self.breaker.succeeded()
        missing = Failure("no usable answer for this record")
        return {id_: found.get(key(question), missing) for id_, question in questions.items()}

    # --- taking in the answers

    async def _take_in(
        self,
        action: Action,
        lease: Lease,
        records: Sequence[Record],
        answers: Answers,
        spans: Mapping[str, Span],
    ) -> int:
        """One transaction: states, events, and which records are complete now. Returns how many drifted."""
        by_id = {delivery_id(self.target.id, record.record_id): record for record in records}

        async def work(unit: UnitOfWork) -> int:
            drifts = 0
            changed: list[Delivery] = []
            facts: list[Fact] = []
            newly_settled: dict[str, Delivery] = {}
            for delivery in await self._store.held(lease, by_id, unit.session):
                record, answer = by_id[delivery.id], answers[delivery.id]
                after, events = self._after(action, delivery, record, answer, unit.now)
                changed.append(after)
                if fact := answer_fact(action, delivery, record, answer):
                    facts.append(fact)
                drifts += after.drifts > delivery.drifts
                for event in events:
                    unit.emit(event, cause=cause_of(after), trace=headers_of(spans[after.id]))
                # the last one to be waited for may have left the catalogue: then any look at what is settled completes the record
                incomplete = record.completed_version < record.version
                if settled(after, self._policy) and (incomplete or not settled(delivery, self._policy)):
                    newly_settled[after.record_id] = after
            if changed:
                await self._store.save_and_release(lease, changed, unit.session)
                await self._store.history.append(facts, unit.now, unit.session)
            if newly_settled:
                await self._complete(unit, newly_settled, spans)
            return drifts

        return await self._outbox.run(work)

    def _after(
        self, action: Action, delivery: Delivery, record: Record, answer: Answer, now: datetime
    ) -> Step:
        if delivery.desired_version < record.version:
            # the target was out of the catalogue when this was decided: nobody else will tell it
            return redirect(delivery, record, delivery.target_id, now), ()
        if action is Action.PUSH and not isinstance(answer, RecordView):
            return after_push(delivery, record, answer, self._policy, now)
        if action is Action.READ_BACK and not isinstance(answer, RepairResult):
            return after_read_back(delivery, record, answer, self._policy, now)
        raise TypeError(f"{type(answer).__name__} does not answer a {action}")

    async def _complete(
        self, unit: UnitOfWork, newly_settled: Mapping[str, Delivery], spans: Mapping[str, Span]
    ) -> None:
        records = await self._store.records(newly_settled, unit.session)
        deliveries = await self._store.deliveries(records.values(), unit.session)
        after: list[Record] = []
        for record in records.values():
            own = [deliveries[delivery_id(target, record.record_id)] for target in record.targets]
            completed, events = complete(record, own, self._policies, unit.now)
            after.append(completed)
            last = newly_settled[record.record_id]
            for event in events:
                unit.emit(
                    event, cause=f"{record.record_id}:{record.version}", trace=headers_of(spans[last.id])
                )
        await self._store.save_completed(after, unit.session)

    def _count(self, action: Action, records: Iterable[Record], answers: Answers) -> None:
        for record in records:
            answer = answers[delivery_id(self.target.id, record.record_id)]
            match answer:
                case Failure():
                    metric, result = PUSHES if action is Action.PUSH else READ_BACKS, "failed"
                case RepairResult():
                    metric, result = PUSHES, answer.status.value
                case RecordView():
                    metric = READ_BACKS
                    result = "right" if shows(answer.state, record.state) else "wrong"
            metric.labels(self.target.id, result).inc()


def _key(record: Record, subject: Subject) -> RecordKey:
    return RecordKey(
        subject_code=subject.code,
        document_number=record.facts.document_number,
        authority_name=record.facts.authority_name,
    )


def _without(subject: Subject, answer: RepairResult | Failure) -> RepairResult | Failure:
    """A target may quote in its reason what must not be stored here."""
    if isinstance(answer, Failure) or not answer.reason:
        return answer
    return answer.model_copy(
        update={"reason": answer.reason.replace(subject.code, "***").replace(subject.name, "***")}
    )
