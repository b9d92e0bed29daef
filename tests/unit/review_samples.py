"""A review as routing asks for it, for the tests of dept-adapter's decisions."""

from datetime import UTC, date, datetime

from contracts.events import ReviewRequested
from contracts.records import DepartmentRef, RecordFacts, SubjectType

REQUESTED_AT = datetime(2026, 11, 22, 8, tzinfo=UTC)
RECORD = RecordFacts(
    record_id="rec_" + "1" * 32,
    subject_id="sub_" + "2" * 32,
    subject_type=SubjectType.LEGAL_PERSON,
    category="samr_administrative_penalty",
    document_number="杭市监罚〔2026〕1号",
    authority_code=None,
    authority_name="杭州市市场监督管理局",
    decided_on=date(2026, 1, 5),
)
REQUESTED = ReviewRequested(
    application_id="app_" + "3" * 32,
    item_id="itm_" + "4" * 32,
    record_id=RECORD.record_id,
    subject_id=RECORD.subject_id,
    department=DepartmentRef(code="11330100XF0000028L", slug="hz-samr", name="杭州市市场监督管理局"),
    record=RECORD,
    accept_due_on=date(2026, 11, 26),
    decide_due_on=date(2026, 12, 7),
    requested_at=REQUESTED_AT,
)
