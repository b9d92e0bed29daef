"""What stands in a row of a batch file: ours for a department, theirs for us. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import ValidationError

from contracts.clock import CHINA_STANDARD_TIME
from contracts.decisions import NUMBERED, REASONED, Outcome, ReportedDecision
from contracts.department_files import (
    DECISION_COLUMNS,
    OUTCOME_WORDS,
    REQUIRED_COLUMNS,
    REVIEW_COLUMNS,
    TELLINGS,
)
from contracts.http.department import ReviewCancellation, ReviewSubmission
from contracts.records import SubjectType

_SUBJECT_TYPES = {
    SubjectType.LEGAL_PERSON: "法人及非法人组织",
    SubjectType.SOLE_TRADER: "个体工商户",
    SubjectType.NATURAL_PERSON: "自然人",
}
_ITEM_ID = re.compile(r"itm_[0-9a-f]{32}")
_SPLIT = re.compile(r"[；;\n]+")
_OUTCOMES = {**OUTCOME_WORDS, **{outcome.value: outcome for outcome in Outcome}}
_WORDS = {outcome: word for word, outcome in OUTCOME_WORDS.items()}


def review_row(message: ReviewSubmission | ReviewCancellation) -> list[str]:
    """The cells of a row of ours, in the order of REVIEW_COLUMNS."""
    cells = dict.fromkeys(REVIEW_COLUMNS, "")
    cells |= {"item_id": message.item_id, "application_id": message.application_id}
    if isinstance(message, ReviewCancellation):
        cells["telling"] = TELLINGS["cancellation"]
        return list(cells.values())
    record = message.record
    cells |= {
        "telling": TELLINGS["review" if message.supplement is None else "supplement"],
        "subject_type": _SUBJECT_TYPES[message.subject.subject_type],
        "subject_name": message.subject.name,
        "subject_code": message.subject.code,
        "contact_name": message.contact.name,
        "contact_phone": message.contact.phone,
        "record_id": record.record_id,
        "document_number": record.document_number,
        "authority_name": record.authority_name,
        "decided_on": record.decided_on.isoformat(),
        "penalty_kinds": record.penalty_kinds,
        "statement": message.statement,
        "supplement": message.supplement or "",
        "materials": "；".join(material.name for material in message.materials),
        "accept_due_on": message.accept_due_on.isoformat(),
        "decide_due_on": message.decide_due_on.isoformat(),
    }
    return list(cells.values())


def columns_of(header: Sequence[str]) -> dict[str, int]:
    """Field -> position of the columns we read. Raises ValueError (zh-CN) for one that is missing or there twice."""
    for title in DECISION_COLUMNS.values():
        if list(header).count(title) > 1:
            raise ValueError(f"表头中“{title}”出现了不止一次。")
    missing = [DECISION_COLUMNS[name] for name in REQUIRED_COLUMNS if DECISION_COLUMNS[name] not in header]
    if missing:
        raise ValueError(f"表头缺少“{'”“'.join(missing)}”。")
    return {name: list(header).index(title) for name, title in DECISION_COLUMNS.items() if title in header}


def read_row(cells: Sequence[str], columns: Mapping[str, int], written_at: datetime) -> ReportedDecision:
    """What a row of a department says; ``written_at``: of its file, for a row without a time. Raises ValueError (zh-CN)."""

    def cell(name: str) -> str:
        position = columns.get(name, -1)
        return cells[position].strip() if 0 <= position < len(cells) else ""

    if not any(cells):
        raise ValueError("整行为空。")
    item_id = cell("item_id")
    if not _ITEM_ID.fullmatch(item_id):
        raise ValueError(
            "事项编号为空。" if not item_id else f"事项编号“{item_id[:40]}”不是 itm_ 加 32 位十六进制。"
        )
    outcome = _OUTCOMES.get(cell("outcome"))
    if outcome is None:
        raise ValueError(f"结果“{cell('outcome')[:20]}”不认识，应为{'、'.join(OUTCOME_WORDS)}之一。")
    word = _WORDS[outcome]
    number, reason = cell("decision_number"), cell("reason")
    missing = tuple(part.strip() for part in _SPLIT.split(cell("missing")) if part.strip())
    if outcome in NUMBERED and not number:
        raise ValueError(f"结果为“{word}”，须填写决定文号。")
    if outcome in REASONED and not reason:
        raise ValueError(f"结果为“{word}”，须填写理由，告知申请人。")
    if outcome is Outcome.SUPPLEMENT_REQUESTED and not missing:
        raise ValueError("结果为“补正”，须一次写明全部需补正内容，用分号隔开。")
    try:
        return ReportedDecision(
            item_id=item_id,
            outcome=outcome,
            decision_number=number or None,
            reason=reason or None,
            missing=missing,
            occurred_at=_time(cell("occurred_at")) or written_at,
        )
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
        raise ValueError(f"“{DECISION_COLUMNS.get(field, field)}”太长或不合要求。") from None


def _time(text: str) -> datetime | None:
    """A time without offset is China's."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        raise ValueError(f"办理时间“{text[:40]}”应写作 2026-11-25 09:30:00。") from None
    return found if found.tzinfo else found.replace(tzinfo=CHINA_STANDARD_TIME)
