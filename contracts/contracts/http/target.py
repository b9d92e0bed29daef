"""Protocol between sync and a target (信用中国, a provincial platform, a data vendor).

1. ``POST {target}/v1/repairs`` with RepairBatch and header Idempotency-Key. Answer 200 with one RepairResult for each push, in any
   order; a push that is missing in the answer is treated as not done. Every push carries an idempotency key made of (target,
   record, version): a target that gets it again answers ``applied`` again. A version older than what the target has is
   ``superseded``.
2. ``POST {target}/v1/records/query`` with RecordQuery. Answer 200 with one RecordView for each key: what the public sees.

Both are signed by Standard Webhooks with a secret for each target.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contracts.records import DisplayState, Shape, Timestamp


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


class RepairBatch(Shape):
    """Desired states of several records."""

    pushes: Annotated[list[RepairPush], Field(min_length=1, max_length=500)]


class RepairStatus(StrEnum):
    """A target's answer for one push."""

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


class RecordQuery(Shape):
    """Ask what the public sees of some records."""

    records: Annotated[list[RecordKey], Field(min_length=1, max_length=500)]


class RecordView(Shape):
    """What the public sees of a record. A record the target does not know has ``state`` None: nothing is shown."""

    record: RecordKey
    state: DisplayState | None
    version: int | None = Field(default=None, description="Version of the last push applied, if any")


class RecordQueryResult(Shape):
    """What the public sees."""

    records: list[RecordView]
