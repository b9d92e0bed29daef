"""Intake's decisions: pseudonyms, eligibility, the state of an item under every interleaving, phone numbers."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from unit.record_samples import CATALOGUE, DEPARTMENT, NOW, SUBJECT, TODAY, facts, record

from contracts.catalogue import Catalogue, Rule, add_months
from contracts.events import (
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemRouted,
    PropagationCompleted,
    RecordPublished,
    RecordWithdrawn,
    ReferralReason,
    RepairGranted,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
)
from contracts.http.eligibility import Repair, RepairStatus
from contracts.http.intake import Contact
from contracts.records import DisplayState, SubjectType
from intake import texts
from intake.contact import normalise_phone
from intake.domain.application import Application, completed
from intake.domain.item import Item, ItemStatus, TargetState, apply
from intake.domain.record import publish, withdraw
from intake.domain.subject import subject_id
from intake.eligibility import assess
from intake.submission import NewApplication

APPLICATION = "app_" + "a" * 32


# --- pseudonyms ------------------------------------------------------------------------------------------


def test_a_pseudonym_depends_on_key_type_and_code() -> None:
    key = b"k" * 32
    code = "91330100MA27XF0000"
    one = subject_id(key, SubjectType.LEGAL_PERSON, code)
    # HMAC-SHA256 with that key over "legal_person:91330100MA27XF0000", computed with openssl
    assert one == "sub_f4a9d96f5abd18280f0a7c685ad7ea61"
    assert one != subject_id(b"l" * 32, SubjectType.LEGAL_PERSON, code)
    assert one != subject_id(key, SubjectType.SOLE_TRADER, code)


# --- eligibility -----------------------------------------------------------------------------------------


def at(day: date, catalogue: Catalogue = CATALOGUE, **changes: Any) -> Repair:
    return assess(record(**changes), catalogue, day)


@pytest.mark.parametrize(
    ("decided_on", "first_day"),
    [
        (date(2026, 8, 31), date(2026, 11, 30)),
        (date(2026, 11, 30), date(2027, 2, 28)),  # clamped to the end of February
        (date(2027, 11, 30), date(2028, 2, 29)),
    ],
)
def test_the_minimum_ends_after_calendar_months(decided_on: date, first_day: date) -> None:
    before, then = (at(first_day - timedelta(days=n), decided_on=decided_on) for n in (1, 0))
    assert (before.status, before.from_, before.rule) == (RepairStatus.NOT_YET, first_day, "2")
    assert (then.status, then.from_) == (RepairStatus.REPAIRABLE, first_day)
    assert first_day.isoformat() in before.advice


def test_publication_ends_by_itself_on_the_day_of_the_maximum() -> None:
    last = date(2027, 8, 31)
    before, then = (at(last - timedelta(days=n)) for n in (1, 0))
    assert (before.status, before.until) == (RepairStatus.REPAIRABLE, last)
    assert (then.status, then.until) == (RepairStatus.ENDED, last)


@pytest.mark.parametrize("grade", ["V", "C", "S"])
@pytest.mark.parametrize("field", ["min_publication_months", "max_publication_months"])
def test_binding_evidence_refuses(field: str, grade: str) -> None:
    day = TODAY if field.startswith("min") else date(2028, 1, 1)
    assert not at(day, _graded(field, grade)).status.may_apply


@pytest.mark.parametrize("grade", ["F", "X", "D", "M"])
@pytest.mark.parametrize("field", ["min_publication_months", "max_publication_months"])
def test_weak_evidence_only_advises(field: str, grade: str) -> None:
    day = TODAY if field.startswith("min") else date(2028, 1, 1)
    repair = at(day, _graded(field, grade))
    assert (repair.status, repair.evidence) == (RepairStatus.ADVISED, grade)
    assert "由认定单位决定" in repair.advice


def _graded(field: str, grade: str) -> Catalogue:
    """The shipped catalogue with another grade for one cell of rule 2."""

    def graded(rule: Rule) -> Rule:
        if rule.number != "2":
            return rule
        return rule.model_copy(update={"evidence_of": {**rule.evidence_of, field: _evidence(grade)}})

    return CATALOGUE.model_copy(update={"rules": tuple(map(graded, CATALOGUE.rules))})


def _evidence(grade: str) -> Any:
    return type(CATALOGUE.rules[0].evidence)(grade)


def test_a_tier_read_from_words_that_are_only_a_guess_refuses_nobody() -> None:
    # 巨额罚款 is grade F, 吊销许可证 grade S; both are 严重: 12 months
    assert at(TODAY, tier="serious", penalty_kinds="巨额罚款").status is RepairStatus.ADVISED
    assert at(TODAY, tier="serious", penalty_kinds="吊销许可证").status is RepairStatus.NOT_YET


def test_an_unknown_tier_or_category_is_for_a_person() -> None:
    assert at(TODAY, tier=None, penalty_kinds="行业惩戒").status is RepairStatus.ADVISED
    assert at(TODAY, category="something_new").status is RepairStatus.ADVISED


def test_a_field_of_law_that_is_only_guessed_does_not_refuse_what_the_general_rule_allows() -> None:
    food: dict[str, Any] = {
        "category": "samr_administrative_penalty",
        "legal_basis": "《食品安全法》第一百二十五条",
    }
    seven_months = at(TODAY, decided_on=add_months(TODAY, -7), **food)
    assert (seven_months.status, seven_months.rule) == (RepairStatus.ADVISED, "10")
    assert seven_months.from_ == add_months(TODAY, 5)
    five_months = at(TODAY, decided_on=add_months(TODAY, -5), **food)
    assert (five_months.status, five_months.from_) == (RepairStatus.NOT_YET, add_months(TODAY, 1))
    assert at(TODAY, decided_on=add_months(TODAY, -13), **food).status is RepairStatus.REPAIRABLE


def test_between_two_regimes_only_what_both_refuse_is_refused() -> None:
    # decided under 58号令 (3 to 36 months), applied for under 36号令 (严重: 12 to 36, 一般: 3 to 12)
    serious: dict[str, Any] = {
        "tier": "serious",
        "penalty_kinds": "责令停产停业",
        "decided_on": date(2026, 3, 31),
    }
    assert at(date(2026, 6, 29), **serious).status is RepairStatus.NOT_YET
    waiting = at(date(2026, 6, 30), **serious)
    assert waiting.status is RepairStatus.ADVISED
    assert "第36号" in waiting.advice
    assert "第58号" in waiting.advice
    assert at(date(2027, 4, 1), decided_on=date(2026, 3, 31)).status is RepairStatus.ADVISED
    assert at(date(2029, 3, 31), decided_on=date(2026, 3, 31)).status is RepairStatus.ENDED
    new: dict[str, Any] = {**serious, "decided_on": date(2026, 4, 1)}
    assert at(date(2026, 7, 1), **new).status is RepairStatus.NOT_YET


def test_what_ends_by_itself_needs_no_application() -> None:
    minor: dict[str, Any] = {
        "category": "samr_administrative_penalty",
        "tier": "minor",
        "penalty_kinds": "通报批评",
    }
    repair = at(TODAY, decided_on=date(2026, 10, 1), **minor)
    assert (repair.status, repair.from_, repair.until) == (RepairStatus.NOT_YET, None, date(2027, 1, 1))
    assert "无需申请" in repair.advice


def test_judgment_defaulters_are_referred_to_the_court() -> None:
    repair = at(TODAY, category="judgment_defaulter")
    assert (repair.status, repair.refer_to) == (RepairStatus.NOT_OURS, "作出决定的执行法院")


def test_a_natural_person_is_never_refused_by_a_rule_that_may_not_hold_for_persons() -> None:
    for day in (date(2026, 9, 1), date(2029, 1, 1)):
        assert not at(day).status.may_apply
        assert at(day, subject_type=SubjectType.NATURAL_PERSON).status is RepairStatus.ADVISED


def test_the_state_of_the_record_comes_before_the_law() -> None:
    states: list[dict[str, Any]] = [
        {"application_id": APPLICATION},
        {"application_id": APPLICATION, "repaired_at": NOW},
        {"application_id": APPLICATION, "repaired_at": NOW, "revoked_at": NOW},
        {"repaired_at": NOW, "revoked_at": NOW, "status": "withdrawn", "withdrawn_at": NOW},
    ]
    assert [at(TODAY, **state).status for state in states] == [
        RepairStatus.UNDER_APPLICATION,
        RepairStatus.REPAIRED,
        RepairStatus.REVOKED,
        RepairStatus.WITHDRAWN,
    ]


@given(
    decided_on=st.dates(),
    today=st.dates(min_value=date(2020, 1, 1), max_value=date(2060, 1, 1)),
    category=st.sampled_from([c.id for c in CATALOGUE.categories]),
    tier=st.sampled_from(["minor", "general", "serious", None]),
    basis=st.sampled_from(["", "《消防法》", "《食品安全法》"]),
)
def test_any_record_gets_an_answer_and_not_yet_never_lies(
    decided_on: date, today: date, category: str, tier: str | None, basis: str
) -> None:
    changes: dict[str, Any] = {
        "decided_on": decided_on,
        "category": category,
        "tier": tier,
        "legal_basis": basis,
    }
    repair = at(today, **changes)
    assert repair.advice
    if repair.status is RepairStatus.NOT_YET and repair.from_ is not None:
        assert repair.from_ > today
        # a rule of another regime may be in force by then, so only days before any change of rules are promised
        changing = [r.effective_from for r in CATALOGUE.rules] + [
            r.effective_to or date.max for r in CATALOGUE.rules
        ]
        if not any(today < day <= repair.from_ for day in changing):
            assert at(repair.from_, **changes).status is not RepairStatus.NOT_YET


# --- records ---------------------------------------------------------------------------------------------


def _record_event(moment: int, number: str | None) -> RecordPublished | RecordWithdrawn:
    time = NOW + timedelta(seconds=moment)
    if number is None:
        return RecordWithdrawn(record_id=facts().record_id, reason="复议撤销", withdrawn_at=time)
    return RecordPublished(
        record_id=facts().record_id, record=facts(document_number=f"{number}号"), published_at=time
    )


@given(
    st.dictionaries(st.integers(1, 20), st.one_of(st.none(), st.sampled_from("123")), min_size=1).flatmap(
        lambda told: st.tuples(st.just(told), st.permutations(list(told.items())))
    )
)
def test_the_latest_word_about_a_record_wins_in_any_order(
    case: tuple[dict[int, str | None], list[tuple[int, str | None]]],
) -> None:
    told, order = case
    state = record()
    for moment, number in order:
        event = _record_event(moment, number)
        state = publish(state, event) if isinstance(event, RecordPublished) else withdraw(state, event)
    last = told[max(told)]
    assert state.status == ("withdrawn" if last is None else "published")
    if last is not None:
        assert state.facts.document_number == f"{last}号"


def test_a_publication_from_outside_keeps_what_the_import_wrote() -> None:
    before = record(legal_basis="《教育法》", content_hash="h", application_id=APPLICATION)
    after = publish(before, _publication_later())
    assert after.facts.document_number == "9号"
    assert (after.display, after.content_hash, after.application_id) == (before.display, "h", APPLICATION)


def _publication_later() -> RecordPublished:
    event = _record_event(60, "9")
    assert isinstance(event, RecordPublished)
    return event


# --- items -----------------------------------------------------------------------------------------------

ITEM = Item(item_id="itm_" + "d" * 32, application_id=APPLICATION, record_id=facts().record_id, facts=facts())
COMMON: dict[str, Any] = {
    "application_id": APPLICATION,
    "item_id": ITEM.item_id,
    "record_id": ITEM.record_id,
    "subject_id": SUBJECT,
}
DECISION: dict[str, Any] = {
    **COMMON,
    "department": DEPARTMENT,
    "record": facts(),
    "decision_number": "杭教信修〔2026〕3号",
    "decided_at": NOW,
}
REFERRED = ItemReferred(
    **COMMON,
    queue_id="hz-credit-centre",
    queue_name="杭州市信用中心 人工分派席",
    reason_code=ReferralReason.UNKNOWN_DEPARTMENT,
    reason="部门目录中没有",
    due_on=TODAY,
    referred_at=NOW,
)
ROUTED = ItemRouted(**COMMON, department=DEPARTMENT, decide_due_on=TODAY, routed_at=NOW)
ACCEPTED = ReviewAccepted(**COMMON, department=DEPARTMENT, accepted_at=NOW)
GRANTED = RepairGranted(**DECISION)
REFUSED = RepairRefused(**DECISION, reason="义务尚未履行完毕")
REVOKED = RepairRevoked(
    **{**DECISION, "decision_number": "杭教撤销信修〔2026〕4号", "decided_at": NOW + timedelta(days=9)},
    reason="材料虚假",
)


def target(
    cls: type[TargetAcknowledged | TargetVerified | TargetDrifted], target_id: str, version: int
) -> ItemEvent:
    time = {"acknowledged_at": NOW, "verified_at": NOW, "drifted_at": NOW}
    return cls(
        **COMMON,
        target_id=target_id,
        target_name=target_id.upper(),
        version=version,
        state=DisplayState.PUBLICATION_ENDED,
        **({"seen_state": DisplayState.PUBLISHED} if cls is TargetDrifted else {}),
        **{name: value for name, value in time.items() if name in cls.model_fields},
    )


def propagated(state: DisplayState = DisplayState.PUBLICATION_ENDED) -> PropagationCompleted:
    return PropagationCompleted(**COMMON, version=1, state=state, target_ids=("a", "b"), completed_at=NOW)


ROUTINGS = st.sampled_from([[], [ROUTED], [REFERRED], [REFERRED, ROUTED]])
DECISIONS = st.sampled_from(
    [
        [],
        [ACCEPTED],
        [ACCEPTED, GRANTED],
        [GRANTED],
        [ACCEPTED, GRANTED, REVOKED],
        [GRANTED, REVOKED, REVOKED],
        [ACCEPTED, REFUSED],
        [REFUSED, GRANTED],
        [GRANTED, REFUSED],
    ]
)
PROPAGATIONS = st.lists(
    st.one_of(
        st.builds(
            target,
            st.sampled_from([TargetAcknowledged, TargetVerified, TargetDrifted]),
            st.sampled_from(["a", "b"]),
            st.integers(1, 3),
        ),
        st.just(propagated()),
    ),
    max_size=6,
)


_OF_NO_DEPARTMENT = {ItemStatus.SUBMITTED, ItemStatus.REFERRED, ItemStatus.SYNCING, ItemStatus.REPAIRED}


@given(data=st.data(), routing=ROUTINGS, decisions=DECISIONS, propagation=PROPAGATIONS)
def test_every_interleaving_of_the_topics_ends_in_the_same_item(
    data: st.DataObject, routing: list[ItemEvent], decisions: list[ItemEvent], propagation: list[ItemEvent]
) -> None:
    topics = [routing, decisions, propagation]
    straight = ITEM
    for event in [*routing, *decisions, *propagation]:
        straight = apply(straight, event)
    order = data.draw(st.permutations([n for n, topic in enumerate(topics) for _ in topic]))
    queues = [iter(topic) for topic in topics]
    mixed = ITEM
    for n in order:
        before, mixed = mixed, apply(mixed, next(queues[n]))
        if before.outcome is not None:
            assert mixed.outcome is not None, "an item that has ended has ended"
        if mixed.status not in _OF_NO_DEPARTMENT:
            assert mixed.holder == DEPARTMENT, "whoever told of it has it, though its routing is told later"
    assert mixed == straight
    assert mixed.status == straight.status


def test_an_item_goes_through_all_its_states() -> None:
    events: list[tuple[ItemEvent, ItemStatus]] = [
        (REFERRED, ItemStatus.REFERRED),
        (ROUTED, ItemStatus.ROUTED),
        (ACCEPTED, ItemStatus.ACCEPTED),
        (GRANTED, ItemStatus.GRANTED),
        (target(TargetAcknowledged, "a", 1), ItemStatus.SYNCING),
        (target(TargetVerified, "a", 1), ItemStatus.SYNCING),
        (propagated(), ItemStatus.REPAIRED),
        (target(TargetDrifted, "a", 1), ItemStatus.REPAIRED),
        (REVOKED, ItemStatus.REVOKED),
        (target(TargetDrifted, "a", 2), ItemStatus.REVOKED),
        (propagated(), ItemStatus.REVOKED),
    ]
    item = ITEM
    assert item.status is ItemStatus.SUBMITTED
    for event, status in events:
        item = apply(item, event)
        assert item.status is status
    assert item.targets["a"].state is TargetState.DRIFTED
    assert (item.department, item.decide_due_on, item.decision_number) == (
        DEPARTMENT,
        TODAY,
        GRANTED.decision_number,
    )


def test_an_old_version_of_a_target_changes_nothing() -> None:
    newer = apply(ITEM, target(TargetVerified, "a", 2))
    assert apply(newer, target(TargetDrifted, "a", 1)) == newer


def test_propagation_of_anything_but_the_end_of_publication_repairs_nothing() -> None:
    assert apply(ITEM, propagated(DisplayState.PUBLISHED)).outcome is None


def test_an_application_is_complete_when_the_last_item_has_ended() -> None:
    application = Application(
        application_id=APPLICATION,
        subject_id=SUBJECT,
        contact=Contact(name="张三", phone="13812345678", email=None),
        statement="已缴清罚款",
        submitted_at=NOW,
        item_count=2,
        open_items=2,
        timeline_seq=1,
    )
    other = ITEM.model_copy(update={"item_id": "itm_" + "e" * 32})
    refused, granted, repaired = apply(ITEM, REFUSED), apply(other, GRANTED), apply(other, propagated())
    assert completed(application, [refused, granted], NOW) is None
    assert completed(application, [refused], NOW) is None
    event = completed(application, [repaired, refused], NOW)
    assert event is not None
    assert [item.outcome for item in event.items] == [ItemOutcome.REFUSED, ItemOutcome.REPAIRED]
    assert texts.ended(event) == "申请已办结：1项完成修复，1项不予修复。"
    for item in (granted, repaired):
        event = completed(application, [apply(item, REVOKED), refused], NOW)
        assert event is not None
        assert [item.outcome for item in event.items] == [ItemOutcome.REFUSED, ItemOutcome.REVOKED]
        assert texts.ended(event) == "申请已办结：0项完成修复，1项不予修复，1项修复被撤销。"


def test_every_state_and_every_shown_event_has_words() -> None:
    assert set(texts.ITEM_STATUS) == set(ItemStatus)
    assert set(texts.TARGET_STATE) == set(TargetState)
    shown: list[ItemEvent] = [REFERRED, ROUTED, ACCEPTED, GRANTED, REFUSED, REVOKED, propagated()]
    shown += [target(cls, "a", 1) for cls in (TargetAcknowledged, TargetVerified, TargetDrifted)]
    lines = [texts.progress("杭教罚〔2026〕12号", event) for event in shown]
    assert len({kind for kind, _ in filter(None, lines)}) == len(shown)


# --- what an applicant types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        (" 138 1234 5678 ", "13812345678"),
        ("+86-13812345678", "13812345678"),
        ("１３８１２３４５６７８", "13812345678"),
        ("0571-87654321", "0571-87654321"),
        ("(0571)87654321", "0571-87654321"),
        ("（０５７１）８７６５４３２１转12", "0571-87654321-12"),
        ("01087654321", "010-87654321"),
        ("+86 571 8765 4321", "0571-87654321"),
        ("0086-10-87654321-8001", "010-87654321-8001"),
    ],
)
def test_phone_numbers_have_one_form(typed: str, normal: str) -> None:
    assert normalise_phone(typed) == normal
    assert normalise_phone(normal) == normal


@pytest.mark.parametrize(
    "typed",
    ["", "12812345678", "1381234567", "138123456789", "87654321", "+1 2125550100", "0571-07654321", "电话"],
)
def test_what_is_no_chinese_phone_number_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="手机号码"):
        normalise_phone(typed)


def new_application(**changes: Any) -> NewApplication:
    body = {
        "contact_name": " 张三 ",
        "contact_phone": "138 1234 5678",
        "record_ids": ["rec_" + "1" * 32, "rec_" + "2" * 32],
        "statement": " 已缴清罚款 ",
    }
    return NewApplication.model_validate({**body, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"contact_name": "　"},
        {"contact_name": "张\n三"},
        {"contact_name": "张" * 51},
        {"contact_phone": "119"},
        {"record_ids": []},
        {"record_ids": ["rec_" + "1" * 32] * 2},
        {"record_ids": [f"rec_{n:032x}" for n in range(201)]},
        {"record_ids": ["1"]},
        {"statement": " \n "},
        {"statement": "字" * 5001},
        {"priority": "urgent"},
    ],
)
def test_an_application_has_exactly_four_good_fields(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        new_application(**changes)


def test_the_same_request_in_other_spelling_has_the_same_hash() -> None:
    new = new_application()
    again = new_application(contact_phone="+8613812345678", record_ids=list(reversed(new.record_ids)))
    assert new.request_hash() == again.request_hash()
    assert new.request_hash() != new_application(statement="已缴清罚款。").request_hash()
    assert len(new_application(statement=" " + "字" * 5000).statement) == 5000
