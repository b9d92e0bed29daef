"""Protocol between dept-adapter and a department that has a system of its own (mode ``api``).

Both directions are signed by Standard Webhooks (headers webhook-id, webhook-timestamp, webhook-signature; HMAC-SHA256, 5
minutes tolerance) with a secret for each department.

1. ``POST {department}/reviews`` with ReviewSubmission; webhook-id is the item id, so a repeated push is recognised.
   Answer 202 with ReviewReceipt. Any other 4xx than 401, 403, 404, 408, 425 and
   429: the department refuses to take it, and an officer decides at the review desk; everything else is retried.
   After the applicant supplemented, the review comes again with ``supplement``; webhook-id is then the item id, a colon and the
   number of the telling. ``POST {department}/reviews/{item_id}/cancellation`` with ReviewCancellation: the applicant has withdrawn, the
   record was repaired elsewhere, is no longer shown, or was withdrawn by its source: nothing is left to decide. Answer 2xx, also for a review that is not known.
   The content of ``materials``: ``GET {dept-adapter}/v1/departments/{code}/reviews/{item_id}/materials/{material_id}``, signed with an
   empty body; of the ``commitment``: ``…/reviews/{item_id}/commitment``, in the same way.
2. ``POST {dept-adapter}/v1/departments/{code}/decisions`` with DecisionCallback; webhook-id is stable over retries. Answer
   200 with CallbackReceipt, also for a repeated callback; 409 when it contradicts an earlier decision. A revocation needs its
   grant: before that was taken it is a 409 too, so send it after the grant was answered. What is missing is told once and
   before the acceptance (``supplement_requested``); the decision may be put off once, before it is due (``extended``).
3. A system that cannot call (``callbacks: false`` in the catalogue) is asked instead: ``GET {department}/decisions?after=CURSOR&limit=N``,
   signed with an empty body and the webhook-id ``decisions:CURSOR`` (CURSOR is empty at first). Answer 200 with PolledDecisions, signed
   the same way under the same webhook-id. What is answered once may be asked for again.
"""

from datetime import date
from typing import Annotated, Any

from pydantic import Field

from contracts.decisions import NUMBERED, REASONED, Outcome, ReportedDecision
from contracts.http.intake import Commitment, Contact, Material, Subject
from contracts.records import ApplicationId, ItemId, MaterialId, RecordFacts, Shape

__all__ = [
    "NUMBERED",
    "REASONED",
    "CallbackReceipt",
    "DecisionCallback",
    "Outcome",
    "PolledDecision",
    "PolledDecisions",
    "ReviewCancellation",
    "ReviewReceipt",
    "ReviewSubmission",
]


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
    due_provisional: bool = Field(
        default=False, description="The working days on the way to one of these are not published yet"
    )
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


class DecisionCallback(ReportedDecision):
    """A department's word about an item: see NUMBERED and REASONED; a supplement needs the list of what is missing."""


class PolledDecision(DecisionCallback):
    """The same, fetched. ``webhook_id`` is stable: a decision that is fetched again is recognised by it."""

    webhook_id: str = Field(min_length=1, max_length=200)


class PolledDecisions(Shape):
    """Answer of GET {department}/decisions: PolledDecision objects, the oldest first.

    ``next``: where to go on; the same as ``after`` when there is nothing new. Each decision is read alone, so that a malformed one
    holds up no other.
    """

    decisions: Annotated[tuple[dict[str, Any], ...], Field(max_length=500)]
    next: str = Field(max_length=150)


class CallbackReceipt(Shape):
    """The callback took effect, now or earlier."""

    item_id: ItemId
    state: str
    duplicate: bool
