"""What a person saw at a target that cannot be read back: who, when, and what that refers to, as evidence."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel

from chassis.db import CollectionSpec, Database
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.canonical import canonical
from contracts.errors import ProblemCode
from contracts.records import DisplayState
from sync.desired import Record
from sync.domain import Delivery, after_visit, delivery_id, reading_of
from sync.facts import visit_fact
from sync.history import rfc3339
from sync.letter_store import LetterStore
from sync.notices import close
from sync.policy import Policy
from sync.settlement import Change, Settlement
from sync.store import Store

COLLECTIONS = [
    CollectionSpec(
        "visits", [IndexModel([("record_id", ASCENDING), ("looked_at", ASCENDING)], name="by_record")]
    )
]


@dataclass(frozen=True)
class Visit:
    """``shown`` None: the record is not shown at all; ``outdated``: with its content as it was before a correction. ``reference``: a page,
    a screenshot, a phone call: where it can be looked up.
    """

    target_id: str
    record_id: str
    version: int
    shown: DisplayState | None
    looked_at: datetime
    by: str
    reference: str
    outdated: bool = False

    def digest(self) -> str:
        """SHA-256 of the visit, 64 hex digits: also its document's id, so that the same visit is noted once."""
        told: dict[str, Any] = {
            "by": self.by,
            "looked_at": rfc3339(self.looked_at),
            "record_id": self.record_id,
            "reference": self.reference,
            "shown": self.shown.value if self.shown else None,
            "target_id": self.target_id,
            "version": self.version,
        }
        if self.outdated:
            told["outdated"] = True
        return hashlib.sha256(canonical(told)).hexdigest()


_VISIT: TypeAdapter[Visit] = TypeAdapter(Visit)


class Visits:
    """Notes visits, and what follows from them for the delivery. ``policies``: of all targets of the catalogue."""

    def __init__(
        self,
        database: Database,
        letters: LetterStore,
        store: Store,
        outbox: Outbox,
        policies: Mapping[str, Policy],
        settlement: Settlement,
    ) -> None:
        self._visits = database.collection("visits")
        self._letters = letters
        self._store = store
        self._outbox = outbox
        self._policies = policies
        self._settlement = settlement

    async def note(
        self,
        target_id: str,
        record_id: str,
        shown: DisplayState | None,
        looked_at: datetime,
        by: str,
        reference: str,
        content_right: bool | None = None,
    ) -> Delivery:
        """Take a visit in; repeated, it changes nothing. ``content_right``: of a corrected record that is shown. The delivery as it is
        then. Raises Problem.
        """
        policy = self._policies.get(target_id)
        if policy is not None and policy.reads_back:
            raise Problem(
                ProblemCode.INVALID_TRANSITION,
                f"{policy.target_name}可以自动查看，不必登记：请看 GET /v1/records/{record_id}。",
            )

        async def work(unit: UnitOfWork) -> tuple[Delivery, list[Change]]:
            record = (await self._store.records([record_id], unit.session)).get(record_id)
            found = await self._store.deliveries([record], unit.session) if record else {}
            delivery = found.get(delivery_id(target_id, record_id))
            if record is None or delivery is None or policy is None:
                raise Problem(
                    ProblemCode.NOT_FOUND,
                    f"记录 {record_id} 没有在平台 {target_id} 的同步：请核对两个编号。",
                )
            if not record.decided_at <= looked_at <= unit.now:
                raise Problem(
                    ProblemCode.VALIDATION, "查看的时间应在作出决定之后，且不晚于现在：请核对 looked_at。"
                )
            outdated = _outdated(record, shown, content_right)
            visit = Visit(target_id, record_id, record.version, shown, looked_at, by, reference, outdated)
            id_ = visit.digest()
            if await self._visits.find_one({"_id": id_}, {"_id": 1}, session=unit.session):
                return delivery, []
            await self._visits.insert_one(
                {"_id": id_, **_VISIT.dump_python(visit, mode="json")}, session=unit.session
            )
            after, events = after_visit(
                delivery, record, shown, looked_at, policy, unit.now, outdated=outdated
            )
            fact = visit_fact(delivery, record, shown, looked_at, by, reference, outdated=outdated)
            change = Change(
                delivery, after, events, record, record.trace, fact, reading_of(after, events, id_)
            )

            async def save(changed: Sequence[Delivery]) -> None:
                await self._store.save(changed, unit.session)

            await self._settlement.settle(unit, [change], save)
            if after.differs_since is None:
                over = await self._letters.open_at(target_id, [record_id], unit.session)
                await close(unit, self._letters, self._store, over)
            return after, [change]

        after, changes = await self._outbox.run(work)
        await self._settlement.complete(changes)
        return after


def _outdated(record: Record, shown: DisplayState | None, content_right: bool | None) -> bool:
    """Whether it was seen with its content as it was before a correction. Raises Problem where that has to be said and is not."""
    if record.content is None or shown is not DisplayState.PUBLISHED:
        return False
    if content_right is None:
        said = record.content
        raise Problem(
            ProblemCode.VALIDATION,
            f"该记录的内容已更正（认定日期 {said.decided_on}，处罚类别“{said.penalty_kinds or '无'}”）："
            "请在 content_right 中写明所见是否已是更正后的内容。",
        )
    return not content_right
