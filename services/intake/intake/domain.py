"""Pure decisions of intake: pseudonyms, the state of a record and of an item, when an application is complete.

The topics an item's events come from have no order among each other. So each topic writes fields of its own, and the
status is computed from all of them: however the topics interleave, the item ends in the same state.
"""

import hashlib
import hmac
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from contracts.events import (
    ApplicationCompleted,
    ClosureReason,
    CompletedItem,
    Ground,
    ItemClosed,
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemReopened,
    ItemRouted,
    ItemWithdrawn,
    LetterFact,
    LetterIssued,
    PropagationCompleted,
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    RecordPublished,
    RecordRepairedElsewhere,
    RecordShielded,
    RecordWithdrawn,
    ReferralDueConfirmed,
    ReferralOverdue,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewDueConfirmed,
    ReviewExpired,
    ReviewExtended,
    ReviewFact,
    ReviewNotAccepted,
    ReviewOverdue,
    ReviewStep,
    ReviewWithdrawn,
    ShieldEnded,
    ShieldOutcome,
    SupplementReceived,
    SupplementRequested,
    TargetAcknowledged,
    TargetDrifted,
    TargetEvent,
    TargetOverdue,
    TargetVerified,
)
from contracts.http.intake import Commitment, Contact, Material
from contracts.http.mandate import Assistance
from contracts.records import (
    ApplicationId,
    DepartmentRef,
    DisplayState,
    ItemId,
    LetterId,
    ObjectionId,
    RecordFacts,
    RecordId,
    Shape,
    SubjectId,
    SubjectType,
    Timestamp,
)


def subject_id(key: bytes, subject_type: SubjectType, code: str) -> str:
    """Pseudonym of a subject: ``sub_`` and 32 hex digits of HMAC-SHA256. ``code`` in its normal form."""
    message = f"{subject_type.value}:{code}".encode()
    return "sub_" + hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


# --- records ---------------------------------------------------------------------------------------------


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


# --- items -----------------------------------------------------------------------------------------------


class ItemStatus(StrEnum):
    """Where an item stands, in order."""

    QUEUED = "queued"
    SUBMITTED = "submitted"
    REFERRED = "referred"
    ROUTED = "routed"
    SUPPLEMENT = "supplement"
    ACCEPTED = "accepted"
    EXTENDED = "extended"
    GRANTED = "granted"
    REFUSED = "refused"
    SYNCING = "syncing"
    REPAIRED = "repaired"
    REVOKED = "revoked"
    NOT_ACCEPTED = "not_accepted"
    WITHDRAWN = "withdrawn"
    RECOGNISED = "recognised"
    EXPIRED = "expired"
    CLOSED = "closed"


OBJECTIONABLE = frozenset({ItemStatus.NOT_ACCEPTED, ItemStatus.REFUSED, ItemStatus.REVOKED})
"""Results that may be objected to, once each."""


class TargetState(StrEnum):
    """What is known of one target."""

    ACKNOWLEDGED = "acknowledged"
    VERIFIED = "verified"
    DRIFTED = "drifted"


class TargetProgress(Shape):
    """The last word about one target; ``version`` is sync's version of the desired state."""

    name: str
    state: TargetState
    version: int
    at: Timestamp


class Referral(Shape):
    """The human queue an item waits or waited in."""

    queue_name: str
    reason: str
    due_on: date
    due_provisional: bool = False


class Supplement(Shape):
    """What the department found missing; ``received_at``: the department has it."""

    missing: tuple[str, ...]
    due_on: date
    due_provisional: bool = False
    requested_at: Timestamp
    received_at: Timestamp | None = None


class Recognition(Shape):
    """A repair made elsewhere. ``requested``: whoever has the item was asked to recognise it."""

    platform_id: str
    platform_name: str
    decision_number: str
    repaired_at: Timestamp
    requested: bool = False


class Expiry(Shape):
    """The record's publication ended by itself. ``requested``: whoever has the item was asked to end it."""

    ended_on: date
    source: str
    requested: bool = False


class Closure(Shape):
    """There is nothing left to repair. ``reason``: for people. ``requested``: whoever has the item was asked to end it."""

    reason_code: ClosureReason
    reason: str
    requested: bool = False


class Overdue(Shape):
    """The last deadline of the department that passed."""

    step: ReviewStep
    due_on: date


class Dispute(Shape):
    """A finding at another item that what this one rests on is false. ``told``: its department was told."""

    ground: Ground
    reason: str
    found_at: Timestamp
    told: bool = False


class ItemLetter(Shape):
    """A letter of a step of the item; what it says is at dept-adapter."""

    letter_id: LetterId
    kind: str
    title: str
    number: str | None
    dated: date
    content_hash: str
    verification_code: str
    issued_at: Timestamp


def letter_of(event: LetterFact) -> ItemLetter:
    """The letter an event tells of."""
    return ItemLetter.model_validate({**event.model_dump(), "kind": event.letter_kind})


class Item(Shape):
    """One record of one application. ``facts`` are those of the day it was submitted.

    ``round``: how often it was reopened, or its repair restored, after an upheld objection. What earlier rounds told changes nothing.

    ``after``: items of the same application whose turn comes first; ``started_at``: when its own came, if it had to wait.
    """

    item_id: ItemId
    application_id: ApplicationId
    record_id: RecordId
    facts: RecordFacts
    after: tuple[ItemId, ...] = ()
    started_at: Timestamp | None = None
    # what the applicant did
    supplement_text: str | None = None
    supplement_materials: tuple[Material, ...] = ()
    supplemented_at: Timestamp | None = None
    withdrawal_requested_at: Timestamp | None = None
    # xinfu.records
    recognition: Recognition | None = None
    expiry: Expiry | None = None
    closure: Closure | None = None
    # findings at other items
    disputes: tuple[Dispute, ...] = ()
    # xinfu.routing
    referral: Referral | None = None
    department: DepartmentRef | None = None
    decide_due_on: date | None = None
    decide_due_provisional: bool = False
    unassigned_withdrawn_at: Timestamp | None = None
    unassigned_closed_at: Timestamp | None = None
    # xinfu.decisions
    round: int = 0
    reviewed_by: DepartmentRef | None = None
    supplement: Supplement | None = None
    accepted_at: Timestamp | None = None
    not_accepted_at: Timestamp | None = None
    withdrawn_at: Timestamp | None = None
    expired_at: Timestamp | None = None
    closed_at: Timestamp | None = None
    extension_reason: str | None = None
    changed_due_on: date | None = None
    changed_due_provisional: bool = False
    overdue: Overdue | None = None
    decision: Literal["granted", "refused", "recognised"] | None = None
    decision_number: str | None = None
    reason: str | None = None
    decided_at: Timestamp | None = None
    revocation_number: str | None = None
    revocation_reason: str | None = None
    revoked_at: Timestamp | None = None
    revocation_ground: Ground | None = None
    letters: tuple[ItemLetter, ...] = ()
    # xinfu.propagation
    targets: dict[str, TargetProgress] = Field(default_factory=dict)
    repaired_at: Timestamp | None = None
    repaired_version: int | None = None
    repaired_number: str | None = None

    @property
    def status(self) -> ItemStatus:
        """The furthest state any topic tells of; a refusal and a revocation are final."""
        reached = {
            ItemStatus.REFUSED: self.decision == "refused",
            ItemStatus.NOT_ACCEPTED: self.not_accepted_at is not None,
            ItemStatus.REVOKED: self.revoked_at is not None,
            ItemStatus.RECOGNISED: self.decision == "recognised",
            ItemStatus.EXPIRED: self.expired_at is not None,
            ItemStatus.CLOSED: (self.closed_at or self.unassigned_closed_at) is not None,
            # with a repair elsewhere, only the decision tells whose repair it is that every target shows
            ItemStatus.REPAIRED: self.repaired_at is not None
            and (self.decision is not None or self.recognition is None)
            # what was seen before a repair was restored says nothing about now
            and (self.round == 0 or self.repaired_number == self.decision_number),
            ItemStatus.SYNCING: bool(self.targets),
            ItemStatus.GRANTED: self.decision == "granted",
            ItemStatus.WITHDRAWN: (self.withdrawn_at or self.unassigned_withdrawn_at) is not None,
            ItemStatus.EXTENDED: self.extension_reason is not None,
            ItemStatus.ACCEPTED: self.accepted_at is not None,
            ItemStatus.SUPPLEMENT: self.supplement is not None and self.supplement.received_at is None,
            ItemStatus.ROUTED: self.department is not None,
            ItemStatus.REFERRED: self.referral is not None,
            ItemStatus.QUEUED: bool(self.after) and self.started_at is None,
        }
        return next((status for status, is_reached in reached.items() if is_reached), ItemStatus.SUBMITTED)

    @property
    def outcome(self) -> ItemOutcome | None:
        """How the item ended, if it has. Once it has, it stays ended, though what was repaired may be revoked."""
        match self.status:
            case ItemStatus.REFUSED:
                return ItemOutcome.REFUSED
            case ItemStatus.REPAIRED:
                return ItemOutcome.REPAIRED
            case ItemStatus.REVOKED:
                return ItemOutcome.REVOKED
            case ItemStatus.NOT_ACCEPTED:
                return ItemOutcome.NOT_ACCEPTED
            case ItemStatus.WITHDRAWN:
                return ItemOutcome.WITHDRAWN
            case ItemStatus.RECOGNISED:
                return ItemOutcome.RECOGNISED
            case ItemStatus.EXPIRED:
                return ItemOutcome.EXPIRED
            case ItemStatus.CLOSED:
                return ItemOutcome.CLOSED
        return None

    @property
    def holder(self) -> DepartmentRef | None:
        """The department that has the item, by whichever topic told first; None: none is known to have it."""
        return self.department or self.reviewed_by

    @property
    def lets_followers_start(self) -> bool:
        """Nothing that waits for this item has to wait any longer: it is granted, or will not be; also if it is reopened later."""
        return self.decision is not None or self.outcome is not None or self.round > 0

    @property
    def is_overdue(self) -> bool:
        """Whether the department owes the step of which it was told that its day has passed."""
        match self.status, self.overdue:
            case ItemStatus.ROUTED, Overdue(step=ReviewStep.ACCEPT):
                return True
            case ItemStatus.ACCEPTED | ItemStatus.EXTENDED, Overdue(step=ReviewStep.DECIDE, due_on=day):
                return day == self.due_on
        return False

    @property
    def due_on(self) -> date | None:
        """The day by which the department has to decide, as last told."""
        return self.changed_due_on or self.decide_due_on

    @property
    def due_provisional(self) -> bool:
        """Whether ``due_on`` reaches into a year whose working days are not published yet."""
        return self.changed_due_provisional if self.changed_due_on else self.decide_due_provisional


_TARGET_STATES: dict[type[TargetEvent], TargetState] = {
    TargetAcknowledged: TargetState.ACKNOWLEDGED,
    TargetVerified: TargetState.VERIFIED,
    TargetDrifted: TargetState.DRIFTED,
}


_DECISIONS: dict[type[ItemEvent], str] = {
    RepairGranted: "granted",
    RepairRefused: "refused",
    RepairRecognised: "recognised",
}


_Reviewed = (
    SupplementRequested
    | SupplementReceived
    | ReviewAccepted
    | ReviewNotAccepted
    | ReviewExtended
    | ReviewOverdue
    | ReviewWithdrawn
    | RepairGranted
    | RepairRefused
    | RepairRecognised
    | RepairRevoked
)


def apply(item: Item, event: ItemEvent) -> Item:
    """The item after an event about it. Events that intake does not show leave it as it is."""
    changes = _changes(item, event)
    if isinstance(event, _Reviewed) and item.reviewed_by is None:
        changes["reviewed_by"] = event.department
    return item.model_copy(update=changes) if changes else item


def _changes(item: Item, event: ItemEvent) -> dict[str, Any]:
    if isinstance(event, ReviewFact) and event.round < item.round:
        return {}
    match event:
        case ItemReopened() if event.round > item.round:
            return {
                "round": event.round,
                "decision": None,
                "decision_number": None,
                "reason": None,
                "decided_at": None,
                "not_accepted_at": None,
                "extension_reason": None,
                "overdue": None,
                "changed_due_on": event.decide_due_on,
                "withdrawal_requested_at": None,
                # the decision that came first no longer stands
                "closure": item.closure and item.closure.model_copy(update={"requested": False}),
            }
        case ItemReferred():
            referral = Referral(
                queue_name=event.queue_name,
                reason=event.reason,
                due_on=event.due_on,
                due_provisional=event.due_provisional,
            )
            return {"referral": referral}
        case ReferralDueConfirmed() if item.referral is not None:
            due = {"due_on": event.due_on, "due_provisional": event.due_provisional}
            return {"referral": item.referral.model_copy(update=due)}
        case ItemRouted():
            return {
                "department": event.department,
                "decide_due_on": event.decide_due_on,
                "decide_due_provisional": event.due_provisional,
            }
        case ItemWithdrawn():
            return {"unassigned_withdrawn_at": item.unassigned_withdrawn_at or event.withdrawn_at}
        case ItemClosed():
            return {"unassigned_closed_at": item.unassigned_closed_at or event.closed_at}
        case SupplementRequested():
            asked = Supplement(
                missing=event.missing,
                due_on=event.supplement_due_on,
                due_provisional=event.due_provisional,
                requested_at=event.requested_at,
            )
            return {"supplement": item.supplement or asked}
        case SupplementReceived() if item.supplement is not None:
            received = item.supplement.model_copy(update={"received_at": event.received_at})
            return {"supplement": received, **_changed_due(event)}
        case ReviewAccepted():
            return {"accepted_at": item.accepted_at or event.accepted_at}
        case ReviewNotAccepted():
            return {"not_accepted_at": event.not_accepted_at, "reason": event.reason}
        case ReviewExtended():
            return {"extension_reason": event.reason, **_changed_due(event)}
        case ReviewDueConfirmed():
            if item.supplement is None or event.supplement_due_on is None:
                return _changed_due(event)
            due = {"due_on": event.supplement_due_on, "due_provisional": event.due_provisional}
            return {"supplement": item.supplement.model_copy(update=due), **_changed_due(event)}
        case ReviewOverdue():
            return {"overdue": Overdue(step=event.step, due_on=event.due_on)}
        case ReviewWithdrawn():
            return {"withdrawn_at": item.withdrawn_at or event.withdrawn_at}
        case ReviewExpired():
            return {"expired_at": item.expired_at or event.expired_at}
        case ReviewClosed():
            return {"closed_at": item.closed_at or event.closed_at}
        case RepairGranted() if event.round > item.round:
            return {
                "round": event.round,
                "decision": "granted",
                "decision_number": event.decision_number,
                "decided_at": event.decided_at,
                "revocation_number": None,
                "revocation_reason": None,
                "revoked_at": None,
                "revocation_ground": None,
            }
        case RepairGranted() | RepairRefused() | RepairRecognised() if item.decision is None:
            return {
                "decision": _DECISIONS[type(event)],
                "decision_number": event.decision_number,
                "reason": event.reason if isinstance(event, RepairRefused) else None,
                "decided_at": event.decided_at,
            }
        case RepairRevoked() if item.revoked_at is None:
            return {
                "revocation_number": event.decision_number,
                "revocation_reason": event.reason,
                "revoked_at": event.decided_at,
                "revocation_ground": event.ground,
            }
        case LetterIssued() if event.letter_id not in {letter.letter_id for letter in item.letters}:
            return {"letters": (*item.letters, letter_of(event))}
        case PropagationCompleted() if event.state is DisplayState.PUBLICATION_ENDED:
            if event.version <= (item.repaired_version or 0):
                return {}
            return {
                "repaired_at": event.completed_at,
                "repaired_version": event.version,
                "repaired_number": event.decision_number,
            }
        case TargetOverdue():
            return {}
        case TargetEvent():
            known = item.targets.get(event.target_id)
            if known is not None and known.version > event.version:
                return {}
            progress = TargetProgress(
                name=event.target_name,
                state=_TARGET_STATES[type(event)],
                version=event.version,
                at=occurred_at(event),
            )
            return {"targets": {**item.targets, event.target_id: progress}}
    return {}


def _changed_due(event: SupplementReceived | ReviewExtended | ReviewDueConfirmed) -> dict[str, Any]:
    return {"changed_due_on": event.decide_due_on, "changed_due_provisional": event.due_provisional}


def occurred_at(event: ItemEvent) -> datetime:
    """When what the event tells of happened. Raises TypeError for an event intake does not show."""
    match event:
        case ItemReferred():
            return event.referred_at
        case ItemRouted():
            return event.routed_at
        case ItemWithdrawn() | ReviewWithdrawn():
            return event.withdrawn_at
        case SupplementRequested():
            return event.requested_at
        case SupplementReceived():
            return event.received_at
        case ReviewExpired():
            return event.expired_at
        case ReviewClosed() | ItemClosed():
            return event.closed_at
        case ReviewAccepted():
            return event.accepted_at
        case ReviewNotAccepted():
            return event.not_accepted_at
        case ReviewExtended():
            return event.extended_at
        case ItemReopened():
            return event.reopened_at
        case ReviewOverdue() | TargetOverdue() | ReferralOverdue():
            return event.noticed_at
        case ReviewDueConfirmed() | ReferralDueConfirmed():
            return event.confirmed_at
        case RepairGranted() | RepairRefused() | RepairRevoked() | RepairRecognised():
            return event.decided_at
        case TargetAcknowledged():
            return event.acknowledged_at
        case TargetVerified():
            return event.verified_at
        case TargetDrifted():
            return event.drifted_at
        case PropagationCompleted():
            return event.completed_at
    raise TypeError(f"{event.TYPE} is not shown on a timeline")


# --- applications ----------------------------------------------------------------------------------------


class ConfirmedCommitment(Commitment):
    """With what it says: the JSON that was hashed."""

    content: str


class Application(Shape):
    """The header of an application. ``open_items``: how many items have not ended; ``held``: how many had to wait at first.

    It is completed once; an item that is reopened afterwards is open again without it (``is_over``).
    """

    application_id: ApplicationId
    subject_id: SubjectId
    contact: Contact
    statement: str
    materials: tuple[Material, ...] = ()
    commitment: ConfirmedCommitment | None = None
    assistance: Assistance | None = None
    submitted_at: Timestamp
    status: Literal["open", "completed"] = "open"
    completed_at: Timestamp | None = None
    item_count: int
    open_items: int
    held: int = 0
    timeline_seq: int

    @property
    def is_over(self) -> bool:
        """Completed, and nothing has been reopened that has not ended again."""
        return self.status == "completed" and self.open_items == 0


class Entry(Shape):
    """One line of a timeline. ``seq`` rises without gaps in each application; ``text`` is zh-CN, for people."""

    application_id: ApplicationId
    seq: int
    item_id: ItemId | None
    type: str
    at: Timestamp
    text: str
    facts: dict[str, Any] = Field(default_factory=dict)


def completed(application: Application, items: Iterable[Item], now: datetime) -> ApplicationCompleted | None:
    """What to tell everybody when every item has ended, with the outcomes of that moment; None while one has not."""
    outcomes = [(item, item.outcome) for item in sorted(items, key=lambda item: item.item_id)]
    ended = [
        CompletedItem(item_id=item.item_id, record_id=item.record_id, outcome=outcome)
        for item, outcome in outcomes
        if outcome is not None
    ]
    if len(ended) < application.item_count:
        return None
    return ApplicationCompleted(
        application_id=application.application_id,
        subject_id=application.subject_id,
        items=tuple(ended),
        completed_at=now,
    )
