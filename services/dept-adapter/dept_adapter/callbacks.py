"""HTTP for departments' own systems: signed callbacks (contracts.http.department)."""

import hashlib
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import SecretStr, ValidationError

from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from chassis.webhooks import verify
from contracts.errors import ProblemCode
from contracts.http.department import NUMBERED, REASONED, CallbackReceipt, DecisionCallback, Outcome
from dept_adapter.decisions import apply
from dept_adapter.domain import Command
from dept_adapter.materials import commitment_response, material_response
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.states import Action
from dept_adapter.store import Callbacks, Reviews, StoredReview

router = APIRouter(prefix="/v1/departments", tags=["部门系统回调"])

_ACTIONS = {
    Outcome.ACCEPTED: Action.ACCEPT,
    Outcome.NOT_ACCEPTED: Action.NOT_ACCEPT,
    Outcome.SUPPLEMENT_REQUESTED: Action.REQUEST_SUPPLEMENT,
    Outcome.EXTENDED: Action.EXTEND,
    Outcome.GRANTED: Action.GRANT,
    Outcome.REFUSED: Action.REFUSE,
    Outcome.REVOKED: Action.REVOKE,
}


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
    reviews: Reviews = request.app.state.reviews
    callbacks: Callbacks = request.app.state.callbacks
    digest = hashlib.sha256(callback.model_dump_json().encode()).hexdigest()
    command = _command(callback, request.app.state.settings)

    async def work(unit: UnitOfWork) -> CallbackReceipt:
        stored = await reviews.get(callback.item_id, unit.session)
        if stored is None:
            raise Problem(ProblemCode.UNKNOWN_ITEM, f"没有事项 {callback.item_id}，请核对 item_id。")
        if stored.review.department.code != code:
            raise Problem(ProblemCode.WRONG_DEPARTMENT, f"事项 {callback.item_id} 不是送该部门办理的。")
        seen = await callbacks.digest(code, webhook_id, unit.session)
        if seen is not None:
            if seen != digest:
                raise Problem(
                    ProblemCode.IDEMPOTENCY_CONFLICT,
                    f"webhook-id {webhook_id} 已用于另一次回调；每次回调请用新的 webhook-id，重发时才沿用。",
                )
            return CallbackReceipt(item_id=callback.item_id, state=stored.review.state, duplicate=True)
        cause = f"callback:{webhook_id}"
        transition = await apply(unit, reviews, stored, command, cause=cause)
        await callbacks.add(code, webhook_id, digest, unit.now, unit.session)
        return CallbackReceipt(
            item_id=callback.item_id, state=transition.review.state, duplicate=not transition.events
        )

    receipt: CallbackReceipt = await request.app.state.runtime.outbox.run(work)
    return receipt


@router.get(
    "/{code}/reviews/{item_id}/materials/{material_id}",
    summary="部门系统读取材料",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
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
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem(ProblemCode.MALFORMED_JSON, "请检查 JSON 语法后重新发送。") from None
        errors = [{"field": ".".join(map(str, f["loc"])), "reason": f["msg"]} for f in faults]
        raise Problem(
            ProblemCode.VALIDATION, "请按 errors 中各字段的说明更正后重新发送。", errors=errors
        ) from None


def _command(callback: DecisionCallback, settings: DeptAdapterSettings) -> Command:
    return Command(
        _ACTIONS[callback.outcome],
        by="callback",
        from_desk=False,
        number=callback.decision_number if callback.outcome in NUMBERED else None,
        reason=callback.reason if callback.outcome in REASONED else None,
        occurred_at=callback.occurred_at,
        missing=callback.missing if callback.outcome is Outcome.SUPPLEMENT_REQUESTED else (),
        supplement_working_days=settings.supplement_working_days,
    )
