"""What all events are."""

from datetime import date
from typing import ClassVar

from pydantic import Field

from contracts.records import (
    ApplicationId,
    DepartmentRef,
    ItemId,
    LetterId,
    RecordId,
    Shape,
    SubjectId,
    Timestamp,
)


class Event(Shape):
    """Base of all events."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
    KEY: ClassVar[str]

    @property
    def key(self) -> str:
        """Kafka message key, also the CloudEvents subject."""
        return str(getattr(self, self.KEY))

    @property
    def topic(self) -> str:
        """Full name of the topic this event is published to."""
        return self.TOPIC


class ItemEvent(Event):
    """What every event about one item carries."""

    application_id: ApplicationId
    item_id: ItemId
    record_id: RecordId
    subject_id: SubjectId


class LetterFact(Event):
    """What is told of a letter. What it says, and to whom, is asked of dept-adapter over HTTP."""

    department: DepartmentRef
    letter_id: LetterId
    # text, so that a reader built today takes the kinds of tomorrow
    letter_kind: str = Field(max_length=40, description="Kind of letter, contracts.letters.LetterKind")
    title: str = Field(max_length=100)
    number: str | None = Field(max_length=256, description="文号 of the letter; null: it has none")
    content_hash: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of what the letter says, as dept-adapter gives it as JSON",
    )
    verification_code: str = Field(max_length=19, description="By which anybody can check that it is genuine")
    dated: date = Field(description="Day in China of the decision it tells of")
    issued_at: Timestamp
