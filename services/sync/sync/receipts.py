"""What targets say later: receipts over HTTP and in files, and cursors of lists. All take effect as an answer to the push does."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.errors import ProblemCode
from contracts.http.target import ReceiptAnswer, RepairReceipt, RepairResult, RepairStatus
from contracts.records import SubjectType
from sync.desired import Record, parse_idempotency_key
from sync.domain import Action, Delivery, after_push, delivery_id
from sync.facts import answer_fact
from sync.files_target import FilesTarget
from sync.metrics import PUSHES
from sync.policy import Policy
from sync.settlement import Change, Settlement
from sync.store import Attempt, AttemptRow, Store, masked
from sync.target import UnavailableError

log = get_logger(__name__)


class Channel(StrEnum):
    """How a target told it."""

    RECEIPT = "receipt"
    FILE = "receipt file"
    CURSOR = "cursor"


class Receipts:
    """Takes in what one target says later."""

    def __init__(self, policy: Policy, settlement: Settlement, store: Store, outbox: Outbox) -> None:
        self.policy = policy
        self._settlement = settlement
        self._store = store
        self._outbox = outbox

    async def take_receipt(self, webhook_id: str, receipt: RepairReceipt) -> ReceiptAnswer:
        """A receipt over HTTP. Raises Problem when it is of a push that was not made, or not to this target: nothing of it counts."""
        self._refuse_foreign(receipt.results)
        digest = hashlib.sha256(receipt.model_dump_json().encode()).hexdigest()

        async def work(unit: UnitOfWork) -> list[Change]:
            first = await self._store.first_receipt(
                self.policy.target_id, webhook_id, digest, unit.now, unit.session
            )
            if first != digest:
                raise Problem(
                    ProblemCode.IDEMPOTENCY_CONFLICT,
                    f"webhook-id {webhook_id} 已用于另一份回执；每份回执请用新的 webhook-id，重发时才沿用。",
                )
            return await self._take(unit, receipt.results, refuse_unknown=True)

        known = await self._store.receipt_digest(self.policy.target_id, webhook_id)
        if known == digest:
            return ReceiptAnswer(taken=0, duplicate=True)
        changes = await self._outbox.run(work)
        await self._settlement.complete(changes)
        await self.log(Channel.RECEIPT, receipt.results)
        return ReceiptAnswer(taken=len(changes))

    async def take(self, results: Sequence[RepairResult], channel: Channel) -> None:
        """What a file or a cursor says; what is not of this target, or unknown, counts for nothing."""
        own = [r for r in results if _target_of(r.idempotency_key) == self.policy.target_id]
        if len(own) < len(results):
            log.warning(
                "results of other pushes ignored",
                target=self.policy.target_id,
                channel=channel.value,
                rows=len(results) - len(own),
            )
        for start in range(0, len(own), 500):
            part = own[start : start + 500]

            async def work(unit: UnitOfWork, part: Sequence[RepairResult] = part) -> list[Change]:
                return await self.take_in(unit, part)

            await self.complete(await self._outbox.run(work))
            await self.log(channel, part)

    async def take_in(self, unit: UnitOfWork, results: Sequence[RepairResult]) -> list[Change]:
        """The same, in a transaction of the caller's, who has what came of it completed after the commit."""
        return await self._take(unit, results, refuse_unknown=False)

    async def complete(self, changes: Sequence[Change]) -> None:
        """After the commit of ``take_in``."""
        await self._settlement.complete(changes)

    async def _take(
        self, unit: UnitOfWork, results: Sequence[RepairResult], *, refuse_unknown: bool
    ) -> list[Change]:
        target_id = self.policy.target_id
        asked = {r.idempotency_key: parse_idempotency_key(r.idempotency_key) for r in results}
        records = await self._store.records({record_id for _, record_id, _ in asked.values()}, unit.session)
        own = await self._store.by_id((delivery_id(target_id, id_) for id_ in records), unit.session)
        deliveries = {delivery.id: delivery for delivery in own}
        unknown: list[str] = []
        changes: dict[str, Change] = {}
        for result in results:
            _, record_id, version = asked[result.idempotency_key]
            record = records.get(record_id)
            delivery = deliveries.get(delivery_id(target_id, record_id))
            if record is None or delivery is None or version > record.version:
                unknown.append(result.idempotency_key)
                continue
            if version != record.version or result.status is RepairStatus.RECEIVED or delivery.id in changes:
                continue
            answer = _without_persons(result, record)
            after, events = after_push(delivery, record, answer, self.policy, unit.now)
            if after != delivery:
                fact = answer_fact(Action.PUSH, delivery, record, answer)
                changes[delivery.id] = Change(delivery, after, events, record, record.trace, fact)
        if unknown and refuse_unknown:
            raise Problem(
                ProblemCode.NOT_FOUND,
                f"没有这样的推送：{'、'.join(unknown[:5])}。回执中的 idempotency_key 请照推送原样填写。",
            )

        async def save(after: Sequence[Delivery]) -> None:
            await self._store.save(after, unit.session)

        await self._settlement.settle(unit, list(changes.values()), save)
        return list(changes.values())

    def _refuse_foreign(self, results: Sequence[RepairResult]) -> None:
        foreign = [
            r.idempotency_key for r in results if _target_of(r.idempotency_key) != self.policy.target_id
        ]
        if foreign:
            raise Problem(
                ProblemCode.WRONG_TARGET,
                f"回执中有不是推送给{self.policy.target_name}的：{'、'.join(foreign[:5])}。整份回执未采用，请核对后重发。",
            )

    async def log(self, channel: Channel, results: Sequence[RepairResult]) -> None:
        """A line of the attempt log, and the metric."""
        if not results:
            return
        for result in results:
            PUSHES.labels(self.policy.target_id, result.status.value).inc()
        rows = []
        for result in results:
            _, record_id, version = parse_idempotency_key(result.idempotency_key)
            rows.append(AttemptRow(record_id, version, result.status.value))
        await self._store.log(
            Attempt(self.policy.target_id, channel.value, datetime.now(UTC), 0.0, tuple(rows))
        )


def receipt_files_loop(target: FilesTarget, receipts: Receipts, poll_seconds: float) -> Loop:
    """Looks for files of receipts. Several replicas may take the same one: it takes effect once."""

    async def step() -> bool:
        found = False
        try:
            async for _, results in target.receipts():
                await receipts.take(results, Channel.FILE)
                found = True
        except UnavailableError as error:
            log.warning("receipt files", target=receipts.policy.target_id, error=error.reason)
            return False
        return found

    return Loop(f"receipts {receipts.policy.target_id}", step, interval_seconds=poll_seconds)


def _target_of(key: str) -> str | None:
    try:
        return parse_idempotency_key(key)[0]
    except ValueError:
        return None


def _without_persons(result: RepairResult, record: Record) -> RepairResult:
    """A reason may quote whom it is about: codes are masked, and of natural persons nothing is kept."""
    if result.reason is None:
        return result
    person = record.facts.subject_type is SubjectType.NATURAL_PERSON
    return result.model_copy(update={"reason": "***" if person else masked(result.reason)})
