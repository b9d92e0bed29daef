"""Letters to vendors: once per step of a finding, when the working days are over, without anything personal."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from unit.target_samples import KEY
from unit.test_certificate import ID_NUMBER, RECORD, SUBJECT

from contracts.catalogue import LetterOffice, load_catalogue
from contracts.clock import china_date
from contracts.events import LetterChannel, PublicationChange
from contracts.http.intake import Subject
from contracts.http.target import RecordView
from contracts.records import DisplayState, RecordContent, SubjectType
from contracts.working_days import LIBRARY_CALENDAR
from sync.desired import Ruling
from sync.domain import Delivery
from sync.vendor_letters import (
    Answer,
    Dispatch,
    LetterPolicy,
    LetterState,
    LetterStep,
    Sighting,
    VendorLetter,
    again_at,
    answer_by,
    compose,
    dispatches,
    ended,
    finding_id,
    letter_id,
    next_step,
    still_wrong,
)

POLICY = LetterPolicy("杭州平台", "0571-1", "信复函", 5, 5)
TARGETS = {target.id: target for target in load_catalogue().targets}
VENDOR, PAPER = TARGETS["qichacha"], TARGETS["shili-zhengxin"]
OFFICE = LetterOffice(office="甲", email="a@b.example", supervisor="乙", supervisor_email="c@d.example")
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
        dispatch=Dispatch(LetterChannel.EMAIL, sent_at=released) if released else None,
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


@given(st.lists(st.sampled_from(["look", "release", "send", "discard", "answer"]), max_size=60), st.data())
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
            dispatch, _ = dispatches(draft.step, OFFICE)
            letters[draft.step] = replace(
                draft, state=LetterState.RELEASED, released_at=now, dispatch=dispatch
            )
        elif letters and act == "send":
            last = letters[max(letters)]
            if last.dispatch is not None:
                letters[last.step] = replace(last, dispatch=replace(last.dispatch, sent_at=now))
        elif draft is not None and act == "discard":
            letters[draft.step] = replace(draft, state=LetterState.DISCARDED)
        elif letters and act == "answer":
            last = letters[max(letters)]
            letters[last.step] = replace(last, answer=Answer("已转", china_date(now), "甲", now))
    assert list(letters) == sorted(letters)
    for step in list(letters)[1:]:
        before = letters[LetterStep(step - 1)]
        assert before.dispatch is not None
        assert before.dispatch.sent_at is not None, "a letter that has not left is not followed by another"
        assert china_date(letters[step].drafted_at) > answer_by(
            before.step, POLICY, china_date(before.dispatch.sent_at)
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


def test_one_that_is_told_by_letter_is_told_at_once_and_once_more_and_nothing_is_claimed_of_what_it_shows() -> (
    None
):
    today = china_date(SINCE)
    revoked = replace(GRANTED, state=DisplayState.PUBLISHED)
    for record in (GRANTED, revoked):
        assert next_step(DELIVERY, record, PAPER, {}, POLICY, today) is LetterStep.FIRST
    first = replace(letter(LetterStep.FIRST, LetterState.RELEASED, SINCE), seen=None, official=None)
    unsent = replace(first, dispatch=Dispatch(LetterChannel.DOWNLOAD, problem="拒收"))
    later = today + timedelta(days=60)
    assert next_step(DELIVERY, GRANTED, PAPER, {LetterStep.FIRST: unsent}, POLICY, later) is None
    assert again_at(unsent, POLICY) is None
    assert next_step(DELIVERY, GRANTED, PAPER, {LetterStep.FIRST: first}, POLICY, later) is LetterStep.SECOND
    when = again_at(first, POLICY)
    assert when is not None
    day = china_date(when)
    assert next_step(DELIVERY, GRANTED, PAPER, {LetterStep.FIRST: first}, POLICY, day) is LetterStep.SECOND
    before = day - timedelta(days=1)
    assert next_step(DELIVERY, GRANTED, PAPER, {LetterStep.FIRST: first}, POLICY, before) is None
    second = replace(first, step=LetterStep.SECOND)
    both = {LetterStep.FIRST: first, LetterStep.SECOND: second}
    assert next_step(DELIVERY, GRANTED, PAPER, both, POLICY, later) is None, "no report without evidence"
    assert PAPER.letters is not None
    subject = Subject(
        subject_id=SUBJECT, subject_type=SubjectType.LEGAL_PERSON, code="91330100MA27XF1Q0T", name="某公司"
    )
    for record, words in ((GRANTED, "停止展示"), (revoked, "恢复展示")):
        for step in (first, second):
            made = compose(
                step, record, PAPER, PAPER.letters, subject, "信用中国", both, POLICY, date(2026, 10, 1)
            )
            text = made.model_dump_json()
            assert words in text
            assert "仍" not in text
            assert made.table is None
            assert bool(made.copies_to) is (step is second)


def test_what_becomes_of_a_record_on_its_own_account_is_told_by_letter_alone_and_names_no_decision_on_a_repair() -> (
    None
):
    assert PAPER.letters is not None
    subject = Subject(
        subject_id=SUBJECT, subject_type=SubjectType.LEGAL_PERSON, code="91330100MA27XF1Q0T", name="某公司"
    )
    asked = {
        DisplayState.SHIELDED: "暂停展示该记录",
        DisplayState.PUBLISHED: "恢复展示该记录",
        DisplayState.PUBLICATION_ENDED: "停止展示该记录",
    }
    told = replace(
        letter(LetterStep.FIRST, LetterState.DRAFT),
        seen=None,
        official=None,
        application_id=None,
        item_id=None,
    )
    own = replace(GRANTED, application_id=None, item_id=None, decision_number="（2026）浙01破1号")
    texts = set()
    for change in PublicationChange:
        for state, words in asked.items():
            content = RecordContent(decided_on=date(2026, 2, 3), penalty_kinds="警告")
            word = Ruling(state, SINCE, own.decision_number, revision=1, change=change, content=content)
            record = replace(own, state=state, word=word)
            assert next_step(DELIVERY, record, PAPER, {}, POLICY, china_date(SINCE)) is LetterStep.FIRST
            assert next_step(DELIVERY, record, VENDOR, {}, POLICY, date(2027, 1, 1)) is None
            made = compose(told, record, PAPER, PAPER.letters, subject, None, {}, POLICY, date(2026, 10, 1))
            corrected = change is PublicationChange.CORRECTED and state is DisplayState.PUBLISHED
            assert ("照更正后的内容展示该记录" if corrected else words) in made.closing[0]
            assert "修复决定" not in made.model_dump_json()
            assert own.decision_number in made.paragraphs[0]
            assert "2026年2月3日" in made.paragraphs[0]
            assert ("处罚类别“警告”" in made.paragraphs[1]) == (state is DisplayState.PUBLISHED)
            assert "公示变动" in made.title
            texts.add(made.paragraphs[0])
    assert len(texts) == len(PublicationChange), "each says what happened"
    expired = replace(own, state=DisplayState.PUBLICATION_ENDED, expired=True)
    made = compose(told, expired, PAPER, PAPER.letters, subject, None, {}, POLICY, date(2026, 10, 1))
    assert "公示期已届满" in made.paragraphs[0]


def test_a_vendor_that_shows_a_record_as_it_was_before_its_correction_is_written_to_and_asked_for_that_alone() -> (
    None
):
    said = RecordContent(decided_on=date(2026, 2, 3), penalty_kinds="")
    word = Ruling(
        DisplayState.PUBLISHED,
        SINCE,
        "来源更正",
        revision=1,
        change=PublicationChange.CORRECTED,
        content=said,
    )
    record = replace(
        GRANTED, state=DisplayState.PUBLISHED, application_id=None, item_id=None, decided_at=SINCE, word=word
    )
    differs, later = replace(DELIVERY, seen_outdated=True), date(2027, 1, 1)
    assert next_step(differs, record, VENDOR, {}, POLICY, later) is LetterStep.FIRST
    assert next_step(DELIVERY, record, VENDOR, {}, POLICY, later) is None, "it was not seen"
    withdrawn = replace(record, state=DisplayState.PUBLICATION_ENDED)
    assert next_step(differs, withdrawn, VENDOR, {}, POLICY, later) is None, (
        "what was seen before is no word on it"
    )
    old = RecordView(record=KEY, state=DisplayState.PUBLISHED, content=RECORD.facts.content)
    for view, state in (
        (old, DisplayState.PUBLISHED),
        (RecordView(record=KEY, state=DisplayState.PUBLISHED, content=said), DisplayState.PUBLICATION_ENDED),
    ):
        assert still_wrong(view, replace(record, state=state))
    for view in (RecordView(record=KEY, state=None), old.model_copy(update={"content": said})):
        assert not still_wrong(view, record)
    subject = Subject(
        subject_id=SUBJECT, subject_type=SubjectType.LEGAL_PERSON, code="91330100MA27XF1Q0T", name="某公司"
    )
    first = replace(
        letter(LetterStep.FIRST, LetterState.DRAFT),
        seen=replace(SEEN, outdated=True),
        official=replace(SEEN, evidence="sha256:" + "b" * 64),
        item_id=None,
    )
    made = compose(first, record, VENDOR, OFFICE, subject, "信用中国", {}, POLICY, date(2026, 10, 1))
    assert made.title == "关于商请更正失信记录展示内容的函"
    assert "照更正后的内容展示该记录" in made.closing[0]
    assert made.table is not None
    assert [row[2] for row in made.table.rows] == ["更正后的内容", "更正前的内容"]
    text = made.model_dump_json()
    assert "认定日期2026年2月3日，处罚类别“无”" in text
    assert not any(word in text for word in ("已修复", "修复结果", "停止展示", "仍在公示"))


def test_a_second_letter_is_copied_to_its_supervisor_and_a_report_goes_to_nobody() -> None:
    mailed, by_hand = Dispatch(LetterChannel.EMAIL), Dispatch(LetterChannel.DOWNLOAD)
    assert dispatches(LetterStep.FIRST, OFFICE) == (mailed, None)
    assert dispatches(LetterStep.SECOND, OFFICE) == (mailed, mailed)
    assert dispatches(LetterStep.REPORT, OFFICE) == (None, None)
    unknown = OFFICE.model_copy(update={"email": None, "supervisor_email": None})
    assert dispatches(LetterStep.SECOND, unknown) == (by_hand, by_hand)
    assert dispatches(LetterStep.SECOND, LetterOffice(office="甲")) == (by_hand, None)
