"""HTTP for targets: receipts of pushes, and lists they fetch. Signed by Standard Webhooks with the target's secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import SecretStr, ValidationError

from chassis.problems import Problem
from chassis.webhooks import sign, verify
from contracts.errors import ProblemCode
from contracts.http.target import ReceiptAnswer, RepairList, RepairReceipt
from sync.lists import TargetList
from sync.receipts import Receipts

router = APIRouter(prefix="/v1/targets", tags=["公示平台"])

_MAX_ID = 200


@dataclass(frozen=True)
class Counterpart:
    """A target that speaks to us: with what secret, and what it may say."""

    secret: SecretStr
    receipts: Receipts | None = None
    list: TargetList | None = None


TargetId = Annotated[str, Path(description="平台标识（目录 targets.yaml）")]


@router.post(
    "/{target_id}/receipts",
    summary="平台告知推送的结果",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RepairReceipt.model_json_schema()}},
        }
    },
)
async def take_receipt(request: Request, target_id: TargetId) -> ReceiptAnswer:
    """What became of pushes that were answered 202. A receipt that comes again changes nothing."""
    counterpart = _counterpart(request, target_id)
    if counterpart.receipts is None:
        raise Problem(ProblemCode.NOT_FOUND, f"平台 {target_id} 不以回执告知结果。")
    body = await request.body()
    webhook_id = _signed(counterpart, request, body)
    return await counterpart.receipts.take_receipt(webhook_id, _parse(body))


@router.get("/{target_id}/list", summary="平台领取清单")
async def fetch_list(
    request: Request,
    target_id: TargetId,
    cursor: Annotated[int, Query(ge=0, description="上一页的 cursor；第一次为 0。即确认此前各页")] = 0,
) -> Response:
    """The next page of the list, signed; the signature of the request covers its path and query (there is no body)."""
    counterpart = _counterpart(request, target_id)
    if counterpart.list is None:
        raise Problem(ProblemCode.NOT_FOUND, f"平台 {target_id} 不以清单领取。")
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    webhook_id = _signed(counterpart, request, asked.encode())
    page: RepairList = await counterpart.list.page(cursor)
    body = page.model_dump_json().encode()
    headers = sign(counterpart.secret.get_secret_value(), f"lst_{webhook_id}", body)
    return Response(body, headers=headers)


def _counterpart(request: Request, target_id: str) -> Counterpart:
    counterparts: Mapping[str, Counterpart] = request.app.state.counterparts
    if target_id not in counterparts:
        raise Problem(ProblemCode.NOT_FOUND, f"没有标识为 {target_id} 的公示平台，请核对地址。")
    return counterparts[target_id]


def _signed(counterpart: Counterpart, request: Request, content: bytes) -> str:
    """The webhook-id of what the target has signed. Raises Problem BAD_SIGNATURE."""
    try:
        webhook_id = verify(counterpart.secret.get_secret_value(), request.headers, content)
    except ValueError:
        raise Problem(
            ProblemCode.BAD_SIGNATURE,
            "签名有误或时间戳已超过5分钟：请核对密钥与本机时钟，对原始正文（领取清单时为路径和参数）重新签名后重发。",
        ) from None
    if not 0 < len(webhook_id) <= _MAX_ID:
        raise Problem(ProblemCode.VALIDATION, f"webhook-id 应为1至{_MAX_ID}个字符。")
    return webhook_id


def _parse(body: bytes) -> RepairReceipt:
    try:
        return RepairReceipt.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem(ProblemCode.MALFORMED_JSON, "请检查 JSON 语法后重新发送。") from None
        errors = [{"field": ".".join(map(str, f["loc"])), "reason": f["msg"]} for f in faults]
        raise Problem(
            ProblemCode.VALIDATION, "请按 errors 中各字段的说明更正后重新发送。", errors=errors
        ) from None
