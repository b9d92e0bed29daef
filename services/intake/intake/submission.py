"""Filing an application: the request, and the one transaction that takes it."""

import hashlib
import json
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from chassis.letter import Letter
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ApplicationSubmitted
from contracts.http.eligibility import RepairStatus
from contracts.http.intake import Contact, Material, Subject
from contracts.http.mandate import Assistance, Mandate, MandateAct
from contracts.identifiers import item_id
from contracts.records import MaterialId, RecordId
from intake import in_person, texts
from intake.commitment import commitment
from intake.contact import normalise_phone
from intake.domain.application import Application, ConfirmedCommitment, Entry
from intake.domain.item import Item
from intake.domain.record import Record
from intake.eligibility import assess
from intake.findings import Findings
from intake.mandates import fault
from intake.materials import Materials
from intake.plan import prerequisites
from intake.settings import IntakeSettings
from intake.store import Store

MAX_RECORDS = 200
MAX_MATERIALS = 3
"""杭州 一件事: 38 kinds of material became 3 (founding article)."""
_MAX_NAME = 50
_MAX_STATEMENT = 5000


def _fault(message: str) -> PydanticCustomError:
    # "{" is the start of a placeholder in pydantic's messages
    return PydanticCustomError("value", "{message}", {"message": message})


def _name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > _MAX_NAME or any(unicodedata.category(c)[0] == "C" for c in name):
        raise _fault(f"请填写联系人姓名，1至{_MAX_NAME}个字符")
    return name


def _phone(text: str) -> str:
    try:
        return normalise_phone(text)
    except ValueError as error:
        raise _fault(str(error)) from None


def valid_record_ids(ids: list[str]) -> list[str]:
    """1 to ``MAX_RECORDS`` records, each once; a validator."""
    if not 1 <= len(ids) <= MAX_RECORDS:
        raise _fault(f"请选择1至{MAX_RECORDS}条记录，现有{len(ids)}条")
    if len(set(ids)) < len(ids):
        raise _fault("同一记录只能选择一次，请去掉重复的记录")
    return ids


def valid_material_ids(ids: list[str]) -> list[str]:
    """At most ``MAX_MATERIALS`` materials, each once; a validator."""
    if len(ids) > MAX_MATERIALS:
        raise _fault(f"至多附{MAX_MATERIALS}份材料，现有{len(ids)}份；同类的请合并为一个文件")
    if len(set(ids)) < len(ids):
        raise _fault("同一材料只需附一次，请去掉重复的")
    return ids


def _statement(text: str) -> str:
    statement = text.strip()
    if not 1 <= len(statement) <= _MAX_STATEMENT:
        raise _fault(f"请填写情况说明，1至{_MAX_STATEMENT}个字，现有{len(statement)}个字")
    return statement


class StatementForm(BaseModel):
    """统一的情况说明：前三项必填，后两项选填（《杭州市企业“信用修复一件事”》模板的各项）。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    performed: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)] = (
        Field(description="履行处罚义务的情况")
    )
    corrected: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)] = (
        Field(description="改正违法行为的情况")
    )
    prevention: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)] = (
        Field(description="预防再次发生违法行为的工作机制")
    )
    contribution: Annotated[str, StringConstraints(strip_whitespace=True, max_length=800)] = Field(
        "", description="行业贡献（选填）"
    )
    welfare: Annotated[str, StringConstraints(strip_whitespace=True, max_length=800)] = Field(
        "", description="社会公益（选填）"
    )

    def text(self) -> str:
        """The statement as departments read it: a numbered heading for each part that was filled in."""
        parts = [
            ("履行处罚义务的情况", self.performed),
            ("改正违法行为的情况", self.corrected),
            ("预防再次发生违法行为的工作机制", self.prevention),
            ("行业贡献", self.contribution),
            ("社会公益", self.welfare),
        ]
        filled = [part for part in parts if part[1]]
        return "\n".join(
            f"{n}、{title}：{text}" for n, (title, text) in zip("一二三四五", filled, strict=False)
        )


def _form(given: Any) -> Any:
    """A form becomes the text that departments read; everything else is left to the next validator."""
    if not isinstance(given, dict):
        return given
    try:
        return StatementForm.model_validate(given).text()
    except ValidationError as error:
        names = {name: field.description or name for name, field in StatementForm.model_fields.items()}
        wrong = dict.fromkeys(str(fault["loc"][0]) for fault in error.errors())
        shown = "、".join(f"“{names[name]}”（{name}）" if name in names else name for name in wrong)
        raise _fault(f"情况说明中的{shown}未填、过长，或不是模板中的项") from None


def _statement_schema(schema: dict[str, Any]) -> None:
    schema.pop("type")
    text = {"type": "string", "minLength": 1, "maxLength": _MAX_STATEMENT}
    schema["anyOf"] = [text, StatementForm.model_json_schema()]


class NewApplication(BaseModel):
    """一份修复申请：四项必填，另可附至多三份材料；不接受其他字段。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact_name: Annotated[str, AfterValidator(_name)] = Field(
        description="联系人姓名",
        examples=["张三"],
        json_schema_extra={"minLength": 1, "maxLength": _MAX_NAME},
    )
    contact_phone: Annotated[str, AfterValidator(_phone)] = Field(
        description="手机号码，或带区号的固定电话", examples=["13812345678"]
    )
    record_ids: Annotated[list[RecordId], AfterValidator(valid_record_ids)] = Field(
        description="要修复的记录",
        json_schema_extra={"minItems": 1, "maxItems": MAX_RECORDS, "uniqueItems": True},
    )
    statement: Annotated[str, BeforeValidator(_form), AfterValidator(_statement)] = Field(
        description="情况说明：按统一模板逐项填写，或一段文字",
        json_schema_extra=_statement_schema,
    )
    material_ids: Annotated[list[MaterialId], AfterValidator(valid_material_ids)] = Field(
        default=[],
        description="证明材料，先上传取得编号；每份供全部事项使用",
        json_schema_extra={"maxItems": MAX_MATERIALS, "uniqueItems": True},
    )

    commitment_hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None,
        description="信用信息修复承诺书的 commitment_hash（先经 /v1/applications/commitment-preview 展示并由申请人确认）",
    )

    def request_hash(self) -> str:
        """The same for every spelling of the same request; the order of the records does not matter."""
        content = {**self.model_dump(exclude_defaults=True), "record_ids": sorted(self.record_ids)}
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Applicant:
    """For whom it is acted: the subject of the token, or of ``mandate``. ``email`` is None when the token has none."""

    subject: Subject
    email: str | None
    mandate: Mandate | None = None

    def may(self, act: MandateAct, today: date) -> None:
        """Raises Problem MANDATE_NOT_VALID when a window's mandate does not allow that (any more)."""
        if self.mandate is not None and (problem := fault(self.mandate, self.mandate.agent, act, today)):
            raise Problem(ProblemCode.MANDATE_NOT_VALID, problem)

    @property
    def assistance(self) -> Assistance | None:
        """The window that acts, if one does."""
        if self.mandate is None:
            return None
        return Assistance(mandate_id=self.mandate.mandate_id, agent=self.mandate.agent)


@dataclass(frozen=True)
class Submitted:
    """An application as it was when it was taken. ``replayed``: by an earlier request with the same key."""

    application: Application
    items: list[Item]
    entries: list[Entry]
    replayed: bool


class Submission:
    """Takes applications."""

    def __init__(
        self,
        store: Store,
        materials: Materials,
        findings: Findings,
        outbox: Outbox,
        catalogue: Catalogue,
        settings: IntakeSettings,
    ) -> None:
        self._store = store
        self._materials = materials
        self._findings = findings
        self._outbox = outbox
        self._catalogue = catalogue
        self._retention_days = settings.idempotency_retention_days
        self._transition = settings.transition
        self._require_commitment = settings.require_commitment

    async def submit(self, applicant: Applicant, new: NewApplication, idempotency_key: str) -> Submitted:
        """Take the application, or give again what was taken under the same key.

        Raises Problem: IDEMPOTENCY_CONFLICT, UNKNOWN_MATERIAL, UNKNOWN_RECORD, RECORD_UNDER_APPLICATION, RECORD_NOT_REPAIRABLE,
        COMMITMENT_NOT_CONFIRMED, SUBJECT_BARRED, VALIDATION (a record that is handed over in person).
        """
        applicant.may(MandateAct.FILE, china_date(datetime.now(UTC)))
        # outside the transaction: a second attempt of the same request is the same application
        application_id = f"app_{uuid.uuid4().hex}"
        key = f"{applicant.subject.subject_id}:{idempotency_key}"
        request_hash = new.request_hash()
        # they never change, so they may be read before the transaction
        materials = await self._materials.own(applicant.subject.subject_id, new.material_ids)

        async def work(unit: UnitOfWork) -> Submitted:
            seen = await self._store.seen_request(key, unit.session)
            if seen is not None:
                return await self._replay(unit, seen, request_hash)
            await self._not_barred(unit, applicant.subject.subject_id)
            records = await self._repairable(unit, applicant.subject.subject_id, new.record_ids)
            records = self._told(records, china_date(unit.now))
            in_person.check([record.facts for record in records], new.statement, new.material_ids)
            promised = self._commitment(applicant.subject, records, new.commitment_hash, unit.now)
            first = prerequisites(records, self._catalogue, china_date(unit.now), self._transition)
            submitted = _take(unit, application_id, applicant, new, records, first, materials, promised)
            if not await self._store.claim_records(submitted.items, unit.session):
                raise _under_application(new.record_ids)
            await self._store.remember_request(
                key, request_hash, application_id, unit.now, self._retention_days, unit.session
            )
            await self._store.save_subjects([applicant.subject], unit.session)
            # a finding made at the same time is either seen here, or sees this application
            await self._store.touch_subject(applicant.subject.subject_id, unit.session)
            await self._store.add_application(
                submitted.application, submitted.items, submitted.entries, unit.session
            )
            unit.emit(
                ApplicationSubmitted(
                    application_id=application_id,
                    subject_id=applicant.subject.subject_id,
                    subject_type=applicant.subject.subject_type,
                    records=tuple(record.facts for record in records),
                    held=tuple(record_id for record_id, after in first.items() if after),
                    assisted_by=applicant.mandate.agent.name if applicant.mandate else None,
                    submitted_at=submitted.application.submitted_at,
                ),
                cause=f"submit:{application_id}",
            )
            return submitted

        return await self._outbox.run(work)

    async def _not_barred(self, unit: UnitOfWork, subject_id: str) -> None:
        finding = await self._findings.barring(subject_id, china_date(unit.now), unit.session)
        if finding is not None:
            raise Problem(
                ProblemCode.SUBJECT_BARRED,
                finding.advice,
                until=finding.until.isoformat() if finding.until else None,
                department=finding.department.name,
                decision_number=finding.decision_number,
                item_id=finding.item_id,
            )

    async def commitment(self, applicant: Applicant, record_ids: Sequence[str]) -> Letter:
        """What the applicant promises when filing for these records today. Raises Problem UNKNOWN_RECORD."""
        found = await self._store.records(record_ids)
        today = china_date(datetime.now(UTC))
        records = self._told(_own(found, applicant.subject.subject_id, record_ids), today)
        return commitment(applicant.subject, records, self._catalogue, today)

    def _told(self, records: Sequence[Record], today: date) -> list[Record]:
        """A row of the catalogue may have been made since a record was taken."""
        return [
            each.model_copy(update={"facts": self._catalogue.told(each.facts, today)}) for each in records
        ]

    def _commitment(
        self, subject: Subject, records: Sequence[Record], confirmed: str | None, now: datetime
    ) -> ConfirmedCommitment | None:
        """The commitment that was confirmed: it must be the one of today for these very records."""
        if confirmed is None and not self._require_commitment:
            return None
        letter = commitment(subject, records, self._catalogue, china_date(now))
        if confirmed != letter.content_hash:
            said = (
                "尚未确认信用信息修复承诺书"
                if confirmed is None
                else "所确认的承诺书与本次申请不一致或已过期"
            )
            raise Problem(
                ProblemCode.COMMITMENT_NOT_CONFIRMED,
                f"{said}：请再次通过 /v1/applications/commitment-preview 向申请人展示承诺书，"
                "由其确认后以其 commitment_hash 提交。",
            )
        return ConfirmedCommitment(
            content_hash=letter.content_hash, confirmed_at=_stored(now), content=letter.model_dump_json()
        )

    async def _replay(self, unit: UnitOfWork, seen: tuple[str, str], request_hash: str) -> Submitted:
        seen_hash, application_id = seen
        if seen_hash != request_hash:
            raise Problem(
                ProblemCode.IDEMPOTENCY_CONFLICT,
                "该 Idempotency-Key 已用于内容不同的申请，请为新的申请换一个键。",
            )
        found = await self._store.applications([application_id], unit.session)
        items = await self._store.items_of([application_id], unit.session)
        return _as_submitted(found[application_id], items)

    async def _repairable(self, unit: UnitOfWork, subject_id: str, ids: Sequence[str]) -> list[Record]:
        found = await self._store.records(ids, unit.session)
        own = {record.record_id: record for record in _own(found, subject_id, ids)}
        if taken := [i for i in ids if own[i].application_id is not None]:
            raise _under_application(taken)
        today = china_date(unit.now)
        refused = [
            {
                "record_id": i,
                "document_number": own[i].facts.document_number,
                **repair.model_dump(
                    mode="json",
                    by_alias=True,
                    include={"status", "status_text", "from_", "until", "refer_to"},
                ),
                "reason": repair.advice,
            }
            for i in ids
            if not (repair := assess(own[i], self._catalogue, today, self._transition)).status.may_apply
        ]
        if refused:
            raise Problem(
                ProblemCode.RECORD_NOT_REPAIRABLE,
                "所选记录中有目前不能申请的，请按 records 中的说明去掉后重新提交。",
                records=refused,
            )
        return [own[i] for i in ids]


def _own(found: Mapping[str, Record], subject_id: str, ids: Sequence[str]) -> list[Record]:
    """The records asked for. Raises Problem UNKNOWN_RECORD: one of somebody else is answered like one that does not exist."""
    own = {i: record for i, record in found.items() if record.subject_id == subject_id}
    if unknown := [i for i in ids if i not in own]:
        raise Problem(
            ProblemCode.UNKNOWN_RECORD,
            "所选记录中有不存在或不属于当前主体的，请刷新记录列表后重新选择。",
            record_ids=unknown,
        )
    return [own[i] for i in ids]


def _stored(now: datetime) -> datetime:
    """As precise as the database stores it: the answer is the same when it is read back."""
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _under_application(ids: Sequence[str]) -> Problem:
    return Problem(
        ProblemCode.RECORD_UNDER_APPLICATION,
        "所选记录中有正在办理的，请去掉后重新提交，或查看已有申请的进度。",
        record_ids=list(ids),
        repair_status=RepairStatus.UNDER_APPLICATION.value,
    )


def _take(
    unit: UnitOfWork,
    application_id: str,
    applicant: Applicant,
    new: NewApplication,
    records: Sequence[Record],
    first: Mapping[str, Sequence[str]],
    materials: Sequence[Material],
    promised: ConfirmedCommitment | None,
) -> Submitted:
    now = _stored(unit.now)
    items = sorted(
        (
            Item(
                item_id=item_id(application_id, record.record_id),
                application_id=application_id,
                record_id=record.record_id,
                facts=record.facts,
                after=tuple(item_id(application_id, other) for other in first[record.record_id]),
            )
            for record in records
        ),
        key=lambda item: item.item_id,
    )
    application = Application(
        application_id=application_id,
        subject_id=applicant.subject.subject_id,
        contact=Contact(name=new.contact_name, phone=new.contact_phone, email=applicant.email),
        statement=new.statement,
        materials=tuple(materials),
        commitment=promised,
        assistance=applicant.assistance,
        submitted_at=now,
        item_count=len(items),
        open_items=len(items),
        held=sum(bool(item.after) for item in items),
        timeline_seq=1 + sum(bool(item.after) for item in items),
    )
    return Submitted(application, items, _first_entries(application, items), replayed=False)


def _first_entries(application: Application, items: Sequence[Item]) -> list[Entry]:
    """That it was submitted, and for each item that has to wait, for which others."""
    numbers = {item.item_id: item.facts.document_number for item in items}
    promised = application.commitment
    lines: list[tuple[str | None, str, str]] = [
        (
            None,
            "submitted",
            texts.submitted(application.item_count, application.assistance, confirmed=promised is not None)
            + (texts.HANDED_OVER if any(item.facts.in_person for item in items) else ""),
        ),
        *(
            (item.item_id, "queued", texts.queued(numbers[item.item_id], [numbers[i] for i in item.after]))
            for item in items
            if item.after
        ),
    ]
    return [
        Entry(
            application_id=application.application_id,
            seq=seq,
            item_id=about,
            type=kind,
            at=application.submitted_at,
            text=text,
            facts={"commitment_hash": promised.content_hash} if promised and kind == "submitted" else {},
        )
        for seq, (about, kind, text) in enumerate(lines, start=1)
    ]


def _as_submitted(application: Application, items: Sequence[Item]) -> Submitted:
    """What the first answer told, whatever has happened since."""
    then: dict[str, Any] = {"status": "open", "completed_at": None, "open_items": application.item_count}
    first = application.model_copy(update={**then, "timeline_seq": 1 + application.held})
    facts = ("item_id", "application_id", "record_id", "facts", "after")
    untouched = [Item(**{name: getattr(item, name) for name in facts}) for item in items]
    return Submitted(first, untouched, _first_entries(first, untouched), replayed=True)
