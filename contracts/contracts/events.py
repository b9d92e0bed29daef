"""Every event of the flow (CloudEvents data).

A class is one version of one event: a change that is not backward compatible is a new class with a new type
(``....v2``). ``TYPE`` is the CloudEvents type, ``TOPIC`` the registry name of its topic, ``KEY`` the field whose value is the
Kafka message key.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from contracts.decisions import ReportedDecision
from contracts.records import (
    ApplicationId,
    DepartmentRef,
    DisplayState,
    ItemId,
    LetterId,
    MaterialId,
    ObjectionId,
    RecordFacts,
    RecordId,
    Shape,
    SubjectId,
    SubjectType,
    Timestamp,
)


class Event(Shape):
    """Base of all events."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
    KEY: ClassVar[str]

    @property
    def key(self) -> str:
        """Kafka message key, also the CloudEvents subject."""
        return str(getattr(self, self.KEY))

    @property
    def topic(self) -> str:
        """Full name of the topic this event is published to."""
        return self.TOPIC


# --- xinfu.records ---------------------------------------------------------------------------------------


class RecordPublished(Event):
    """A department published a record, or corrected one it had published (same record id)."""

    TYPE = "cn.xinfu.record.published.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    record: RecordFacts
    published_at: Timestamp


class RecordWithdrawn(Event):
    """The department withdrew a record (for example annulled on review): it can no longer be applied for."""

    TYPE = "cn.xinfu.record.withdrawn.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    reason: str = Field(max_length=500)
    withdrawn_at: Timestamp


class RecordRepairedElsewhere(Event):
    """Another platform (国家企业信用信息公示系统, …) repaired a record: that is recognised here (互认), nobody decides again."""

    TYPE = "cn.xinfu.record.repairedelsewhere.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    platform_id: str = Field(
        max_length=60, description="Who says so; the id of the target where it is one of ours"
    )
    platform_name: str = Field(max_length=100)
    decision_number: str = Field(description="Number of the decision letter", max_length=128)
    repaired_at: Timestamp


class PublicationExpired(Event):
    """The maximum publication period of a record has passed, by a rule with binding evidence: publication ended by itself (公示期满).

    Told once. Nobody decides; the targets are looked at, and told only where they still show it.
    """

    TYPE = "cn.xinfu.publication.expired.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    record: RecordFacts
    ended_on: date = Field(description="First day on which it is no longer to be shown")
    rule: str = Field(description="Number of the rule in the catalogue", max_length=20)
    source: str = Field(description="Rule and article", max_length=300)
    noticed_at: Timestamp


class RepairNoticeServed(Event):
    """The subject of a record gets the 信用修复告知书 with its publication (两书同达): once for each record. The letter itself: intake."""

    TYPE = "cn.xinfu.repairnotice.served.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    subject_id: SubjectId
    record: RecordFacts
    category_name: str = Field(max_length=100)
    period: str = Field(max_length=1000, description="Until when it is published, in words")
    earliest: str = Field(max_length=1000, description="From when a repair may be applied for, in words")
    how: str = Field(max_length=1000, description="How it is repaired, in words")
    materials: str = Field(max_length=1000, description="With which materials, in words")
    by_email: bool = Field(description="An address of the subject is known: it gets an e-mail too")
    served_at: Timestamp


class RecordShielded(Event):
    """A court approved a reorganisation plan or composition of the subject: while it is performed the record is shielded (临时屏蔽)."""

    TYPE = "cn.xinfu.record.shielded.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    court: str = Field(min_length=1, max_length=200, description="Name of the court")
    ruling_number: str = Field(min_length=1, max_length=128, description="案号 or 文号 of the ruling")
    ruled_on: date
    plan_ends_on: date | None = Field(
        default=None,
        description="Last day of the plan as the ruling names it; nothing follows from its passing",
    )
    shielded_at: Timestamp


class ShieldOutcome(StrEnum):
    """How a plan ended: it was performed (执行完毕), or it failed (the court ended it, or declared the subject bankrupt)."""

    PERFORMED = "performed"
    FAILED = "failed"


class ShieldEnded(Event):
    """A court ruled that the plan is performed: final repair; or that it failed: the record is published again."""

    TYPE = "cn.xinfu.shield.ended.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    outcome: ShieldOutcome
    court: str = Field(min_length=1, max_length=200, description="Name of the court")
    ruling_number: str = Field(min_length=1, max_length=128, description="案号 or 文号 of the ruling")
    ruled_on: date
    ended_at: Timestamp


class PublicationChange(StrEnum):
    """Why the publication of a record changed, without a decision on a repair."""

    WITHDRAWN = "withdrawn"
    PUBLISHED_AGAIN = "published_again"
    SHIELDED = "shielded"
    PLAN_PERFORMED = "plan_performed"
    PLAN_FAILED = "plan_failed"
    REPAIRED_ELSEWHERE = "repaired_elsewhere"


class PublicationChanged(Event):
    """What the public is to see of a record changed on the record's own account: withdrawn, published again, shielded, and what
    ends a shield. The targets follow; a repair that was granted stands over it.
    """

    TYPE = "cn.xinfu.publication.changed.v1"
    TOPIC = "xinfu.records"
    KEY = "record_id"

    record_id: RecordId
    subject_id: SubjectId
    record: RecordFacts
    change: PublicationChange
    state: DisplayState
    number: str = Field(max_length=128, description="文号 of what it rests on, or in words what that is")
    revision: int = Field(ge=1, description="Which change of this record it is: later ones have higher ones")
    changed_at: Timestamp


# --- xinfu.applications ----------------------------------------------------------------------------------


class ApplicationSubmitted(Event):
    """An applicant filed one application for one or many records."""

    TYPE = "cn.xinfu.application.submitted.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    application_id: ApplicationId
    subject_id: SubjectId
    subject_type: SubjectType
    records: Annotated[tuple[RecordFacts, ...], Field(min_length=1, max_length=200)]
    held: tuple[RecordId, ...] = Field(
        default=(),
        max_length=200,
        description="Records of this application that wait for another one of it: routed when ItemStarted says so",
    )
    assisted_by: str | None = Field(
        default=None, max_length=100, description="Name of the window that filed it under a mandate"
    )
    submitted_at: Timestamp


class ItemOutcome(StrEnum):
    """How an item ended."""

    REPAIRED = "repaired"
    REFUSED = "refused"
    REVOKED = "revoked"
    NOT_ACCEPTED = "not_accepted"
    WITHDRAWN = "withdrawn"
    RECOGNISED = "recognised"
    EXPIRED = "expired"
    CLOSED = "closed"


class CompletedItem(Shape):
    """An ended item in ApplicationCompleted."""

    item_id: ItemId
    record_id: RecordId
    outcome: ItemOutcome


class ApplicationCompleted(Event):
    """Every item of an application has ended: not accepted, refused, withdrawn, revoked, recognised, expired, closed, or repaired and seen right.

    Told once: a repair that is revoked later does not complete the application again.
    """

    TYPE = "cn.xinfu.application.completed.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    application_id: ApplicationId
    subject_id: SubjectId
    items: tuple[CompletedItem, ...]
    completed_at: Timestamp


class ItemEvent(Event):
    """What every event about one item carries."""

    application_id: ApplicationId
    item_id: ItemId
    record_id: RecordId
    subject_id: SubjectId


class ItemStarted(ItemEvent):
    """An item that was held has its turn: what it waited for has been granted, or has ended otherwise."""

    TYPE = "cn.xinfu.item.started.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    record: RecordFacts
    started_at: Timestamp


class SupplementProvided(ItemEvent):
    """The applicant provided what the department had found missing. The text itself is asked of intake (cases)."""

    TYPE = "cn.xinfu.supplement.provided.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef
    provided_at: Timestamp


class WithdrawalRequested(ItemEvent):
    """The applicant wants to withdraw an item that is not decided. Whoever has the item says whether that came in time."""

    TYPE = "cn.xinfu.withdrawal.requested.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef | None = Field(
        description="Who has the item; null while it waits in the human queue"
    )
    requested_at: Timestamp


class RecognitionRequested(ItemEvent):
    """The record of an open item was repaired elsewhere: whoever has the item says whether that came before its own decision."""

    TYPE = "cn.xinfu.recognition.requested.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef
    platform_id: str
    platform_name: str
    decision_number: str = Field(description="Number of the decision letter", max_length=128)
    repaired_at: Timestamp


class ExpiryRequested(ItemEvent):
    """The maximum publication period of an open item's record has passed: whoever has the item says whether that came before its decision."""

    TYPE = "cn.xinfu.expiry.requested.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef
    ended_on: date = Field(description="First day on which the record is no longer to be shown")
    requested_at: Timestamp


class ClosureReason(StrEnum):
    """Why there is nothing left to repair: the source withdrew the record, or a bankruptcy plan is performed (final repair)."""

    RECORD_WITHDRAWN = "record_withdrawn"
    PLAN_PERFORMED = "plan_performed"


class ClosureRequested(ItemEvent):
    """There is nothing left to repair: whoever has the item says whether that came before its own decision."""

    TYPE = "cn.xinfu.closure.requested.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef | None = Field(
        description="Who has the item; null while it waits in the human queue"
    )
    reason_code: ClosureReason
    reason: str = Field(max_length=500, description="For people, zh-CN")
    requested_at: Timestamp


class FollowUpDue(ItemEvent):
    """Some time after the repair its subject is asked whether it has lasted (回访). Told once."""

    TYPE = "cn.xinfu.followup.due.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    days: int = Field(ge=1, description="Days after the repair")
    due_on: date
    told_at: Timestamp


class FollowUpAnswered(ItemEvent):
    """The subject, or an officer, said whether the repair has lasted; a new failing is for the supervisors (监管)."""

    TYPE = "cn.xinfu.followup.answered.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    days: int = Field(ge=1, description="Days after the repair")
    failing: bool = Field(description="There is a new failing, or the correction has not lasted")
    by_officer: bool
    answered_at: Timestamp


# --- xinfu.routing ---------------------------------------------------------------------------------------


class ItemRouted(ItemEvent):
    """The record's issuing department is known and has been asked to review (谁认定、谁修复)."""

    TYPE = "cn.xinfu.item.routed.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    department: DepartmentRef
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    routed_at: Timestamp


class ReferralReason(StrEnum):
    """Why a person has to find the department."""

    UNKNOWN_DEPARTMENT = "unknown_department"
    AMBIGUOUS_DEPARTMENT = "ambiguous_department"
    CATEGORY_NOT_DECIDED = "category_not_decided"
    NOT_IN_FORCE = "not_in_force"


class ItemReferred(ItemEvent):
    """No department could be resolved: the item waits in a named human queue."""

    TYPE = "cn.xinfu.item.referred.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    queue_id: str
    queue_name: str
    reason_code: ReferralReason
    reason: str
    due_on: date = Field(description="Day by which the queue has to assign a department")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    referred_at: Timestamp


class ReferralOverdue(ItemEvent):
    """The last day of the human queue has passed and no department is assigned. Told once, to the queue's supervisor too."""

    TYPE = "cn.xinfu.referral.overdue.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    queue_id: str
    queue_name: str
    due_on: date = Field(description="Day by which the queue had to assign a department")
    noticed_at: Timestamp


class ItemWithdrawn(ItemEvent):
    """The applicant withdrew an item that waited in the human queue: no department has had it."""

    TYPE = "cn.xinfu.item.withdrawn.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    withdrawn_at: Timestamp


class ItemClosed(ItemEvent):
    """An item that waited in the human queue has ended: there is nothing left to repair. No department has had it."""

    TYPE = "cn.xinfu.item.closed.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    reason_code: ClosureReason
    reason: str = Field(max_length=500, description="For people, zh-CN")
    closed_at: Timestamp


class ReferralDueConfirmed(ItemEvent):
    """The working days of a year were published: the day by which the human queue has to assign was counted again, for good."""

    TYPE = "cn.xinfu.referral.dueconfirmed.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    due_on: date = Field(description="Day by which the queue has to assign a department")
    due_provisional: bool = Field(description="Yet another year is not published")
    calendar_version: str
    confirmed_at: Timestamp


# --- xinfu.reviews.<department> --------------------------------------------------------------------------


class ReviewEvent(ItemEvent):
    """What every event to one department carries."""

    department: DepartmentRef

    @property
    def topic(self) -> str:
        return self.TOPIC.format(department=self.department.slug)


class ReviewRequested(ReviewEvent):
    """A department is asked to decide on one item."""

    TYPE = "cn.xinfu.review.requested.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    record: RecordFacts
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    accept_working_days: int | None = Field(
        default=None, ge=0, description="Working days to accept or not, from the day of the request"
    )
    decide_working_days: int | None = Field(
        default=None, ge=0, description="Working days to decide, from the day of the request"
    )
    extend_working_days: int | None = Field(
        default=None,
        ge=0,
        description="By how many working days the decision may be put off; null: not at all",
    )
    requested_at: Timestamp


class SupplementForwarded(ReviewEvent):
    """The applicant provided what this department had found missing."""

    TYPE = "cn.xinfu.supplement.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    provided_at: Timestamp


class ReviewCancelled(ReviewEvent):
    """The applicant wants to withdraw: unless it is decided already, this department has nothing left to decide."""

    TYPE = "cn.xinfu.review.cancelled.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    requested_at: Timestamp


class RecognitionForwarded(ReviewEvent):
    """The record was repaired elsewhere: unless it is decided already, this department has nothing left to decide."""

    TYPE = "cn.xinfu.recognition.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    platform_id: str
    platform_name: str
    decision_number: str = Field(description="Number of the decision letter", max_length=128)
    repaired_at: Timestamp


class ExpiryForwarded(ReviewEvent):
    """The record's publication period has passed: unless it is decided already, this department has nothing left to decide."""

    TYPE = "cn.xinfu.expiry.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    ended_on: date = Field(description="First day on which the record is no longer to be shown")
    requested_at: Timestamp


class ClosureForwarded(ReviewEvent):
    """There is nothing left to repair: unless it is decided already, this department has nothing left to decide."""

    TYPE = "cn.xinfu.closure.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    reason_code: ClosureReason
    reason: str = Field(max_length=500, description="For people, zh-CN")
    requested_at: Timestamp


# --- xinfu.inbound.<department> --------------------------------------------------------------------------


class DecisionReported(ReportedDecision, Event):
    """A department that lives on the bus tells what it did about an item: the same words as a callback.

    It is taken at its word only for its own items; what follows is told by the events of xinfu.decisions.
    """

    TYPE = "cn.xinfu.decision.reported.v1"
    TOPIC = "xinfu.inbound.{department}"
    KEY = "item_id"

    department: DepartmentRef

    @property
    def topic(self) -> str:
        return self.TOPIC.format(department=self.department.slug)


# --- xinfu.decisions -------------------------------------------------------------------------------------


class ReviewFact(ItemEvent):
    """What everything that happens to an item at its department carries."""

    round: int = Field(
        default=0, ge=0, description="How often the item had been reopened after an upheld objection"
    )


class ReviewAccepted(ReviewFact):
    """The department accepted the application for this record (受理)."""

    TYPE = "cn.xinfu.review.accepted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accepted_at: Timestamp


class ReviewNotAccepted(ReviewFact):
    """The department does not accept the application for this record (不予受理), with its reason. The item has ended."""

    TYPE = "cn.xinfu.review.notaccepted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason: str = Field(min_length=1, max_length=2000)
    not_accepted_at: Timestamp


class SupplementRequested(ReviewFact):
    """The department tells everything that is missing, once (一次性告知补正). Its clocks stand still until it is provided."""

    TYPE = "cn.xinfu.supplement.requested.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    missing: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(min_length=1, max_length=20)
    ]
    supplement_due_on: date = Field(
        description="Last day to provide it; afterwards the item counts as withdrawn"
    )
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    requested_at: Timestamp


class SupplementReceived(ReviewFact):
    """The department has what was missing, and its clocks run again with the working days that were left."""

    TYPE = "cn.xinfu.supplement.received.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    received_at: Timestamp


class ReviewExtended(ReviewFact):
    """The department puts its decision off, once, before it is due, and says why (延期)."""

    TYPE = "cn.xinfu.review.extended.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason: str = Field(min_length=1, max_length=2000)
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(
        default="", description="By which working-day calendar the days were counted"
    )
    extended_at: Timestamp


class ReviewStep(StrEnum):
    """What a department owes by a day."""

    ACCEPT = "accept"
    DECIDE = "decide"


class ReviewOverdue(ReviewFact):
    """The last day for a step has passed without it. Told once for each step and day; the review goes on."""

    TYPE = "cn.xinfu.review.overdue.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    step: ReviewStep
    due_on: date
    noticed_at: Timestamp


class ReviewDueConfirmed(ReviewFact):
    """The working days of a year were published: provisional days of a review were counted again, and things may follow from them."""

    TYPE = "cn.xinfu.review.dueconfirmed.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    supplement_due_on: date | None = Field(
        default=None, description="Last day of the supplement that is awaited; null: none is"
    )
    due_provisional: bool = Field(description="Yet another year is not published")
    calendar_version: str
    confirmed_at: Timestamp


class ReminderLevel(StrEnum):
    """Who is reminded, from the desk upwards: the department's officers, those who approve there, the credit centre's supervisors."""

    OFFICER = "officer"
    APPROVER = "approver"
    SUPERVISOR = "supervisor"


class ReviewReminded(ItemEvent):
    """Somebody is reminded (催办) of what a department owes: before its last day, on it, or after it, a level higher each time."""

    TYPE = "cn.xinfu.review.reminded.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    step: ReviewStep
    level: ReminderLevel
    due_on: date = Field(description="The department's last day for the step")
    promised_on: date | None = Field(
        default=None,
        description="The reminder counts from this day of the service promise, which is no legal limit",
    )
    at_desk: bool = Field(
        description="Officers decide at the review desk, not in the department's own system"
    )
    in_person: bool = Field(default=False, description="Handed over in person: only the outcome is put down")
    reminded_at: Timestamp


class WithdrawalReason(StrEnum):
    """Why an item ended without a decision."""

    APPLICANT = "applicant"
    SUPPLEMENT_OVERDUE = "supplement_overdue"


class ReviewWithdrawn(ReviewFact):
    """The item ended before it was decided: withdrawn by the applicant, or what was missing did not come in time."""

    TYPE = "cn.xinfu.review.withdrawn.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason_code: WithdrawalReason
    withdrawn_at: Timestamp


class ReviewExpired(ReviewFact):
    """The item ended without a decision: publication of its record has ended by itself (公示期满)."""

    TYPE = "cn.xinfu.review.expired.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    ended_on: date = Field(description="First day on which the record is no longer to be shown")
    expired_at: Timestamp


class ReviewClosed(ReviewFact):
    """The item ended without a decision: there is nothing left to repair."""

    TYPE = "cn.xinfu.review.closed.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason_code: ClosureReason
    reason: str = Field(max_length=500, description="For people, zh-CN")
    closed_at: Timestamp


class FalseMaterial(Shape):
    """A finding that material was false (提供虚假材料, 36号令): which, and for how long the subject is barred from applying."""

    material_ids: tuple[MaterialId, ...] = Field(default=(), max_length=10)
    statement: bool = Field(description="The statement of the application itself is false")
    block_years: int = Field(ge=0, le=10, description="As the officer states; 0: not barred")
    blocked_until: date | None = Field(
        description="Last day on which the subject is barred; null: not barred"
    )


class Ground(Shape):
    """The finding about another item that a decision rests on."""

    item_id: ItemId
    round: int = Field(ge=0, description="How often that item had been reopened")
    department: DepartmentRef
    decision_number: str = Field(description="Number of the decision with the finding", max_length=128)


class Decision(ReviewFact):
    """What a grant, a refusal and a revocation have in common."""

    department: DepartmentRef
    record: RecordFacts
    decision_number: str = Field(description="Number of the decision letter", max_length=128)
    decided_at: Timestamp


class RepairGranted(Decision):
    """The department granted the repair (准予修复): publication ends, sharing stops, measures are lifted."""

    TYPE = "cn.xinfu.repair.granted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    automatic: bool = Field(
        default=False,
        description="No person decided: every condition was verified, as the department has settled",
    )


class RepairRefused(Decision):
    """The department refused the repair (不予修复), with its reason."""

    TYPE = "cn.xinfu.repair.refused.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    reason: str = Field(min_length=1, max_length=2000)
    false_material: FalseMaterial | None = None


class RepairRecognised(Decision):
    """A repair made elsewhere is recognised (互认): the targets follow, except the platform it came from, which is only looked at."""

    TYPE = "cn.xinfu.repair.recognised.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    platform_id: str
    platform_name: str


class RepairRevoked(Decision):
    """The department revoked a repair it had granted (撤销修复): the record is shown again.

    Number and time are those of the revocation; it is always later than its grant.
    """

    TYPE = "cn.xinfu.repair.revoked.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    reason: str = Field(min_length=1, max_length=2000)
    false_material: FalseMaterial | None = None
    ground: Ground | None = Field(
        default=None, description="No officer decided: the item rests on material found false elsewhere"
    )


class LetterFact(Event):
    """What is told of a letter. What it says, and to whom, is asked of dept-adapter over HTTP."""

    department: DepartmentRef
    letter_id: LetterId
    # text, so that a reader built today takes the kinds of tomorrow
    letter_kind: str = Field(max_length=40, description="Kind of letter, contracts.letters.LetterKind")
    title: str = Field(max_length=100)
    number: str | None = Field(max_length=256, description="文号 of the letter; null: it has none")
    content_hash: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of what the letter says, as dept-adapter gives it as JSON",
    )
    verification_code: str = Field(max_length=19, description="By which anybody can check that it is genuine")
    dated: date = Field(description="Day in China of the decision it tells of")
    issued_at: Timestamp


class LetterIssued(LetterFact, ItemEvent):
    """The letter of a step of this item can be read."""

    TYPE = "cn.xinfu.letter.issued.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"


# --- xinfu.propagation -----------------------------------------------------------------------------------


class TargetEvent(ItemEvent):
    """What every event about one (record, target) carries.

    ``version`` is sync's version of the desired state of the record: it only rises.
    """

    target_id: str
    target_name: str
    version: int = Field(ge=1)
    state: DisplayState


class TargetAcknowledged(TargetEvent):
    """The target answered that it took over the desired state."""

    TYPE = "cn.xinfu.target.acknowledged.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    acknowledged_at: Timestamp


class TargetVerified(TargetEvent):
    """Read back: the target really shows the desired state."""

    TYPE = "cn.xinfu.target.verified.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    verified_at: Timestamp


class TargetDrifted(TargetEvent):
    """Read back: the target shows something else than what it had acknowledged. It is pushed again."""

    TYPE = "cn.xinfu.target.drifted.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    seen_state: DisplayState
    drifted_at: Timestamp


class LetterChannel(StrEnum):
    """How a formal letter leaves: by e-mail, or taken by a person."""

    EMAIL = "email"
    DOWNLOAD = "download"


class IssuedLetter(Event):
    """What both events about a letter to a vendor (函告) carry. The letter itself: sync, by ``letter_id``."""

    record_id: RecordId
    subject_id: SubjectId
    letter_id: str = Field(pattern=r"^vlt_[0-9a-f]{32}$")
    number: str = Field(description="文号 of the letter", max_length=128)
    step: int = Field(
        ge=1, le=2, description="1 first letter, 2 second letter, of which the supervisor gets a copy"
    )
    target_id: str
    target_name: str
    channel: LetterChannel
    notice: bool = Field(
        False, description="The target is told by letter alone: this tells the decision, nobody has looked"
    )
    state: DisplayState = Field(
        DisplayState.PUBLICATION_ENDED, description="What the letter asks the target to show"
    )
    copy_channel: LetterChannel | None = Field(
        None, description="How the supervisor's copy leaves; null: there is none"
    )
    issued_at: Timestamp


class VendorLetterIssued(IssuedLetter, ItemEvent):
    """A vendor that still shows a repaired record, or that is told by letter alone, was written to about the decision on an item."""

    TYPE = "cn.xinfu.vendorletter.issued.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"


class RecordLetterIssued(IssuedLetter):
    """A vendor was written to about a record on its own account (PublicationChanged): withdrawn, shielded, published again. No item."""

    TYPE = "cn.xinfu.recordletter.issued.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    record: RecordFacts
    change: PublicationChange | None = Field(
        None, description="What changed; null: its publication period has passed"
    )


class TargetOverdue(TargetEvent):
    """The target does not show the desired state, and its time limit has passed. Told once for each day it was due; pushing goes on."""

    TYPE = "cn.xinfu.target.overdue.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    due_on: date = Field(
        description="Last day by which it should have shown it, by the catalogue's time limit"
    )
    noticed_at: Timestamp


class PropagationCompleted(ItemEvent):
    """Every target that has to follow was seen showing the decided state."""

    TYPE = "cn.xinfu.propagation.completed.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    version: int = Field(ge=1)
    state: DisplayState
    target_ids: tuple[str, ...]
    decision_number: str | None = Field(default=None, description="The decision that all of them show")
    completed_at: Timestamp


# --- xinfu.notifications ---------------------------------------------------------------------------------


class Channel(StrEnum):
    """How a person is told."""

    IN_APP = "in_app"
    EMAIL = "email"


class NotificationEvent(Event):
    """What both notification events carry: never the text, never an address."""

    notification_id: str
    subject_id: SubjectId
    application_id: ApplicationId
    channel: Channel
    fact: str = Field(description="Id of the fact told: one notification per fact and channel")


class NotificationSent(NotificationEvent):
    """The recipient was told."""

    TYPE = "cn.xinfu.notification.sent.v1"
    TOPIC = "xinfu.notifications"
    KEY = "subject_id"

    sent_at: Timestamp


class NotificationFailed(NotificationEvent):
    """The recipient could not be told by this channel; no further attempt is made."""

    TYPE = "cn.xinfu.notification.failed.v1"
    TOPIC = "xinfu.notifications"
    KEY = "subject_id"

    reason: str
    failed_at: Timestamp


# --- xinfu.office-notifications --------------------------------------------------------------------------


class OfficeNotificationEvent(Event):
    """What both events about a mail to an office carry: never the text, never an address.

    An office is a department, or the credit centre with its human queue.
    """

    office_id: str = Field(description="Code of the department, or id of the human queue")
    office_name: str
    level: ReminderLevel
    notification_id: str
    item_ids: Annotated[
        tuple[ItemId, ...], Field(min_length=1, max_length=500, description="The items the mail lists")
    ]


class OfficeNotified(OfficeNotificationEvent):
    """An office was told of the items that wait there; one mail lists many."""

    TYPE = "cn.xinfu.office.notified.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    sent_at: Timestamp


class OfficeNotificationFailed(OfficeNotificationEvent):
    """An office could not be told by mail; no further attempt is made."""

    TYPE = "cn.xinfu.office.notificationfailed.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    reason: str
    failed_at: Timestamp


class VendorLetterMailEvent(Event):
    """What both events about the mail with a letter to a vendor carry: never the text, never an address."""

    office_id: str = Field(description="Id of the target whose office is written to")
    letter_id: str = Field(pattern=r"^vlt_[0-9a-f]{32}$")
    to_supervisor: bool = Field(False, description="The copy for the supervisor, not the letter itself")


class VendorLetterSent(VendorLetterMailEvent):
    """The mail server took the letter."""

    TYPE = "cn.xinfu.vendorletter.sent.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    sent_at: Timestamp


class VendorLetterUndelivered(VendorLetterMailEvent):
    """The letter could not be mailed, and no further attempt is made: a person has to take it there."""

    TYPE = "cn.xinfu.vendorletter.undelivered.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    reason: str
    failed_at: Timestamp


# --- objections (异议) and false material: on the topics and in the order of what they are about ------------


class ObjectionKind(StrEnum):
    """What is objected to: a record (its content, its publication period) or the result of an item."""

    RECORD = "record"
    RESULT = "result"


class ObjectionEvent(Event):
    """What every event about an objection carries.

    The reason and the materials are the applicant's words: they are asked of intake. Publication is not suspended meanwhile.
    """

    objection_id: ObjectionId
    kind: ObjectionKind
    subject_id: SubjectId
    record_id: RecordId
    application_id: str = Field(
        pattern=r"^(app|obj)_[0-9a-f]{32}$",
        description="The application of the result; of an objection to a record, the objection's own id",
    )
    item_id: str = Field(
        pattern=r"^(itm|obj)_[0-9a-f]{32}$",
        description="The item of the result; of an objection to a record, the objection's own id",
    )


class ObjectionFiled(ObjectionEvent):
    """A subject objects to a record, or to the result of an item."""

    TYPE = "cn.xinfu.objection.filed.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    record: RecordFacts
    department: DepartmentRef | None = Field(
        description="Who decided the result; null: whoever made the record has to be found"
    )
    filed_at: Timestamp


class ObjectionRouted(ObjectionEvent):
    """The department that made the record or the decision is known, and has the objection."""

    TYPE = "cn.xinfu.objection.routed.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    department: DepartmentRef
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    routed_at: Timestamp


class ObjectionReferred(ObjectionEvent):
    """No department could be resolved: the objection waits in a named human queue."""

    TYPE = "cn.xinfu.objection.referred.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    queue_id: str
    queue_name: str
    reason_code: ReferralReason
    reason: str
    due_on: date = Field(description="Day by which the queue has to assign a department")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    referred_at: Timestamp


class ObjectionForwarded(ObjectionEvent):
    """A department is asked to decide on an objection, at the review desk."""

    TYPE = "cn.xinfu.objection.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    department: DepartmentRef
    record: RecordFacts
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    calendar_version: str = Field(default="", description="Which working-day calendar counted the due days")
    accept_working_days: int | None = Field(default=None, description="Counted from the day it was forwarded")
    decide_working_days: int | None = Field(default=None, description="Counted from the same day")
    forwarded_at: Timestamp

    @property
    def topic(self) -> str:
        return self.TOPIC.format(department=self.department.slug)


class ObjectionWithdrawalRequested(ObjectionEvent):
    """The subject wants to withdraw the objection; its department answers, a decision made before stands."""

    TYPE = "cn.xinfu.objection.withdrawalrequested.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef | None = Field(description="Who has the objection; null: the human queue")
    requested_at: Timestamp


class ObjectionReferralWithdrawn(ObjectionEvent):
    """The subject withdrew an objection that waited in the human queue: no department has had it. It can be made again."""

    TYPE = "cn.xinfu.objection.referralwithdrawn.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    withdrawn_at: Timestamp


class ObjectionCancelled(ObjectionEvent):
    """The subject wants to withdraw the objection this department has."""

    TYPE = "cn.xinfu.objection.cancelled.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    department: DepartmentRef
    requested_at: Timestamp

    @property
    def topic(self) -> str:
        return self.TOPIC.format(department=self.department.slug)


class ObjectionWithdrawn(ObjectionEvent):
    """The objection ended without a decision, because its subject withdrew it. It can be made again."""

    TYPE = "cn.xinfu.objection.withdrawn.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    withdrawn_at: Timestamp


class ObjectionDueConfirmed(ObjectionEvent):
    """Provisional due days of an open objection were counted again, the year that was missing being known now."""

    TYPE = "cn.xinfu.objection.dueconfirmed.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accept_due_on: date
    decide_due_on: date
    due_provisional: bool = Field(description="Another year on the way is still not published")
    calendar_version: str
    confirmed_at: Timestamp


class ObjectionAccepted(ObjectionEvent):
    """The department accepted the objection and verifies it (受理异议)."""

    TYPE = "cn.xinfu.objection.accepted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accepted_at: Timestamp


class ObjectionOutcome(StrEnum):
    """How an objection ended."""

    UPHELD = "upheld"
    DISMISSED = "dismissed"
    NOT_ACCEPTED = "not_accepted"


class ObjectionRemedy(StrEnum):
    """What follows from an upheld objection."""

    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"
    REOPENED = "reopened"
    RESTORED = "restored"


class ObjectionDecided(ObjectionEvent):
    """The department decided on an objection, with its reason."""

    TYPE = "cn.xinfu.objection.decided.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    outcome: ObjectionOutcome
    reason: str = Field(min_length=1, max_length=2000)
    remedy: ObjectionRemedy | None = Field(description="null: not upheld")
    record: RecordFacts = Field(description="As it is to be published from now on")
    decided_at: Timestamp


class ObjectionOverdue(ObjectionEvent):
    """The last day for a step of an objection has passed without it. Told once for each step; it goes on."""

    TYPE = "cn.xinfu.objection.overdue.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    step: ReviewStep
    due_on: date
    noticed_at: Timestamp


class ObjectionReminded(ObjectionEvent):
    """Somebody is reminded (催办) of what a department owes of an objection, which officers decide at the review desk."""

    TYPE = "cn.xinfu.objection.reminded.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    step: ReviewStep
    level: ReminderLevel
    due_on: date = Field(description="The department's last day for the step")
    in_person: bool = Field(default=False, description="Handed over in person: only the outcome is put down")
    reminded_at: Timestamp


class ObjectionLetterIssued(LetterFact, ObjectionEvent):
    """The letter of a step of this objection can be read."""

    TYPE = "cn.xinfu.objection.letterissued.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"


class ItemReopened(ReviewFact):
    """An objection to a refusal was upheld: the department has the item again, with new time limits."""

    TYPE = "cn.xinfu.item.reopened.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accepted: bool = Field(description="The application stays accepted; the decision is made again")
    accept_due_on: date = Field(description="Day by which the department has to accept or not")
    decide_due_on: date = Field(description="Day by which the department has to decide")
    due_provisional: bool = Field(
        default=False, description="A due day is in a year whose working days are not published yet"
    )
    reopened_at: Timestamp


class FalseMaterialFound(ItemEvent):
    """An item rests on material that was found false at another item: whoever has it acts on that, once.

    What was granted is revoked; what is open is shown with a warning. ``lifted``: an objection to the finding was upheld.
    """

    TYPE = "cn.xinfu.falsematerial.found.v1"
    TOPIC = "xinfu.applications"
    KEY = "application_id"

    department: DepartmentRef
    ground: Ground
    reason: str = Field(min_length=1, max_length=2000)
    lifted: bool = False
    found_at: Timestamp


class FalseMaterialForwarded(ReviewEvent):
    """This department has an item that rests on material found false at another item; or no longer (``lifted``)."""

    TYPE = "cn.xinfu.falsematerial.forwarded.v1"
    TOPIC = "xinfu.reviews.{department}"
    KEY = "item_id"

    ground: Ground
    reason: str = Field(min_length=1, max_length=2000)
    lifted: bool = False
    found_at: Timestamp


def _concrete(cls: type[Event]) -> list[type[Event]]:
    found = [cls] if "TYPE" in cls.__dict__ else []
    return found + [leaf for child in cls.__subclasses__() for leaf in _concrete(child)]


EVENTS: dict[str, type[Event]] = {cls.TYPE: cls for cls in _concrete(Event)}
"""CloudEvents type -> event class."""
