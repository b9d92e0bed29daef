"""HTTP for officers: the review desk. Scope ``desk``; the token's ``departments`` say whose reviews are theirs."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from aiohttp import ClientError
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints

from chassis.auth import require
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.records import DepartmentRef
from contracts.tokens import Claims, Scope
from dept_adapter.decisions import apply
from dept_adapter.domain import Command, decision_number
from dept_adapter.materials import material_response
from dept_adapter.push import Pusher
from dept_adapter.states import Action, State, changed_by
from dept_adapter.store import Reviews, StoredReview
from dept_adapter.verifier import spot_check
from dept_adapter.views import DepartmentView, ReviewDetail, ReviewPage, ReviewSummary, detail, summary

log = get_logger(__name__)
router = APIRouter(prefix="/v1", tags=["审核工作台"])
Officer = Annotated[Claims, Depends(require(Scope.DESK))]


LetterText = Annotated[
    str | None,
    Field(
        max_length=2000, description="The officer's words in the letter; without them those of its template"
    ),
    StringConstraints(strip_whitespace=True, min_length=1),
]


class Grant(BaseModel):
    """Body of grant. Without a number the desk gives the next of the department and year."""

    decision_number: Annotated[
        str | None, Field(max_length=128), StringConstraints(strip_whitespace=True, min_length=1)
    ] = None
    text: LetterText = None


class Acceptance(BaseModel):
    """Body of accept, when the letter is to say something else than its template."""

    text: LetterText = None


class Reasoned(BaseModel):
    """Body of what needs a reason, which the applicant is told."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class SupplementDemand(BaseModel):
    """Body of request-supplement: everything that is missing, at once. The applicant is told each line."""

    missing: Annotated[
        list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]],
        Field(min_length=1, max_length=20),
    ]


class SpotCheck(BaseModel):
    """Body of spot-check: whether the automatic decision was right, and what that rests on."""

    finding: Literal["confirmed", "wrong"]
    note: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


@router.get("/departments", summary="本服务所接部门")
async def list_departments(request: Request, _officer: Officer) -> list[DepartmentView]:
    """The served departments with the number of their reviews by state."""
    departments: Mapping[str, Department] = request.app.state.departments
    pushers: Mapping[str, Pusher] = request.app.state.pushers
    reviews: Reviews = request.app.state.reviews
    counts: dict[str, dict[State, int]] = defaultdict(dict)
    for (code, state), number in (await reviews.counts(list(departments))).items():
        counts[code][state] = number
    return [
        DepartmentView.model_validate(
            {
                "department": DepartmentRef(code=d.code, slug=d.slug, name=d.name),
                "mode": d.mode,
                "reviews": counts[d.code],
                "breaker": pushers[d.code].breaker_state().value if d.code in pushers else None,
            }
        )
        for d in departments.values()
    ]


@router.get("/departments/{code}/reviews", summary="部门的待审事项")
async def list_reviews(
    request: Request,
    officer: Officer,
    code: str,
    state: State | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    to_spot_check: bool = False,
) -> ReviewPage:
    """In order of the day by which the department has to decide. ``to_spot_check``: automatic decisions drawn for a look."""
    _own(officer, code)
    if code not in request.app.state.departments:
        raise Problem(ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门，请核对后重试。")
    reviews: Reviews = request.app.state.reviews
    found = await reviews.page(code, state, _position(after), limit, to_spot_check=to_spot_check)
    last = found[-1].review if len(found) == limit else None
    return ReviewPage(
        reviews=[summary(stored) for stored in found],
        next=f"{last.decide_due_on.isoformat()}~{last.item_id}" if last else None,
    )


@router.get("/reviews/{item_id}", summary="事项详情")
async def show_review(request: Request, officer: Officer, item_id: str) -> ReviewDetail:
    """With the applicant's side of it, as long as intake answers."""
    stored = await find_review(request, officer, item_id)
    cases: CaseDirectory = request.app.state.cases
    application_id = stored.review.application_id
    shown = detail(stored)
    try:
        shown.case = (await cases.cases([application_id])).get(application_id)
    except (ClientError, TimeoutError, OSError, ValueError) as error:
        log.warning("intake does not answer", error=f"{type(error).__name__}: {error}"[:300])
        shown.case_note = "申请人信息暂时无法读取（受理端未应答），请稍后刷新；不影响查看其他内容。"
    else:
        if shown.case is None:
            shown.case_note = "受理端查无该申请，请联系平台管理员核实。"
    return shown


@router.get(
    "/reviews/{item_id}/materials/{material_id}",
    summary="查看材料",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def show_material(
    request: Request, officer: Officer, item_id: str, material_id: str
) -> StreamingResponse:
    """The content of a material of this item's application, to be looked at in place; nothing in it is run."""
    stored = await find_review(request, officer, item_id)
    return await material_response(request.app.state.cases, stored.review.application_id, material_id)


@router.post("/reviews/{item_id}/accept", summary="受理")
async def accept_review(
    request: Request, officer: Officer, item_id: str, body: Acceptance | None = None
) -> ReviewSummary:
    """Accept the application for this record. Repeating it, also after the decision, changes nothing."""
    return await _command(request, officer, item_id, Action.ACCEPT, text=body.text if body else None)


@router.post("/reviews/{item_id}/not-accept", summary="不予受理")
async def not_accept_review(
    request: Request, officer: Officer, item_id: str, body: Reasoned
) -> ReviewSummary:
    """Do not accept the application for this record: the item ends. Repeating it changes nothing; after an acceptance, a 409."""
    return await _command(request, officer, item_id, Action.NOT_ACCEPT, reason=body.reason)


@router.post("/reviews/{item_id}/request-supplement", summary="一次性告知补正")
async def request_supplement(
    request: Request, officer: Officer, item_id: str, body: SupplementDemand
) -> ReviewSummary:
    """Ask the applicant for everything that is missing, once and before the acceptance; the clocks stand still meanwhile.

    Repeating it changes nothing; asking for something else afterwards is a 409 problem.
    """
    return await _command(request, officer, item_id, Action.REQUEST_SUPPLEMENT, missing=tuple(body.missing))


@router.post("/reviews/{item_id}/extend", summary="延期")
async def extend_review(request: Request, officer: Officer, item_id: str, body: Reasoned) -> ReviewSummary:
    """Put the decision off by the working days the rules allow: once, before it is due. Otherwise it is a 409 problem."""
    return await _command(request, officer, item_id, Action.EXTEND, reason=body.reason)


@router.post("/reviews/{item_id}/grant", summary="准予修复")
async def grant_review(
    request: Request, officer: Officer, item_id: str, body: Grant | None = None
) -> ReviewSummary:
    """Grant the repair. Repeating it changes nothing; after a refusal, or with another number, it is a 409 problem."""
    body = body or Grant()
    return await _command(
        request, officer, item_id, Action.GRANT, number=body.decision_number, text=body.text
    )


@router.post("/reviews/{item_id}/refuse", summary="不予修复")
async def refuse_review(request: Request, officer: Officer, item_id: str, body: Reasoned) -> ReviewSummary:
    """Refuse the repair. Repeating it changes nothing (the first reason stays); after a grant it is a 409 problem."""
    return await _command(request, officer, item_id, Action.REFUSE, reason=body.reason)


@router.post("/reviews/{item_id}/revoke", summary="撤销修复")
async def revoke_review(request: Request, officer: Officer, item_id: str, body: Reasoned) -> ReviewSummary:
    """Revoke a repair that was granted: every target shows the record again.

    Repeating it changes nothing (the first reason stays); without a grant it is a 409 problem.
    """
    return await _command(request, officer, item_id, Action.REVOKE, reason=body.reason)


@router.post("/reviews/{item_id}/spot-check", summary="抽查自动通过的事项")
async def spot_check_review(
    request: Request, officer: Officer, item_id: str, body: SpotCheck
) -> ReviewSummary:
    """Keep what was found of an automatic decision that was drawn, once. A wrong one is then revoked (``revoke``)."""
    await find_review(request, officer, item_id)
    kept = {**body.model_dump(), "by": officer.sub, "at": datetime.now(UTC)}
    if not await spot_check(request.app.state.runtime.database, item_id, kept):
        raise Problem(ProblemCode.INVALID_TRANSITION, "该事项没有被抽中，或者已经抽查过，请刷新抽查列表。")
    return summary(await find_review(request, officer, item_id))


_NUMBERED = frozenset({Action.GRANT, Action.REFUSE, Action.REVOKE})


async def _command(
    request: Request,
    officer: Claims,
    item_id: str,
    action: Action,
    *,
    number: str | None = None,
    reason: str | None = None,
    missing: tuple[str, ...] = (),
    text: str | None = None,
) -> ReviewSummary:
    reviews: Reviews = request.app.state.reviews
    departments: Mapping[str, Department] = request.app.state.departments

    async def work(unit: UnitOfWork) -> None:
        stored = await find_review(request, officer, item_id, unit)
        code = stored.review.department.code
        given = number
        if action in _NUMBERED and given is None and stored.review.state in changed_by(action):
            year = china_date(unit.now).year
            serial = await reviews.next_serial(code, year, unit.session)
            given = decision_number(departments[code].short_name, action, year, serial)
        command = Command(
            action,
            by=officer.sub,
            from_desk=True,
            number=given,
            reason=reason,
            missing=missing,
            text=text,
            supplement_working_days=request.app.state.settings.supplement_working_days,
        )
        await apply(unit, reviews, stored, command, cause=f"desk:{action.value}:{item_id}")

    await request.app.state.runtime.outbox.run(work)
    return summary(await find_review(request, officer, item_id))


async def find_review(
    request: Request, officer: Claims, item_id: str, unit: UnitOfWork | None = None
) -> StoredReview:
    """A review of a department of the officer's. Raises Problem UNKNOWN_ITEM, WRONG_DEPARTMENT."""
    stored: StoredReview | None = await request.app.state.reviews.get(item_id, unit.session if unit else None)
    if stored is None or stored.review.department.code not in request.app.state.departments:
        raise Problem(ProblemCode.UNKNOWN_ITEM, f"没有事项 {item_id}，请核对后重试。")
    _own(officer, stored.review.department.code)
    return stored


def _own(officer: Claims, department_code: str) -> None:
    if department_code not in officer.departments:
        raise Problem(
            ProblemCode.WRONG_DEPARTMENT, "您的账号不办理该部门的事项；如需办理，请联系管理员授权。"
        )


def _position(after: str | None) -> tuple[date, str] | None:
    if after is None:
        return None
    day, _, item_id = after.partition("~")
    try:
        return date.fromisoformat(day), item_id
    except ValueError:
        raise Problem(
            ProblemCode.VALIDATION, "after 应为上一页返回的 next，请原样传回或从第一页重新查询。"
        ) from None
