"""Mandates (授权委托): a window acts for a subject, within a scope and until a day; the subject is told, and can object."""

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pymongo import ASCENDING, DESCENDING, IndexModel

from chassis.db import CollectionSpec, Database, Document
from chassis.problems import Problem
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.http.intake import Subject
from contracts.http.mandate import Agent, Mandate, MandateAct

COLLECTIONS = [
    CollectionSpec(
        "mandates",
        [
            IndexModel([("subject_id", ASCENDING), ("created_at", DESCENDING)]),
            IndexModel([("agent.code", ASCENDING), ("created_at", DESCENDING)]),
        ],
    )
]
MAX_DAYS = 366
"""Longest time of a mandate: a mandate for ever is no mandate (design, no text was read)."""
_MAX_LISTED = 200


@dataclass(frozen=True)
class NewMandate:
    """What is to be kept. ``paper``: where the signed paper is kept, when a window registers it for a subject that is not online."""

    subject: Subject
    agent: Agent
    acts: tuple[MandateAct, ...]
    valid_until: date
    registered_by: str
    paper: str | None = None


def fault(mandate: Mandate, agent: Agent, act: MandateAct | None, today: date) -> str | None:
    """Why this agent may not do this now (zh-CN); None: it may. ``act`` None: only look. Pure."""
    if mandate.agent.code != agent.code:
        return "该委托不是给本窗口的，请核对委托编号。"
    if mandate.revoked_at is not None:
        return "主体已撤销该委托，请与主体联系。"
    if today > mandate.valid_until:
        return f"该委托已于{mandate.valid_until.isoformat()}到期，请由主体重新委托后继续办理。"
    if act is not None and act not in mandate.acts:
        return f"该委托不包括“{ACT_TEXT[act]}”，请由主体自行办理或重新委托。"
    return None


ACT_TEXT = {
    MandateAct.FILE: "提交申请",
    MandateAct.SUPPLEMENT: "补正",
    MandateAct.WITHDRAW: "撤回",
    MandateAct.OBJECT: "提出异议",
}


class Mandates:
    """All mandates. A mandate is never deleted: what was done under it stays explained."""

    def __init__(self, database: Database) -> None:
        self._mandates = database.collection("mandates")

    async def add(self, new: NewMandate) -> Mandate:
        """Keep a mandate. Raises Problem VALIDATION for a day that is past or too far."""
        today = china_date(datetime.now(UTC))
        if not today <= new.valid_until or (new.valid_until - today).days > MAX_DAYS:
            reason = f"有效期应在今天至{MAX_DAYS}天之内"
            raise Problem(
                ProblemCode.VALIDATION,
                "请按 errors 中的说明更正后重新提交。",
                errors=[{"field": "valid_until", "reason": reason}],
            )
        mandate = Mandate(
            mandate_id=f"man_{uuid.uuid4().hex}",
            subject=new.subject,
            agent=new.agent,
            acts=tuple(sorted(set(new.acts))),
            valid_until=new.valid_until,
            registered_by="subject" if new.registered_by == "subject" else "agent",
            paper=new.paper,
            created_at=datetime.now(UTC),
            revoked_at=None,
        )
        row = mandate.model_dump(mode="json", exclude={"mandate_id"})
        await self._mandates.insert_one(
            {"_id": mandate.mandate_id, "subject_id": new.subject.subject_id, **row}
        )
        return mandate

    async def get(self, mandate_id: str) -> Mandate | None:
        """One mandate."""
        row = await self._mandates.find_one({"_id": mandate_id})
        return None if row is None else _mandate(row)

    async def of_subject(self, subject_id: str) -> list[Mandate]:
        """Those a subject has given, the newest first, 200 at most."""
        return await self._page({"subject_id": subject_id})

    async def of_agent(self, code: str) -> list[Mandate]:
        """Those a window has, the newest first, 200 at most."""
        return await self._page({"agent.code": code})

    async def _page(self, query: Document) -> list[Mandate]:
        cursor = self._mandates.find(query).sort("created_at", DESCENDING).limit(_MAX_LISTED)
        return [_mandate(row) for row in await cursor.to_list(_MAX_LISTED)]

    async def revoke(self, subject_id: str, mandate_id: str) -> Mandate:
        """Take a mandate back; repeating changes nothing. Raises Problem NOT_FOUND."""
        now = datetime.now(UTC).isoformat()
        query = {"_id": mandate_id, "subject_id": subject_id}
        await self._mandates.update_one({**query, "revoked_at": None}, {"$set": {"revoked_at": now}})
        row = await self._mandates.find_one(query)
        if row is None:
            raise Problem(ProblemCode.NOT_FOUND, "没有这份委托，请在“我的委托”中查看。")
        return _mandate(row)


def _mandate(row: Document) -> Mandate:
    return Mandate.model_validate({**row, "mandate_id": row["_id"]})
