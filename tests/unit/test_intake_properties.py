"""intake: the topics have no order among each other, so every interleaving of them ends in the same applications."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.interleavings import Consumer, batches, deliveries, received

from chassis.db import Session
from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import load_catalogue
from contracts.events import (
    ApplicationCompleted,
    ClosureReason,
    Event,
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemReopened,
    ItemRouted,
    ItemStarted,
    LetterIssued,
    PropagationCompleted,
    RecordPublished,
    RecordWithdrawn,
    ReferralReason,
    RepairGranted,
    RepairNoticeServed,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewExpired,
    ReviewExtended,
    ReviewFact,
    ReviewNotAccepted,
    ReviewWithdrawn,
    SupplementReceived,
    SupplementRequested,
    TargetAcknowledged,
    TargetDrifted,
    TargetEvent,
    TargetVerified,
)
from contracts.http.eligibility import Transition
from contracts.http.intake import Contact
from contracts.identifiers import item_id
from contracts.records import DepartmentRef, DisplayState, RecordFacts, SubjectType
from intake.domain.application import Application, Entry
from intake.domain.item import Closure, Expiry, Item, ItemStatus, Recognition, apply
from intake.domain.record import Record
from intake.findings import Findings
from intake.follow_ups import FollowUps
from intake.handlers import ProgressHandler
from intake.notices import Notices
from intake.objections import Objections
from intake.store import Store

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
TODAY = date(2026, 11, 23)
SUBJECT = "sub_" + "b" * 32
DEPARTMENT = DepartmentRef(code="11330100XF00000033", slug="hz-jyj", name="杭州市教育局")


def facts(record: int, number: int = 0) -> RecordFacts:
    return RecordFacts(
        record_id=f"rec_{record:032x}",
        subject_id=SUBJECT,
        subject_type=SubjectType.LEGAL_PERSON,
        category="administrative_penalty",
        document_number=f"杭教罚〔2026〕{number}号",
        authority_code=DEPARTMENT.code,
        authority_name=DEPARTMENT.name,
        decided_on=date(2026, 8, 31),
        penalty_kinds=f"罚款{number}",
    )


CATALOGUE = load_catalogue()


class Documents:
    """Intake's store in memory."""

    async def emails(self, _ids: Iterable[str], _session: Session) -> dict[str, str]:
        return {}

    def __init__(self, applications: Mapping[str, Sequence[Item]] = {}) -> None:
        self.kept_items = {item.item_id: item for items in applications.values() for item in items}
        self.kept_applications = {
            application_id: Application(
                application_id=application_id,
                subject_id=SUBJECT,
                contact=Contact(name="张三", phone="13812345678", email=None),
                statement="已缴清罚款",
                submitted_at=NOW,
                item_count=len(items),
                open_items=len(items),
                held=sum(bool(item.after) for item in items),
                timeline_seq=1,
            )
            for application_id, items in applications.items()
        }
        self.kept_records = {
            item.record_id: Record(
                record_id=item.record_id,
                subject_id=SUBJECT,
                facts=item.facts,
                published_at=NOW,
                application_id=item.application_id,
                item_id=item.item_id,
            )
            for item in self.kept_items.values()
        }
        self.timeline: list[Entry] = []
        self.followed_up: set[str] = set()

    async def records(self, ids: Iterable[str], _session: Session) -> dict[str, Record]:
        return {i: self.kept_records[i] for i in ids if i in self.kept_records}

    async def save_records(self, records: Iterable[Record], _session: Session) -> None:
        self.kept_records |= {record.record_id: record for record in records}

    async def items(self, ids: Iterable[str], _session: Session) -> dict[str, Item]:
        return {i: self.kept_items[i] for i in ids if i in self.kept_items}

    async def items_of(self, ids: Iterable[str], _session: Session) -> list[Item]:
        wanted = set(ids)
        return [item for item in self.kept_items.values() if item.application_id in wanted]

    async def save_items(self, items: Iterable[Item], _session: Session) -> None:
        self.kept_items |= {item.item_id: item for item in items}

    async def applications(self, ids: Iterable[str], _session: Session) -> dict[str, Application]:
        return {i: self.kept_applications[i] for i in ids}

    async def advance_applications(self, changed: Iterable[Application], _session: Session) -> None:
        self.kept_applications |= {a.application_id: a for a in changed}

    async def add_entries(self, entries: Sequence[Entry], _session: Session) -> None:
        self.timeline += entries

    async def schedule(self, repaired: Mapping[str, str], _items: Iterable[Item], _session: Session) -> None:
        again = self.followed_up & set(repaired)
        assert all(self.kept_items[i].round for i in again), "followed up twice"
        self.followed_up |= set(repaired)

    async def hold_records(self, held: Mapping[tuple[str, str], str], _session: Session) -> None:
        for (record_id, application_id), item in held.items():
            record = self.kept_records[record_id]
            assert record.application_id is None, "held twice"
            changes = {"application_id": application_id, "item_id": item, "repaired_at": None}
            self.kept_records[record_id] = record.model_copy(update=changes)

    async def take(self, _unit: UnitOfWork, found: Sequence[object]) -> None:
        assert not found, "nothing was found false"

    async def release_records(self, freed: Mapping[tuple[str, str], str | None], _session: Session) -> None:
        for (record_id, application_id), repaired_at in freed.items():
            record = self.kept_records[record_id]
            assert record.application_id == application_id, "released twice"
            repaired = datetime.fromisoformat(repaired_at) if repaired_at else record.repaired_at
            self.kept_records[record_id] = record.model_copy(
                update={"application_id": None, "repaired_at": repaired}
            )

    async def refuse_records(self, refused: Mapping[str, datetime], _session: Session) -> None:
        for record_id, at in refused.items():
            record = self.kept_records[record_id]
            self.kept_records[record_id] = record.model_copy(update={"refused_at": at})

    async def revoke_records(self, revoked: Mapping[str, datetime | None], _session: Session) -> None:
        for record_id, at in revoked.items():
            record = self.kept_records[record_id]
            self.kept_records[record_id] = record.model_copy(update={"revoked_at": at})


@dataclass
class History:
    """What was filed, and all events about it: a stream for each topic and key."""

    applications: dict[str, list[Item]]
    streams: dict[tuple[str, str], list[Received]]

    def add(self, event: Event) -> None:
        stream = self.streams.setdefault((event.topic, event.key), [])
        stream.append(received(event, str(len(stream))))

    def events(self, item: Item, cls: type[ItemEvent]) -> list[ItemEvent]:
        told = (r.event for stream in self.streams.values() for r in stream)
        return [e for e in told if isinstance(e, cls) and e.item_id == item.item_id]

    def was_repaired(self, item: Item) -> bool:
        """Whether every target was seen showing it."""
        done = [e for e in self.events(item, PropagationCompleted) if isinstance(e, PropagationCompleted)]
        if not self.rounds(item):
            return any(e.state is ENDED for e in done)
        return any(e.state is ENDED and e.decision_number == AGAIN for e in done)

    def rounds(self, item: Item) -> int:
        """How often it was reopened or restored."""
        return max((e.round for e in self.events(item, ReviewFact) if isinstance(e, ReviewFact)), default=0)

    def outcome(self, item: Item) -> ItemOutcome | None:
        """How an item has to end."""
        if self.rounds(item):
            last = self.events(item, ReviewFact)[-1]
            if isinstance(last, RepairRefused):
                return ItemOutcome.REFUSED
            return ItemOutcome.REPAIRED if self.was_repaired(item) else None
        if self.events(item, RepairRefused):
            return ItemOutcome.REFUSED
        if self.events(item, RepairRevoked):
            return ItemOutcome.REVOKED
        if self.events(item, RepairRecognised):
            return ItemOutcome.RECOGNISED
        if self.events(item, ReviewNotAccepted):
            return ItemOutcome.NOT_ACCEPTED
        if self.events(item, ReviewWithdrawn):
            return ItemOutcome.WITHDRAWN
        if self.events(item, ReviewExpired):
            return ItemOutcome.EXPIRED
        if self.events(item, ReviewClosed):
            return ItemOutcome.CLOSED
        return ItemOutcome.REPAIRED if self.was_repaired(item) else None

    def has_its_turn(self, item: Item) -> bool:
        """Whether all that a held item waits for has been decided, or has ended."""
        by_id = {each.item_id: each for each in self.applications[item.application_id]}
        first = [by_id[i] for i in item.after]
        return bool(first) and all(
            self.outcome(f) or self.events(f, RepairGranted) or self.rounds(f) for f in first
        )


TARGET_EVENTS: list[type[TargetEvent]] = [TargetAcknowledged, TargetVerified, TargetDrifted]
ENDED, PUBLISHED = DisplayState.PUBLICATION_ENDED, DisplayState.PUBLISHED
VERSIONS: dict[str, list[list[DisplayState]]] = {
    "granted": [[ENDED]],
    "recognised": [[ENDED]],
    # a revocation that comes to sync together with its grant is one version
    "revoked": [[ENDED, PUBLISHED], [ENDED, PUBLISHED], [PUBLISHED]],
    "restored": [[ENDED, PUBLISHED, ENDED], [PUBLISHED, ENDED], [ENDED]],
    "granted again": [[ENDED]],
}
AGAIN = "5号"
"""Number of a decision after an upheld objection."""


@st.composite
def propagations(draw: st.DrawFn, about: dict[str, Any], way: str) -> list[ItemEvent]:
    """What sync tells of a record: for each version in turn what targets do, then perhaps completion."""
    events: list[ItemEvent] = []
    states = draw(st.sampled_from(VERSIONS.get(way, [[]])))
    for version, state in enumerate(states, start=1):
        of_version = {**about, "version": version, "state": state}
        found = st.tuples(st.sampled_from(TARGET_EVENTS), st.sampled_from(["alpha", "beta"]))
        for cls, target in draw(st.lists(found, max_size=4)):
            times = dict.fromkeys(("acknowledged_at", "verified_at", "drifted_at"), NOW)
            shown = {"target_id": target, "target_name": target, "seen_state": PUBLISHED}
            events.append(cls.model_validate({**of_version, **times, **shown}))
        if draw(st.booleans()):
            number = "4号" if state is PUBLISHED else "3号"
            if way in ("restored", "granted again") and version == len(states):
                number = AGAIN
            completed = {"target_ids": ("alpha", "beta"), "completed_at": NOW + timedelta(minutes=version)}
            completed["decision_number"] = number
            events.append(PropagationCompleted.model_validate({**of_version, **completed}))
    return events


WAYS = [
    "open",
    "recognised",
    "expired",
    "closed",
    "not_accepted",
    "withdrawn",
    "accepted",
    "granted",
    "revoked",
    "revoked",
    "refused",
    "restored",
    "reopened",
    "granted again",
    "refused again",
]
PLATFORM = {"platform_id": "gsxt", "platform_name": "公示系统", "decision_number": "外1号"}


def letter(asked: Mapping[str, Any], kind: str) -> LetterIssued:
    """The letter of a step."""
    digest = hashlib.sha256(f"{asked['item_id']}{kind}".encode()).hexdigest()
    said = {"letter_id": f"let_{digest[:32]}", "letter_kind": kind, "title": kind, "number": None}
    made = {"content_hash": digest, "verification_code": "0", "dated": TODAY, "issued_at": NOW}
    return LetterIssued.model_validate({**asked, **said, **made})


CLOSURE: dict[str, Any] = {"reason_code": ClosureReason.RECORD_WITHDRAWN, "reason": "记录撤回。"}


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Up to two applications with up to three items. Each item goes as far as it likes on one of the ways there are."""
    history = History({}, {})
    for number in range(draw(st.integers(1, 2))):
        application_id = f"app_{number:032x}"
        for record in range(number * 3, number * 3 + draw(st.integers(1, 3))):
            own = facts(record)
            item = Item(
                item_id=item_id(application_id, own.record_id),
                application_id=application_id,
                record_id=own.record_id,
                facts=own,
            )
            others = history.applications.setdefault(application_id, [])
            waits: bool = draw(st.booleans())
            if others and waits:
                # nobody hears of a held item before its turn
                others.append(item.model_copy(update={"after": tuple(each.item_id for each in others)}))
                continue
            way = draw(st.sampled_from(WAYS))
            if way == "recognised":
                # intake has asked for it: it knows before anybody else
                found = Recognition(**PLATFORM, repaired_at=NOW, requested=True)
                item = item.model_copy(update={"recognition": found})
            if way == "expired":
                item = item.model_copy(
                    update={"expiry": Expiry(ended_on=TODAY, source="规则", requested=True)}
                )
            if way == "closed":
                item = item.model_copy(update={"closure": Closure(**CLOSURE, requested=True)})
            others.append(item)
            about: dict[str, Any] = {
                "application_id": application_id,
                "item_id": item.item_id,
                "record_id": item.record_id,
                "subject_id": SUBJECT,
            }
            asked: dict[str, Any] = {**about, "department": DEPARTMENT, "decide_due_on": TODAY}
            if draw(st.booleans()):
                queue = {"queue_id": "q", "queue_name": "人工席", "reason": "x", "due_on": TODAY}
                code = {"reason_code": ReferralReason.UNKNOWN_DEPARTMENT, "referred_at": NOW}
                history.add(ItemReferred.model_validate({**about, **queue, **code}))
            history.add(ItemRouted.model_validate({**asked, "routed_at": NOW}))
            if draw(st.booleans()):
                missing = {"missing": ("凭证",), "supplement_due_on": TODAY, "requested_at": NOW}
                history.add(SupplementRequested.model_validate({**asked, **missing}))
                received = {"accept_due_on": TODAY, "received_at": NOW}
                history.add(SupplementReceived.model_validate({**asked, **received}))
            if way == "not_accepted":
                rejected = {"reason": "无权限", "not_accepted_at": NOW}
                history.add(ReviewNotAccepted.model_validate({**asked, **rejected}))
            if way == "withdrawn":
                withdrawn = {"reason_code": "applicant", "withdrawn_at": NOW}
                history.add(ReviewWithdrawn.model_validate({**asked, **withdrawn}))
            if way == "expired":
                history.add(ReviewExpired.model_validate({**asked, "ended_on": TODAY, "expired_at": NOW}))
            if way == "closed":
                history.add(ReviewClosed.model_validate({**asked, **CLOSURE, "closed_at": NOW}))
            if way == "recognised":
                ruling = {**asked, **PLATFORM, "record": own, "decided_at": NOW}
                history.add(RepairRecognised.model_validate(ruling))
            if way not in ("open", "recognised", "not_accepted", "withdrawn", "expired", "closed"):
                history.add(ReviewAccepted.model_validate({**asked, "accepted_at": NOW}))
                history.add(letter(asked, "accepted"))
            if way not in ("open", "recognised", "not_accepted", "withdrawn", "expired", "closed") and draw(
                st.booleans()
            ):
                extended = {"reason": "复杂", "decide_due_on": TODAY, "extended_at": NOW}
                history.add(ReviewExtended.model_validate({**asked, **extended}))
            ruled = {**asked, "record": own, "decision_number": "3号", "decided_at": NOW, "reason": "x"}
            if way in ("refused", "reopened", "granted again", "refused again"):
                history.add(RepairRefused.model_validate(ruled))
                history.add(letter(asked, "refused"))
            if way in ("granted", "revoked", "restored"):
                history.add(RepairGranted.model_validate(ruled))
            if way in ("revoked", "restored"):
                later = {"decision_number": "4号", "decided_at": NOW + timedelta(hours=1)}
                history.add(RepairRevoked.model_validate({**ruled, **later}))
            anew = {**ruled, "round": 1, "decision_number": AGAIN, "decided_at": NOW + timedelta(hours=3)}
            if way in ("reopened", "granted again", "refused again"):
                due = {"accept_due_on": TODAY, "accepted": True, "reopened_at": NOW + timedelta(hours=2)}
                history.add(ItemReopened.model_validate({**asked, **due, "round": 1}))
            if way in ("restored", "granted again"):
                history.add(RepairGranted.model_validate(anew))
            if way == "refused again":
                history.add(RepairRefused.model_validate(anew))
            for event in draw(propagations(about, way)):
                history.add(event)
    return history


def consume(history: History, delivered: Iterable[Sequence[Received]]) -> tuple[Documents, list[Event]]:
    """Intake after these batches."""
    documents = Documents(history.applications)
    consumer = Consumer(handler(documents))
    for batch in delivered:
        consumer.take(batch)
    return documents, consumer.told


def handler(documents: Documents) -> ProgressHandler:
    store, follow_ups = cast(Store, documents), cast(FollowUps, documents)
    notices = Notices(store, CATALOGUE, Transition.EITHER, within_days=36_500)
    findings, objections = cast(Findings, documents), cast(Objections, documents)
    return ProgressHandler(store, follow_ups, findings, objections, notices, CATALOGUE)


def _whenever_started(documents: Documents) -> dict[str, Item]:
    """The items, but for the time at which each had its turn: that is the batch's."""
    return {
        i: item.model_copy(update={"started_at": NOW if item.started_at else None})
        for i, item in documents.kept_items.items()
    }


def _lines(documents: Documents) -> Counter[tuple[str, str]]:
    """What a follower is told of the item before it depends on what had come of that by then."""
    return Counter(
        (entry.item_id, entry.type if entry.type == "started" else entry.text)
        for entry in documents.timeline
        if entry.item_id
    )


@given(data=st.data(), history=histories())
@settings(max_examples=200)
def test_any_delivery_ends_in_the_same_applications_each_completed_once(
    data: st.DataObject, history: History
) -> None:
    streams = list(history.streams.values())
    straight, _ = consume(history, streams)
    documents, told = consume(history, data.draw(batches(streams)))

    assert _whenever_started(documents) == _whenever_started(straight)
    assert _lines(documents) == _lines(straight)
    completions = {event.application_id: event for event in told if isinstance(event, ApplicationCompleted)}
    started = [event.item_id for event in told if isinstance(event, ItemStarted)]
    assert len(completions) + len(started) == len(told), "each completed once, and nothing else told"
    items_held = [item for items in history.applications.values() for item in items]
    turns = [item.item_id for item in items_held if history.has_its_turn(item)]
    assert sorted(started) == sorted(turns), "each started once, when what it waits for is over"
    for application_id, items in history.applications.items():
        outcomes = {item.item_id: history.outcome(item) for item in items}
        assert {i: documents.kept_items[i].outcome for i in outcomes} == outcomes
        application = documents.kept_applications[application_id]
        ended = None not in outcomes.values()
        assert application.open_items == list(outcomes.values()).count(None)
        reopened = {item.item_id for item in items if history.rounds(item)}
        # what had ended may have completed the application before it was reopened
        assert (application.status == "completed") == (application_id in completions)
        assert (application.status == "completed") == ended or (reopened and not ended)
        own = [entry.seq for entry in documents.timeline if entry.application_id == application_id]
        assert own == list(range(2, application.timeline_seq + 1)), "the timeline has no gap"
        for completed in completions[application_id].items if ended else ():
            outcome, item = outcomes.pop(completed.item_id), documents.kept_items[completed.item_id]
            # a repair that is revoked after the completion was told as a repair
            revoked_later = outcome is ItemOutcome.REVOKED and history.was_repaired(item)
            allowed = {outcome, ItemOutcome.REPAIRED} if revoked_later else {outcome}
            assert completed.outcome in allowed or completed.item_id in reopened
        assert not (ended and outcomes)
        for item in items:
            kept = documents.kept_items[item.item_id]
            told_of = [each.event for s in streams for each in s if isinstance(each.event, LetterIssued)]
            own_letters = [each.letter_id for each in told_of if each.item_id == item.item_id]
            assert [each.letter_id for each in kept.letters] == own_letters, "each once, in order"
            if item.item_id not in reopened:
                assert (kept.repaired_at is not None) == history.was_repaired(item)
            record = documents.kept_records[item.record_id]
            assert record.application_id == (application_id if history.outcome(item) is None else None)
            revoked = history.outcome(item) is ItemOutcome.REVOKED
            assert (record.revoked_at is not None) == revoked
            if not revoked:
                repaired = history.outcome(item) is ItemOutcome.REPAIRED
                assert (record.repaired_at is not None) == repaired


ORDER = list(ItemStatus)


@given(data=st.data(), history=histories())
@settings(max_examples=200)
def test_an_item_only_goes_forward_even_without_an_inbox(data: st.DataObject, history: History) -> None:
    """Whatever comes again may change what was last heard of a target, and nothing else."""
    item = history.applications["app_" + "0" * 32][0]
    streams = [
        [r.event for r in stream if isinstance(r.event, ItemEvent) and r.event.item_id == item.item_id]
        for stream in history.streams.values()
    ]
    straight = item
    for event in (event for stream in streams for event in stream):
        straight = apply(straight, event)
    for event in data.draw(deliveries(streams, repeats=20)):
        before, item = item, apply(item, event)
        back_with_the_supplement = before.status is ItemStatus.SUPPLEMENT and isinstance(
            event, SupplementReceived
        )
        # targets may tell of a later round before its decision is here
        again = history.rounds(item) > 0
        assert ORDER.index(item.status) >= ORDER.index(before.status) or back_with_the_supplement or again
        assert before.outcome is None or item.outcome is not None or again
        for target, progress in before.targets.items():
            assert item.targets[target].version >= progress.version
    assert set(item.targets) == set(straight.targets)
    assert item.model_copy(update={"targets": {}}) == straight.model_copy(update={"targets": {}})


@st.composite
def publications(draw: st.DrawFn) -> list[list[Received]]:
    """Streams about up to three records by producers whose clocks differ; the first event of each is a publication."""
    streams = []
    for record in range(draw(st.integers(1, 3))):
        stream: list[Event] = []
        for seconds in draw(st.lists(st.integers(0, 6), min_size=1, max_size=6)):
            at, number = NOW + timedelta(seconds=seconds), draw(st.integers(1, 3))
            own, withdrawn = facts(record, number), draw(st.booleans())
            if stream and withdrawn:
                stream.append(RecordWithdrawn(record_id=own.record_id, reason="撤销", withdrawn_at=at))
            else:
                stream.append(RecordPublished(record_id=own.record_id, record=own, published_at=at))
        streams.append([received(event, str(n)) for n, event in enumerate(stream)])
    return streams


@given(data=st.data(), streams=publications(), inbox=st.booleans())
def test_any_delivery_of_publications_ends_in_the_same_records(
    data: st.DataObject, streams: list[list[Received]], inbox: bool
) -> None:
    def run(delivered: Iterable[Sequence[Received]], *, inbox: bool) -> dict[str, Record]:
        documents = Documents()
        consumer = Consumer(handler(documents))
        for batch in delivered:
            consumer.take(batch, inbox=inbox)
        served = Counter(e.record_id for e in consumer.told if isinstance(e, RepairNoticeServed))
        # what was withdrawn before anybody looked is not told
        assert all(number == 1 for number in served.values())
        assert set(served) == {r.record_id for r in documents.kept_records.values() if r.notice_served_at}
        apart = {"notice_served_at": None, "publication_revision": 0, "corrected": False}
        return {i: record.model_copy(update=apart) for i, record in documents.kept_records.items()}

    records = run(data.draw(batches(streams)), inbox=inbox)
    assert records == run(streams, inbox=True)
    for stream in streams:
        withdrawn = [r.event.withdrawn_at for r in stream if isinstance(r.event, RecordWithdrawn)]
        published = [r.event.published_at for r in stream if isinstance(r.event, RecordPublished)]
        record = records[stream[0].key]
        # at the same time, the withdrawal is the last word
        assert (record.status == "withdrawn") == (
            max(withdrawn, default=NOW - timedelta(1)) >= max(published)
        )
