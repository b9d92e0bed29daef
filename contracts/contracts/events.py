"""Every event of the flow (CloudEvents data).

A class is one version of one event: a change that is not backward compatible is a new class with a new type
(``....v2``). ``TYPE`` is the CloudEvents type, ``TOPIC`` the registry name of its topic, ``KEY`` the field whose value is the
Kafka message key.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from contracts.records import (
    ApplicationId,
    DepartmentRef,
    DisplayState,
    ItemId,
    LetterId,
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


class CompletedItem(Shape):
    """An ended item in ApplicationCompleted."""

    item_id: ItemId
    record_id: RecordId
    outcome: ItemOutcome


class ApplicationCompleted(Event):
    """Every item of an application has ended: not accepted, refused, withdrawn, revoked, recognised, or repaired and seen right.

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


# --- xinfu.decisions -------------------------------------------------------------------------------------


class ReviewAccepted(ItemEvent):
    """The department accepted the application for this record (受理)."""

    TYPE = "cn.xinfu.review.accepted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    accepted_at: Timestamp


class ReviewNotAccepted(ItemEvent):
    """The department does not accept the application for this record (不予受理), with its reason. The item has ended."""

    TYPE = "cn.xinfu.review.notaccepted.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason: str = Field(min_length=1, max_length=2000)
    not_accepted_at: Timestamp


class SupplementRequested(ItemEvent):
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
    requested_at: Timestamp


class SupplementReceived(ItemEvent):
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
    received_at: Timestamp


class ReviewExtended(ItemEvent):
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
    extended_at: Timestamp


class ReviewStep(StrEnum):
    """What a department owes by a day."""

    ACCEPT = "accept"
    DECIDE = "decide"


class ReviewOverdue(ItemEvent):
    """The last day for a step has passed without it. Told once for each step and day; the review goes on."""

    TYPE = "cn.xinfu.review.overdue.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    step: ReviewStep
    due_on: date
    noticed_at: Timestamp


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
    reminded_at: Timestamp


class WithdrawalReason(StrEnum):
    """Why an item ended without a decision."""

    APPLICANT = "applicant"
    SUPPLEMENT_OVERDUE = "supplement_overdue"


class ReviewWithdrawn(ItemEvent):
    """The item ended before it was decided: withdrawn by the applicant, or what was missing did not come in time."""

    TYPE = "cn.xinfu.review.withdrawn.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

    department: DepartmentRef
    reason_code: WithdrawalReason
    withdrawn_at: Timestamp


class Decision(ItemEvent):
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


class LetterIssued(ItemEvent):
    """The letter of a step of this item can be read. What it says, and to whom, is asked of dept-adapter over HTTP."""

    TYPE = "cn.xinfu.letter.issued.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"

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


class PropagationCompleted(ItemEvent):
    """Every target that has to follow was seen showing the decided state."""

    TYPE = "cn.xinfu.propagation.completed.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    version: int = Field(ge=1)
    state: DisplayState
    target_ids: tuple[str, ...]
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


def _concrete(cls: type[Event]) -> list[type[Event]]:
    found = [cls] if "TYPE" in cls.__dict__ else []
    return found + [leaf for child in cls.__subclasses__() for leaf in _concrete(child)]


EVENTS: dict[str, type[Event]] = {cls.TYPE: cls for cls in _concrete(Event)}
"""CloudEvents type -> event class."""
