"""How departments work: what is overdue anywhere, for the credit centre, and figures."""

from datetime import date
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from chassis.problems import Problem
from contracts.catalogue import Catalogue, Department
from contracts.errors import ProblemCode
from contracts.tokens import Claims, Role
from dept_adapter import api, figures_api
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    SignedIn,
    own_departments,
    reader,
    reviews_of,
)
from dept_adapter.desk.pages import DeskRoute, page
from dept_adapter.objections import Objections
from dept_adapter.officers import (
    holds,
)
from dept_adapter.states import STATE_TEXT

router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


@router.get("/overdue")
async def overdue(
    request: Request, session: SignedIn, after: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """What is overdue at all departments, and how far reminders have got; without the subjects' identity."""
    holds(session.officer, Role.SUPERVISOR)
    reviews, today, served = reviews_of(request), api.today(), request.app.state.departments
    limit = request.app.state.settings.desk_page_items
    catalogue: Catalogue = request.app.state.settings.catalogue
    found = await reviews.overdue_page(list(served), None, api.position(after or None), limit + 1)
    by_department = await reviews.overdue_by_department(list(served), today)
    objections: Objections = request.app.state.objections
    objected = await objections.overdue_page(list(served), None, None, limit + 1)
    last = found[limit - 1].review if len(found) > limit else None
    return await page(
        request,
        session,
        "overdue.html.j2",
        rows=[presenters.row(stored, {}, catalogue, today) for stored in found[:limit]],
        objections=[presenters.objection_row(each, {}, catalogue, today) for each in objected[:limit]],
        more_objections=len(objected) > limit,
        after=after,
        next=f"{last.overdue_told}~{last.item_id}" if last else None,
        departments=sorted(
            ((served[code], number, oldest) for code, (number, oldest) in by_department.items()),
            key=lambda line: (-line[1], line[0].name),
        ),
        today=today,
        due_of=presenters.due_words,
        LEVEL_TEXT=presenters.LEVEL_TEXT,
    )


@router.get("/figures")
async def figures_of_mine(request: Request, session: SignedIn) -> Response:
    """To the figures of my department, or to the departments to choose from."""
    mine = _viewed_departments(request, session.officer)
    if len(mine) == 1:
        return RedirectResponse(f"/desk/departments/{mine[0].code}/figures", HTTPStatus.SEE_OTHER)
    return await page(request, session, "departments.html.j2", departments=mine)


@router.get("/departments/{code}/figures")
async def figures(
    request: Request,
    session: SignedIn,
    code: str,
    first_day: Annotated[date | None, Query(alias="from")] = None,
    last_day: Annotated[date | None, Query(alias="to")] = None,
    form: Annotated[Literal["html", "csv"], Query(alias="format")] = "html",
) -> Response:
    """A department's figures of a period."""
    department = next((d for d in _viewed_departments(request, session.officer) if d.code == code), None)
    if department is None:
        raise Problem(ProblemCode.WRONG_DEPARTMENT, "您的账号不属于该部门；如需查看，请联系管理员授权。")
    if form == "csv":
        csv = figures_api.FiguresFormat.CSV
        return await figures_api.department_figures(
            request, session.officer, code, first_day, last_day, csv, None
        )
    (found,) = await figures_api.count(request, [department], first_day, last_day)
    return await page(
        request,
        session,
        "figures.html.j2",
        figures=found,
        STATE_TEXT=STATE_TEXT,
        several=len(_viewed_departments(request, session.officer)) > 1,
    )


def _viewed_departments(request: Request, officer: Claims) -> list[Department]:
    """Whose figures somebody may see: a supervisor all, others their own."""
    if figures_api.oversees(officer):
        return list(request.app.state.departments.values())
    reader(officer)
    return own_departments(request, officer)
