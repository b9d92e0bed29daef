"""A record's content is corrected: whatever else is told of it, in whatever order, what is read where it is shown is the last word."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from unit.target_samples import KEY, POLICIES, Site, policy
from unit.test_sync_domain import START
from unit.test_sync_properties import CHANGES, changed, desired, last, ruling, rulings

from contracts.events import (
    PublicationChange,
    PublicationChanged,
    RepairGranted,
    RepairRevoked,
    TargetDrifted,
)
from contracts.http.target import RecordView, RepairResult, RepairStatus
from contracts.records import DisplayState, RecordContent
from sync.desired import Record, is_outdated, on_change, on_decision, shows
from sync.domain import (
    Action,
    Delivery,
    Failure,
    after_push,
    after_read_back,
    after_visit,
    complete,
    hold,
    join,
    next_action,
    redirect,
    settled,
)

Decision = RepairGranted | RepairRevoked
PUBLISHED, ENDED = DisplayState.PUBLISHED, DisplayState.PUBLICATION_ENDED
OLD = RecordContent(decided_on=date(2026, 1, 5), penalty_kinds="罚款")
PAPER = policy("paper", reads_back=False, by_letter=True)
ALL = {**POLICIES, "paper": PAPER}


def content(number: int) -> RecordContent:
    return RecordContent(decided_on=date(2026, 2, number), penalty_kinds="警告" if number % 2 else "")


def word(revision: int, change: PublicationChange, said: RecordContent | None) -> PublicationChanged:
    return changed(1, revision, change).model_copy(update={"content": said})


def corrected(revision: int = 1) -> PublicationChanged:
    return word(revision, PublicationChange.CORRECTED, content(revision))


def first_correction() -> Record:
    record = on_change(None, corrected(), ["alpha", "mute"], POLICIES, {})
    assert record is not None
    return record


@st.composite
def words(draw: st.DrawFn) -> list[PublicationChanged]:
    """What intake tells of the record itself: once corrected, each word says what has to be read."""
    told: list[PublicationChanged] = []
    said: RecordContent | None = None
    for revision, change in enumerate(draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=5)), 1):
        if change is PublicationChange.CORRECTED:
            said = content(revision)
        told.append(word(revision, change, said))
    return told


class Correcting(RuleBasedStateMachine):
    """One record at two targets that can be looked at, of which one tells what is read there, and one that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[PublicationChanged] = []
        self.streams: list[list[Decision]] = []
        self.heard: list[PublicationChanged] = []
        self.came: list[PublicationChanged] = []
        self.decided: list[Decision] = []
        self.record: Record | None = None
        self.deliveries: dict[str, Delivery] = {}
        self.sites = {name: Site(content=OLD, tells=name == "beta") for name in POLICIES}
        self.now = START

    @initialize(words=words(), streams=rulings(1))
    def begin(self, words: list[PublicationChanged], streams: list[list[Decision]]) -> None:
        self.words, self.streams = words, streams

    def turn(self, after: Record | None) -> None:
        before, self.record = self.record, after or self.record
        if after is None or (before is not None and after.version == before.version):
            return
        assert after.version == (before.version + 1 if before else 1)
        for target in after.targets:
            self.deliveries[target] = redirect(self.deliveries.get(target), after, target, self.now)

    @precondition(lambda self: len(self.heard) < len(self.words))
    @rule(skipped=st.booleans())
    def word_arrives(self, skipped: bool) -> None:
        """One after the other, or one never comes."""
        here = len(self.heard) + (skipped and len(self.heard) + 1 < len(self.words))
        self.turn(on_change(self.record, self.words[here], sorted(POLICIES), POLICIES, {}))
        self.came.append(self.words[here])
        self.heard = self.words[: here + 1]

    @precondition(lambda self: any(self.streams))
    @rule(data=st.data())
    def decision_arrives(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([each for each in self.streams if each]))
        self.decided.append(stream.pop(0))
        self.turn(on_decision(self.record, self.decided[-1], sorted(POLICIES), POLICIES, {}))

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), lost=st.booleans())
    def ask(self, data: st.DataObject, lost: bool) -> None:
        self.step(data.draw(st.sampled_from(sorted(self.deliveries))), lost=lost)

    @rule(
        name=st.sampled_from(sorted(POLICIES)),
        state=st.sampled_from([PUBLISHED, ENDED, None]),
        said=st.sampled_from([OLD, content(1), content(2)]),
    )
    def tamper(self, name: str, state: DisplayState | None, said: RecordContent) -> None:
        self.sites[name].state = state
        if self.sites[name].tells:
            self.sites[name].content = said

    @rule(name=st.sampled_from(sorted(POLICIES)))
    def forget(self, name: str) -> None:
        self.sites[name] = Site(content=OLD, tells=self.sites[name].tells)

    def step(self, name: str, *, lost: bool = False) -> None:
        assert self.record is not None
        site, own, delivery = self.sites[name], POLICIES[name], self.deliveries[name]
        if next_action(delivery) is Action.PUSH:
            status = site.take(self.record)
            answer = RepairResult(idempotency_key="k", status=status)
            after, _ = after_push(delivery, self.record, Failure("lost") if lost else answer, own, self.now)
        else:
            view = Failure("lost") if lost else site.view()
            after, events = after_read_back(delivery, self.record, view, own, self.now)
            for event in events:
                assert not (isinstance(event, TargetDrifted) and event.outdated) or site.state is PUBLISHED
        self.deliveries[name] = after

    def teardown(self) -> None:
        """Every word and decision that came has its effect, wherever one can look, within a look, a push and a look."""
        if self.record is None:
            assert not self.decided
            assert all(each.content is None and each.state is PUBLISHED for each in self.came)
            return
        nothing_else = all(each.state is PUBLISHED for each in self.came)
        assert self.record.only_corrected == (nothing_else and not self.decided)
        for name, own in POLICIES.items():
            for _ in range(4):
                if name in self.deliveries:
                    self.step(name)
            assert name not in self.deliveries or settled(self.deliveries[name], own)
        said, state = self.expected()
        for name in [name for name, own in POLICIES.items() if own.reads_back]:
            site = self.sites[name]
            if state is not PUBLISHED:
                assert site.state in (None, state)
            elif site.state is PUBLISHED:
                assert said is None or site.content == said, name
            else:
                assert self.record.only_corrected

    def expected(self) -> tuple[RecordContent | None, DisplayState]:
        told = self.heard[-1] if self.heard else None
        if self.decided and desired(last(self.decided)) is ENDED:
            return None, ENDED
        return (told.content, told.state) if told else (None, PUBLISHED)


TestCorrecting = Correcting.TestCase
TestCorrecting.settings = settings(max_examples=250, stateful_step_count=30)


def test_of_what_was_only_corrected_a_target_is_told_only_where_it_reads_otherwise() -> None:
    record = first_correction()
    assert (record.state, record.content, record.item_id) == (PUBLISHED, content(1), None)
    at = {name: redirect(None, record, name, START) for name in record.targets}
    assert [next_action(each) for each in at.values()] == [Action.READ_BACK, Action.PUSH]
    looks = {
        "already": RecordView(record=KEY, state=PUBLISHED, content=content(1)),
        "not shown": RecordView(record=KEY, state=None),
        "ended there": RecordView(record=KEY, state=ENDED, content=OLD),
    }
    for what, view in looks.items():
        right, _ = after_read_back(at["alpha"], record, view, POLICIES["alpha"], START)
        assert settled(right, POLICIES["alpha"]), what
    for view in (
        RecordView(record=KEY, state=PUBLISHED, content=OLD),
        RecordView(record=KEY, state=PUBLISHED),
    ):
        wrong, events = after_read_back(at["alpha"], record, view, POLICIES["alpha"], START)
        assert (next_action(wrong), wrong.seen_outdated, wrong.last_error) == (
            Action.PUSH,
            True,
            "drifted: shows its content as it was before the correction",
        )
        assert events == (), "there is no item that waits for it"
    # what does not tell its content is believed once it has applied the push
    done, _ = after_push(
        wrong,
        record,
        RepairResult(idempotency_key="k", status=RepairStatus.APPLIED),
        POLICIES["alpha"],
        START,
    )
    shown = RecordView(record=KEY, state=PUBLISHED, version=1)
    right, _ = after_read_back(done, record, shown, POLICIES["alpha"], START)
    assert (right.seen_version, right.seen_outdated) == (1, False)
    completed, events = complete(record, [right], POLICIES, START)
    assert (completed.completed_version, events) == (1, ())


@pytest.mark.parametrize("version", [2, 3])
def test_a_target_that_has_applied_something_newer_is_not_outdated(version: int) -> None:
    record = replace(first_correction(), version=2)
    assert not is_outdated(RecordView(record=KEY, state=PUBLISHED, version=version), record)
    assert is_outdated(RecordView(record=KEY, state=PUBLISHED, version=1), record)


def test_what_is_repaired_is_corrected_when_it_is_shown_again() -> None:
    granted, revoked = ruling(RepairGranted, 1, 0, 0), ruling(RepairRevoked, 1, 0, 0)
    repaired = on_decision(None, granted, ["alpha"], POLICIES, {})
    kept = on_change(repaired, corrected(), ["alpha"], POLICIES, {})
    assert kept is not None
    assert (kept.version, kept.content) == (1, content(1)), "nothing that is shown changes"
    shown = on_decision(kept, revoked, ["alpha"], POLICIES, {})
    assert shown is not None
    assert (shown.version, shown.state, shown.content, shown.item_id) == (
        2,
        PUBLISHED,
        content(1),
        revoked.item_id,
    )
    again = on_change(shown, corrected(2), ["alpha"], POLICIES, {})
    assert again is not None
    assert (again.version, again.content, again.item_id) == (3, content(2), revoked.item_id)
    seen = after_push(
        redirect(None, again, "alpha", START),
        again,
        RepairResult(idempotency_key="k", status=RepairStatus.APPLIED),
        POLICIES["alpha"],
        START,
    )[0]
    old = RecordView(record=KEY, state=PUBLISHED, version=3, content=content(1))
    _, (told,) = after_read_back(seen, again, old, POLICIES["alpha"], START)
    assert isinstance(told, TargetDrifted)
    assert (told.outdated, told.seen_state, told.state) == (True, PUBLISHED, PUBLISHED)
    assert not shows(None, again, outdated=False), "a repair that was revoked has to be shown again"


def test_whoever_is_told_by_letter_hears_of_a_correction_and_a_person_says_whether_it_is_read() -> None:
    record = on_change(None, corrected(), ["alpha", "paper"], ALL, {})
    assert record is not None
    paper = hold(redirect(None, record, "paper", START), record, ALL, START)
    assert (paper.next_action_at, paper.differs_since) == (START, START), "a letter is to be drafted"
    joined = join(replace(record, targets=("alpha",)), "paper", {}, ALL, START)
    assert joined is not None
    still, events = after_visit(paper, record, PUBLISHED, START, PAPER, START, outdated=True)
    assert (still.seen_outdated, settled(still, PAPER), events) == (True, False, ())
    later = START + timedelta(hours=1)
    right, events = after_visit(still, record, PUBLISHED, later, PAPER, later)
    assert (right.seen_outdated, settled(right, PAPER), events) == (False, True, ())
