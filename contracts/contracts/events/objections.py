"""Objections (异议) and false material: on the topics, and in the order, of what they are about."""

from datetime import date
from enum import StrEnum

from pydantic import Field

from contracts.events.base import Event, ItemEvent, LetterFact
from contracts.events.decisions import Ground, ReminderLevel, ReviewFact, ReviewStep
from contracts.events.reviews import ReviewEvent
from contracts.events.routing import ReferralReason
from contracts.records import (
    DepartmentRef,
    ItemOrObjectionId,
    ObjectionId,
    RecordFacts,
    RecordId,
    SubjectId,
    Timestamp,
)


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
    item_id: ItemOrObjectionId = Field(
        description="The item of the result; of an objection to a record, the objection's own id"
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


class ObjectionReferralOverdue(ObjectionEvent):
    """The last day of the human queue has passed and no department has the objection. Told once; it goes on waiting."""

    TYPE = "cn.xinfu.objection.referraloverdue.v1"
    TOPIC = "xinfu.routing"
    KEY = "application_id"

    queue_id: str
    queue_name: str
    due_on: date = Field(description="Day by which the queue had to name a department")
    noticed_at: Timestamp


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
