"""Stores what became of deliveries, with all that follows from it: events, evidence, who waited for it, which records are complete."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from chassis.unit_of_work import UnitOfWork
from contracts.events import Event, TargetAcknowledged
from sync.domain import (
    Delivery,
    Policy,
    Reading,
    Record,
    cause_of,
    complete,
    delivery_id,
    release,
    settled,
)
from sync.store import Store

Save = Callable[[Sequence[Delivery]], Awaitable[None]]


@dataclass(frozen=True)
class Change:
    """What became of a delivery of ``record``, and why it is told. ``trace``: headers for what comes of it."""

    before: Delivery
    after: Delivery
    events: tuple[Event, ...]
    record: Record
    trace: Mapping[str, str]
    reading: Reading | None = None


class Settlement:
    """The end of every step: in the transaction of whoever calls. ``policies``: of all targets of the catalogue."""

    def __init__(self, policies: Mapping[str, Policy], store: Store) -> None:
        self._policies = policies
        self._store = store

    async def settle(self, unit: UnitOfWork, changes: Sequence[Change], save: Save) -> None:
        """Take in what became of deliveries of one target. ``save``: how they are stored, with a lease or without."""
        if not changes:
            return
        await save([change.after for change in changes])
        for change in changes:
            for event in change.events:
                unit.emit(event, cause=cause_of(change.after), trace=change.trace)
        await self._store.save_readings([c.reading for c in changes if c.reading], unit.session)
        await self._release(unit, changes)
        await self._complete(unit, changes)

    async def _release(self, unit: UnitOfWork, changes: Sequence[Change]) -> None:
        target_id = changes[0].after.target_id
        acknowledged = {
            change.record.record_id: change
            for change in changes
            if any(isinstance(event, TargetAcknowledged) for event in change.events)
        }
        if not acknowledged or not any(target_id in policy.after for policy in self._policies.values()):
            return
        records = [change.record for change in acknowledged.values()]
        free = [
            release(each, target_id, acknowledged[each.record_id].after.desired_version, unit.now)
            for each in await self._store.waiting(records, target_id, unit.session)
        ]
        if released := [each for each in free if each is not None]:
            await self._store.save(released, unit.session)

    async def _complete(self, unit: UnitOfWork, changes: Sequence[Change]) -> None:
        last: dict[str, Change] = {}
        for change in changes:
            policy = self._policies[change.after.target_id]
            # the last one to be waited for may have left the catalogue: then any look at what is settled completes the record
            incomplete = change.record.completed_version < change.record.version
            if settled(change.after, policy) and (incomplete or not settled(change.before, policy)):
                last[change.record.record_id] = change
        if not last:
            return
        records = await self._store.records(last, unit.session)
        deliveries = await self._store.deliveries(records.values(), unit.session)
        after: list[Record] = []
        for record in records.values():
            own = [deliveries[delivery_id(target, record.record_id)] for target in record.targets]
            completed, events = complete(record, own, self._policies, unit.now)
            after.append(completed)
            for event in events:
                cause = f"{record.record_id}:{record.version}"
                unit.emit(event, cause=cause, trace=last[record.record_id].trace)
        await self._store.save_completed(after, unit.session)
