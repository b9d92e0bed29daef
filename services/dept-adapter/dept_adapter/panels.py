"""Panels of experts: documents, and HTTP for officers (scope ``desk``) and experts (scope ``expert``)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, StringConstraints
from pymongo import ASCENDING, IndexModel

from chassis.auth import require
from chassis.db import CollectionSpec, Database, Document, Session
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.records import RecordFacts
from contracts.tokens import Claims, Role, Scope
from contracts.working_days import Count, Deadline, WorkCalendar
from dept_adapter.experts import (
    Opinion,
    Panel,
    TooFewExpertsError,
    conflicts,
    draw,
    give,
    outcome,
    redraw,
)
from dept_adapter.officers import holds
from dept_adapter.states import ENDED, Act
from dept_adapter.store import Reviews

COLLECTIONS = [
    CollectionSpec(
        "panels",
        [
            IndexModel([("experts", ASCENDING), ("due_on", ASCENDING)]),
            IndexModel([("subject_id", ASCENDING)]),
        ],
    )
]
router = APIRouter(prefix="/v1", tags=["专家评审"])
Officer = Annotated[Claims, Depends(require(Scope.DESK))]
Specialist = Annotated[Claims, Depends(require(Scope.EXPERT))]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000)]
_MAX_LISTED = 200
T = TypeVar("T")


class Referral(BaseModel):
    """Body of refer-to-experts: what the panel is asked."""

    question: Text


class NewOpinion(BaseModel):
    """Body of an opinion."""

    vote: Literal["grant", "refuse"]
    text: Text


class Conflict(BaseModel):
    """Body of a declared conflict of interest."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class OpinionView(BaseModel):
    """One opinion, with the expert's name."""

    expert_id: str
    name: str
    vote: Literal["grant", "refuse"]
    text: str
    given_at: datetime


class OutcomeView(BaseModel):
    """``majority``: null when none, or too few spoke. It advises: the department decides."""

    votes: dict[str, int]
    majority: Literal["grant", "refuse"] | None
    dissent: list[OpinionView]
    silent: list[str] = Field(description="Names of those who did not speak in time")


class PanelView(BaseModel):
    """A panel as officers see it. ``excluded``: name -> why an expert was not drawn, or stepped back (zh-CN)."""

    item_id: str
    question: str
    experts: list[str]
    due_on: date
    opinions: list[OpinionView]
    excluded: dict[str, str]
    outcome: OutcomeView | None


class ExpertCase(BaseModel):
    """An item as its experts see it: the decision it is about and the question, not the subject's identity."""

    item_id: str
    question: str
    record: RecordFacts
    due_on: date
    own_vote: Literal["grant", "refuse"] | None


class Panels:
    """All panels."""

    def __init__(self, database: Database, calendar: WorkCalendar) -> None:
        self._panels = database.collection("panels")
        self._calendar = calendar

    async def get(self, item_id: str, session: Session | None = None) -> Panel | None:
        """The panel of an item."""
        row = await self._panels.find_one({"_id": item_id}, session=session)
        return None if row is None else _panel(row, self._calendar)

    async def save(self, panel: Panel, session: Session) -> None:
        """Write a panel that was made or read in this transaction."""
        await self._panels.replace_one({"_id": panel.item_id}, _row(panel), upsert=True, session=session)

    async def prior(self, subject_id: str, item_id: str, session: Session) -> set[str]:
        """Experts of other panels about the same subject."""
        query = {"subject_id": subject_id, "_id": {"$ne": item_id}}
        cursor = self._panels.find(query, {"experts": 1}, session=session)
        return {id_ async for row in cursor for id_ in row["experts"]}

    async def of_expert(self, expert_id: str) -> list[Panel]:
        """Where this expert sits, the next due first, 200 at most."""
        cursor = self._panels.find({"experts": expert_id}).sort("due_on", ASCENDING).limit(_MAX_LISTED)
        return [_panel(row, self._calendar) for row in await cursor.to_list(_MAX_LISTED)]


def _row(panel: Panel) -> Document:
    return {
        **asdict(panel),
        "_id": panel.item_id,
        "experts": list(panel.experts),
        "due_on": panel.due_on.isoformat(),
        "count": panel.count and {**asdict(panel.count), "start": panel.count.start.isoformat()},
        "opinions": [asdict(opinion) for opinion in panel.opinions],
        "excluded": dict(panel.excluded),
    }


def _panel(row: Document, calendar: WorkCalendar) -> Panel:
    """A provisional day is counted again when it is read: nobody waits for being told of it."""
    count, due_on = row["count"], date.fromisoformat(row["due_on"])
    if count is not None:
        counted = Count(**{**count, "start": date.fromisoformat(count["start"])})
        due = calendar.again(Deadline(due_on, counted))
        due_on, count = due.on, due.count
    known = {name: value for name, value in row.items() if name != "_id"}
    return Panel(
        **{
            **known,
            "experts": tuple(row["experts"]),
            "due_on": due_on,
            "count": count,
            "opinions": tuple(Opinion(**opinion) for opinion in row["opinions"]),
        }
    )


# --- officers


@router.post("/reviews/{item_id}/refer-to-experts", status_code=201, summary="提交专家评审")
async def refer(request: Request, officer: Officer, item_id: str, body: Referral) -> PanelView:
    """Draw a panel for a complex or disputed item. Repeating it changes nothing; the review goes on, its deadlines too."""
    panel = await referred(request, officer, item_id, body.question)
    return panel_view(panel, request.app.state.settings.catalogue)


async def referred(request: Request, officer: Claims, item_id: str, question: str) -> Panel:
    """The panel of an item: drawn now, or before. Raises Problem."""
    state = request.app.state
    catalogue: Catalogue = state.settings.catalogue
    panels: Panels = state.panels
    reviews: Reviews = state.reviews
    holds(officer, Role.OFFICER)

    async def work(unit: UnitOfWork) -> Panel:
        stored = await state.officers.find(officer, item_id, unit.session)
        known = await panels.get(item_id, unit.session)
        if known is not None:
            return known
        review = stored.review
        if review.state in ENDED:
            raise Problem(ProblemCode.INVALID_TRANSITION, "该事项已经办结，不再提交专家评审。")
        if review.record.in_person:
            raise Problem(ProblemCode.INVALID_TRANSITION, "该事项不经平台办理，不能提交专家评审。")
        prior = await panels.prior(review.subject_id, item_id, unit.session)
        excluded = conflicts(catalogue.experts, review.department.code, prior, {})
        settings = state.settings
        due = catalogue.calendar.working_days_after(china_date(unit.now), settings.panel_working_days)
        panel = Panel(
            item_id=item_id,
            department_code=review.department.code,
            subject_id=review.subject_id,
            question=question,
            referred_by=officer.sub,
            experts=_drawn(lambda: draw(catalogue.experts, excluded, settings.panel_size, item_id)),
            due_on=due.on,
            count=due.count,
            referred_at=unit.now,
            excluded=excluded,
        )
        await panels.save(panel, unit.session)
        await reviews.note(item_id, review.state, Act.REFER, officer.sub, question, unit.now, unit.session)
        return panel

    panel: Panel = await state.runtime.outbox.run(work)
    return panel


@router.get("/reviews/{item_id}/panel", summary="专家评审的情况")
async def show(request: Request, officer: Officer, item_id: str) -> PanelView:
    """Opinions so far; the outcome once everybody has spoken or the day is over."""
    await request.app.state.officers.find(officer, item_id)
    panel = await request.app.state.panels.get(item_id)
    if panel is None:
        raise Problem(ProblemCode.NOT_FOUND, "该事项没有提交专家评审。")
    return panel_view(panel, request.app.state.settings.catalogue)


# --- experts


@router.get("/experts/me/cases", summary="请我评审的事项")
async def my_cases(request: Request, expert: Specialist) -> list[ExpertCase]:
    """The next due first. Without the subject's identity: the panel judges the matter."""
    return await expert_cases(request, expert)


async def expert_cases(request: Request, expert: Claims) -> list[ExpertCase]:
    """Where this expert sits."""
    panels: list[Panel] = await request.app.state.panels.of_expert(expert.sub)
    reviews: Reviews = request.app.state.reviews
    found = {
        stored.review.item_id: stored.review
        for stored in await reviews.where({"_id": {"$in": [panel.item_id for panel in panels]}})
    }
    return [
        ExpertCase(
            item_id=panel.item_id,
            question=panel.question,
            record=found[panel.item_id].record,
            due_on=panel.due_on,
            own_vote=next((o.vote for o in panel.opinions if o.expert_id == expert.sub), None),
        )
        for panel in panels
        if panel.item_id in found
    ]


@router.post("/experts/me/cases/{item_id}/opinion", summary="提出评审意见")
async def opine(request: Request, expert: Specialist, item_id: str, body: NewOpinion) -> None:
    """Once, until the end of the day it is due. Repeating the same changes nothing."""

    def change(panel: Panel, now: datetime) -> Panel:
        given = next((o for o in panel.opinions if o.expert_id == expert.sub), None)
        if given is not None:
            if (given.vote, given.text) == (body.vote, body.text):
                return panel
            raise Problem(ProblemCode.INVALID_TRANSITION, "您已提出意见，不能更改。")
        if panel.is_over(china_date(now)):
            raise Problem(
                ProblemCode.INVALID_TRANSITION, f"评审期限已于{panel.due_on.isoformat()}届满，意见不再计入。"
            )
        return give(panel, Opinion(expert.sub, body.vote, body.text, now))

    await _change(request, expert, item_id, change)


@router.post("/experts/me/cases/{item_id}/declare-conflict", summary="申请回避")
async def declare(request: Request, expert: Specialist, item_id: str, body: Conflict) -> None:
    """Another expert is drawn in place of one who declares a conflict of interest."""
    catalogue: Catalogue = request.app.state.settings.catalogue

    def change(panel: Panel, _now: datetime) -> Panel:
        excluded = {**panel.excluded, expert.sub: f"本人申请回避：{body.reason}"}
        return _drawn(lambda: redraw(panel, catalogue.experts, excluded))

    await _change(request, expert, item_id, change)


async def _change(
    request: Request, expert: Claims, item_id: str, change: Callable[[Panel, datetime], Panel]
) -> None:
    panels: Panels = request.app.state.panels

    async def work(unit: UnitOfWork) -> None:
        panel = await panels.get(item_id, unit.session)
        # the same answer for a panel of others: nobody learns who judges what
        if panel is None or expert.sub not in panel.experts:
            raise Problem(ProblemCode.NOT_FOUND, "没有请您评审的这个事项，请刷新列表。")
        after = change(panel, unit.now)
        if after is not panel:
            await panels.save(after, unit.session)

    await request.app.state.runtime.outbox.run(work)


def _drawn(attempt: Callable[[], T]) -> T:
    try:
        return attempt()
    except TooFewExpertsError as error:
        raise Problem(ProblemCode.INVALID_TRANSITION, str(error)) from None


def panel_view(panel: Panel, catalogue: Catalogue) -> PanelView:
    """A panel with the names of its experts."""
    names: Mapping[str, str] = {expert.id: expert.name for expert in catalogue.experts}

    def name(id_: str) -> str:
        return names.get(id_, id_)

    def shown(opinion: Opinion) -> OpinionView:
        return OpinionView(name=name(opinion.expert_id), **asdict(opinion))

    found = outcome(panel, china_date(datetime.now(UTC)))
    return PanelView(
        item_id=panel.item_id,
        question=panel.question,
        experts=[name(id_) for id_ in panel.experts],
        due_on=panel.due_on,
        opinions=[shown(opinion) for opinion in panel.opinions],
        excluded={name(id_): why for id_, why in panel.excluded.items()},
        outcome=OutcomeView(
            votes={str(vote): number for vote, number in found.votes.items()},
            majority=found.majority,
            dissent=[shown(opinion) for opinion in found.dissent],
            silent=[name(id_) for id_ in found.silent],
        )
        if found
        else None,
    )
