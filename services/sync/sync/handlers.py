"""Decisions in, desired states out. What became of letters: ``sync.sending``."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, get_args

from chassis.consumer import Handler
from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.events import (
    Event,
    PublicationChanged,
    PublicationExpired,
    RepairGranted,
    RepairRecognised,
    RepairRevoked,
)
from sync.desired import Record, on_change, on_decision, on_expiry
from sync.domain import clocked, complete, delivery_id, hold, redirect
from sync.facts import decision_fact
from sync.history import Fact
from sync.policy import Policy
from sync.settlement import wake
from sync.store import Store

_Ruling = RepairGranted | RepairRecognised | RepairRevoked | PublicationExpired | PublicationChanged


def in_turn(*handlers: Handler) -> Handler:
    """One handler of the same batch after the other, in its one transaction."""

    async def handle(unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for handler in handlers:
            await handler(unit, batch)

    return handle


class DecisionHandler:
    """Sets the desired state of every record that a batch decides on, lets expire or changes, at every target that shows such records."""

    EVENTS: ClassVar[frozenset[type[Event]]] = frozenset(get_args(_Ruling))

    def __init__(
        self,
        catalogue: Catalogue,
        policies: Mapping[str, Policy],
        store: Store,
        wakes: Mapping[str, Callable[[], None]],
    ) -> None:
        """``wakes``: by target id, called after the commit when there is something new for it."""
        self._catalogue = catalogue
        self._wakes = wakes
        self._policies = policies
        self._store = store

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events of the topics change nothing that a target shows."""
        decisions = [(r, r.event) for r in batch if isinstance(r.event, _Ruling)]
        if not decisions:
            return
        records = await self._store.records({event.record_id for _, event in decisions}, unit.session)
        changed: dict[str, Record] = {}
        kept: dict[str, Record] = {}
        facts: list[Fact] = []
        for received, event in decisions:
            shown = self._catalogue.targets_of(event.record)
            targets, before = [target.id for target in shown], records.get(event.record_id)
            if isinstance(event, PublicationExpired):
                record = on_expiry(before, event, targets, self._policies, received.trace)
            elif isinstance(event, PublicationChanged):
                record = on_change(before, event, targets, self._policies, received.trace)
            else:
                record = on_decision(before, event, targets, self._policies, received.trace)
            if record is None:
                continue
            again = before is not None and record.version == before.version
            events: tuple[Event, ...] = ()
            if not again and not record.targets:
                # no target shows such records
                record, events = complete(record, [], self._policies, unit.now)
            records[record.record_id] = kept[record.record_id] = record
            if again:
                # nothing that is shown changes
                if record.record_id in changed:
                    changed[record.record_id] = record
                continue
            changed[record.record_id] = record
            facts.append(decision_fact(record))
            for each in events:
                unit.emit(each, cause=received.id, trace=received.trace)
        if not kept:
            return
        current = await self._store.deliveries(changed.values(), unit.session)
        deliveries = [
            hold(
                clocked(
                    redirect(current.get(delivery_id(target, record.record_id)), record, target, unit.now),
                    self._policies[target],
                    unit.now,
                ),
                record,
                self._policies,
                unit.now,
            )
            for record in changed.values()
            for target in record.targets
        ]
        await self._store.save_decided(list(kept.values()), deliveries, unit.session)
        await self._store.history.append(facts, unit.now, unit.session)
        wake(unit, deliveries, self._wakes)
