"""The pages that list items at the review desk: my queue, several at once, search."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.identifiers import normalise_document_number, normalise_uscc
from contracts.records import SubjectType
from contracts.tokens import Claims, Role
from dept_adapter import api
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    codes_of,
    link_to,
    officers_of,
    own_departments,
    position_of,
    reviews_of,
    subjects_of,
    version_of,
)
from dept_adapter.desk.pages import DeskRoute, page
from dept_adapter.desk.texts import VIEW_TEXT
from dept_adapter.intake_side import AWAY
from dept_adapter.officers import (
    BULK,
    Effect,
    Officers,
    Order,
    StaleError,
    holds,
)
from dept_adapter.states import ACTION_TEXT, Action
from dept_adapter.store import View, position

log = get_logger(__name__)
_MAX_BULK = 200


router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


@router.get("/queue")
async def queue(
    request: Request,
    session: SignedIn,
    view: View = View.TODO,
    department: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Items of my departments, what is due first comes first."""
    codes = codes_of(request, session.officer, department)
    reviews, today, query = reviews_of(request), api.today(), q.strip()
    note: str | None = None
    narrowed: dict[str, Any] | None = None
    if query:
        narrowed, note = await _search(request, codes, query)
        view = view if "view" in request.query_params else View.ALL
    limit = request.app.state.settings.desk_page_items
    found = await reviews.queue(
        codes, view, today, narrowed=narrowed, after=position_of(after), limit=limit + 1
    )
    more = len(found) > limit
    found = found[:limit]
    subjects, told = await subjects_of(request, [stored.review.subject_id for stored in found])
    catalogue: Catalogue = request.app.state.settings.catalogue
    rows = [presenters.row(stored, subjects, catalogue, today) for stored in found]
    return await page(
        request,
        session,
        "queue.html.j2",
        rows=rows,
        view=view,
        views=VIEW_TEXT,
        counts=await reviews.views(codes, today),
        departments=own_departments(request, session.officer),
        department=department,
        q=query,
        note=note or told,
        after=after,
        next="~".join(position(view, found[-1].review)) if more else None,
        link=lambda **changes: link_to(
            "/desk/queue", {"view": view.value, "department": department, "q": query} | changes
        ),
        bulk=[
            (action, ACTION_TEXT[action], len(presenters.may_bulk(rows, action)))
            for action in sorted(BULK, reverse=True)
        ]
        if session.officer.holds(Role.OFFICER)
        else [],
        today=today,
    )


@router.post("/queue/bulk")
async def bulk(request: Request, session: SignedIn, form: Posted) -> Response:
    """Do one thing to many items, of which every check has passed; first shown, then done. Each item stands for itself."""
    holds(session.officer, Role.OFFICER)
    action = Action(str(form.get("action", "")))
    chosen = [str(value).partition("~") for value in form.getlist("item")][:_MAX_BULK]
    officers = officers_of(request)
    lines: list[dict[str, Any]] = []
    stored_of = {
        stored.review.item_id: stored
        for stored in await reviews_of(request).where({"_id": {"$in": [item_id for item_id, _, _ in chosen]}})
        if stored.review.department.code in session.officer.departments
    }
    subjects, note = await subjects_of(request, [stored.review.subject_id for stored in stored_of.values()])
    catalogue: Catalogue = request.app.state.settings.catalogue
    confirmed = form.get("confirmed") == "yes"
    for item_id, _, seen in chosen:
        if item_id not in stored_of:
            continue
        row = presenters.row(stored_of[item_id], subjects, catalogue, api.today())
        line: dict[str, Any] = {
            "row": row,
            "seen": seen,
            "result": None,
            "ok": bool(presenters.may_bulk([row], action)),
        }
        if not line["ok"]:
            line["result"] = "核验没有全部通过，或者当前状态不能办理，请逐件审核"
        if confirmed:
            line["ok"], line["result"] = await _one_of_bulk(officers, session.officer, item_id, action, seen)
        lines.append(line)
    return await page(
        request,
        session,
        "bulk.html.j2",
        action=action,
        action_text=ACTION_TEXT[action],
        lines=lines,
        confirmed=confirmed,
        note=note,
        view=str(form.get("view", View.TODO.value)),
    )


async def _one_of_bulk(
    officers: Officers, officer: Claims, item_id: str, action: Action, seen: str
) -> tuple[bool, str]:
    try:
        effect = await officers.act(officer, item_id, Order(action), seen=version_of(seen), bulk=True)
    except StaleError:
        return False, "在您查看之后已有人办理，请打开后查看"
    except Problem as problem:
        return False, problem.detail
    words = {
        Effect.DONE: f"已{ACTION_TEXT[action]}",
        Effect.REPEATED: "此前已办理，没有重复生效",
        Effect.PROPOSED: "已提请复核",
    }
    return True, words[effect]


async def _search(request: Request, codes: list[str], query: str) -> tuple[dict[str, Any], str | None]:
    """What narrows a list to a 文号 (its beginning will do), an item id, a code, or part of a subject's name; and what to say of it."""
    number = normalise_document_number(query)
    ways: list[dict[str, Any]] = [
        {"_id": query},
        {"record.document_number": {"$regex": "^" + re.escape(number)}},
    ]
    cases: CaseDirectory = request.app.state.cases
    note: str | None = None
    try:
        try:
            code = normalise_uscc(query)
        except ValueError:
            limit = request.app.state.settings.desk_search_subjects
            known = await reviews_of(request).subjects(codes, limit)
            named = await cases.subjects(known) if known else {}
            ways.append({"subject_id": {"$in": [id_ for id_, s in named.items() if query in s.name]}})
            if len(known) == limit:
                note = f"名称只在最近办理的 {limit} 个主体中查找；找不到时请用文号或统一社会信用代码查询。"
        else:
            kinds = (SubjectType.LEGAL_PERSON, SubjectType.SOLE_TRADER)
            ways.append({"subject_id": {"$in": [await cases.identify(kind, code) for kind in kinds]}})
    except AWAY as error:
        log.warning("intake does not answer", error=type(error).__name__)
        note = "受理端未应答，暂时只能按文号和事项编号查询，请稍后再按主体查询。"
    return {"$or": ways}, note
