"""HTTP for reminders: an officer acknowledges one, the credit centre looks at what is overdue."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, StringConstraints

from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ReminderLevel
from dept_adapter.api import Officer, find_review, position
from dept_adapter.domain import NotAllowedError
from dept_adapter.figures_api import Viewer, only_overseers
from dept_adapter.officers import only_outcome
from dept_adapter.reminders import Acknowledgement, acknowledge
from dept_adapter.states import Act
from dept_adapter.store import Reviews, entry
from dept_adapter.views import OverduePage, ReviewSummary, overdue, summary

router = APIRouter(prefix="/v1", tags=["催办"])


class AcknowledgedReminder(BaseModel):
    """Body of acknowledge-reminder: why the item is not done yet. The applicant is not told."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


@router.post("/reviews/{item_id}/acknowledge-reminder", summary="确认催办")
async def acknowledge_reminder(
    request: Request, officer: Officer, item_id: str, body: AcknowledgedReminder
) -> ReviewSummary:
    """Say why the item is not done yet: its level is reminded no more, until the next level's day.

    Repeating it changes nothing: the first reason stays. Without a reminder of what is owed now it is a 409 problem.
    """
    reviews: Reviews = request.app.state.reviews

    async def work(unit: UnitOfWork) -> None:
        stored = await find_review(request, officer, item_id, unit)
        only_outcome(stored.review, body.reason)
        seen = Acknowledgement(officer.sub, body.reason, unit.now)
        try:
            reminders = acknowledge(stored.review, stored.reminders, seen)
        except NotAllowedError as error:
            raise Problem(ProblemCode.INVALID_TRANSITION, str(error)) from None
        if reminders != stored.reminders:
            noted = entry(
                unit.now, stored.review.state, officer.sub, f"已知悉催办：{body.reason}", Act.ACKNOWLEDGE
            )
            await reviews.owed.save_reminders({item_id: (stored.review, reminders)}, unit.session, noted)

    await request.app.state.runtime.outbox.run(work)
    return summary(await find_review(request, officer, item_id))


@router.get("/overdue", summary="超期事项")
async def list_overdue(
    request: Request,
    viewer: Viewer,
    level: Annotated[ReminderLevel | None, Query(description="催办已到的层级；不填为全部")] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OverduePage:
    """全部所接部门超期未办的事项，最久的在前，只有编号和期限，不含记录内容。需要督办角色（supervisor）或运维权限。"""
    only_overseers(viewer)
    reviews: Reviews = request.app.state.reviews
    codes = list(request.app.state.departments)
    found = await reviews.overdue_page(codes, level, position(after), limit)
    today = china_date(datetime.now(UTC))
    last = found[-1].review if len(found) == limit else None
    return OverduePage(
        reviews=[overdue(stored, today) for stored in found],
        next=f"{last.overdue_told}~{last.item_id}" if last else None,
    )
