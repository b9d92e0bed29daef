"""Protocol between dept-adapter and a source of facts (data verification, 数据智能核验), before a person looks.

``POST {source}/v1/checks`` with CheckBatch, signed by Standard Webhooks with a secret for each source. Answer 200 with one CheckAnswer
for each question that can be answered, in any order; what is missing in the answer is ``unknown``. Asking changes nothing, so a
question may come again. No natural person is asked about.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contracts.records import ItemId, Shape, Timestamp


class Fact(StrEnum):
    """What a source knows of one condition."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    UNKNOWN = "unknown"


class CheckQuestion(Shape):
    """Is this condition (``check``: its id in the catalogue) met for this decision about this subject?"""

    item_id: ItemId
    check: str = Field(max_length=60)
    subject_code: str
    document_number: str
    authority_name: str


class CheckBatch(Shape):
    """Questions about several items."""

    questions: Annotated[list[CheckQuestion], Field(min_length=1, max_length=500)]


class CheckAnswer(Shape):
    """``detail`` (zh-CN): what the answer rests on, such as a receipt number. ``as_of``: the time of the source's data."""

    item_id: ItemId
    check: str = Field(max_length=60)
    fact: Fact
    detail: str = Field(default="", max_length=500)
    as_of: Timestamp


class CheckAnswers(Shape):
    """Answers to a batch."""

    answers: Annotated[list[CheckAnswer], Field(max_length=500)]
