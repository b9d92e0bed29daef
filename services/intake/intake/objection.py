"""Pure side of objections (异议): what may be objected to, and where an objection stands.

Events about it come on topics without order among each other: each topic writes fields of its own (as ``domain.item`` has it).
"""

from datetime import date
from enum import StrEnum

from contracts.catalogue import Catalogue
from contracts.events import (
    ObjectionAccepted,
    ObjectionDecided,
    ObjectionDueConfirmed,
    ObjectionEvent,
    ObjectionKind,
    ObjectionLetterIssued,
    ObjectionOutcome,
    ObjectionOverdue,
    ObjectionReferralWithdrawn,
    ObjectionReferred,
    ObjectionRemedy,
    ObjectionRouted,
    ObjectionWithdrawn,
    ReviewStep,
)
from contracts.http.intake import Material
from contracts.http.mandate import Assistance
from contracts.records import (
    ApplicationId,
    DepartmentRef,
    ItemId,
    ObjectionId,
    RecordFacts,
    RecordId,
    Shape,
    SubjectId,
    Timestamp,
)
from intake.domain.item import OBJECTIONABLE, Item, ItemLetter, ItemStatus, Overdue, Referral, letter_of
from intake.domain.record import Record
from intake.texts import ITEM_STATUS


class ObjectionStatus(StrEnum):
    """Where an objection stands, in order."""

    FILED = "filed"
    REFERRED = "referred"
    ROUTED = "routed"
    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    DISMISSED = "dismissed"
    UPHELD = "upheld"
    WITHDRAWN = "withdrawn"


WITHDRAWABLE = frozenset({ObjectionStatus.REFERRED, ObjectionStatus.ROUTED, ObjectionStatus.ACCEPTED})

STATUS_TEXT = {
    ObjectionStatus.FILED: "已提出",
    ObjectionStatus.REFERRED: "人工分派中",
    ObjectionStatus.ROUTED: "待受理",
    ObjectionStatus.ACCEPTED: "核查中",
    ObjectionStatus.NOT_ACCEPTED: "不予受理",
    ObjectionStatus.DISMISSED: "不成立",
    ObjectionStatus.UPHELD: "成立",
    ObjectionStatus.WITHDRAWN: "已撤回",
}
REMEDY_TEXT = {
    ObjectionRemedy.CORRECTED: "记录已更正",
    ObjectionRemedy.WITHDRAWN: "记录已撤回",
    ObjectionRemedy.REOPENED: "事项重新办理",
    ObjectionRemedy.RESTORED: "恢复修复",
}


_Reviewed = (
    ObjectionAccepted | ObjectionDueConfirmed | ObjectionOverdue | ObjectionWithdrawn | ObjectionDecided
)


class Objection(Shape):
    """One objection. ``target``: the record, or the item and round whose result it is about. ``item_id`` None: to the record.

    ``email``: from the token that filed it; None when it had none.
    """

    objection_id: ObjectionId
    kind: ObjectionKind
    target: str
    subject_id: SubjectId
    record_id: RecordId
    application_id: ApplicationId | None
    item_id: ItemId | None
    facts: RecordFacts
    reason: str
    materials: tuple[Material, ...] = ()
    assistance: Assistance | None = None
    email: str | None = None
    filed_at: Timestamp
    withdrawal_requested_at: Timestamp | None = None
    # xinfu.routing
    referral: Referral | None = None
    referred_at: Timestamp | None = None
    department: DepartmentRef | None = None
    accept_due_on: date | None = None
    decide_due_on: date | None = None
    due_provisional: bool = False
    routed_at: Timestamp | None = None
    # xinfu.decisions
    reviewed_by: DepartmentRef | None = None
    confirmed_at: Timestamp | None = None
    confirmed_due: tuple[date, date] | None = None
    confirmed_provisional: bool = False
    letters: tuple[ItemLetter, ...] = ()
    withdrawn_at: Timestamp | None = None
    accepted_at: Timestamp | None = None
    overdue: Overdue | None = None
    noticed_at: Timestamp | None = None
    outcome: ObjectionOutcome | None = None
    outcome_reason: str | None = None
    remedy: ObjectionRemedy | None = None
    decided_at: Timestamp | None = None

    @property
    def status(self) -> ObjectionStatus:
        """The furthest state any topic tells of."""
        if self.outcome is not None:
            return ObjectionStatus(self.outcome.value)
        if self.withdrawn_at is not None:
            return ObjectionStatus.WITHDRAWN
        if self.accepted_at is not None:
            return ObjectionStatus.ACCEPTED
        if self.department is not None:
            return ObjectionStatus.ROUTED
        return ObjectionStatus.REFERRED if self.referral is not None else ObjectionStatus.FILED

    @property
    def holder(self) -> DepartmentRef | None:
        """The department that has the objection, by whichever topic told first; None: none is known to have it."""
        return self.department or self.reviewed_by

    @property
    def due_on(self) -> date | None:
        """The last day of whoever has to act now."""
        match self.status:
            case ObjectionStatus.REFERRED if self.referral:
                return self.referral.due_on
            case ObjectionStatus.ROUTED:
                return self.department_due[0]
            case ObjectionStatus.ACCEPTED:
                return self.department_due[1]
        return None

    @property
    def department_due(self) -> tuple[date | None, date | None]:
        """The department's days to accept and to decide, as they were counted last."""
        return self.confirmed_due or (self.accept_due_on, self.decide_due_on)

    @property
    def is_provisional(self) -> bool:
        """Whether those days are in a year whose working days are not published yet."""
        return self.confirmed_provisional if self.confirmed_due else self.due_provisional

    @property
    def is_overdue(self) -> bool:
        """Whether the department owes the step of which it was told that its day has passed."""
        step = {ObjectionStatus.ROUTED: ReviewStep.ACCEPT, ObjectionStatus.ACCEPTED: ReviewStep.DECIDE}
        return self.overdue is not None and step.get(self.status) is self.overdue.step


def apply_objection(objection: Objection, event: ObjectionEvent) -> Objection:
    """The objection after an event about it; told again it changes nothing."""
    if isinstance(event, _Reviewed) and objection.reviewed_by is None:
        objection = objection.model_copy(update={"reviewed_by": event.department})
    match event:
        case ObjectionReferred() if objection.referral is None:
            referral = Referral(queue_name=event.queue_name, reason=event.reason, due_on=event.due_on)
            return objection.model_copy(update={"referral": referral, "referred_at": event.referred_at})
        case ObjectionRouted() if objection.department is None:
            known = {"department", "accept_due_on", "decide_due_on", "due_provisional", "routed_at"}
            return objection.model_copy(update={name: getattr(event, name) for name in known})
        case ObjectionAccepted() if objection.accepted_at is None:
            return objection.model_copy(update={"accepted_at": event.accepted_at})
        case ObjectionDueConfirmed() if (
            objection.confirmed_at is None or event.confirmed_at > objection.confirmed_at
        ):
            counted = {
                "confirmed_due": (event.accept_due_on, event.decide_due_on),
                "confirmed_provisional": event.due_provisional,
                "confirmed_at": event.confirmed_at,
            }
            return objection.model_copy(update=counted)
        case ObjectionWithdrawn() | ObjectionReferralWithdrawn() if objection.withdrawn_at is None:
            return objection.model_copy(update={"withdrawn_at": event.withdrawn_at})
        case ObjectionLetterIssued() if event.letter_id not in {each.letter_id for each in objection.letters}:
            return objection.model_copy(update={"letters": (*objection.letters, letter_of(event))})
        case ObjectionOverdue():
            late = Overdue(step=event.step, due_on=event.due_on)
            return objection.model_copy(update={"overdue": late, "noticed_at": event.noticed_at})
        case ObjectionDecided() if objection.outcome is None:
            changes = {
                "outcome": event.outcome,
                "outcome_reason": event.reason,
                "remedy": event.remedy,
                "decided_at": event.decided_at,
            }
            return objection.model_copy(update=changes)
    return objection


def record_fault(record: Record, catalogue: Catalogue, today: date) -> str | None:
    """Why a record cannot be objected to here (zh-CN, says what to do); None: it can."""
    if record.status == "withdrawn":
        return "该记录已由认定单位撤回，无需提出异议。"
    category = catalogue.category(record.facts.category)
    if category is not None and category.refer_to is not None:
        return f"“{category.name}”不由本平台办理，请向{category.refer_to}提出异议。"
    rule = catalogue.objection_rule(record.facts.category, today)
    if rule.file_within_days is not None and rule.evidence.binding:
        passed = (today - record.facts.decided_on).days
        if passed > rule.file_within_days:
            return (
                f"对该类记录的异议应在{rule.file_within_days}日内提出（{rule.source}），现已{passed}日；"
                "请依法申请行政复议、提起行政诉讼，或向认定单位反映。"
            )
    return None


def result_fault(item: Item, record: Record | None) -> str | None:
    """Why the result of an item cannot be objected to (zh-CN, says what to do); None: it can."""
    if item.status is ItemStatus.WITHDRAWN:
        return "该事项已撤回，没有可以提出异议的结果；需要的话请重新申请。"
    if item.outcome is None:
        return f"该事项现为“{ITEM_STATUS[item.status]}”，还没有结果；有了结果再提出异议，在此之前可以撤回或补充说明。"
    if item.status not in OBJECTIONABLE:
        return f"该事项现为“{ITEM_STATUS[item.status]}”，已获支持，无需提出异议；对记录本身有异议的，请填写 record_id。"
    if record is None or record.status == "withdrawn":
        return "该记录已由认定单位撤回，无需提出异议。"
    if record.application_id is not None:
        return "该记录已另行申请，正在办理；请等待结果，或先撤回该申请再对原结果提出异议。"
    if record.item_id != item.item_id:
        return "该记录此后已另行申请并有结果，请对最近一次的结果提出异议。"
    return None
