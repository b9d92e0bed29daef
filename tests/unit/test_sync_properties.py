"""sync: whatever decisions, targets and the network do, in any order, every target ends up showing the last decision."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from unit.interleavings import Consumer, batches, received
from unit.target_samples import KEY, POLICIES, Site, policy

from chassis.db import Session
from chassis.inbox import Received
from contracts.catalogue import load_catalogue
from contracts.clock import china_date
from contracts.events import (
    Event,
    PropagationCompleted,
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    RepairGranted,
    RepairRevoked,
    ReviewAccepted,
    TargetDrifted,
    TargetEvent,
    TargetVerified,
)
from contracts.http.target import RecordView, RepairResult, RepairStatus
from contracts.records import DepartmentRef, DisplayState, RecordFacts, SubjectType
from contracts.working_days import LIBRARY_CALENDAR
from sync.desired import Record, on_decision, on_expiry
from sync.domain import (
    Action,
    Delivery,
    Failure,
    after_push,
    after_read_back,
    cause_of,
    clocked,
    complete,
    delivery_id,
    next_action,
    notice_day,
    redirect,
    settled,
)
from sync.handlers import DecisionHandler
from sync.history import Fact
from sync.store import Store

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
PUBLISHED, ENDED = DisplayState.PUBLISHED, DisplayState.PUBLICATION_ENDED
DEPARTMENT = DepartmentRef(code="11330100002489591C", slug="hangzhou-jyj", name="杭州市教育局")
Ruling = RepairGranted | RepairRevoked


names = st.sampled_from(sorted(POLICIES))


def ruling(cls: type[Ruling], record: int, item: int, microseconds: int) -> Ruling:
    facts = RecordFacts(
        record_id=f"rec_{record:032x}",
        subject_id="sub_" + "2" * 32,
        subject_type=SubjectType.LEGAL_PERSON,
        category="administrative_penalty",
        document_number=KEY.document_number,
        authority_code=None,
        authority_name=KEY.authority_name,
        decided_on=date(2026, 1, 5),
        penalty_kinds=f"as item {item} has it",
    )
    return cls.model_validate(
        {
            "application_id": f"app_{item:032x}",
            "item_id": f"itm_{item:032x}",
            "record_id": facts.record_id,
            "subject_id": facts.subject_id,
            "department": DEPARTMENT,
            "record": facts,
            "decision_number": f"{cls.__name__}〔2026〕{microseconds}号",
            "decided_at": START + timedelta(microseconds=microseconds),
            "reason": "材料虚假",
        }
    )


def expiry(record: int) -> PublicationExpired:
    """The maximum period of a record has passed; what is decided about it stands over that, whenever it comes."""
    facts = ruling(RepairGranted, record, 0, 0).record
    rule = {"ended_on": START.date(), "rule": "3", "source": "规则", "noticed_at": START}
    return PublicationExpired.model_validate({"record_id": facts.record_id, "record": facts, **rule})


CHANGES = {
    PublicationChange.WITHDRAWN: DisplayState.PUBLICATION_ENDED,
    PublicationChange.PUBLISHED_AGAIN: DisplayState.PUBLISHED,
    PublicationChange.SHIELDED: DisplayState.SHIELDED,
    PublicationChange.PLAN_PERFORMED: DisplayState.PUBLICATION_ENDED,
    PublicationChange.PLAN_FAILED: DisplayState.PUBLISHED,
    PublicationChange.REPAIRED_ELSEWHERE: DisplayState.PUBLICATION_ENDED,
    PublicationChange.CORRECTED: DisplayState.PUBLISHED,
}


def changed(record: int, revision: int, change: PublicationChange) -> PublicationChanged:
    """Something was told of the record itself."""
    facts = ruling(RepairGranted, record, 0, 0).record
    return PublicationChanged(
        record_id=facts.record_id,
        subject_id=facts.subject_id,
        record=facts,
        change=change,
        state=CHANGES[change],
        number=f"裁定{revision}",
        revision=revision,
        changed_at=START,
    )


def changes(record: int) -> st.SearchStrategy[list[PublicationChanged]]:
    """What is told of one record, in order of the revisions."""
    found = st.lists(st.sampled_from(sorted(PublicationChange)), max_size=4)
    return found.map(lambda each: [changed(record, n, change) for n, change in enumerate(each, 1)])


@st.composite
def rulings(draw: st.DrawFn, record: int, first_item: int = 0) -> list[list[Ruling]]:
    """A stream for each of several items of one record: granted, perhaps revoked. Different items may be ruled at once."""
    streams = []
    for item in range(first_item, first_item + draw(st.integers(1, 3))):
        granted = draw(st.integers(0, 4))
        stream = [ruling(RepairGranted, record, item, granted)]
        if draw(st.booleans()):
            # at once, too: a producer whose clock is coarse
            stream.append(ruling(RepairRevoked, record, item, granted + draw(st.integers(0, 4))))
        streams.append(stream)
    return streams


def last(told: Iterable[Ruling]) -> Ruling:
    """The one that has to be shown in the end."""
    return max(told, key=lambda e: (e.decided_at, e.item_id, isinstance(e, RepairRevoked)))


def desired(event: Ruling) -> DisplayState:
    return PUBLISHED if isinstance(event, RepairRevoked) else ENDED


@dataclass
class Request:
    """A push or a look under way. ``answer`` is what the site said when the request last reached it."""

    target: str
    record: Record
    action: Action
    answer: RepairStatus | RecordView | None = None


class Propagating(RuleBasedStateMachine):
    """One record at three targets. Requests reach a target late, twice, out of order or not at all; so do its answers."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[list[Ruling]] = []
        self.arrived: list[int] = []
        self.record: Record | None = None
        self.deliveries: dict[str, Delivery] = {}
        self.sites = {name: Site() for name in POLICIES}
        self.now = START
        self.told: list[tuple[str, Event]] = []
        self.decided: dict[int, Ruling] = {}

    @initialize(streams=rulings(1))
    def begin(self, streams: list[list[Ruling]]) -> None:
        self.streams, self.arrived = streams, [0] * len(streams)

    # --- decisions

    def decide(self, event: Ruling, shown_at: Iterable[str]) -> None:
        before = self.record
        after = on_decision(before, event, sorted(shown_at), POLICIES, {})
        if after is None:
            return
        assert after.version == (before.version + 1 if before else 1)
        self.record, self.decided[after.version] = after, event
        if not after.targets:
            self.record, done = complete(after, [], POLICIES, self.now)
            self.told += [(f"{event.item_id} {type(event)}", each) for each in done]
        for target in after.targets:
            turned = redirect(self.deliveries.get(target), after, target, self.now)
            delivery = clocked(turned, POLICIES[target], self.now)
            assert (next_action(delivery), delivery.next_action_at) == (Action.PUSH, self.now)
            self.deliveries[target] = delivery

    @rule(data=st.data(), shown_at=st.sets(names))
    def decision_arrives(self, data: st.DataObject, shown_at: set[str]) -> None:
        """The next of one of the items, or one that came before, under another event id."""
        n = data.draw(st.integers(0, len(self.streams) - 1))
        position = data.draw(st.integers(0, min(self.arrived[n], len(self.streams[n]) - 1)))
        self.arrived[n] = max(self.arrived[n], position + 1)
        self.decide(self.streams[n][position], shown_at)

    @rule(shown_at=st.sets(names))
    def period_passes(self, shown_at: set[str]) -> None:
        """Nobody decides: who can be looked at is, and told only if it still shows the record. No event tells of it."""
        after = on_expiry(self.record, expiry(1), sorted(shown_at), POLICIES, {})
        assert (after is None) == (self.record is not None or not shown_at)
        if after is None:
            return
        self.record = after
        for target in after.targets:
            turned = redirect(self.deliveries.get(target), after, target, self.now)
            delivery = clocked(turned, POLICIES[target], self.now)
            looks = POLICIES[target].reads_back
            assert next_action(delivery) is (Action.READ_BACK if looks else Action.PUSH)
            self.deliveries[target] = delivery

    # --- requests and answers

    @precondition(lambda self: self.deliveries)
    @rule(target=requests, data=st.data())
    def ask(self, data: st.DataObject) -> Request:
        assert self.record is not None
        name = data.draw(st.sampled_from(sorted(self.deliveries)))
        return Request(name, self.record, next_action(self.deliveries[name]))

    @rule(request=requests, keeps_order=st.booleans())
    def reach(self, request: Request, keeps_order: bool) -> None:
        """The request is processed, again or for the first time. A careless target takes an older version after a newer one."""
        site = self.sites[request.target]
        if request.action is Action.READ_BACK:
            request.answer = site.view()
        else:
            if not keeps_order:
                site.version = 0
            request.answer = site.take(request.record)

    @rule(request=requests, lost=st.booleans())
    def answer(self, request: Request, lost: bool) -> None:
        """The answer arrives, perhaps once more, or the request is given up."""
        told = Failure("timeout") if lost or request.answer is None else request.answer
        self.take_in(request.target, request.record, request.action, told)

    def take_in(
        self, target: str, record: Record, action: Action, told: RepairStatus | RecordView | Failure
    ) -> None:
        """What the driver does in its transaction."""
        before, own = self.deliveries[target], POLICIES[target]
        if action is Action.PUSH:
            assert not isinstance(told, RecordView)
            result = told if isinstance(told, Failure) else RepairResult(idempotency_key="k", status=told)
            after, events = after_push(before, record, result, own, self.now)
        else:
            assert not isinstance(told, RepairStatus)
            after, events = after_read_back(before, record, told, own, self.now)
        if record.version != before.desired_version or action is not next_action(before):
            assert (after, events) == (before, ()), "what answers no open question changes nothing"
        self.deliveries[target] = after
        self.told += [(cause_of(after), event) for event in events]
        assert after.next_action_at is None or after.next_action_at <= max(
            before.next_action_at or START, self.now + timedelta(seconds=600)
        )
        if settled(after, own) and not settled(before, own):
            assert self.record is not None
            self.record, done = complete(self.record, list(self.deliveries.values()), POLICIES, self.now)
            self.told += [(f"completed {self.record.version}", event) for event in done]

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def exchange(self, data: st.DataObject) -> None:
        """All goes well for once."""
        self.step(data.draw(st.sampled_from(sorted(self.deliveries))))

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), status=st.sampled_from(RepairStatus))
    def deceive(self, data: st.DataObject, status: RepairStatus) -> None:
        """The target answers a push with what is not so."""
        name = data.draw(st.sampled_from(sorted(self.deliveries)))
        assert self.record is not None
        if next_action(self.deliveries[name]) is Action.PUSH:
            self.take_in(name, self.record, Action.PUSH, status)

    # --- what else happens outside

    @rule(name=names, state=st.sampled_from([PUBLISHED, ENDED, None]))
    def tamper(self, name: str, state: DisplayState | None) -> None:
        self.sites[name].state = state

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.sites[name] = Site()

    @rule(seconds=st.integers(1, 1000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(days=st.integers(0, 12))
    def days_pass(self, days: int) -> None:
        """Who does not show it within three working days is named, once for each difference."""
        self.now += timedelta(days=days)
        for name, before in self.deliveries.items():
            assert self.record is not None
            after, events = notice_day(before, self.record, POLICIES[name], self.now)
            assert notice_day(after, self.record, POLICIES[name], self.now) == (after, ())
            by = before.due_on
            late = by is not None and by < china_date(self.now) and before.overdue_told != by
            assert bool(events) == (late and not self.record.expired)
            assert after.overdue_told == by or not late
            self.deliveries[name] = after
            self.told += [(f"{name} {self.record.version} {after.overdue_told}", each) for each in events]

    # --- what holds

    @invariant()
    def believed_is_at_most_desired(self) -> None:
        for delivery in self.deliveries.values():
            assert self.record is not None
            assert delivery.desired_version == self.record.version
            assert delivery.seen_version <= delivery.acknowledged_version <= delivery.desired_version
            needs_more = not settled(delivery, POLICIES[delivery.target_id])
            assert (delivery.differs_since is not None) == needs_more
            assert not needs_more or delivery.next_action_at is not None, "nobody would ever look again"
            assert (delivery.due_on is not None) == needs_more, "there is a day for every difference"
            if delivery.due_on is not None:
                assert LIBRARY_CALENDAR.is_working_day(delivery.due_on)

    @invariant()
    def the_last_decision_of_those_that_arrived_is_desired(self) -> None:
        known = [e for stream, n in zip(self.streams, self.arrived, strict=True) for e in stream[:n]]
        if known and self.record is not None:
            event = last(known)
            assert (self.record.state, self.record.facts) == (desired(event), event.record)
            assert self.record.decision_number == event.decision_number
        if self.record is None or self.record.expired:
            assert not known
            assert not self.told
            assert self.record is None or self.record.state is ENDED
        else:
            assert known

    @invariant()
    def what_is_told_is_consistent(self) -> None:
        ids = Counter((cause, event.TYPE) for cause, event in self.told)
        assert max(ids.values(), default=0) <= 1, "two events would have the same id"
        versions = [e.version for _, e in self.told if isinstance(e, TargetEvent | PropagationCompleted)]
        assert versions == sorted(versions), "nothing is told of an older version after a newer one"
        right: dict[tuple[str, int], bool] = {}
        done: Counter[int] = Counter()
        for _, event in self.told:
            if isinstance(event, TargetEvent | PropagationCompleted):
                decision = self.decided[event.version]
                assert (event.state, event.item_id) == (desired(decision), decision.item_id)
            if isinstance(event, TargetVerified | TargetDrifted):
                place = (event.target_id, event.version)
                verified = isinstance(event, TargetVerified)
                assert not (verified and right.get(place)), "told once, and again after a drift only"
                right[place] = verified
            if isinstance(event, PropagationCompleted):
                done[event.version] += 1
        assert max(done.values(), default=0) <= 1

    def teardown(self) -> None:
        """From here on decisions stop, targets and network behave: few steps lead to what was decided, from any state."""
        for stream, n in zip(self.streams, self.arrived, strict=True):
            for event in stream[n:]:
                self.decide(event, ["alpha"])
        if self.record is None:
            return
        self.converge()
        # What was seen may have been changed since, in any way: the next re-check finds out.
        for change in (None, PUBLISHED, ENDED):
            self.look_again()
            for site in self.sites.values():
                site.state = change
            self.look_again()
        done = [e for _, e in self.told if isinstance(e, PropagationCompleted)]
        assert [e.version for e in done].count(self.record.version) == 1
        assert done[-1].target_ids == tuple(sorted(self.deliveries))

    def look_again(self) -> None:
        for name in self.deliveries:
            self.step(name)
        self.converge()
        self.what_is_told_is_consistent()
        end = desired(last(e for stream in self.streams for e in stream))
        for name in self.deliveries:
            if POLICIES[name].reads_back:
                assert self.sites[name].state in ({ENDED, None} if end is ENDED else {PUBLISHED})

    def converge(self) -> None:
        """A read-back that finds it wrong, a push, a read-back: three steps for a target at most."""
        for name in self.deliveries:
            for _ in range(3):
                if not settled(self.deliveries[name], POLICIES[name]):
                    self.step(name)
            assert settled(self.deliveries[name], POLICIES[name]), f"{name} does not converge"

    def step(self, name: str) -> None:
        """The next request to a target when it is due, with its answer at once."""
        due = self.deliveries[name].next_action_at
        if due is None:
            return
        self.now = max(self.now, due)
        assert self.record is not None
        request = Request(name, self.record, next_action(self.deliveries[name]))
        self.reach(request, keeps_order=True)
        self.answer(request, lost=False)
        self.believed_is_at_most_desired()


TestPropagating = Propagating.TestCase
TestPropagating.settings = settings(max_examples=250, stateful_step_count=40)


# --- the consumer ----------------------------------------------------------------------------------------


class Documents:
    """Sync's store in memory."""

    def __init__(self) -> None:
        self.decided: dict[str, Record] = {}
        self.at_targets: dict[str, Delivery] = {}
        self.history = self
        self.written: list[Fact] = []

    async def append(self, facts: Sequence[Fact], _now: datetime, _session: Session) -> None:
        self.written += facts

    async def records(self, ids: Iterable[str], _session: Session) -> dict[str, Record]:
        return {i: self.decided[i] for i in ids if i in self.decided}

    async def deliveries(self, records: Iterable[Record], _session: Session) -> dict[str, Delivery]:
        ids = [delivery_id(target, record.record_id) for record in records for target in record.targets]
        return {i: self.at_targets[i] for i in ids if i in self.at_targets}

    async def save_decided(
        self, records: Sequence[Record], deliveries: Sequence[Delivery], _session: Session
    ) -> None:
        self.decided |= {record.record_id: record for record in records}
        self.at_targets |= {delivery.id: delivery for delivery in deliveries}


CATALOGUE = load_catalogue()
CATALOGUE_POLICIES = {
    target.id: replace(policy(target.id), target_name=target.name) for target in CATALOGUE.targets
}


@st.composite
def histories(draw: st.DrawFn) -> list[list[Received]]:
    """Streams of decisions about items of up to three records, acceptances among them."""
    streams = []
    for record in range(draw(st.integers(1, 3))):
        for stream in draw(rulings(record, first_item=record * 3)):
            accepted = ReviewAccepted.model_validate(
                {**stream[0].model_dump(), "accepted_at": stream[0].decided_at}
            )
            streams.append([received(event) for event in (accepted, *stream)])
        if draw(st.booleans()):
            streams.append([received(expiry(record))])
        if told := draw(changes(record)):
            streams.append([received(event) for event in told])
    return streams


def test_what_no_target_shows_is_complete_at_once_and_once() -> None:
    granted = ruling(RepairGranted, 1, 0, 0)
    by_hand = granted.model_copy(update={"record": granted.record.reduced()})
    handler = DecisionHandler(CATALOGUE, CATALOGUE_POLICIES, cast(Store, Documents()), {})
    consumer = Consumer(handler)
    for event_id in ("1", "2"):
        consumer.take([received(by_hand, event_id)], inbox=True)
    (told,) = consumer.told
    assert isinstance(told, PropagationCompleted)
    assert told.target_ids == ()


@given(data=st.data(), streams=histories(), inbox=st.booleans())
def test_any_delivery_of_decisions_ends_in_the_same_desired_states(
    data: st.DataObject, streams: list[list[Received]], inbox: bool
) -> None:
    """Only the version number tells in which order they came: it counts those that were the newest when they came."""
    documents = Documents()
    woken: set[str] = set()
    wakes = {target_id: partial(woken.add, target_id) for target_id in CATALOGUE_POLICIES}
    handler = DecisionHandler(CATALOGUE, CATALOGUE_POLICIES, cast(Store, documents), wakes)
    consumer = Consumer(handler)
    for batch in data.draw(batches(streams)):
        consumer.take(batch, inbox=inbox)
    by_record: dict[str, list[Ruling]] = {}
    words: dict[str, list[PublicationChanged]] = {}
    for r in (r for stream in streams for r in stream):
        if isinstance(r.event, Ruling):
            by_record.setdefault(r.event.record_id, []).append(r.event)
        if isinstance(r.event, PublicationChanged):
            words.setdefault(r.event.record_id, []).append(r.event)
    assert set(documents.decided) == set(by_record)
    assert woken == {each.target_id for each in documents.at_targets.values()}, "who has work is told"
    for record_id, told in by_record.items():
        record, event = documents.decided[record_id], last(told)
        word = words[record_id][-1] if record_id in words else None
        if word is not None and desired(event) is PUBLISHED and word.state is not PUBLISHED:
            # a repair that does not stand brings back what the record itself is to be shown as
            shown: tuple[DisplayState, str | None, str] = (word.state, None, word.number)
        else:
            shown = (desired(event), event.item_id, event.decision_number)
        assert (record.state, record.item_id, record.decision_number) == shown
        # the facts are those of whoever was told last
        assert record.facts == event.record or word is not None
        assert 1 <= record.version <= len(told) + 1 + len(words.get(record_id, []))
        assert not record.expired
        in_history = [fact.facts["version"] for fact in documents.written if fact.record_id == record_id]
        assert in_history == list(range(1, record.version + 1))
        shown_at = CATALOGUE.targets_for(event.record.category, event.record.subject_type)
        assert sorted(record.targets) == sorted(target.id for target in shown_at)
        for target in record.targets:
            delivery = documents.at_targets[delivery_id(target, record_id)]
            assert delivery.desired_version == record.version
            assert next_action(delivery) is Action.PUSH
    assert not consumer.told
