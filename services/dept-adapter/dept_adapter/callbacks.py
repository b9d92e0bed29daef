"""HTTP for departments' own systems: signed callbacks (contracts.http.department)."""

from collections.abc import Mapping
from typing import Annotated

from aiohttp import ClientError
from fastapi import APIRouter, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import SecretStr, ValidationError

from chassis.cases import CaseDirectory
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from chassis.webhooks import verify
from contracts.errors import ProblemCode
from contracts.http.department import CallbackReceipt, DecisionCallback, ReviewSubmission
from dept_adapter.materials import FILE, commitment_response, material_response
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.store import StoredReview
from dept_adapter.tellings import submission
from dept_adapter.words import Listener, Refused, Word, faults_of

router = APIRouter(prefix="/v1/departments", tags=["部门系统回调"])


@router.post(
    "/{code}/decisions",
    summary="部门系统告知受理与决定",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": DecisionCallback.model_json_schema()}},
        }
    },
)
async def take_callback(
    request: Request, code: Annotated[str, Path(description="部门统一社会信用代码")]
) -> CallbackReceipt:
    """Signed by Standard Webhooks. A repeated callback is answered with ``duplicate`` and changes nothing."""
    secrets: Mapping[str, SecretStr] = request.app.state.secrets
    if code not in secrets:
        raise Problem(
            ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门系统，请核对地址（应为 callback_url）。"
        )
    body = await request.body()
    webhook_id = _signed_by(secrets[code], request, body)
    if not 0 < len(webhook_id) <= 200:
        raise Problem(ProblemCode.VALIDATION, "webhook-id 应为1至200个字符。")
    callback = _parse(body)
    listener: Listener = request.app.state.listener
    word = Word(callback, f"callback:{webhook_id}", webhook_id)

    async def work(unit: UnitOfWork) -> CallbackReceipt:
        (result,) = await listener.take(unit, code, [word])
        if isinstance(result, Refused):
            raise Problem(result.code, result.reason)
        return CallbackReceipt(item_id=result.item_id, state=result.state, duplicate=result.duplicate)

    receipt: CallbackReceipt = await request.app.state.runtime.outbox.run(work)
    return receipt


@router.get("/{code}/reviews/{item_id}", summary="部门系统读取事项")
async def read_review(request: Request, code: str, item_id: str) -> ReviewSubmission:
    """Signed by Standard Webhooks with an empty body: what a system that heard of the item on the bus is not told there."""
    stored = await _of_department(request, code, item_id)
    cases: CaseDirectory = request.app.state.cases
    application_id = stored.review.application_id
    try:
        case = (await cases.cases([application_id])).get(application_id)
    except (ClientError, TimeoutError, OSError, ValueError):
        raise Problem(ProblemCode.UNAVAILABLE, "受理端未应答，事项暂时无法读取，请稍后重试。") from None
    if case is None:
        raise Problem(ProblemCode.NOT_FOUND, "受理端查无该申请，请联系平台管理员核实。")
    settings: DeptAdapterSettings = request.app.state.settings
    return submission(stored.review, case, settings.callback_url(request.app.state.departments[code]))


@router.get(
    "/{code}/reviews/{item_id}/materials/{material_id}",
    summary="部门系统读取材料",
    response_class=StreamingResponse,
    responses=FILE,
)
async def read_material(request: Request, code: str, item_id: str, material_id: str) -> StreamingResponse:
    """Signed by Standard Webhooks like a callback, with an empty body."""
    stored = await _of_department(request, code, item_id)
    return await material_response(request.app.state.cases, stored.review.application_id, material_id)


@router.get(
    "/{code}/reviews/{item_id}/commitment",
    summary="部门系统读取承诺书",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def read_commitment(request: Request, code: str, item_id: str) -> StreamingResponse:
    """Signed by Standard Webhooks like a callback, with an empty body."""
    stored = await _of_department(request, code, item_id)
    return await commitment_response(request.app.state.cases, stored.review.application_id)


async def _of_department(request: Request, code: str, item_id: str) -> StoredReview:
    """The review a department's system asks about with an empty body. Raises Problem."""
    secrets: Mapping[str, SecretStr] = request.app.state.secrets
    if code not in secrets:
        raise Problem(ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门系统，请核对地址。")
    _signed_by(secrets[code], request, b"")
    stored: StoredReview | None = await request.app.state.reviews.get(item_id)
    if stored is None:
        raise Problem(ProblemCode.UNKNOWN_ITEM, f"没有事项 {item_id}，请核对 item_id。")
    if stored.review.department.code != code:
        raise Problem(ProblemCode.WRONG_DEPARTMENT, f"事项 {item_id} 不是送该部门办理的。")
    if stored.review.record.in_person:
        # not 404: a system that heard of the item on the bus asks again until we know it
        raise Problem(
            ProblemCode.FORBIDDEN, f"事项 {item_id} 不经系统办理，没有可以读取的内容，请在线下交接。"
        )
    return stored


def _signed_by(secret: SecretStr, request: Request, body: bytes) -> str:
    """The webhook-id. Raises Problem BAD_SIGNATURE."""
    try:
        return verify(secret.get_secret_value(), request.headers, body)
    except ValueError:
        raise Problem(
            ProblemCode.BAD_SIGNATURE,
            "签名有误或时间戳已超过5分钟：请核对密钥与本机时钟，对原始正文重新签名后重发。",
        ) from None


def _parse(body: bytes) -> DecisionCallback:
    try:
        return DecisionCallback.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise Problem(ProblemCode.MALFORMED_JSON, "请检查 JSON 语法后重新发送。") from None
        raise Problem(
            ProblemCode.VALIDATION, "请按 errors 中各字段的说明更正后重新发送。", errors=faults_of(error)
        ) from None
