"""Pure: the 信用信息修复承诺书, made from the application. What an applicant confirms is its hash: of today, for these very records.

36号令 asks for a public commitment: the materials are true, and its maker bears the consequences (evidence S). The words are a row
of ``catalogue/letters.yaml``.
"""

from collections.abc import Sequence
from datetime import date

from chassis.letter import Letter, LetterTable
from contracts.catalogue import Catalogue
from contracts.http.intake import Subject
from contracts.identifiers import mask_id_number
from contracts.letters import LetterKind, fill
from contracts.records import SubjectType
from intake.domain.record import Record
from intake.guide import day_text

_HEAD = ("决定文书号", "认定单位", "认定日期", "类别")


def commitment(subject: Subject, records: Sequence[Record], catalogue: Catalogue, on: date) -> Letter:
    """What ``subject`` promises on that day (in China) for these records; their order does not matter."""
    letters = catalogue.letters
    facts = [record.facts for record in sorted(records, key=lambda record: record.record_id)]
    # one commitment for the whole application: of the general template, whatever the categories
    template = letters.template(LetterKind.COMMITMENT, None, "", on)
    code = subject.code
    values = {
        "subject_name": subject.name,
        "count": str(len(facts)),
        "operator": letters.operator.name,
    }
    person = subject.subject_type is SubjectType.NATURAL_PERSON
    known = {each: found.name for each in {f.category for f in facts} if (found := catalogue.category(each))}
    authorities = dict.fromkeys(each.authority_name for each in facts)
    return Letter(
        issuer=subject.name,
        letterhead=False,
        title=template.title,
        addressee="、".join([letters.operator.name, *authorities]),
        paragraphs=tuple(fill(each, values) for each in template.paragraphs),
        table=LetterTable(
            head=_HEAD,
            rows=tuple(
                (
                    each.document_number,
                    each.authority_name,
                    day_text(each.decided_on),
                    known.get(each.category, each.category),
                )
                for each in facts
            ),
        ),
        closing=tuple(fill(each, values) for each in template.closing),
        basis=letters.basis(LetterKind.COMMITMENT, "", on),
        dated=on,
        note=f"承诺人：{subject.name}，"
        + (f"身份证件号码 {mask_id_number(code)}" if person else f"统一社会信用代码 {code}"),
    )
