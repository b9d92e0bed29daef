"""Objections and false material: however events mix, nothing is revoked or restored twice, and every objection ends once."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.interleavings import Consumer, deliveries, received
from unit.review_samples import RECORD, REQUESTED, REQUESTED_AT
from unit.test_intake_properties import Documents

from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import load_catalogue
from contracts.clock import china_date
from contracts.events import (
    Event,
    FalseMaterialForwarded,
    FalseMaterialFound,
    Ground,
    ItemRouted,
    ObjectionAccepted,
    ObjectionDecided,
    ObjectionDueConfirmed,
    ObjectionFiled,
    ObjectionForwarded,
    ObjectionKind,
    ObjectionOutcome,
    ObjectionOverdue,
    ObjectionReferred,
    ObjectionRemedy,
    ObjectionRouted,
    ObjectionWithdrawn,
    RepairGranted,
    RepairRevoked,
)
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar
from dept_adapter.domain import Command, DecisionConflictError, Review, acts_on, decide, dispute, receive
from dept_adapter.invariants import objection_fault
from dept_adapter.objection import (
    Objection,
    Ruling,
    confirm_objection,
    notice_objection_day,
    receive_objection,
    rule_on,
)
from dept_adapter.objections import StoredObjection, _document, _stored
from dept_adapter.objections_api import _summary
from dept_adapter.states import OBJECTION_ENDED, Action, ObjectionAction, ObjectionState, State
from intake import objection as intake_objection
from intake import objections as intake_objections
from intake.domain.item import Dispute, Item, ItemStatus, apply
from intake.domain.record import Record
from intake.objections_api import ObjectionView
from intake.progress import Progress
from intake.store import Store
from routing.domain import ObjectionSent, route_objection

CATALOGUE = load_catalogue()
DEPARTMENT = REQUESTED.department
OBJECTION_ID = "obj_" + "6" * 32
ABOUT: dict[str, Any] = {
    "objection_id": OBJECTION_ID,
    "kind": ObjectionKind.RESULT,
    "subject_id": RECORD.subject_id,
    "record_id": RECORD.record_id,
    "application_id": REQUESTED.application_id,
    "item_id": REQUESTED.item_id,
}
DUE: dict[str, Any] = {"accept_due_on": date(2026, 11, 27), "decide_due_on": date(2026, 12, 25)}
FORWARDED = ObjectionForwarded(
    **ABOUT, department=DEPARTMENT, record=RECORD, **DUE, forwarded_at=REQUESTED_AT
)


def ruling(action: ObjectionAction) -> Ruling:
    ends = action is not ObjectionAction.ACCEPT
    upheld = action is ObjectionAction.UPHOLD
    return Ruling(action, "officer", "查明" if ends else None, ObjectionRemedy.REOPENED if upheld else None)


# --- at the department


@given(
    said=st.lists(st.sampled_from(ObjectionAction), max_size=8),
    days=st.lists(st.integers(0, 40), max_size=8),
    data=st.data(),
)
def test_an_objection_ends_once_and_until_then_waits_for_its_department(
    said: list[ObjectionAction], days: list[int], data: st.DataObject
) -> None:
    objection = receive_objection(FORWARDED)
    events: list[Event] = []
    now = REQUESTED_AT
    steps: list[ObjectionAction | int] = data.draw(st.permutations([*said, *days]))
    for step in steps:
        before = objection
        if isinstance(step, int) and not isinstance(step, ObjectionAction):
            now += timedelta(days=step)
            objection, noticed = notice_objection_day(objection, now)
            assert notice_objection_day(objection, now)[1] == (), "a deadline is noticed once"
            late = before.due_on is not None and china_date(now) > before.due_on
            assert bool(noticed) == (late and before.overdue_told != before.due_on)
            events += noticed
            continue
        try:
            objection, told = rule_on(objection, ruling(step), now)
        except DecisionConflictError:
            assert before.state in OBJECTION_ENDED or step is ObjectionAction.NOT_ACCEPT
            continue
        assert rule_on(objection, ruling(step), now) == (objection, ()), "it has no second effect"
        events += told
    counted = Counter(type(event) for event in events)
    assert counted[ObjectionAccepted] <= 1
    ended = counted[ObjectionDecided] + counted[ObjectionWithdrawn]
    assert ended == (objection.state in OBJECTION_ENDED)
    assert (objection.due_on is None) == (objection.state in OBJECTION_ENDED)
    overdue = [event.step for event in events if isinstance(event, ObjectionOverdue)]
    assert len(overdue) == len(set(overdue))
    assert objection_fault(_document(objection)) is None


def test_a_day_in_a_year_that_is_not_published_is_nobodys_lateness_and_is_counted_again_once() -> None:
    year = LIBRARY_CALENDAR.missing
    start = datetime(year - 1, 12, 20, 4, tzinfo=UTC)
    event = filed(RECORD).model_copy(update={"filed_at": start})
    sent = route_objection(event, CATALOGUE, start, 2)
    assert isinstance(sent, ObjectionSent)
    assert sent.forwarded.due_provisional
    told, _ = rule_on(receive_objection(sent.forwarded), ruling(ObjectionAction.ACCEPT), start)
    assert (told.missing_year, _document(told)["deadline_on"]) == (year, None)
    much_later = start + timedelta(days=200)
    assert notice_objection_day(told, much_later) == (told, ())
    assert objection_fault(_document(told)) is None
    assert confirm_objection(told, LIBRARY_CALENDAR, much_later) == (told, ())
    # everybody works in that year, but for one day
    holiday = told.decide_due_on
    days = {date(year, 1, 1) + timedelta(days=n): True for n in range(365)}
    known = WorkCalendar({year: {**days, holiday: False}, year + 1: {}})
    counted, (confirmed,) = confirm_objection(told, known, much_later)
    assert isinstance(confirmed, ObjectionDueConfirmed)
    assert counted.decide_due_on == known.working_days_after(china_date(start), 25).on != told.decide_due_on
    assert confirm_objection(counted, known, much_later) == (counted, ())
    assert notice_objection_day(counted, much_later)[1]
    at_intake = objection().model_copy(update={"department": DEPARTMENT, "routed_at": start})
    after = intake_objection.apply_objection(at_intake, confirmed)
    assert (after.due_on, after.is_provisional) == (counted.accept_due_on, False)
    assert after.department_due == (counted.accept_due_on, counted.decide_due_on)


@pytest.mark.parametrize(
    "broken",
    [
        {"deadline_on": "2026-12-01"},
        {"deadline_on": None},
        {"state": "upheld", "reason": "查明", "decided_at": "2026-12-01T00:00:00Z"},
        {"state": "dismissed", "deadline_on": None},
    ],
)
def test_an_objection_that_neither_ends_nor_waits_is_found(broken: dict[str, Any]) -> None:
    assert objection_fault({**_document(receive_objection(FORWARDED)), **broken})


# --- false material


def ground(number: int) -> Ground:
    return Ground(
        item_id=f"itm_{number:032x}", round=0, department=DEPARTMENT, decision_number=f"撤{number}号"
    )


def told(number: int, *, lifted: bool = False) -> FalseMaterialForwarded:
    about = REQUESTED.model_dump(include={"application_id", "item_id", "record_id", "subject_id"})
    return FalseMaterialForwarded(
        **about,
        department=DEPARTMENT,
        ground=ground(number),
        reason="验收证明系伪造",
        lifted=lifted,
        found_at=REQUESTED_AT,
    )


def officer(action: Action, number: str | None = None) -> Command:
    return Command(action, "officer", from_desk=True, number=number, reason="理由")


class Desk:
    """One review, told of findings and decided by an officer."""

    def __init__(self) -> None:
        self.review: Review = receive(REQUESTED, at_desk=True)
        self.events: list[Event] = []
        self.serial = 0
        self.now = REQUESTED_AT

    def take(self, event: FalseMaterialForwarded) -> None:
        self.now += timedelta(seconds=1)
        action, number = acts_on(self.review, event), None
        if action is not None:
            self.serial += 1
            number = f"{action}{self.serial}号"
        transition = dispute(self.review, event, number, self.now)
        assert (action is None) == (not transition.events), (
            "a number is taken for a decision, and for nothing else"
        )
        self.review, self.events = transition.review, [*self.events, *transition.events]

    def say(self, command: Command) -> None:
        self.now += timedelta(seconds=1)
        transition = decide(self.review, command, self.now)
        self.review, self.events = transition.review, [*self.events, *transition.events]


FINDINGS = [[told(1), told(1, lifted=True)], [told(2)], [told(3), told(3, lifted=True)]]


@given(delivered=deliveries(FINDINGS), granted_after=st.integers(0, 12))
def test_a_granted_item_is_revoked_once_while_a_finding_stands(
    delivered: list[FalseMaterialForwarded], granted_after: int
) -> None:
    """Repetitions are dropped by the inbox: here only those that come right after one another, as a handler may see them."""
    desk, seen = Desk(), set[tuple[int, bool]]()
    for position, event in enumerate(delivered):
        if position == granted_after:
            desk.say(officer(Action.GRANT, "准1号"))
        key = (int(event.ground.item_id[4:], 16), event.lifted)
        if key in seen:
            continue
        seen.add(key)
        desk.take(event)
        desk.take(event)
    if granted_after >= len(delivered):
        desk.say(officer(Action.GRANT, "准1号"))
        assert desk.review.state is State.GRANTED, "an officer who was warned decides"
    kinds = [type(e) for e in desk.events if isinstance(e, RepairGranted | RepairRevoked)]
    assert all(a is not b for a, b in pairwise(kinds)), "granted, revoked, restored by turns"
    assert {d.finding[0] for d in desk.review.disputes} == {ground(2).item_id}
    revoked = [e for e in desk.events if isinstance(e, RepairRevoked)]
    assert all(e.ground is not None and "虚假" in e.reason for e in revoked)
    assert desk.review.round == kinds.count(RepairGranted) - 1
    # the finding that is never lifted came while it was granted, or before: then it was the officer's to see
    after_grant = [e for e in delivered[granted_after:] if e.ground == ground(2)]
    first_time = ground(2) not in [e.ground for e in delivered[:granted_after]]
    if after_grant and first_time:
        assert desk.review.state is State.REVOKED


def test_a_finding_about_an_open_item_is_a_warning_and_decides_nothing() -> None:
    desk = Desk()
    desk.take(told(1))
    assert (desk.review.state, desk.events) == (State.RECEIVED, [])
    assert [d.reason for d in desk.review.disputes] == ["验收证明系伪造"]
    desk.say(officer(Action.REVOKE, "撤9号")) if desk.review.state is State.GRANTED else None
    desk.say(officer(Action.GRANT, "准1号"))
    desk.take(told(1))
    assert desk.review.state is State.GRANTED, (
        "told again after the decision, it is still the warning that was seen"
    )


def test_what_an_officer_revoked_is_not_restored_when_somebody_elses_finding_falls() -> None:
    desk = Desk()
    desk.say(officer(Action.GRANT, "准1号"))
    desk.say(officer(Action.REVOKE, "撤1号"))
    desk.take(told(1))
    desk.take(told(1, lifted=True))
    assert (desk.review.state, desk.review.disputes) == (State.REVOKED, ())


# --- routing


def filed(record: RecordFacts, department: DepartmentRef | None = None) -> ObjectionFiled:
    about = {**ABOUT, "kind": "record", "application_id": OBJECTION_ID, "item_id": OBJECTION_ID}
    return ObjectionFiled.model_validate(
        {**about, "record": record, "department": department, "filed_at": REQUESTED_AT}
    )


@given(day=st.dates(date(2025, 1, 1), date(2027, 12, 31)))
def test_an_objection_goes_to_who_made_the_record_within_days_that_are_worked(day: date) -> None:
    now = datetime(day.year, day.month, day.day, 4, tzinfo=UTC)
    sent = route_objection(filed(RECORD), CATALOGUE, now, 2)
    assert isinstance(sent, ObjectionSent)
    assert sent.routed.department == DEPARTMENT
    for due in (sent.routed.accept_due_on, sent.routed.decide_due_on):
        assert LIBRARY_CALENDAR.is_working_day(due)
        assert due > day
    unknown = RECORD.model_copy(update={"authority_name": "没有此机关"})
    queued = route_objection(filed(unknown), CATALOGUE, now, 2)
    assert isinstance(queued, ObjectionReferred)
    assert queued.queue_name == CATALOGUE.human_queue.name
    # who decided the result is asked, whatever the record says
    assert isinstance(route_objection(filed(unknown, DEPARTMENT), CATALOGUE, now, 2), ObjectionSent)


# --- at intake


def objection() -> intake_objection.Objection:
    return intake_objection.Objection(
        objection_id=OBJECTION_ID,
        kind=ObjectionKind.RESULT,
        target=f"{REQUESTED.item_id}:0",
        subject_id=RECORD.subject_id,
        record_id=RECORD.record_id,
        application_id=REQUESTED.application_id,
        item_id=REQUESTED.item_id,
        facts=RECORD,
        reason="已经履行",
        filed_at=REQUESTED_AT,
    )


@given(
    data=st.data(),
    outcome=st.sampled_from(ObjectionOutcome),
    referred=st.booleans(),
    late=st.booleans(),
    accepted=st.booleans(),
)
def test_any_delivery_ends_in_the_same_objection_and_whoever_has_it_is_known_before_it_can_be_withdrawn(
    data: st.DataObject, outcome: ObjectionOutcome, referred: bool, late: bool, accepted: bool
) -> None:
    queue = {"queue_id": "q", "queue_name": "人工席", "reason": "x", "reason_code": "unknown_department"}
    day = {"due_on": DUE["accept_due_on"], "referred_at": REQUESTED_AT}
    routing = [ObjectionReferred.model_validate({**ABOUT, **queue, **day})] if referred else []
    routed = ObjectionRouted.model_validate(
        {**ABOUT, "department": DEPARTMENT, **DUE, "routed_at": REQUESTED_AT}
    )
    held: Objection = receive_objection(FORWARDED)
    told: list[Event] = []
    if late:
        held, noticed = notice_objection_day(held, REQUESTED_AT + timedelta(days=30))
        told += noticed
    if accepted and outcome is not ObjectionOutcome.NOT_ACCEPTED:
        held, taken = rule_on(held, ruling(ObjectionAction.ACCEPT), REQUESTED_AT + timedelta(days=31))
        told += taken
    action = {
        ObjectionOutcome.UPHELD: ObjectionAction.UPHOLD,
        ObjectionOutcome.DISMISSED: ObjectionAction.DISMISS,
        ObjectionOutcome.NOT_ACCEPTED: ObjectionAction.NOT_ACCEPT,
    }[outcome]
    held, decided = rule_on(held, ruling(action), REQUESTED_AT + timedelta(days=31))
    assert held.state is ObjectionState(outcome.value)
    streams: list[list[Event]] = [[*routing, routed], [*told, *decided]]

    def run(events: list[Event]) -> intake_objection.Objection:
        found = objection()
        for event in events:
            found = intake_objection.apply_objection(found, event)  # type: ignore[arg-type]
            if found.status in intake_objection.WITHDRAWABLE:
                assert found.holder == DEPARTMENT or found.status is intake_objection.ObjectionStatus.REFERRED
        return found

    straight = run([event for stream in streams for event in stream])
    assert run(data.draw(deliveries(streams))) == straight
    assert straight.status.value == outcome.value
    assert straight.department == DEPARTMENT
    assert (straight.due_on, straight.is_overdue) == (None, False)


ITEM = Item(
    item_id=REQUESTED.item_id,
    application_id=REQUESTED.application_id,
    record_id=RECORD.record_id,
    facts=RECORD,
    department=DEPARTMENT,
)
STANDING = Record(
    record_id=RECORD.record_id,
    subject_id=RECORD.subject_id,
    facts=RECORD,
    published_at=REQUESTED_AT,
    item_id=ITEM.item_id,
)
REFUSED: dict[str, Any] = {"decision": "refused", "decided_at": REQUESTED_AT}


@pytest.mark.parametrize(
    ("item", "record", "words"),
    [
        ({}, {}, "还没有结果"),
        ({"withdrawn_at": REQUESTED_AT}, {}, "重新申请"),
        ({"repaired_at": REQUESTED_AT, "decision": "granted"}, {}, "无需提出异议"),
        (REFUSED, {"application_id": "app_" + "9" * 32}, "另行申请"),
        (REFUSED, {"item_id": "itm_" + "9" * 32}, "最近一次"),
        (REFUSED, {"status": "withdrawn"}, "撤回"),
    ],
    ids=["open", "withdrawn", "repaired", "applied again", "decided again", "record withdrawn"],
)
def test_what_has_no_result_to_object_to_is_told_what_to_do(
    item: dict[str, Any], record: dict[str, Any], words: str
) -> None:
    fault = intake_objection.result_fault(ITEM.model_copy(update=item), STANDING.model_copy(update=record))
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize(
    "result",
    [REFUSED, {"not_accepted_at": REQUESTED_AT}, {"decision": "granted", "revoked_at": REQUESTED_AT}],
)
def test_refusals_and_revocations_may_be_objected_to(result: dict[str, Any]) -> None:
    item = ITEM.model_copy(update=result)
    assert item.status in (ItemStatus.REFUSED, ItemStatus.NOT_ACCEPTED, ItemStatus.REVOKED)
    assert intake_objection.result_fault(item, STANDING) is None


def test_a_time_limit_for_filing_binds_only_with_binding_evidence() -> None:
    listing = STANDING.model_copy(
        update={"facts": RECORD.model_copy(update={"category": "abnormal_operation_list"})}
    )
    last = RECORD.decided_on + timedelta(days=30)
    assert intake_objection.record_fault(listing, CATALOGUE, last) is None
    fault = intake_objection.record_fault(listing, CATALOGUE, last + timedelta(days=1))
    assert fault is not None
    assert "行政复议" in fault
    assert intake_objection.record_fault(STANDING, CATALOGUE, last + timedelta(days=900)) is None


def test_what_a_department_system_repeats_after_a_reopening_changes_nothing() -> None:
    review = receive(REQUESTED, at_desk=False)
    refusal = Command(Action.REFUSE, "callback", False, "拒1号", "未履行", REQUESTED_AT)
    review = decide(review, refusal, REQUESTED_AT).review
    later = REQUESTED_AT + timedelta(days=3)
    reopen = Command(Action.REOPEN, "officer", False, accept_working_days=3, decide_working_days=7)
    review = decide(review, reopen, later).review
    assert (review.state, review.at_desk, review.round) == (State.ACCEPTED, True, 1)
    for again in (refusal, replace(refusal, occurred_at=None)):
        assert decide(review, again, later).events == ()
    other = replace(refusal, number="拒2号", occurred_at=later + timedelta(hours=1))
    assert decide(review, other, later + timedelta(days=1)).review.state is State.REFUSED


@given(order=st.permutations(["found", "found", "routed", "lifted"]), lifted=st.booleans())
def test_a_department_is_told_of_a_finding_once_as_soon_as_it_is_known(
    order: list[str], lifted: bool
) -> None:
    """Found again, or found when nobody has the item yet: one event. Lifted: one more, if the department had been told."""
    documents = Documents({REQUESTED.application_id: [ITEM.model_copy(update={"department": None})]})
    found = Dispute(ground=ground(1), reason="伪造", found_at=REQUESTED_AT)
    routed = ItemRouted.model_validate(
        {
            **ABOUT,
            "department": DEPARTMENT,
            "decide_due_on": DUE["decide_due_on"],
            "routed_at": REQUESTED_AT,
        }
    )
    steps = [step for step in order if lifted or step != "lifted"]
    told: list[FalseMaterialFound] = []
    for step in steps:

        async def take(unit: UnitOfWork, _batch: object, step: str = step) -> None:
            progress = await Progress.load(cast(Store, documents), unit, [ITEM.item_id])
            if step == "routed":
                item = apply(progress.items[ITEM.item_id], routed)
                progress.change(item, "routed", "已分派", REQUESTED_AT)
                progress.tell_disputes(item.item_id, {})
            else:
                progress.dispute(ITEM.item_id, found, {}, lifted=step == "lifted")
            await progress.save()

        consumer = Consumer(take)
        consumer.take([received(routed, step)])
        told += [event for event in consumer.told if isinstance(event, FalseMaterialFound)]
    # the inbox keeps a finding from being taken again after it was lifted; here only what is told counts
    assert all(event.department == DEPARTMENT for event in told)
    turns = [event.lifted for event in told]
    assert all(a is not b for a, b in pairwise(turns)), "told, and taken back, by turns"
    assert turns[:1] in ([], [False])
    kept = documents.kept_items[ITEM.item_id].disputes
    assert bool(kept) == (turns[-1:] == [False])


def test_an_objection_is_shown_at_the_desk_and_to_its_subject() -> None:
    late = notice_objection_day(receive_objection(FORWARDED), REQUESTED_AT + timedelta(days=30))[0]
    shown = _summary(StoredObjection(late, {}, []))
    assert (shown.overdue, shown.due_on, shown.item_id) == (True, DUE["accept_due_on"], REQUESTED.item_id)
    record = replace(late, kind=ObjectionKind.RECORD, item_id=OBJECTION_ID)
    assert _summary(StoredObjection(record, {}, [])).item_id is None
    routed = objection().model_copy(update={"department": DEPARTMENT, **DUE})
    view = ObjectionView.of(routed)
    assert (view.status.value, view.due_on, view.overdue) == ("routed", DUE["accept_due_on"], False)


def test_an_objection_read_back_is_the_same() -> None:
    late = notice_objection_day(receive_objection(FORWARDED), REQUESTED_AT + timedelta(days=30))[0]
    upheld = rule_on(late, ruling(ObjectionAction.UPHOLD), REQUESTED_AT + timedelta(days=31))[0]
    for each in (late, upheld):
        assert _stored({**_document(each), "trace": {}, "history": []}).objection == each
    mine = objection().model_copy(update={"department": DEPARTMENT, **DUE})
    assert intake_objections._objection(intake_objections._document(mine)) == mine
