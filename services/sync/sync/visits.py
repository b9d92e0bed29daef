"""What a person saw at a target that cannot be read back: who, when, and what that refers to, as evidence."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel

from chassis.db import CollectionSpec, Database
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.canonical import canonical
from contracts.errors import ProblemCode
from contracts.records import DisplayState
from sync.domain import Delivery, Policy, after_visit, delivery_id, reading_of
from sync.facts import visit_fact
from sync.history import rfc3339
from sync.letter_store import LetterStore
from sync.notices import close
from sync.settlement import Change, Settlement
from sync.store import Store

COLLECTIONS = [
    CollectionSpec(
        "visits", [IndexModel([("record_id", ASCENDING), ("looked_at", ASCENDING)], name="by_record")]
    )
]


@dataclass(frozen=True)
class Visit:
    """``shown`` None: the record is not shown at all. ``reference``: a page, a screenshot, a phone call: where it can be looked up."""

    target_id: str
    record_id: str
    version: int
    shown: DisplayState | None
    looked_at: datetime
    by: str
    reference: str

    def digest(self) -> str:
        """SHA-256 of the visit, 64 hex digits: also its document's id, so that the same visit is noted once."""
        told = {
            "by": self.by,
            "looked_at": rfc3339(self.looked_at),
            "record_id": self.record_id,
            "reference": self.reference,
            "shown": self.shown.value if self.shown else None,
            "target_id": self.target_id,
            "version": self.version,
        }
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
    ) -> Delivery:
        """Take a visit in; repeated, it changes nothing. The delivery as it is then. Raises Problem."""
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
            visit = Visit(target_id, record_id, record.version, shown, looked_at, by, reference)
            id_ = visit.digest()
            if await self._visits.find_one({"_id": id_}, {"_id": 1}, session=unit.session):
                return delivery, []
            await self._visits.insert_one(
                {"_id": id_, **_VISIT.dump_python(visit, mode="json")}, session=unit.session
            )
            after, events = after_visit(delivery, record, shown, looked_at, policy, unit.now)
            fact = visit_fact(delivery, record, shown, looked_at, by, reference)
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
