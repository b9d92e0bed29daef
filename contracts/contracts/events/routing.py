"""Which department has an item, or who is to name it (xinfu.routing)."""

from datetime import date
from enum import StrEnum

from pydantic import Field

from contracts.events.applications import ClosureReason
from contracts.events.base import ItemEvent
from contracts.records import DepartmentRef, Timestamp


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
