"""Reminders: whatever happens to an item and whenever somebody looks, each is told once, on a working day, and only upwards."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.review_lives import live
from unit.review_samples import REQUESTED
from unit.test_objections import FORWARDED

from contracts.clock import china_date
from contracts.events import ObjectionReminded, ReminderLevel, ReviewStep
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import Command, NotAllowedError, Review, decide, receive
from dept_adapter.objection import Ruling, receive_objection, rule_on
from dept_adapter.reminders import (
    DEFAULT_DAYS,
    LEVELS,
    Acknowledgement,
    Reminder,
    Schedule,
    acknowledge,
    faults,
    level_of,
    next_on,
    plan,
    remind,
    reminded,
    step_of,
)
from dept_adapter.states import ENDED, OBJECTION_ENDED, Action, ObjectionAction, ObjectionState, State

OFFICER, APPROVER, SUPERVISOR = LEVELS
PROMISED = Schedule(DEFAULT_DAYS, lambda _day: 5)
days_of = st.lists(st.integers(-8, 12), min_size=1, max_size=6, unique=True).map(sorted)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any days, split among the levels so that higher ones come later; with a service promise or without."""
    days = draw(days_of)
    first, second = sorted((draw(st.integers(0, len(days))), draw(st.integers(0, len(days)))))
    split = {OFFICER: days[:first], APPROVER: days[first:second], SUPERVISOR: days[second:]}
    assert faults(split) == []
    promise = draw(st.none() | st.integers(1, 8))
    return Schedule(split, lambda _day: promise)


def noon(day: date) -> datetime:
    return datetime.combine(day, time(4), UTC)


@given(rng=st.randoms(use_true_random=False), schedule=schedules(), gaps=st.sampled_from([1, 2, 5, 20]))
@settings(max_examples=100)
def test_each_reminder_is_told_once_on_a_working_day_and_only_upwards(
    rng: random.Random, schedule: Schedule, gaps: int
) -> None:
    steps = live(rng, REQUESTED.department)
    told: tuple[Reminder, ...] = ()
    quiet: set[tuple[ReviewStep, date, ReminderLevel]] = set()
    now = steps[0].at
    for step, then in [*pairwise(steps), (steps[-1], None)]:
        review = step.review
        end = then.at if then else now + timedelta(days=60)
        while now < end:
            today, due = china_date(now), next_on(review, told, schedule)
            reminder = remind(review, told, schedule, now)
            expected = due is not None and due <= today and LIBRARY_CALENDAR.is_working_day(today)
            assert (reminder is not None) == expected, "told when its day has come, and not before"
            if reminder is not None:
                assert review.state not in ENDED | {State.SUPPLEMENT}, "what has moved is not reminded of"
                assert (reminder.step, reminder.due_on) == (step_of(review), review.due_on)
                assert (reminder.step, reminder.due_on, reminder.level) not in quiet, "it was acknowledged"
                assert reminder.promised_on is None or reminder.level is OFFICER, "a promise goes no higher"
                told = (*told, reminder)
                assert remind(review, told, schedule, now) is None, "at once again: nothing"
                if rng.random() < 0.3:
                    seen = Acknowledgement("officer", "在核实", now)
                    told = acknowledge(review, told, seen)
                    quiet.add((reminder.step, reminder.due_on, reminder.level))
            now += timedelta(days=rng.randrange(1, gaps + 1), hours=rng.randrange(24))
        now = max(now, end)
    assert len({(each.step, each.due_on, each.on) for each in told}) == len(told)
    for before, after in pairwise(told):
        if (before.step, before.due_on) == (after.step, after.due_on):
            assert LEVELS.index(after.level) >= LEVELS.index(before.level)
            assert after.on > before.on


def accepted(requested: date = date(2026, 11, 23)) -> Review:
    """Requested on a Monday, accepted the same day, to be decided in ten working days (12-07)."""
    event = REQUESTED.model_copy(
        update={
            "requested_at": noon(requested),
            "accept_due_on": LIBRARY_CALENDAR.working_days_after(requested, 3).on,
            "decide_due_on": LIBRARY_CALENDAR.working_days_after(requested, 10).on,
            "extend_working_days": 10,
        }
    )
    command = Command(Action.ACCEPT, "officer", from_desk=True)
    return decide(receive(event, at_desk=True), command, noon(requested)).review


def days_told(
    review: Review, schedule: Schedule, days: Sequence[date], told: tuple[Reminder, ...] = ()
) -> list[tuple[date, ReminderLevel, date | None]]:
    """What is told when somebody looks on these days."""
    found = []
    for day in days:
        reminder = remind(review, told, schedule, noon(day))
        if reminder is not None:
            told = (*told, reminder)
            found.append((day, reminder.level, reminder.promised_on))
    return found


EVERY_DAY = [date(2026, 11, 23) + timedelta(days=n) for n in range(40)]


def test_before_on_and_after_the_last_day_a_level_higher_each_time() -> None:
    without, within = (days_told(accepted(), s, EVERY_DAY) for s in (Schedule(DEFAULT_DAYS), PROMISED))
    law = [
        (date(2026, 12, 3), OFFICER, None),
        (date(2026, 12, 7), OFFICER, None),
        (date(2026, 12, 8), APPROVER, None),
        (date(2026, 12, 10), SUPERVISOR, None),
    ]
    promise = date(2026, 11, 30)
    assert without == law
    assert within == [(date(2026, 11, 26), OFFICER, promise), (promise, OFFICER, promise), *law]


@pytest.mark.parametrize("days", [10, 12])
def test_a_promise_that_is_no_earlier_than_the_last_day_reminds_of_nothing(days: int) -> None:
    later = Schedule(DEFAULT_DAYS, lambda _day: days)
    assert plan(accepted(), later) == plan(accepted(), Schedule(DEFAULT_DAYS))


def test_missed_reminders_become_one_of_the_highest_level_on_the_next_working_day() -> None:
    late = [date(2026, 12, 5), date(2026, 12, 12), date(2026, 12, 14), date(2026, 12, 15)]
    assert days_told(accepted(), PROMISED, late) == [(date(2026, 12, 14), SUPERVISOR, None)]


def test_nobody_is_reminded_through_a_holiday_and_make_up_days_count() -> None:
    """National Day 2025: 10-01 to 10-08 off, 09-28 (a Sunday) and 10-11 (a Saturday) worked."""
    due = replace(accepted(date(2025, 9, 20)), decide_due_on=date(2025, 9, 30))
    every = [date(2025, 9, 22) + timedelta(days=n) for n in range(30)]
    assert [(day, level) for day, level, _ in days_told(due, Schedule(DEFAULT_DAYS), every)] == [
        (date(2025, 9, 28), OFFICER),
        (date(2025, 9, 30), OFFICER),
        (date(2025, 10, 9), APPROVER),
        (date(2025, 10, 11), SUPERVISOR),
    ]


def test_an_acknowledgement_silences_its_level_until_the_next() -> None:
    review = accepted()
    first = remind(review, (), PROMISED, noon(date(2026, 12, 3)))
    assert first is not None
    seen = Acknowledgement("officer", "等待鉴定意见", noon(date(2026, 12, 3)))
    told = acknowledge(review, (first,), seen)
    again = replace(seen, reason="另一个理由")
    assert acknowledge(review, told, again) == told, "the first reason stays"
    assert [each[:2] for each in days_told(review, PROMISED, EVERY_DAY, told)] == [
        (date(2026, 12, 8), APPROVER),
        (date(2026, 12, 10), SUPERVISOR),
    ]
    extended = decide(
        review, Command(Action.EXTEND, "o", True, reason="案情复杂"), noon(date(2026, 12, 4))
    ).review
    assert level_of(extended, told) is None, "the item has moved"
    with pytest.raises(NotAllowedError, match="没有待确认的催办"):
        acknowledge(extended, told, seen)
    assert days_told(extended, PROMISED, EVERY_DAY, told)[0][1] is OFFICER, "another last day"


def test_the_promise_leaves_out_the_time_to_supplement() -> None:
    asked = date(2026, 11, 24)
    demand = Command(Action.REQUEST_SUPPLEMENT, "o", True, missing=("凭证",), supplement_working_days=15)
    requested = receive(REQUESTED.model_copy(update={"requested_at": noon(date(2026, 11, 23))}), at_desk=True)
    waiting = decide(requested, demand, noon(asked)).review
    assert plan(waiting, PROMISED) == [], "the clocks stand still"
    back = noon(date(2026, 12, 1))
    received = decide(waiting, Command(Action.SUPPLEMENT, "a", False), back).review
    begun = decide(received, Command(Action.ACCEPT, "o", True), back).review
    promised = {each.promised_on for each in plan(begun, PROMISED) if each.promised_on}
    paused = LIBRARY_CALENDAR.working_days_between(asked, date(2026, 12, 1))
    assert promised == {LIBRARY_CALENDAR.working_days_after(date(2026, 11, 23), 5 + paused).on}


def test_what_is_told_names_the_last_day_and_no_record() -> None:
    review = accepted()
    reminder = remind(review, (), PROMISED, noon(date(2026, 11, 30)))
    assert reminder is not None
    told = reminded(review, reminder)
    assert (told.due_on, told.promised_on, told.level) == (review.decide_due_on, date(2026, 11, 30), OFFICER)
    assert "record" not in told.model_dump()


@pytest.mark.parametrize(
    ("days", "wrong"),
    [
        (DEFAULT_DAYS, False),
        ({}, False),
        ({OFFICER: [0], SUPERVISOR: [1]}, False),
        ({OFFICER: [-2, 2], APPROVER: [1]}, True),
        ({OFFICER: [0], SUPERVISOR: [0]}, True),
        ({APPROVER: [5], SUPERVISOR: [3]}, True),
    ],
)
def test_a_higher_level_is_reminded_later(days: Mapping[ReminderLevel, Sequence[int]], wrong: bool) -> None:
    assert bool(faults(days)) is wrong


def test_what_is_handed_over_in_person_has_days_of_its_own() -> None:
    schedule = Schedule(DEFAULT_DAYS, in_person={OFFICER: (-5, 0), APPROVER: (2,)})
    in_person = receive(REQUESTED.model_copy(update={"record": REQUESTED.record.reduced()}), at_desk=True)
    usual = receive(REQUESTED, at_desk=True)
    assert {each.level for each in plan(usual, schedule)} == set(LEVELS)
    days = LIBRARY_CALENDAR.working_days_after
    decided = decide(in_person, Command(Action.ACCEPT, "o", from_desk=True), REQUESTED.requested_at).review
    told = [(each.on, each.level) for each in plan(decided, schedule)]
    assert told[-1] == (days(decided.decide_due_on, 2).on, APPROVER)
    assert told[0][1] is OFFICER
    reminder = Reminder(ReviewStep.DECIDE, OFFICER, decided.decide_due_on, told[0][0], noon(told[0][0]))
    event = reminded(decided, reminder)
    assert (event.in_person, event.at_desk) == (True, True)


@given(
    schedule=schedules(),
    accepted_after=st.integers(0, 40),
    decided_after=st.integers(0, 60),
    looks=st.sampled_from([1, 2, 5, 20]),
)
@settings(max_examples=100)
def test_objections_are_reminded_of_alike(
    schedule: Schedule, accepted_after: int, decided_after: int, looks: int
) -> None:
    objection = receive_objection(FORWARDED)
    told: tuple[Reminder, ...] = ()
    for day in range(0, 160, looks):
        now = noon(china_date(objection.received_at)) + timedelta(days=day)
        if day >= accepted_after and objection.state is ObjectionState.RECEIVED:
            objection, _ = rule_on(objection, Ruling(ObjectionAction.ACCEPT, "officer"), now)
        if day >= accepted_after + decided_after and objection.state is ObjectionState.ACCEPTED:
            objection, _ = rule_on(objection, Ruling(ObjectionAction.DISMISS, "officer", "查明"), now)
        due = next_on(objection, told, schedule)
        reminder = remind(objection, told, schedule, now)
        expected = due and due <= china_date(now) and LIBRARY_CALENDAR.is_working_day(china_date(now))
        assert (reminder is not None) == bool(expected)
        if reminder is None:
            continue
        assert objection.state not in OBJECTION_ENDED
        assert (reminder.step, reminder.due_on, reminder.promised_on) == (
            objection.step,
            objection.due_on,
            None,
        )
        told = (*told, reminder)
        event = reminded(objection, reminder)
        assert isinstance(event, ObjectionReminded)
        assert (event.objection_id, event.level) == (objection.objection_id, reminder.level)
    assert objection.state in OBJECTION_ENDED or next_on(objection, told, schedule) is None
    for step in ReviewStep:
        levels = [LEVELS.index(each.level) for each in told if each.step is step]
        assert levels == sorted(levels)
