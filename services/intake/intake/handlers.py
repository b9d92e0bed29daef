"""Events in: records that others published, and the progress of items; ApplicationCompleted out."""

from collections.abc import Sequence

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import DeadLetterReason
from contracts.events import (
    ItemEvent,
    LetterIssued,
    ObjectionEvent,
    PublicationChanged,
    RecordPublished,
    RecordRepairedElsewhere,
    RecordShielded,
    RecordWithdrawn,
    RepairRefused,
    RepairRevoked,
    ShieldEnded,
)
from intake import texts
from intake.domain.item import apply, occurred_at
from intake.domain.record import (
    Record,
    begin_shield,
    end_shield,
    publication_changed,
    publish,
    repaired_elsewhere,
    withdraw,
)
from intake.findings import Findings
from intake.follow_ups import FollowUps
from intake.notices import Notices
from intake.objections import Objections
from intake.progress import Progress
from intake.store import Store

_AboutRecord = RecordPublished | RecordWithdrawn | RecordRepairedElsewhere | RecordShielded | ShieldEnded


class ProgressHandler:
    """Keeps records, items and timelines up to what the events of a batch tell."""

    def __init__(
        self,
        store: Store,
        follow_ups: FollowUps,
        findings: Findings,
        objections: Objections,
        notices: Notices,
        catalogue: Catalogue,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._follow_ups = follow_ups
        self._findings = findings
        self._objections = objections
        self._notices = notices

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events of these topics mean nothing to intake."""
        about_records = [r for r in batch if isinstance(r.event, _AboutRecord)]
        about_items = [r for r in batch if isinstance(r.event, ItemEvent)]
        if about_records:
            await self._records(unit, about_records)
        if about_items:
            await self._items(unit, about_items)
        about_objections = [r for r in batch if isinstance(r.event, ObjectionEvent)]
        if about_objections:
            await self._objections.follow(unit, about_objections)

    async def _records(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        known = await self._store.records({r.key for r in batch}, unit.session)
        changed: dict[str, Record] = {}
        recognised: list[tuple[Received, RecordRepairedElsewhere, str]] = []
        shown: list[tuple[Received, PublicationChanged, str]] = []
        for received in batch:
            event = received.event
            before = changed.get(received.key) or known.get(received.key)
            match event:
                case RecordPublished() if event.record.record_id != event.record_id:
                    detail = "record_id and record.record_id differ"
                    unit.reject(received, DeadLetterReason.SCHEMA_MISMATCH, detail)
                    continue
                case RecordPublished():
                    reduced = self._catalogue.told(event.record, china_date(unit.now))
                    after = publish(before, event.model_copy(update={"record": reduced}))
                case RecordWithdrawn() if before is not None:
                    after = withdraw(before, event)
                case RecordRepairedElsewhere() if before is not None:
                    after = repaired_elsewhere(before, event)
                    if before.item_id and before.application_id:
                        recognised.append((received, event, before.item_id))
                case RecordShielded() if before is not None:
                    after = begin_shield(before, event)
                case ShieldEnded() if before is not None:
                    after = end_shield(before, event)
                case _:
                    detail = (
                        f"no record {received.key} is known: publish it before anything else is told of it"
                    )
                    unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                    continue
            if after is before:
                continue
            after, told = publication_changed(before, after, unit.now)
            changed[received.key] = after
            if told is not None:
                unit.emit(told, cause=received.id, trace=received.trace)
                if after.application_id and after.item_id:
                    shown.append((received, told, after.item_id))
        published = [r.key for r in batch if isinstance(r.event, RecordPublished) and r.key in changed]
        told_of = await self._notices.serve(unit, [changed[i] for i in dict.fromkeys(published)])
        changed |= {record.record_id: record for record in told_of}
        await self._store.save_records(changed.values(), unit.session)
        if recognised or shown:
            about = {item_id for _, _, item_id in (*recognised, *shown)}
            progress = await Progress.load(self._store, unit, about)
            for received, event, item_id in recognised:
                progress.recognise(progress.items[item_id], event, received.trace)
            for received, told, item_id in shown:
                progress.shown_otherwise(progress.items[item_id], told, received.trace)
            await progress.save()

    async def _items(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        events = [(r, r.event) for r in batch if isinstance(r.event, ItemEvent)]
        progress = await Progress.load(self._store, unit, {event.item_id for _, event in events})
        found: list[tuple[Received, RepairRefused | RepairRevoked]] = []
        for received, event in events:
            item = progress.items.get(event.item_id)
            if item is None or (item.application_id, item.record_id) != (
                event.application_id,
                event.record_id,
            ):
                detail = (
                    f"application {event.application_id} has no item {event.item_id} for {event.record_id}"
                )
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                continue
            if isinstance(event, LetterIssued):
                # the step itself has a line; its letter is listed with the item
                progress.keep(apply(item, event))
                continue
            line = texts.progress(item.facts.document_number, event, was_revoked=item.revoked_at is not None)
            if line is None:
                continue
            facts = event.model_dump(mode="json", exclude=_NOT_SHOWN)
            progress.change(apply(item, event), *line, occurred_at(event), facts, received.trace)
            progress.ask_for_recognition(item.item_id, received.trace)
            progress.ask_for_expiry(item.item_id, received.trace)
            progress.ask_for_closure(item.item_id, received.trace)
            progress.tell_disputes(item.item_id, received.trace)
            if isinstance(event, RepairRefused | RepairRevoked) and event.false_material:
                # what an upheld objection has overtaken is no finding any more
                found += [(received, event)] if event.round >= item.round else []
        await progress.save()
        await self._findings.take(unit, found)
        if progress.repaired:
            # nobody writes here about what is handed over in person
            asked = [item for item in progress.items.values() if not item.facts.in_person]
            await self._follow_ups.schedule(progress.repaired, asked, unit.session)


_NOT_SHOWN = {"application_id", "item_id", "record_id", "subject_id", "record"}
