"""HTTP for officers: the review desk as an API. Scope ``desk``; ``departments`` say whose reviews are theirs, ``roles`` what they may do.

Where a department asks for four eyes, a decision is only proposed: the answer has it as ``proposal``, until another officer
confirms it or sends it back.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints, model_validator

from chassis.auth import require
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department, add_months
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import FalseMaterial
from contracts.http.intake import Case
from contracts.records import DepartmentRef, MaterialId
from contracts.tokens import Claims, Scope
from dept_adapter.intake_side import AWAY, looked_up
from dept_adapter.kinds.channels import Channels
from dept_adapter.kinds.port import Kind
from dept_adapter.materials import FILE, commitment_response, material_response
from dept_adapter.officers import Officers, Order, own
from dept_adapter.states import Action, State
from dept_adapter.store import Reviews, StoredReview
from dept_adapter.views import (
    DepartmentView,
    RefusedDecisionView,
    ReviewDetail,
    ReviewPage,
    ReviewSummary,
    detail,
    summary,
)

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


class FalseMaterialFinding(BaseModel):
    """A finding of false material: which materials of the application, or its statement; for how many years the subject is barred.

    ``block_years``: the officer states it, 0 for none. The catalogue's proposal is ``false_material_default_years`` of the review.
    """

    material_ids: Annotated[list[MaterialId], Field(max_length=3)] = []
    statement: bool = False
    block_years: int = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.material_ids and not self.statement:
            raise ValueError("请指明哪些材料（material_ids）虚假，或情况说明（statement）虚假")
        return self


class Condemned(Reasoned):
    """Body of refuse and revoke. ``false_material``: every other item that rests on the same is dealt with too."""

    false_material: FalseMaterialFinding | None = None


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
    kinds: Mapping[str, Kind] = request.app.state.kinds
    channels: Channels = request.app.state.channels
    refused = await channels.refused_counts([d.slug for d in departments.values()])
    healths = {code: kind.health() for code, kind in kinds.items()}
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
                "breaker": healths[d.code].breaker if d.code in healths else None,
                "problem": healths[d.code].problem if d.code in healths else None,
                "refused": refused.get(d.slug, 0),
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
    served(request, officer, code)
    reviews: Reviews = request.app.state.reviews
    found = await reviews.page(code, state, position(after), limit, to_spot_check=to_spot_check)
    last = found[-1].review if len(found) == limit else None
    return ReviewPage(
        reviews=[summary(stored) for stored in found],
        next=f"{last.decide_due_on.isoformat()}~{last.item_id}" if last else None,
    )


@router.get("/departments/{code}/refused-decisions", summary="部门系统所报而未生效的")
async def list_refused_decisions(
    request: Request, officer: Officer, code: str, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[RefusedDecisionView]:
    """What its system said in answers to polling or in files and what could not take effect, the newest first."""
    department = served(request, officer, code)
    channels: Channels = request.app.state.channels
    found = await channels.refused_lately(department.slug, limit)
    return [RefusedDecisionView.model_validate(document) for document in found]


@router.get("/reviews/{item_id}", summary="事项详情")
async def show_review(request: Request, officer: Officer, item_id: str) -> ReviewDetail:
    """With the applicant's side of it, as long as intake answers."""
    stored = await find_review(request, officer, item_id)
    cases: CaseDirectory = request.app.state.cases
    application_id = stored.review.application_id
    shown = detail(stored)
    proposed = request.app.state.settings.catalogue.false_material_rule(today())
    shown.false_material_default_years = proposed.block_years if proposed else None
    if stored.review.record.in_person:
        rule = request.app.state.settings.catalogue.in_person_rule(stored.review.record, today())
        shown.case_note = f"该事项不经平台办理，这里没有申请内容。{rule.handover}"
        return shown
    shown.case, shown.case_note = await application_case(cases, application_id)
    return shown


async def application_case(cases: CaseDirectory, application_id: str) -> tuple[Case | None, str | None]:
    """The applicant's side of it, or why (zh-CN) it cannot be shown."""
    unknown = "受理端查无该申请，请联系平台管理员核实。"
    return await looked_up(cases.cases([application_id]), application_id, what="申请人信息", unknown=unknown)


@router.get(
    "/reviews/{item_id}/materials/{material_id}",
    summary="查看材料",
    response_class=StreamingResponse,
    responses=FILE,
)
async def show_material(
    request: Request, officer: Officer, item_id: str, material_id: str
) -> StreamingResponse:
    """The content of a material of this item's application, to be looked at in place; nothing in it is run."""
    stored = await find_review(request, officer, item_id)
    return await material_response(request.app.state.cases, stored.review.application_id, material_id)


@router.get(
    "/reviews/{item_id}/commitment",
    summary="查看承诺书",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def show_commitment(request: Request, officer: Officer, item_id: str) -> StreamingResponse:
    """The applicant's 信用信息修复承诺书 as PDF; when it was confirmed, and its hash, stand in the case."""
    stored = await find_review(request, officer, item_id)
    return await commitment_response(request.app.state.cases, stored.review.application_id)


@router.post("/reviews/{item_id}/accept", summary="受理")
async def accept_review(
    request: Request, officer: Officer, item_id: str, body: Acceptance | None = None
) -> ReviewSummary:
    """Accept the application for this record. Repeating it, also after the decision, changes nothing."""
    return await _act(request, officer, item_id, Order(Action.ACCEPT, text=body.text if body else None))


@router.post("/reviews/{item_id}/not-accept", summary="不予受理")
async def not_accept_review(
    request: Request, officer: Officer, item_id: str, body: Reasoned
) -> ReviewSummary:
    """Do not accept the application for this record: the item ends. Repeating it changes nothing; after an acceptance, a 409."""
    return await _act(request, officer, item_id, Order(Action.NOT_ACCEPT, reason=body.reason))


@router.post("/reviews/{item_id}/request-supplement", summary="一次性告知补正")
async def request_supplement(
    request: Request, officer: Officer, item_id: str, body: SupplementDemand
) -> ReviewSummary:
    """Ask the applicant for everything that is missing, once and before the acceptance; the clocks stand still meanwhile.

    Repeating it changes nothing; asking for something else afterwards is a 409 problem.
    """
    return await _act(
        request, officer, item_id, Order(Action.REQUEST_SUPPLEMENT, missing=tuple(body.missing))
    )


@router.post("/reviews/{item_id}/extend", summary="延期")
async def extend_review(request: Request, officer: Officer, item_id: str, body: Reasoned) -> ReviewSummary:
    """Put the decision off by the working days the rules allow: once, before it is due. Otherwise it is a 409 problem."""
    return await _act(request, officer, item_id, Order(Action.EXTEND, reason=body.reason))


@router.post("/reviews/{item_id}/grant", summary="准予修复")
async def grant_review(
    request: Request, officer: Officer, item_id: str, body: Grant | None = None
) -> ReviewSummary:
    """Grant the repair. Repeating it changes nothing; after a refusal, or with another number, it is a 409 problem."""
    body = body or Grant()
    order = Order(Action.GRANT, number=body.decision_number, text=body.text)
    return await _act(request, officer, item_id, order)


@router.post("/reviews/{item_id}/refuse", summary="不予修复")
async def refuse_review(request: Request, officer: Officer, item_id: str, body: Condemned) -> ReviewSummary:
    """Refuse the repair. Repeating it changes nothing (the first reason stays); after a grant it is a 409 problem.

    With a finding of false material: see revoke.
    """
    return await _condemn(request, officer, item_id, Action.REFUSE, body)


@router.post("/reviews/{item_id}/revoke", summary="撤销修复")
async def revoke_review(request: Request, officer: Officer, item_id: str, body: Condemned) -> ReviewSummary:
    """Revoke a repair that was granted: every target shows the record again.

    Repeating it changes nothing (the first reason stays); without a grant it is a 409 problem. With a finding of false material all
    other items granted on it are revoked, open ones are shown with a warning, and the subject is barred for the years stated.
    """
    return await _condemn(request, officer, item_id, Action.REVOKE, body)


@router.post("/reviews/{item_id}/spot-check", summary="抽查自动通过的事项")
async def spot_check_review(
    request: Request, officer: Officer, item_id: str, body: SpotCheck
) -> ReviewSummary:
    """Keep what was found of an automatic decision that was drawn, once. A wrong one is then revoked (``revoke``)."""
    officers: Officers = request.app.state.officers
    await officers.spot_check(officer, item_id, body.finding, body.note)
    return summary(await officers.find(officer, item_id))


@router.post("/reviews/{item_id}/confirm", summary="复核通过")
async def confirm_review(request: Request, officer: Officer, item_id: str) -> ReviewSummary:
    """Make the decision that another officer proposed (role ``approver``). Repeating it changes nothing."""
    officers: Officers = request.app.state.officers
    await officers.confirm(officer, item_id)
    return summary(await officers.find(officer, item_id))


@router.post("/reviews/{item_id}/send-back", summary="复核退回")
async def send_back_review(request: Request, officer: Officer, item_id: str, body: Reasoned) -> ReviewSummary:
    """Give a proposed decision back to its officer (role ``approver``; whoever proposed it may take it back)."""
    officers: Officers = request.app.state.officers
    await officers.send_back(officer, item_id, body.reason)
    return summary(await officers.find(officer, item_id))


async def _condemn(
    request: Request, officer: Claims, item_id: str, action: Action, body: Condemned
) -> ReviewSummary:
    """The materials named have to be those of the application: intake is asked before anything is decided."""
    found = body.false_material
    if found is None:
        return await _act(request, officer, item_id, Order(action, reason=body.reason))
    stored = await find_review(request, officer, item_id)
    cases: CaseDirectory = request.app.state.cases
    application_id = stored.review.application_id
    try:
        case = (await cases.cases([application_id])).get(application_id)
    except AWAY:
        raise Problem(ProblemCode.UNAVAILABLE, "受理端未应答，无法核对材料编号，请稍后重试。") from None
    known = {material.material_id for material in case.materials} if case else set()
    if unknown := sorted(set(found.material_ids) - known):
        detail = "所指材料中有不属于该申请的，请按事项详情中的材料编号更正后重新提交。"
        raise Problem(ProblemCode.UNKNOWN_MATERIAL, detail, material_ids=unknown)
    until = add_months(today(), 12 * found.block_years) if found.block_years else None
    false_material = FalseMaterial(
        material_ids=tuple(sorted(set(found.material_ids))),
        statement=found.statement,
        block_years=found.block_years,
        blocked_until=until,
    )
    return await _act(
        request, officer, item_id, Order(action, reason=body.reason, false_material=false_material)
    )


async def _act(request: Request, officer: Claims, item_id: str, order: Order) -> ReviewSummary:
    officers: Officers = request.app.state.officers
    await officers.act(officer, item_id, order)
    return summary(await officers.find(officer, item_id))


def served(request: Request, officer: Claims, code: str) -> Department:
    """One of the officer's departments, at this process. Raises Problem: WRONG_DEPARTMENT, NOT_FOUND."""
    own(officer, code)
    department: Department | None = request.app.state.departments.get(code)
    if department is None:
        raise Problem(ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门，请核对后重试。")
    return department


def today() -> date:
    """The day in China."""
    return china_date(datetime.now(UTC))


async def find_review(
    request: Request, officer: Claims, item_id: str, unit: UnitOfWork | None = None
) -> StoredReview:
    """A review of one of the officer's departments. Raises Problem: UNKNOWN_ITEM, WRONG_DEPARTMENT."""
    officers: Officers = request.app.state.officers
    return await officers.find(officer, item_id, unit.session if unit else None)


def position(after: str | None) -> tuple[date, str] | None:
    """(day, id) of a page's ``next``. Raises Problem VALIDATION."""
    if after is None:
        return None
    day, _, item_id = after.partition("~")
    try:
        return date.fromisoformat(day), item_id
    except ValueError:
        raise Problem(
            ProblemCode.VALIDATION, "after 应为上一页返回的 next，请原样传回或从第一页重新查询。"
        ) from None
