"""dept-adapter's decisions: whatever a department and the pushing say, in any order and however often, one decision comes out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.review_samples import REQUESTED, REQUESTED_AT

from contracts.events import (
    ClosureReason,
    Event,
    RepairGranted,
    RepairRevoked,
    ReviewAccepted,
)
from dept_adapter.domain import (
    Command,
    DecisionConflictError,
    NotAllowedError,
    NotAtDeskError,
    Review,
    Supplement,
    decide,
    decision_number,
    receive,
)
from dept_adapter.push import retry_after
from dept_adapter.states import ACTION_TEXT, CHANGES, REPEATED, STATE_TEXT, Action, State, changed_by

NOW = REQUESTED_AT + timedelta(days=1)
EXTENDABLE = REQUESTED.model_copy(update={"extend_working_days": 10})

actions = st.sampled_from(Action)


def not_a_grant(action: Action) -> bool:
    return action in (Action.REFUSE, Action.REVOKE, Action.NOT_ACCEPT, Action.EXTEND)


numbers = st.sampled_from(["甲", "乙"])


@st.composite
def commands(draw: st.DrawFn) -> Command:
    action = draw(actions)
    decides = action in (Action.GRANT, Action.REFUSE, Action.REVOKE, Action.RECOGNISE)
    return Command(
        action,
        by=draw(st.sampled_from(["callback", "officer"])),
        from_desk=draw(st.booleans()),
        number=draw(numbers) if decides else None,
        reason="未履行" if not_a_grant(action) else None,
        missing=("凭证",),
        platform=("p", "平台"),
        ended_on=NOW.date(),
        occurred_at=draw(
            st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
        ),
    )


def run(review: Review, sequence: list[Command]) -> tuple[Review, list[Event]]:
    """Apply a sequence as the service does: what raises changes nothing."""
    events: list[Event] = []
    for minute, command in enumerate(sequence):
        try:
            transition = decide(review, command, NOW + timedelta(minutes=minute))
        except (DecisionConflictError, NotAtDeskError, NotAllowedError):
            continue
        review = transition.review
        events += transition.events
    return review, events


def grant(number: str | None = "甲", *, from_desk: bool = False, at: datetime | None = None) -> Command:
    return Command(Action.GRANT, "callback", from_desk, number, None, at)


def refuse(number: str = "甲") -> Command:
    return Command(Action.REFUSE, "callback", False, number, "未履行")


def revoke(number: str = "撤", *, at: datetime | None = None) -> Command:
    return Command(Action.REVOKE, "callback", False, number, "材料虚假", at)


@given(st.lists(commands(), max_size=12))
def test_an_officer_never_decides_what_the_department_system_has(sequence: list[Command]) -> None:
    at_desk_only = [c for c in sequence if c.from_desk]
    review, events = run(receive(REQUESTED, at_desk=False), at_desk_only)
    assert (review.state, events) == (State.RECEIVED, [])


def test_what_the_system_refused_is_decided_at_the_desk() -> None:
    review, events = run(
        receive(REQUESTED, at_desk=False),
        [grant(from_desk=True), Command(Action.GIVE_UP, "push", False), grant(from_desk=True)],
    )
    assert review.state is State.GRANTED
    assert [type(e) for e in events] == [ReviewAccepted, RepairGranted]


def test_every_state_has_an_answer_to_every_action() -> None:
    assert set(CHANGES) == set(REPEATED) == set(ACTION_TEXT) == set(Action)
    assert set(STATE_TEXT) == set(State)


@pytest.mark.parametrize(
    ("first", "second"),
    [(grant(), refuse()), (refuse(), grant()), (grant(), grant("乙")), (refuse(), revoke())],
)
def test_a_contradiction_is_told(first: Command, second: Command) -> None:
    review = decide(receive(REQUESTED, at_desk=False), first, NOW).review
    with pytest.raises(DecisionConflictError, match="甲"):
        decide(review, second, NOW)


def test_a_revocation_needs_its_grant_and_comes_after_it_and_once() -> None:
    review = receive(REQUESTED, at_desk=False)
    with pytest.raises(DecisionConflictError, match="尚未准予修复"):
        decide(review, revoke(), NOW)
    # the database keeps milliseconds, the event that was told had microseconds; the department's clock is wrong besides
    exact = NOW + timedelta(microseconds=999)
    review = decide(review, grant(at=exact), exact).review
    assert review.decision is not None
    read_back = replace(review, decision=replace(review.decision, decided_at=NOW))
    revoked = decide(read_back, revoke(at=NOW - timedelta(days=300)), exact)
    (event,) = revoked.events
    assert isinstance(event, RepairRevoked)
    assert (event.decision_number, event.reason) == ("撤", "材料虚假")
    assert event.decided_at > exact
    for again in (revoke(), grant(), Command(Action.ACCEPT, "callback", False)):
        assert decide(revoked.review, again, NOW).events == ()
    for contradiction in (refuse(), revoke("乙"), grant("乙")):
        with pytest.raises(DecisionConflictError, match="撤销修复"):
            decide(revoked.review, contradiction, NOW)


def test_a_desk_grant_without_number_may_be_repeated_but_not_made() -> None:
    review = receive(REQUESTED, at_desk=True)
    with pytest.raises(ValueError, match="number"):
        decide(review, grant(None, from_desk=True), NOW)
    granted = decide(review, grant(from_desk=True), NOW).review
    assert decide(granted, grant(None, from_desk=True), NOW).events == ()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
        (NOW + timedelta(days=300), NOW),
        (NOW - timedelta(days=300), REQUESTED.requested_at),
        (None, NOW),
    ],
)
def test_a_wrong_clock_moves_no_decision_out_of_its_time(told: datetime | None, kept: datetime) -> None:
    review = decide(receive(REQUESTED, at_desk=False), grant(at=told), NOW).review
    assert review.decision is not None
    assert review.decision.decided_at == kept


@given(actions)
def test_bulk_conditions_are_those_of_the_table(action: Action) -> None:
    for state in State:
        review = replace(receive(EXTENDABLE, at_desk=True), state=state)
        if state is State.SUPPLEMENT:
            review = replace(review, supplement=Supplement(("凭证",), NOW.date(), NOW.date()))
        try:
            command = Command(
                action,
                "x",
                False,
                "甲",
                "未履行",
                missing=("凭证",),
                platform=("p", "平台"),
                ended_on=NOW.date(),
                closure=ClosureReason.RECORD_WITHDRAWN,
            )
            after = decide(review, command, NOW).review.state
        except DecisionConflictError:
            after = state
        assert (state in changed_by(action)) == (after is not state)


def test_numbers_of_the_desk() -> None:
    assert decision_number("市发改委", Action.GRANT, 2026, 7) == "市发改委信修〔2026〕7号"
    assert decision_number("市发改委", Action.REFUSE, 2026, 8) == "市发改委不予信修〔2026〕8号"
    assert decision_number("市发改委", Action.REVOKE, 2026, 9) == "市发改委撤销信修〔2026〕9号"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Mon, 23 Nov 2026 08:00:09 GMT", 9),
        ("Mon, 23 Nov 2026 08:00:09 -0000", 9),
        ("Mon, 23 Nov 2020 08:00:00 GMT", 0),
        ("9" * 400, 86_400),
        ("-5", 0),
        ("٣", 0),
        ("soon", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_retry_after_is_read_or_ignored(header: str | None, seconds: int) -> None:
    assert retry_after(header, NOW) == timedelta(seconds=seconds)
