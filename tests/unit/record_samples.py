"""A record for the tests of intake: a fine of 2026, with whatever is different."""

from datetime import UTC, date, datetime
from typing import Any

from contracts.catalogue import load_catalogue
from contracts.records import DepartmentRef, RecordFacts, SubjectType
from intake.domain.record import Display, Record

SUBJECT = "sub_" + "b" * 32
NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
TODAY = date(2026, 11, 23)
DEPARTMENT = DepartmentRef(code="11330100XF00000033", slug="hz-jyj", name="杭州市教育局")
CATALOGUE = load_catalogue()


def facts(**changes: Any) -> RecordFacts:
    """The facts of it."""
    return RecordFacts(
        **{
            "record_id": "rec_" + "c" * 32,
            "subject_id": SUBJECT,
            "subject_type": SubjectType.LEGAL_PERSON,
            "category": "administrative_penalty",
            "document_number": "杭教罚〔2026〕12号",
            "authority_code": DEPARTMENT.code,
            "authority_name": DEPARTMENT.name,
            "decided_on": date(2026, 8, 31),
            "penalty_kinds": "罚款",
            "tier": "general",
            **changes,
        }
    )


def record(*, legal_basis: str = "", **changes: Any) -> Record:
    """It, as intake keeps it; ``changes``: fields of the record or of its facts."""
    own = {name: changes.pop(name) for name in list(changes) if name in Record.model_fields}
    return Record(
        **{
            "record_id": "rec_" + "c" * 32,
            "subject_id": SUBJECT,
            "facts": facts(**changes),
            "display": Display(legal_basis=legal_basis),
            "published_at": NOW,
            **own,
        }
    )
