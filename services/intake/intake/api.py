"""HTTP for applicants: their records and applications. Scope ``applicant``."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse

from chassis.problems import Problem
from contracts.errors import ProblemCode
from intake.acts import NewSupplement
from intake.parts import CurrentApplicant, Intake, Parts, today
from intake.responses import problems
from intake.streaming import BoundedEventSourceResponse, timeline_events
from intake.submission import NewApplication
from intake.views import (
    ApplicationPage,
    ApplicationSummary,
    ApplicationView,
    ItemView,
    RecordPage,
    RecordView,
)

_SIGNED_IN = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.FORBIDDEN,
    ProblemCode.VALIDATION,
    ProblemCode.UNAVAILABLE,
)
router = APIRouter(prefix="/v1", tags=["信用主体"], responses=problems(*_SIGNED_IN))
_MAX_KEY = 200
Limit = Annotated[int, Query(ge=1, le=200, description="每页条数")]
After = Annotated[str | None, Query(max_length=100, description="上一页的 next")]


@router.get("/subjects/me/records", summary="我的失信记录及可否修复")
async def my_records(
    applicant: CurrentApplicant, intake: Parts, after: After = None, limit: Limit = 200
) -> RecordPage:
    """按处罚决定日期由近及远。每条记录说明能否申请修复、自哪天起、依据哪条规则。"""
    subject_id = applicant.subject.subject_id
    records = await intake.store.records_of(subject_id, after, limit)
    day = today()
    finding = await intake.findings.barring(subject_id, day)
    return RecordPage(
        subject_id=subject_id,
        records=[
            RecordView.of(record, intake.catalogue, day, intake.settings.transition, finding)
            for record in records
        ],
        next=records[-1].record_id if len(records) == limit else None,
    )


def idempotency_key_of(value: str | None) -> str:
    """The key of a request. Raises Problem IDEMPOTENCY_KEY_MISSING."""
    # RFC 9110 field values may hold more; printable ASCII survives every proxy and log
    if value is None or not 1 <= len(value) <= _MAX_KEY or not (value.isascii() and value.isprintable()):
        raise Problem(
            ProblemCode.IDEMPOTENCY_KEY_MISSING,
            f"请在 Idempotency-Key 头中填写1至{_MAX_KEY}个可打印 ASCII 字符（如一个 UUID），重试时保持不变。",
        )
    return value


IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": f"1至{_MAX_KEY}个可打印 ASCII 字符；重试同一申请时保持不变",
    "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_KEY, "pattern": "^[ -~]+$"},
}


@router.post(
    "/applications",
    status_code=201,
    summary="提交修复申请",
    # described by hand: required, yet a missing one gets a problem of its own
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses={
        201: {
            "headers": {
                "Location": {"description": "申请的地址", "schema": {"type": "string"}},
                "Idempotency-Replayed": {
                    "description": "true：此前已用同一键提交，这是当时的答复",
                    "schema": {"type": "string"},
                },
            }
        },
        **problems(
            *_SIGNED_IN,
            ProblemCode.MALFORMED_JSON,
            ProblemCode.IDEMPOTENCY_KEY_MISSING,
            ProblemCode.IDEMPOTENCY_CONFLICT,
            ProblemCode.RECORD_UNDER_APPLICATION,
            ProblemCode.UNKNOWN_RECORD,
            ProblemCode.UNKNOWN_MATERIAL,
            ProblemCode.RECORD_NOT_REPAIRABLE,
            ProblemCode.SUBJECT_BARRED,
            ProblemCode.BUSY,
        ),
    },
)
async def submit(
    applicant: CurrentApplicant,
    intake: Parts,
    body: NewApplication,
    response: Response,
    idempotency_key: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> ApplicationView:
    """一份申请可含多条记录。全部记录要么一起受理，要么一条也不受理；同一键重复提交得到同样的答复。"""
    key = idempotency_key_of(idempotency_key)
    with intake.gate.submission():
        submitted = await intake.submission.submit(applicant, body, key)
    response.headers["Location"] = f"/v1/applications/{submitted.application.application_id}"
    if submitted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return ApplicationView.show(submitted.application, submitted.items, submitted.entries)


@router.get("/applications", summary="我的申请")
async def list_applications(
    applicant: CurrentApplicant, intake: Parts, after: After = None, limit: Limit = 50
) -> ApplicationPage:
    """最新的在前。"""
    found = await intake.store.applications_of(applicant.subject.subject_id, after, limit)
    return ApplicationPage(
        applications=[ApplicationSummary.of(application) for application in found],
        next=found[-1].application_id if len(found) == limit else None,
    )


def _not_found() -> Problem:
    # the same answer for an application of somebody else: nobody learns which ids exist
    return Problem(ProblemCode.NOT_FOUND, "没有这份申请，请在“我的申请”中查看。")


@router.get(
    "/applications/{application_id}",
    summary="申请详情与进度",
    responses=problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
)
async def get_application(application_id: str, applicant: CurrentApplicant, intake: Parts) -> ApplicationView:
    """每项一个状态；时间线最新的在最后；每项列出各公示平台的进展。"""
    found = await intake.store.whole(application_id)
    if found is None or found[0].subject_id != applicant.subject.subject_id:
        raise _not_found()
    return ApplicationView.show(*found)


_ACT = problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.INVALID_TRANSITION, ProblemCode.BUSY)


@router.post("/items/{item_id}/supplement", status_code=202, summary="补正", responses=_ACT)
async def supplement(
    item_id: str, applicant: CurrentApplicant, intake: Parts, body: NewSupplement
) -> ItemView:
    """认定单位告知补正（事项为 supplement）后，在期限内一次提交。重复提交同样的内容没有第二次效果。"""
    with intake.gate.submission():
        await intake.acts.supplement(applicant, item_id, body)
    return await _item(intake, item_id)


@router.post("/items/{item_id}/withdraw", status_code=202, summary="撤回一个事项", responses=_ACT)
async def withdraw(item_id: str, applicant: CurrentApplicant, intake: Parts) -> ItemView:
    """作出决定之前可以撤回。已送认定单位的，由其确认：此前已作出决定的，以决定为准。其他事项不受影响。"""
    with intake.gate.submission():
        await intake.acts.withdraw(applicant, item_id)
    return await _item(intake, item_id)


async def _item(intake: Intake, item_id: str) -> ItemView:
    return ItemView.of((await intake.store.items([item_id]))[item_id])


@router.get(
    "/applications/{application_id}/events",
    summary="申请进度的事件流（SSE）",
    response_class=EventSourceResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "事件流"},
        **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
    },
)
async def application_events(
    application_id: str,
    applicant: CurrentApplicant,
    intake: Parts,
    last_event_id: Annotated[str | None, Header(description="收到的最后一个事件编号，从其后继续")] = None,
) -> Response:
    """时间线的每一条是一个 ``timeline`` 事件，编号为 seq；办结后以一个 ``completed`` 事件结束。空闲时发送注释以保持连接。"""
    after = _seq(last_event_id)
    application = await intake.store.application(application_id)
    if application is None or application.subject_id != applicant.subject.subject_id:
        raise _not_found()
    settings = intake.settings
    events = timeline_events(
        intake.store,
        intake.wakeups,
        application_id,
        after,
        recheck_seconds=settings.event_recheck_seconds,
        max_seconds=settings.event_stream_max_seconds,
    )
    return BoundedEventSourceResponse(intake.wakeups, events, settings.event_heartbeat_seconds)


def _seq(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= 12):
        raise Problem(
            ProblemCode.VALIDATION, "Last-Event-ID 应为收到的最后一个事件编号；从头开始请去掉该头。"
        )
    return int(last_event_id)
