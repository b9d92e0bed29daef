"""公示期满: publication ends by itself only where every rule that may hold says so with binding evidence, and nobody decided."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from unit.record_samples import record

from contracts.catalogue import add_months, load_catalogue
from contracts.events import PublicationExpired
from contracts.http.eligibility import RepairStatus, Transition
from contracts.records import SubjectType
from intake.domain.record import Display, expired
from intake.eligibility import assess, publication_end

CATALOGUE = load_catalogue()
RULES = {rule.number: rule for rule in CATALOGUE.rules}
AT = datetime(2026, 5, 1, tzinfo=UTC)
SERIOUS: dict[str, Any] = {"penalty_kinds": "责令停产停业", "tier": "serious"}
"""By 36号令: twelve months at least, thirty-six at most (S)."""


def ends(
    today: date = date(2030, 1, 1), transition: Transition = Transition.EITHER, **changes: Any
) -> date | None:
    found = publication_end(record(**changes), CATALOGUE, today, transition)
    return found and found.on


def test_a_record_of_36_haoling_ends_after_its_maximum_period() -> None:
    decided = date(2026, 8, 31)
    assert ends(**SERIOUS, decided_on=decided) == date(2029, 8, 31)
    assert ends(decided_on=decided) == add_months(decided, 12)
    # the end of the month is clamped
    assert ends(**SERIOUS, decided_on=date(2028, 2, 29)) == date(2031, 2, 28)


def test_nothing_happens_by_itself_where_the_law_does_not_say_so_with_certainty() -> None:
    decided = date(2026, 8, 31)
    # no maximum
    assert ends(category="abnormal_operation_list", tier=None, penalty_kinds="") is None
    # the maximum is known from memory only (M)
    assert RULES["14"].grade("max_publication_months").binding is False
    assert ends(category="serious_illegal_list", tier="serious", penalty_kinds="") is None
    # the tier was read from a word of weak evidence
    assert ends(decided_on=decided, tier="serious", penalty_kinds="巨额罚款") is None
    assert ends(subject_type=SubjectType.NATURAL_PERSON) is None
    # before the change of the rules either may hold: the longer one counts, if both are certain
    before = date(2026, 1, 31)
    assert ends(decided_on=before) == add_months(before, 36)
    assert ends(decided_on=before, transition=Transition.APPLICATION_DAY) == add_months(before, 12)


def test_what_is_not_known_to_be_corrected_follows_the_departments_own_rule() -> None:
    assert ends(refused_at=AT) is None
    assert ends(repaired_at=AT, revoked_at=AT) is None
    assert ends(repaired_at=AT) is None
    assert ends(status="withdrawn") is None
    # a restriction that runs longer: the source names the day
    later = date(2029, 1, 1)
    assert ends(display=Display(published_until=later)) == later
    assert ends(display=Display(published_until=date(2026, 12, 1))) == add_months(date(2026, 8, 31), 12)


@given(
    rule=st.sampled_from(CATALOGUE.rules),
    decided=st.dates(date(2019, 1, 1), date(2026, 12, 31)),
    kinds=st.sampled_from(["罚款", "警告", "吊销许可证", "巨额罚款", "没收违法所得；罚款", ""]),
    days=st.integers(-3, 3),
    transition=st.sampled_from(Transition),
)
def test_what_has_ended_by_itself_cannot_be_applied_for(
    rule: Any, decided: date, kinds: str, days: int, transition: Transition
) -> None:
    """Noticing and eligibility agree, on the days around the end too; and once is enough."""
    tier = found[0].value if (found := CATALOGUE.tier_of(kinds)) else rule.tier
    mine = record(category=rule.category, tier=tier, penalty_kinds=kinds, decided_on=decided)
    first = publication_end(mine, CATALOGUE, date(2030, 1, 1), transition)
    today = first.on + timedelta(days=days) if first else date(2030, 1, 1)
    end = publication_end(mine, CATALOGUE, today, transition)
    category = CATALOGUE.category(rule.category)
    ours = category is not None and category.refer_to is None
    if end is not None and end.on <= today and ours:
        assert assess(mine, CATALOGUE, today, transition).status is RepairStatus.ENDED
    if end is None:
        return
    event = PublicationExpired(
        record_id=mine.record_id,
        record=mine.facts,
        ended_on=end.on,
        rule=end.rule.number,
        source=end.rule.source,
        noticed_at=AT,
    )
    over = expired(mine, event)
    assert publication_end(over, CATALOGUE, today, transition) is None
    assert assess(over, CATALOGUE, today, transition).status is RepairStatus.ENDED


def test_the_rules_have_another_name_when_others_are_in_force() -> None:
    change = date(2026, 4, 1)
    before, then = (CATALOGUE.rules_on(day) for day in (change - timedelta(days=1), change))
    assert before != then
    assert CATALOGUE.rules_on(change + timedelta(days=1)) == then
