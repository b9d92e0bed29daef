"""Protocol between dept-adapter and a department that has a system of its own (mode ``api``).

Both directions are signed by Standard Webhooks (headers webhook-id, webhook-timestamp, webhook-signature; HMAC-SHA256, 5
minutes tolerance) with a secret for each department.

1. ``POST {department}/reviews`` with ReviewSubmission; webhook-id is the item id, so a repeated push is recognised.
   Answer 202 with ReviewReceipt. Any other 4xx than 401, 403, 404, 408, 425 and
   429: the department refuses to take it, and an officer decides at the review desk; everything else is retried.
   After the applicant supplemented, the review comes again with ``supplement``; webhook-id is then the item id, a colon and the
   number of the telling. ``POST {department}/reviews/{item_id}/cancellation`` with ReviewCancellation: the applicant has withdrawn, or
   the record was repaired elsewhere: nothing is left to decide. Answer 2xx, also for a review that is not known.
   The content of ``materials``: ``GET {dept-adapter}/v1/departments/{code}/reviews/{item_id}/materials/{material_id}``, signed with an
   empty body; of the ``commitment``: ``…/reviews/{item_id}/commitment``, in the same way.
2. ``POST {dept-adapter}/v1/departments/{code}/decisions`` with DecisionCallback; webhook-id is stable over retries. Answer
   200 with CallbackReceipt, also for a repeated callback; 409 when it contradicts an earlier decision. A revocation needs its
   grant: before that was taken it is a 409 too, so send it after the grant was answered. What is missing is told once and
   before the acceptance (``supplement_requested``); the decision may be put off once, before it is due (``extended``).
"""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from contracts.http.intake import Commitment, Contact, Material, Subject
from contracts.records import ApplicationId, ItemId, MaterialId, RecordFacts, Shape, Timestamp


class ReviewSubmission(Shape):
    """A review handed to a department's system."""

    item_id: ItemId
    application_id: ApplicationId
    department_code: str
    subject: Subject
    contact: Contact
    record: RecordFacts
    statement: str
    supplement: str | None = None
    materials: tuple[Material, ...] = ()
    supplement_material_ids: tuple[MaterialId, ...] = Field(
        default=(), description="Those of ``materials`` that came with the supplement"
    )
    commitment: Commitment | None = None
    accept_due_on: date
    decide_due_on: date
    callback_url: str


class ReviewCancellation(Shape):
    """A review that was handed over is no longer wanted."""

    item_id: ItemId
    application_id: ApplicationId
    department_code: str


class ReviewReceipt(Shape):
    """The department's system has taken the review."""

    item_id: ItemId
    receipt_number: str


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


class DecisionCallback(Shape):
    """A department's word about an item: see NUMBERED and REASONED; a supplement needs the list of what is missing."""

    item_id: ItemId
    outcome: Outcome
    decision_number: str | None = Field(default=None, max_length=128)
    reason: str | None = Field(default=None, max_length=2000)
    missing: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(max_length=20)
    ] = ()
    occurred_at: Timestamp

    @model_validator(mode="after")
    def _complete(self) -> "DecisionCallback":
        if self.outcome in NUMBERED and not self.decision_number:
            raise ValueError("decision_number is required for granted, refused and revoked")
        if self.outcome in REASONED and not self.reason:
            raise ValueError("reason is required for refused, revoked, not_accepted and extended")
        if self.outcome is Outcome.SUPPLEMENT_REQUESTED and not self.missing:
            raise ValueError("missing is required for supplement_requested: everything at once")
        return self


class CallbackReceipt(Shape):
    """The callback took effect, now or earlier."""

    item_id: ItemId
    state: str
    duplicate: bool
