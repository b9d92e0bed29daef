"""What a department can say about an item, whichever way it says it: callback, polled, in a file, as an event."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from contracts.records import ItemId, Shape, Timestamp


class Outcome(StrEnum):
    """What a department can tell about an item."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    SUPPLEMENT_REQUESTED = "supplement_requested"
    EXTENDED = "extended"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"


NUMBERED = frozenset({Outcome.GRANTED, Outcome.REFUSED, Outcome.REVOKED})
"""What needs the number of its letter."""
REASONED = frozenset({Outcome.REFUSED, Outcome.REVOKED, Outcome.NOT_ACCEPTED, Outcome.EXTENDED})
"""What needs its reason, which the applicant is told."""


class ReportedDecision(Shape):
    """A department's word about an item: see NUMBERED and REASONED; a supplement needs the list of what is missing."""

    item_id: ItemId
    outcome: Outcome = Field(description="What the department tells")
    decision_number: str | None = Field(default=None, max_length=128, description="Number of the letter")
    reason: str | None = Field(default=None, max_length=2000, description="The applicant is told")
    missing: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(max_length=20)
    ] = ()
    occurred_at: Timestamp = Field(description="When it happened, by the department's clock")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.outcome in NUMBERED and not self.decision_number:
            raise ValueError("decision_number is required for granted, refused and revoked")
        if self.outcome in REASONED and not self.reason:
            raise ValueError("reason is required for refused, revoked, not_accepted and extended")
        if self.outcome is Outcome.SUPPLEMENT_REQUESTED and not self.missing:
            raise ValueError("missing is required for supplement_requested: everything at once")
        return self
