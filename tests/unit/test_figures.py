"""A department's figures: what is counted from tallies is what the histories say, one after the other."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from fastapi import Response
from hypothesis import given
from hypothesis import strategies as st
from unit.review_lives import Step, live, plainly
from unit.review_samples import REQUESTED

from contracts.clock import china_date
from contracts.tokens import Claims
from dept_adapter.domain import AUTOMATIC
from dept_adapter.figures import Count, Figures, Reason, Tally, speed
from dept_adapter.figures_api import _csv, _reason_rows, _rows, oversees
from dept_adapter.states import State

TODAY = date(2026, 11, 2)


def tally(steps: Sequence[Step]) -> Tally:
    """What the aggregation reads of a stored review."""
    review, states = steps[-1].review, [step.review.state for step in steps]
    made, asked = review.decision, review.supplement
    return Tally(
        state=review.state,
        requested_on=china_date(review.requested_at),
        accepted_on=review.accepted_at and china_date(review.accepted_at),
        decided_on=china_date(made.decided_at) if made and State.RECOGNISED not in states else None,
        asked_on=asked.requested_on if asked else None,
        resumed_on=china_date(asked.received_at) if asked and asked.received_at else None,
        accept_due_on=review.accept_due_on,
        decide_due_on=review.decide_due_on,
        extended=State.EXTENDED in states,
        automatic=made is not None and made.by == AUTOMATIC,
    )


def comparable(figures: Figures) -> dict[str, Any]:
    """The figures as ``plainly`` gives them."""
    found = figures.model_dump(exclude={"department", "first_day", "last_day", "promise_working_days"})
    for name in ("to_accept", "to_decide"):
        found[name] = tuple(found[name].values())
    for name in ("within_promise", "within_law"):
        found[name] = (found[name]["within"], found[name]["of"])
    for name in ("refused_why", "not_accepted_why"):
        assert found[name]["others"] == 0
        found[name] = [(each["reason"], each["number"]) for each in found[name]["shown"]]
    return found


@given(rng=st.randoms(use_true_random=False), number=st.integers(0, 12))
def test_what_is_counted_is_what_the_histories_say(rng: random.Random, number: int) -> None:
    lives = [live(rng, REQUESTED.department) for _ in range(number)]
    count = Count(TODAY, lambda _day: 5)
    for alike, times in Counter(tally(steps) for steps in lives).items():
        count.add(Tally(**{**vars(alike), "number": times}))
    expected = plainly(lives, TODAY, 5)
    for state, name in ((State.REFUSED, "refused_why"), (State.NOT_ACCEPTED, "not_accepted_why")):
        shown: Any = expected[name]
        count.explain(state, [Reason(reason=reason, number=times) for reason, times in shown])
    figures = count.figures(REQUESTED.department, date(2026, 9, 1), TODAY)
    assert comparable(figures) == expected
    assert figures.received == figures.open + sum(figures.outcomes.values()), "they add up"


@pytest.mark.parametrize(
    ("days", "median", "p90"),
    [({}, None, None), ({3: 1}, 3, 3), ({0: 5, 7: 5}, 0, 7), ({1: 9, 30: 1}, 1, 1), ({1: 8, 30: 2}, 1, 30)],
)
def test_a_percentile_is_the_nearest_rank(days: dict[int, int], median: int | None, p90: int | None) -> None:
    told = speed(Counter(days))
    assert (told.median_working_days, told.p90_working_days) == (median, p90)


def test_a_reason_never_becomes_a_formula_of_the_spreadsheet() -> None:
    count = Count(TODAY, lambda _day: None)
    written = ["=HYPERLINK(1)", " +1", "@x", "\tx", "＝1", "-2", "正常，\n换行", "2=2"]
    count.states[State.REFUSED] = len(written) + 3
    count.explain(State.REFUSED, [Reason(reason=reason, number=1) for reason in written])
    figures = count.figures(REQUESTED.department, date(2026, 1, 1), TODAY)
    answer: Response = _csv([*_rows(figures), *_reason_rows(figures)], "f.csv")
    text = bytes(answer.body).decode("utf-8")
    assert text.startswith("\ufeff")
    assert "不予修复的原因,其他原因,3" in text
    for reason in written[:6]:
        assert f",'{reason}," in text or f',"\'{reason}",' in text
    assert ',"正常，\n换行",' in text
    assert ",2=2," in text


@pytest.mark.parametrize(
    ("scope", "roles", "all_of_them"),
    [
        ("operations", (), True),
        ("desk", ("supervisor",), True),
        ("desk", ("officer",), False),
        ("applicant", ("supervisor",), False),
    ],
)
def test_all_departments_are_for_supervisors(scope: str, roles: tuple[str, ...], all_of_them: bool) -> None:
    assert oversees(Claims(sub="x", scope=scope, roles=roles)) is all_of_them
