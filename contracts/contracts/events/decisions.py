"""What departments decided, and what is due there (xinfu.decisions)."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contracts.events.applications import ClosureReason
from contracts.events.base import ItemEvent, LetterFact
from contracts.records import DepartmentRef, ItemId, MaterialId, RecordFacts, Shape, Timestamp


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


class LetterIssued(LetterFact, ItemEvent):
    """The letter of a step of this item can be read."""

    TYPE = "cn.xinfu.letter.issued.v1"
    TOPIC = "xinfu.decisions"
    KEY = "item_id"
