"""Tells a target that joined the catalogue later of what was decided before: page by page, from where the last one ended.

For each target one document says what it shows and how it is told, and how far through the records this has gone. A target that left the
catalogue loses it, so that one that comes back is told of what was decided meanwhile.
"""

from collections.abc import Mapping

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, Target
from sync.desired import Record
from sync.domain import Delivery, join
from sync.policy import Policy
from sync.store import Store

log = get_logger(__name__)

PAGE = 200
"""Records of one transaction."""
OPEN_AT_MOST = 1000
"""While so many deliveries of a target differ, no more are added: those decided today come first."""

COLLECTIONS = [CollectionSpec("catch_ups")]


class CatchUp:
    """``policies``: of all targets of the catalogue; ``interval_seconds``: between pages in which there was something to tell."""

    def __init__(
        self,
        database: Database,
        store: Store,
        outbox: Outbox,
        catalogue: Catalogue,
        policies: Mapping[str, Policy],
        interval_seconds: float,
    ) -> None:
        self._catch_ups = database.collection("catch_ups")
        self._store = store
        self._outbox = outbox
        self._catalogue = catalogue
        self._policies = policies
        self._done: set[str] = set()
        self._departed = False
        self.loop = Loop("catch-up", self.step, interval_seconds)

    async def step(self) -> bool:
        """One page for every target that has not caught up; whether to go on at once: nothing of them had to be told."""
        if not self._departed:
            await self._catch_ups.delete_many({"_id": {"$nin": list(self._policies)}})
            self._departed = True
        idle = False
        for target in self._catalogue.targets:
            if target.id in self._done:
                continue
            if await self._store.differing_number(target.id, OPEN_AT_MOST) >= OPEN_AT_MOST:
                continue
            told, done = await self._page(target)
            if told:
                log.info("told of earlier decisions", target=target.id, records=told)
            if done:
                self._done.add(target.id)
            idle = idle or not (told or done)
        return idle

    async def _page(self, target: Target) -> tuple[int, bool]:
        shows: Document = {
            "categories": sorted(target.categories),
            "natural_persons": target.natural_persons,
            "protocol": target.protocol.value,
        }

        async def work(unit: UnitOfWork) -> tuple[int, bool]:
            found = await self._catch_ups.find_one({"_id": target.id}, session=unit.session) or {}
            same = found.get("shows") == shows
            if same and found["done"]:
                return 0, True
            # the way it is told has changed: what was under way starts again
            before = found.get("before") if same else found.get("shows", {}).get("protocol")
            records = await self._store.page(found["after"] if same else "", PAGE, unit.session)
            deliveries = await self._store.deliveries_at(records, target.id, unit.session)
            pairs = [
                joined
                for record in records
                if self._is_shown(target, record)
                and (
                    joined := join(
                        record,
                        target.id,
                        deliveries,
                        self._policies,
                        unit.now,
                        anew=before not in (None, target.protocol.value),
                    )
                )
            ]
            if pairs:
                changed: list[Record] = [record for record, _ in pairs]
                rows: list[Delivery] = [row for _, row in pairs]
                await self._store.save_decided(changed, rows, unit.session)
            done = len(records) < PAGE
            place: Document = {
                "shows": shows,
                "before": before,
                "after": records[-1].record_id if records else "",
                "done": done,
            }
            await self._catch_ups.replace_one({"_id": target.id}, place, upsert=True, session=unit.session)
            return len(pairs), done

        return await self._outbox.run(work)

    def _is_shown(self, target: Target, record: Record) -> bool:
        return any(each.id == target.id for each in self._catalogue.targets_of(record.facts))
