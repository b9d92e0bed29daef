"""The hash chains of what was decided, pushed, answered and seen, and the loop that signs heads over them (``contracts.history``).

An entry is written in the transaction of the fact it tells. There is a chain for each record and one for each record at each target, so
that no two targets wait for each other; what holds all chains together are the heads, made once in a while by whichever replica
comes first.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document, Session
from contracts.canonical import Digest
from contracts.history import (
    EntryPage,
    HeadPage,
    HistoryEntry,
    HistoryHead,
    HistoryTip,
    Kind,
    Leaf,
    TipPage,
    entry_id,
    entry_text,
    head_text,
)
from contracts.signatures import SigningKey

_UNCOVERED: Document = {"grown_at": {"$type": "date"}}
LEAVES_AT_MOST = 1000
"""Chains that one head covers."""

COLLECTIONS = [
    CollectionSpec(
        "history",
        [
            IndexModel([("record_id", ASCENDING), ("_id", ASCENDING)], name="by_record"),
            IndexModel([("chain", ASCENDING), ("kind", ASCENDING), ("_id", ASCENDING)], name="by_kind"),
        ],
    ),
    CollectionSpec(
        "history_tips",
        [
            IndexModel(
                [("grown_at", ASCENDING)],
                name="uncovered",
                partialFilterExpression={"grown_at": {"$type": "date"}},
            ),
            IndexModel([("record_id", ASCENDING), ("_id", ASCENDING)], name="by_record"),
        ],
    ),
    CollectionSpec("history_heads"),
]


@dataclass(frozen=True)
class Fact:
    """What is to become an entry. ``facts``: JSON without fractions, and nothing personal."""

    chain: str
    record_id: str
    kind: Kind
    facts: dict[str, Any]


@dataclass(frozen=True)
class LastEntry:
    """The digest that a chain's tip names, and the entry that is there."""

    tip_hash: str
    entry: HistoryEntry | None


def rfc3339(moment: datetime) -> str:
    """In UTC, with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class History:
    """Reads and writes chains and heads. ``digest``: of new entries and heads."""

    def __init__(self, database: Database, digest: Digest = Digest.SHA256) -> None:
        self._database = database
        self._entries = database.collection("history")
        self._tips = database.collection("history_tips")
        self._heads = database.collection("history_heads")
        self._digest = digest

    async def append(self, facts: Sequence[Fact], now: datetime, session: Session) -> list[HistoryEntry]:
        """Write entries, in this order, in the transaction of what they tell."""
        if not facts:
            return []
        chains = list({fact.chain for fact in facts})
        cursor = self._tips.find({"_id": {"$in": chains}}, session=session)
        tips = {tip["_id"]: (tip["seq"], tip["hash"]) async for tip in cursor}
        made: list[HistoryEntry] = []
        writes = []
        for fact in facts:
            seq, previous = tips.get(fact.chain, (0, ""))
            text = entry_text(fact.chain, seq + 1, previous, fact.kind, rfc3339(now), fact.facts)
            entry = HistoryEntry(
                id=entry_id(fact.chain, seq + 1), text=text.decode(), hash=self._digest.of(text)
            )
            tips[fact.chain] = (seq + 1, entry.hash)
            made.append(entry)
            about = {"chain": fact.chain, "record_id": fact.record_id, "kind": fact.kind.value}
            writes.append(InsertOne({"_id": entry.id, **about, "text": entry.text, "hash": entry.hash}))
        await self._entries.bulk_write(writes, session=session, ordered=False)
        records = {fact.chain: fact.record_id for fact in facts}
        await self._tips.bulk_write(
            [
                UpdateOne(
                    {"_id": chain},
                    {
                        "$set": {"seq": tips[chain][0], "hash": tips[chain][1]},
                        # since when it has grown beyond the last head that covers it
                        "$min": {"grown_at": now},
                        "$setOnInsert": {"record_id": records[chain], "head": None},
                    },
                    upsert=True,
                )
                for chain in chains
            ],
            session=session,
            ordered=False,
        )
        return made

    async def last_reading(self, chain: str, session: Session | None = None) -> HistoryEntry | None:
        """The last entry that tells what was seen."""
        readings = self._entries.find({"chain": chain, "kind": Kind.READING.value}, session=session)
        async for found in readings.sort("_id", DESCENDING):
            if "right" in json.loads(found["text"])["facts"]:
                return _entry(found)
        return None

    async def last_entries(self, chains: Sequence[str], session: Session) -> dict[str, LastEntry]:
        """The tips of some chains with the entries they name; chains without any are missing."""
        tips = {
            tip["_id"]: tip async for tip in self._tips.find({"_id": {"$in": list(chains)}}, session=session)
        }
        ids = [entry_id(chain, tip["seq"]) for chain, tip in tips.items()]
        found = {
            doc["chain"]: doc async for doc in self._entries.find({"_id": {"$in": ids}}, session=session)
        }
        return {
            chain: LastEntry(tip["hash"], _entry(found[chain]) if chain in found else None)
            for chain, tip in tips.items()
        }

    async def last_decisions(self, record_ids: Sequence[str], session: Session) -> dict[str, HistoryEntry]:
        """The last entry of each of these records that tells a decision."""
        decisions = {"chain": {"$in": list(record_ids)}, "kind": Kind.DECISION.value}
        cursor = self._entries.find(decisions, session=session).sort("_id", ASCENDING)
        return {doc["chain"]: _entry(doc) async for doc in cursor}

    async def uncovered_since(self) -> datetime | None:
        """Since when a chain has grown beyond its last head; None: all are covered."""
        found = await self._tips.find_one(_UNCOVERED, sort=[("grown_at", ASCENDING)])
        return None if found is None else found["grown_at"]

    async def sign_head(self, key: SigningKey) -> bool:
        """Make a head over the chains that have grown, at most 1,000; whether there may be more."""

        async def work(session: Session) -> bool:
            cursor = self._tips.find(_UNCOVERED, session=session).sort("grown_at", ASCENDING)
            grown = await cursor.limit(LEAVES_AT_MOST).to_list(LEAVES_AT_MOST)
            if not grown:
                return False
            last = await self._heads.find_one(sort=[("_id", DESCENDING)], session=session)
            number, previous = (last["_id"] + 1, last["hash"]) if last else (1, "")
            grown.sort(key=lambda tip: str(tip["_id"]))  # leaves stand in order of their chains
            leaves = [Leaf(chain=tip["_id"], seq=tip["seq"], hash=tip["hash"]) for tip in grown]
            text = head_text(number, previous, rfc3339(datetime.now(UTC)), leaves, self._digest)
            head: Document = {
                "_id": number,
                "text": text.decode(),
                "hash": self._digest.of(text),
                "signature": key.sign(text).model_dump(),
                "leaves": [leaf.model_dump() for leaf in leaves],
            }
            await self._heads.insert_one(head, session=session)
            covered = {"_id": {"$in": [leaf.chain for leaf in leaves]}}
            await self._tips.update_many(
                covered, {"$set": {"head": number}, "$unset": {"grown_at": ""}}, session=session
            )
            return len(leaves) == LEAVES_AT_MOST

        return await self._database.transaction(work)

    # --- reading

    async def entries(self, record_id: str | None, after: str, limit: int) -> EntryPage:
        """Entries after an id ("" for the first), of one record or of all."""
        query = {"_id": {"$gt": after}, **({"record_id": record_id} if record_id else {})}
        found = await self._entries.find(query).sort("_id", ASCENDING).limit(limit).to_list(limit)
        entries = [_entry(document) for document in found]
        return EntryPage(entries=entries, next=entries[-1].id if len(entries) == limit else None)

    async def lookup(self, ids: Sequence[str]) -> list[HistoryEntry]:
        """Those of the entries that are there."""
        return [_entry(document) async for document in self._entries.find({"_id": {"$in": list(ids)}})]

    async def tips(self, record_id: str | None, after: str, limit: int) -> TipPage:
        """Tips after a chain ("" for the first), of one record or of all."""
        query = {"_id": {"$gt": after}, **({"record_id": record_id} if record_id else {})}
        found = await self._tips.find(query).sort("_id", ASCENDING).limit(limit).to_list(limit)
        tips = [HistoryTip(chain=t["_id"], seq=t["seq"], hash=t["hash"], head=t["head"]) for t in found]
        return TipPage(tips=tips, next=tips[-1].chain if len(tips) == limit else None)

    async def heads(self, after: int, limit: int) -> HeadPage:
        """Heads after a number (0 for the first)."""
        found = (
            await self._heads.find({"_id": {"$gt": after}}).sort("_id", ASCENDING).limit(limit).to_list(limit)
        )
        heads = [_head(document) for document in found]
        return HeadPage(heads=heads, next=heads[-1].number if len(heads) == limit else None)

    async def last_head(self, session: Session | None = None) -> HistoryHead | None:
        """The newest head."""
        found = await self._heads.find_one(sort=[("_id", DESCENDING)], session=session)
        return None if found is None else _head(found)


def head_loop(history: History, key: SigningKey, interval_seconds: float) -> Loop:
    """Signs a head over what has grown, every ``interval_seconds``."""

    async def step() -> bool:
        return await history.sign_head(key)

    return Loop("history heads", step, interval_seconds)


def _entry(document: Document) -> HistoryEntry:
    return HistoryEntry(id=document["_id"], text=document["text"], hash=document["hash"])


def _head(document: Document) -> HistoryHead:
    return HistoryHead.model_validate({**document, "number": document["_id"]})
