"""The pure parts of the invariants: a good document passes, and each way to break it is found."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import dept_adapter.invariants
import intake.invariants
import sync.invariants
from contracts.canonical import Digest
from contracts.catalogue import load_catalogue
from contracts.events import RepairGranted, RepairRefused, RepairRevoked
from contracts.history import HistoryEntry, Kind, entry_id, entry_text
from contracts.http.intake import Contact
from contracts.http.verification import ItemStanding, RecordStanding
from contracts.records import DepartmentRef, DisplayState
from intake.domain.application import Application
from intake.domain.item import Item, Referral, TargetProgress, TargetState
from support import published
from sync.desired import Record
from sync.domain import Delivery, delivery_id
from sync.history import LastEntry
from xinfu.verify import item_fault

NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
APPLICATION, ITEM, RECORD = (f"{kind}_{'0' * 31}1" for kind in ("app", "itm", "rec"))
DEPARTMENT = DepartmentRef(code="11330100XF0000028L", slug="hz-samr", name="杭州市市场监督管理局")
CATALOGUE = load_catalogue()
FACTS = published("1").record
TARGETS = [t.id for t in CATALOGUE.targets_for(FACTS.category, FACTS.subject_type)]


# --- intake


def item(**changes: Any) -> Item:
    return Item(item_id=ITEM, application_id=APPLICATION, record_id=RECORD, facts=FACTS, **changes)


def at_targets(state: TargetState, names: Sequence[str]) -> dict[str, TargetProgress]:
    return {name: TargetProgress(name=name, state=state, version=1, at=LONG_AGO) for name in names}


REFERRED = {"referral": Referral(queue_name="人工分派席", reason="不明", due_on=date(2026, 3, 1))}
ROUTED = {"department": DEPARTMENT, "decide_due_on": date(2026, 3, 10)}
ACCEPTED = {**ROUTED, "accepted_at": LONG_AGO}
GRANTED = {**ACCEPTED, "decision": "granted", "decision_number": "1号", "decided_at": LONG_AGO}
REFUSED = {**GRANTED, "decision": "refused"}
SYNCING = {**GRANTED, "targets": at_targets(TargetState.ACKNOWLEDGED, TARGETS[:1])}
REPAIRED = {**GRANTED, "targets": at_targets(TargetState.VERIFIED, TARGETS), "repaired_at": LONG_AGO}


def application(*, ended: bool = False, **changes: Any) -> Application:
    values: dict[str, Any] = {
        "application_id": APPLICATION,
        "subject_id": FACTS.subject_id,
        "contact": Contact(name="李四", phone="13812345678", email=None),
        "statement": "",
        "submitted_at": LONG_AGO,
        "status": "completed" if ended else "open",
        "completed_at": LONG_AGO if ended else None,
        "item_count": 1,
        "open_items": 0 if ended else 1,
        "timeline_seq": 1,
    }
    return Application(**{**values, **changes})


def judged(header: Application, *items: Item, on: date = date(2026, 3, 2)) -> Any:
    return intake.invariants.judge(header, items, CATALOGUE, NOW - timedelta(seconds=60), on)


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (REFERRED, {"waiting_for_queue": 1, "overdue": 1}),
        (ROUTED, {"waiting_for_department": 1}),
        (ACCEPTED, {"waiting_for_department": 1}),
        (GRANTED, {"waiting_for_targets": 1}),
        (SYNCING, {"waiting_for_targets": 1}),
    ],
)
def test_an_open_item_waits_for_a_named_party(state: dict[str, Any], waits: dict[str, int]) -> None:
    found = judged(application(), item(**state))
    assert (found.faults, +found.waits) == ([], waits)


def test_targets_have_a_deadline_of_their_own() -> None:
    wait = intake.invariants.waits_for(item(**GRANTED), CATALOGUE)
    assert wait is not None
    longest = max(t.time_limit_working_days for t in CATALOGUE.targets)
    # 2026-03-01 was a Sunday, worked by nobody; the day of the decision does not count
    assert wait.due_on == date(2026, 3, 1) + timedelta(days=longest)
    assert all(t.name in wait.party for t in CATALOGUE.targets if t.id in TARGETS)
    assert judged(application(), item(**GRANTED), on=wait.due_on).waits["overdue"] == 0
    late = judged(application(), item(**GRANTED), on=wait.due_on + timedelta(days=1))
    assert (late.faults, late.waits["overdue"]) == ([], 1)


@pytest.mark.parametrize("state", [REFUSED, REPAIRED, {**REPAIRED, "revoked_at": LONG_AGO}])
def test_an_application_whose_items_ended_has_ended(state: dict[str, Any]) -> None:
    assert judged(application(ended=True), item(**state)).faults == []


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"department": DEPARTMENT},
        {"accepted_at": LONG_AGO},
        {**REPAIRED, "repaired_at": None},
        {**REFERRED, "referral": Referral(queue_name="", reason="", due_on=date(2026, 3, 9))},
    ],
    ids=["submitted", "no due date", "no department", "all targets follow", "no queue"],
)
def test_an_item_that_waits_for_nobody_is_found_once_it_has_settled(state: dict[str, Any]) -> None:
    ((where, what),) = judged(application(), item(**state)).faults
    assert where == ITEM
    assert "没有在等待" in what
    if not state:
        just_now = application(submitted_at=NOW - timedelta(seconds=30))
        assert judged(just_now, item()).faults == []


def test_what_was_reopened_may_be_open_after_the_completion() -> None:
    assert judged(application(ended=True, open_items=1), item(**{**ACCEPTED, "round": 1})).faults == []


@pytest.mark.parametrize(
    ("header", "items"),
    [
        (application(open_items=2), [item(**ROUTED)]),
        (application(item_count=2), [item(**ROUTED)]),
        (application(open_items=0), [item(**REFUSED)]),
        (application(ended=True, open_items=1), [item(**ROUTED)]),
        (application(ended=True, completed_at=None), [item(**REFUSED)]),
    ],
    ids=["counter", "item lost", "not completed", "completed too early", "no time"],
)
def test_a_header_that_contradicts_its_items_is_found(header: Application, items: list[Item]) -> None:
    assert [where for where, _ in judged(header, *items).faults] == [APPLICATION]


def test_a_timeline_shows_each_event_once_and_has_no_gap() -> None:
    def line(seq: int, kind: str, **facts: Any) -> dict[str, Any]:
        return {"seq": seq, "item_id": ITEM, "type": kind, "at": "2026-03-01T00:00:00Z", "facts": facts}

    good = [line(1, "submitted"), line(2, "verified", target_id="a"), line(3, "verified", target_id="b")]
    faults = intake.invariants.timeline_faults
    assert faults(3, good) == []
    assert len(faults(4, good)) == 1
    assert len(faults(3, [good[0], good[2]])) == 1
    twice = faults(4, [*good, {**good[1], "seq": 4}])
    assert len(twice) == 1
    assert "2 次" in twice[0]


# --- dept-adapter


def review(state: str, decision: str | None, revocation: str | None = None) -> dict[str, Any]:
    return {
        "state": state,
        "decision": {"number": decision} if decision else None,
        "revocation": {"number": revocation} if revocation else None,
    }


@pytest.mark.parametrize(
    ("event", "number", "document", "agrees"),
    [
        (RepairGranted, "1", review("granted", "1"), True),
        (RepairGranted, "1", review("revoked", "1", "2"), True),
        (RepairRevoked, "2", review("revoked", "1", "2"), True),
        (RepairRefused, "1", review("refused", "1"), True),
        (RepairGranted, "1", review("refused", "1"), False),
        (RepairGranted, "1", review("granted", "3"), False),
        (RepairRefused, "1", review("granted", "1"), False),
        (RepairRefused, "1", review("revoked", "1", "2"), False),
        (RepairRevoked, "2", review("granted", "1"), False),
        (RepairRevoked, "3", review("revoked", "1", "2"), False),
        (RepairGranted, "1", review("accepted", None), False),
        (RepairGranted, "1", None, False),
        (RepairRefused, "1", {**review("granted", "2"), "overturned": ["1"]}, True),
        (RepairRefused, "3", {**review("granted", "2"), "overturned": ["1"]}, False),
    ],
)
def test_a_decision_agrees_with_its_review(event: Any, number: str, document: Any, agrees: bool) -> None:
    fault = dept_adapter.invariants.decision_fault(event.TYPE, number, document)
    assert (fault is None) == agrees


# --- sync


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "record_id": RECORD,
        "version": 2,
        "state": DisplayState.PUBLISHED,
        "facts": FACTS,
        "application_id": APPLICATION,
        "item_id": ITEM,
        "subject_id": FACTS.subject_id,
        "decided_at": NOW,
        "decision_number": "1号",
        "targets": ("a",),
        "completed_version": 2,
    }
    return Record(**{**values, **changes})


SEEN = Delivery(
    "a",
    RECORD,
    2,
    None,
    None,
    {},
    acknowledged_version=2,
    seen_version=2,
    seen_state=DisplayState.PUBLISHED,
)


@pytest.mark.parametrize(
    "good",
    [
        SEEN,
        replace(SEEN, seen_version=1, seen_state=DisplayState.PUBLICATION_ENDED),
        replace(SEEN, acknowledged_version=0, seen_version=0, seen_state=DisplayState.PUBLICATION_ENDED),
    ],
    ids=["seen right", "on its way", "drifted"],
)
def test_a_delivery_in_order_passes(good: Delivery) -> None:
    assert list(sync.invariants.record_faults(record(), {good.id: good})) == []
    ended = record(state=DisplayState.PUBLICATION_ENDED)
    unseen = replace(SEEN, seen_state=None)  # nothing is shown, as it has to be
    assert list(sync.invariants.record_faults(ended, {unseen.id: unseen})) == []


@pytest.mark.parametrize(
    ("bad_record", "bad"),
    [
        (record(), replace(SEEN, seen_version=3)),
        (record(), replace(SEEN, acknowledged_version=3)),
        (record(), replace(SEEN, desired_version=1, acknowledged_version=1, seen_version=1)),
        (record(), replace(SEEN, seen_state=DisplayState.PUBLICATION_ENDED)),
        (record(), replace(SEEN, seen_state=None)),
        (record(), None),
        (record(completed_version=3), SEEN),
        (
            record(version=0, completed_version=0),
            replace(SEEN, desired_version=0, acknowledged_version=0, seen_version=0),
        ),
    ],
)
def test_what_is_beyond_the_decision_is_found(bad_record: Record, bad: Delivery | None) -> None:
    deliveries = {bad.id: bad} if bad else {}
    (fault,) = sync.invariants.record_faults(bad_record, deliveries)
    assert fault[0] in (RECORD, delivery_id("a", RECORD))


DECISION = {"version": 2, "state": "published", "decision_number": "1号"}
RIGHT = {"version": 2, "right": True, "shown": "published"}


def entry(chain: str, kind: Kind, facts: dict[str, Any]) -> LastEntry:
    text = entry_text(chain, 1, "", kind, "2026-03-01T00:00:00Z", facts)
    found = HistoryEntry(id=entry_id(chain, 1), text=text.decode(), hash=Digest.SHA256.of(text))
    return LastEntry(found.hash, found)


def history_faults(last: dict[str, LastEntry], delivery: Delivery = SEEN) -> list[str]:
    decision = last.get(RECORD)
    faults = sync.invariants.history_faults(
        record(), {delivery.id: delivery}, decision.entry if decision else None, last
    )
    return [id_ for id_, _ in faults]


def test_the_end_of_every_chain_agrees_with_what_is_kept() -> None:
    at = SEEN.id
    good = {RECORD: entry(RECORD, Kind.DECISION, DECISION), at: entry(at, Kind.READING, RIGHT)}
    assert history_faults(good) == []
    older = {**good, at: entry(at, Kind.READING, {**RIGHT, "version": 1, "right": False})}
    assert history_faults(older) == [], "of an older version"
    assert history_faults({at: good[at]}) == [RECORD]
    for wrong in ({"version": 1}, {"state": "publication_ended"}, {"decision_number": "2号"}):
        assert history_faults({**good, RECORD: entry(RECORD, Kind.DECISION, DECISION | wrong)}) == [RECORD]
    unseen = {**good, at: entry(at, Kind.READING, RIGHT | {"right": False})}
    assert history_faults(unseen) == [at]
    drifted = replace(SEEN, acknowledged_version=0, seen_version=0)
    assert history_faults(unseen, drifted) == []
    applied = {**good, at: entry(at, Kind.PUSH, {"version": 2, "answer": "applied"})}
    assert history_faults(applied, drifted) == [at]
    assert history_faults({RECORD: good[RECORD]}) == [at], "acknowledged by nobody's word"
    assert history_faults({RECORD: good[RECORD]}, drifted) == []
    whole = good[at].entry
    assert whole is not None
    changed = whole.model_copy(update={"text": whole.text.replace("true", "false")})
    assert history_faults({**good, at: LastEntry(whole.hash, changed)}) == [whole.id]
    assert history_faults({**good, at: LastEntry(whole.hash, None)}) == [at]
    assert history_faults({**good, at: LastEntry("sha256:00", whole)}) == [at]


# --- across services


def standing(decision: str | None, number: str | None, department: str | None = "D") -> ItemStanding:
    return ItemStanding(
        item_id=ITEM,
        application_id=APPLICATION,
        record_id=RECORD,
        status="",
        department=department,
        decision=decision,
        decision_number=number,
    )


def synced(number: str, state: DisplayState, version: int = 1, item_id: str = ITEM) -> RecordStanding:
    return RecordStanding(
        record_id=RECORD, item_id=item_id, decision_number=number, state=state.value, version=version
    )


ENDED, SHOWN = DisplayState.PUBLICATION_ENDED, DisplayState.PUBLISHED


@pytest.mark.parametrize(
    ("ours", "theirs", "third"),
    [
        (standing(None, None, None), None, None),
        (standing(None, None), standing(None, None), None),
        (standing("refused", "1"), standing("refused", "1"), None),
        (standing("granted", "1"), standing("granted", "1"), synced("1", ENDED)),
        (standing("revoked", "2"), standing("revoked", "2"), synced("2", SHOWN, 2)),
        # the record was applied for again, and that was granted
        (standing("granted", "1"), standing("granted", "1"), synced("9", ENDED, 3, "itm_" + "9" * 32)),
    ],
)
def test_services_that_agree(
    ours: ItemStanding, theirs: ItemStanding | None, third: RecordStanding | None
) -> None:
    assert item_fault(ours, theirs, third) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "third"),
    [
        (standing(None, None), None, None),
        (standing(None, None, None), standing(None, None), None),
        (standing(None, None), standing(None, None, "E"), None),
        (standing(None, None), standing("granted", "1"), synced("1", ENDED)),
        (standing("granted", "1"), standing(None, None), synced("1", ENDED)),
        (standing("granted", "1"), standing("refused", "1"), synced("1", ENDED)),
        (standing("granted", "1"), standing("granted", "2"), synced("1", ENDED)),
        (standing("granted", "1"), standing("revoked", "2"), synced("2", SHOWN)),
        (standing("granted", "1"), standing("granted", "1"), None),
        (standing("granted", "1"), standing("granted", "1"), synced("1", ENDED, 0)),
        (standing("granted", "1"), standing("granted", "1"), synced("2", ENDED)),
        (standing("granted", "1"), standing("granted", "1"), synced("1", SHOWN)),
        (standing("revoked", "2"), standing("revoked", "2"), synced("1", ENDED)),
    ],
)
def test_services_that_disagree(
    ours: ItemStanding, theirs: ItemStanding | None, third: RecordStanding | None
) -> None:
    assert item_fault(ours, theirs, third) is not None
