"""Findings of false material (提供虚假材料): who is barred from applying, until when, by whose word; and what else rests on the material.

An officer makes the finding with a refusal or a revocation (``contracts.events.FalseMaterial``); an upheld objection lifts it.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from pymongo import ASCENDING, DESCENDING, IndexModel

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Evidence
from contracts.events import Ground, RepairRefused, RepairRevoked
from contracts.http.eligibility import Ban, Check, CheckResult, Explanation, Plan, Repair, RepairStatus
from contracts.records import ApplicationId, DepartmentRef, ItemId, RecordId, Shape, SubjectId, Timestamp
from intake.domain.item import Dispute
from intake.eligibility import STATUS_TEXT
from intake.progress import Progress
from intake.store import Store

COLLECTIONS = [
    CollectionSpec(
        "findings",
        [IndexModel([("subject_id", ASCENDING), ("until", DESCENDING)])],
    )
]


class Finding(Shape):
    """One finding. ``until``: last day on which the subject is barred; None: it is not. ``sha256``: contents found false.

    ``statement``: so was the statement of its application. ``lifted_at``: an objection to it was upheld.
    """

    item_id: ItemId
    round: int
    application_id: ApplicationId
    subject_id: SubjectId
    record_id: RecordId
    document_number: str
    department: DepartmentRef
    decision_number: str
    reason: str
    statement: bool
    sha256: tuple[str, ...]
    until: date | None
    found_at: Timestamp
    lifted_at: Timestamp | None = None

    @property
    def source(self) -> str:
        """Whose word it is (zh-CN)."""
        return f"{self.department.name}《{self.decision_number}》；信用修复管理办法（36号令）关于提供虚假材料的规定"

    @property
    def advice(self) -> str:
        """What a barred subject is told (zh-CN): until when, by whom, and what to do."""
        day = self.until.isoformat() if self.until else ""
        return (
            f"{self.department.name}在{self.document_number}的办理中认定提供虚假材料（{self.decision_number}），"
            f"至{day}（含）不得申请信用修复。不服的，请对该事项提出异议（POST /v1/objections，item_id：{self.item_id}），"
            "异议成立即解除。"
        )


def barred(repair: Repair, finding: Finding | None) -> Repair:
    """The answer for a record of a subject that is barred: what could be applied for, now or before the ban ends, changes. Pure."""
    if finding is None or finding.until is None:
        return repair
    free = finding.until + timedelta(days=1)
    if repair.status is RepairStatus.NOT_YET and repair.from_ is not None and repair.from_ < free:
        return repair.model_copy(update={"from_": free, "advice": f"{repair.advice}此外，{finding.advice}"})
    if not repair.status.may_apply:
        return repair
    return repair.model_copy(
        update={
            "status": RepairStatus.BARRED,
            "status_text": STATUS_TEXT[RepairStatus.BARRED],
            "from_": free,
            "advice": finding.advice,
        }
    )


def explained(explanation: Explanation, finding: Finding | None) -> Explanation:
    """The explanation for a subject that is barred: one more check has failed, with its source. Pure."""
    if finding is None:
        return explanation
    check = Check(
        name="未因提供虚假材料被限制申请",
        result=CheckResult.FAILED,
        result_text="不符合",
        detail=finding.advice,
        source=finding.source,
        evidence=Evidence.OFFICIAL,
        records=[finding.record_id],
    )
    regimes = [
        each.model_copy(update={"checks": [check, *each.checks], "repair": barred(each.repair, finding)})
        for each in explanation.regimes
    ]
    return explanation.model_copy(update={"repair": barred(explanation.repair, finding), "regimes": regimes})


def ban(finding: Finding | None) -> Ban | None:
    """The ban of a subject as it is shown. Pure."""
    if finding is None or finding.until is None:
        return None
    return Ban(
        until=finding.until,
        by=finding.department.name,
        decision_number=finding.decision_number,
        advice=finding.advice,
    )


def barred_plan(plan: Plan, finding: Finding | None) -> Plan:
    """The plan for a subject that is barred: nothing can be done before the ban ends. Pure."""
    if ban(finding) is None:
        return plan
    all_records = [*(each for step in plan.steps for each in step.records), *plan.later]
    later = [each.model_copy(update={"repair": barred(each.repair, finding)}) for each in all_records]
    later.sort(key=lambda each: each.repair.from_ or date.max)
    return plan.model_copy(update={"ban": ban(finding), "steps": [], "later": later})


class Findings:
    """All findings. ``_id`` is ``<item>:<round>``: the same decision makes the same finding."""

    def __init__(self, database: Database, store: Store) -> None:
        self._findings = database.collection("findings")
        self._store = store

    async def barring(self, subject_id: str, today: date, session: Session | None = None) -> Finding | None:
        """The finding that bars a subject longest; None: none does."""
        query = {"subject_id": subject_id, "until": {"$gte": today.isoformat()}, "lifted_at": None}
        row = await self._findings.find_one(query, sort=[("until", DESCENDING)], session=session)
        return None if row is None else Finding.model_validate(row)

    async def take(
        self, unit: UnitOfWork, found: Iterable[tuple[Received, RepairRefused | RepairRevoked]]
    ) -> None:
        """Keep findings that decisions make, and tell every other item that rests on the same.

        After the progress of the same batch is saved. Events of items that moved on since (an older round) must not come here.
        """
        for received, event in found:
            if event.false_material is None:
                continue
            await self._store.touch_subject(event.subject_id, unit.session)
            finding = await self._keep(event, unit.session)
            own = await self._resting_on(finding, unit.session)
            progress = await Progress.load(self._store, unit, own)
            ground = Ground(
                item_id=event.item_id,
                round=event.round,
                department=event.department,
                decision_number=event.decision_number,
            )
            dispute = Dispute(ground=ground, reason=event.reason, found_at=event.decided_at)
            for item_id in own:
                progress.dispute(item_id, dispute, received.trace)
            await progress.save()

    async def _keep(self, event: RepairRefused | RepairRevoked, session: Session) -> Finding:
        false = event.false_material
        if false is None:
            raise ValueError(f"{event.item_id} has no finding")
        application = (await self._store.applications([event.application_id], session))[event.application_id]
        named = set(false.material_ids)
        finding = Finding(
            **event.model_dump(
                include={"item_id", "round", "application_id", "subject_id", "record_id", "decision_number"}
            ),
            document_number=event.record.document_number,
            department=event.department,
            reason=event.reason,
            statement=false.statement,
            sha256=tuple(m.sha256 for m in application.materials if m.material_id in named),
            until=false.blocked_until,
            found_at=event.decided_at,
        )
        row = finding.model_dump(mode="json")
        await self._findings.update_one(
            {"_id": f"{event.item_id}:{event.round}"}, {"$setOnInsert": row}, upsert=True, session=session
        )
        return finding

    async def _resting_on(self, finding: Finding, session: Session) -> list[str]:
        """The other items of the subject with the same content, or of the same application where its statement is false."""
        found = await self._store.applications_with(finding.subject_id, finding.sha256, session)
        ids = {*found, *([finding.application_id] if finding.statement else [])}
        items = await self._store.items_of(ids, session) if ids else []
        return [item.item_id for item in items if item.item_id != finding.item_id]

    async def lift(self, unit: UnitOfWork, upheld: Iterable[tuple[Received, str, datetime]]) -> None:
        """Objections to these results, each ``<item>:<round>``, were upheld: what was found there bars nobody any more."""
        for received, result, at in upheld:
            row: Document | None = await self._findings.find_one(
                {"_id": result, "lifted_at": None}, session=unit.session
            )
            if row is None:
                continue
            lifted = {"$set": {"lifted_at": at.isoformat()}}
            await self._findings.update_one({"_id": result}, lifted, session=unit.session)
            others = await self._store.disputed_by(row["item_id"], unit.session)
            progress = await Progress.load(self._store, unit, [item.item_id for item in others])
            for item in others:
                for dispute in item.disputes:
                    if f"{dispute.ground.item_id}:{dispute.ground.round}" == result:
                        progress.dispute(item.item_id, dispute, received.trace, lifted=True)
            await progress.save()
