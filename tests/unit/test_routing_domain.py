"""Routing: every record of an application goes to exactly one place, and deadlines are working days."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import load_catalogue
from contracts.events import ApplicationSubmitted, ReferralReason
from contracts.identifiers import item_id
from contracts.records import RecordFacts, SubjectType
from contracts.working_days import LIBRARY_CALENDAR
from routing.domain import Item, Referred, Routed, items_to_route, route

CATALOGUE = load_catalogue()
NOW = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
APPLICATION = "app_" + "a" * 32
SUBJECT = "sub_" + "b" * 32


def facts(number: int = 1, **changes: object) -> RecordFacts:
    values: dict[str, object] = {
        "record_id": f"rec_{number:032x}",
        "subject_id": SUBJECT,
        "subject_type": SubjectType.LEGAL_PERSON,
        "category": "administrative_penalty",
        "document_number": "市教育局罚〔2025〕1号",
        "authority_code": None,
        "authority_name": "杭州市教育局",
        "decided_on": date(2025, 8, 12),
        "penalty_kinds": "罚款",
        "tier": "general",
    }
    return RecordFacts.model_validate(values | changes)


def routed(**changes: object) -> Routed | Referred:
    return route(Item(APPLICATION, SUBJECT, facts().model_copy(update=changes)), CATALOGUE, NOW, 2)


names = [name for d in CATALOGUE.departments for name in (d.name, *d.aliases)]


@given(
    st.lists(
        st.builds(
            dict,
            authority_name=st.sampled_from(names) | st.text(max_size=20),
            authority_code=st.none() | st.sampled_from([d.code for d in CATALOGUE.departments]),
            category=st.sampled_from([c.id for c in CATALOGUE.categories]) | st.text(max_size=10),
            tier=st.sampled_from([None, "minor", "general", "serious"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_every_record_goes_to_exactly_one_place(records: list[dict[str, object]]) -> None:
    submitted = ApplicationSubmitted(
        application_id=APPLICATION,
        subject_id=SUBJECT,
        subject_type=SubjectType.LEGAL_PERSON,
        records=tuple(facts(n).model_copy(update=changes) for n, changes in enumerate(records)),
        submitted_at=NOW,
    )
    items = items_to_route(submitted)
    assert [item.id for item in items] == [item_id(APPLICATION, r.record_id) for r in submitted.records]
    for item in items:
        result = route(item, CATALOGUE, NOW, 2)
        assert result == route(item, CATALOGUE, NOW, 2)
        if isinstance(result, Routed):
            department = CATALOGUE.by_slug(result.requested.department.slug)
            assert department is not None
            assert item.record.category in department.categories
            assert result.requested.topic == f"xinfu.reviews.{department.slug}"
            assert result.routed.department == result.requested.department
            assert date(2026, 11, 23) <= result.requested.accept_due_on <= result.requested.decide_due_on
        else:
            assert result.referred.queue_id == CATALOGUE.human_queue.id
            assert result.referred.reason
            assert result.referred.due_on == date(2026, 11, 25)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authority_name": "杭州市示例无此机关"}, ReferralReason.UNKNOWN_DEPARTMENT),
        ({"category": "judgment_defaulter"}, ReferralReason.CATEGORY_NOT_DECIDED),
        ({"category": "samr_administrative_penalty"}, ReferralReason.CATEGORY_NOT_DECIDED),
        (
            {"authority_code": next(d.code for d in CATALOGUE.departments if d.slug == "hz-samr")},
            ReferralReason.AMBIGUOUS_DEPARTMENT,
        ),
    ],
)
def test_what_cannot_be_resolved_goes_to_a_person_with_its_reason(
    changes: dict[str, object], reason: ReferralReason
) -> None:
    result = routed(**changes)
    assert isinstance(result, Referred)
    assert result.referred.reason_code is reason


def test_time_limits_are_those_of_the_rule() -> None:
    # 36号令 row 2: 3 working days to accept, 10 in total; from Monday 2026-11-23
    result = routed()
    assert isinstance(result, Routed)
    assert result.requested.accept_due_on == date(2026, 11, 26)
    assert result.requested.decide_due_on == date(2026, 12, 7)
    assert not result.requested.due_provisional


def test_the_day_is_that_of_china() -> None:
    # 2026-11-22 16:30 UTC is already Monday the 23rd in China
    item = Item(APPLICATION, SUBJECT, facts())
    late = route(item, CATALOGUE, datetime(2026, 11, 22, 16, 30, tzinfo=UTC), 2)
    assert isinstance(late, Routed)
    assert late.requested.accept_due_on == date(2026, 11, 26)


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        (date(2026, 2, 13), 1, date(2026, 2, 14)),  # a Saturday made up for the Spring Festival
        (date(2026, 2, 14), 1, date(2026, 2, 24)),  # then the whole holiday
        (date(2026, 9, 30), 1, date(2026, 10, 8)),
        (date(2026, 11, 20), 0, date(2026, 11, 20)),
        (date(2026, 11, 20), 1, date(2026, 11, 23)),
    ],
)
def test_working_days_follow_the_calendar_of_the_state_council(start: date, days: int, end: date) -> None:
    due = LIBRARY_CALENDAR.working_days_after(start, days)
    assert (due.on, due.provisional) == (end, False)


def test_a_year_without_calendar_is_said_to_be_provisional() -> None:
    assert LIBRARY_CALENDAR.working_days_after(date(2026, 12, 28), 30).provisional
    result = route(Item(APPLICATION, SUBJECT, facts()), CATALOGUE, datetime(2026, 12, 28, 1, tzinfo=UTC), 2)
    assert isinstance(result, Routed)
    assert result.routed.due_provisional
    assert result.requested.due_provisional


@given(st.dates(date(2024, 1, 1), date(2026, 10, 1)), st.integers(1, 40))
def test_a_deadline_is_a_working_day_and_has_that_many_before_it(start: date, days: int) -> None:
    end = LIBRARY_CALENDAR.working_days_after(start, days).on
    assert LIBRARY_CALENDAR.is_working_day(end)
    between = [start + timedelta(days=n + 1) for n in range((end - start).days)]
    assert sum(LIBRARY_CALENDAR.is_working_day(day) for day in between) == days
