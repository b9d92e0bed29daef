"""Sync's pure decisions: whatever targets, the network and later decisions do, every target ends up showing the last decision."""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import (
    Event,
    PropagationCompleted,
    RepairGranted,
    RepairRevoked,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
)
from contracts.http.target import RecordKey, RecordView, RepairResult, RepairStatus
from contracts.records import DepartmentRef, DisplayState, RecordFacts, SubjectType
from sync.domain import (
    Action,
    Delivery,
    Failure,
    Policy,
    Record,
    after_push,
    after_read_back,
    cause_of,
    complete,
    idempotency_key,
    next_action,
    on_decision,
    redirect,
    settled,
)

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
RECORD_ID = "rec_" + "1" * 32
KEY = RecordKey(
    subject_code="91330100MA27XF1Q0T", document_number="杭测罚〔2026〕1号", authority_name="杭州市教育局"
)
PUBLISHED, ENDED = DisplayState.PUBLISHED, DisplayState.PUBLICATION_ENDED


def policy(target_id: str, *, reads_back: bool = True) -> Policy:
    return Policy(
        target_id=target_id,
        target_name=target_id.upper(),
        reads_back=reads_back,
        read_back_delay=timedelta(seconds=0.5),
        recheck=(timedelta(seconds=60), timedelta(seconds=600)),
        backoff_base=timedelta(seconds=1),
        backoff_max=timedelta(seconds=300),
    )


POLICIES = {"alpha": policy("alpha"), "beta": policy("beta"), "mute": policy("mute", reads_back=False)}


def granted(hours: int, item: int = 1) -> RepairGranted:
    facts = RecordFacts(
        record_id=RECORD_ID,
        subject_id="sub_" + "2" * 32,
        subject_type=SubjectType.LEGAL_PERSON,
        category="administrative_penalty",
        document_number=KEY.document_number,
        authority_code=None,
        authority_name=KEY.authority_name,
        decided_on=date(2026, 1, 5),
    )
    return RepairGranted(
        application_id=f"app_{item:032x}",
        item_id=f"itm_{item:032x}",
        record_id=RECORD_ID,
        subject_id=facts.subject_id,
        department=DepartmentRef(code="11330100002489591C", slug="hangzhou-jyj", name="杭州市教育局"),
        record=facts,
        decision_number=f"杭教信修〔2026〕{hours}-{item}号",
        decided_at=START + timedelta(hours=hours),
    )


def revoked(hours: int, item: int = 1) -> RepairRevoked:
    grant = granted(hours, item).model_dump()
    return RepairRevoked(**{**grant, "decision_number": f"撤{grant['decision_number']}"}, reason="材料虚假")


@dataclass
class Site:
    """A target outside, by contracts.http.target: it applies what is newer, and may lose it again."""

    state: DisplayState | None = PUBLISHED
    version: int = 0

    def take(self, record: Record) -> RepairStatus:
        if record.version < self.version:
            return RepairStatus.SUPERSEDED
        self.state, self.version = record.state, record.version
        return RepairStatus.APPLIED

    def view(self) -> RecordView:
        return RecordView(record=KEY, state=self.state, version=self.version or None)


@dataclass
class World:
    """Sync's documents about one record, the sites it pushes to, and all events told."""

    record: Record | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=lambda: {name: Site() for name in POLICIES})
    now: datetime = START
    told: list[tuple[str, Event]] = field(default_factory=list)
    last_told: dict[str, Delivery] = field(default_factory=dict)

    def decide(
        self, event: RepairGranted | RepairRevoked, targets: tuple[str, ...] = ("alpha", "beta")
    ) -> None:
        record, events = on_decision(self.record, event, targets, POLICIES, {}, self.now)
        if record is None:
            assert not events
            return
        self.record = record
        self.told += [(event.item_id, each) for each in events]
        for target in record.targets:
            before = self.deliveries.get(target)
            after = self.deliveries[target] = redirect(before, record, target, self.now)
            assert next_action(after) is Action.PUSH
            assert (after.next_action_at, after.attempts) == (self.now, 0)
            assert after.differs_since == ((before and before.differs_since) or self.now)
        self.check()

    def apply(self, target: str, record: Record, action: Action, answer: object) -> None:
        """What the driver does in its transaction."""
        before = self.deliveries[target]
        if action is Action.PUSH:
            assert isinstance(answer, RepairResult | Failure)
            after, events = after_push(before, record, answer, POLICIES[target], self.now)
        else:
            assert isinstance(answer, RecordView | Failure)
            after, events = after_read_back(before, record, answer, POLICIES[target], self.now)
        self.deliveries[target] = after
        self.told += [(cause_of(after), event) for event in events]
        if settled(after, POLICIES[target]) and not settled(before, POLICIES[target]):
            self.try_complete()
        self.check()

    def try_complete(self) -> None:
        assert self.record is not None
        self.record, events = complete(self.record, list(self.deliveries.values()), POLICIES, self.now)
        self.told += [(f"{RECORD_ID}:{self.record.version}", event) for event in events]

    def ask(self, target: str, behaviour: str) -> tuple[Record, Action, object]:
        """The request and its answer; the site may have done it even when no answer comes."""
        assert self.record is not None
        action, site, record = next_action(self.deliveries[target]), self.sites[target], self.record
        if behaviour == "lost":
            return record, action, Failure("connection refused")
        if action is Action.READ_BACK:
            view = site.view()
            return record, action, Failure("timeout") if behaviour == "answer lost" else view
        key = idempotency_key(target, RECORD_ID, record.version)
        if behaviour == "rejected":
            return record, action, RepairResult(idempotency_key=key, status=RepairStatus.REJECTED)
        if behaviour == "only claims":
            return record, action, RepairResult(idempotency_key=key, status=RepairStatus.APPLIED)
        status = site.take(record)
        if behaviour == "answer lost":
            return record, action, Failure("timeout")
        return record, action, RepairResult(idempotency_key=key, status=status)

    def check(self) -> None:
        """What holds at every moment."""
        for delivery in self.deliveries.values():
            assert self.record is not None
            assert delivery.desired_version == self.record.version
            assert delivery.seen_version <= delivery.acknowledged_version <= delivery.desired_version
            needs_more = not settled(delivery, POLICIES[delivery.target_id])
            assert (delivery.differs_since is not None) == needs_more
            assert not needs_more or delivery.next_action_at is not None, "nobody would ever look again"
        ids = Counter((cause, event.TYPE) for cause, event in self.told)
        assert max(ids.values(), default=0) <= 1, "two events would have the same id"
        shown: dict[tuple[str, int], bool] = {}
        for _, event in self.told:
            if isinstance(event, TargetVerified | TargetDrifted):
                place, right = (event.target_id, event.version), isinstance(event, TargetVerified)
                assert not (right and shown.get(place)), (
                    "it is told once that a target is right, and again after a drift"
                )
                shown[place] = right
        completed = Counter(e.version for _, e in self.told if isinstance(e, PropagationCompleted))
        assert max(completed.values(), default=0) <= 1

    def settle(self) -> None:
        """From now on targets and network behave: go from due to due until nothing differs."""
        for _ in range(100):
            waiting = [d for d in self.deliveries.values() if not settled(d, POLICIES[d.target_id])]
            if not waiting:
                return
            first = min(waiting, key=lambda d: d.next_action_at or START)
            self.now = max(self.now, first.next_action_at or START)
            self.apply(first.target_id, *self.ask(first.target_id, "behaves"))
        pytest.fail(f"does not converge: {self.deliveries}")


Noise = Literal["behaves", "lost", "answer lost", "rejected", "only claims"]
_target = st.sampled_from(["alpha", "beta"])
_noise = st.sampled_from(["behaves", "lost", "answer lost", "rejected", "only claims"])
_step = st.one_of(
    st.tuples(st.just("grant"), st.integers(1, 4), st.integers(1, 2)),
    st.tuples(st.just("revoke"), st.integers(1, 4), st.integers(1, 2)),
    st.tuples(st.just("ask"), _target, _noise),
    st.tuples(st.just("answer"), _target, st.just("")),
    st.tuples(st.just("exchange"), _target, _noise),
    st.tuples(st.just("settle"), st.just(""), st.just("")),
    st.tuples(st.just("tamper"), _target, st.sampled_from([PUBLISHED, ENDED, None])),
    st.tuples(st.just("forget"), _target, st.just("")),
)


@given(st.lists(_step, max_size=60))
@settings(max_examples=400, deadline=None)
def test_every_interleaving_converges_to_the_last_decision(steps: list[tuple[str, object, object]]) -> None:
    """Answers may come late, after newer decisions; targets may lose, claim or change what they like."""
    world = World()
    world.decide(granted(0))
    under_way: dict[str, tuple[Record, Action, object]] = {}
    for kind, first, second in steps:
        world.now += timedelta(seconds=1)
        if isinstance(first, int):
            assert isinstance(second, int)
            world.decide(revoked(first, second) if kind == "revoke" else granted(first, second))
            continue
        target = str(first)
        if kind == "ask":
            under_way[target] = world.ask(target, str(second))
        elif kind == "answer" and target in under_way:
            world.apply(target, *under_way[target])  # not removed: a second replica may bring the same answer
        elif kind == "exchange":
            world.apply(target, *world.ask(target, str(second)))
        elif kind == "settle":
            world.settle()
        elif kind == "tamper":
            assert second is None or isinstance(second, DisplayState)
            world.sites[target].state = second
        elif kind == "forget":
            world.sites[target] = Site()
    assert world.record is not None
    decided = [
        (s[1], s[2], s[0] == "revoke") for s in steps if isinstance(s[1], int) and isinstance(s[2], int)
    ]
    hours, item, is_revoked = max([(0, 1, False), *decided])
    last = revoked(hours, item) if is_revoked else granted(hours, item)
    assert world.record.decision_number == last.decision_number
    world.settle()
    # what was believed may have been tampered with since it was last looked at: the next re-check finds that
    for target in ("alpha", "beta"):
        again = world.deliveries[target]
        assert again.next_action_at is not None, "re-checks go on for ever"
        world.now = max(world.now, again.next_action_at)
        world.apply(target, *world.ask(target, "behaves"))
    world.settle()
    for target in ("alpha", "beta"):
        assert world.sites[target].state in ((PUBLISHED,) if is_revoked else (ENDED, None))
        assert world.deliveries[target].seen_version == world.record.version
    completed = [e for _, e in world.told if isinstance(e, PropagationCompleted)]
    assert completed[-1].version == world.record.version == world.record.completed_version
    assert completed[-1].target_ids == ("alpha", "beta")


@given(st.permutations([(1, 1, False), (2, 1, False), (2, 2, False), (3, 1, False), (3, 1, True)]))
def test_order_of_arrival_of_decisions_does_not_matter(order: list[tuple[int, int, bool]]) -> None:
    world = World()
    for hours, item, is_revoked in [*order, *order]:
        world.decide(revoked(hours, item) if is_revoked else granted(hours, item))
    assert world.record is not None
    assert world.record.decided_at == START + timedelta(hours=3)
    assert world.record.state is PUBLISHED, "a revocation wins over its grant, also in the same moment"
    newest_first = list(itertools.accumulate(order, max))
    assert world.record.version == len(set(newest_first)), (
        "one version for each that was the newest when it came"
    )


def test_a_decision_that_arrives_during_a_push_is_neither_lost_nor_marked_done() -> None:
    world = World()
    world.decide(granted(0))
    old = world.ask("alpha", "behaves")
    world.decide(granted(1))
    world.apply("alpha", *old)
    assert world.deliveries["alpha"].acknowledged_version == 0
    assert next_action(world.deliveries["alpha"]) is Action.PUSH
    assert not world.told


def test_a_record_without_targets_is_complete_at_once_and_once() -> None:
    world = World()
    world.decide(granted(0), ())
    world.decide(granted(0), ())
    (told,) = [event for _, event in world.told]
    assert isinstance(told, PropagationCompleted)
    assert told.target_ids == ()
    assert not world.deliveries


def test_a_target_told_once_is_told_every_later_decision_while_it_is_in_the_catalogue() -> None:
    first, _ = on_decision(None, granted(0), ["alpha", "gone"], POLICIES, {}, START)
    assert first is not None
    second, _ = on_decision(first, granted(1), ["beta"], POLICIES, {}, START)
    assert second is not None
    assert second.targets == ("beta", "alpha")


def test_drift_is_told_for_each_finding_and_pushed_again_ever_more_slowly() -> None:
    """A target that acknowledges and never shows it."""
    world = World()
    world.decide(granted(0), ("alpha",))
    waits = []
    for _ in range(12):
        world.apply("alpha", *world.ask("alpha", "only claims"))
        world.apply("alpha", *world.ask("alpha", "behaves"))
        due = world.deliveries["alpha"].next_action_at
        assert due is not None
        waits.append((due - world.now).total_seconds())
        world.now = due
    assert sum(isinstance(e, TargetDrifted) for _, e in world.told) == 12
    assert sum(isinstance(e, TargetAcknowledged) for _, e in world.told) == 12
    assert all(0.5 * min(2**n, 300) <= wait <= min(2**n, 300) for n, wait in enumerate(waits))
    assert world.deliveries["alpha"].seen_version == 0


def test_rechecks_that_see_it_right_tell_nothing_and_thin_out() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.settle()
    before, pauses = list(world.told), []
    for _ in range(4):
        due = world.deliveries["alpha"].next_action_at
        assert due is not None
        pauses.append((due - world.now).total_seconds())
        world.now = due
        world.apply("alpha", *world.ask("alpha", "behaves"))
    assert pauses == [60, 600, 600, 600]
    assert world.told == before
    world.sites["alpha"] = Site()
    world.apply("alpha", *world.ask("alpha", "behaves"))
    world.settle()
    healed = world.deliveries["alpha"]
    assert healed.next_action_at == world.now + timedelta(seconds=60), (
        "after a drift it is watched closely again"
    )
    assert healed.attempts == 0
    assert [type(e) for _, e in world.told[len(before) :]] == [
        TargetDrifted,
        TargetAcknowledged,
        TargetVerified,
    ]


def test_superseded_counts_only_when_the_decided_state_is_seen() -> None:
    """The target has a newer version than sync knows (sync's database was set back)."""
    world = World()
    world.decide(granted(0), ("alpha",))
    world.settle()
    told = len(world.told)
    world.sites["alpha"] = Site(PUBLISHED, 7)
    world.decide(granted(1), ("alpha",))
    world.apply("alpha", *world.ask("alpha", "behaves"))
    assert world.deliveries["alpha"].acknowledged_version == 1
    assert next_action(world.deliveries["alpha"]) is Action.READ_BACK
    world.apply("alpha", *world.ask("alpha", "behaves"))
    wrong = world.deliveries["alpha"]
    assert (wrong.acknowledged_version, wrong.seen_version, wrong.attempts) == (0, 0, 1)
    assert "superseded" in (wrong.last_error or "")
    world.apply("alpha", *world.ask("alpha", "behaves"))
    assert world.deliveries["alpha"].superseded
    world.decide(granted(2), ("alpha",))
    assert not world.told[told:], "a target that never acknowledged has not drifted"
    world.sites["alpha"].state = ENDED
    world.settle()
    right = world.deliveries["alpha"]
    assert right.acknowledged_version == right.seen_version == 3
    assert [type(e) for _, e in world.told[told:]] == [TargetVerified, PropagationCompleted]


def test_a_target_nobody_can_read_is_settled_by_its_acknowledgement_and_never_verified() -> None:
    world = World()
    world.decide(granted(0), ("mute",))
    world.apply("mute", *world.ask("mute", "behaves"))
    assert world.deliveries["mute"].next_action_at is None
    assert [type(e) for _, e in world.told] == [TargetAcknowledged, PropagationCompleted]


def test_a_longer_wait_the_target_asks_for_is_honoured() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    assert world.record is not None
    world.apply("alpha", world.record, Action.PUSH, Failure("HTTP 503", timedelta(minutes=10)))
    assert world.deliveries["alpha"].next_action_at == START + timedelta(minutes=10)


def test_completion_waits_for_the_slowest_target_even_if_an_earlier_one_drifts_meanwhile() -> None:
    world = World()
    world.decide(granted(0))
    for behaviour in ("behaves", "behaves"):
        world.apply("alpha", *world.ask("alpha", behaviour))
    world.sites["alpha"] = Site()
    world.apply("alpha", *world.ask("alpha", "behaves"))
    for behaviour in ("behaves", "behaves"):
        world.apply("beta", *world.ask("beta", behaviour))
    assert not any(isinstance(e, PropagationCompleted) for _, e in world.told), "alpha does not show it now"
    world.settle()
    assert sum(isinstance(e, PropagationCompleted) for _, e in world.told) == 1


def test_an_answer_changes_only_the_delivery_it_is_about() -> None:
    """A view that came before the push it should confirm proves nothing."""
    world = World()
    world.decide(granted(0), ("alpha",))
    before = world.deliveries["alpha"]
    assert world.record is not None
    view = RecordView(record=KEY, state=ENDED)
    assert after_read_back(before, world.record, view, POLICIES["alpha"], world.now) == (before, ())
    newer = replace(world.record, version=2)
    assert after_push(before, newer, Failure("x"), POLICIES["alpha"], world.now) == (before, ())


def test_a_view_of_an_earlier_decision_proves_nothing_about_the_current_one() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.apply("alpha", *world.ask("alpha", "behaves"))
    stale = world.ask("alpha", "behaves")
    assert stale[1] is Action.READ_BACK
    world.decide(granted(1), ("alpha",))
    world.apply("alpha", *world.ask("alpha", "behaves"))
    world.apply("alpha", *stale)
    assert world.deliveries["alpha"].seen_version == 0


def test_what_a_target_does_not_show_at_all_is_not_published() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.apply("alpha", *world.ask("alpha", "only claims"))
    world.sites["alpha"].state = None
    world.apply("alpha", *world.ask("alpha", "behaves"))
    assert (world.deliveries["alpha"].seen_version, world.deliveries["alpha"].seen_state) == (1, None)


def test_what_has_to_be_shown_again_and_is_not_shown_at_all_is_a_difference() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.settle()
    world.decide(revoked(1), ("alpha",))
    world.settle()
    assert (world.sites["alpha"].state, world.sites["alpha"].version) == (PUBLISHED, 2)
    world.sites["alpha"].state = None
    world.apply("alpha", *world.ask("alpha", "behaves"))
    drifted = world.told[-1][1]
    assert isinstance(drifted, TargetDrifted)
    assert (drifted.state, drifted.seen_state) == (PUBLISHED, ENDED)
    world.settle()
    assert world.sites["alpha"].state is PUBLISHED
