"""Pure: the letter (文书) a step of a review leads to, and what it says, from the templates of the catalogue.

The same for every way a step comes: the desk, a callback, the applicant, the days that pass. Where the department's own system issues
letters (``Department.issues_letters``) and decided the item itself, ours is a notice by whoever runs the platform: two decision letters
of one decision, by two systems, would contradict each other in number, seal and hash.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime

from chassis.letter import Letter, LetterTable, Verification
from contracts.catalogue import Catalogue, Department, LetterTemplate
from contracts.clock import china_date
from contracts.events import ObjectionKind, ObjectionRemedy
from contracts.http.intake import Subject
from contracts.identifiers import mask_id_number
from contracts.letters import DECISIONS, LINES, LetterKind, fill
from contracts.records import SubjectType
from contracts.working_days import Count
from dept_adapter.domain import Command, Review, decide, is_provisional
from dept_adapter.objection import Objection, Ruling, rule_on
from dept_adapter.states import ObjectionState, State

CLOCK = "clock"
"""Who acts when days have passed."""
NOT_NUMBERED = "（发出时编号）"
"""In a preview, the number that is given when the letter is issued."""

_KINDS = {
    State.ACCEPTED: LetterKind.ACCEPTED,
    State.NOT_ACCEPTED: LetterKind.NOT_ACCEPTED,
    State.SUPPLEMENT: LetterKind.SUPPLEMENT,
    State.EXTENDED: LetterKind.EXTENDED,
    State.GRANTED: LetterKind.GRANTED,
    State.REFUSED: LetterKind.REFUSED,
    State.REVOKED: LetterKind.REVOKED,
    State.WITHDRAWN: LetterKind.WITHDRAWN,
    State.RECOGNISED: LetterKind.RECOGNISED,
}
TABLE_HEAD = ("决定文书号", "认定单位", "认定日期", "类别")


def kind_of(before: State, after: State, by: str) -> LetterKind | None:
    """The letter a change of state leads to; None: to none."""
    # what is reopened is told by the decision on the objection; it had been accepted before
    if before is after or before is State.REFUSED:
        return None
    kind = _KINDS.get(after)
    if kind is LetterKind.WITHDRAWN and by == CLOCK:
        return LetterKind.LAPSED
    return kind


def own_number(kind: LetterKind, review: Review) -> str | None:
    """The number of the decision a letter is; None: it is none."""
    made = review.revocation if kind is LetterKind.REVOKED else review.decision
    return made.number if made and kind in DECISIONS else None


def letter_number(short_name: str, words: str, year: int, serial: int) -> str:
    """Number of a letter that is no decision: 机关简称 + words + 〔year〕 + serial + 号."""
    return f"{short_name}{words}〔{year}〕{serial}号"


def letter_id(item_id: str, kind: LetterKind, number: str | None) -> str:
    """The same for every repetition of a step: of an item, a kind of letter and, of decisions, their number."""
    digest = hashlib.sha256(f"{item_id}\x1f{kind.value}\x1f{number or ''}".encode()).hexdigest()
    return f"let_{digest[:32]}"


def masked(name: str) -> str:
    """A name as anybody may see it who checks a letter: enough for its holder to recognise it. ``杭州***公司``, ``张**``."""
    if len(name) <= 4:
        return name[:1] + "*" * max(1, len(name) - 1)
    return f"{name[:2]}***{name[-2:]}"


def decided_at(kind: LetterKind, review: Review, now: datetime) -> datetime:
    """The time of the step: a letter bears the day of its decision, however late it is written. ``now``: of steps that keep no time."""
    match kind:
        case LetterKind.ACCEPTED if review.accepted_at:
            return review.accepted_at
        case LetterKind.GRANTED | LetterKind.REFUSED if review.decision:
            return review.decision.decided_at
        case LetterKind.REVOKED if review.revocation:
            return review.revocation.decided_at
    return now


def draft(
    kind: LetterKind,
    review: Review,
    subject: Subject,
    text: str | None,
    number: str | None,
    now: datetime,
    catalogue: Catalogue,
    verification: Verification | None = None,
) -> Letter:
    """What a letter says. ``review``: as the step left it; ``now``: the time of the step.

    ``text``: the officer's words, a paragraph for each line; None: what the review keeps of them, else the template's default.
    ``number``: of the letter; a notice of a letter that the department's own system issues has none.
    """
    department = catalogue.department(review.department.code)
    notice = department is not None and is_notice(review, department)
    values = _values(kind, review, subject, number, catalogue)
    note = f"申请编号：{review.application_id}"
    if notice:
        note += f"。{review.department.name}以其自有系统办理该事项，权利义务以其出具的文书为准。"
    written = text or _words(kind, review)
    letter = _compose(kind, review, subject, written, values, now, catalogue, verification)
    if not notice:
        return letter.model_copy(update={"number": number, "note": note})
    template, operator = template_of(kind, review, catalogue, china_date(now)), catalogue.letters.operator
    as_notice = {
        "issuer": operator.name,
        "title": template.notice_title or template.title,
        "contact": operator.contact,
        "note": note,
    }
    return letter.model_copy(update=as_notice)


def _compose(
    kind: LetterKind,
    about: Review | Objection,
    subject: Subject,
    text: str | None,
    values: Mapping[str, str],
    now: datetime,
    catalogue: Catalogue,
    verification: Verification | None,
) -> Letter:
    """The letter of the department itself, without number and note. ``text`` None: the template's default."""
    day = china_date(now)
    department = catalogue.department(about.department.code)
    template = template_of(kind, about, catalogue, day)
    words = text or fill(template.default_text, values)
    return Letter(
        issuer=about.department.name,
        title=template.title,
        number=None,
        addressee=addressee(subject),
        paragraphs=tuple(
            line
            for paragraph in template.paragraphs
            for line in (_lines(words, kind) if paragraph == f"{{{LINES}}}" else [fill(paragraph, values)])
        ),
        table=LetterTable(head=TABLE_HEAD, rows=(_row(about, catalogue),)),
        closing=tuple(fill(paragraph, values) for paragraph in template.closing),
        basis=catalogue.letters.basis(kind, about.record.category, day),
        remedy=catalogue.letters.remedy(template.remedy, day),
        dated=day,
        contact=(department.contact if department else None) or catalogue.letters.operator.contact,
        verification=verification,
        note=None,
    )


def default_text(
    kind: LetterKind, review: Review, subject: Subject, now: datetime, catalogue: Catalogue
) -> str:
    """The words an officer starts from, of this kind of letter."""
    template = template_of(kind, review, catalogue, china_date(now))
    return fill(template.default_text, _values(kind, review, subject, None, catalogue))


def preview(
    review: Review, command: Command, subject: Subject, now: datetime, catalogue: Catalogue
) -> Letter | None:
    """The letter that ``command`` would lead to; None: to none. Raises as ``decide``: a step that is not allowed has no letter."""
    numbered = replace(command, number=command.number or NOT_NUMBERED)
    after = decide(review, numbered, now, catalogue.calendar).review
    kind = kind_of(review.state, after.state, command.by)
    if kind is None:
        return None
    at = decided_at(kind, after, now)
    return draft(kind, after, subject, command.text, numbered.number, at, catalogue)


def is_notice(review: Review, department: Department) -> bool:
    """Whether the department's own system issues the letter, so that ours only tells of it."""
    return department.issues_letters and not review.at_desk


def template_of(
    kind: LetterKind, about: Review | Objection, catalogue: Catalogue, day: date
) -> LetterTemplate:
    """The template of a letter about a review or an objection."""
    return catalogue.letters.template(kind, about.department.slug, about.record.category, day)


def addressee(subject: Subject) -> str:
    """Name and code; of a natural person the code is masked."""
    if subject.subject_type is SubjectType.NATURAL_PERSON:
        return f"{subject.name}（身份证件号码 {mask_id_number(subject.code)}）"
    return f"{subject.name}（统一社会信用代码 {subject.code}）"


def _lines(words: str, kind: LetterKind) -> list[str]:
    lines = [line for each in words.splitlines() if (line := each.strip())]
    if kind is LetterKind.SUPPLEMENT:
        return [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
    return lines


def _words(kind: LetterKind, review: Review) -> str | None:
    match kind:
        case LetterKind.SUPPLEMENT if review.supplement:
            return "\n".join(" ".join(line.split()) for line in review.supplement.missing)
        case LetterKind.NOT_ACCEPTED | LetterKind.EXTENDED:
            return review.note
        case LetterKind.GRANTED | LetterKind.REFUSED if review.decision:
            return review.decision.reason
        case LetterKind.REVOKED if review.revocation:
            return review.revocation.reason
    return None


def _row(about: Review | Objection, catalogue: Catalogue) -> tuple[str, ...]:
    record = about.record
    category = _category(about, catalogue)
    return (record.document_number, record.authority_name, chinese_date(record.decided_on), category)


def _category(about: Review | Objection, catalogue: Catalogue) -> str:
    category = catalogue.category(about.record.category)
    return category.name if category else about.record.category


def chinese_date(day: date) -> str:
    """``2026年11月25日``."""
    return f"{day.year}年{day.month}月{day.day}日"


def _due_day(day: date, count: Count | None) -> str:
    """A last day; one that is provisional says so: nobody is late before it is certain."""
    provisional = "（暂定，当年放假安排公布后另行告知，此前不视为逾期）" if is_provisional(count) else ""
    return chinese_date(day) + provisional


def _values(
    kind: LetterKind, review: Review, subject: Subject, number: str | None, catalogue: Catalogue
) -> dict[str, str]:
    """Every placeholder an item's letter may hold (contracts.letters.PLACEHOLDERS)."""
    decision, supplement = review.decision, review.supplement
    made = number if kind in DECISIONS else decision.number if decision else None
    return {
        **_record_values(review, subject, catalogue),
        "application_id": review.application_id,
        "requested_on": chinese_date(china_date(review.requested_at)),
        "decide_due_on": _due_day(review.decide_due_on, review.decide_count),
        "supplement_due_on": _due_day(supplement.due_on, supplement.count) if supplement else "",
        "decision_number": made or NOT_NUMBERED,
        "granted_number": decision.number if decision else "",
        "granted_on": chinese_date(china_date(decision.decided_at)) if decision else "",
        "platform": (review.note or "").removesuffix("已修复"),
    }


def _record_values(about: Review | Objection, subject: Subject, catalogue: Catalogue) -> dict[str, str]:
    return {
        "subject_name": subject.name,
        "department": about.department.name,
        "document_number": about.record.document_number,
        "authority": about.record.authority_name,
        "decided_on": chinese_date(about.record.decided_on),
        "category": _category(about, catalogue),
    }


# --- objections

_OF_OBJECTION = {
    ObjectionState.ACCEPTED: LetterKind.OBJECTION_ACCEPTED,
    ObjectionState.NOT_ACCEPTED: LetterKind.OBJECTION_NOT_ACCEPTED,
    ObjectionState.UPHELD: LetterKind.OBJECTION_UPHELD,
    ObjectionState.DISMISSED: LetterKind.OBJECTION_DISMISSED,
}
REMEDY_TEXT = {
    ObjectionRemedy.CORRECTED: "更正该记录",
    ObjectionRemedy.WITHDRAWN: "撤回该记录",
    ObjectionRemedy.REOPENED: "原结果不再有效，重新办理",
    ObjectionRemedy.RESTORED: "恢复原准予的修复",
}


def objection_kind(before: ObjectionState, after: ObjectionState) -> LetterKind | None:
    """The letter a change of an objection's state leads to; None: to none."""
    return None if before is after else _OF_OBJECTION.get(after)


def draft_objection(
    kind: LetterKind,
    objection: Objection,
    subject: Subject,
    text: str | None,
    number: str | None,
    now: datetime,
    catalogue: Catalogue,
    verification: Verification | None = None,
) -> Letter:
    """What a letter about an objection says. ``objection``: as the step left it; ``text``: as of ``draft``."""
    values = _objection_values(objection, subject, catalogue)
    letter = _compose(
        kind, objection, subject, text or objection.reason, values, now, catalogue, verification
    )
    return letter.model_copy(update={"number": number, "note": f"异议编号：{objection.objection_id}"})


def objection_text(
    kind: LetterKind, objection: Objection, subject: Subject, now: datetime, catalogue: Catalogue
) -> str:
    """The words an officer starts from."""
    template = template_of(kind, objection, catalogue, china_date(now))
    return fill(template.default_text, _objection_values(objection, subject, catalogue))


def preview_objection(
    objection: Objection,
    ruling: Ruling,
    text: str | None,
    subject: Subject,
    now: datetime,
    catalogue: Catalogue,
) -> Letter | None:
    """The letter that a ruling would lead to; None: to none. Raises as ``rule_on``."""
    after, _ = rule_on(objection, ruling, now)
    kind = objection_kind(objection.state, after.state)
    if kind is None:
        return None
    return draft_objection(kind, after, subject, text, NOT_NUMBERED, now, catalogue)


def _objection_values(objection: Objection, subject: Subject, catalogue: Catalogue) -> dict[str, str]:
    """Every placeholder a letter about an objection may hold (contracts.letters.PLACEHOLDERS)."""
    of_result = objection.kind is ObjectionKind.RESULT
    about = f"就下列记录的信用修复结果（申请编号{objection.application_id}）" if of_result else "就下列记录"
    return {
        **_record_values(objection, subject, catalogue),
        "objection_id": objection.objection_id,
        "received_on": chinese_date(china_date(objection.received_at)),
        "about": about,
        "decide_due_on": _due_day(objection.decide_due_on, objection.decide_count),
        "remedy": REMEDY_TEXT[objection.remedy] if objection.remedy else "",
    }
