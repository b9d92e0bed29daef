"""What the HTTP API answers (response models)."""

from datetime import date
from typing import Any, Literal

from pydantic import Field

from contracts.catalogue import Catalogue
from contracts.http.eligibility import Repair, Transition
from contracts.http.intake import Commitment, Material
from contracts.http.mandate import Assistance
from contracts.records import DepartmentRef, RecordFacts, Shape, Timestamp
from intake import texts
from intake.domain.application import Application, Entry
from intake.domain.item import OBJECTIONABLE, Item, ItemLetter, ItemStatus, TargetState
from intake.domain.record import Display, Record, Shield
from intake.eligibility import assess
from intake.findings import Finding, barred


class RecordView(Shape):
    """一条失信记录，以及目前能否申请修复。"""

    record_id: str
    category_name: str = Field(description="记录类别名称")
    facts: RecordFacts
    display: Display
    published_at: Timestamp
    application_id: str | None = Field(description="正在办理的申请")
    item_id: str | None = Field(description="最近一次申请中的事项")
    objection_id: str | None = Field(description="正在办理的对该记录的异议")
    result_objection_id: str | None = Field(description="正在办理的对其最近结果的异议")
    shield: Shield | None = Field(description="因破产重整、和解的临时屏蔽；outcome 为空即屏蔽中")
    repair: Repair

    @staticmethod
    def of(
        record: Record,
        catalogue: Catalogue,
        today: date,
        transition: Transition,
        barred_by: Finding | None,
    ) -> "RecordView":
        """The record as its subject sees it on ``today``. ``barred_by``: see ``intake.findings``."""
        category = catalogue.category(record.facts.category)
        return RecordView(
            record_id=record.record_id,
            category_name=category.name if category else record.facts.category,
            facts=record.facts,
            display=record.display,
            published_at=record.published_at,
            application_id=record.application_id,
            item_id=record.item_id,
            objection_id=record.objection_id,
            result_objection_id=record.result_objection_id,
            shield=record.shield,
            repair=barred(assess(record, catalogue, today, transition), barred_by),
        )


class RecordPage(Shape):
    """``next`` 不为空时，以 ``after`` = ``next`` 取下一页。"""

    subject_id: str
    records: list[RecordView]
    next: str | None


class TargetView(Shape):
    """一个公示平台的进展。"""

    target_id: str
    name: str
    state: TargetState
    state_text: str
    version: int
    at: Timestamp


class ItemView(Shape):
    """申请中的一项：一条记录。"""

    item_id: str
    record_id: str
    document_number: str
    authority_name: str
    category: str
    decided_on: date
    penalty_kinds: str
    status: ItemStatus
    status_text: str
    after: list[str] = Field(description="排队时：待哪些事项（item_id）准予后自动开始")
    due_on: date | None = Field(description="现在应当行动的一方的期限：认定单位决定，或申请人补正")
    due_provisional: bool = Field(
        description="期限暂定：跨入的年份放假安排尚未公布，公布后重算，此前不视为逾期"
    )
    overdue: bool = Field(description="认定单位已超期")
    missing: list[str] = Field(description="认定单位要求补正的内容；不需要补正时为空")
    supplement_due_on: date | None = Field(description="补正期限，逾期视为撤回")
    supplemented_at: Timestamp | None = Field(description="申请人提交补正的时间")
    supplement_materials: list[Material] = Field(description="随补正提交的材料")
    extension_reason: str | None = Field(description="延期的理由")
    withdrawal_requested_at: Timestamp | None
    withdrawn_at: Timestamp | None = Field(description="撤回时间")
    department: DepartmentRef | None
    queue_name: str | None = Field(description="人工分派席（曾转人工分派时）")
    queue_due_on: date | None = Field(description="人工分派应完成之日")
    decide_due_on: date | None = Field(description="认定单位应作出决定之日")
    accepted_at: Timestamp | None
    decision: Literal["granted", "refused", "recognised"] | None
    decision_number: str | None
    reason: str | None = Field(description="不予受理、不予修复的理由")
    decided_at: Timestamp | None
    revocation_number: str | None = Field(description="撤销修复决定书文号")
    revocation_reason: str | None = Field(description="撤销修复的理由")
    revoked_at: Timestamp | None
    repaired_at: Timestamp | None
    round: int = Field(description="异议成立后重新办理（或恢复修复）的次数")
    may_object: bool = Field(description="对该结果可以提出异议（POST /v1/objections）")
    disputes: list[str] = Field(description="在其他事项中被认定虚假、而本事项所依据的材料：认定单位和文号")
    targets: list[TargetView]
    letters: list[ItemLetter] = Field(description="文书，按办理的先后；下载见 /v1/applications/{id}/letters")

    @staticmethod
    def of(item: Item) -> "ItemView":
        """The item as the applicant sees it."""
        facts = item.facts
        due_on, provisional = _due_on(item)
        return ItemView(
            item_id=item.item_id,
            record_id=item.record_id,
            document_number=facts.document_number,
            authority_name=facts.authority_name,
            category=facts.category,
            decided_on=facts.decided_on,
            penalty_kinds=facts.penalty_kinds,
            status=item.status,
            status_text=texts.ITEM_STATUS[item.status],
            after=[*item.after] if item.status is ItemStatus.QUEUED else [],
            due_on=due_on,
            due_provisional=provisional,
            overdue=item.is_overdue,
            missing=[*item.supplement.missing] if item.supplement else [],
            supplement_due_on=item.supplement.due_on if item.supplement else None,
            supplemented_at=item.supplemented_at,
            supplement_materials=[*item.supplement_materials],
            extension_reason=item.extension_reason,
            withdrawal_requested_at=item.withdrawal_requested_at,
            withdrawn_at=item.withdrawn_at or item.unassigned_withdrawn_at,
            department=item.holder,
            queue_name=item.referral.queue_name if item.referral else None,
            queue_due_on=item.referral.due_on if item.referral else None,
            decide_due_on=item.due_on,
            accepted_at=item.accepted_at,
            decision=item.decision,
            decision_number=item.decision_number,
            reason=item.reason,
            decided_at=item.decided_at,
            revocation_number=item.revocation_number,
            revocation_reason=item.revocation_reason,
            revoked_at=item.revoked_at,
            repaired_at=item.repaired_at,
            round=item.round,
            may_object=item.status in OBJECTIONABLE,
            disputes=[f"{d.ground.department.name}（{d.ground.decision_number}）" for d in item.disputes],
            letters=[*item.letters],
            targets=[
                TargetView(
                    target_id=target_id,
                    state_text=texts.TARGET_STATE[target.state],
                    **target.model_dump(),
                )
                for target_id, target in sorted(item.targets.items())
            ],
        )


def _due_on(item: Item) -> tuple[date | None, bool]:
    """The last day of whoever has to act now, and whether it is provisional."""
    match item.status:
        case ItemStatus.SUPPLEMENT if item.supplement:
            return item.supplement.due_on, item.supplement.due_provisional
        case ItemStatus.REFERRED if item.referral:
            return item.referral.due_on, item.referral.due_provisional
        case ItemStatus.ROUTED | ItemStatus.ACCEPTED | ItemStatus.EXTENDED:
            return item.due_on, item.due_provisional
    return None, False


class EntryView(Shape):
    """时间线上的一条；``seq`` 即事件流中的事件编号。"""

    seq: int
    item_id: str | None
    type: str
    at: Timestamp
    text: str
    facts: dict[str, Any]

    @staticmethod
    def of(entry: Entry) -> "EntryView":
        """The line as the applicant sees it."""
        return EntryView.model_validate(entry.model_dump())


class ApplicationSummary(Shape):
    """一份申请的概要。"""

    application_id: str
    status: Literal["open", "completed"]
    status_text: str
    submitted_at: Timestamp
    completed_at: Timestamp | None
    item_count: int
    open_items: int = Field(description="尚未办结的事项数")

    @staticmethod
    def of(application: Application) -> "ApplicationSummary":
        """One line of the list."""
        reopened = application.status == "completed" and not application.is_over
        return ApplicationSummary(
            status="open" if reopened else application.status,
            status_text=texts.REOPENED if reopened else texts.APPLICATION_STATUS[application.status],
            **application.model_dump(include=_SUMMARY),
        )


_SUMMARY = {"application_id", "submitted_at", "completed_at", "item_count", "open_items"}


class ApplicationPage(Shape):
    """``next`` 不为空时，以 ``after`` = ``next`` 取下一页。"""

    applications: list[ApplicationSummary]
    next: str | None


class ApplicationView(ApplicationSummary):
    """一份申请：每项一个状态，时间线最新的在最后。"""

    contact_name: str
    contact_phone: str
    statement: str
    materials: list[Material]
    commitment: Commitment | None = Field(
        description="所确认的信用信息修复承诺书；下载见 /v1/applications/{id}/commitment"
    )
    assistance: Assistance | None = Field(description="由哪个窗口依据哪份委托代办；自行提交时为空")
    items: list[ItemView]
    timeline: list[EntryView]

    @staticmethod
    def show(application: Application, items: list[Item], entries: list[Entry]) -> "ApplicationView":
        """The application as the applicant sees it."""
        return ApplicationView(
            **ApplicationSummary.of(application).model_dump(),
            contact_name=application.contact.name,
            contact_phone=application.contact.phone,
            statement=application.statement,
            materials=[*application.materials],
            commitment=application.commitment,
            assistance=application.assistance,
            items=[ItemView.of(item) for item in items],
            timeline=[EntryView.of(entry) for entry in entries],
        )


class Registered(Shape):
    """主体的假名。"""

    subject_id: str
