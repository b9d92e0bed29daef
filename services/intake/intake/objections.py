"""Objections (异议): filed by a subject against a record or the result of an item, followed until its department has decided."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.inbox import Received
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import DeadLetterReason, ProblemCode
from contracts.events import (
    ObjectionDecided,
    ObjectionEvent,
    ObjectionFiled,
    ObjectionKind,
    ObjectionReferralWithdrawn,
    ObjectionRemedy,
    ObjectionWithdrawalRequested,
    ObjectionWithdrawn,
    RecordPublished,
    RecordWithdrawn,
)
from contracts.http.intake import Material
from contracts.http.mandate import MandateAct
from contracts.records import ItemId, MaterialId, RecordId
from intake import in_person, texts
from intake.domain.item import Item
from intake.domain.record import Record
from intake.findings import Findings
from intake.materials import Materials
from intake.objection import (
    STATUS_TEXT,
    WITHDRAWABLE,
    Objection,
    ObjectionStatus,
    apply_objection,
    record_fault,
    result_fault,
)
from intake.progress import Progress
from intake.store import Store
from intake.submission import MAX_MATERIALS, Applicant

_MAX_LISTED = 200
COLLECTIONS = [
    CollectionSpec(
        "objections",
        [
            IndexModel([("subject_id", ASCENDING), ("filed_at", DESCENDING), ("_id", DESCENDING)]),
            IndexModel("target"),
        ],
    )
]


class NewObjection(BaseModel):
    """一件异议：对一条记录，或对一个事项的结果，二者填一。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record_id: RecordId | None = Field(None, description="对记录的内容或公示期有异议")
    item_id: ItemId | None = Field(None, description="对该事项的结果（不予受理、不予修复、撤销修复）有异议")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000)] = Field(
        description="异议的理由"
    )
    material_ids: Annotated[list[MaterialId], Field(max_length=MAX_MATERIALS)] = Field(
        default=[], description="证明材料，先上传取得编号"
    )

    @model_validator(mode="after")
    def _about_one_thing(self) -> Self:
        if (self.record_id is None) == (self.item_id is None):
            raise ValueError("请填写 record_id（对记录）或 item_id（对结果），二者填一")
        if len(set(self.material_ids)) < len(self.material_ids):
            raise ValueError("同一材料只需附一次，请去掉重复的")
        return self

    def request_hash(self) -> str:
        """The same for every spelling of the same request."""
        text = json.dumps(self.model_dump(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Objections:
    """All objections; ``_id`` is the objection id."""

    def __init__(
        self,
        database: Database,
        store: Store,
        materials: Materials,
        findings: Findings,
        outbox: Outbox,
        catalogue: Catalogue,
        retention_days: int,
    ) -> None:
        self._objections = database.collection("objections")
        self._store = store
        self._materials = materials
        self._findings = findings
        self._outbox = outbox
        self._catalogue = catalogue
        self._retention_days = retention_days

    # --- reading

    async def of_subject(self, subject_id: str) -> list[Objection]:
        """Those of a subject, the newest first, 200 at most."""
        cursor = self._objections.find({"subject_id": subject_id})
        rows = await cursor.sort([("filed_at", DESCENDING), ("_id", DESCENDING)]).to_list(_MAX_LISTED)
        return [_objection(row) for row in rows]

    async def load(self, ids: Iterable[str], session: Session | None = None) -> dict[str, Objection]:
        """Known objections by id."""
        cursor = self._objections.find({"_id": {"$in": list(ids)}}, session=session)
        return {row["_id"]: _objection(row) async for row in cursor}

    # --- filing

    async def file(
        self, applicant: Applicant, new: NewObjection, idempotency_key: str
    ) -> tuple[Objection, bool]:
        """Take an objection, or give again what was filed under the same key (True).

        Raises Problem: IDEMPOTENCY_CONFLICT, UNKNOWN_MATERIAL, UNKNOWN_RECORD, NOT_FOUND, OBJECTION_NOT_POSSIBLE, MANDATE_NOT_VALID.
        """
        applicant.may(MandateAct.OBJECT, china_date(datetime.now(UTC)))
        subject_id = applicant.subject.subject_id
        objection_id = f"obj_{uuid.uuid4().hex}"
        key = f"{subject_id}:objection:{idempotency_key}"
        found = await self._materials.of(subject_id, new.material_ids) if new.material_ids else []
        if unknown := sorted(set(new.material_ids) - {m.material_id for m in found}):
            raise Problem(
                ProblemCode.UNKNOWN_MATERIAL,
                "所附材料中有不存在或不属于当前主体的，请重新上传后再提交。",
                material_ids=unknown,
            )

        async def work(unit: UnitOfWork) -> tuple[Objection, bool]:
            seen = await self._store.seen_request(key, unit.session)
            if seen is not None:
                if seen[0] != new.request_hash():
                    raise Problem(
                        ProblemCode.IDEMPOTENCY_CONFLICT,
                        "该 Idempotency-Key 已用于内容不同的异议，请为新的异议换一个键。",
                    )
                return (await self.load([seen[1]], unit.session))[seen[1]], True
            if new.item_id is not None:
                objection = await self._to_result(unit, applicant, objection_id, new.item_id, new, found)
            else:
                objection = await self._to_record(unit, applicant, objection_id, new, found)
            await self._store.remember_request(
                key, new.request_hash(), objection_id, unit.now, self._retention_days, unit.session
            )
            await self._store.save_subjects([applicant.subject], unit.session)
            await self._save([objection], unit.session)
            return objection, False

        return await self._outbox.run(work)

    async def withdraw(self, applicant: Applicant, objection_id: str) -> Objection:
        """Ask for an objection to be withdrawn; its department answers. Repeating it changes nothing.

        Raises Problem: NOT_FOUND, INVALID_TRANSITION, MANDATE_NOT_VALID.
        """
        applicant.may(MandateAct.WITHDRAW, china_date(datetime.now(UTC)))

        async def work(unit: UnitOfWork) -> Objection:
            objection = own_objection(await self.load([objection_id], unit.session), applicant, objection_id)
            if objection.withdrawal_requested_at is not None:
                return objection
            if objection.status is ObjectionStatus.FILED:
                raise Problem(ProblemCode.INVALID_TRANSITION, "该异议正在分派，请稍后再试。")
            if objection.status not in WITHDRAWABLE:
                words = STATUS_TEXT[objection.status]
                raise Problem(ProblemCode.INVALID_TRANSITION, f"该异议现为“{words}”，已经办结，不能撤回。")
            asked = objection.model_copy(update={"withdrawal_requested_at": unit.now})
            await self._save([asked], unit.session)
            event = ObjectionWithdrawalRequested(
                **_about(objection), department=objection.holder, requested_at=unit.now
            )
            unit.emit(event, cause=f"withdraw:{objection_id}")
            return asked

        return await self._outbox.run(work)

    async def _to_record(
        self,
        unit: UnitOfWork,
        applicant: Applicant,
        objection_id: str,
        new: NewObjection,
        materials: Sequence[Material],
    ) -> Objection:
        record_id = new.record_id or ""
        record = (await self._store.records([record_id], unit.session)).get(record_id)
        # a record of somebody else is answered like one that does not exist
        if record is None or record.subject_id != applicant.subject.subject_id:
            raise Problem(
                ProblemCode.UNKNOWN_RECORD,
                "没有这条记录，或它不属于当前主体，请在“我的失信记录”中查看编号。",
                record_ids=[record_id],
            )
        if fault := record_fault(record, self._catalogue, china_date(unit.now)):
            raise Problem(ProblemCode.OBJECTION_NOT_POSSIBLE, fault)
        if record.objection_id is not None or not await self._store.object_to_record(
            record_id, objection_id, unit.session, result=False
        ):
            raise _open(record.objection_id)
        objection = _new(unit, applicant, objection_id, new, materials, record, None, self._catalogue)
        unit.emit(_filed(objection, None), cause=f"object:{objection_id}")
        return objection

    async def _to_result(
        self,
        unit: UnitOfWork,
        applicant: Applicant,
        objection_id: str,
        item_id: str,
        new: NewObjection,
        materials: Sequence[Material],
    ) -> Objection:
        progress = await Progress.load(self._store, unit, [item_id])
        item = progress.items.get(item_id)
        if item is None or not progress.is_of(item, applicant.subject.subject_id):
            raise Problem(ProblemCode.NOT_FOUND, "没有这个事项，请在“我的申请”中查看。")
        record = (await self._store.records([item.record_id], unit.session)).get(item.record_id)
        if record is not None and record.result_objection_id is not None:
            raise _open(record.result_objection_id)
        if (fault := result_fault(item, record)) or record is None:
            raise Problem(ProblemCode.OBJECTION_NOT_POSSIBLE, fault or "")
        objection = _new(unit, applicant, objection_id, new, materials, record, item, self._catalogue)
        ended = {"target": objection.target, "status": {"$ne": ObjectionStatus.WITHDRAWN.value}}
        before = await self._objections.find_one(ended, session=unit.session)
        if before is not None:
            raise Problem(
                ProblemCode.OBJECTION_NOT_POSSIBLE,
                "对该结果的异议已经办结，不能再次提出；不服的，可以依法申请行政复议或者提起行政诉讼。",
                objection_id=before["_id"],
            )
        if not await self._store.object_to_record(item.record_id, objection_id, unit.session, result=True):
            raise _open(None)
        line = texts.objection_filed(item.facts.document_number, applicant.assistance)
        progress.change(item, "objection_filed", line, unit.now, {"objection_id": objection_id})
        await progress.save()
        unit.emit(_filed(objection, item), cause=f"object:{objection_id}")
        return objection

    async def _save(self, objections: Iterable[Objection], session: Session) -> None:
        writes = [ReplaceOne({"_id": each.objection_id}, _document(each), upsert=True) for each in objections]
        if writes:
            await self._objections.bulk_write(writes, session=session, ordered=False)

    # --- following

    async def follow(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Take in what routing and the departments tell; correct or withdraw records; lift findings that did not stand."""
        events = [(r, r.event) for r in batch if isinstance(r.event, ObjectionEvent)]
        known = await self.load({event.objection_id for _, event in events}, unit.session)
        results = {o.item_id for o in known.values() if o.item_id is not None}
        progress = await Progress.load(self._store, unit, results)
        over: dict[str, str] = {}
        upheld: list[tuple[Received, str, datetime]] = []
        changed: dict[str, Objection] = {}
        for received, event in events:
            before = known.get(event.objection_id)
            if before is None:
                unit.reject(
                    received,
                    DeadLetterReason.UNKNOWN_AGGREGATE,
                    f"no objection {event.objection_id} was filed",
                )
                continue
            after = apply_objection(before, event)
            if after == before:
                continue
            known[after.objection_id] = changed[after.objection_id] = after
            line = texts.objection(after.facts.document_number, event)
            if line is not None and after.item_id in progress.items:
                kind, text, at = line
                facts = {"objection_id": after.objection_id}
                progress.change(progress.items[after.item_id], kind, text, at, facts, received.trace)
            if isinstance(event, ObjectionWithdrawn | ObjectionReferralWithdrawn):
                over[after.objection_id] = after.record_id
            if isinstance(event, ObjectionDecided):
                result = after.kind is ObjectionKind.RESULT
                if after.status is ObjectionStatus.UPHELD and result and after.item_id is not None:
                    # the record stays held for the item, until it is open again
                    upheld.append((received, after.target, event.decided_at))
                else:
                    over[after.objection_id] = after.record_id
                self._follow_record(unit, received, event)
        await progress.save()
        await self._store.objections_over(over, unit.session)
        await self._save(changed.values(), unit.session)
        await self._findings.lift(unit, upheld)

    def _follow_record(self, unit: UnitOfWork, received: Received, event: ObjectionDecided) -> None:
        """What everybody is told of a record that was corrected or withdrawn; intake hears it like everybody else."""
        told: RecordPublished | RecordWithdrawn
        if event.remedy is ObjectionRemedy.CORRECTED:
            told = RecordPublished(
                record_id=event.record_id, record=event.record, published_at=event.decided_at
            )
        elif event.remedy is ObjectionRemedy.WITHDRAWN:
            reason = f"异议成立：{event.reason}"[:500]
            told = RecordWithdrawn(record_id=event.record_id, reason=reason, withdrawn_at=event.decided_at)
        else:
            return
        unit.emit(told, cause=received.id, trace=received.trace)


def _open(objection_id: str | None) -> Problem:
    extra: dict[str, Any] = {"objection_id": objection_id} if objection_id else {}
    return Problem(
        ProblemCode.OBJECTION_NOT_POSSIBLE,
        "已有一件异议正在办理，请在“我的异议”中查看进度，等待结果。",
        **extra,
    )


def _new(
    unit: UnitOfWork,
    applicant: Applicant,
    objection_id: str,
    new: NewObjection,
    materials: Sequence[Material],
    record: Record,
    item: Item | None,
    catalogue: Catalogue,
) -> Objection:
    facts = catalogue.told(record.facts, china_date(unit.now))
    in_person.check([facts], new.reason, new.material_ids)
    return Objection(
        objection_id=objection_id,
        kind=ObjectionKind.RECORD if item is None else ObjectionKind.RESULT,
        target=record.record_id if item is None else f"{item.item_id}:{item.round}",
        subject_id=record.subject_id,
        record_id=record.record_id,
        application_id=item.application_id if item else None,
        item_id=item.item_id if item else None,
        facts=facts,
        reason=new.reason,
        materials=tuple(materials),
        assistance=applicant.assistance,
        email=applicant.email,
        filed_at=unit.now,
    )


def own_objection(found: Mapping[str, Objection], applicant: Applicant, objection_id: str) -> Objection:
    """Raises Problem NOT_FOUND, also for one of somebody else: nobody learns which ids exist."""
    objection = found.get(objection_id)
    if objection is None or objection.subject_id != applicant.subject.subject_id:
        raise Problem(ProblemCode.NOT_FOUND, "没有这件异议，请在“我的异议”中查看。")
    return objection


def _about(objection: Objection) -> dict[str, Any]:
    return {
        **objection.model_dump(include={"objection_id", "kind", "subject_id", "record_id"}),
        "application_id": objection.application_id or objection.objection_id,
        "item_id": objection.item_id or objection.objection_id,
    }


def _filed(objection: Objection, item: Item | None) -> ObjectionFiled:
    return ObjectionFiled(
        **_about(objection),
        record=objection.facts,
        department=item.holder if item else None,
        filed_at=objection.filed_at,
    )


def _document(objection: Objection) -> Document:
    # status is computed; it is stored for people who look into the database
    body = objection.model_dump(mode="json", exclude={"objection_id"})
    return {"_id": objection.objection_id, "status": objection.status.value, **body}


def _objection(row: Document) -> Objection:
    return Objection.model_validate({**row, "objection_id": row["_id"]})
