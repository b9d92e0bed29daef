"""Protocol between sync and a target (信用中国, a provincial platform, a data vendor).

1. ``POST {target}/v1/repairs`` with RepairBatch and header Idempotency-Key. Answer 200 with one RepairResult for each push, in any
   order; a push that is missing in the answer is treated as not done. Every push carries an idempotency key made of (target,
   record, version): a target that gets it again answers ``applied`` again. A version older than what the target has is
   ``superseded``.
   A target that needs longer answers 202, with ``received`` for the pushes it has taken (an empty answer: all of them), and tells
   what became of them later: ``POST {receipts_url}`` with RepairReceipt. What it is silent about is pushed again.
2. ``POST {target}/v1/records/query`` with RecordQuery. Answer 200 with one RecordView for each key: what the public sees.
3. A target that fetches instead asks us: ``GET /v1/targets/{id}/list?cursor=`` for a RepairList, from where it left off. Its next
   cursor acknowledges all that came before it.

All are signed by Standard Webhooks with a secret for each target, in both directions. What has no body (3) is signed over its path
and query, as ``/v1/targets/{id}/list?cursor=12``.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contracts.records import DisplayState, RecordContent, Shape, Timestamp


class RecordKey(Shape):
    """How a record is recognised outside: (issuing authority, 文号, subject code); no personal ID goes to a vendor."""

    subject_code: str
    document_number: str
    authority_name: str


class RepairPush(Shape):
    """The desired state of one record."""

    idempotency_key: str = Field(max_length=200)
    record: RecordKey
    subject_name: str
    state: DisplayState
    version: int = Field(ge=1)
    decision_number: str
    decided_at: Timestamp
    content: RecordContent | None = Field(
        default=None,
        description="What has to be read where the record is shown: it was corrected; null: leave it as it is",
    )
    agent: str | None = Field(
        default=None,
        description="The city department that acts for the applicant at this platform (代办), when there is one",
    )


class RepairBatch(Shape):
    """Desired states of several records. ``receipts_url``: where a target that answers 202 tells what became of them."""

    pushes: Annotated[list[RepairPush], Field(min_length=1, max_length=500)]
    receipts_url: str | None = Field(default=None, max_length=2000)


class RepairStatus(StrEnum):
    """A target's answer for one push. ``received``: taken, what becomes of it is told later (only with 202)."""

    RECEIVED = "received"
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


class RepairResult(Shape):
    """The answer for one push; ``reason`` says why it was rejected."""

    idempotency_key: str
    status: RepairStatus
    reason: str | None = None


class RepairBatchResult(Shape):
    """Answers for a batch."""

    results: list[RepairResult]


class RepairReceipt(Shape):
    """What became of pushes that were only ``received``."""

    results: Annotated[list[RepairResult], Field(min_length=1, max_length=500)]


class ReceiptAnswer(Shape):
    """How many results took effect; the others are of what is no longer asked for, or known already."""

    taken: int
    duplicate: bool = Field(default=False, description="This receipt (webhook-id) had come before")


class RepairList(Shape):
    """A page of the list a target fetches: the newest desired state of each record on it, oldest entry first.

    ``cursor``: ask with it next; that acknowledges this page. ``more``: there is another page already.
    """

    pushes: list[RepairPush]
    cursor: int = Field(ge=0)
    more: bool


class RecordQuery(Shape):
    """Ask what the public sees of some records."""

    records: Annotated[list[RecordKey], Field(min_length=1, max_length=500)]


class RecordView(Shape):
    """What the public sees of a record. A record the target does not know has ``state`` None: nothing is shown."""

    record: RecordKey
    state: DisplayState | None
    version: int | None = Field(default=None, description="Version of the last push applied, if any")
    content: RecordContent | None = Field(
        default=None,
        description="What is read of it where it is shown; null: not told, and a correction is taken for "
        "shown where ``version`` is that of its push",
    )


class RecordQueryResult(Shape):
    """What the public sees."""

    records: list[RecordView]
