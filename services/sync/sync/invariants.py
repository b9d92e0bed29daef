"""What sync promises about records and targets, checked against its documents; and which decisions it knows."""

from collections.abc import Iterator, Mapping, Sequence

from fastapi import APIRouter, Request

from chassis.db import Database, Session
from chassis.invariants import PAGE, Findings, Invariant, Operator
from contracts.http.verification import RecordQuestion, RecordStanding, RecordStandings
from sync.domain import Delivery, Record, delivery_id, shows
from sync.store import Store


def record_faults(record: Record, deliveries: Mapping[str, Delivery]) -> Iterator[tuple[str, str]]:
    """What contradicts the order desired, acknowledged, seen: (id, what is wrong). ``deliveries``: of the record, by id."""
    if record.version < 1 or record.completed_version > record.version:
        problem = f"版本 {record.version}，已完成的却是版本 {record.completed_version}"
        yield record.record_id, problem
    for target in record.targets:
        delivery = deliveries.get(delivery_id(target, record.record_id))
        if delivery is None:
            yield delivery_id(target, record.record_id), "没有该平台的同步记录"
            continue
        if delivery.desired_version != record.version:
            yield delivery.id, f"目标版本 {delivery.desired_version} 不是决定的版本 {record.version}"
        if delivery.acknowledged_version > record.version:
            yield (
                delivery.id,
                f"已确认版本 {delivery.acknowledged_version} 超过决定的版本 {record.version}",
            )
        if delivery.seen_version > record.version:
            yield delivery.id, f"已核验版本 {delivery.seen_version} 超过决定的版本 {record.version}"
        if delivery.seen_version == record.version and not shows(delivery.seen_state, record.state):
            yield delivery.id, f"记为已按决定展示，实际见到的是 {delivery.seen_state}"


class _Checks:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = Store(database)

    async def seen_not_beyond_decided(self, findings: Findings) -> None:
        after = ""
        while True:

            async def read(session: Session, after: str = after) -> tuple[list[Record], dict[str, Delivery]]:
                records = await self._store.page(after, PAGE, session)
                return records, await self._store.deliveries(records, session)

            records, deliveries = await self._database.transaction(read)
            for record in records:
                findings.checked += 1
                findings.counts["deliveries"] += len(record.targets)
                for id_, problem in record_faults(record, deliveries):
                    findings.violated(id_, problem)
            findings.counts["differing"] += sum(d.differs_since is not None for d in deliveries.values())
            if len(records) < PAGE:
                return
            after = records[-1].record_id


def invariants(database: Database) -> Sequence[Invariant]:
    """Those of sync."""
    title = "各平台已确认、已核验的版本不超过决定的版本，记为已展示的与决定一致"
    return [Invariant("seen-not-beyond-decided", title, _Checks(database).seen_not_beyond_decided)]


router = APIRouter(prefix="/v1/operations", tags=["运维：不变量"])


@router.post("/records/lookup", summary="若干记录的最近决定")
async def lookup_records(request: Request, _operator: Operator, question: RecordQuestion) -> RecordStandings:
    """The last decisions about these records that are known here."""
    store: Store = request.app.state.store
    records = await store.records(question.record_ids)
    return RecordStandings(
        records=[
            RecordStanding(
                record_id=record.record_id,
                item_id=record.item_id,
                decision_number=record.decision_number,
                state=record.state.value,
                version=record.version,
            )
            for record in records.values()
        ]
    )
