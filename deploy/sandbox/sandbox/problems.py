"""Errors as RFC 9457 problem details, those of the framework included."""

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from contracts.errors import ProblemCode, problem_type


class Problem(Exception):  # noqa: N818 (RFC 9457's own word)
    """Raise anywhere in a request; ``detail`` says what is wrong and what to do."""

    def __init__(
        self, status: int, code: ProblemCode | None, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """The answer."""
        known = self.status in HTTPStatus.__members__.values()
        body = {
            # about:blank: the status alone tells the problem (RFC 9457, section 4.2.1).
            "type": problem_type(self.code) if self.code else "about:blank",
            "title": HTTPStatus(self.status).phrase if known else str(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        return JSONResponse(body, self.status, headers or self.headers, media_type="application/problem+json")


async def _answer(_: Request, error: Exception) -> Response:
    match error:
        case Problem():
            return error.response()
        case RequestValidationError():
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            return Problem(422, ProblemCode.VALIDATION, f"{where}: {first['msg']}").response()
        case HTTPException(status_code=404):
            return Problem(404, ProblemCode.NOT_FOUND, "nothing here: GET / lists what there is").response()
        case HTTPException():
            headers = dict(error.headers or {})
            return Problem(error.status_code, None, error.detail).response(headers)
        case _:
            # The server logs the cause with its traceback.
            return Problem(500, ProblemCode.INTERNAL, "see the log of the sandbox").response()


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem."""
    for kind in (Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
