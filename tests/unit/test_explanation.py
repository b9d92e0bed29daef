"""Why a record may be repaired: both regimes, every check with its source, and what time does to the answer."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.record_samples import CATALOGUE, NOW, TODAY, record

from contracts.http.eligibility import Check, CheckResult, Explanation, RepairStatus, Transition
from intake.domain.record import Display, Record
from intake.eligibility import assess
from intake.explanation import explain
from intake.plan import plan, prerequisites

SAMR = "samr_administrative_penalty"
BOUNDARIES = {rule.effective_from for rule in CATALOGUE.rules} | {
    rule.effective_to + timedelta(days=1) for rule in CATALOGUE.rules if rule.effective_to
}
# in time: not yet, then it may be applied for, then it ends by itself
STAGES = {
    RepairStatus.NOT_YET: 0,
    RepairStatus.ADVISED: 1,
    RepairStatus.REPAIRABLE: 1,
    RepairStatus.ENDED: 2,
}
records = st.fixed_dictionaries(
    {
        "decided_on": st.dates(date(2019, 1, 1), date(2028, 1, 1)),
        "category": st.sampled_from([c.id for c in CATALOGUE.categories if c.grantable]),
        "tier": st.sampled_from(["minor", "general", "serious", None]),
        "penalty_kinds": st.sampled_from(["罚款", "警告", "吊销许可证", "某种处罚", ""]),
        "legal_basis": st.sampled_from(["", "《消防法》", "《食品安全法》"]),
    }
)
days = st.dates(date(2019, 1, 1), date(2032, 1, 1))


def other(number: int, category: str, decided_on: date, **own: Any) -> Record:
    """Another record of the same subject."""
    return record(
        record_id=f"rec_{number:032d}",
        category=category,
        decided_on=decided_on,
        document_number=f"杭市监〔2026〕{number}号",
        **own,
    )


def why(
    *others: Record, on: date = TODAY, transition: Transition = Transition.EITHER, **changes: Any
) -> Explanation:
    """The explanation of the sample record, changed."""
    return explain(record(**changes), others, CATALOGUE, on, transition)


def check(explanation: Explanation, words: str) -> Check:
    """The one check of the one regime whose name holds these words."""
    (regime,) = explanation.regimes
    (found,) = [each for each in regime.checks if words in each.name]
    return found


def test_a_record_from_before_the_change_shows_both_regimes_and_the_setting_decides() -> None:
    changes: dict[str, Any] = {
        "decided_on": date(2026, 1, 20),
        "tier": "serious",
        "penalty_kinds": "吊销许可证",
    }
    both = why(**changes)
    # 36号令: serious, 12 months; 58号令: 3 months for all
    assert [(r.regime, r.rule, r.repair.status, r.repair.from_) for r in both.regimes] == [
        (Transition.APPLICATION_DAY, "3", RepairStatus.NOT_YET, date(2027, 1, 20)),
        (Transition.DECISION_DAY, "5", RepairStatus.REPAIRABLE, date(2026, 4, 20)),
    ]
    assert both.repair.status is RepairStatus.ADVISED
    for setting, status in (
        (Transition.APPLICATION_DAY, RepairStatus.NOT_YET),
        (Transition.DECISION_DAY, RepairStatus.REPAIRABLE),
    ):
        chosen = why(transition=setting, **changes)
        assert (chosen.repair.status, chosen.regimes) == (status, both.regimes)


def test_a_market_supervision_penalty_waits_for_the_lists() -> None:
    decided_on = date(2026, 2, 1)
    listed = other(1, "abnormal_operation_list", date(2026, 6, 1))
    found = why(listed, category=SAMR, decided_on=decided_on)
    assert found.first == [listed.record_id]
    assert check(found, "经营异常名录").result is CheckResult.FAILED
    assert listed.facts.document_number in check(found, "经营异常名录").detail
    assert check(found, "严重违法失信名单").result is CheckResult.PASSED
    # out of the list: removed, or the listing withdrawn; back on it when the removal is revoked
    for own, result in (
        ({"repaired_at": NOW}, CheckResult.PASSED),
        ({"status": "withdrawn", "withdrawn_at": NOW}, CheckResult.PASSED),
        ({"repaired_at": NOW, "revoked_at": NOW}, CheckResult.FAILED),
    ):
        listed = other(1, "abnormal_operation_list", date(2026, 6, 1), **own)
        assert check(why(listed, category=SAMR, decided_on=decided_on), "经营异常名录").result is result


@pytest.mark.parametrize(
    ("kind", "decided_on", "result"),
    [
        ("虚假宣传", date(2026, 5, 1), CheckResult.PERSON),
        ("", date(2026, 5, 1), CheckResult.PERSON),
        ("无照经营", date(2026, 5, 1), CheckResult.PASSED),
        ("虚假宣传", date(2025, 5, 1), CheckResult.PASSED),
    ],
)
def test_a_later_penalty_of_the_same_kind_is_for_a_person(
    kind: str, decided_on: date, result: CheckResult
) -> None:
    repeat = other(2, SAMR, decided_on, display=Display(violation_type=kind))
    found = why(
        repeat, category=SAMR, decided_on=date(2026, 2, 1), display=Display(violation_type="虚假宣传")
    )
    assert check(found, "同一类").result is result
    assert found.first == []


def test_what_is_settled_without_rules_has_no_checks() -> None:
    for changes in (
        {"repaired_at": NOW},
        {"category": "judgment_defaulter"},
        {"category": "no_such_category"},
    ):
        assert why(**changes).regimes == []


@given(records, days)
def test_the_checks_and_the_answer_say_the_same(changes: dict[str, Any], on: date) -> None:
    for regime in why(on=on, **changes).regimes:
        assert all(each.source and each.detail for each in regime.checks)
        failed = [each for each in regime.checks if each.result is CheckResult.FAILED]
        # only time and the kind of rule refuse, and only on binding evidence
        assert all(each.evidence.binding for each in failed)
        if not regime.repair.status.may_apply:
            assert failed
        if regime.repair.status is RepairStatus.REPAIRABLE:
            assert not failed


@given(
    records,
    days,
    st.integers(0, 2000),
    st.sampled_from([t for t in Transition if t is not Transition.EITHER]),
)
def test_within_a_regime_time_only_opens_and_then_ends(
    changes: dict[str, Any], day: date, days_later: int, transition: Transition
) -> None:
    on = max(day, changes["decided_on"])
    last = min((change - timedelta(days=1) for change in BOUNDARIES if change > on), default=date.max)
    later = min(on + timedelta(days=days_later), last)
    before, after = (assess(record(**changes), CATALOGUE, day, transition) for day in (on, later))
    assert STAGES[before.status] <= STAGES[after.status]


@given(st.lists(records, min_size=1, max_size=12), days, st.sampled_from(Transition))
def test_a_plan_holds_every_record_once_and_nothing_before_what_it_waits_for(
    drawn: list[dict[str, Any]], on: date, transition: Transition
) -> None:
    subjects = [record(record_id=f"rec_{n:032d}", **each) for n, each in enumerate(drawn)]
    told = plan(subjects, CATALOGUE, on, transition)
    listed = [r.record_id for step in told.steps for r in step.records] + [r.record_id for r in told.later]
    assert sorted(listed) == sorted(each.record_id for each in subjects)
    done: set[str] = set()
    for number, step in enumerate(told.steps, start=1):
        assert step.step == number
        assert all(set(r.after) <= done and r.repair.status.may_apply for r in step.records)
        assert number == 1 or all(r.after for r in step.records)
        done |= {r.record_id for r in step.records}
    assert not any(r.repair.status.may_apply for r in told.later)


def test_a_listing_goes_before_the_penalty_it_blocks_and_before_no_other() -> None:
    penalty = other(1, SAMR, date(2026, 1, 5), tier="general", penalty_kinds="罚款")
    listing = other(2, "abnormal_operation_list", date(2026, 3, 1), tier=None, penalty_kinds="")
    elsewhere = other(3, "administrative_penalty", date(2026, 5, 1), tier="general", penalty_kinds="罚款")
    first = prerequisites([penalty, listing, elsewhere], CATALOGUE, TODAY, Transition.EITHER)
    assert first == {penalty.record_id: (listing.record_id,), listing.record_id: (), elsewhere.record_id: ()}
