"""回访: some time after a repair its subject, or an officer, says whether it has lasted. Due days are rows: each is told once, whenever."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, IndexModel, UpdateOne

from chassis.background import Loop
from chassis.db import CollectionSpec, Database, Document, Session
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import FollowUpAnswered, FollowUpDue
from contracts.http.follow_up import Answer, FollowUp
from intake import texts
from intake.domain.item import Item
from intake.progress import Progress
from intake.store import Store

log = get_logger(__name__)
COLLECTIONS = [
    CollectionSpec(
        "follow_ups",
        [
            IndexModel(
                [("due_on", ASCENDING)],
                name="to_tell",
                partialFilterExpression={"told_at": None},
            ),
            IndexModel([("subject_id", ASCENDING), ("due_on", ASCENDING)]),
            IndexModel([("department_code", ASCENDING), ("due_on", ASCENDING)]),
        ],
    )
]
_BATCH = 200
_MAX_LISTED = 200


def due_days(repaired_at: datetime, days: Iterable[int]) -> dict[int, date]:
    """After how many days -> the day in China on which it is asked."""
    return {number: china_date(repaired_at + timedelta(days=number)) for number in days}


class FollowUps:
    """All follow-ups; ``days``: after how many days each repair is followed up (重庆: 定期回访; the numbers are a setting)."""

    def __init__(
        self, database: Database, store: Store, outbox: Outbox, days: Sequence[int], poll_seconds: float
    ) -> None:
        self._follow_ups = database.collection("follow_ups")
        self._store = store
        self._outbox = outbox
        self._days = days
        self.loop = Loop("follow-ups", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def schedule(self, repaired: Mapping[str, str], items: Iterable[Item], session: Session) -> None:
        """Plan the follow-ups of items that have just been repaired; ``repaired``: item id -> subject id."""
        writes = [
            # a repair that was revoked and restored is completed again: it is followed up once
            UpdateOne(
                {"_id": f"{item.item_id}:{number}"},
                {
                    "$setOnInsert": {
                        "item_id": item.item_id,
                        "application_id": item.application_id,
                        "record_id": item.record_id,
                        "subject_id": repaired[item.item_id],
                        "document_number": item.facts.document_number,
                        "department_code": item.holder.code if item.holder else None,
                        "days": number,
                        "due_on": due.isoformat(),
                        "told_at": None,
                        "answer": None,
                    }
                },
                upsert=True,
            )
            for item in items
            if item.item_id in repaired and item.repaired_at
            for number, due in due_days(item.repaired_at, self._days).items()
        ]
        if writes:
            await self._follow_ups.bulk_write(writes, session=session, ordered=False)

    async def step(self) -> bool:
        """Tell one batch of those that are due, in one transaction; returns whether there may be more."""
        due = {"told_at": None, "due_on": {"$lte": china_date(datetime.now(UTC)).isoformat()}}

        async def find(limit: int) -> list[str]:
            cursor = self._follow_ups.find(due, {"_id": 1}).sort("due_on", ASCENDING).limit(limit)
            return [row["_id"] for row in await cursor.to_list(limit)]

        ids = await self._rows.due(_BATCH, find)

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> None:
            query = {"_id": {"$in": list(ids)}, "told_at": None}
            rows = await self._follow_ups.find(query, session=unit.session).to_list(_BATCH)
            progress = await Progress.load(self._store, unit, {row["item_id"] for row in rows})
            for row in rows:
                item = progress.items.get(row["item_id"])
                # a repair that was revoked meanwhile has nothing to last
                if item is None or item.revoked_at is not None:
                    continue
                line = texts.follow_up_due(row["document_number"], row["days"])
                progress.change(item, "follow_up_due", line, unit.now, {"days": row["days"]})
                event = FollowUpDue(**_about(row), days=row["days"], due_on=row["due_on"], told_at=unit.now)
                unit.emit(event, cause=f"follow-up:{row['_id']}")
            await progress.save()
            writes = [UpdateOne({"_id": row["_id"]}, {"$set": {"told_at": unit.now}}) for row in rows]
            if writes:
                await self._follow_ups.bulk_write(writes, session=unit.session, ordered=False)

        await self._rows.run(ids, work)
        return len(ids) == _BATCH

    async def of_subject(self, subject_id: str) -> list[FollowUp]:
        """Those of a subject, the next due first, 200 at most."""
        return await self._page({"subject_id": subject_id})

    async def of_departments(self, codes: Sequence[str], *, failing: bool | None) -> list[FollowUp]:
        """Those of the repairs of these departments. ``failing``: only with this answer."""
        query: Document = {"department_code": {"$in": list(codes)}}
        if failing is not None:
            query["answer.failing"] = failing
        return await self._page(query)

    async def _page(self, query: Document) -> list[FollowUp]:
        cursor = self._follow_ups.find(query).sort("due_on", ASCENDING).limit(_MAX_LISTED)
        return [_follow_up(row) for row in await cursor.to_list(_MAX_LISTED)]

    async def answer(
        self, follow_up_id: str, owner: Document, answer: Answer, by: str, *, officer: bool
    ) -> FollowUp:
        """Keep an answer, once; the same again changes nothing. ``owner``: what the row has to match.

        Raises Problem: NOT_FOUND, INVALID_TRANSITION (not asked yet, or answered otherwise).
        """

        async def work(unit: UnitOfWork) -> FollowUp:
            row = await self._follow_ups.find_one({"_id": follow_up_id, **owner}, session=unit.session)
            if row is None:
                raise Problem(ProblemCode.NOT_FOUND, "没有这次回访，请刷新回访列表。")
            given = {**answer.model_dump(), "by": by, "officer": officer}
            if row["answer"] is not None:
                if {name: row["answer"][name] for name in given} == given:
                    return _follow_up(row)
                raise Problem(ProblemCode.INVALID_TRANSITION, "这次回访已有答复；情况有变请与认定单位联系。")
            if row["told_at"] is None:
                raise Problem(ProblemCode.INVALID_TRANSITION, f"回访日为{row['due_on']}，届时再答复。")
            row["answer"] = {**given, "answered_at": unit.now}
            await self._follow_ups.update_one(
                {"_id": follow_up_id}, {"$set": {"answer": row["answer"]}}, session=unit.session
            )
            progress = await Progress.load(self._store, unit, [row["item_id"]])
            line = texts.follow_up_answered(row["document_number"], row["days"], failing=answer.failing)
            item = progress.items[row["item_id"]]
            progress.change(item, "follow_up_answered", line, unit.now, {"days": row["days"]})
            await progress.save()
            event = FollowUpAnswered(
                **_about(row),
                days=row["days"],
                failing=answer.failing,
                by_officer=officer,
                answered_at=unit.now,
            )
            unit.emit(event, cause=f"follow-up-answer:{follow_up_id}")
            return _follow_up(row)

        found: FollowUp = await self._outbox.run(work)
        return found


def _about(row: Document) -> dict[str, Any]:
    return {name: row[name] for name in ("application_id", "item_id", "record_id", "subject_id")}


def _follow_up(row: Document) -> FollowUp:
    return FollowUp.model_validate({**row, "follow_up_id": row["_id"]})
