"""What a transaction changes of applications: items, lines of timelines, whose turn comes, what is completed, what is set free."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chassis.unit_of_work import UnitOfWork
from contracts.events import (
    ClosureReason,
    ClosureRequested,
    ExpiryRequested,
    FalseMaterialFound,
    ItemOutcome,
    ItemStarted,
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    RecognitionRequested,
    RecordRepairedElsewhere,
)
from intake import texts
from intake.domain.application import Application, Entry, completed
from intake.domain.item import Closure, Dispute, Expiry, Item, ItemStatus, Recognition
from intake.store import Store

Trace = Mapping[str, str] | None
_CLOSES = {
    PublicationChange.WITHDRAWN: ClosureReason.RECORD_WITHDRAWN,
    PublicationChange.PLAN_PERFORMED: ClosureReason.PLAN_PERFORMED,
}
"""What leaves nothing to repair."""


@dataclass
class _Ledger:
    """What changes of one application. ``trace``: of what ended its last item so far."""

    application: Application
    entries: list[Entry] = field(default_factory=list)
    ended: int = 0
    lets_start: bool = False
    trace: Trace = None

    @property
    def finishes(self) -> bool:
        return self.application.status == "open" and self.application.open_items == self.ended

    def add(self, **entry: object) -> None:
        seq = self.application.timeline_seq + len(self.entries) + 1
        application_id = self.application.application_id
        self.entries.append(Entry.model_validate({"application_id": application_id, "seq": seq, **entry}))


class Progress:
    """``items``: those loaded, as changed so far. Nothing is written before ``save``."""

    def __init__(
        self,
        store: Store,
        unit: UnitOfWork,
        items: dict[str, Item],
        applications: Mapping[str, Application],
    ) -> None:
        self.items = items
        self._store = store
        self._unit = unit
        self._ledgers = {i: _Ledger(application) for i, application in applications.items()}
        self._changed: dict[str, Item] = {}
        self._freed: dict[tuple[str, str], str | None] = {}
        self._revoked: dict[str, datetime | None] = {}
        self._held: dict[tuple[str, str], str] = {}
        self._refused: dict[str, datetime] = {}
        self.repaired: dict[str, str] = {}
        """Item id -> subject id, of those that every target has just been seen to show."""

    @classmethod
    async def load(cls, store: Store, unit: UnitOfWork, item_ids: Iterable[str]) -> "Progress":
        """With these items, as far as they are known, and their applications."""
        items = await store.items(item_ids, unit.session)
        applications = await store.applications(
            {item.application_id for item in items.values()}, unit.session
        )
        return cls(store, unit, items, applications)

    def is_of(self, item: Item, subject_id: str) -> bool:
        """Whether this subject has filed it."""
        return self.subject_of(item) == subject_id

    def subject_of(self, item: Item) -> str:
        """Who has filed it."""
        return self._ledgers[item.application_id].application.subject_id

    def change(
        self,
        item: Item,
        kind: str,
        text: str,
        at: datetime,
        facts: dict[str, Any] | None = None,
        trace: Trace = None,
    ) -> None:
        """``item`` has become this, as one line of the timeline tells."""
        before = self.items[item.item_id]
        ledger = self._ledgers[item.application_id]
        self.items[item.item_id] = self._changed[item.item_id] = item
        ledger.add(item_id=item.item_id, type=kind, at=at, text=text, facts=facts or {})
        self._outcome_changed(before, item, ledger, trace)
        if not before.lets_followers_start and item.lets_followers_start:
            ledger.lets_start = True
        if before.revoked_at is None and item.revoked_at is not None:
            self._revoked[item.record_id] = item.revoked_at
        if before.decision is None and item.decision == "refused" and item.decided_at:
            self._refused[item.record_id] = item.decided_at
        if before.revoked_at is not None and item.revoked_at is None:
            self._revoked[item.record_id] = None

    def _outcome_changed(self, before: Item, item: Item, ledger: _Ledger, trace: Trace) -> None:
        """What has ended sets its record free; what is open again, or repaired again, has it again."""
        was, now = before.outcome, item.outcome
        if was is now:
            return
        key = item.record_id, item.application_id
        repaired = now is ItemOutcome.REPAIRED
        if was is None:
            ledger.ended += 1
            ledger.trace = trace
        elif now is None or repaired:
            ledger.ended -= now is None
            # what has ended in this very transaction has its record still
            if self._freed.pop(key, "nothing") == "nothing":
                self._held[key] = item.item_id
        if now is not None and (was is None or repaired):
            self._freed[key] = self._unit.now.isoformat() if repaired else None
        if repaired:
            self.repaired[item.item_id] = ledger.application.subject_id

    def dispute(self, item_id: str, found: Dispute, trace: Trace, *, lifted: bool = False) -> None:
        """What the item rests on was found false at another item, or that finding no longer stands. Known already: nothing changes."""
        item = self.items[item_id]
        finding = found.ground.item_id, found.ground.round
        others = tuple(d for d in item.disputes if (d.ground.item_id, d.ground.round) != finding)
        known = next((d for d in item.disputes if d not in others), None)
        if (known is not None) != lifted:
            return
        changed = item.model_copy(update={"disputes": others if lifted else (*others, found)})
        number = item.facts.document_number
        line = texts.disputed(number, found.ground, found.reason, lifted=lifted)
        kind = "false_material_lifted" if lifted else "false_material"
        facts = {"ground": found.ground.model_dump(mode="json")}
        self.change(changed, kind, line, self._unit.now, facts, trace)
        if lifted and known is not None and known.told:
            self._tell_dispute(item, known, trace, lifted=True)
        self.tell_disputes(item_id, trace)

    def tell_disputes(self, item_id: str, trace: Trace) -> None:
        """Tell whoever has the item of such findings, once that is known."""
        item = self.items[item_id]
        untold = [each for each in item.disputes if not each.told]
        if not untold or item.holder is None:
            return
        told = tuple(each.model_copy(update={"told": True}) for each in item.disputes)
        self.items[item_id] = self._changed[item_id] = item.model_copy(update={"disputes": told})
        for each in untold:
            self._tell_dispute(item, each, trace)

    def _tell_dispute(self, item: Item, found: Dispute, trace: Trace, *, lifted: bool = False) -> None:
        event = FalseMaterialFound.model_validate(
            {
                **self._about(item),
                "department": item.holder,
                "ground": found.ground,
                "reason": found.reason,
                "lifted": lifted,
                "found_at": found.found_at,
            }
        )
        finding = f"{found.ground.item_id}:{found.ground.round}"
        cause = f"false-material:{finding}:{item.item_id}{':lifted' if lifted else ''}"
        self._unit.emit(event, cause=cause, trace=trace)

    def keep(self, item: Item) -> None:
        """``item`` has become this; the timeline tells nothing of it."""
        if item is not self.items[item.item_id]:
            self.items[item.item_id] = self._changed[item.item_id] = item

    def recognise(self, item: Item, event: RecordRepairedElsewhere, trace: Trace) -> None:
        """The record was repaired elsewhere. A queued item need not wait any longer; one that is decided or ended stays."""
        if item.decision is not None or item.outcome is not None or item.recognition is not None:
            return
        found = event.model_dump(include={"platform_id", "platform_name", "decision_number", "repaired_at"})
        queued = item.status is ItemStatus.QUEUED
        changes = {"recognition": Recognition.model_validate(found)}
        line = texts.repaired_elsewhere(item.facts.document_number, event.platform_name)
        self.change(
            item.model_copy(update=changes), "repaired_elsewhere", line, event.repaired_at, found, trace
        )
        if queued:
            line = texts.no_longer_queued(item.facts.document_number)
            self._begin(self.items[item.item_id], line, trace)
        self.ask_for_recognition(item.item_id, trace)

    def ask_for_recognition(self, item_id: str, trace: Trace) -> None:
        """Ask whoever has the item, once that is known."""
        item = self.items[item_id]
        found = item.recognition
        if found is None or found.requested or item.holder is None or item.decision is not None:
            return
        asked = item.model_copy(update={"recognition": found.model_copy(update={"requested": True})})
        self.items[item_id] = self._changed[item_id] = asked
        event = RecognitionRequested(
            **self._about(item),
            department=item.holder,
            **found.model_dump(exclude={"requested"}),
        )
        self._unit.emit(event, cause=f"recognise:{item_id}", trace=trace)

    def shown_otherwise(self, item: Item, event: PublicationChanged, trace: Trace) -> None:
        """The record of an open item is shown otherwise, without a decision: where nothing is left to repair, the item ends."""
        if item.decision is not None or item.outcome is not None:
            return
        number = item.facts.document_number
        line = texts.publication_changed(number, event)
        facts = {"change": event.change.value, "number": event.number}
        code = _CLOSES.get(event.change)
        if code is None or item.closure is not None:
            self.change(item, "publication_changed", line, event.changed_at, facts, trace)
            return
        closure = Closure(reason_code=code, reason=texts.nothing_left(event))
        changed = item.model_copy(update={"closure": closure})
        self.change(changed, "publication_changed", line, event.changed_at, facts, trace)
        if item.status is ItemStatus.QUEUED:
            # nobody has it yet
            ended = changed.model_copy(update={"unassigned_closed_at": event.changed_at})
            self.change(ended, "closed", texts.closed(number, closure.reason), event.changed_at, {}, trace)
            return
        self.ask_for_closure(item.item_id, trace)

    def ask_for_closure(self, item_id: str, trace: Trace) -> None:
        """Ask whoever has the item to end it, once that is known; of one in the human queue, routing."""
        item = self.items[item_id]
        found = item.closure
        if found is None or item.decision is not None or item.outcome is not None:
            return
        if found.requested or (item.holder is None and item.referral is None):
            return
        asked = item.model_copy(update={"closure": found.model_copy(update={"requested": True})})
        self.items[item_id] = self._changed[item_id] = asked
        event = ClosureRequested(
            **self._about(item),
            department=item.holder,
            reason_code=found.reason_code,
            reason=found.reason,
            requested_at=self._unit.now,
        )
        again = f":{item.round}" if item.round else ""
        self._unit.emit(event, cause=f"close:{item_id}{again}", trace=trace)

    def expire(self, item: Item, event: PublicationExpired) -> None:
        """The record's publication ended by itself. A queued item need not wait any longer; one that is decided or ended stays."""
        if item.decision is not None or item.outcome is not None or item.expiry is not None:
            return
        queued = item.status is ItemStatus.QUEUED
        expiry = Expiry(ended_on=event.ended_on, source=event.source)
        line = texts.publication_expired(item.facts.document_number, event)
        facts = {"ended_on": event.ended_on.isoformat(), "rule": event.rule, "source": event.source}
        changed = item.model_copy(update={"expiry": expiry})
        self.change(changed, "publication_expired", line, event.noticed_at, facts)
        if queued:
            self._begin(changed, texts.no_longer_queued(item.facts.document_number), None)
        self.ask_for_expiry(item.item_id, None)

    def ask_for_expiry(self, item_id: str, trace: Trace) -> None:
        """Ask whoever has the item to end it, once that is known."""
        item = self.items[item_id]
        found = item.expiry
        if found is None or found.requested or item.department is None or item.decision is not None:
            return
        asked = item.model_copy(update={"expiry": found.model_copy(update={"requested": True})})
        self.items[item_id] = self._changed[item_id] = asked
        event = ExpiryRequested(
            **self._about(item),
            department=item.department,
            ended_on=found.ended_on,
            requested_at=self._unit.now,
        )
        self._unit.emit(event, cause=f"expire:{item_id}", trace=trace)

    def _about(self, item: Item) -> dict[str, str]:
        application = self._ledgers[item.application_id].application
        return {
            "application_id": item.application_id,
            "item_id": item.item_id,
            "record_id": item.record_id,
            "subject_id": application.subject_id,
        }

    def _begin(self, item: Item, line: str, trace: Trace) -> None:
        now = self._unit.now
        self.change(item.model_copy(update={"started_at": now}), "started", line, now)
        event = ItemStarted(**self._about(item), record=item.facts, started_at=now)
        self._unit.emit(event, cause=f"start:{item.item_id}", trace=trace)

    async def save(self) -> None:
        """Start whose turn has come, complete what has ended, and write everything."""
        touched = [ledger for ledger in self._ledgers.values() if ledger.entries]
        if not touched and not self._changed:
            return
        await self._start([each for each in touched if each.lets_start and each.application.held])
        await self._complete([each for each in touched if each.finishes])
        session = self._unit.session
        await self._store.hold_records(self._held, session)
        await self._store.release_records(self._freed, session)
        await self._store.revoke_records(self._revoked, session)
        await self._store.refuse_records(self._refused, session)
        await self._store.save_items(self._changed.values(), session)
        if touched:
            await self._store.add_entries([e for ledger in touched for e in ledger.entries], session)
            await self._store.advance_applications(map(_advanced, touched), session)

    async def _whole(self, application_ids: Iterable[str]) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {i: [] for i in application_ids}
        for item in await self._store.items_of(found, self._unit.session):
            found[item.application_id].append(self.items.setdefault(item.item_id, item))
        return found

    async def _start(self, ledgers: list[_Ledger]) -> None:
        """Items whose turn has come go to routing. An item that is not granted holds nobody up either."""
        if not ledgers:
            return
        whole = await self._whole(ledger.application.application_id for ledger in ledgers)
        for ledger in ledgers:
            application = ledger.application
            items = {item.item_id: item for item in whole[application.application_id]}
            for item in items.values():
                first = [items[i] for i in item.after]
                if item.status is not ItemStatus.QUEUED or not all(f.lets_followers_start for f in first):
                    continue
                # what sync tells may be here before the decision itself
                granted = all(
                    each.decision in ("granted", "recognised") or each.outcome is ItemOutcome.REPAIRED
                    for each in first
                )
                text = texts.started(item.facts.document_number, granted)
                self._begin(item, text, ledger.trace)

    async def _complete(self, ledgers: list[_Ledger]) -> None:
        if not ledgers:
            return
        whole = await self._whole(ledger.application.application_id for ledger in ledgers)
        for ledger in ledgers:
            application_id = ledger.application.application_id
            event = completed(ledger.application, whole[application_id], self._unit.now)
            if event is None:
                raise RuntimeError(f"{application_id} has no open item, yet not all its items have ended")
            self._unit.emit(event, cause=completion_cause(application_id), trace=ledger.trace)
            ledger.add(item_id=None, type="completed", at=self._unit.now, text=texts.ended(event))
            ledger.application = ledger.application.model_copy(
                update={"status": "completed", "completed_at": self._unit.now}
            )


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
