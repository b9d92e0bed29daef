"""Working days: known years, years that operators add, and years that nobody has published yet."""

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
import yaml
from contract.architecture import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from unit.review_samples import REQUESTED

from contracts.catalogue import CatalogueError, load_catalogue
from contracts.clock import china_date
from contracts.events import ItemReferred, ReviewDueConfirmed, ReviewOverdue
from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar
from dept_adapter.domain import Command, Review, confirm, decide, notice_day, receive
from dept_adapter.states import ENDED, Action, State
from routing.domain import confirm as confirm_referral

# made up for the tests: the notice of 2027 is not published
NOTICE_2027 = {
    "year": 2027,
    "source": "测试用的安排",
    "evidence": "D",
    "overrides": False,
    "holidays": [
        {"name": "元旦", "from": "2026-12-31", "to": "2027-01-02"},
        {"name": "春节", "from": "2027-02-05", "to": "2027-02-12"},
        {"name": "清明节", "from": "2027-04-03", "to": "2027-04-05"},
        {"name": "劳动节", "from": "2027-05-01", "to": "2027-05-05"},
        {"name": "端午节", "from": "2027-06-09", "to": "2027-06-09"},
        {"name": "中秋节", "from": "2027-09-15", "to": "2027-09-15"},
        {"name": "国庆节", "from": "2027-10-01", "to": "2027-10-07"},
    ],
    "workdays": ["2027-01-03", "2027-02-14", "2027-10-09"],
}


def loaded(tmp_path: Path, *years: dict[str, object]) -> WorkCalendar:
    directory = tmp_path / "catalogue"
    if not directory.exists():
        shutil.copytree(REPOSITORY / "contracts" / "catalogue", directory)
    text = yaml.safe_dump({"years": list(years)}, allow_unicode=True)
    # as operators write them
    (directory / "calendar.yaml").write_text(text.replace("'", ""), encoding="utf-8")
    load_catalogue.__globals__["_load"].cache_clear()
    return load_catalogue(directory).calendar


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> WorkCalendar:
    return loaded(tmp_path_factory.mktemp("calendar"), NOTICE_2027)


def test_a_year_that_operators_add_is_known(extended: WorkCalendar) -> None:
    assert (LIBRARY_CALENDAR.missing, extended.missing) == (2027, 2028)
    assert extended.version != LIBRARY_CALENDAR.version
    assert extended.version.startswith(LIBRARY_CALENDAR.version)
    works = {date(2027, 1, 3): True, date(2027, 1, 4): True, date(2027, 2, 8): False, date(2027, 2, 14): True}
    # the notice of a year reaches back into the December before it
    works |= {date(2026, 12, 30): True, date(2026, 12, 31): False, date(2027, 1, 2): False}
    assert {day: extended.is_working_day(day) for day in works} == works
    due = extended.working_days_after(date(2026, 12, 29), 3)
    assert (due.on, due.provisional) == (date(2027, 1, 4), False)
    unknown = LIBRARY_CALENDAR.working_days_after(date(2026, 12, 29), 3)
    assert (unknown.on, unknown.count.missing_year) == (date(2027, 1, 1), 2027)


@given(start=st.dates(date(2025, 1, 1), date(2027, 12, 31)), days=st.integers(0, 60))
def test_a_last_day_is_a_working_day_and_certain_only_if_every_day_before_it_is(
    extended: WorkCalendar, start: date, days: int
) -> None:
    for calendar in (LIBRARY_CALENDAR, extended):
        due = calendar.working_days_after(start, days)
        passed = [start + timedelta(days=n + 1) for n in range((due.on - start).days)]
        assert sum(calendar.is_working_day(day) for day in passed) == days
        assert not days or calendar.is_working_day(due.on)
        assert calendar.working_days_between(start, due.on) == days
        missing = [year for day in passed if (year := calendar.missing_for(day))]
        assert due.count.missing_year == (missing[0] if missing else None)
        again = extended.again(due)
        if due.count.missing_year in (None, 2028):
            assert again == due
        else:
            assert again == extended.working_days_after(start, days)
        assert extended.again(again) == again


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"workdays": ["2027-01-03", "2028-02-12"]}, "2028-02-12 不在 2027 年"),
        ({"workdays": ["2027-01-02"]}, "2027-01-02 出现了两次"),
        ({"workdays": ["2027-01-06"]}, "2027-01-06 是周一至周五"),
        ({"holidays": NOTICE_2027["holidays"][1:]}, "缺少节日：元旦"),  # type: ignore[index]
        ({"year": 2026}, "不在 2026 年"),
        ({"holiday": []}, "holiday"),
        ({"workdays": ["2027-02-30"]}, "calendar.yaml: 无法读取：day is out of range"),
    ],
)
def test_a_slip_in_the_notice_is_refused_at_start_up(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    with pytest.raises(CatalogueError) as refused:
        loaded(tmp_path, NOTICE_2027 | change)
    assert problem in str(refused.value)
    assert str(refused.value).startswith("calendar.yaml: ")


def test_what_contradicts_the_library_has_to_say_so(tmp_path: Path) -> None:
    """As in spring 2020, when days off were added after the notice: the row names the whole year."""

    def of_2026(workdays: list[str]) -> dict[str, object]:
        days = [("元旦", "01-01", "01-03"), ("春节", "02-15", "02-23"), ("清明节", "04-04", "04-06")]
        days += [("劳动节", "05-01", "05-05"), ("端午节", "06-19", "06-21"), ("中秋节", "09-25", "09-27")]
        days += [("国庆节", "10-01", "10-07")]
        holidays = [{"name": n, "from": f"2026-{a}", "to": f"2026-{b}"} for n, a, b in days]
        return {**NOTICE_2027, "year": 2026, "holidays": holidays, "workdays": workdays}

    as_published = ["2026-01-04", "2026-02-14", "2026-02-28", "2026-05-09", "2026-09-20", "2026-10-10"]
    same = loaded(tmp_path, of_2026(as_published))
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    assert [*map(same.is_working_day, days)] == [*map(LIBRARY_CALENDAR.is_working_day, days)]
    changed = of_2026(as_published[:-1])
    with pytest.raises(CatalogueError, match="2026-10-10 与日历库不一致"):
        loaded(tmp_path, changed)
    assert not loaded(tmp_path, {**changed, "overrides": True}).is_working_day(date(2026, 10, 10))
    with pytest.raises(CatalogueError, match="年份“2027”重复"):
        loaded(tmp_path, NOTICE_2027, NOTICE_2027)


# --- what follows from a provisional day, and what happens when the year becomes known


def asked(calendar: WorkCalendar, start: date, accept: int, total: int) -> Review:
    now = datetime.combine(start, time(4), UTC)
    due = [calendar.working_days_after(start, days) for days in (accept, total)]
    requested = REQUESTED.model_copy(
        update={
            "accept_due_on": due[0].on,
            "decide_due_on": due[1].on,
            "due_provisional": due[1].provisional,
            "calendar_version": calendar.version,
            "accept_working_days": accept,
            "decide_working_days": total,
            "extend_working_days": 10,
            "requested_at": now,
        }
    )
    return receive(requested, at_desk=True, calendar=calendar)


@given(
    start=st.dates(date(2026, 11, 20), date(2026, 12, 31)),
    accept=st.integers(1, 5),
    more=st.integers(1, 20),
    actions=st.sampled_from(
        [
            (),
            (Action.ACCEPT,),
            (Action.ACCEPT, Action.EXTEND),
            (Action.REQUEST_SUPPLEMENT,),
            (Action.REQUEST_SUPPLEMENT, Action.SUPPLEMENT),
            (Action.REQUEST_SUPPLEMENT, Action.SUPPLEMENT, Action.ACCEPT, Action.EXTEND),
            (Action.GRANT,),
        ]
    ),
)
def test_when_the_year_is_known_every_day_is_as_if_it_had_always_been(
    extended: WorkCalendar, start: date, accept: int, more: int, actions: tuple[Action, ...]
) -> None:
    def lived(calendar: WorkCalendar) -> Review:
        review = asked(calendar, start, accept, accept + more)
        for minute, action in enumerate(actions):
            number = "1号" if action is Action.GRANT else None
            command = Command(
                action, "officer", True, number, "复杂", missing=("凭证",), supplement_working_days=15
            )
            review = decide(review, command, review.requested_at + timedelta(minutes=minute), calendar).review
        return review

    unknown = lived(LIBRARY_CALENDAR)
    assert confirm(unknown, LIBRARY_CALENDAR, unknown.requested_at).events == ()
    confirmed = confirm(unknown, extended, unknown.requested_at)
    assert confirm(confirmed.review, extended, unknown.requested_at).events == ()
    expected = lived(extended)
    if unknown.state in ENDED or unknown.missing_year is None:
        assert confirmed.events == ()
        return
    for name in ("state", "accept_due_on", "decide_due_on", "due_on", "missing_year"):
        assert getattr(confirmed.review, name) == getattr(expected, name), name
    (told,) = confirmed.events
    assert isinstance(told, ReviewDueConfirmed)
    assert (told.decide_due_on, told.due_provisional) == (expected.decide_due_on, False)
    assert told.supplement_due_on == (expected.due_on if expected.state is State.SUPPLEMENT else None)


@given(start=st.dates(date(2026, 12, 20), date(2026, 12, 31)), late=st.integers(0, 400))
def test_nothing_that_cannot_be_undone_follows_from_a_provisional_day(
    extended: WorkCalendar, start: date, late: int
) -> None:
    review = asked(LIBRARY_CALENDAR, start, 8, 15)
    command = Command(
        Action.REQUEST_SUPPLEMENT, "officer", True, missing=("凭证",), supplement_working_days=15
    )
    waiting = decide(review, command, review.requested_at).review
    accepted = decide(review, Command(Action.ACCEPT, "officer", True), review.requested_at).review
    now = review.requested_at + timedelta(days=late)
    for each in (review, waiting, accepted):
        assert notice_day(each, now).events == ()
        certain = confirm(each, extended, now).review
        assert certain.due_on
        follows = notice_day(certain, now).events
        assert bool(follows) == (china_date(now) > certain.due_on)
        if follows and each is not waiting:
            assert isinstance(follows[0], ReviewOverdue)
            assert follows[0].due_on == certain.due_on
    # a department is not refused its extension either
    extend = Command(Action.EXTEND, "officer", True, reason="复杂")
    assert decide(accepted, extend, now).review.state is State.EXTENDED


def test_what_routing_counted_with_less_knowledge_is_counted_again_here(extended: WorkCalendar) -> None:
    """A replica of routing that was started before the notice came."""
    told = asked(LIBRARY_CALENDAR, date(2026, 12, 28), 2, 10)
    requested = REQUESTED.model_copy(
        update={
            "accept_due_on": told.accept_due_on,
            "decide_due_on": told.decide_due_on,
            "accept_working_days": 2,
            "decide_working_days": 10,
            "due_provisional": True,
            "requested_at": told.requested_at,
        }
    )
    review = receive(requested, at_desk=True, calendar=extended)
    assert (review.decide_due_on, review.missing_year is not None) == (told.decide_due_on, True)
    now = told.requested_at
    assert (
        confirm(review, extended, now).review.decide_due_on
        == asked(extended, date(2026, 12, 28), 2, 10).decide_due_on
    )
    assert replace(review, state=State.GRANTED).missing_year is None


def test_the_human_queue_is_told_its_day_again(extended: WorkCalendar) -> None:
    due = LIBRARY_CALENDAR.working_days_after(date(2026, 12, 30), 2)
    referred = ItemReferred(
        application_id=REQUESTED.application_id,
        item_id=REQUESTED.item_id,
        record_id=REQUESTED.record_id,
        subject_id=REQUESTED.subject_id,
        queue_id="queue",
        queue_name="人工席",
        reason_code="unknown_department",
        reason="不明",
        due_on=due.on,
        due_provisional=due.provisional,
        referred_at=REQUESTED.requested_at,
    )
    assert confirm_referral(referred, due.count, LIBRARY_CALENDAR, REQUESTED.requested_at) is None
    confirmed = confirm_referral(referred, due.count, extended, REQUESTED.requested_at)
    assert confirmed
    count, told = confirmed
    assert (told.due_on, count.missing_year) == (extended.working_days_after(date(2026, 12, 30), 2).on, None)
    assert told.due_on != due.on
    assert confirm_referral(referred, count, extended, REQUESTED.requested_at) is None
