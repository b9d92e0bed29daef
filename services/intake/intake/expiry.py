"""公示期满: the maximum publication period of a record passes, and its publication ends by itself. Days are stored, each is told once.

``period`` of a record's document: ``ends_on``, the day from which it is not shown, and ``rules``, by which rules that was found. It is no
part of the record: whatever writes a record whole drops it, and it is found again.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime

from pymongo import ASCENDING, UpdateOne

from chassis.background import Loop
from chassis.db import Database, Document
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.events import PublicationExpired
from contracts.http.eligibility import Transition
from intake.domain.record import Record, expired
from intake.eligibility import publication_end
from intake.progress import Progress
from intake.store import Store

log = get_logger(__name__)
_BATCH = 200


class Expiry:
    """Finds when records end, and notices when they have, also after a standstill."""

    def __init__(
        self,
        database: Database,
        store: Store,
        outbox: Outbox,
        catalogue: Catalogue,
        transition: Transition,
        poll_seconds: float,
    ) -> None:
        self._records = database.collection("records")
        self._store = store
        self._catalogue = catalogue
        self._transition = transition
        self.loop = Loop("publication periods", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """One batch of each; returns whether there may be more."""
        today = china_date(datetime.now(UTC))
        found = await self._find(today)
        return await self._notice(today) or found

    async def _find(self, today: date) -> bool:
        """Days of records that are new, have changed, or were last looked at by other rules. No transaction: repeating it is harmless."""
        rules = f"{self._catalogue.rules_on(today)}:{self._transition}"
        documents: dict[str, Document] = {}

        async def find(limit: int) -> Iterable[str]:
            found = self._records.find({"period.rules": {"$ne": rules}}).limit(limit)
            documents.update({document["_id"]: document for document in await found.to_list(limit)})
            return documents

        due = await self._rows.due(_BATCH, find)
        writes = []
        for id_ in due:
            document = documents[id_]
            try:
                record = _record(document)
                end = publication_end(record, self._catalogue, today, self._transition)
            except Exception as error:  # whatever is wrong with it, the others have their days
                self._rows.leave(id_, error)
                continue
            period = {"ends_on": end.on.isoformat() if end else None, "rules": rules}
            # one that is written meanwhile is found again
            same = {"_id": record.record_id, "published_at": document["published_at"]}
            writes.append(UpdateOne(same, {"$set": {"period": period}}))
        if writes:
            await self._records.bulk_write(writes, ordered=False)
        return len(due) == _BATCH

    async def _notice(self, today: date) -> bool:
        query = {"period.ends_on": {"$type": "string", "$lte": today.isoformat()}}

        async def find(limit: int) -> Iterable[str]:
            cursor = self._records.find(query, {"_id": 1}).sort("period.ends_on", ASCENDING).limit(limit)
            return [document["_id"] for document in await cursor.to_list(limit)]

        ids = await self._rows.due(_BATCH, find)

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
            records = await self._store.records(ids, unit.session)
            ended: dict[str, Record] = {}
            events: list[PublicationExpired] = []
            for record in records.values():
                # as it is now: it may have been repaired, corrected or withdrawn since the day was found
                end = publication_end(record, self._catalogue, today, self._transition)
                if end is None or end.on > today:
                    ended[record.record_id] = record
                    continue
                event = PublicationExpired(
                    record_id=record.record_id,
                    record=record.facts,
                    ended_on=end.on,
                    rule=end.rule.number,
                    source=end.rule.source,
                    noticed_at=unit.now,
                )
                ended[record.record_id] = expired(record, event)
                events.append(event)
                unit.emit(event, cause=f"expired:{record.record_id}:{record.published_at.isoformat()}")
            await self._store.save_records(ended.values(), unit.session)
            open_items = {
                event.record_id: item_id
                for event in events
                if records[event.record_id].application_id and (item_id := records[event.record_id].item_id)
            }
            progress = await Progress.load(self._store, unit, open_items.values())
            for event in events:
                item = progress.items.get(open_items.get(event.record_id, ""))
                if item is not None:
                    progress.expire(item, event)
            await progress.save()
            return len(events)

        if noticed := sum(await self._rows.run(ids, work)):
            log.info("publication periods have passed", records=noticed)
        return len(ids) == _BATCH


def _record(document: Document) -> Record:
    return Record.model_validate({**document, "record_id": document["_id"]})
