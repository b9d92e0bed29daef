"""routing: where an item goes depends on its record and the day alone, not on what else is delivered, how often or in which order."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from unit.interleavings import Consumer, batches, received

from chassis.db import Document, Session
from chassis.inbox import Received
from contracts.catalogue import Department, load_catalogue
from contracts.clock import china_date
from contracts.events import (
    ApplicationCompleted,
    ApplicationSubmitted,
    ItemReferred,
    ItemRouted,
    ReviewRequested,
)
from contracts.identifiers import item_id
from contracts.records import RecordFacts, SubjectType
from contracts.working_days import LIBRARY_CALENDAR
from routing.domain import Item, Referred, Routed, assign, items_to_route, route
from routing.handlers import ApplicationHandler
from routing.store import Referrals

CATALOGUE = load_catalogue()
SUBJECT = "sub_" + "0" * 32
DAY = datetime(2026, 11, 23, tzinfo=UTC)
NAMES = [name for d in CATALOGUE.departments for name in (d.name, *d.aliases)]


@st.composite
def submissions(draw: st.DrawFn, number: int) -> ApplicationSubmitted:
    """An application for different records; other applications may be for the same ones."""
    ids = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5, unique=True))
    records = [
        RecordFacts(
            record_id=f"rec_{record:032x}",
            subject_id=SUBJECT,
            subject_type=SubjectType.LEGAL_PERSON,
            category=draw(st.sampled_from([c.id for c in CATALOGUE.categories])),
            document_number="市教育局罚〔2025〕1号",
            authority_code=draw(st.none() | st.sampled_from([d.code for d in CATALOGUE.departments])),
            authority_name=draw(st.sampled_from([*NAMES, "没有此机关"])),
            decided_on=date(2025, 8, 12),
            tier=draw(st.sampled_from([None, "minor", "general", "serious"])),
        )
        for record in ids
    ]
    return ApplicationSubmitted(
        application_id=f"app_{number:032x}",
        subject_id=SUBJECT,
        subject_type=SubjectType.LEGAL_PERSON,
        records=tuple(records),
        submitted_at=DAY,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[list[Received]]:
    """One stream for each application: its submission, perhaps its completion."""
    streams = []
    for number in range(draw(st.integers(1, 4))):
        submitted = draw(submissions(number))
        completed = ApplicationCompleted(
            application_id=submitted.application_id, subject_id=SUBJECT, items=(), completed_at=DAY
        )
        stream = [received(submitted)]
        streams.append([*stream, received(completed)] if draw(st.booleans()) else stream)
    return streams


class Queue:
    """The referrals in memory, by item id."""

    def __init__(self) -> None:
        self.referred: dict[str, Referred] = {}

    async def add(self, referred: Sequence[Referred], _session: Session) -> None:
        for each in referred:
            assert each.item.id not in self.referred, "duplicate key: referred twice"
            self.referred[each.item.id] = each


def consume(delivered: Sequence[Sequence[Received]]) -> tuple[Queue, list[Document]]:
    """What these batches lead to."""
    queue = Queue()
    consumer = Consumer(ApplicationHandler(CATALOGUE, cast(Referrals, queue), 2))
    for batch in delivered:
        consumer.take(batch)
    return queue, consumer.outbox


@given(data=st.data(), streams=histories())
def test_any_delivery_leads_to_the_same_events_under_the_same_ids(
    data: st.DataObject, streams: list[list[Received]]
) -> None:
    queue, outbox = consume(data.draw(batches(streams)))
    alone = [consume([stream]) for stream in streams]
    expected = {d["_id"]: (d["topic"], d["key"]) for _, documents in alone for d in documents}
    assert {d["_id"]: (d["topic"], d["key"]) for d in outbox} == expected
    assert len(outbox) == len(expected), "two events under one id, or one event twice"
    assert set(queue.referred) == {i for referrals, _ in alone for i in referrals.referred}
    for d in sorted(outbox, key=lambda d: d["seq"]):
        assert d["headers"]["ce_type"] in (ItemRouted.TYPE, ItemReferred.TYPE, ReviewRequested.TYPE)


@given(data=st.data(), submitted=submissions(1))
def test_a_place_depends_on_the_record_and_the_day_alone(
    data: st.DataObject, submitted: ApplicationSubmitted
) -> None:
    """Not on the order of the records, on the other records, on the time of day, or on being routed before."""

    def places(event: ApplicationSubmitted, hour: int) -> dict[str, tuple[str, date, bool]]:
        found = {}
        for item in items_to_route(event):
            # 16:00 UTC is midnight in China: the same day there
            result = route(item, CATALOGUE, DAY - timedelta(hours=8) + timedelta(hours=hour), 2)
            if isinstance(result, Routed):
                assert result.routed.item_id == result.requested.item_id == item.id
                assert result.routed.decide_due_on == result.requested.decide_due_on
                told = result.routed
                found[item.id] = (told.department.code, told.decide_due_on, told.due_provisional)
            else:
                assert result.referred.item_id == item.id
                told_queue = result.referred
                found[item.id] = (told_queue.queue_id, told_queue.due_on, told_queue.due_provisional)
        return found

    whole = places(submitted, 0)
    assert set(whole) == {item_id(submitted.application_id, r.record_id) for r in submitted.records}
    hours = st.integers(0, 23)
    order = data.draw(st.permutations(submitted.records))
    assert places(submitted.model_copy(update={"records": tuple(order)}), data.draw(hours)) == whole
    some = tuple(order[: data.draw(st.integers(1, len(order)))])
    part = places(submitted.model_copy(update={"records": some}), data.draw(hours))
    assert part.items() <= whole.items()


@given(
    day=st.dates(date(2024, 1, 1), date(2028, 12, 31)),
    hour=st.integers(0, 23),
    department=st.sampled_from(CATALOGUE.departments),
    tier=st.sampled_from([None, "minor", "general", "serious"]),
    data=st.data(),
)
def test_a_deadline_never_falls_on_a_day_off(
    day: date, hour: int, department: Department, tier: str | None, data: st.DataObject
) -> None:
    """Spring Festival, make-up days, and years whose calendar is not published yet."""
    facts = RecordFacts(
        record_id="rec_" + "1" * 32,
        subject_id=SUBJECT,
        subject_type=SubjectType.LEGAL_PERSON,
        category=data.draw(st.sampled_from(department.categories)),
        document_number="罚〔2023〕1号",
        authority_code=department.code,
        authority_name=department.name,
        decided_on=date(2023, 8, 12),
        tier=tier,
    )
    now = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    asked = assign(Item("app_" + "1" * 32, SUBJECT, facts), department, CATALOGUE, now).requested
    for due in (asked.accept_due_on, asked.decide_due_on):
        assert LIBRARY_CALENDAR.is_working_day(due)
        assert due > china_date(now)
