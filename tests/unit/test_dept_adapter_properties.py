"""dept-adapter: whatever pushes, callbacks and officers say, in any order and however often, each item is decided once."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from unit.interleavings import deliveries
from unit.review_samples import REQUESTED, REQUESTED_AT

from contracts.events import (
    Decision,
    Event,
    RepairGranted,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
)
from dept_adapter.domain import (
    DECIDED,
    TRANSITIONS,
    Action,
    Command,
    DecisionConflictError,
    NotAtDeskError,
    Review,
    State,
    Transition,
    changed_by,
    decide,
    receive,
)

START = REQUESTED_AT
PUSHED = (Action.DELIVER, Action.GIVE_UP)
SPOKEN = [action for action in Action if action not in PUSHED]
RANK = {
    State.RECEIVED: 0,
    State.UNDELIVERABLE: 1,
    State.DELIVERED: 2,
    State.ACCEPTED: 3,
    State.GRANTED: 4,
    State.REFUSED: 4,
    State.REVOKED: 5,
}
clocks = st.none() | st.integers(-(10**10), 10**10).map(lambda us: START + timedelta(microseconds=us))


def spoken(
    action: Action, number: str, *, from_desk: bool = False, occurred_at: datetime | None = None
) -> Command:
    """What a department says, by its system or at the desk."""
    return Command(
        action,
        "officer" if from_desk else "callback",
        from_desk,
        None if action is Action.ACCEPT else f"{number}号",
        "材料虚假" if action in (Action.REFUSE, Action.REVOKE) else None,
        occurred_at,
    )


def stored(review: Review) -> Review:
    """The review read back from the database, which keeps milliseconds."""

    def cut(at: datetime) -> datetime:
        return at.replace(microsecond=at.microsecond // 1000 * 1000)

    decision, revocation = (
        made and replace(made, decided_at=cut(made.decided_at))
        for made in (review.decision, review.revocation)
    )
    return replace(
        review,
        accepted_at=review.accepted_at and cut(review.accepted_at),
        decision=decision,
        revocation=revocation,
    )


def attempt(review: Review, command: Command, now: datetime) -> Transition | None:
    """What a command leads to; None when it is refused, which changes nothing."""
    try:
        return decide(review, command, now)
    except (DecisionConflictError, NotAtDeskError):
        return None


class Reviewing(RuleBasedStateMachine):
    """One review. Commands come from three sides, wrong clocks included; each may come again at any time."""

    commands = Bundle("commands")

    def __init__(self) -> None:
        super().__init__()
        self.review = receive(REQUESTED, at_desk=False)
        self.events: list[Event] = []
        self.now = START

    @initialize(at_desk=st.booleans())
    def request(self, at_desk: bool) -> None:
        self.review = receive(REQUESTED, at_desk=at_desk)

    def say(self, command: Command) -> Command:
        before, self.now = self.review, self.now + timedelta(microseconds=700)
        transition = attempt(before, command, self.now)
        after, events = (transition.review, transition.events) if transition else (before, ())
        assert (after == before) or RANK[after.state] > RANK[before.state], "a state never goes back"
        assert bool(events) == (before.state is not after.state and command.action not in PUSHED)
        if command.action in (Action.GRANT, Action.REFUSE) and (made := before.decision) is not None:
            same = (command.number, command.action is Action.REFUSE) == (made.number, made.reason is not None)
            assert same or transition is None, "a contradiction is told"
        assert attempt(after, command, self.now) in (None, Transition(after, ())), "it has no second effect"
        self.review = stored(after)
        self.events += events
        return command

    @rule(target=commands, action=st.sampled_from(PUSHED))
    def push_answered(self, action: Action) -> Command:
        return self.say(Command(action, "push", from_desk=False))

    @rule(target=commands, action=st.sampled_from(SPOKEN), number=st.sampled_from("甲乙"), at=clocks)
    def called_back(self, action: Action, number: str, at: datetime | None) -> Command:
        return self.say(spoken(action, number, occurred_at=at))

    @rule(target=commands, action=st.sampled_from(SPOKEN), number=st.sampled_from("甲乙"))
    def desk(self, action: Action, number: str) -> Command:
        return self.say(spoken(action, number, from_desk=True))

    @rule(command=commands)
    def again(self, command: Command) -> None:
        self.say(command)

    @invariant()
    def one_story_is_told(self) -> None:
        """Accepted, then granted or refused, then perhaps revoked: each at most once, at times that rise, as stored."""
        kinds = [type(event) for event in self.events]
        story: list[type[Event]] = [ReviewAccepted, RepairGranted, RepairRevoked]
        refusal: list[type[Event]] = [ReviewAccepted, RepairRefused]
        assert kinds in (story[: len(kinds)], refusal[: len(kinds)])
        state = self.review.state
        told = {
            ReviewAccepted: State.ACCEPTED,
            RepairGranted: State.GRANTED,
            RepairRefused: State.REFUSED,
            RepairRevoked: State.REVOKED,
        }
        assert state is told[type(self.events[-1])] if self.events else RANK[state] < RANK[State.ACCEPTED]
        accepted = [e.accepted_at for e in self.events if isinstance(e, ReviewAccepted)]
        decided = [e.decided_at for e in self.events if isinstance(e, Decision)]
        assert decided == sorted(set(decided)), "a revocation is later than its grant, as both are told"
        times = [START, *accepted, *decided]
        # a millisecond is lost in the database between the acceptance and the decision
        assert all(b >= a - timedelta(milliseconds=1) for a, b in pairwise(times))
        assert max(times) <= self.now + timedelta(milliseconds=1)
        numbers = [e.decision_number for e in self.events if isinstance(e, Decision)]
        made = [d.number for d in (self.review.decision, self.review.revocation) if d]
        assert numbers == made


TestReviewing = Reviewing.TestCase
TestReviewing.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@given(
    data=st.data(),
    pushes=st.lists(st.sampled_from(PUSHED), max_size=4),
    calls=st.lists(st.builds(spoken, st.sampled_from(SPOKEN), st.sampled_from("甲乙")), max_size=5),
)
@settings(deadline=None)
def test_answers_to_pushes_decide_nothing_however_they_mix_with_callbacks(
    data: st.DataObject, pushes: list[Action], calls: list[Command]
) -> None:
    def run(commands: list[Command]) -> tuple[Review, list[Event]]:
        review = receive(REQUESTED, at_desk=False)
        events: list[Event] = []
        for command in commands:
            if transition := attempt(review, command, START):
                review = transition.review
                events += transition.events
        return review, events

    answers = [Command(action, "push", from_desk=False) for action in pushes]
    straight, told = run(calls)
    mixed, mixed_told = run(data.draw(deliveries([answers, calls], repeats=0)))
    assert mixed_told == told
    assert (mixed.decision, mixed.revocation) == (straight.decision, straight.revocation)
    if straight.state is not State.RECEIVED:
        assert mixed.state is straight.state
    else:
        delivered = State.DELIVERED if Action.DELIVER in pushes else State.UNDELIVERABLE
        assert mixed.state is (delivered if pushes else State.RECEIVED)


@pytest.mark.parametrize("state", State)
def test_the_table_is_total_and_leads_only_forward(state: State) -> None:
    for action in Action:
        after = TRANSITIONS[state, action]
        assert after in (None, state) or RANK[after] > RANK[state]
        assert (state in changed_by(action)) == (after not in (None, state))
        if state in DECIDED and after not in (None, state):
            assert (state, action, after) == (State.GRANTED, Action.REVOKE, State.REVOKED)
