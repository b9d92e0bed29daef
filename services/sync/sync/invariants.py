"""What sync promises about records and targets, checked against its documents; and which decisions it knows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request

from chassis.db import Database, Session
from chassis.invariants import PAGE, Findings, Invariant, Operator
from contracts.canonical import matches
from contracts.history import HistoryEntry, Kind
from contracts.http.verification import RecordQuestion, RecordStanding, RecordStandings
from sync.desired import Record, shows
from sync.domain import Delivery, delivery_id
from sync.history import LastEntry
from sync.store import Store

_RECORDS_WITH_HISTORY = 100
"""Of one page: each has a chain for itself and one at every target."""


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
        if delivery.seen_version == record.version and not shows(
            delivery.seen_state, record, outdated=delivery.seen_outdated
        ):
            yield delivery.id, f"记为已按决定展示，实际见到的是 {delivery.seen_state}"


def history_faults(
    record: Record,
    deliveries: Mapping[str, Delivery],
    decision: HistoryEntry | None,
    last: Mapping[str, LastEntry],
) -> Iterator[tuple[str, str]]:
    """Where the history contradicts what is kept: (id, what is wrong). ``decision``: the record's last one; ``last``: by chain."""
    decided = _body(decision)
    if not decided:
        yield record.record_id, "没有记有其决定的历史"
    else:
        told = tuple(decided["facts"].get(name) for name in ("version", "state", "decision_number"))
        if told != (record.version, record.state.value, record.decision_number):
            yield (
                record.record_id,
                f"历史中最近的决定是 {told}，不是第 {record.version} 版 {record.decision_number}",
            )
    chains = [record.record_id, *(delivery_id(target, record.record_id) for target in record.targets)]
    for chain in chains:
        found = last.get(chain)
        if found is None:
            continue
        if found.entry is None or found.entry.hash != found.tip_hash:
            yield chain, "链的末端所记的那一条不在，或与它不符"
        elif not matches(found.entry.hash, found.entry.text.encode(errors="surrogatepass")):
            yield found.entry.id, "内容与摘要不符"
        elif (delivery := deliveries.get(chain)) and (
            problem := _contradiction(delivery, _body(found.entry))
        ):
            yield chain, problem
    for delivery in deliveries.values():
        looked_at_first = delivery.target_id == record.source or delivery.target_id in record.look_first
        if (
            delivery.acknowledged_version == record.version
            and not looked_at_first
            and delivery.id not in last
        ):
            yield delivery.id, "已确认，却没有历史"


def _contradiction(delivery: Delivery, body: dict[str, Any]) -> str | None:
    """What the last entry of a record at a target says against its row; of an older version it says nothing."""
    facts = body.get("facts", {})
    if facts.get("version") != delivery.desired_version:
        return None
    reading = body.get("kind") == Kind.READING
    if reading and facts.get("right") is False and delivery.seen_version == delivery.desired_version:
        return "历史中最近一次所见不一致，却记为已见到一致"
    applied = not reading and facts.get("answer") == "applied"
    if applied and delivery.acknowledged_version != delivery.desired_version:
        return "历史中已答复接受，却没有记为已确认"
    return None


def _body(entry: HistoryEntry | None) -> dict[str, Any]:
    try:
        body = json.loads(entry.text) if entry else {}
    except ValueError:
        return {}
    return body if isinstance(body, dict) and isinstance(body.get("facts"), dict) else {}


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

    async def history_agrees(self, findings: Findings) -> None:
        after, history = "", self._store.history
        while True:

            async def read(
                session: Session, after: str = after
            ) -> tuple[list[Record], list[tuple[str, str]]]:
                records = await self._store.page(after, _RECORDS_WITH_HISTORY, session)
                deliveries = await self._store.deliveries(records, session)
                ids = [record.record_id for record in records]
                decisions = await history.last_decisions(ids, session)
                last = await history.last_entries([*ids, *deliveries], session)
                faults: list[tuple[str, str]] = []
                for record in records:
                    ids = [delivery_id(target, record.record_id) for target in record.targets]
                    own = {id_: deliveries[id_] for id_ in ids if id_ in deliveries}
                    faults += history_faults(record, own, decisions.get(record.record_id), last)
                return records, faults

            records, faults = await self._database.transaction(read)
            findings.checked += len(records)
            for id_, problem in faults:
                findings.violated(id_, problem)
            if len(records) < _RECORDS_WITH_HISTORY:
                return
            after = records[-1].record_id


def invariants(database: Database) -> Sequence[Invariant]:
    """Those of sync."""
    title = "各平台已确认、已核验的版本不超过决定的版本，记为已展示的与决定一致"
    checks = _Checks(database)
    return [
        Invariant("seen-not-beyond-decided", title, checks.seen_not_beyond_decided),
        Invariant(
            "history-agrees",
            "每条决定都有历史链，链的末端与现状一致",
            checks.history_agrees,
        ),
    ]


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
