"""Documents of the letters to vendors, and their numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel, ReplaceOne, ReturnDocument

from chassis.db import CollectionSpec, Database, Document, Session
from sync.vendor_letters import LetterState, LetterStep, VendorLetter

_SIGHTINGS: Document = {"open": True, "seen": {"$type": "object"}}
COLLECTIONS = [
    CollectionSpec(
        "vendor_letters",
        [
            IndexModel([("finding", ASCENDING)], name="by_finding"),
            IndexModel([("record_id", ASCENDING), ("drafted_at", ASCENDING)], name="by_record"),
            IndexModel(
                [("state", ASCENDING), ("drafted_at", ASCENDING), ("_id", ASCENDING)], name="by_state"
            ),
            # all that a count of open letters reads, so that it reads no letter
            IndexModel(
                [
                    ("open", ASCENDING),
                    ("target_id", ASCENDING),
                    ("state", ASCENDING),
                    ("drafted_at", ASCENDING),
                ],
                name="open_by_target",
                partialFilterExpression={"open": True},
            ),
            IndexModel(
                [("open", ASCENDING), ("_id", ASCENDING)],
                name="sightings",
                partialFilterExpression=_SIGHTINGS,
            ),
        ],
    ),
    CollectionSpec("vendor_letter_numbers"),
]
_LETTER: TypeAdapter[VendorLetter] = TypeAdapter(VendorLetter)


class WaitsFor(StrEnum):
    """What an open letter waits for: a person to release it, to be sent, an answer that is overdue."""

    RELEASE = "release"
    SENDING = "sending"
    ANSWER = "answer"


@dataclass(frozen=True)
class Waiting:
    """Open letters of one target that wait for the same, and since when the oldest has."""

    target_id: str
    waits_for: WaitsFor
    count: int
    since: datetime


class LetterStore:
    """``vendor_letters`` by letter id, ``vendor_letter_numbers`` by year. Times are text, but ``drafted_at``, to be sorted by."""

    def __init__(self, database: Database) -> None:
        self._letters = database.collection("vendor_letters")
        self._numbers = database.collection("vendor_letter_numbers")

    async def get(self, letter_id: str, session: Session | None = None) -> VendorLetter | None:
        """One letter."""
        found = await self._letters.find_one({"_id": letter_id}, session=session)
        return None if found is None else _read(found)

    async def many(self, ids: Iterable[str], session: Session) -> dict[str, VendorLetter]:
        """Letters by id; unknown ids are missing."""
        cursor = self._letters.find({"_id": {"$in": list(ids)}}, session=session)
        return {document["_id"]: _read(document) async for document in cursor}

    async def of_findings(
        self, findings: Iterable[str], session: Session | None = None
    ) -> dict[str, dict[LetterStep, VendorLetter]]:
        """Letters by finding and step; a finding without any is missing."""
        found: dict[str, dict[LetterStep, VendorLetter]] = {}
        async for document in self._letters.find({"finding": {"$in": list(findings)}}, session=session):
            letter = _read(document)
            found.setdefault(letter.finding, {})[letter.step] = letter
        return found

    async def of_record(self, record_id: str) -> list[VendorLetter]:
        """Letters about a record, the oldest first."""
        cursor = self._letters.find({"record_id": record_id}).sort("drafted_at", ASCENDING)
        return [_read(document) async for document in cursor]

    async def page(self, state: LetterState | None, after: str | None, limit: int) -> list[VendorLetter]:
        """Letters of a state, or all, in order of their ids, after the given one."""
        query: Document = {"state": state.value} if state else {}
        if after:
            query["_id"] = {"$gt": after}
        cursor = self._letters.find(query).sort("_id", ASCENDING).limit(limit)
        return [_read(document) async for document in cursor]

    async def open_at(
        self, target_id: str, record_ids: Iterable[str], session: Session
    ) -> list[VendorLetter]:
        """Open letters to one target about some records."""
        query = {"record_id": {"$in": list(record_ids)}, "target_id": target_id, "open": True}
        return [_read(document) async for document in self._letters.find(query, session=session)]

    async def open_findings(self, after: str, limit: int) -> list[VendorLetter]:
        """Open letters that tell what was seen, in order of their ids: what ends them is what a driver sees."""
        query = {**_SIGHTINGS, "_id": {"$gt": after}}
        cursor = self._letters.find(query).sort("_id", ASCENDING).limit(limit)
        return [_read(document) async for document in cursor]

    async def save(self, letter: VendorLetter, session: Session) -> None:
        """Store a letter, new or changed."""
        await self.save_many([letter], session)

    async def save_many(self, letters: Iterable[VendorLetter], session: Session) -> None:
        """Store several."""
        writes = [ReplaceOne({"_id": each.id}, _document(each), upsert=True) for each in letters]
        if writes:
            await self._letters.bulk_write(writes, session=session, ordered=False)

    async def next_number(self, year: int, session: Session) -> int:
        """The next number of a year. Taken in the transaction of the release, so that none is left out and none used twice."""
        found = await self._numbers.find_one_and_update(
            {"_id": str(year)},
            {"$inc": {"last": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return int(found["last"])

    async def counts(self, target_ids: Iterable[str]) -> dict[str, dict[LetterState, int]]:
        """Open letters of each target by state."""
        pipeline = [
            {"$match": {"open": True, "target_id": {"$in": list(target_ids)}}},
            {"$group": {"_id": {"target": "$target_id", "state": "$state"}, "count": {"$sum": 1}}},
        ]
        found: dict[str, dict[LetterState, int]] = {}
        async for row in self._letters.aggregate(pipeline):
            found.setdefault(row["_id"]["target"], {})[LetterState(row["_id"]["state"])] = row["count"]
        return found

    async def waiting(self, today: date) -> list[Waiting]:
        """Open letters by target and by what they wait for. One that was sent waits for its answer once that is due."""
        drafts: list[Document] = [
            {"$match": {"open": True, "state": LetterState.DRAFT.value}},
            {"$group": {"_id": "$target_id", "count": {"$sum": 1}, "since": {"$min": "$drafted_at"}}},
        ]
        found = [
            Waiting(row["_id"], WaitsFor.RELEASE, row["count"], row["since"])
            async for row in self._letters.aggregate(drafts, hint="open_by_target")
        ]
        pipeline: list[Document] = [
            {"$match": {"open": True, "state": LetterState.RELEASED.value}},
            {
                "$project": {
                    "target_id": 1,
                    "waits": {
                        "$switch": {
                            "branches": [
                                {"case": {"$eq": ["$step", LetterStep.REPORT.value]}, "then": None},
                                {"case": {"$not": ["$dispatch.sent_at"]}, "then": "sending"},
                                {"case": {"$and": ["$copy", {"$not": ["$copy.sent_at"]}]}, "then": "sending"},
                                {
                                    "case": {
                                        "$and": [
                                            {"$not": ["$answer"]},
                                            {"$lt": ["$due_on", today.isoformat()]},
                                        ]
                                    },
                                    "then": "answer",
                                },
                            ],
                            "default": None,
                        }
                    },
                    "since": {"$ifNull": ["$dispatch.sent_at", "$released_at"]},
                }
            },
            {"$match": {"waits": {"$ne": None}}},
            {
                "$group": {
                    "_id": {"target": "$target_id", "waits": "$waits"},
                    "count": {"$sum": 1},
                    "since": {"$min": "$since"},
                }
            },
        ]
        found += [
            Waiting(
                row["_id"]["target"],
                WaitsFor(row["_id"]["waits"]),
                row["count"],
                datetime.fromisoformat(row["since"]),
            )
            async for row in self._letters.aggregate(pipeline)
        ]
        return sorted(found, key=lambda each: (each.target_id, each.waits_for))


def _document(letter: VendorLetter) -> Document:
    document: Document = _LETTER.dump_python(letter, mode="json")
    document.pop("id")
    document["drafted_at"] = letter.drafted_at
    document["open"] = letter.closed_at is None and letter.state in (
        LetterState.DRAFT,
        LetterState.RELEASED,
    )
    return document


def _read(document: Document) -> VendorLetter:
    return _LETTER.validate_python({**document, "id": document["_id"]})
