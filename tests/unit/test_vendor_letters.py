"""Letters to vendors: once per step of a finding, when the working days are over, without anything personal."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from unit.test_certificate import ID_NUMBER, RECORD, SUBJECT

from contracts.catalogue import load_catalogue
from contracts.clock import china_date
from contracts.http.intake import Subject
from contracts.records import DisplayState, SubjectType
from contracts.working_days import LIBRARY_CALENDAR
from sync.domain import Delivery
from sync.vendor_letters import (
    Answer,
    LetterPolicy,
    LetterState,
    LetterStep,
    Sighting,
    VendorLetter,
    answer_by,
    compose,
    ended,
    finding_id,
    letter_id,
    next_step,
)

POLICY = LetterPolicy("杭州平台", "0571-1", "信复函", 5, 5)
VENDOR = next(t for t in load_catalogue().targets if t.id == "qichacha")
SINCE = datetime(2026, 9, 1, 2, tzinfo=UTC)
GRANTED = replace(RECORD, decided_at=SINCE - timedelta(days=3))
DELIVERY = Delivery(VENDOR.id, RECORD.record_id, RECORD.version, SINCE, None, {})
SEEN = Sighting(DisplayState.PUBLISHED, SINCE, "sha256:" + "a" * 64)


def letter(step: LetterStep, state: LetterState, released: datetime | None = None) -> VendorLetter:
    finding = finding_id(DELIVERY, GRANTED)
    return VendorLetter(
        letter_id(finding, step),
        finding,
        step,
        state,
        VENDOR.id,
        RECORD.record_id,
        RECORD.version,
        RECORD.application_id or "",
        RECORD.item_id or "",
        SUBJECT,
        SINCE,
        SEEN,
        Sighting(None, SINCE, "sha256:" + "b" * 64),
        SINCE,
        number=f"信复函〔2026〕{step.value}号" if released else None,
        released_at=released,
    )


def test_the_first_letter_waits_for_the_working_days_of_the_catalogue() -> None:
    due = LIBRARY_CALENDAR.working_days_after(china_date(SINCE), VENDOR.time_limit_working_days).on
    assert next_step(DELIVERY, GRANTED, VENDOR, {}, POLICY, due) is None
    assert next_step(DELIVERY, GRANTED, VENDOR, {}, POLICY, due + timedelta(days=1)) is LetterStep.FIRST
    # the clock of a newer decision starts with it, though the vendor differed before
    newer = replace(GRANTED, decided_at=SINCE + timedelta(days=20))
    assert next_step(DELIVERY, newer, VENDOR, {}, POLICY, due + timedelta(days=1)) is None
    # nor is it written to before those have acknowledged that it has to agree with
    held = replace(DELIVERY, waits_for=("credit-china",))
    assert next_step(held, GRANTED, VENDOR, {}, POLICY, due + timedelta(days=1)) is None
    published = replace(GRANTED, state=DisplayState.PUBLISHED)
    assert next_step(DELIVERY, published, VENDOR, {}, POLICY, date(2027, 1, 1)) is None


@given(st.lists(st.sampled_from(["look", "release", "discard", "answer"]), max_size=60), st.data())
def test_whatever_a_person_does_each_step_of_a_finding_is_written_once(
    acts: list[str], data: st.DataObject
) -> None:
    letters: dict[LetterStep, VendorLetter] = {}
    now = SINCE
    for act in acts:
        now += timedelta(days=data.draw(st.integers(0, 6)))
        draft = next((each for each in letters.values() if each.state is LetterState.DRAFT), None)
        if act == "look":
            step = next_step(DELIVERY, GRANTED, VENDOR, letters, POLICY, china_date(now))
            if step is not None:
                assert step not in letters
                assert all(each.state is LetterState.RELEASED for each in letters.values())
                letters[step] = replace(letter(step, LetterState.DRAFT), drafted_at=now)
        elif draft is not None and act == "release":
            letters[draft.step] = replace(draft, state=LetterState.RELEASED, released_at=now)
        elif draft is not None and act == "discard":
            letters[draft.step] = replace(draft, state=LetterState.DISCARDED)
        elif letters and act == "answer":
            last = letters[max(letters)]
            letters[last.step] = replace(last, answer=Answer("已转", china_date(now), "甲", now))
    assert list(letters) == sorted(letters)
    for step in list(letters)[1:]:
        before = letters[LetterStep(step - 1)]
        assert before.released_at is not None
        assert china_date(letters[step].drafted_at) > answer_by(
            before.step, POLICY, china_date(before.released_at)
        )


def test_a_later_drift_is_another_finding_and_being_right_ends_one() -> None:
    first = letter(LetterStep.FIRST, LetterState.RELEASED, SINCE)
    assert not ended(first, DELIVERY, GRANTED)
    assert ended(first, replace(DELIVERY, differs_since=None), GRANTED)
    again = replace(DELIVERY, differs_since=SINCE + timedelta(days=9))
    assert ended(first, again, GRANTED)
    assert finding_id(again, GRANTED) != first.finding
    assert ended(first, DELIVERY, replace(GRANTED, version=3))


def test_letters_ask_with_evidence_and_name_no_personal_id() -> None:
    assert VENDOR.letters is not None
    for kind in SubjectType:
        subject = Subject(
            subject_id=SUBJECT,
            subject_type=kind,
            code=ID_NUMBER if kind is SubjectType.NATURAL_PERSON else "91330100MA27XF1Q0T",
            name="杭州示例科技有限公司",
        )
        before = {
            step: letter(step, LetterState.RELEASED, SINCE) for step in (LetterStep.FIRST, LetterStep.SECOND)
        }
        for step in LetterStep:
            own = letter(step, LetterState.DRAFT)
            made = compose(
                own, GRANTED, VENDOR, VENDOR.letters, subject, "信用中国", before, POLICY, date(2026, 10, 1)
            )
            text = made.model_dump_json()
            assert ID_NUMBER not in text
            assert not [word for word in ("责令", "处罚你", "追究", "法律责任", "起诉") if word in text]
            assert GRANTED.decision_number in text
            assert GRANTED.facts.document_number in text
            assert "a" * 16 in text
            assert "信用中国" in text
            assert bool(made.copies_to) is (step is LetterStep.SECOND)
