"""HTTP: the human queue. Scope ``routing.assign``."""

from datetime import date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from chassis.auth import require
from chassis.db import Document
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ReferralReason
from contracts.records import DepartmentRef, RecordFacts
from contracts.tokens import Claims, Scope
from routing.domain import assign
from routing.handlers import emit_routed
from routing.store import Referrals, item_of

router = APIRouter(prefix="/v1", tags=["人工分派"])
Clerk = Annotated[Claims, Depends(require(Scope.ROUTING_ASSIGN))]


class Referral(BaseModel):
    """An item whose department a person has to name."""

    item_id: str
    application_id: str
    status: Literal["open", "assigned", "withdrawn"]
    queue_id: str
    queue_name: str
    reason_code: ReferralReason
    reason: str
    due_on: date
    overdue_told_at: datetime | None = Field(description="When it was noticed that the day had passed")
    record: RecordFacts


class ReferralPage(BaseModel):
    """Ask again with ``after`` = ``next`` while it is not null."""

    referrals: list[Referral]
    next: str | None


class Assignment(BaseModel):
    """The department named by a person."""

    department_code: str = Field(min_length=18, max_length=18)


class Assigned(BaseModel):
    """Where the item went."""

    item_id: str
    department: DepartmentRef


def _referral(document: Document) -> Referral:
    return Referral.model_validate(
        {
            **document["referred"],
            "status": document["status"],
            "record": document["record"],
            "overdue_told_at": document.get("overdue_told_at"),
        }
    )


@router.get("/referrals", summary="待人工分派的事项")
async def list_referrals(
    request: Request,
    _clerk: Clerk,
    status: Literal["open", "assigned", "withdrawn"] = "open",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ReferralPage:
    """The human queue, in order of item id."""
    referrals: Referrals = request.app.state.referrals
    found = [_referral(document) for document in await referrals.page(status, after, limit)]
    return ReferralPage(referrals=found, next=found[-1].item_id if len(found) == limit else None)


@router.post("/referrals/{item_id}/assign", summary="指定认定单位")
async def assign_referral(request: Request, item_id: str, body: Assignment, clerk: Clerk) -> Assigned:
    """Send the item to a department. Repeating the same assignment changes nothing; another one is a 409 problem."""
    catalogue: Catalogue = request.app.state.catalogue
    referrals: Referrals = request.app.state.referrals
    department = catalogue.department(body.department_code)
    if department is None:
        raise Problem(ProblemCode.NOT_FOUND, f"部门目录中没有代码 {body.department_code}，请核对后重试。")

    async def work(unit: UnitOfWork) -> Assigned:
        document = await referrals.get(item_id, unit.session)
        if document is None:
            raise Problem(ProblemCode.UNKNOWN_ITEM, f"人工分派席中没有事项 {item_id}。")
        if document["status"] == "withdrawn":
            raise Problem(ProblemCode.INVALID_TRANSITION, "申请人已撤回该事项，无需分派，请刷新列表。")
        item = item_of(document)
        if not department.in_force(china_date(unit.now)) or item.record.category not in department.categories:
            raise Problem(ProblemCode.INVALID_TRANSITION, f"“{department.name}”不认定该类记录，请另选部门。")
        result = assign(item, department, catalogue, unit.now)
        if document["status"] == "assigned":
            if document["assignment"]["department_code"] != department.code:
                raise Problem(ProblemCode.DECISION_CONFLICT, "该事项已分派给其他部门，请刷新列表。")
            return Assigned(item_id=item_id, department=result.routed.department)
        await referrals.mark_assigned(
            item_id,
            {"department_code": department.code, "by": clerk.sub, "at": unit.now},
            unit.session,
        )
        emit_routed(unit, result, cause=f"assign:{item_id}")
        return Assigned(item_id=item_id, department=result.routed.department)

    assigned: Assigned = await request.app.state.runtime.outbox.run(work)
    return assigned
