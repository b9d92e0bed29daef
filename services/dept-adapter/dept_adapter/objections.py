"""Objections (异议) at their departments: the documents, and HTTP for officers (scope ``desk``).

Departments with a system of their own decide objections here too: there is no push protocol for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal, Self

from aiohttp import ClientError
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, model_validator
from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne

from chassis.cases import CaseDirectory
from chassis.db import CollectionSpec, Database, Document, Session
from chassis.logs import get_logger
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ObjectionKind, ObjectionRemedy
from contracts.http.objection import ObjectionCase
from contracts.records import DepartmentRef, RecordFacts
from contracts.tokens import Claims
from dept_adapter.api import Officer, Reasoned, position
from dept_adapter.decisions import apply
from dept_adapter.domain import Command, DecisionConflictError, decision_number
from dept_adapter.materials import stream_material
from dept_adapter.objection import Objection, Ruling, rule_on
from dept_adapter.officers import own
from dept_adapter.states import (
    OBJECTION_STATE_TEXT,
    OBJECTIONABLE,
    Action,
    ObjectionAction,
    ObjectionState,
    State,
)
from dept_adapter.store import Reviews

log = get_logger(__name__)
router = APIRouter(prefix="/v1", tags=["异议"])
_BY_DUE = [("decide_due_on", ASCENDING), ("_id", ASCENDING)]
COLLECTIONS = [
    CollectionSpec(
        "objections",
        [
            IndexModel([("department.code", ASCENDING), *_BY_DUE]),
            IndexModel([("department.code", ASCENDING), ("state", ASCENDING), *_BY_DUE]),
            IndexModel(
                [("deadline_on", ASCENDING)],
                name="deadlines",
                partialFilterExpression={"deadline_on": {"$type": "string"}},
            ),
        ],
    )
]
_OBJECTION: TypeAdapter[Objection] = TypeAdapter(Objection)


@dataclass(frozen=True)
class StoredObjection:
    """An objection as it is stored. ``trace``: trace headers of the event that brought it."""

    objection: Objection
    trace: Mapping[str, str]
    history: Sequence[Document]


class Objections:
    """All objections; ``_id`` is the objection id. Times are text, as in the events."""

    def __init__(self, database: Database) -> None:
        self._objections = database.collection("objections")

    async def add(
        self, new: Mapping[str, tuple[Objection, Mapping[str, str]]], now: datetime, session: Session
    ) -> None:
        """Store those that are not here yet: objection id -> (objection, trace)."""
        cursor = self._objections.find({"_id": {"$in": list(new)}}, {"_id": 1}, session=session)
        known = {row["_id"] async for row in cursor}
        writes = [
            InsertOne(
                {
                    **_document(objection),
                    "trace": dict(trace),
                    "history": [_entry(now, ObjectionState.RECEIVED, "routing")],
                }
            )
            for id_, (objection, trace) in new.items()
            if id_ not in known
        ]
        if writes:
            await self._objections.bulk_write(writes, session=session, ordered=False)

    async def load(self, ids: Sequence[str], session: Session | None = None) -> dict[str, StoredObjection]:
        """Those of these objections that are here."""
        cursor = self._objections.find({"_id": {"$in": list(ids)}}, session=session)
        return {row["_id"]: _stored(row) async for row in cursor}

    async def save(self, changed: Sequence[Objection], by: str, now: datetime, session: Session) -> None:
        """Store what objections became, with a line in the history of each whose state changed or whose day passed."""
        writes = [
            UpdateOne(
                {"_id": each.objection_id},
                {
                    "$set": {k: v for k, v in _document(each).items() if k != "_id"},
                    "$push": {"history": _entry(now, each.state, by, each.reason)},
                },
            )
            for each in changed
        ]
        if writes:
            await self._objections.bulk_write(writes, session=session, ordered=False)

    async def overdue(self, department_codes: Sequence[str], today: date, limit: int) -> list[str]:
        """Objections at these departments whose deadline has passed without being noticed, the oldest first."""
        query = {
            "deadline_on": {"$lt": today.isoformat()},
            "department.code": {"$in": list(department_codes)},
        }
        cursor = self._objections.find(query, {"_id": 1}).sort("deadline_on", ASCENDING).limit(limit)
        return [row["_id"] for row in await cursor.to_list(limit)]

    async def page(
        self, code: str, state: ObjectionState | None, after: tuple[date, str] | None, limit: int
    ) -> list[StoredObjection]:
        """Of a department, in order of (decide_due_on, objection id), after the given position."""
        query: Document = {"department.code": code}
        if state is not None:
            query["state"] = state.value
        if after is not None:
            due, last = after[0].isoformat(), after[1]
            query["$or"] = [{"decide_due_on": {"$gt": due}}, {"decide_due_on": due, "_id": {"$gt": last}}]
        rows = await self._objections.find(query).sort(_BY_DUE).limit(limit).to_list(limit)
        return [_stored(row) for row in rows]


def _document(objection: Objection) -> Document:
    document: Document = _OBJECTION.dump_python(objection, mode="json")
    due_on = objection.due_on
    waits = due_on is not None and due_on != objection.overdue_told
    deadline = due_on.isoformat() if waits and due_on else None
    return {"_id": document.pop("objection_id"), **document, "deadline_on": deadline}


def _stored(row: Document) -> StoredObjection:
    objection = _OBJECTION.validate_python({**row, "objection_id": row["_id"]})
    return StoredObjection(objection, row["trace"], row["history"])


def _entry(at: datetime, state: ObjectionState, by: str, detail: str | None = None) -> Document:
    return {"at": at, "state": state.value, "by": by, "detail": detail}


# --- HTTP


class ObjectionStepView(BaseModel):
    """One step of the objection's history."""

    at: datetime
    state: ObjectionState
    by: str
    detail: str | None = None


class ObjectionSummary(BaseModel):
    """An objection in a list. ``due_on``: the department's last day for what it owes now; ``overdue``: it has passed.

    ``item_id``: the item whose result is objected to; null for an objection to the record. ``reason``: the department's.
    """

    objection_id: str
    kind: ObjectionKind
    state: ObjectionState
    state_text: str
    department: DepartmentRef
    record: RecordFacts
    item_id: str | None
    accept_due_on: date
    decide_due_on: date
    received_at: datetime
    accepted_at: datetime | None
    reason: str | None
    remedy: ObjectionRemedy | None
    decided_at: datetime | None
    by: str | None
    due_on: date | None
    overdue: bool


class ObjectionDetail(ObjectionSummary):
    """An objection with its history and, where intake answers, the subject's words. ``case_note`` (zh-CN): why ``case`` is null.

    ``result_state``: where the review whose result is objected to stands now.
    """

    history: list[ObjectionStepView]
    result_state: State | None = None
    case: ObjectionCase | None = None
    case_note: str | None = None


class ObjectionPage(BaseModel):
    """Ask again with ``after`` = ``next`` while it is not null."""

    objections: list[ObjectionSummary]
    next: str | None = Field(description="Opaque position")


class Uphold(Reasoned):
    """Body of uphold. To a record: whether it is withdrawn, or corrected in ``decided_on``, ``penalty_kinds`` or both. To a result: only the reason."""

    remedy: Literal["withdrawn", "corrected"] | None = None
    decided_on: date | None = None
    penalty_kinds: Annotated[
        str | None, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
    ] = None

    @model_validator(mode="after")
    def _corrects_something(self) -> Self:
        corrects = self.decided_on is not None or self.penalty_kinds is not None
        if corrects != (self.remedy == "corrected"):
            raise ValueError("remedy 为 corrected 时填写 decided_on 或 penalty_kinds，其他时候不填")
        return self


def _fields(stored: StoredObjection) -> dict[str, object]:
    objection = stored.objection
    result = objection.kind is ObjectionKind.RESULT
    return {
        **vars(objection),
        "item_id": objection.item_id if result else None,
        "state_text": OBJECTION_STATE_TEXT[objection.state],
        "due_on": objection.due_on,
        "overdue": objection.due_on is not None and objection.due_on == objection.overdue_told,
    }


def _summary(stored: StoredObjection) -> ObjectionSummary:
    return ObjectionSummary.model_validate(_fields(stored), from_attributes=True)


async def _find(
    request: Request, officer: Claims, objection_id: str, unit: UnitOfWork | None = None
) -> StoredObjection:
    objections: Objections = request.app.state.objections
    found = await objections.load([objection_id], unit.session if unit else None)
    stored = found.get(objection_id)
    if stored is None or stored.objection.department.code not in request.app.state.departments:
        raise Problem(ProblemCode.NOT_FOUND, f"没有异议 {objection_id}，请核对后重试。")
    own(officer, stored.objection.department.code)
    return stored


@router.get("/departments/{code}/objections", summary="部门的异议")
async def list_objections(
    request: Request,
    officer: Officer,
    code: str,
    state: ObjectionState | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ObjectionPage:
    """In order of the day by which the department has to decide. Also of departments with a system of their own."""
    own(officer, code)
    if code not in request.app.state.departments:
        raise Problem(ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门，请核对后重试。")
    objections: Objections = request.app.state.objections
    found = await objections.page(code, state, position(after), limit)
    last = found[-1].objection if len(found) == limit else None
    return ObjectionPage(
        objections=[_summary(stored) for stored in found],
        next=f"{last.decide_due_on.isoformat()}~{last.objection_id}" if last else None,
    )


async def _case(request: Request, objection_id: str) -> ObjectionCase | None:
    cases: CaseDirectory = request.app.state.cases
    return (await cases.objections([objection_id])).get(objection_id)


@router.get("/objections/{objection_id}", summary="异议详情")
async def show_objection(request: Request, officer: Officer, objection_id: str) -> ObjectionDetail:
    """With the subject's reason and materials, as long as intake answers."""
    stored = await _find(request, officer, objection_id)
    shown = ObjectionDetail.model_validate(
        {**_fields(stored), "history": stored.history}, from_attributes=True
    )
    if stored.objection.kind is ObjectionKind.RESULT:
        reviews: Reviews = request.app.state.reviews
        review = await reviews.get(stored.objection.item_id)
        shown.result_state = review.review.state if review else None
    try:
        shown.case = await _case(request, objection_id)
    except (ClientError, TimeoutError, OSError, ValueError) as error:
        log.warning("intake does not answer", error=f"{type(error).__name__}: {error}"[:300])
        shown.case_note = "申请人的理由和材料暂时无法读取（受理端未应答），请稍后刷新；不影响查看其他内容。"
    else:
        if shown.case is None:
            shown.case_note = "受理端查无该异议，请联系平台管理员核实。"
    return shown


@router.get(
    "/objections/{objection_id}/materials/{material_id}",
    summary="查看异议的材料",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def show_objection_material(
    request: Request, officer: Officer, objection_id: str, material_id: str
) -> StreamingResponse:
    """The content of a material of this objection, to be looked at in place; nothing in it is run."""
    await _find(request, officer, objection_id)
    try:
        case = await _case(request, objection_id)
    except (ClientError, TimeoutError, OSError, ValueError):
        raise Problem(ProblemCode.UNAVAILABLE, "受理端未应答，材料暂时无法读取，请稍后重试。") from None
    return stream_material(request.app.state.cases, case.materials if case else (), material_id)


@router.post("/objections/{objection_id}/accept", summary="受理异议")
async def accept_objection(request: Request, officer: Officer, objection_id: str) -> ObjectionSummary:
    """Accept the objection and verify it. Repeating it, also after the decision, changes nothing."""
    return await _rule(request, officer, objection_id, ObjectionAction.ACCEPT)


@router.post("/objections/{objection_id}/not-accept", summary="不予受理异议")
async def not_accept_objection(
    request: Request, officer: Officer, objection_id: str, body: Reasoned
) -> ObjectionSummary:
    """Do not accept the objection: it ends. Repeating it changes nothing; after an acceptance it is a 409 problem."""
    return await _rule(request, officer, objection_id, ObjectionAction.NOT_ACCEPT, body.reason)


@router.post("/objections/{objection_id}/dismiss", summary="异议不成立")
async def dismiss_objection(
    request: Request, officer: Officer, objection_id: str, body: Reasoned
) -> ObjectionSummary:
    """The objection is not upheld. Repeating it changes nothing; after an upheld one it is a 409 problem."""
    return await _rule(request, officer, objection_id, ObjectionAction.DISMISS, body.reason)


@router.post("/objections/{objection_id}/uphold", summary="异议成立")
async def uphold_objection(
    request: Request, officer: Officer, objection_id: str, body: Uphold
) -> ObjectionSummary:
    """The objection is right. To a record: it is withdrawn or corrected. To a refusal: the item is reopened, here at the desk. To a
    revocation: the repair is granted again, and every target follows.
    """
    return await _rule(request, officer, objection_id, ObjectionAction.UPHOLD, body.reason, body)


async def _rule(
    request: Request,
    officer: Claims,
    objection_id: str,
    action: ObjectionAction,
    reason: str | None = None,
    upheld: Uphold | None = None,
) -> ObjectionSummary:
    objections: Objections = request.app.state.objections

    async def work(unit: UnitOfWork) -> None:
        stored = await _find(request, officer, objection_id, unit)
        objection = stored.objection
        command: Command | None = None
        ruling = Ruling(action, officer.sub, reason)
        if upheld is not None and objection.kind is ObjectionKind.RECORD:
            ruling = _about_record(ruling, objection, upheld, request.app.state.settings.catalogue)
        elif upheld is not None:
            if upheld.remedy is not None:
                raise Problem(
                    ProblemCode.VALIDATION, "这是对结果的异议：成立后重新办理或恢复修复，请去掉 remedy。"
                )
            if objection.remedy is None:
                ruling, command = await _about_result(request, unit, ruling, objection)
        try:
            changed, events = rule_on(objection, ruling, unit.now)
        except DecisionConflictError as error:
            raise Problem(ProblemCode.DECISION_CONFLICT, str(error)) from None
        if not events:
            return
        await objections.save([changed], officer.sub, unit.now, unit.session)
        for event in events:
            unit.emit(event, cause=f"objection:{action.value}:{objection_id}", trace=stored.trace)
        if command is not None:
            reviews: Reviews = request.app.state.reviews
            review = await reviews.get(objection.item_id, unit.session)
            if review is not None:
                calendar = request.app.state.settings.catalogue.calendar
                await apply(unit, reviews, review, command, calendar, cause=f"objection:{objection_id}")

    await request.app.state.runtime.outbox.run(work)
    return _summary(await _find(request, officer, objection_id))


def _about_record(ruling: Ruling, objection: Objection, upheld: Uphold, catalogue: Catalogue) -> Ruling:
    if upheld.remedy is None:
        raise Problem(
            ProblemCode.VALIDATION,
            "这是对记录的异议：请在 remedy 中写明撤回（withdrawn）还是更正（corrected）。",
        )
    remedy = ObjectionRemedy(upheld.remedy)
    given: dict[str, object] = {}
    if upheld.decided_on is not None:
        given["decided_on"] = upheld.decided_on
    if upheld.penalty_kinds is not None:
        found = catalogue.tier_of(upheld.penalty_kinds)
        given |= {"penalty_kinds": upheld.penalty_kinds, "tier": found[0].value if found else None}
    record = objection.record.model_copy(update=given)
    if remedy is ObjectionRemedy.CORRECTED and record == objection.record:
        raise Problem(ProblemCode.VALIDATION, "更正后的内容与现在的相同，请核对后填写应有的内容。")
    return Ruling(ruling.action, ruling.by, ruling.reason, remedy, record)


async def _about_result(
    request: Request, unit: UnitOfWork, ruling: Ruling, objection: Objection
) -> tuple[Ruling, Command]:
    """What happens to the review: reopened within the time limits of its rule, or granted again."""
    reviews: Reviews = request.app.state.reviews
    departments: Mapping[str, Department] = request.app.state.departments
    catalogue: Catalogue = request.app.state.settings.catalogue
    stored = await reviews.get(objection.item_id, unit.session)
    if stored is None or stored.review.state not in OBJECTIONABLE:
        raise Problem(ProblemCode.INVALID_TRANSITION, "该事项现在没有可以推翻的结果，请刷新后核对。")
    review, today = stored.review, china_date(unit.now)
    restored = review.state is State.REVOKED
    limits = catalogue.time_limits(review.record.category, review.record.tier, today)
    number = None
    if restored:
        serial = await reviews.next_serial(review.department.code, today.year, unit.session)
        short = departments[review.department.code].short_name
        number = decision_number(short, Action.RESTORE, today.year, serial)
    command = Command(
        Action.RESTORE if restored else Action.REOPEN,
        by=ruling.by,
        from_desk=False,
        number=number,
        accept_working_days=limits.accept,
        decide_working_days=limits.decide,
    )
    remedy = ObjectionRemedy.RESTORED if restored else ObjectionRemedy.REOPENED
    return Ruling(ruling.action, ruling.by, ruling.reason, remedy), command
