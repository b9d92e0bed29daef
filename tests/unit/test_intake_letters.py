"""What intake writes: the applicant's commitment, and the repair notice of a record; each the same whenever it is made."""

import asyncio
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.review_samples import RECORD
from unit.test_letters import CATALOGUE, PRESS, SUBJECT, empty_boxes

from chassis.letter import as_html
from contracts.catalogue import Department, Evidence
from contracts.http.eligibility import Transition
from contracts.records import SubjectType
from intake.commitment import commitment
from intake.domain.record import Record
from intake.notice import repair_notice

PUBLISHED = datetime(2026, 5, 6, 17, tzinfo=UTC)  # in China the 7th
ADVICE = "此项供参考"


def record(**facts: Any) -> Record:
    own = RECORD.model_copy(update={"subject_id": SUBJECT.subject_id, **facts})
    return Record(record_id=own.record_id, subject_id=own.subject_id, facts=own, published_at=PUBLISHED)


def test_every_record_of_every_department_has_a_notice_that_can_be_printed() -> None:
    printed: set[tuple[str, ...]] = set()
    for category in CATALOGUE.categories:
        deciding = [d for d in CATALOGUE.departments if category.id in d.categories]
        authorities: list[Department | None] = [*deciding] or [None]
        for department in authorities:
            for tier in ("minor", "general", "serious", None):
                name = department.name if department else "某人民法院"
                given_ = record(category=category.id, authority_name=name, tier=tier)
                letter = repair_notice(given_, SUBJECT, CATALOGUE, Transition.EITHER)
                assert letter == repair_notice(given_, SUBJECT, CATALOGUE, Transition.EITHER)
                assert (letter.issuer, letter.dated) == (name, date(2026, 5, 7))
                assert not any("{" in paragraph for paragraph in letter.paragraphs)
                said = letter.paragraphs[2:]
                if said not in printed and len(printed) < 24:
                    printed.add(said)
                    assert empty_boxes(asyncio.run(PRESS.print(letter))) == 0


def test_a_notice_tells_the_rule_of_the_day_of_publication_and_marks_what_is_weak() -> None:
    penalty = record(
        category="administrative_penalty", tier="general", penalty_kinds="罚款", authority_name="杭州市教育局"
    )
    new = repair_notice(penalty, SUBJECT, CATALOGUE, Transition.EITHER)
    assert "自2026年4月5日起可以申请" in new.paragraphs[3]
    assert "满12个月（2027年1月5日）" in new.paragraphs[2]
    old = penalty.model_copy(update={"published_at": datetime(2026, 3, 30, tzinfo=UTC)})
    assert "满36个月" in repair_notice(old, SUBJECT, CATALOGUE, Transition.EITHER).paragraphs[2]
    rule = CATALOGUE.rule_for("administrative_penalty", "general", None, date(2026, 5, 7))
    assert rule is not None
    assert rule.grade("decide_working_days") is Evidence.MEMORY
    assert ADVICE in new.paragraphs[6]
    assert ADVICE not in new.paragraphs[3]
    # a tier that is only guessed binds nobody
    guessed = record(category="administrative_penalty", tier="minor", penalty_kinds="责令改正")
    assert ADVICE in repair_notice(guessed, SUBJECT, CATALOGUE, Transition.EITHER).paragraphs[2]
    court = repair_notice(record(category="judgment_defaulter"), SUBJECT, CATALOGUE, Transition.EITHER)
    assert "执行法院" in court.paragraphs[4]


NAMES = st.text(min_size=1, max_size=40) | st.sampled_from(["{count}", '#import "x"', "<b>公司</b>", "𬱖某"])


@settings(max_examples=8)
@given(name=NAMES, number=NAMES)
def test_whatever_names_hold_the_commitment_says_it(name: str, number: str) -> None:
    subject = SUBJECT.model_copy(update={"name": name})
    letter = commitment(subject, [record(document_number=number)], CATALOGUE, date(2026, 11, 25))
    assert name in letter.paragraphs[0]
    assert letter.table is not None
    assert letter.table.rows[0][0] == number
    assert "<b>" not in as_html(letter)
    assert asyncio.run(PRESS.print(letter)).startswith(b"%PDF")


def test_a_commitment_is_of_its_records_its_subject_and_its_day() -> None:
    one, two = record(), record(record_id="rec_" + "9" * 32, document_number="杭市监罚〔2026〕2号")
    day = date(2026, 11, 25)

    def digest(subject: Any = SUBJECT, records: Any = (one, two), on: date = day) -> str:
        return commitment(subject, records, CATALOGUE, on).content_hash

    assert digest() == digest(records=(two, one))
    person = SUBJECT.model_copy(
        update={"subject_type": SubjectType.NATURAL_PERSON, "code": "330102199001011234"}
    )
    others = [digest(records=(one,)), digest(on=date(2026, 11, 26)), digest(subject=person)]
    assert len({digest(), *others}) == 4
    assert "19900101" not in commitment(person, [one], CATALOGUE, day).model_dump_json()
