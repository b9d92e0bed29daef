"""The pages of the experts who are asked about an item."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.errors import ProblemCode
from contracts.tokens import Role
from dept_adapter import api, panels
from dept_adapter.desk import presenters
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    sessions_of,
    typed_lines,
)
from dept_adapter.desk.pages import DeskRoute, page
from dept_adapter.desk.sessions import Session
from dept_adapter.officers import (
    holds,
)

router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


@router.get("/experts")
async def expert_queue(request: Request, session: SignedIn) -> Response:
    """Items I am asked to judge, the next due first."""
    holds(session.officer, Role.EXPERT)
    cases = await panels.expert_cases(request, session.officer)
    return await page(
        request, session, "experts.html.j2", cases=cases, today=api.today(), due_of=presenters.due_words
    )


@router.get("/experts/{item_id}")
async def expert_case(request: Request, session: SignedIn, item_id: str) -> Response:
    """One of them, with the form for an opinion. Without the subject's identity."""
    return await _expert_page(request, session, item_id)


async def _expert_page(
    request: Request,
    session: Session,
    item_id: str,
    typed: Mapping[str, str] | None = None,
    trouble: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    holds(session.officer, Role.EXPERT)
    cases = await panels.expert_cases(request, session.officer)
    found = next((case for case in cases if case.item_id == item_id), None)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有请您评审的这个事项，请刷新列表。")
    catalogue: Catalogue = request.app.state.settings.catalogue
    category = catalogue.category(found.record.category)
    return await page(
        request,
        session,
        "expert.html.j2",
        status,
        case=found,
        category=category.name if category else found.record.category,
        tier=presenters.TIER_TEXT.get(found.record.tier or ""),
        due=presenters.due_words(found.due_on, api.today()),
        over=found.due_on < api.today(),
        typed=typed or {"text": "", "vote": ""},
        trouble=trouble,
    )


@router.post("/experts/{item_id}/act")
async def opine(request: Request, session: SignedIn, form: Posted, item_id: str) -> Response:
    """Give an opinion, or step back because of a conflict of interest."""
    holds(session.officer, Role.EXPERT)
    typed = typed_lines(form, "text", "vote", "do")
    try:
        if typed["do"] == "conflict":
            await panels.declare(request, session.officer, item_id, panels.Conflict(reason=typed["text"]))
            words = "已回避，将另行抽取专家。"
        else:
            opinion = panels.NewOpinion.model_validate({"vote": typed["vote"], "text": typed["text"]})
            await panels.opine(request, session.officer, item_id, opinion)
            words = "意见已提交，不能再更改。"
    except ValidationError:
        trouble = "请选择意见，并填写理由（最多 5,000 字；回避的理由最多 500 字）。"
        return await _expert_page(request, session, item_id, typed, trouble, HTTPStatus.UNPROCESSABLE_ENTITY)
    except Problem as problem:
        if problem.code is ProblemCode.NOT_FOUND:
            raise
        return await _expert_page(request, session, item_id, typed, problem.detail, problem.status)
    await sessions_of(request).notify(session, words)
    return RedirectResponse("/desk/experts", HTTPStatus.SEE_OTHER)
