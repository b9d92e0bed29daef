"""What is shown of a record on its own account: withdrawn, published again, shielded; told once for each change, in order."""

import itertools
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import load_catalogue
from contracts.events import (
    PublicationChange,
    RecordPublished,
    RecordRepairedElsewhere,
    RecordShielded,
    RecordWithdrawn,
    ShieldEnded,
    ShieldOutcome,
)
from contracts.http.eligibility import RepairStatus
from contracts.records import DisplayState, RecordFacts, SubjectType
from intake.domain.record import (
    Record,
    begin_shield,
    end_shield,
    publication,
    publication_changed,
    publish,
    repaired_elsewhere,
    withdraw,
)
from intake.eligibility import assess

START = datetime(2026, 5, 1, tzinfo=UTC)
FACTS = RecordFacts(
    record_id="rec_" + "1" * 32,
    subject_id="sub_" + "2" * 32,
    subject_type=SubjectType.LEGAL_PERSON,
    category="administrative_penalty",
    document_number="杭教罚〔2026〕1号",
    authority_name="杭州市教育局",
    authority_code=None,
    decided_on=date(2026, 4, 20),
    penalty_kinds="罚款",
    tier="general",
)
RECORD = Record(record_id=FACTS.record_id, subject_id=FACTS.subject_id, facts=FACTS, published_at=START)
RULING = {"court": "杭州中院", "ruled_on": date(2026, 5, 2)}
Told = RecordPublished | RecordWithdrawn | RecordRepairedElsewhere | RecordShielded | ShieldEnded


def told(kind: str, minutes: int) -> Told:
    """What a source says so many minutes later; the ruling is named after the minute."""
    at, record_id, number = START + timedelta(minutes=minutes), FACTS.record_id, f"破{minutes}号"
    match kind:
        case "publish":
            return RecordPublished(record_id=record_id, record=FACTS, published_at=at)
        case "correct":
            other = FACTS.model_copy(update={"penalty_kinds": f"警告{minutes}"})
            return RecordPublished(record_id=record_id, record=other, published_at=at)
        case "withdraw":
            return RecordWithdrawn(record_id=record_id, reason="复议撤销", withdrawn_at=at)
        case "elsewhere":
            about = {"platform_id": "gsxt", "platform_name": "公示系统", "decision_number": number}
            return RecordRepairedElsewhere(record_id=record_id, repaired_at=at, **about)
        case "shield":
            return RecordShielded(record_id=record_id, ruling_number=number, shielded_at=at, **RULING)
    outcome = ShieldOutcome(kind)
    return ShieldEnded(record_id=record_id, outcome=outcome, ruling_number=number, ended_at=at, **RULING)


def after(record: Record, event: Told) -> Record:
    match event:
        case RecordPublished():
            return publish(record, event)
        case RecordWithdrawn():
            return withdraw(record, event)
        case RecordRepairedElsewhere():
            return repaired_elsewhere(record, event)
        case RecordShielded():
            return begin_shield(record, event)
    return end_shield(record, event)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["publish", "correct", "withdraw", "shield", "performed", "failed", "elsewhere"]),
            st.integers(1, 9),
        )
    )
)
def test_each_change_is_told_once_and_the_last_one_is_what_the_record_says(
    said: list[tuple[str, int]],
) -> None:
    """In any order, late ones and repetitions among them."""
    record, heard = RECORD, []
    for kind, minutes in said:
        for _ in range(2):
            record, event = publication_changed(record, after(record, told(kind, minutes)), START)
            heard += [event] if event else []
    assert [event.revision for event in heard] == list(range(1, len(heard) + 1))
    assert all(
        one.state is not two.state or one.number != two.number or one.content != two.content
        for one, two in itertools.pairwise(heard)
    )
    state, change, number = publication(record)
    if heard:
        assert heard[-1].state is state
        if heard[-1].change is not PublicationChange.CORRECTED:
            assert (heard[-1].change, heard[-1].number) == (change, number)
    if state is DisplayState.PUBLISHED:
        # what is to be read is what was heard last, or what it said from the beginning
        content = heard[-1].content if heard else None
        assert (content or RECORD.facts.content) == record.facts.content
    assert (state is DisplayState.SHIELDED) == (
        record.status == "published"
        and record.shield is not None
        and record.shield.is_on
        and record.repaired_at is None
    )
    if record.repaired_at is not None and record.shield is not None:
        assert state is DisplayState.PUBLICATION_ENDED, (
            "a plan that fails brings back nothing that is repaired"
        )


def test_what_goes_by_no_system_is_not_corrected_and_what_is_not_shown_is_told_once_it_is() -> None:
    reduced = RECORD.facts.reduced().model_copy(update={"decided_on": date(2026, 4, 1)})
    by_hand = RecordPublished(
        record_id=FACTS.record_id, record=reduced, published_at=START + timedelta(minutes=1)
    )
    record, event = publication_changed(RECORD, after(RECORD, by_hand), START)
    assert (event, record.corrected) == (None, False)
    # nor is what was corrected before, and goes by no system from now on
    corrected, event = publication_changed(RECORD, after(RECORD, told("correct", 1)), START)
    assert event is not None
    later = by_hand.model_copy(update={"published_at": START + timedelta(minutes=2)})
    handed, event = publication_changed(corrected, after(corrected, later), START)
    assert event is None
    _, event = publication_changed(handed, after(handed, told("withdraw", 3)), START)
    assert event is not None
    assert event.content is None
    shielded, _ = publication_changed(RECORD, after(RECORD, told("shield", 1)), START)
    corrected, event = publication_changed(shielded, after(shielded, told("correct", 2)), START)
    assert (event, corrected.corrected) == (None, True)
    _, event = publication_changed(corrected, after(corrected, told("failed", 3)), START)
    assert event is not None
    assert (event.change, event.content) == (PublicationChange.PLAN_FAILED, corrected.facts.content)


def test_a_shield_waives_the_minimum_period_as_advice_and_its_end_repairs() -> None:
    catalogue, day = load_catalogue(), date(2026, 5, 10)
    assert assess(RECORD, catalogue, day).status is RepairStatus.NOT_YET
    shielded = after(RECORD, told("shield", 1))
    found = assess(shielded, catalogue, day)
    assert (found.status, found.rule, found.from_) == (RepairStatus.ADVISED, "18", None)
    assert not (found.evidence and found.evidence.binding), "weak evidence: a person decides"
    assert "裁定书终止公示" in found.advice
    # before the rule was in force nothing is waived
    assert assess(shielded, catalogue, date(2026, 3, 31)).rule != "18"
    assert assess(after(shielded, told("failed", 2)), catalogue, day).status is RepairStatus.NOT_YET
    performed = after(shielded, told("performed", 2))
    assert (performed.repaired_by, assess(performed, catalogue, day).status) == (
        "杭州中院",
        RepairStatus.REPAIRED,
    )
    assert after(performed, told("shield", 3)) is performed, "what is repaired needs no shield"
    withdrawn = after(shielded, told("withdraw", 3))
    again, event = publication_changed(withdrawn, after(withdrawn, told("publish", 4)), START)
    assert event is not None
    assert event.change is PublicationChange.SHIELDED, "published again while the plan still runs"
    assert again.shield is not None
