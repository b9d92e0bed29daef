"""The expert pool: whoever is drawn has no conflict, anybody can check the draw, and a majority is one of all who were drawn."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.catalogue import load_catalogue
from dept_adapter.experts import Opinion, Panel, TooFewExpertsError, conflicts, draw, give, outcome, redraw

POOL = load_catalogue().experts
IDS = [expert.id for expert in POOL]
NOW = datetime(2026, 11, 24, tzinfo=UTC)
some = st.frozensets(st.sampled_from(IDS))
odd = st.sampled_from([1, 3, 5])


@given(
    department=st.sampled_from([*sorted({e.organisation for e in POOL if e.organisation}), "elsewhere"]),
    prior=some,
    declared=some,
    number=odd,
    seed=st.text(max_size=8),
)
def test_nobody_with_a_conflict_is_drawn(
    department: str, prior: frozenset[str], declared: frozenset[str], number: int, seed: str
) -> None:
    excluded = conflicts(POOL, department, prior, dict.fromkeys(declared, "亲属"))
    own = {expert.id for expert in POOL if expert.organisation == department}
    assert set(excluded) == prior | declared | own
    eligible = set(IDS) - set(excluded)
    if len(eligible) < number:
        with pytest.raises(TooFewExpertsError, match=f"只有{len(eligible)}名"):
            draw(POOL, excluded, number, seed)
        return
    drawn = draw(POOL, excluded, number, seed)
    assert set(drawn) <= eligible
    assert len(set(drawn)) == number
    assert draw(POOL[::-1], excluded, number, seed) == drawn, "the order of the pool does not matter"


def test_every_expert_has_about_the_same_chance() -> None:
    drawn = [id_ for n in range(2000) for id_ in draw(POOL, {}, 3, f"itm_{n:032x}")]
    for id_ in IDS:
        assert 0.8 < drawn.count(id_) / (2000 * 3 / len(IDS)) < 1.2


def panel(number: int) -> Panel:
    experts = draw(POOL, {}, number, "x")
    return Panel("itm_1", "d", "sub_1", "是否同一类违法", "officer", experts, date(2026, 12, 1), NOW)


@given(
    number=odd, votes=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12), late=st.booleans()
)
def test_a_majority_is_one_of_all_who_were_drawn(
    number: int, votes: list[tuple[int, bool]], late: bool
) -> None:
    sitting = panel(number)
    first: dict[str, str] = {}
    for who, for_it in votes:
        expert, vote = sitting.experts[who % number], "grant" if for_it else "refuse"
        first.setdefault(expert, vote)
        sitting = give(sitting, Opinion(expert, "grant" if for_it else "refuse", "因", NOW))
    assert {o.expert_id: o.vote for o in sitting.opinions} == first
    found = outcome(sitting, sitting.due_on + timedelta(days=late))
    assert (found is None) == (len(first) < number and not late)
    if found is None:
        return
    votes_for = {vote: list(first.values()).count(vote) for vote in ("grant", "refuse")}
    winners = [vote for vote, count in votes_for.items() if count > number / 2]
    assert found.majority == (winners[0] if winners else None)
    assert {o.vote for o in found.dissent} <= ({"grant", "refuse"} - {found.majority})
    assert set(found.silent) == set(sitting.experts) - set(first)
    assert len(first) < number or found.majority, "an odd number that has spoken has a majority"


@given(number=odd, leaving=some)
def test_whoever_steps_back_is_replaced_and_the_others_stay(number: int, leaving: frozenset[str]) -> None:
    sitting = panel(number)
    for expert in sitting.experts:
        sitting = give(sitting, Opinion(expert, "grant", "因", NOW))
    assume(len(IDS) - len(leaving) >= number)
    after = redraw(sitting, POOL, dict.fromkeys(leaving, "回避"))
    stay = [id_ for id_ in sitting.experts if id_ not in leaving]
    assert list(after.experts[: len(stay)]) == stay
    assert len(set(after.experts)) == number
    assert not set(after.experts) & leaving
    assert {o.expert_id for o in after.opinions} == set(stay)
    assert replace(after, experts=(), opinions=(), excluded={}) == replace(sitting, experts=(), opinions=())
