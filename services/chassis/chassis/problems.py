"""HTTP errors as RFC 9457 problem details that say what to do, with the codes of contracts.errors."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException

from chassis.db import describe, is_unavailable
from chassis.logs import get_logger
from contracts.errors import ProblemCode, problem_type

log = get_logger(__name__)
MEDIA_TYPE = "application/problem+json"

_TITLES: dict[ProblemCode, tuple[HTTPStatus, str]] = {
    ProblemCode.UNAUTHENTICATED: (HTTPStatus.UNAUTHORIZED, "请先登录"),
    ProblemCode.FORBIDDEN: (HTTPStatus.FORBIDDEN, "没有权限"),
    ProblemCode.NOT_FOUND: (HTTPStatus.NOT_FOUND, "未找到"),
    ProblemCode.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "不支持该请求方法"),
    ProblemCode.VALIDATION: (HTTPStatus.UNPROCESSABLE_ENTITY, "填写内容有误"),
    ProblemCode.MALFORMED_JSON: (HTTPStatus.BAD_REQUEST, "请求正文不是有效的 JSON"),
    ProblemCode.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "内容过大"),
    ProblemCode.UNKNOWN_MATERIAL: (HTTPStatus.UNPROCESSABLE_ENTITY, "材料不存在"),
    ProblemCode.UNKNOWN_RECORD: (HTTPStatus.UNPROCESSABLE_ENTITY, "记录不存在或不属于当前主体"),
    ProblemCode.RECORD_UNDER_APPLICATION: (HTTPStatus.CONFLICT, "记录已在办理中"),
    ProblemCode.RECORD_NOT_REPAIRABLE: (HTTPStatus.UNPROCESSABLE_ENTITY, "记录暂不能申请修复"),
    ProblemCode.COMMITMENT_NOT_CONFIRMED: (HTTPStatus.UNPROCESSABLE_ENTITY, "请先确认承诺书"),
    ProblemCode.SUBJECT_BARRED: (HTTPStatus.FORBIDDEN, "因提供虚假材料，目前不得申请"),
    ProblemCode.OBJECTION_NOT_POSSIBLE: (HTTPStatus.CONFLICT, "目前不能提出该异议"),
    ProblemCode.IDEMPOTENCY_CONFLICT: (HTTPStatus.CONFLICT, "幂等键已用于另一份申请"),
    ProblemCode.IDEMPOTENCY_KEY_MISSING: (HTTPStatus.BAD_REQUEST, "缺少或有误的 Idempotency-Key"),
    ProblemCode.MANDATE_NOT_VALID: (HTTPStatus.FORBIDDEN, "委托无效"),
    ProblemCode.BAD_SIGNATURE: (HTTPStatus.UNAUTHORIZED, "签名校验未通过"),
    ProblemCode.UNKNOWN_ITEM: (HTTPStatus.NOT_FOUND, "事项不存在"),
    ProblemCode.WRONG_DEPARTMENT: (HTTPStatus.FORBIDDEN, "事项不属于该部门"),
    ProblemCode.WRONG_TARGET: (HTTPStatus.FORBIDDEN, "推送不属于该平台"),
    ProblemCode.DECISION_CONFLICT: (HTTPStatus.CONFLICT, "与已作出的决定不一致"),
    ProblemCode.INVALID_TRANSITION: (HTTPStatus.CONFLICT, "当前状态不能进行该操作"),
    ProblemCode.MISSING_COLUMNS: (HTTPStatus.UNPROCESSABLE_ENTITY, "文件缺少必需的列"),
    ProblemCode.UNKNOWN_ENCODING: (HTTPStatus.UNPROCESSABLE_ENTITY, "无法识别文件编码"),
    ProblemCode.ALREADY_SUCCEEDED: (HTTPStatus.CONFLICT, "该事件已处理成功"),
    ProblemCode.BUSY: (HTTPStatus.TOO_MANY_REQUESTS, "请求过多，请稍后再试"),
    ProblemCode.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "服务暂时不可用"),
    ProblemCode.INTERNAL: (HTTPStatus.INTERNAL_SERVER_ERROR, "服务内部错误"),
}


class Problem(Exception):  # noqa: N818 (RFC 9457's own word)
    """Raise anywhere in a request. ``detail`` (zh-CN) says what is wrong and what to do; ``extra`` are extension members."""

    def __init__(
        self, code: ProblemCode, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.headers = headers
        self.extra = extra

    @property
    def status(self) -> int:
        """HTTP status of this problem."""
        return _TITLES[self.code][0].value

    def body(self, instance: str | None = None) -> dict[str, Any]:
        """The problem details object."""
        body: dict[str, Any] = {
            "type": problem_type(self.code),
            "title": _TITLES[self.code][1],
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if instance:
            body["instance"] = instance
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            body["trace_id"] = format(context.trace_id, "032x")
        return body


def problem_response(problem: Problem, instance: str | None = None) -> JSONResponse:
    """The problem as a response."""
    return JSONResponse(
        problem.body(instance), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


_REASONS = {
    "missing": "必填",
    "extra_forbidden": "不接受此字段",
    "string_type": "应为文本",
    "list_type": "应为数组",
    "model_attributes_type": "应为对象",
    "int_parsing": "应为整数",
    "enum": "不在可用值之内",
    "literal_error": "不在可用值之内",
    "string_pattern_mismatch": "格式有误",
}
"""zh-CN for pydantic's most frequent messages; a validator's own message is taken as it is."""


def _reason(error: Any) -> str:
    kind = error["type"]
    return str(error["ctx"]["error"]) if kind == "value_error" else _REASONS.get(kind, error["msg"])


def _malformed_json() -> Problem:
    return Problem(ProblemCode.MALFORMED_JSON, "请检查 JSON 语法和编码（UTF-8）后重新提交。")


def _from_validation(error: RequestValidationError) -> Problem:
    errors = error.errors()
    if any(e["type"] == "json_invalid" for e in errors):
        return _malformed_json()
    fields = [
        {"field": ".".join(str(part) for part in e["loc"][1:]) or str(e["loc"][0]), "reason": _reason(e)}
        for e in errors
    ]
    return Problem(ProblemCode.VALIDATION, "请按 errors 中各字段的说明更正后重新提交。", errors=fields)


_STATUS_CODES = {
    401: ProblemCode.UNAUTHENTICATED,
    403: ProblemCode.FORBIDDEN,
    404: ProblemCode.NOT_FOUND,
    405: ProblemCode.METHOD_NOT_ALLOWED,
}


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem; unexpected ones are logged and hide their cause."""

    async def on_problem(request: Request, error: Exception) -> Response:
        if not isinstance(error, Problem):
            raise error
        return problem_response(error, request.url.path)

    async def on_validation(request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        return problem_response(_from_validation(error), request.url.path)

    async def on_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        cause = error.__cause__
        # FastAPI turns whatever is raised while it reads and parses a body into a 400
        if isinstance(cause, Problem):
            return problem_response(cause, request.url.path)
        if isinstance(cause, UnicodeDecodeError | RecursionError):
            return problem_response(_malformed_json(), request.url.path)
        code = _STATUS_CODES.get(error.status_code)
        if code is None:
            body = {
                "type": "about:blank",
                "title": HTTPStatus(error.status_code).phrase,
                "status": error.status_code,
            }
            return JSONResponse(body, error.status_code, headers=error.headers, media_type=MEDIA_TYPE)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        detail = f"该地址支持：{headers['allow']}。" if "allow" in headers else "请检查地址后重试。"
        return problem_response(Problem(code, detail, headers=headers), request.url.path)

    async def on_any(request: Request, error: Exception) -> Response:
        if is_unavailable(error):
            log.warning("database unavailable", path=request.url.path, error=describe(error))
            problem = Problem(
                ProblemCode.UNAVAILABLE,
                "数据库暂时不可用，请稍后重试；可用同一 Idempotency-Key 安全重试。",
                headers={"Retry-After": "5"},
            )
        else:
            # the database's own texts quote documents
            shown = None if isinstance(error, PyMongoError) else error
            log.error("request failed", path=request.url.path, error=describe(error), exc_info=shown)
            problem = Problem(ProblemCode.INTERNAL, "请稍后重试；若仍出现，请把 trace_id 告知管理员。")
        return problem_response(problem, request.url.path)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_any)
