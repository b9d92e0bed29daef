"""Sync's pure decisions: whatever targets, the network and later decisions do, every target ends up showing the last decision."""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.target_samples import KEY, POLICIES, Site

from contracts.events import (
    Event,
    PropagationCompleted,
    RepairGranted,
    RepairRevoked,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
)
from contracts.history import Kind
from contracts.http.target import RecordView, RepairResult, RepairStatus
from contracts.records import DepartmentRef, DisplayState, RecordFacts, SubjectType
from sync.desired import Record, idempotency_key, on_decision
from sync.domain import (
    Action,
    Delivery,
    Failure,
    after_push,
    after_read_back,
    cause_of,
    complete,
    next_action,
    redirect,
    settled,
)
from sync.facts import step_fact
from sync.history import Fact

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
RECORD_ID = "rec_" + "1" * 32
PUBLISHED, ENDED = DisplayState.PUBLISHED, DisplayState.PUBLICATION_ENDED


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
class World:
    """Sync's documents about one record, the sites it pushes to, and all events told."""

    record: Record | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=lambda: {name: Site() for name in POLICIES})
    now: datetime = START
    told: list[tuple[str, Event]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def decide(
        self, event: RepairGranted | RepairRevoked, targets: tuple[str, ...] = ("alpha", "beta")
    ) -> None:
        record = on_decision(self.record, event, targets, POLICIES, {})
        if record is None:
            return
        self.record = record
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
        if fact := step_fact(action, before, after, record, answer):
            self.facts.append(fact)
        if settled(after, POLICIES[target]) and not settled(before, POLICIES[target]):
            self.try_complete()
        self.check()

    def try_complete(self) -> None:
        assert self.record is not None
        self.record, events = complete(self.record, list(self.deliveries.values()), POLICIES, self.now)
        self.told += [(f"{RECORD_ID}:{self.record.version}", event) for event in events]

    def ask(
        self, target: str, *, only_claims: bool = False
    ) -> tuple[Record, Action, RepairResult | RecordView]:
        """The request and its answer; a site that only claims says it has applied what it has not."""
        assert self.record is not None
        action, site, record = next_action(self.deliveries[target]), self.sites[target], self.record
        if action is Action.READ_BACK:
            return record, action, site.view()
        status = RepairStatus.APPLIED if only_claims else site.take(record)
        key = idempotency_key(target, RECORD_ID, record.version)
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
        seen = {fact.chain: fact.facts for fact in self.facts if "right" in fact.facts}
        for delivery in self.deliveries.values():
            last = seen.get(delivery.id, {})
            right = last.get("version") == delivery.desired_version and last["right"]
            assert right == (delivery.seen_version == delivery.desired_version), "the history alone tells it"
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
            self.apply(first.target_id, *self.ask(first.target_id))
        pytest.fail(f"does not converge: {self.deliveries}")


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
    old = world.ask("alpha")
    world.decide(granted(1))
    world.apply("alpha", *old)
    assert world.deliveries["alpha"].acknowledged_version == 0
    assert next_action(world.deliveries["alpha"]) is Action.PUSH
    assert not world.told


def test_a_target_told_once_is_told_every_later_decision_while_it_is_in_the_catalogue() -> None:
    first = on_decision(None, granted(0), ["alpha", "gone"], POLICIES, {})
    assert first is not None
    second = on_decision(first, granted(1), ["beta"], POLICIES, {})
    assert second is not None
    assert second.targets == ("beta", "alpha")


def test_drift_is_told_for_each_finding_and_pushed_again_ever_more_slowly() -> None:
    """A target that acknowledges and never shows it."""
    world = World()
    world.decide(granted(0), ("alpha",))
    waits = []
    for _ in range(12):
        world.apply("alpha", *world.ask("alpha", only_claims=True))
        world.apply("alpha", *world.ask("alpha"))
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
    before, facts, pauses = list(world.told), list(world.facts), []
    for _ in range(4):
        due = world.deliveries["alpha"].next_action_at
        assert due is not None
        pauses.append((due - world.now).total_seconds())
        world.now = due
        world.apply("alpha", *world.ask("alpha"))
    assert pauses == [60, 600, 600, 600]
    assert world.told == before
    assert world.facts == facts
    assert [fact.kind for fact in facts] == [Kind.PUSH, Kind.READING]
    for fact, answer in ((1, Failure("no answer")), (0, Failure("no answer")), (1, None), (0, None)):
        told = len(world.facts)
        record, action, view = world.ask("alpha")
        world.apply("alpha", record, action, answer or view)
        assert len(world.facts) - told == fact, "a failure, and that it is over, are told once"
    told = len(world.facts)
    world.sites["alpha"].version += 1
    world.apply("alpha", *world.ask("alpha"))
    assert len(world.facts) == told + 1, "the same state of another push is something else"
    world.sites["alpha"] = Site()
    world.apply("alpha", *world.ask("alpha"))
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
    world.apply("alpha", *world.ask("alpha"))
    assert world.deliveries["alpha"].acknowledged_version == 1
    assert next_action(world.deliveries["alpha"]) is Action.READ_BACK
    world.apply("alpha", *world.ask("alpha"))
    wrong = world.deliveries["alpha"]
    assert (wrong.acknowledged_version, wrong.seen_version, wrong.attempts) == (0, 0, 1)
    assert "superseded" in (wrong.last_error or "")
    world.apply("alpha", *world.ask("alpha"))
    assert world.deliveries["alpha"].superseded
    world.decide(granted(2), ("alpha",))
    assert not world.told[told:], "a target that never acknowledged has not drifted"
    world.sites["alpha"].state = ENDED
    world.settle()
    right = world.deliveries["alpha"]
    assert right.acknowledged_version == right.seen_version == 3
    assert [e.TYPE for _, e in world.told[told:]] == [TargetVerified.TYPE, PropagationCompleted.TYPE]


def test_a_target_nobody_can_read_is_settled_by_its_acknowledgement_and_never_verified() -> None:
    world = World()
    world.decide(granted(0), ("mute",))
    world.apply("mute", *world.ask("mute"))
    assert world.deliveries["mute"].next_action_at is None
    assert [e.TYPE for _, e in world.told] == [TargetAcknowledged.TYPE, PropagationCompleted.TYPE]


def test_a_longer_wait_the_target_asks_for_is_honoured() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    assert world.record is not None
    world.apply("alpha", world.record, Action.PUSH, Failure("HTTP 503", timedelta(minutes=10)))
    assert world.deliveries["alpha"].next_action_at == START + timedelta(minutes=10)


def test_completion_waits_for_the_slowest_target_even_if_an_earlier_one_drifts_meanwhile() -> None:
    world = World()
    world.decide(granted(0))
    for _ in range(2):
        world.apply("alpha", *world.ask("alpha"))
    world.sites["alpha"] = Site()
    world.apply("alpha", *world.ask("alpha"))
    for _ in range(2):
        world.apply("beta", *world.ask("beta"))
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
    world.apply("alpha", *world.ask("alpha"))
    stale = world.ask("alpha")
    assert stale[1] is Action.READ_BACK
    world.decide(granted(1), ("alpha",))
    world.apply("alpha", *world.ask("alpha"))
    world.apply("alpha", *stale)
    assert world.deliveries["alpha"].seen_version == 0


def test_what_a_target_does_not_show_at_all_is_not_published() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.apply("alpha", *world.ask("alpha", only_claims=True))
    world.sites["alpha"].state = None
    world.apply("alpha", *world.ask("alpha"))
    assert (world.deliveries["alpha"].seen_version, world.deliveries["alpha"].seen_state) == (1, None)


def test_what_has_to_be_shown_again_and_is_not_shown_at_all_is_a_difference() -> None:
    world = World()
    world.decide(granted(0), ("alpha",))
    world.settle()
    world.decide(revoked(1), ("alpha",))
    world.settle()
    assert (world.sites["alpha"].state, world.sites["alpha"].version) == (PUBLISHED, 2)
    world.sites["alpha"].state = None
    world.apply("alpha", *world.ask("alpha"))
    drifted = world.told[-1][1]
    assert isinstance(drifted, TargetDrifted)
    assert (drifted.state, drifted.seen_state) == (PUBLISHED, ENDED)
    world.settle()
    assert world.sites["alpha"].state is PUBLISHED
