"""Stores what became of deliveries, with all that follows from it: events, evidence, who waited for it, which records are complete.

A record is complete once its last target has settled. That is looked at after the commit, not in it: targets go through the same
records side by side, and in one transaction each would conflict with all others over every record. Of those that settle last, the
later one to look sees what all did; who dies in between leaves it to ``sweep``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.events import Event
from sync.desired import Record
from sync.domain import Delivery, Reading, cause_of, complete, delivery_id, release, settled
from sync.history import Fact
from sync.policy import Policy
from sync.store import Store

SWEEP = 500
"""Records of one page of a sweep."""

Save = Callable[[Sequence[Delivery]], Awaitable[None]]


@dataclass(frozen=True)
class Change:
    """What became of a delivery of ``record``, and why it is told. ``trace``: headers for what comes of it; ``fact``: for the history."""

    before: Delivery
    after: Delivery
    events: tuple[Event, ...]
    record: Record
    trace: Mapping[str, str]
    fact: Fact | None
    reading: Reading | None = None


def wake(unit: UnitOfWork, deliveries: Sequence[Delivery], wakes: Mapping[str, Callable[[], None]]) -> None:
    """After the commit, the targets of those that need not wait for others. ``wakes``: by target id."""
    for target_id in {delivery.target_id for delivery in deliveries if not delivery.waits_for}:
        if target_id in wakes:
            unit.after_commit(wakes[target_id])


class Settlement:
    """The end of every step. ``policies``: of all targets of the catalogue; ``wakes``: by target id, called after the commit when what
    waited for another is free.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        store: Store,
        outbox: Outbox,
        wakes: Mapping[str, Callable[[], None]],
    ) -> None:
        self._policies = policies
        self._wakes = wakes
        self._store = store
        self._outbox = outbox
        self._swept = ""

    async def settle(self, unit: UnitOfWork, changes: Sequence[Change], save: Save) -> None:
        """Take in what became of deliveries of one target, in the caller's transaction. ``save``: with a lease or without."""
        if not changes:
            return
        await save([change.after for change in changes])
        for change in changes:
            for event in change.events:
                unit.emit(event, cause=cause_of(change.after), trace=change.trace)
        await self._store.save_readings([c.reading for c in changes if c.reading], unit.session)
        await self._store.history.append([c.fact for c in changes if c.fact], unit.now, unit.session)
        await self._release(unit, changes)

    async def _release(self, unit: UnitOfWork, changes: Sequence[Change]) -> None:
        target_id = changes[0].after.target_id
        acknowledged = {
            change.record.record_id: change
            for change in changes
            # where nobody decided there is no event
            if change.before.acknowledged_version
            < change.after.acknowledged_version
            == change.after.desired_version
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
            wake(unit, released, self._wakes)

    async def complete(self, changes: Sequence[Change]) -> None:
        """After the commit: complete the records of which these were the last."""
        traces = {
            change.record.record_id: change.trace
            for change in changes
            if settled(change.after, self._policies[change.after.target_id])
            # one that left the catalogue may have been waited for: then any look at what is settled completes the record
            and (
                change.record.completed_version < change.record.version
                or not settled(change.before, self._policies[change.after.target_id])
            )
        }
        if traces:
            await self._complete(
                [change.record for change in changes if change.record.record_id in traces], traces
            )

    async def sweep(self) -> bool:
        """Complete what nobody did: one page of the records that are not, from where the last one ended. False: a page a tick."""
        records = await self._store.incomplete(self._swept, SWEEP)
        self._swept = records[-1].record_id if len(records) == SWEEP else ""
        if records:
            await self._complete(records, {record.record_id: record.trace for record in records})
        return False

    async def _complete(self, records: Sequence[Record], traces: Mapping[str, Mapping[str, str]]) -> None:
        followed = [id_ for id_, policy in self._policies.items() if not policy.by_letter]
        behind = await self._store.behind(records, followed)
        candidates = [record.record_id for record in records if record.record_id not in behind]
        if not candidates:
            return

        async def work(unit: UnitOfWork) -> None:
            found = await self._store.records(candidates, unit.session)
            deliveries = await self._store.deliveries(found.values(), unit.session)
            after: list[Record] = []
            for record in found.values():
                own = [deliveries[delivery_id(target, record.record_id)] for target in record.targets]
                completed, events = complete(record, own, self._policies, unit.now)
                if completed is record:
                    continue
                # one that nobody applied for is complete without a word
                after.append(completed)
                for event in events:
                    cause = f"{record.record_id}:{record.version}"
                    unit.emit(event, cause=cause, trace=traces[record.record_id])
            if after:
                await self._store.save_completed(after, unit.session)

        await self._outbox.run(work)
