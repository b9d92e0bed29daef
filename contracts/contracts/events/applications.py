"""What applicants do, and what becomes of their applications (xinfu.applications)."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contracts.events.base import Event, ItemEvent
from contracts.records import (
    ApplicationId,
    DepartmentRef,
    ItemId,
    RecordFacts,
    RecordId,
    Shape,
    SubjectId,
    SubjectType,
    Timestamp,
)


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
