"""Intake's documents, their indexes, and every query on them. Times are stored as ISO 8601 text unless an index needs them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, ReplaceOne, UpdateOne
from pymongo.read_concern import ReadConcern

from chassis.db import Collection, CollectionSpec, Database, Document, Session
from contracts.http.intake import Subject
from intake.domain.application import Application, Entry
from intake.domain.item import Item, ItemStatus
from intake.domain.record import Record

COLLECTIONS = [
    CollectionSpec("subjects"),
    CollectionSpec(
        "records",
        [
            IndexModel([("subject_id", ASCENDING), ("facts.decided_on", DESCENDING), ("_id", DESCENDING)]),
            IndexModel("period.rules", name="period_rules"),
            IndexModel(
                "period.ends_on",
                name="period_ends",
                partialFilterExpression={"period.ends_on": {"$type": "string"}},
            ),
        ],
    ),
    CollectionSpec(
        "applications",
        [IndexModel([("subject_id", ASCENDING), ("submitted_at", DESCENDING), ("_id", DESCENDING)])],
    ),
    CollectionSpec(
        "items",
        [
            IndexModel([("application_id", ASCENDING), ("_id", ASCENDING)]),
            IndexModel("status", name="by_status"),
            IndexModel("disputes.ground.item_id", name="disputed", sparse=True),
        ],
    ),
    CollectionSpec(
        "timeline", [IndexModel([("application_id", ASCENDING), ("seq", ASCENDING)], unique=True)]
    ),
    CollectionSpec("idempotency", [IndexModel("expires_at", name="ttl", expireAfterSeconds=0)]),
]


class Store:
    """All documents of intake. Methods with a ``session`` argument are meant for a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subjects = database.collection("subjects")
        self._records = database.collection("records")
        self._applications = database.collection("applications")
        self._items = database.collection("items")
        self._timeline = database.collection("timeline")
        self._idempotency = database.collection("idempotency")
        # What a stream has sent under an id can never be taken back by a new primary.
        majority = ReadConcern("majority")
        self._settled_applications = self._applications.with_options(read_concern=majority)
        self.settled_timeline: Collection = self._timeline.with_options(read_concern=majority)

    # --- subjects

    async def save_subjects(self, subjects: Iterable[Subject], session: Session | None = None) -> None:
        """Register identities; the name last given stays."""
        by_id = {subject.subject_id: subject for subject in subjects}
        operations = [
            UpdateOne(
                {"_id": i}, {"$set": subject.model_dump(mode="json", exclude={"subject_id"})}, upsert=True
            )
            for i, subject in sorted(by_id.items())
        ]
        if operations:
            await self._subjects.bulk_write(operations, session=session, ordered=False)

    async def touch_subject(self, subject_id: str, session: Session) -> None:
        """Let transactions about one subject that read different documents conflict: the later one sees what the other did."""
        await self._subjects.update_one({"_id": subject_id}, {"$inc": {"touched": 1}}, session=session)

    async def subjects(self, ids: Iterable[str], session: Session | None = None) -> dict[str, Subject]:
        """Known subjects by id."""
        cursor = self._subjects.find({"_id": {"$in": list(ids)}}, session=session)
        return {
            document["_id"]: Subject.model_validate({**document, "subject_id": document["_id"]})
            async for document in cursor
        }

    # --- records

    async def records(self, ids: Iterable[str], session: Session | None = None) -> dict[str, Record]:
        """Known records by id."""
        cursor = self._records.find({"_id": {"$in": list(ids)}}, session=session)
        return {document["_id"]: _record(document) async for document in cursor}

    async def save_records(self, records: Iterable[Record], session: Session) -> None:
        """Write records read or made in this transaction."""
        operations = [
            ReplaceOne(
                {"_id": record.record_id}, record.model_dump(mode="json", exclude={"record_id"}), upsert=True
            )
            for record in records
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def claim_records(self, items: Sequence[Item], session: Session) -> bool:
        """Put records under an application; False when any of them is under one already."""
        result = await self._records.bulk_write(
            [
                UpdateOne(
                    {"_id": item.record_id, "application_id": None},
                    {"$set": {"application_id": item.application_id, "item_id": item.item_id}},
                )
                for item in items
            ],
            session=session,
            ordered=False,
        )
        return bool(result.matched_count == len(items))

    async def hold_records(self, held: Mapping[tuple[str, str], str], session: Session) -> None:
        """Put records under their applications again: (record id, application id) -> item id. The objection to the result is over."""
        operations = [
            UpdateOne(
                {"_id": record_id, "application_id": None},
                {
                    "$set": {
                        "application_id": application_id,
                        "item_id": item_id,
                        "result_objection_id": None,
                        "repaired_at": None,
                    }
                },
            )
            for (record_id, application_id), item_id in held.items()
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def object_to_record(
        self, record_id: str, objection_id: str, session: Session, *, result: bool
    ) -> bool:
        """Note the open objection to a record, or to its last result; False when there is one, or the record is under application."""
        field = "result_objection_id" if result else "objection_id"
        query = {"_id": record_id, field: None, **({"application_id": None} if result else {})}
        found = await self._records.update_one(query, {"$set": {field: objection_id}}, session=session)
        return bool(found.matched_count)

    async def objections_over(self, over: Mapping[str, str], session: Session) -> None:
        """These objections hold their records no longer: objection id -> record id."""
        operations = [
            UpdateOne({"_id": record_id, field: objection_id}, {"$set": {field: None}})
            for field in ("objection_id", "result_objection_id")
            for objection_id, record_id in over.items()
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def release_records(self, freed: Mapping[tuple[str, str], str | None], session: Session) -> None:
        """Take records from their applications: (record id, application id) -> ISO time of the repair, or None."""
        operations = [
            UpdateOne(
                {"_id": record_id, "application_id": application_id},
                {"$set": {"application_id": None, **({"repaired_at": repaired_at} if repaired_at else {})}},
            )
            for (record_id, application_id), repaired_at in freed.items()
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def revoke_records(self, revoked: Mapping[str, datetime | None], session: Session) -> None:
        """Note whose repair was revoked: record id -> time of the revocation; None: it was restored."""
        operations = [
            UpdateOne({"_id": record_id}, {"$set": {"revoked_at": at.isoformat() if at else None}})
            for record_id, at in revoked.items()
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def refuse_records(self, refused: Mapping[str, datetime], session: Session) -> None:
        """Note which were refused to be repaired: record id -> time of the decision."""
        operations = [
            UpdateOne({"_id": record_id}, {"$set": {"refused_at": at.isoformat()}})
            for record_id, at in refused.items()
        ]
        if operations:
            await self._records.bulk_write(operations, session=session, ordered=False)

    async def records_of(self, subject_id: str, after: str | None, limit: int) -> list[Record]:
        """Records of a subject, the latest decision first; ``after`` is the last id of the page before."""
        found = await _page(self._records, subject_id, "facts.decided_on", after, limit)
        return [_record(document) for document in found]

    # --- applications

    async def add_application(
        self, application: Application, items: Sequence[Item], entries: Sequence[Entry], session: Session
    ) -> None:
        """Insert an application with its items and the first lines of its timeline."""
        document = application.model_dump(exclude={"application_id"})
        await self._applications.insert_one({"_id": application.application_id, **document}, session=session)
        await self._items.insert_many([_item_document(item) for item in items], session=session)
        await self._timeline.insert_many([_entry_document(entry) for entry in entries], session=session)

    async def application(self, application_id: str, *, settled: bool = False) -> Application | None:
        """One header. ``settled``: only what no new primary can take back."""
        collection = self._settled_applications if settled else self._applications
        document = await collection.find_one({"_id": application_id})
        return None if document is None else _application(document)

    async def emails(self, subject_ids: Iterable[str], session: Session | None = None) -> dict[str, str]:
        """Subject id -> the e-mail address of its newest application that has one; the others are missing."""
        groups = self._applications.aggregate(
            [
                {"$match": {"subject_id": {"$in": list(subject_ids)}, "contact.email": {"$gt": ""}}},
                {"$sort": {"subject_id": ASCENDING, "submitted_at": DESCENDING}},
                {"$group": {"_id": "$subject_id", "email": {"$first": "$contact.email"}}},
            ],
            session=session,
        )
        return {row["_id"]: row["email"] async for row in groups}

    async def whole(self, application_id: str) -> tuple[Application, list[Item], list[Entry]] | None:
        """An application with its items and its timeline, all of the same moment."""

        async def read(session: Session) -> tuple[Application, list[Item], list[Entry]] | None:
            application = (await self.applications([application_id], session)).get(application_id)
            if application is None:
                return None
            items = await self.items_of([application_id], session)
            return application, items, await self.entries(application_id, session=session)

        return await self._database.transaction(read)

    async def applications(
        self, ids: Iterable[str], session: Session | None = None
    ) -> dict[str, Application]:
        """Known headers by id."""
        cursor = self._applications.find({"_id": {"$in": list(ids)}}, session=session)
        return {document["_id"]: _application(document) async for document in cursor}

    async def applications_with(
        self, subject_id: str, sha256: Iterable[str], session: Session
    ) -> dict[str, Application]:
        """Applications of a subject that hand in any of these contents, by id."""
        query = {"subject_id": subject_id, "materials.sha256": {"$in": list(sha256)}}
        cursor = self._applications.find(query, session=session)
        return {document["_id"]: _application(document) async for document in cursor}

    async def applications_of(self, subject_id: str, after: str | None, limit: int) -> list[Application]:
        """Headers of a subject, the newest first; ``after`` is the last id of the page before."""
        found = await _page(self._applications, subject_id, "submitted_at", after, limit)
        return [_application(document) for document in found]

    async def advance_applications(self, changed: Iterable[Application], session: Session) -> None:
        """Write headers read in this transaction: a concurrent change of one is a conflict, so ``seq`` has no gaps."""
        await self._applications.bulk_write(
            [
                UpdateOne(
                    {"_id": application.application_id},
                    {
                        "$set": application.model_dump(
                            include={"status", "completed_at", "open_items", "timeline_seq"}
                        )
                    },
                )
                for application in changed
            ],
            session=session,
            ordered=False,
        )

    # --- items and timeline

    async def items(self, ids: Iterable[str], session: Session | None = None) -> dict[str, Item]:
        """Known items by id."""
        cursor = self._items.find({"_id": {"$in": list(ids)}}, session=session)
        return {document["_id"]: _item(document) async for document in cursor}

    async def items_of(self, application_ids: Iterable[str], session: Session | None = None) -> list[Item]:
        """All items of some applications."""
        cursor = self._items.find({"application_id": {"$in": list(application_ids)}}, session=session)
        return [_item(document) async for document in cursor.sort("_id", ASCENDING)]

    async def disputed_by(self, item_id: str, session: Session) -> list[Item]:
        """Items that rest on material found false at this one."""
        cursor = self._items.find({"disputes.ground.item_id": item_id}, session=session)
        return [_item(document) async for document in cursor]

    async def supplemented(self, application_ids: Iterable[str]) -> dict[str, list[Item]]:
        """Application id -> its items for which something was provided later; without applications that have none."""
        query = {"application_id": {"$in": list(application_ids)}, "supplement_text": {"$gt": ""}}
        found: dict[str, list[Item]] = {}
        async for document in self._items.find(query):
            found.setdefault(document["application_id"], []).append(_item(document))
        return found

    async def count_items(self, statuses: Iterable[ItemStatus], limit: int) -> int:
        """Items in these states, counted up to ``limit``."""
        return await self._items.count_documents({"status": {"$in": list(statuses)}}, limit=limit)

    async def save_items(self, items: Iterable[Item], session: Session) -> None:
        """Write items read in this transaction."""
        await self._items.bulk_write(
            [ReplaceOne({"_id": item.item_id}, _item_document(item)) for item in items],
            session=session,
            ordered=False,
        )

    async def add_entries(self, entries: Sequence[Entry], session: Session) -> None:
        """Append lines to timelines."""
        await self._timeline.bulk_write(
            [InsertOne(_entry_document(entry)) for entry in entries], session=session, ordered=False
        )

    async def entries(
        self,
        application_id: str,
        *,
        after: int = 0,
        limit: int = 0,
        settled: bool = False,
        session: Session | None = None,
    ) -> list[Entry]:
        """Lines after a seq, oldest first; ``limit`` 0 is all."""
        collection = self.settled_timeline if settled else self._timeline
        cursor = collection.find({"application_id": application_id, "seq": {"$gt": after}}, session=session)
        return [Entry.model_validate(d) async for d in cursor.sort("seq", ASCENDING).limit(limit)]

    # --- idempotency

    async def seen_request(self, key: str, session: Session) -> tuple[str, str] | None:
        """(hash of the request, application id) that this key stands for."""
        document = await self._idempotency.find_one({"_id": key}, session=session)
        return None if document is None else (document["request_hash"], document["application_id"])

    async def remember_request(
        self, key: str, request_hash: str, application_id: str, now: datetime, days: int, session: Session
    ) -> None:
        """Let the key stand for this application for some days."""
        await self._idempotency.insert_one(
            {
                "_id": key,
                "request_hash": request_hash,
                "application_id": application_id,
                "expires_at": now + timedelta(days=days),
            },
            session=session,
        )


async def _page(
    collection: Collection, subject_id: str, field: str, after: str | None, limit: int
) -> list[Document]:
    """A page of one subject's documents, ``field`` falling; an ``after`` that is not the subject's gives nothing."""
    query: dict[str, Any] = {"subject_id": subject_id}
    if after is not None:
        last = await collection.find_one({"_id": after, "subject_id": subject_id}, {field: 1})
        if last is None:
            return []
        value: Any = last
        for part in field.split("."):
            value = value[part]
        query["$or"] = [{field: {"$lt": value}}, {field: value, "_id": {"$lt": after}}]
    cursor = collection.find(query).sort([(field, DESCENDING), ("_id", DESCENDING)]).limit(limit)
    return await cursor.to_list(limit)


def _record(document: Document) -> Record:
    return Record.model_validate({**document, "record_id": document["_id"]})


def _application(document: Document) -> Application:
    return Application.model_validate({**document, "application_id": document["_id"]})


def _item(document: Document) -> Item:
    return Item.model_validate({**document, "item_id": document["_id"]})


def _item_document(item: Item) -> Document:
    # status is computed; it is stored to be counted by, and for people who look into the database
    body = item.model_dump(mode="json", exclude={"item_id"})
    return {"_id": item.item_id, "status": item.status.value, **body}


def _entry_document(entry: Entry) -> Document:
    return {"_id": f"{entry.application_id}:{entry.seq}", **entry.model_dump(mode="json")}
