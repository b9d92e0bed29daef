"""Data verification: every condition gets one result whatever sources say, and nothing is let through that is not certain."""

from dataclasses import asdict, replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from unit.review_samples import REQUESTED

from contracts.catalogue import load_catalogue
from contracts.http.source import CheckAnswer, Fact
from contracts.records import SubjectType
from dept_adapter.domain import Review, receive
from dept_adapter.states import State
from dept_adapter.verification import (
    answered,
    asked_again,
    finding_of,
    is_sampled,
    needs_nobody,
    questions,
)

CATALOGUE = load_catalogue()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SOURCES = frozenset(source.id for source in CATALOGUE.sources)
FACTS = sorted([c.id for c in CATALOGUE.conditions] + [a.id for s in CATALOGUE.sources for a in s.advises])
RULED = sorted({rule.category for rule in CATALOGUE.rules if rule.conditions})


def review(category: str = "administrative_penalty", tier: str | None = "minor", **changes: object) -> Review:
    facts = REQUESTED.record.model_copy(update={"category": category, "tier": tier, **changes})
    return receive(REQUESTED.model_copy(update={"record": facts}), at_desk=True)


@given(
    category=st.sampled_from(RULED),
    tier=st.sampled_from([None, "minor", "general", "serious"]),
    connected=st.frozensets(st.sampled_from(sorted(SOURCES))),
    said=st.dictionaries(st.sampled_from(FACTS), st.sampled_from(Fact), max_size=12),
    reachable=st.frozensets(st.sampled_from(sorted(SOURCES))),
    state=st.sampled_from(State),
)
def test_only_what_every_source_has_passed_needs_nobody(
    category: str,
    tier: str | None,
    connected: frozenset[str],
    said: dict[str, Fact],
    reachable: frozenset[str],
    state: State,
) -> None:
    own = replace(review(category, tier), state=state)
    found = questions(own, CATALOGUE, connected, NOW.date())
    rule = CATALOGUE.rule_for(category, tier, None, NOW.date())
    advised = [each.id for s in CATALOGUE.sources if s.id in connected for each in s.advises]
    assert [each.condition for each in found] == [*(rule.conditions if rule else ()), *advised]
    assert {each.condition for each in found if each.advisory} == set(advised)
    answers = {c: CheckAnswer(item_id=own.item_id, check=c, fact=f, as_of=NOW) for c, f in said.items()}
    for source in sorted(connected):
        found = answered(found, source, answers if source in reachable else None)
    assert not any(each.is_open for each in found)
    for each in found:
        teller = CATALOGUE.source_of(each.condition)
        heard = "courts" in reachable if each.advisory else teller and teller.id in connected & reachable
        assert each.fact is (said.get(each.condition, Fact.UNKNOWN) if heard else Fact.UNKNOWN)
        assert each.fact is not Fact.UNKNOWN or each.condition in said or each.detail
    certain = bool(rule and rule.conditions) and all(each.fact is Fact.PASS for each in found)
    untouched = state in (State.RECEIVED, State.UNDELIVERABLE)
    low = frozenset({"minor"})
    assert needs_nobody(own, found, low) == (certain and untouched and tier == "minor")


def test_natural_persons_are_not_asked_about() -> None:
    found = questions(review(subject_type=SubjectType.NATURAL_PERSON), CATALOGUE, SOURCES, NOW.date())
    assert found
    assert {each.fact for each in found} == {Fact.UNKNOWN}


def test_an_answer_that_was_given_stays() -> None:
    found = questions(review(), CATALOGUE, SOURCES, NOW.date())
    condition = found[0].condition
    source = str(found[0].source)

    def say(fact: Fact) -> dict[str, CheckAnswer]:
        return {condition: CheckAnswer(item_id=REQUESTED.item_id, check=condition, fact=fact, as_of=NOW)}

    first = answered(found, source, say(Fact.FAIL))
    assert answered(answered(first, source, say(Fact.PASS)), source, None) == first


def test_the_sample_is_about_as_large_as_asked() -> None:
    ids = [f"itm_{number:032x}" for number in range(5000)]
    for percent, low, high in ((0, 0, 0), (10, 400, 600), (100, 5000, 5000)):
        assert low <= sum(is_sampled(id_, percent) for id_ in ids) <= high


@given(
    said=st.dictionaries(st.sampled_from(FACTS), st.sampled_from(Fact), max_size=12),
    connected=st.frozensets(st.sampled_from(sorted(SOURCES))),
    person=st.booleans(),
)
def test_after_a_supplement_only_what_a_source_can_tell_anew_is_open(
    said: dict[str, Fact], connected: frozenset[str], person: bool
) -> None:
    kind = SubjectType.NATURAL_PERSON if person else SubjectType.LEGAL_PERSON
    own = review("administrative_penalty", "general", subject_type=kind)
    found = questions(own, CATALOGUE, connected, NOW.date())
    answers = {c: CheckAnswer(item_id=own.item_id, check=c, fact=f, as_of=NOW) for c, f in said.items()}
    for source in sorted(connected):
        found = answered(found, source, answers)
    again = [finding_of(each) for each in asked_again([asdict(each) for each in found])]
    for before, after in zip(found, again, strict=True):
        if before.fact is Fact.PASS or before.source is None or person:
            assert after == before
        else:
            assert after == replace(before, fact=None, detail="", as_of=None)
    for source in sorted(connected):
        again = answered(again, source, None)
    assert not any(each.is_open for each in again)
