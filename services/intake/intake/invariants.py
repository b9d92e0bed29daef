"""What intake promises, checked against its documents; and where its items stand, for the check across services."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from chassis.db import Database, Document, Session
from chassis.invariants import Findings, Invariant, Operator, pages
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.envelope import event_id
from contracts.events import ApplicationCompleted, ItemOutcome
from contracts.http.verification import MAX_IDS, ItemPage, ItemQuestion, ItemStanding, ItemStandings
from contracts.records import ItemId
from contracts.topics import APPLICATIONS
from intake.domain.application import Application
from intake.domain.item import Item, ItemStatus, TargetState
from intake.progress import completion_cause

_TIMELINE_PAGE = 200

# --- every application ends, or waits


@dataclass
class Judgement:
    """Of one application: ``faults``, each (id, what is wrong), and what it waits for, by kind."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Wait:
    """Whom an item waits for (zh-CN), until which day; nobody is late on a provisional one. ``kind``: queue, department, applicant, targets or item."""

    kind: str
    party: str
    due_on: date
    provisional: bool = False


def waits_for(item: Item, catalogue: Catalogue) -> Wait | None:
    """Whom an item that has not ended waits for; None: nobody, or nobody knows until when."""
    match item.status:
        case ItemStatus.REFERRED if item.referral and item.referral.queue_name:
            return Wait(
                "queue", item.referral.queue_name, item.referral.due_on, item.referral.due_provisional
            )
        case ItemStatus.ROUTED | ItemStatus.ACCEPTED | ItemStatus.EXTENDED if item.department and item.due_on:
            return Wait("department", item.department.name, item.due_on, item.due_provisional)
        case ItemStatus.SUPPLEMENT if item.supplement:
            return Wait("applicant", "申请人", item.supplement.due_on, item.supplement.due_provisional)
        case ItemStatus.GRANTED | ItemStatus.SYNCING if item.decided_at:
            behind = [
                target
                for target in catalogue.targets_of(item.facts)
                if not _follows(item, target.id, target.read_back)
            ]
            if behind:
                days = max(target.time_limit_working_days for target in behind)
                due = catalogue.calendar.working_days_after(china_date(item.decided_at), days)
                names = "、".join(target.name for target in behind)
                return Wait("targets", names, due.on, due.provisional)
    return None


def _wait(item: Item, others: Mapping[str, Item], catalogue: Catalogue) -> Wait | None:
    """A queued item waits as long as the items before it: for what they wait."""
    if item.status is not ItemStatus.QUEUED:
        return waits_for(item, catalogue)
    first = [others[id_] for id_ in item.after if id_ in others and not others[id_].lets_followers_start]
    waits = [wait for each in first if (wait := _wait(each, others, catalogue))]
    if not waits:
        return None
    last = max(waits, key=lambda wait: wait.due_on)
    return Wait(
        "item", "、".join(each.facts.document_number for each in first), last.due_on, last.provisional
    )


def _follows(item: Item, target_id: str, reads_back: bool) -> bool:
    progress = item.targets.get(target_id)
    if progress is None:
        return False
    return progress.state is TargetState.VERIFIED or (
        progress.state is TargetState.ACKNOWLEDGED and not reads_back
    )


def judge(
    application: Application,
    items: Sequence[Item],
    catalogue: Catalogue,
    settled_before: datetime,
    today: date,
) -> Judgement:
    """Whether an application has ended or waits for a named party with a deadline. A deadline that has passed is counted only."""
    found = Judgement()
    whole = application.application_id
    if len(items) != application.item_count:
        found.faults.append((whole, f"应有 {application.item_count} 个事项，实有 {len(items)} 个"))
    still_open = [item for item in items if item.outcome is None]
    if application.open_items != len(still_open):
        problem = f"未结事项计数为 {application.open_items}，实为 {len(still_open)}"
        found.faults.append((whole, problem))
    never_ended = [item for item in still_open if item.round == 0]
    if application.status == "completed" and never_ended:
        found.faults.append((whole, f"已办结，但仍有 {len(never_ended)} 个事项未结"))
    if application.status == "completed" and application.completed_at is None:
        found.faults.append((whole, "已办结，但没有办结时间"))
    if application.status == "open" and not still_open:
        found.faults.append((whole, "全部事项已有结果，但没有办结"))
    by_id = {item.item_id: item for item in items}
    for item in still_open:
        wait = _wait(item, by_id, catalogue)
        if wait is not None:
            found.waits[f"waiting_for_{wait.kind}"] += 1
            found.waits["overdue"] += wait.due_on < today and not wait.provisional
        elif _changed_at(application, item) < settled_before:
            problem = f"状态“{item.status.value}”，没有在等待任何有名有期限的一方"
            found.faults.append((item.item_id, problem))
    return found


def _changed_at(application: Application, item: Item) -> datetime:
    known = [
        application.submitted_at,
        item.started_at,
        item.supplemented_at,
        item.accepted_at,
        item.decided_at,
    ]
    known += [progress.at for progress in item.targets.values()]
    return max(at for at in known if at is not None)


# --- timelines


def timeline_faults(timeline_seq: int, entries: Sequence[Document]) -> list[str]:
    """What is wrong with one timeline, its entries in order of seq: a gap, or one event shown twice."""
    faults = []
    if [entry["seq"] for entry in entries] != list(range(1, timeline_seq + 1)):
        faults.append(f"时间线应有第 1 到 {timeline_seq} 行，实有 {len(entries)} 行或序号有缺、有重")
    shown = Counter(
        json.dumps([entry["item_id"], entry["type"], entry["at"], entry["facts"]], sort_keys=True)
        for entry in entries
    )
    faults += [f"同一事件显示了 {times} 次：{line[:300]}" for line, times in shown.items() if times > 1]
    return faults


# --- the checks


class _Checks:
    def __init__(self, database: Database, catalogue: Catalogue, outbox_retention_days: int) -> None:
        self._database = database
        self._applications = database.collection("applications")
        self._items = database.collection("items")
        self._timeline = database.collection("timeline")
        self._outbox = database.collection("outbox")
        self._catalogue = catalogue
        self._outbox_retention = timedelta(days=outbox_retention_days)

    async def ends_or_waits(self, findings: Findings) -> None:
        today = china_date(datetime.now(UTC))
        async for page in pages(self._applications, {}, {"_id": 1}):
            ids = [row["_id"] for row in page]

            async def read(
                session: Session, ids: Sequence[str] = ids
            ) -> tuple[list[Document], list[Document]]:
                headers = self._applications.find({"_id": {"$in": ids}}, session=session)
                items = self._items.find({"application_id": {"$in": ids}}, session=session)
                return await headers.to_list(None), await items.to_list(None)

            headers, rows = await self._database.transaction(read)
            by_application: dict[str, list[Document]] = {id_: [] for id_ in ids}
            for row in rows:
                by_application[row["application_id"]].append(row)
            for header in headers:
                findings.checked += 1
                try:
                    judgement = judge(
                        Application.model_validate({**header, "application_id": header["_id"]}),
                        [_item(row) for row in by_application[header["_id"]]],
                        self._catalogue,
                        findings.settled_before,
                        today,
                    )
                except ValidationError as error:
                    findings.violated(str(header["_id"]), f"文档无法读取：{error.error_count()} 处错误")
                    continue
                findings.counts += judgement.waits
                findings.counts["completed" if header["status"] == "completed" else "open"] += 1
                for id_, problem in judgement.faults:
                    findings.violated(id_, problem)

    async def timeline_once(self, findings: Findings) -> None:
        shown = {"_id": 0, "application_id": 1, "seq": 1, "item_id": 1, "type": 1, "at": 1, "facts": 1}
        async for page in pages(self._applications, {}, {"_id": 1}, size=_TIMELINE_PAGE):
            ids = [row["_id"] for row in page]

            async def read(
                session: Session, ids: Sequence[str] = ids
            ) -> tuple[list[Document], list[Document]]:
                headers = self._applications.find({"_id": {"$in": ids}}, {"timeline_seq": 1}, session=session)
                entries = self._timeline.find({"application_id": {"$in": ids}}, shown, session=session)
                ordered = entries.sort([("application_id", 1), ("seq", 1)])
                return await headers.to_list(None), await ordered.to_list(None)

            headers, entries = await self._database.transaction(read)
            timelines: dict[str, list[Document]] = {id_: [] for id_ in ids}
            for entry in entries:
                timelines[entry["application_id"]].append(entry)
            for header in headers:
                findings.checked += 1
                for problem in timeline_faults(header["timeline_seq"], timelines[header["_id"]]):
                    findings.violated(header["_id"], problem)

    async def completed_once(self, findings: Findings) -> None:
        """The id of the event is made of the application: it is there, and it is the only one of its key."""
        kept_since = datetime.now(UTC) - self._outbox_retention + timedelta(days=1)
        query = {"status": "completed", "completed_at": {"$gte": kept_since}}
        async for page in pages(self._applications, query, {"_id": 1}):
            ids = {_completed_event(row["_id"]): row["_id"] for row in page}
            findings.checked += len(ids)
            rows = self._outbox.find({"_id": {"$in": list(ids)}}, {"_id": 1})
            found = {row["_id"] async for row in rows}
            for id_, application_id in ids.items():
                if id_ not in found:
                    findings.violated(application_id, "已办结，但发件箱里没有办结事件")
        completions = {"topic": APPLICATIONS.name, "headers.ce_type": ApplicationCompleted.TYPE}
        pipeline: list[Document] = [
            {"$match": completions},
            {"$group": {"_id": "$key", "times": {"$sum": 1}}},
            {"$match": {"times": {"$gt": 1}}},
        ]
        async for row in self._outbox.aggregate(pipeline, allowDiskUse=True):
            findings.violated(str(row["_id"]), f"办结事件发出了 {row['times']} 次")


def _completed_event(application_id: str) -> str:
    return event_id(completion_cause(application_id), ApplicationCompleted.TYPE, application_id, 0)


def invariants(database: Database, catalogue: Catalogue, outbox_retention_days: int) -> list[Invariant]:
    """Those of intake."""
    checks = _Checks(database, catalogue, outbox_retention_days)
    return [
        Invariant(
            "application-ends-or-waits",
            "每份申请都已办结，或在等待有名有期限的一方",
            checks.ends_or_waits,
        ),
        Invariant("completed-once", "每份办结的申请恰好告知一次办结", checks.completed_once),
        Invariant("timeline-once", "时间线上一个事件只显示一次，行号连续", checks.timeline_once),
    ]


# --- for the check across services

router = APIRouter(prefix="/v1/operations", tags=["运维：不变量"])


def _item(row: Document) -> Item:
    return Item.model_validate({**row, "item_id": row["_id"]})


def _standing(row: Document) -> ItemStanding:
    item = _item(row)
    revoked = item.revoked_at is not None
    undecided = item.outcome in (
        ItemOutcome.NOT_ACCEPTED,
        ItemOutcome.WITHDRAWN,
        ItemOutcome.EXPIRED,
        ItemOutcome.CLOSED,
    )
    decision = item.outcome.value if item.outcome and undecided else item.decision
    return ItemStanding(
        item_id=item.item_id,
        application_id=item.application_id,
        record_id=item.record_id,
        status=item.status.value,
        department=item.holder.code if item.holder else None,
        decision="revoked" if revoked else decision,
        decision_number=item.revocation_number if revoked else item.decision_number,
    )


def _standings(rows: Iterable[Document]) -> list[ItemStanding]:
    return [_standing(row) for row in rows]


@router.get("/items", summary="全部事项的现状")
async def list_items(
    request: Request,
    _operator: Operator,
    after: ItemId | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_IDS)] = MAX_IDS,
) -> ItemPage:
    """Every item, in order of its id."""
    items = request.app.state.runtime.database.collection("items")
    query = {"_id": {"$gt": after}} if after else {}
    rows = await items.find(query).sort("_id", 1).limit(limit).to_list(limit)
    return ItemPage(items=_standings(rows), next=rows[-1]["_id"] if len(rows) == limit else None)


@router.post("/items/lookup", summary="若干事项的现状")
async def lookup_items(request: Request, _operator: Operator, question: ItemQuestion) -> ItemStandings:
    """Where these items stand."""
    items = request.app.state.runtime.database.collection("items")
    return ItemStandings(
        items=_standings(await items.find({"_id": {"$in": question.item_ids}}).to_list(None))
    )
