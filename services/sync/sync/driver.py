"""Drives one target to what was decided: a loop that pushes, looks at what the public sees, and works on the difference."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from aiohttp import ClientError
from opentelemetry.trace import Span

from chassis.background import Loop
from chassis.breaker import Breaker, BreakerState
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Target as CatalogueTarget
from contracts.http.intake import Subject
from contracts.http.target import RecordView, RepairResult
from contracts.records import SubjectType
from sync.desired import Record, is_right, key_of, push_of
from sync.domain import (
    Action,
    Delivery,
    Failure,
    Step,
    after_push,
    after_read_back,
    clocked,
    delivery_id,
    next_action,
    reading_of,
    redirect,
)
from sync.facts import step_fact
from sync.metrics import BREAKER, DRIFTS, PUSHES, READ_BACKS
from sync.policy import Policy
from sync.quota import Grant, Limits, Quota, give_back, take
from sync.settings import SyncSettings
from sync.settlement import Change, Settlement
from sync.store import Attempt, AttemptRow, Lease, Store, masked
from sync.target import RefusedError, Target, UnavailableError
from sync.tracing import delivery_spans, headers_of, note_failure

log = get_logger(__name__)

_QUOTA_SECONDS = 0.2
"""Until a quota that is used up is looked at again."""
PROTOCOL_BATCH = 500
"""Most rows of one call (contracts.http.target)."""

Answer = RepairResult | RecordView | Failure
Answers = Mapping[str, Answer]
Q = TypeVar("Q")
K = TypeVar("K")
A = TypeVar("A", RepairResult, RecordView)


class Driver:
    """The loop of one target. ``agent``: who acts for the applicant there (代办)."""

    def __init__(
        self,
        target: CatalogueTarget,
        port: Target,
        policies: Mapping[str, Policy],
        settlement: Settlement,
        store: Store,
        outbox: Outbox,
        directory: CaseDirectory,
        settings: SyncSettings,
        agent: str | None = None,
    ) -> None:
        self.target = target
        self._agent = agent
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self._port = port
        self._policy = policies[target.id]
        self._settlement = settlement
        self._store = store
        self._directory = directory
        self._batch_size = min(target.batch_size, PROTOCOL_BATCH)
        self._limits = Limits(target.rate_per_second, target.burst, target.concurrency, self._batch_size)
        self._replica = uuid.uuid4().hex
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._poll = timedelta(milliseconds=settings.poll_ms)
        self._linger = timedelta(milliseconds=settings.linger_ms)
        self.loop = Loop(f"target {target.id}", self.step, interval_seconds=self._poll.total_seconds())
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Take what is due, as much as the target may be asked by all replicas together; whether there was any."""
        state = self.breaker.state(time.monotonic())
        BREAKER.labels(self.target.id).set(state.gauge)
        if state is BreakerState.OPEN:
            return False
        now = datetime.now(UTC)
        first = await self._store.next_due(self.target.id, now + self._poll, now)
        if first is None or first > now:
            if first is not None:
                self.loop.again_within((first - now).total_seconds())
            return False
        batches = 1 if state is BreakerState.HALF_OPEN else self._limits.concurrency
        due = await self._store.due(self.target.id, batches * self._batch_size, now)
        if not due:
            return False
        if due < self._batch_size and now < first + self._linger:
            self.loop.again_within((first + self._linger - now).total_seconds())
            return False
        grant = await self._store.change_quota(
            self.target.id,
            lambda quota: take(quota, self._limits, self._replica, due, now, self._lease),
        )
        if not grant.rows:
            self.loop.again_within(_QUOTA_SECONDS)
            return False
        asked = 0
        try:
            asked = await self._deal(grant, now)
        finally:
            await self._store.change_quota(
                self.target.id,
                lambda quota: (
                    give_back(
                        quota or Quota(0, now),
                        self._limits,
                        self._replica,
                        grant.rows - asked,
                        datetime.now(UTC),
                    ),
                    None,
                ),
            )
        if not asked:  # another replica was faster
            self.loop.again_within(_QUOTA_SECONDS)
        return asked > 0

    async def _deal(self, grant: Grant, now: datetime) -> int:
        """Claim what is due and deal with it within the grant; how many there were."""
        lease = await self._store.claim(self.target.id, grant.rows, now, self._lease, self._rows)
        if not lease.deliveries:
            return 0
        ids = [delivery.record_id for delivery in lease.deliveries]
        records = {record.record_id: record for record in await self._rows.read(ids, self._records)}
        due: dict[Action, list[tuple[Delivery, Record]]] = {action: [] for action in Action}
        for delivery in lease.deliveries:
            record = records.get(delivery.record_id)
            # both are written in one transaction: somebody has deleted or damaged one by hand
            if record is None:
                log.error("delivery without a record that can be read", delivery=delivery.id)
                continue
            # a decision made since the claim is pushed in place of the one that was claimed
            action = Action.PUSH if delivery.desired_version < record.version else next_action(delivery)
            due[action].append((delivery, record))
        slots = asyncio.Semaphore(grant.batches)

        async def in_turn(action: Action, batch: Sequence[tuple[Delivery, Record]]) -> None:
            async with slots:
                await self._deal_with(action, lease, batch)

        outcomes = await asyncio.gather(
            *(
                in_turn(action, rows[i : i + self._batch_size])
                for action, rows in due.items()
                for i in range(0, len(rows), self._batch_size)
            ),
            return_exceptions=True,  # so that none is still running when the next step starts
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(lease.deliveries)

    async def _records(self, ids: Sequence[str]) -> Iterable[Record]:
        return (await self._store.records(ids)).values()

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
        log_ = _Log(action, datetime.now(UTC), time.monotonic())
        if action is Action.PUSH:
            pushes = {
                id_: push_of(record, subject, self.target.id, self._agent)
                for id_, (record, subject) in askable.items()
            }
            results = await self._call(pushes, self._port.push, lambda push: push.idempotency_key, log_)
            answers |= {id_: _without(askable[id_][1], answer) for id_, answer in results.items()}
        else:
            keys = {id_: key_of(record, subject) for id_, (record, subject) in askable.items()}
            answers |= await self._call(keys, self._port.read_back, lambda key: key, log_)
        if askable:
            await self._log_attempt(log_, askable, answers)
        return answers

    async def _log_attempt(
        self, said: "_Log", askable: Mapping[str, tuple[Record, Subject]], answers: Answers
    ) -> None:
        answer = said.answer
        for _, subject in askable.values():
            answer = answer.replace(subject.code, "***").replace(subject.name, "***")
        rows = tuple(
            AttemptRow(record.record_id, record.version, *_summary(answers[id_]))
            for id_, (record, _) in askable.items()
        )
        seconds = round(time.monotonic() - said.started, 3)
        attempt = Attempt(
            self.target.id, said.action.value, said.at, seconds, rows, said.error, masked(answer) or None
        )
        await self._store.log(attempt)

    async def _call(
        self,
        questions: Mapping[str, Q],
        call: Callable[[Sequence[Q]], Awaitable[Mapping[K, A]]],
        key: Callable[[Q], K],
        said: "_Log",
    ) -> dict[str, A | Failure]:
        """Ask the target. A refused batch is halved until the row it is refused for stands alone."""
        if not questions:
            return {}
        try:
            found = await call(list(questions.values()))
        except UnavailableError as error:
            said.error, said.answer = error.reason, error.answer
            self.breaker.failed(time.monotonic(), error.reason, error.retry_after_seconds)
            log.warning("target unavailable", target=self.target.id, rows=len(questions), error=error.reason)
            failure = Failure(error.reason, timedelta(seconds=error.retry_after_seconds))
            return dict.fromkeys(questions, failure)
        except RefusedError as error:
            said.error, said.answer = str(error), error.answer
            self.breaker.succeeded()
            if len(questions) == 1:
                return dict.fromkeys(questions, Failure(f"refused: {error}"))
            rows = list(questions.items())
            half = len(rows) // 2
            return {
                **await self._call(dict(rows[:half]), call, key, said),
                **await self._call(dict(rows[half:]), call, key, said),
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
        """One transaction: states, events, evidence; then which records are complete now. Returns how many drifted.

        A delivery of which that fails is asked for again when its lease is over, and no other with it.
        """
        by_id = {delivery_id(self.target.id, record.record_id): record for record in records}

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> list[Change]:
            changes = []
            for delivery in await self._store.held(lease, ids, unit.session):
                record, answer = by_id[delivery.id], answers[delivery.id]
                after, events = self._after(action, delivery, record, answer, unit.now)
                reading = (
                    reading_of(after, events, _digest(answer)) if isinstance(answer, RecordView) else None
                )
                trace = headers_of(spans[after.id])
                fact = step_fact(action, delivery, after, record, answer)
                changes.append(Change(delivery, after, events, record, trace, fact, reading))

            async def save(deliveries: Sequence[Delivery]) -> None:
                await self._store.save_and_release(lease, deliveries, unit.session)

            await self._settlement.settle(unit, changes, save)
            return changes

        changes = [change for done in await self._rows.run(list(by_id), work) for change in done]
        await self._settlement.complete(changes)
        return sum(change.after.drifts > change.before.drifts for change in changes)

    def _after(
        self, action: Action, delivery: Delivery, record: Record, answer: Answer, now: datetime
    ) -> Step:
        if delivery.desired_version < record.version:
            # the target was out of the catalogue when this was decided: nobody else will tell it
            return clocked(redirect(delivery, record, delivery.target_id, now), self._policy, now), ()
        if action is Action.PUSH and not isinstance(answer, RecordView):
            return after_push(delivery, record, answer, self._policy, now)
        if action is Action.READ_BACK and not isinstance(answer, RepairResult):
            return after_read_back(delivery, record, answer, self._policy, now)
        raise TypeError(f"{type(answer).__name__} does not answer a {action}")

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
                    result = "right" if is_right(answer, record) else "wrong"
            metric.labels(self.target.id, result).inc()


@dataclass
class _Log:
    """What the attempt log is to say about a batch: of the last part that failed, when it had to be halved."""

    action: Action
    at: datetime
    started: float
    error: str | None = None
    answer: str = ""


def _summary(answer: Answer) -> tuple[str, str | None]:
    match answer:
        case Failure():
            return "failed", answer.reason[:500]
        case RepairResult():
            return answer.status.value, answer.reason and answer.reason[:500]
        case RecordView():
            return answer.state.value if answer.state else "not shown", None


def _digest(view: RecordView) -> str:
    return hashlib.sha256(view.model_dump_json().encode()).hexdigest()


def _without(subject: Subject, answer: RepairResult | Failure) -> RepairResult | Failure:
    """A target may quote in its reason what must not be stored here."""
    if isinstance(answer, Failure) or not answer.reason:
        return answer
    return answer.model_copy(
        update={"reason": answer.reason.replace(subject.code, "***").replace(subject.name, "***")}
    )
