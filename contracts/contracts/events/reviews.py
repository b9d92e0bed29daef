"""What a department is asked and told (xinfu.reviews.<department>)."""

from datetime import date

from pydantic import Field

from contracts.events.applications import ClosureReason
from contracts.events.base import ItemEvent
from contracts.records import DepartmentRef, RecordFacts, Timestamp


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
