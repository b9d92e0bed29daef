"""notify: whatever the bus does, each fact is told once by each of its channels, and a mail comes to an end."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from unit.interleavings import Consumer, batches, received

from chassis.db import Session
from chassis.inbox import Received
from contracts.catalogue import load_catalogue
from contracts.events import (
    EVENTS,
    Channel,
    Event,
    NotificationSent,
    PropagationCompleted,
)
from notify.domain import (
    CHANNELS,
    Failure,
    MailState,
    TellableEvent,
    application_of,
    fact_id,
    is_objection,
    state_after,
)
from notify.handlers import FactHandler
from notify.offices import OfficeNotice, Offices
from notify.store import Draft, Emails, Messages, OfficeNotices
from notify.texts import Texts

EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
TEXTS = Texts({})
BY_TYPE = [
    EVENTS[path.stem].model_validate(json.loads(path.read_text(encoding="utf-8"))["data"])
    for path in sorted(EXAMPLES.glob("*.json"))
]


class Told:
    """Messages or mails in memory. Refuses what MongoDB would refuse: a second document with the same id."""

    def __init__(self) -> None:
        self.drafts: dict[str, Draft] = {}

    async def known(self, ids: Iterable[str], _session: Session) -> set[str]:
        return set(ids) & set(self.drafts)

    async def add(self, drafts: Sequence[Draft], _session: Session, _now: datetime) -> None:
        for draft in drafts:
            assert draft.notice.id not in self.drafts, "duplicate key: told twice"
            self.drafts[draft.notice.id] = draft


class Waiting:
    """What offices have to be told, in memory."""

    def __init__(self) -> None:
        self.notices: dict[str, OfficeNotice] = {}

    async def add(self, notices: Sequence[OfficeNotice], _session: Session, _now: datetime) -> None:
        for notice in notices:
            assert self.notices.setdefault(notice.fact, notice) == notice, "the same fact says the same"


@st.composite
def histories(draw: st.DrawFn) -> list[list[Received]]:
    """Streams about up to three items: one for each topic and key. Facts may be reported again under another event id."""
    streams: dict[tuple[str, str], list[Received]] = {}
    for number in range(draw(st.integers(1, 3))):
        own = {name: name[:3].replace("ite", "itm") + f"_{number:032x}" for name in ("item_id", "record_id")}
        own["letter_id"] = f"vlt_{number:032x}"
        own["application_id"] = f"app_{number // 2:032x}"
        own["objection_id"] = f"obj_{number:032x}"
        for example in draw(st.lists(st.sampled_from(BY_TYPE), max_size=10)):
            changes = {field: value for field, value in own.items() if hasattr(example, field)}
            event: Event = example.model_copy(update=changes)
            if isinstance(event, PropagationCompleted):
                event = event.model_copy(update={"version": draw(st.integers(1, 2))})
            cause = f"cause {draw(st.integers(1, 3))}"
            streams.setdefault((event.topic, event.key), []).append(received(event, cause))
    return list(streams.values())


OFFICE_EVENTS = tuple(Offices.EVENTS)


def about(event: Event) -> tuple[type[Event], str, int]:
    """What makes two facts different."""
    fields = event.model_dump()
    known = ("objection_id", "item_id", "application_id", "record_id")
    own = next(fields[name] for name in known if fields.get(name))
    return type(event), own, fields.get("version", fields.get("revision", 0))


@given(data=st.data(), streams=histories(), inbox=st.booleans())
def test_any_delivery_tells_each_fact_once_by_each_channel(
    data: st.DataObject, streams: list[list[Received]], inbox: bool
) -> None:
    messages, emails = Told(), Told()
    waiting = Waiting()
    offices = Offices(load_catalogue())
    consumer = Consumer(
        FactHandler(
            TEXTS, cast(Messages, messages), cast(Emails, emails), offices, cast(OfficeNotices, waiting)
        )
    )
    for batch in data.draw(batches(streams)):
        consumer.take(batch, inbox=inbox)
    facts = {about(r.event) for stream in streams for r in stream if type(r.event) in CHANNELS}
    for channel, told in ((Channel.IN_APP, messages), (Channel.EMAIL, emails)):
        expected = {fact for fact in facts if channel in CHANNELS[fact[0]]}
        assert Counter(about(draft.notice.event) for draft in told.drafts.values()) == Counter(expected)
    for_offices = {about(r.event) for s in streams for r in s if isinstance(r.event, OFFICE_EVENTS)}
    assert len(waiting.notices) == len(for_offices)
    sent = [event for event in consumer.told if isinstance(event, NotificationSent)]
    # the events name an application: what is about a record alone has none
    of = {i: application_of(draft.notice.event) for i, draft in messages.drafts.items()}
    named = [i for i, application in of.items() if application and not is_objection(application)]
    assert sorted(event.notification_id for event in sent) == sorted(named)
    assert len({document["_id"] for document in consumer.outbox}) == len(consumer.outbox) == len(sent)


def test_only_the_same_event_type_about_the_same_thing_is_the_same_fact() -> None:
    tellable = [event for event in BY_TYPE if isinstance(event, TellableEvent)]
    assert {type(event) for event in tellable} == set(CHANNELS), "an example of each"
    assert len({fact_id(event) for event in tellable}) == len(tellable)


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 6))
def test_a_mail_ends_with_its_first_permanent_failure_or_its_last_attempt(
    failures: list[bool], max_attempts: int
) -> None:
    states = [
        state_after(Failure("x", permanent), n, max_attempts) for n, permanent in enumerate(failures, 1)
    ]
    ends = [n for n, state in enumerate(states, 1) if state is MailState.FAILED]
    assert all(state in (MailState.PENDING, MailState.FAILED) for state in states)
    first = min([max_attempts, *(n for n, permanent in enumerate(failures, 1) if permanent)])
    assert min(ends, default=len(failures) + 1) == min(first, len(failures) + 1)
