"""Pure decisions of a record: what becomes of it, and what is shown of it on its own account."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from contracts.events import (
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    RecordPublished,
    RecordRepairedElsewhere,
    RecordShielded,
    RecordWithdrawn,
    ShieldEnded,
    ShieldOutcome,
)
from contracts.records import (
    ApplicationId,
    DisplayState,
    ItemId,
    ObjectionId,
    RecordFacts,
    RecordId,
    Shape,
    SubjectId,
    Timestamp,
)


class Display(Shape):
    """What is shown of a record beyond its facts (双公示 2018; money in 万元). No personal data."""

    violation_type: str = Field("", description="违法行为类型")
    violation: str = Field("", description="违法事实")
    legal_basis: str = Field("", description="处罚依据")
    content: str = Field("", description="处罚内容")
    fine_wan_yuan: Decimal | None = Field(None, description="罚款金额（万元）")
    confiscated_wan_yuan: Decimal | None = Field(None, description="没收违法所得、没收非法财物的金额（万元）")
    licence: str = Field("", description="暂扣或吊销证照名称及编号")
    valid_until: date | None = Field(None, description="处罚有效期")
    published_until: date | None = Field(None, description="公示截止期，以来源数据为准")
    source: str = Field("", description="数据来源单位")
    remark: str = Field("", description="备注")


class Shield(Shape):
    """临时屏蔽 while a bankruptcy plan is performed. ``plan_ends_on``: as the ruling names it. ``outcome`` and what follows: None while it
    lasts; ``ended_by``: number of the ruling that ended it.
    """

    court: str
    ruling_number: str
    ruled_on: date
    plan_ends_on: date | None = None
    shielded_at: Timestamp
    outcome: ShieldOutcome | None = None
    ended_by: str | None = None
    ended_at: Timestamp | None = None

    @property
    def is_on(self) -> bool:
        """The record is shielded."""
        return self.outcome is None


class Record(Shape):
    """A record a subject may apply for. ``revision`` counts the changes an import made.

    ``repaired_at``: its publication ended (``repaired_by``: the platform that says so, where it was not us); ``revoked_at``: that repair was revoked, so it is shown again.
    ``objection_id``: the open objection to it; ``result_objection_id``: that to the result of its last item.
    ``withdrawal_reason``: of the last withdrawal. ``publication_revision`` counts the changes of what is shown that nobody decided on a
    repair (``publication``); ``corrected``: its content is not what was first published. ``notice_served_at``: its subject got the repair notice.
    ``refused_at``: the department refused to repair it; ``expired_on``: from this day on it is not shown, its period having passed.
    """

    record_id: RecordId
    subject_id: SubjectId
    facts: RecordFacts
    display: Display = Display()
    status: Literal["published", "withdrawn"] = "published"
    published_at: Timestamp
    withdrawn_at: Timestamp | None = None
    withdrawal_reason: str | None = None
    shield: Shield | None = None
    publication_revision: int = 0
    corrected: bool = False
    notice_served_at: Timestamp | None = None
    content_hash: str | None = None
    revision: int = 0
    application_id: ApplicationId | None = None
    item_id: ItemId | None = None
    repaired_at: Timestamp | None = None
    repaired_by: str | None = None
    revoked_at: Timestamp | None = None
    objection_id: ObjectionId | None = None
    result_objection_id: ObjectionId | None = None
    refused_at: Timestamp | None = None
    expired_on: date | None = None

    @property
    def changed_at(self) -> datetime:
        """Time of the last publication or withdrawal."""
        return max(self.published_at, self.withdrawn_at or self.published_at)


def publish(record: Record | None, event: RecordPublished) -> Record:
    """The newer publication wins; one that is not newer than the last word changes nothing."""
    if record is None:
        return Record(
            record_id=event.record_id,
            subject_id=event.record.subject_id,
            facts=event.record,
            published_at=event.published_at,
        )
    if event.published_at <= record.changed_at:
        return record
    return record.model_copy(
        update={
            "facts": event.record,
            "status": "published",
            "published_at": event.published_at,
            "expired_on": None,
            # it may have gone by system before
            **({"display": Display()} if event.record.in_person else {}),
        }
    )


def withdraw(record: Record, event: RecordWithdrawn) -> Record:
    """A withdrawal older than the last publication changes nothing."""
    if event.withdrawn_at < record.changed_at:
        return record
    return record.model_copy(
        update={
            "status": "withdrawn",
            "withdrawn_at": event.withdrawn_at,
            # nothing is kept of what goes by no system
            "withdrawal_reason": None if record.facts.in_person else event.reason,
        }
    )


def repaired_elsewhere(record: Record, event: RecordRepairedElsewhere) -> Record:
    """Repaired from then on; what was repaired before, or revoked later, stays as it is."""
    if record.repaired_at is not None and record.revoked_at is None:
        return record
    if record.revoked_at is not None and event.repaired_at <= record.revoked_at:
        return record
    changes = {"repaired_at": event.repaired_at, "repaired_by": event.platform_name, "revoked_at": None}
    return record.model_copy(update=changes)


def expired(record: Record, event: PublicationExpired) -> Record:
    """No longer shown, without a decision."""
    return record.model_copy(update={"expired_on": event.ended_on})


def is_shown(record: Record) -> bool:
    """Whether it is published, or only shielded for the time being."""
    repaired = record.repaired_at is not None and record.revoked_at is None
    return record.status == "published" and not repaired and record.expired_on is None


def begin_shield(record: Record, event: RecordShielded) -> Record:
    """Shielded by this ruling. What is not shown needs no shield; a ruling that is not newer than the last word changes nothing."""
    before = record.shield
    last = (before.ended_at or before.shielded_at) if before else None
    if not is_shown(record) or (last is not None and event.shielded_at <= last):
        return record
    shield = Shield.model_validate(event.model_dump(exclude={"record_id"}))
    if before is not None and before.is_on and before.ruling_number == shield.ruling_number:
        shield = shield.model_copy(update={"shielded_at": before.shielded_at})
    return record if shield == before else record.model_copy(update={"shield": shield})


def end_shield(record: Record, event: ShieldEnded) -> Record:
    """The plan is performed, so the record is finally repaired; or it failed. A record that is not shielded stays as it is."""
    if record.shield is None or not record.shield.is_on:
        return record
    ended = {"outcome": event.outcome, "ended_by": event.ruling_number, "ended_at": event.ended_at}
    changes: dict[str, Any] = {"shield": record.shield.model_copy(update=ended)}
    if event.outcome is ShieldOutcome.PERFORMED and is_shown(record):
        changes |= {"repaired_at": event.ended_at, "repaired_by": event.court, "revoked_at": None}
    return record.model_copy(update=changes)


def publication(record: Record) -> tuple[DisplayState, PublicationChange, str]:
    """What the public is to see of a record on its own account, why, and by whose word: whatever was decided on a repair."""
    shield = record.shield
    if record.status == "withdrawn":
        reason = f"记录撤回：{record.withdrawal_reason or '来源未说明理由'}"
        return DisplayState.PUBLICATION_ENDED, PublicationChange.WITHDRAWN, reason
    if shield is None:
        return DisplayState.PUBLISHED, PublicationChange.PUBLISHED_AGAIN, "重新公示"
    elsewhere = record.repaired_by is not None and record.revoked_at is None
    if elsewhere and shield.outcome is not ShieldOutcome.PERFORMED:
        # a plan that fails does not bring back what another platform has repaired meanwhile
        repaired = f"{record.repaired_by}已修复"
        return DisplayState.PUBLICATION_ENDED, PublicationChange.REPAIRED_ELSEWHERE, repaired
    match shield.outcome:
        case None:
            return DisplayState.SHIELDED, PublicationChange.SHIELDED, shield.ruling_number
        case ShieldOutcome.PERFORMED:
            state, change = DisplayState.PUBLICATION_ENDED, PublicationChange.PLAN_PERFORMED
        case ShieldOutcome.FAILED:
            state, change = DisplayState.PUBLISHED, PublicationChange.PLAN_FAILED
    return state, change, shield.ended_by or shield.ruling_number


def publication_changed(
    before: Record | None, after: Record, at: datetime
) -> tuple[Record, PublicationChanged | None]:
    """``after`` with its revision, and what everybody is told; None when nothing that is shown has changed.

    A record that is new is published by its source, at every target: nothing has changed. What goes by no system has no content here.
    """
    if before is None:
        return after, None
    shown = publication(before) != publication(after)
    by_system = not (before.facts.in_person or after.facts.in_person)
    corrects = by_system and before.facts.content != after.facts.content
    if corrects:
        after = after.model_copy(update={"corrected": True})
    state, change, number = publication(after)
    if not shown:
        # what is not shown now is told with what shows it again
        if not (corrects and state is DisplayState.PUBLISHED):
            return after, None
        change, number = PublicationChange.CORRECTED, "来源更正"
    after = after.model_copy(update={"publication_revision": after.publication_revision + 1})
    event = PublicationChanged(
        record_id=after.record_id,
        subject_id=after.subject_id,
        record=after.facts,
        change=change,
        state=state,
        number=number[:_MAX_NUMBER],
        revision=after.publication_revision,
        content=after.facts.content if after.corrected and not after.facts.in_person else None,
        changed_at=at,
    )
    return after, event


_MAX_NUMBER = 128
