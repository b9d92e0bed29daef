"""Follow-ups of repairs (回访): whether a repair has lasted. Services: intake.

Paths: ``GET /v1/subjects/me/follow-ups``, ``POST /v1/subjects/me/follow-ups/{follow_up_id}/answer``; for officers (scope ``desk``), of
the repairs their departments granted: ``GET /v1/follow-ups?failing=``, ``POST /v1/follow-ups/{follow_up_id}/answer``.
"""

from datetime import date

from pydantic import Field

from contracts.records import ApplicationId, ItemId, RecordId, Shape, Timestamp


class Answer(Shape):
    """回访的答复。"""

    failing: bool = Field(description="是否又有失信行为，或整改没有保持")
    text: str = Field(min_length=1, max_length=2000, description="情况说明")


class GivenAnswer(Answer):
    """答复，及由谁、何时作出。"""

    by: str
    officer: bool = Field(description="由认定单位审核员作出；否则由主体作出")
    answered_at: Timestamp


class FollowUp(Shape):
    """一次回访：修复之后第几天、哪一天问、答复。"""

    follow_up_id: str
    application_id: ApplicationId
    item_id: ItemId
    record_id: RecordId
    document_number: str
    days: int = Field(description="修复之后的天数")
    due_on: date
    told_at: Timestamp | None = Field(description="何时告知主体；到期之前为空")
    answer: GivenAnswer | None
