"""What happens to records: published, withdrawn, shielded, expired (xinfu.records)."""

from datetime import date
from enum import StrEnum

from pydantic import Field

from contracts.events.base import Event
from contracts.records import (
    DisplayState,
    RecordContent,
    RecordFacts,
    RecordId,
    SubjectId,
    Timestamp,
)


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
    CORRECTED = "corrected"


class PublicationChanged(Event):
    """What the public is to see of a record changed on the record's own account: withdrawn, published again, shielded, what ends a
    shield, and its content corrected. The targets follow; a repair that was granted stands over it.
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
    content: RecordContent | None = Field(
        default=None,
        description="What has to be read where the record is shown, as it was corrected; null: it never was",
    )
    changed_at: Timestamp
