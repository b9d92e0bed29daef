"""What the desk's pages say and offer."""

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.review_samples import REQUESTED, REQUESTED_AT

from contracts.clock import china_date
from contracts.http.source import Fact
from contracts.tokens import Claims, Role
from dept_adapter.desk.presenters import checks, due_words, options
from dept_adapter.desk.texts import Do
from dept_adapter.domain import Command, Proposal, Review, decide, receive
from dept_adapter.officers import all_passed
from dept_adapter.states import Action
from dept_adapter.store import StoredReview
from dept_adapter.verification import Finding

OFFICER = Claims(sub="officer", departments=(REQUESTED.department.code,), roles=(Role.OFFICER,))
BOTH = OFFICER.model_copy(update={"roles": (Role.OFFICER, Role.APPROVER)})
BY_OFFICERS = [Action(do.value) for do in Do if do.value in {action.value for action in Action}]


def _stored(review: Review, **more: object) -> StoredReview:
    return StoredReview(review, "desk", {}, None, [], **more)  # type: ignore[arg-type]


def _command(action: Action, by: str = "officer") -> Command:
    return Command(
        action, by, from_desk=True, number="1号", reason="理由", missing=("材料",), supplement_working_days=15
    )


@given(
    st.lists(st.sampled_from([*BY_OFFICERS, Action.SUPPLEMENT, Action.WITHDRAW]), max_size=5),
    st.integers(0, 40),
)
def test_what_is_offered_can_be_done_and_what_can_be_done_is_offered(steps: list[Action], days: int) -> None:
    now = REQUESTED_AT
    review = replace(receive(REQUESTED, at_desk=True), extend_working_days=10)
    for action in steps:
        try:
            review = decide(review, _command(action), now).review
        except ValueError:
            continue
    later = now + timedelta(days=days)
    offered = {
        option.do.value for option in options(_stored(review), OFFICER, china_date(later), referred=True)
    }
    for action in BY_OFFICERS:
        try:
            changes = bool(decide(review, replace(_command(action), missing=("其他",)), later).events)
        except ValueError:
            changes = False
        assert (action.value in offered) == changes, (review.state, action)


def test_a_proposal_is_confirmed_by_another_and_nothing_else_is_offered() -> None:
    proposal = Proposal(Action.GRANT, "officer", datetime.now(UTC))
    stored = _stored(receive(REQUESTED, at_desk=True), proposal=proposal)
    today = china_date(REQUESTED_AT)

    def offered(officer: Claims) -> set[Do]:
        return {option.do for option in options(stored, officer, today, referred=True)}

    assert offered(BOTH) == {Do.SEND_BACK}  # his own: taken back, not confirmed
    assert offered(BOTH.model_copy(update={"sub": "other"})) == {Do.CONFIRM, Do.SEND_BACK}
    assert offered(OFFICER.model_copy(update={"sub": "other"})) == set()


@pytest.mark.parametrize(
    ("on", "words", "level"),
    [
        (date(2026, 11, 24), "已逾期 1 个工作日", "overdue"),
        (date(2026, 11, 25), "今天到期", "today"),
        (date(2026, 11, 27), "还剩 2 个工作日", "soon"),
        (date(2026, 12, 1), "还剩 4 个工作日", "later"),  # a weekend lies between
    ],
)
def test_a_last_day_is_said_in_words(on: date, words: str, level: str) -> None:
    found = due_words(on, date(2026, 11, 25))
    assert (found.words, found.level) == (words, level)


@pytest.mark.parametrize(
    ("facts", "over", "passed", "words"),
    [
        (["pass", "pass"], True, True, "全部通过（2）"),
        (["pass", "pass"], False, False, "全部通过（2）"),
        (["pass", "unknown"], True, False, "通过 1，未知 1"),
        (["fail", None], True, False, "不通过 1，核验中 1"),
        ([], True, False, "没有可核验的条件"),
    ],
)
def test_bulk_is_for_what_has_passed_wholly(
    facts: list[str | None], over: bool, passed: bool, words: str
) -> None:
    kept: dict[str, Any] = {
        "findings": [asdict(Finding("c", "条件", cast(Fact | None, fact), "s", "来源", "")) for fact in facts]
    }
    if over:
        kept["completed_at"] = datetime.now(UTC)
    stored = _stored(receive(REQUESTED, at_desk=True), verification=kept)
    assert all_passed(stored) is passed
    assert checks(stored).words == words
