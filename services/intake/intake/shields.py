"""临时屏蔽: while a bankruptcy plan is performed the subject's records are not shown; afterwards they are finally repaired, or shown again.

The platform knows of it only by somebody's word: an event of the source (``contracts.events.RecordShielded``, ``ShieldEnded``), or whoever
brings records, here. It is a person who has read the ruling; the evidence of the rule is weak, so nothing of it refuses anybody.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from chassis.audit import Audit
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, Evidence
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import RecordShielded, ShieldEnded, ShieldOutcome
from contracts.records import DisplayState, RecordId, Shape
from intake.domain.record import Record, begin_shield, end_shield, is_shown, publication, publication_changed
from intake.progress import Progress
from intake.store import Store
from intake.submission import MAX_RECORDS, valid_record_ids

_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Number = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]


class Ruling(BaseModel):
    """一份法院裁定，以及它所及的记录：同一主体的。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record_ids: Annotated[list[RecordId], AfterValidator(valid_record_ids)] = Field(
        description="同一主体的记录", json_schema_extra={"minItems": 1, "maxItems": MAX_RECORDS}
    )
    court: _Line = Field(description="作出裁定的法院")
    ruling_number: _Number = Field(description="裁定书文号")
    ruled_on: date = Field(description="裁定日期")


class NewShield(Ruling):
    """批准重整计划或认可和解协议的裁定。"""

    plan_ends_on: date | None = Field(None, description="裁定书写明的执行期限；到期本身不产生任何后果")


class EndOfShield(Ruling):
    """计划、协议执行完毕，或者未能执行的裁定。"""

    outcome: ShieldOutcome = Field(description="performed 执行完毕，终止公示；failed 未能执行，恢复公示")


class RecordPublication(Shape):
    """一条记录现在应怎样展示。"""

    record_id: str
    document_number: str
    state: DisplayState


class Shielded(Shape):
    """所及的记录，以及规则目录怎么说。"""

    records: list[RecordPublication]
    rule: str | None = Field(description="规则目录中的编号；空：当天没有这样的规则，请核对")
    source: str | None
    evidence: Evidence | None = Field(description="依据的证据等级；F、X、D、M 只作提示，由人判断")
    materials: list[str] = Field(description="应当核对的材料")


class Shields:
    """Each in one transaction. Repeating it changes nothing."""

    def __init__(self, store: Store, outbox: Outbox, catalogue: Catalogue, audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self._outbox = outbox
        self._catalogue = catalogue

    async def begin(self, new: NewShield, by: str) -> Shielded:
        """Shield records. ``by``: who says so. Raises Problem: UNKNOWN_RECORD, VALIDATION (of several subjects), INVALID_TRANSITION (not shown anyway)."""

        def change(unit: UnitOfWork, record: Record) -> Record:
            facts = new.model_dump(exclude={"record_ids"})
            event = RecordShielded(record_id=record.record_id, shielded_at=unit.now, **facts)
            return begin_shield(record, event)

        return await self._apply(new, by, change, is_shown, "已不在公示，无须屏蔽", ends=False)

    async def end(self, ruling: EndOfShield, by: str) -> Shielded:
        """End shields. ``by``: who says so. Raises Problem: UNKNOWN_RECORD, VALIDATION (of several subjects), INVALID_TRANSITION (not shielded)."""

        def change(unit: UnitOfWork, record: Record) -> Record:
            facts = ruling.model_dump(exclude={"record_ids"})
            return end_shield(record, ShieldEnded(record_id=record.record_id, ended_at=unit.now, **facts))

        def fits(record: Record) -> bool:
            shield = record.shield
            said = shield is not None and (shield.outcome, shield.ended_by) == (
                ruling.outcome,
                ruling.ruling_number,
            )
            return said or (shield is not None and shield.is_on)

        return await self._apply(ruling, by, change, fits, "不在屏蔽中", ends=True)

    async def _apply(
        self,
        ruling: Ruling,
        by: str,
        change: Callable[[UnitOfWork, Record], Record],
        fits: Callable[[Record], bool],
        fault: str,
        *,
        ends: bool,
    ) -> Shielded:
        async def work(unit: UnitOfWork) -> Shielded:
            known = await self._store.records(ruling.record_ids, unit.session)
            records = [known[i] for i in ruling.record_ids if i in known]
            _check(ruling, records, fits, fault)
            after: list[Record] = []
            open_items = {r.record_id: r.item_id for r in records if r.application_id and r.item_id}
            progress = await Progress.load(self._store, unit, open_items.values())
            for before in records:
                record, told = publication_changed(before, change(unit, before), unit.now)
                after.append(record)
                if told is None:
                    continue
                unit.emit(told, cause=f"shield:{record.record_id}:{told.revision}")
                await self._audit.add(
                    by=by,
                    action=f"publication {told.change.value}",
                    reason=f"{ruling.court}（{ruling.ruling_number}）",
                    subject=record.record_id,
                    result=told.state.value,
                    session=unit.session,
                )
                item = progress.items.get(open_items.get(record.record_id, ""))
                if item is not None:
                    progress.shown_otherwise(item, told, None)
            await self._store.save_records(
                [r for r, before in zip(after, records, strict=True) if r is not before], unit.session
            )
            await progress.save()
            return self._answer(after, china_date(unit.now), ends=ends)

        return await self._outbox.run(work)

    def _answer(self, records: Sequence[Record], today: date, *, ends: bool) -> Shielded:
        rule = self._catalogue.shield(today)
        materials = (rule.end_materials if ends else rule.begin_materials) if rule else ()
        return Shielded(
            records=[
                RecordPublication(
                    record_id=record.record_id,
                    document_number=record.facts.document_number,
                    state=publication(record)[0],
                )
                for record in records
            ],
            rule=rule.number if rule else None,
            source=rule.source if rule else None,
            evidence=rule.evidence if rule else None,
            materials=[*materials],
        )


def _check(ruling: Ruling, records: Sequence[Record], fits: Callable[[Record], bool], fault: str) -> None:
    found = {record.record_id for record in records}
    if unknown := [i for i in ruling.record_ids if i not in found]:
        raise Problem(
            ProblemCode.UNKNOWN_RECORD, "没有这些记录：请先公示（导入），或核对编号。", record_ids=unknown
        )
    if len({record.subject_id for record in records}) > 1:
        raise Problem(
            ProblemCode.VALIDATION, "所列记录不是同一主体的：一份裁定只及于一个主体，请核对后分别提交。"
        )
    if wrong := [record for record in records if not fits(record)]:
        numbers = "、".join(record.facts.document_number for record in wrong)
        raise Problem(
            ProblemCode.INVALID_TRANSITION,
            f"{numbers}{fault}，本次全部未生效；请去掉后重新提交。",
            record_ids=[record.record_id for record in wrong],
        )
