"""What targets took, show and were told by letter (xinfu.propagation)."""

from datetime import date
from enum import StrEnum

from pydantic import Field

from contracts.events.base import Event, ItemEvent
from contracts.events.records import PublicationChange
from contracts.records import DisplayState, RecordFacts, RecordId, SubjectId, Timestamp


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
    outdated: bool = Field(
        default=False, description="It is shown with its content as it was before a correction"
    )
    drifted_at: Timestamp


class LetterChannel(StrEnum):
    """How a formal letter leaves: by e-mail, or taken by a person."""

    EMAIL = "email"
    DOWNLOAD = "download"


class IssuedLetter(Event):
    """What both events about a letter to a vendor (函告) carry. The letter itself: sync, by ``letter_id``."""

    record_id: RecordId
    subject_id: SubjectId
    letter_id: str = Field(pattern=r"^vlt_[0-9a-f]{32}$")
    number: str = Field(description="文号 of the letter", max_length=128)
    step: int = Field(
        ge=1, le=2, description="1 first letter, 2 second letter, of which the supervisor gets a copy"
    )
    target_id: str
    target_name: str
    channel: LetterChannel
    notice: bool = Field(
        False, description="The target is told by letter alone: this tells the decision, nobody has looked"
    )
    state: DisplayState = Field(
        DisplayState.PUBLICATION_ENDED, description="What the letter asks the target to show"
    )
    copy_channel: LetterChannel | None = Field(
        None, description="How the supervisor's copy leaves; null: there is none"
    )
    issued_at: Timestamp


class VendorLetterIssued(IssuedLetter, ItemEvent):
    """A vendor that still shows a repaired record, or that is told by letter alone, was written to about the decision on an item."""

    TYPE = "cn.xinfu.vendorletter.issued.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"


class RecordLetterIssued(IssuedLetter):
    """A vendor was written to about a record on its own account (PublicationChanged): withdrawn, shielded, published again. No item."""

    TYPE = "cn.xinfu.recordletter.issued.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    record: RecordFacts
    change: PublicationChange | None = Field(
        None, description="What changed; null: its publication period has passed"
    )


class TargetOverdue(TargetEvent):
    """The target does not show the desired state, and its time limit has passed. Told once for each day it was due; pushing goes on."""

    TYPE = "cn.xinfu.target.overdue.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    due_on: date = Field(
        description="Last day by which it should have shown it, by the catalogue's time limit"
    )
    noticed_at: Timestamp


class PropagationCompleted(ItemEvent):
    """Every target that has to follow was seen showing the decided state."""

    TYPE = "cn.xinfu.propagation.completed.v1"
    TOPIC = "xinfu.propagation"
    KEY = "record_id"

    version: int = Field(ge=1)
    state: DisplayState
    target_ids: tuple[str, ...]
    decision_number: str | None = Field(default=None, description="The decision that all of them show")
    completed_at: Timestamp
