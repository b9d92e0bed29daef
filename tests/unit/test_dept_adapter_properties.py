"""dept-adapter: whatever pushes, callbacks and officers say, in any order and however often, each item is decided once."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from contract.architecture import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from unit.interleavings import deliveries
from unit.review_samples import REQUESTED, REQUESTED_AT

from contracts.clock import china_date
from contracts.events import (
    ClosureReason,
    Decision,
    Event,
    ItemReopened,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewExpired,
    ReviewExtended,
    ReviewNotAccepted,
    ReviewOverdue,
    ReviewStep,
    ReviewWithdrawn,
    SupplementReceived,
    SupplementRequested,
)
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import (
    Command,
    DecisionConflictError,
    NotAllowedError,
    NotAtDeskError,
    Review,
    Transition,
    decide,
    is_provisional,
    notice_day,
    receive,
)
from dept_adapter.states import (
    DECIDED,
    ENDED,
    OBJECTIONABLE,
    Action,
    State,
    after,
    changed_by,
    diagram,
    objection_diagram,
)

START = REQUESTED_AT
PUSHED = (Action.DELIVER, Action.GIVE_UP)
OTHERS = (Action.SUPPLEMENT, Action.WITHDRAW, Action.LAPSE, Action.RECOGNISE, Action.EXPIRE, Action.CLOSE)
BACK = (Action.REOPEN, Action.RESTORE)
SPOKEN = [action for action in Action if action not in (*PUSHED, *OTHERS, *BACK)]
RANK = {
    State.RECEIVED: 0,
    State.UNDELIVERABLE: 1,
    State.DELIVERED: 2,
    State.SUPPLEMENT: 3,
    State.ACCEPTED: 10,
    State.EXTENDED: 11,
    State.GRANTED: 12,
    State.REFUSED: 12,
    State.NOT_ACCEPTED: 12,
    State.WITHDRAWN: 12,
    State.RECOGNISED: 12,
    State.EXPIRED: 12,
    State.CLOSED: 12,
    State.REVOKED: 13,
}
EXTENDABLE = REQUESTED.model_copy(update={"extend_working_days": 10})
NUMBERED = (Action.GRANT, Action.REFUSE, Action.REVOKE)
LETTERS: dict[type[Event], str] = {
    SupplementRequested: "S",
    SupplementReceived: "R",
    ReviewAccepted: "A",
    ReviewNotAccepted: "N",
    ReviewExtended: "X",
    RepairGranted: "G",
    RepairRefused: "F",
    RepairRevoked: "V",
    ReviewWithdrawn: "W",
    RepairRecognised: "C",
    ItemReopened: "O",
    ReviewExpired: "E",
    ReviewClosed: "K",
}
GRANTED_OR_NOT = "[GC](VG)*V?"
STORY = re.compile(f"((SR?)?NO)*(SR?)?(N|W|E|K|{GRANTED_OR_NOT}|A((X?FO)*X?(W|E|K|{GRANTED_OR_NOT}|F)?)?)?")


def rank(review: Review) -> tuple[int, int]:
    """Rises with everything that happens in one round; a supplement is received once."""
    received = review.supplement is not None and review.supplement.received_at is not None
    step = RANK[review.state] + 4 * (received and RANK[review.state] < RANK[State.ACCEPTED])
    return review.round, step


clocks = st.none() | st.integers(-(10**10), 10**10).map(lambda us: START + timedelta(microseconds=us))


def spoken(
    action: Action, number: str, *, from_desk: bool = False, occurred_at: datetime | None = None
) -> Command:
    """What a department says, by its system or at the desk."""
    return Command(
        action,
        "officer" if from_desk else "callback",
        from_desk,
        f"{number}号" if action in NUMBERED else None,
        None if action in (Action.ACCEPT, Action.GRANT, Action.REQUEST_SUPPLEMENT) else "材料虚假",
        occurred_at,
        missing=(number,) if action is Action.REQUEST_SUPPLEMENT else (),
        supplement_working_days=15,
    )


def stored(review: Review) -> Review:
    """The review read back from the database, which keeps milliseconds."""

    def cut(at: datetime) -> datetime:
        return at.replace(microsecond=at.microsecond // 1000 * 1000)

    decision, revocation = (
        made and replace(made, decided_at=cut(made.decided_at))
        for made in (review.decision, review.revocation)
    )
    asked = review.supplement
    return replace(
        review,
        supplement=asked and replace(asked, received_at=asked.received_at and cut(asked.received_at)),
        accepted_at=review.accepted_at and cut(review.accepted_at),
        reopened_at=review.reopened_at and cut(review.reopened_at),
        decision=decision,
        revocation=revocation,
    )


def attempt(review: Review, command: Command, now: datetime) -> Transition | None:
    """What a command leads to; None when it is refused, which changes nothing."""
    try:
        return decide(review, command, now)
    except (DecisionConflictError, NotAtDeskError, NotAllowedError):
        return None


class Reviewing(RuleBasedStateMachine):
    """One review. Commands come from three sides, wrong clocks included; each may come again at any time."""

    commands = Bundle("commands")

    def __init__(self) -> None:
        super().__init__()
        self.review = receive(EXTENDABLE, at_desk=False)
        self.events: list[Event] = []
        self.now = START

    @initialize(at_desk=st.booleans())
    def request(self, at_desk: bool) -> None:
        self.review = receive(EXTENDABLE, at_desk=at_desk)

    def say(self, command: Command) -> Command:
        before, self.now = self.review, self.now + timedelta(microseconds=700)
        transition = attempt(before, command, self.now)
        then, events = (transition.review, transition.events) if transition else (before, ())
        assert (then == before) or rank(then) > rank(before), "nothing goes back"
        assert bool(events) == (before.state is not then.state and command.action not in PUSHED)
        if command.action in (Action.GRANT, Action.REFUSE) and (made := before.decision) is not None:
            same = (command.number, command.action is Action.REFUSE) == (made.number, made.reason is not None)
            # what was recognised may have been granted elsewhere, under a number of its own
            granted_elsewhere = before.state is State.RECOGNISED and command.action is Action.GRANT
            overtaken = before.round > 0 and transition == Transition(before, ())
            assert same or granted_elsewhere or overtaken or transition is None, "a contradiction is told"
        assert attempt(then, command, self.now) in (None, Transition(then, ())), "it has no second effect"
        self.review = stored(then)
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

    @rule(target=commands, action=st.sampled_from(OTHERS), at=clocks)
    def applicant_or_clock(self, action: Action, at: datetime | None) -> Command:
        if action is not Action.RECOGNISE:
            ended = date(2026, 11, 20) if action is Action.EXPIRE else None
            closure = ClosureReason.RECORD_WITHDRAWN if action is Action.CLOSE else None
            why = "记录撤回。" if closure else None
            command = Command(
                action, "applicant", False, reason=why, occurred_at=at, ended_on=ended, closure=closure
            )
            return self.say(command)
        platform = ("gsxt", "公示系统")
        return self.say(Command(action, "gsxt", False, "外1号", occurred_at=at, platform=platform))

    @rule()
    def objection_upheld(self) -> None:
        if self.review.state not in OBJECTIONABLE:
            return
        restored = self.review.state is State.REVOKED
        action, number = (Action.RESTORE, f"恢复{self.review.round}号") if restored else (Action.REOPEN, None)
        self.say(Command(action, "officer", False, number, accept_working_days=3, decide_working_days=7))

    @rule(days=st.integers(0, 60))
    def days_pass(self, days: int) -> None:
        self.now += timedelta(days=days)
        before, due = self.review, self.review.due_on
        noticed = notice_day(before, self.now)
        assert notice_day(noticed.review, self.now).events == (), "a deadline is noticed once"
        late = due is not None and due < china_date(self.now) and before.overdue_told != due
        late = late and not is_provisional(before.due_count)
        assert bool(noticed.events) == late
        self.review = stored(noticed.review)
        self.events += [event for event in noticed.events if not isinstance(event, ReviewOverdue)]

    @rule(command=commands)
    def again(self, command: Command) -> None:
        self.say(command)

    @invariant()
    def one_story_is_told(self) -> None:
        """Supplemented perhaps; not accepted, or accepted, decided, revoked: each at most once, at times that rise, as stored."""
        assert STORY.fullmatch("".join(LETTERS[type(event)] for event in self.events))
        state = self.review.state
        told = {
            SupplementRequested: State.SUPPLEMENT,
            ReviewAccepted: State.ACCEPTED,
            ReviewExtended: State.EXTENDED,
            ReviewNotAccepted: State.NOT_ACCEPTED,
            ReviewWithdrawn: State.WITHDRAWN,
            ReviewExpired: State.EXPIRED,
            ReviewClosed: State.CLOSED,
            RepairRecognised: State.RECOGNISED,
            RepairGranted: State.GRANTED,
            RepairRefused: State.REFUSED,
            RepairRevoked: State.REVOKED,
        }
        last = type(self.events[-1]) if self.events else SupplementReceived
        reopened = self.events[-1] if self.events else None
        if isinstance(reopened, ItemReopened) and reopened.accepted:
            assert state is State.ACCEPTED
        else:
            assert state is told[last] if last in told else RANK[state] < RANK[State.SUPPLEMENT]
        assert (self.review.due_on is None) == (state in ENDED), (
            "somebody has to act by a day, until it has ended"
        )
        accepted = [e.accepted_at for e in self.events if isinstance(e, ReviewAccepted)]
        decided = [e.decided_at for e in self.events if isinstance(e, Decision)]
        assert decided == sorted(set(decided)), "a revocation is later than its grant, as both are told"
        times = [START, *accepted, *decided]
        # a millisecond is lost in the database between the acceptance and the decision
        assert all(b >= a - timedelta(milliseconds=1) for a, b in pairwise(times))
        assert max(times) <= self.now + timedelta(milliseconds=1)
        numbers = [e.decision_number for e in self.events if isinstance(e, Decision)]
        made = [d.number for d in (self.review.decision, self.review.revocation) if d]
        assert numbers == [*self.review.overturned, *made], "no number is given twice, none is forgotten"


TestReviewing = Reviewing.TestCase
TestReviewing.settings = settings(max_examples=150, stateful_step_count=25)


@given(
    data=st.data(),
    pushes=st.lists(st.sampled_from(PUSHED), max_size=4),
    calls=st.lists(st.builds(spoken, st.sampled_from(SPOKEN), st.sampled_from("甲乙")), max_size=5),
)
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
        then = after(state, action)
        back_for_the_supplement = (state, action) == (State.SUPPLEMENT, Action.SUPPLEMENT)
        upheld = action in BACK and state in OBJECTIONABLE
        assert then in (None, state) or RANK[then] > RANK[state] or back_for_the_supplement or upheld
        assert (state in changed_by(action)) == (then not in (None, state))
        if state in ENDED and then not in (None, state) and not upheld:
            assert state in (State.GRANTED, State.RECOGNISED)
            assert (action, then) == (Action.REVOKE, State.REVOKED)
    # every result that may be objected to has exactly one way back, and nothing else has
    assert (state in OBJECTIONABLE) == (sum(state in changed_by(action) for action in BACK) == 1)
    assert state in ENDED or State.WITHDRAWN in {after(state, action) for action in Action}
    assert DECIDED < ENDED


def test_the_documented_diagram_is_that_of_the_table() -> None:
    documented = (REPOSITORY / "docs" / "states.md").read_text(encoding="utf-8")
    assert diagram() in documented
    assert objection_diagram() in documented


days = st.dates(date(2025, 1, 1), date(2027, 12, 31))


@given(asked=days, wait=st.integers(0, 40), accept=st.integers(0, 15), decide_in=st.integers(0, 20))
def test_clocks_stand_still_while_the_applicant_supplements(
    asked: date, wait: int, accept: int, decide_in: int
) -> None:
    """Spring Festival and make-up days included: the working days left are those that were left, one at least."""
    accept_due = LIBRARY_CALENDAR.working_days_after(asked, accept).on
    decide_due = LIBRARY_CALENDAR.working_days_after(accept_due, decide_in).on
    due = {"accept_due_on": accept_due, "decide_due_on": decide_due}
    noon = datetime.combine(asked, time(4), UTC)
    review = receive(REQUESTED.model_copy(update={**due, "requested_at": noon}), at_desk=True)
    demand = replace(spoken(Action.REQUEST_SUPPLEMENT, "甲"), supplement_working_days=15)
    waiting = decide(review, demand, noon).review
    assert waiting.supplement
    assert LIBRARY_CALENDAR.is_working_day(waiting.supplement.due_on)
    received = noon + timedelta(days=wait)
    then = decide(waiting, Command(Action.SUPPLEMENT, "applicant", False), received).review
    today = china_date(received)
    assert LIBRARY_CALENDAR.working_days_between(today, then.accept_due_on) == max(1, accept)
    assert LIBRARY_CALENDAR.working_days_between(then.accept_due_on, then.decide_due_on) == decide_in
    assert LIBRARY_CALENDAR.is_working_day(then.accept_due_on)
    assert LIBRARY_CALENDAR.is_working_day(then.decide_due_on)


def test_what_is_missing_is_told_once() -> None:
    review = receive(REQUESTED, at_desk=True)
    asked = decide(review, spoken(Action.REQUEST_SUPPLEMENT, "甲"), START).review
    back = decide(asked, Command(Action.SUPPLEMENT, "applicant", False), START).review
    for state in (asked, back):
        assert decide(state, spoken(Action.REQUEST_SUPPLEMENT, "甲"), START).events == ()
        with pytest.raises(NotAllowedError, match="一次性告知"):
            decide(state, spoken(Action.REQUEST_SUPPLEMENT, "乙"), START)


def test_an_extension_is_in_time_or_not_at_all() -> None:
    accepted = decide(receive(EXTENDABLE, at_desk=True), spoken(Action.ACCEPT, ""), START).review
    last_moment = datetime.combine(accepted.decide_due_on, time(15, 59), UTC)
    extended = decide(accepted, spoken(Action.EXTEND, ""), last_moment).review
    assert LIBRARY_CALENDAR.working_days_between(accepted.decide_due_on, extended.decide_due_on) == 10
    with pytest.raises(NotAllowedError, match="届满"):
        decide(accepted, spoken(Action.EXTEND, ""), last_moment + timedelta(minutes=1))
    with pytest.raises(NotAllowedError, match="没有"):
        decide(replace(accepted, extend_working_days=None), spoken(Action.EXTEND, ""), START)


def test_a_deadline_of_the_same_day_is_another_one() -> None:
    """Accepted late, and to be decided by the same day: both are told."""
    late = START + timedelta(days=60)
    same_day = replace(receive(REQUESTED, at_desk=True), decide_due_on=REQUESTED.accept_due_on)
    noticed = notice_day(same_day, late)
    accepted = decide(noticed.review, spoken(Action.ACCEPT, ""), late).review
    (first,), (second,) = noticed.events, notice_day(accepted, late).events
    assert isinstance(first, ReviewOverdue)
    assert isinstance(second, ReviewOverdue)
    assert (first.step, second.step) == (ReviewStep.ACCEPT, ReviewStep.DECIDE)
