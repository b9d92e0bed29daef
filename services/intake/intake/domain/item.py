"""Pure decisions of an item of an application.

The topics an item's events come from have no order among each other. So each topic writes fields of its own, and the
status is computed from all of them: however the topics interleave, the item ends in the same state.
"""

from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from contracts.events import (
    ClosureReason,
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
    SupplementReceived,
    SupplementRequested,
    TargetAcknowledged,
    TargetDrifted,
    TargetEvent,
    TargetOverdue,
    TargetVerified,
)
from contracts.http.intake import Material
from contracts.records import (
    ApplicationId,
    DepartmentRef,
    DisplayState,
    ItemId,
    LetterId,
    RecordFacts,
    RecordId,
    Shape,
    Timestamp,
)


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
