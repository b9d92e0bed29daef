"""What is remembered of each department's channel: how far its decisions were taken, who is at it, what was refused.

``channels``: by slug; ``cursor`` of polling, ``sequence`` of the last batch file, the lease of the process that is at it.
``refused_decisions``: what could not take effect and why, where the department cannot be answered at once.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from chassis.db import CollectionSpec, Database, Document, Session


def collections(retention_days: int) -> list[CollectionSpec]:
    """Collections with their indexes."""
    return [
        CollectionSpec("channels"),
        CollectionSpec(
            "refused_decisions",
            [
                IndexModel("at", name="ttl", expireAfterSeconds=retention_days * 86_400),
                IndexModel([("slug", ASCENDING), ("at", DESCENDING)]),
                IndexModel(
                    [("file", ASCENDING), ("row", ASCENDING)],
                    name="of_a_file",
                    partialFilterExpression={"file": {"$exists": True}},
                ),
            ],
        ),
    ]


@dataclass(frozen=True)
class RefusedDecision:
    """What could not take effect. ``message_id``: its webhook-id, or file and row; ``file``, ``row``: of batch files."""

    message_id: str
    item_id: str | None
    reason: str
    file: str | None = None
    row: int | None = None


class Channels:
    """The channels of all departments."""

    def __init__(self, database: Database) -> None:
        self._channels = database.collection("channels")
        self._leasing = database.relaxed("channels")
        self._refused = database.collection("refused_decisions")
        self._owner = secrets.token_hex(8)

    async def hold(self, slug: str, lease: timedelta) -> bool:
        """Take or keep a department's channel for this process; False when another process is at it."""
        now = datetime.now(UTC)
        mine = {"_id": slug, "$or": [{"owner": self._owner}, {"until": {"$lte": now}}, {"until": None}]}
        try:
            await self._leasing.update_one(
                mine, {"$set": {"owner": self._owner, "until": now + lease}}, upsert=True
            )
        except DuplicateKeyError:
            return False
        return True

    async def release(self, slug: str) -> None:
        """Let others at it."""
        await self._leasing.update_one({"_id": slug, "owner": self._owner}, {"$set": {"until": None}})

    async def cursor(self, slug: str) -> str:
        """How far the department's decisions were taken; empty at first."""
        found = await self._channels.find_one({"_id": slug}, {"cursor": 1})
        return str((found or {}).get("cursor") or "")

    async def advance(self, slug: str, before: str, after: str, session: Session) -> bool:
        """Move the cursor in the transaction of what was taken; False when another process has moved it meanwhile."""
        expected = {"_id": slug, "cursor": before or {"$in": [None, ""]}}
        moved = await self._channels.update_one(expected, {"$set": {"cursor": after}}, session=session)
        return moved.matched_count == 1

    async def next_sequence(self, slug: str, session: Session) -> int:
        """The next number of a department's batch files, without gaps: it is taken only if the session commits."""
        document = await self._channels.find_one_and_update(
            {"_id": slug},
            {"$inc": {"sequence": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return int(document["sequence"])

    async def refuse(
        self, slug: str, refused: Sequence[RefusedDecision], now: datetime, session: Session
    ) -> None:
        """Remember what could not take effect; the same again changes nothing."""
        writes = []
        for each in refused:
            facts: Document = {"slug": slug, "item_id": each.item_id, "reason": each.reason, "at": now}
            facts |= {"message_id": each.message_id}
            if each.file is not None:
                facts |= {"file": each.file, "row": each.row}
            writes.append(
                UpdateOne({"_id": f"{slug}:{each.message_id}"}, {"$setOnInsert": facts}, upsert=True)
            )
        if writes:
            await self._refused.bulk_write(writes, session=session, ordered=False)

    async def refused_counts(self, slugs: Sequence[str]) -> dict[str, int]:
        """Slug -> how much was refused, as far back as it is kept."""
        pipeline: list[Document] = [
            {"$match": {"slug": {"$in": list(slugs)}}},
            {"$group": {"_id": "$slug", "number": {"$sum": 1}}},
        ]
        return {doc["_id"]: int(doc["number"]) async for doc in self._refused.aggregate(pipeline)}

    async def refused_lately(self, slug: str, limit: int) -> list[Document]:
        """The newest first."""
        cursor = self._refused.find({"slug": slug}).sort("at", DESCENDING).limit(limit)
        return list(await cursor.to_list(limit))

    async def refused_of(self, file: str) -> AsyncIterator[Document]:
        """What was refused of one version of a batch file, by row."""
        async for document in self._refused.find({"file": file}).sort("row", ASCENDING):
            yield document
