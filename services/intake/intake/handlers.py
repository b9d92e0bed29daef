"""Events in: records that others published, and the progress of items; ApplicationCompleted out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.errors import DeadLetterReason
from contracts.events import ItemEvent, ItemOutcome, RecordPublished, RecordWithdrawn
from intake import texts
from intake.domain import (
    Application,
    Entry,
    Item,
    Record,
    apply,
    completed,
    occurred_at,
    publish,
    withdraw,
)
from intake.store import Store


@dataclass
class _Ledger:
    """What a batch changes of one application. ``last``: the event that ended its last item so far."""

    application: Application
    entries: list[Entry] = field(default_factory=list)
    ended: int = 0
    last: Received | None = None

    @property
    def finishes(self) -> bool:
        return self.application.status == "open" and self.application.open_items == self.ended

    def add(self, **entry: object) -> None:
        seq = self.application.timeline_seq + len(self.entries) + 1
        application_id = self.application.application_id
        self.entries.append(Entry.model_validate({"application_id": application_id, "seq": seq, **entry}))


class ProgressHandler:
    """Keeps records, items and timelines up to what the events of a batch tell."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events of these topics mean nothing to intake."""
        about_records = [r for r in batch if isinstance(r.event, RecordPublished | RecordWithdrawn)]
        about_items = [r for r in batch if isinstance(r.event, ItemEvent)]
        if about_records:
            await self._records(unit, about_records)
        if about_items:
            await self._items(unit, about_items)

    async def _records(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        known = await self._store.records({r.key for r in batch}, unit.session)
        changed: dict[str, Record] = {}
        for received in batch:
            event = received.event
            before = changed.get(received.key) or known.get(received.key)
            match event:
                case RecordPublished() if event.record.record_id != event.record_id:
                    detail = "record_id and record.record_id differ"
                    unit.reject(received, DeadLetterReason.SCHEMA_MISMATCH, detail)
                    continue
                case RecordPublished():
                    after = publish(before, event)
                case RecordWithdrawn() if before is not None:
                    after = withdraw(before, event)
                case _:
                    detail = f"no record {received.key} is known: publish it before it is withdrawn"
                    unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                    continue
            if after is not before:
                changed[received.key] = after
        await self._store.save_records(changed.values(), unit.session)

    async def _items(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        events = [(r, r.event) for r in batch if isinstance(r.event, ItemEvent)]
        items = await self._store.items({event.item_id for _, event in events}, unit.session)
        applications = await self._store.applications(
            {item.application_id for item in items.values()}, unit.session
        )
        ledgers = {i: _Ledger(application) for i, application in applications.items()}
        changed: dict[str, Item] = {}
        revoked: dict[str, datetime] = {}
        for received, event in events:
            item = items.get(event.item_id)
            if item is None or (item.application_id, item.record_id) != (
                event.application_id,
                event.record_id,
            ):
                detail = (
                    f"application {event.application_id} has no item {event.item_id} for {event.record_id}"
                )
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                continue
            line = texts.progress(item.facts.document_number, event)
            if line is None:
                continue
            ledger = ledgers[item.application_id]
            after = apply(item, event)
            items[item.item_id] = changed[item.item_id] = after
            ledger.add(
                item_id=item.item_id,
                type=line[0],
                at=occurred_at(event),
                text=line[1],
                facts=event.model_dump(mode="json", exclude=_NOT_SHOWN),
            )
            if item.outcome is None and after.outcome is not None:
                ledger.ended += 1
                ledger.last = received
            if item.revoked_at is None and after.revoked_at is not None:
                revoked[item.record_id] = after.revoked_at
        touched = [ledger for ledger in ledgers.values() if ledger.entries]
        if not touched:
            return
        await self._complete(unit, [ledger for ledger in touched if ledger.finishes], changed)
        await self._store.revoke_records(revoked, unit.session)
        await self._store.save_items(changed.values(), unit.session)
        await self._store.add_entries([e for ledger in touched for e in ledger.entries], unit.session)
        await self._store.advance_applications(map(_advanced, touched), unit.session)

    async def _complete(
        self, unit: UnitOfWork, ledgers: Iterable[_Ledger], changed: Mapping[str, Item]
    ) -> None:
        finishing = {ledger.application.application_id: ledger for ledger in ledgers}
        if not finishing:
            return
        by_application: dict[str, list[Item]] = {i: [] for i in finishing}
        for item in await self._store.items_of(finishing, unit.session):
            by_application[item.application_id].append(changed.get(item.item_id, item))
        freed: dict[tuple[str, str], str | None] = {}
        for application_id, ledger in finishing.items():
            event = completed(ledger.application, by_application[application_id], unit.now)
            if event is None or ledger.last is None:
                raise RuntimeError(f"{application_id} has no open item, yet not all its items have ended")
            unit.emit(event, cause=completion_cause(application_id), trace=ledger.last.trace)
            ledger.add(item_id=None, type="completed", at=unit.now, text=texts.ended(event))
            ledger.application = ledger.application.model_copy(
                update={"status": "completed", "completed_at": unit.now}
            )
            for ended in event.items:
                repaired = ended.outcome is ItemOutcome.REPAIRED
                freed[ended.record_id, application_id] = unit.now.isoformat() if repaired else None
        await self._store.release_records(freed, unit.session)


_NOT_SHOWN = {"application_id", "item_id", "record_id", "subject_id", "record"}


def completion_cause(application_id: str) -> str:
    """What ApplicationCompleted comes from: an application is completed once."""
    return f"complete:{application_id}"


def _advanced(ledger: _Ledger) -> Application:
    application = ledger.application
    return application.model_copy(
        update={
            "timeline_seq": application.timeline_seq + len(ledger.entries),
            "open_items": application.open_items - ledger.ended,
        }
    )
