"""What dept-adapter promises about decisions, checked against what it emitted; and where its items stand."""

import json
from typing import Any

from fastapi import APIRouter, Request

from chassis.db import Database, Document
from chassis.invariants import Findings, Invariant, Operator, pages
from contracts.events import RepairGranted, RepairRecognised, RepairRefused, RepairRevoked
from contracts.http.verification import ItemQuestion, ItemStanding, ItemStandings
from contracts.topics import DECISIONS
from dept_adapter.states import ENDED, OBJECTION_ENDED, ObjectionState, State

_DECIDED = {
    RepairGranted.TYPE: ({State.GRANTED, State.REVOKED}, "decision"),
    RepairRecognised.TYPE: ({State.RECOGNISED, State.REVOKED}, "decision"),
    RepairRefused.TYPE: ({State.REFUSED}, "decision"),
    RepairRevoked.TYPE: ({State.REVOKED}, "revocation"),
}
"""Type of a decision -> states of a review that agree with it, and where its number is. A grant may be followed by a revocation."""


def decision_fault(event_type: str, number: str, review: Document | None) -> str | None:
    """How a decision that was emitted contradicts the review it is about; None: not at all. Pure.

    There is one review for an item, so two decisions that differ cannot both agree with it, unless an upheld objection overturned
    the first.
    """
    if review is None:
        return f"已发出决定“{number}”，但没有这一事项"
    if number in review.get("overturned", ()):
        return None
    states, field = _DECIDED[event_type]
    made = review.get(field)
    if review["state"] not in states or made is None or made["number"] != number:
        own = made["number"] if made else "无"
        return f"已发出的决定（{event_type}，{number}）与审核记录（{review['state']}，{own}）不一致"
    return None


def objection_fault(row: Document) -> str | None:
    """What is wrong with an objection; None: nothing. Pure."""
    state, upheld = ObjectionState(row["state"]), row["state"] == ObjectionState.UPHELD
    if state is ObjectionState.WITHDRAWN:
        return "已撤回，却有结果" if row["decided_at"] else None
    if state in OBJECTION_ENDED:
        if not row["reason"] or not row["decided_at"]:
            return f"已有结果（{state.value}），但没有理由或时间"
        if upheld != (row["remedy"] is not None):
            return f"结果为 {state.value}，处理为 {row['remedy']}"
        return None
    due = row["accept_due_on"] if state is ObjectionState.RECEIVED else row["decide_due_on"]
    if not due or not row["department"]["name"] or row["deadline_on"] not in (due, None):
        return f"状态“{state.value}”，没有在等待有名有期限的一方"
    if row["deadline_on"] is None and row["overdue_told"] != due and not row["missing_year"]:
        return f"期限 {due} 届满时不会被发现"
    return None


class _Checks:
    def __init__(self, database: Database) -> None:
        self._objections = database.collection("objections")
        self._outbox = database.collection("outbox")
        self._reviews = database.collection("reviews")

    async def decided_once(self, findings: Findings) -> None:
        """Events first, reviews after: a review read later is never behind the event."""
        emitted = {"topic": DECISIONS.name, "headers.ce_type": {"$in": list(_DECIDED)}}
        async for page in pages(self._outbox, emitted, {"key": 1, "headers.ce_type": 1, "value": 1}):
            keys = {row["key"] for row in page}
            fields = {"state": 1, "decision": 1, "revocation": 1, "overturned": 1}
            found = self._reviews.find({"_id": {"$in": list(keys)}}, fields)
            reviews = {review["_id"]: review async for review in found}
            for row in page:
                findings.checked += 1
                fault = decision_fault(row["headers"]["ce_type"], _number(row), reviews.get(row["key"]))
                if fault:
                    findings.violated(row["key"], fault)
        pipeline: list[Document] = [
            {"$match": emitted},
            {"$group": {"_id": {"key": "$key", "type": "$headers.ce_type"}, "times": {"$sum": 1}}},
            {"$match": {"times": {"$gt": 1}}},
        ]
        async for row in self._outbox.aggregate(pipeline, allowDiskUse=True):
            # rare: only what was reopened is decided more than once
            review = await self._reviews.find_one({"_id": row["_id"]["key"]}, {"round": 1})
            if row["times"] > 1 + (review or {}).get("round", 0):
                findings.violated(row["_id"]["key"], f"{row['_id']['type']} 发出了 {row['times']} 次")

    async def objections_end_or_wait(self, findings: Findings) -> None:
        """An objection that is open has a department and a day; one that ended says why, and an upheld one what followed."""
        async for page in pages(self._objections, {}, {}):
            for row in page:
                findings.checked += 1
                findings.counts[row["state"]] += 1
                if fault := objection_fault(row):
                    findings.violated(row["_id"], fault)


def _number(row: Document) -> str:
    try:
        return str(json.loads(bytes(row["value"]))["decision_number"])
    except (KeyError, TypeError, ValueError):
        return ""


def invariants(database: Database) -> list[Invariant]:
    """Those of dept-adapter."""
    title = "没有事项被先后作出不同的决定（准予后撤销、异议成立后重新办理除外），审核记录与已发出的决定一致"
    checks = _Checks(database)
    return [
        Invariant("decided-once", title, checks.decided_once),
        Invariant(
            "objection-ends-or-waits",
            "每件异议都已有结果，或在等待有名有期限的认定单位",
            checks.objections_end_or_wait,
        ),
    ]


router = APIRouter(prefix="/v1/operations", tags=["运维：不变量"])


def _standing(review: Document) -> ItemStanding:
    state = State(review["state"])
    made: Any = review.get("revocation") if state is State.REVOKED else review["decision"]
    return ItemStanding(
        item_id=review["_id"],
        application_id=review["application_id"],
        record_id=review["record_id"],
        status=state.value,
        department=review["department"]["code"],
        decision=state.value if state in ENDED else None,
        decision_number=made["number"] if made else None,
    )


@router.post("/items/lookup", summary="若干事项的现状")
async def lookup_items(request: Request, _operator: Operator, question: ItemQuestion) -> ItemStandings:
    """Where these items stand."""
    reviews = request.app.state.runtime.database.collection("reviews")
    found = await reviews.find({"_id": {"$in": question.item_ids}}).to_list(None)
    return ItemStandings(items=[_standing(review) for review in found])
