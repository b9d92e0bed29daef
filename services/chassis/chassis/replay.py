"""The outbox as an operator sees it, and publishing it again (the bus has lost something).

Order. Events of a topic are marked in the order of seq, a step in one transaction, so the relay, which publishes by seq, always
sees a whole beginning of what is still to come: replayed events of a key never overtake each other. What was emitted meanwhile has a
larger seq and waits behind what is marked. (It does not wait for what is not marked yet: where that matters, mark all
before the bus is back; marking needs the database alone.)
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from chassis.audit import Audit, audit_id
from chassis.db import Database, Document, Session
from chassis.outbox import Outbox
from contracts.http.operations import COUNTED_AT_MOST, REPLAY_STEP, OutboxStatus, OutboxTopic

# published_at goes too: its TTL would delete what a long outage keeps pending
_MARK = {"$set": {"pending": True}, "$unset": {"published_at": ""}}
_PUBLISHED = {"published_at": {"$exists": True}}


@dataclass(frozen=True)
class Place:
    """How far a replay is: all before ``seq`` of ``topic`` and all topics before it are marked, nothing from ``end`` on will be."""

    replay: str
    topic: str
    seq: int
    end: int
    marked: int

    def write(self) -> str:
        """For a URL or a body."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @staticmethod
    def read(text: str) -> "Place":
        """What ``write`` wrote. Raises ValueError."""
        try:
            place = Place(**json.loads(base64.urlsafe_b64decode(text)))
        except TypeError as error:
            raise ValueError(str(error)) from None
        if not all(isinstance(value, int) for value in (place.seq, place.end, place.marked)):
            raise ValueError("not a place")
        return place


class Replays:
    """Looks at the outbox of a service and marks published events as pending."""

    def __init__(self, database: Database, outbox: Outbox, audit: Audit) -> None:
        self._db = database
        self._writer = outbox
        self._audit = audit
        self._outbox = database.collection("outbox")

    async def topics(self) -> list[str]:
        """Topics that have events, in order of name."""
        return sorted(await self._outbox.distinct("topic"))

    async def status(self) -> OutboxStatus:
        """Counts by topic, at most COUNTED_AT_MOST each."""
        pending = {
            group["_id"]: group
            async for group in self._outbox.aggregate(
                [
                    {"$match": {"bucket": {"$gte": 0}, "pending": True}},  # what the partial index serves
                    {"$limit": COUNTED_AT_MOST},
                    {"$group": {"_id": "$topic", "number": {"$sum": 1}, "oldest": {"$min": "$created_at"}}},
                ]
            )
        }
        topics = []
        for topic in await self.topics():
            kept = await self._outbox.count_documents({"topic": topic}, limit=COUNTED_AT_MOST)
            waiting = pending.get(topic, {"number": 0, "oldest": None})
            topics.append(
                OutboxTopic(
                    topic=topic,
                    published=kept - waiting["number"],
                    pending=waiting["number"],
                    oldest_pending_at=waiting["oldest"],
                )
            )
        last = await self._outbox.find_one(_PUBLISHED, {"published_at": 1}, sort=[("published_at", -1)])
        return OutboxStatus(
            pending=sum(group["number"] for group in pending.values()),
            oldest_pending_at=min((group["oldest"] for group in pending.values()), default=None),
            last_published_at=last and last["published_at"],
            topics=topics,
        )

    async def some(self, ids: Sequence[str], by: str, reason: str) -> int:
        """Mark these events, at most REPLAY_STEP; returns how many were published and are known here."""
        # ``replays`` tells the parity check what it has asked for already
        mark = {**_MARK, "$inc": {"replays": 1}}
        return await self._mark({"_id": {"$in": list(ids)}}, mark, by, reason, f"{len(ids)} events")

    async def step(
        self, topic: str | None, since: datetime | None, after: Place | None, by: str, reason: str
    ) -> tuple[int, Place | None]:
        """Mark the next REPLAY_STEP events at most; returns how many, and where to go on (None: all are marked)."""
        topics = [topic] if topic else await self.topics()
        place = after or await self._begin(topics, since)
        if place is None:
            return 0, None
        found = (
            await self._outbox.find(
                {"topic": place.topic, "seq": {"$gte": place.seq, "$lt": place.end}}, {"_id": 0, "seq": 1}
            )
            .sort("seq", 1)
            .hint("by_topic")
            .skip(REPLAY_STEP)
            .limit(1)
            .to_list(1)
        )
        until = int(found[0]["seq"]) if found else place.end
        newer = {"created_at": {"$gte": since}} if since else {}
        step = {"topic": place.topic, "seq": {"$gte": place.seq, "$lt": until}, **newer}
        subject = f"{topic or 'all topics'} since {since.isoformat() if since else 'the oldest'}"
        marked = await self._mark(step, _MARK, by, reason, subject, before=place, hint="by_topic")
        total = place.marked + marked
        if found:
            return marked, Place(place.replay, place.topic, until, place.end, total)
        rest = [name for name in topics if name > place.topic]
        if not rest:
            return marked, None
        start = await self._start(rest[0], since)
        return marked, Place(place.replay, rest[0], start, place.end, total)

    async def _mark(
        self,
        which: Document,
        mark: Document,
        by: str,
        reason: str,
        subject: str,
        *,
        before: Place | None = None,
        hint: str | None = None,
    ) -> int:
        """Mark and audit; ``before``: how far the replay was that this is a step of (one audit entry a replay)."""

        async def work(session: Session) -> int:
            updated = await self._outbox.update_many(
                {**which, **_PUBLISHED}, mark, hint=hint, session=session
            )
            marked = updated.modified_count
            await self._audit.add(
                identity=before.replay if before else None,
                by=by,
                action="replay",
                reason=reason,
                subject=subject,
                result=f"marked {marked + (before.marked if before else 0)}",
                session=session,
            )
            return marked

        marked = await self._db.transaction(work)
        self._writer.wake()
        return marked

    async def _begin(self, topics: Sequence[str], since: datetime | None) -> Place | None:
        if not topics:
            return None
        # what is emitted from now on is no part of it
        end = await self._writer.end_seq()
        return Place(audit_id(), topics[0], await self._start(topics[0], since), end, 0)

    async def _start(self, topic: str, since: datetime | None) -> int:
        return await self._writer.seq_at(topic, since) if since else 0
