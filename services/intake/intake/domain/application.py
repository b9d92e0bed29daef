"""Pure decisions of an application: its header, its timeline, and when it is complete."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from contracts.events import (
    ApplicationCompleted,
    CompletedItem,
)
from contracts.http.intake import Commitment, Contact, Material
from contracts.http.mandate import Assistance
from contracts.records import (
    ApplicationId,
    ItemId,
    Shape,
    SubjectId,
    Timestamp,
)
from intake.domain.item import Item


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
