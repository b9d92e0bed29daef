"""What an HTTP server lets in: bodies up to a size (413), and so many requests at work at once (429).

Pure ASGI, outside of the application: a refused request costs no parsing, no token check and no database.
"""

import random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.metrics import REQUESTS_AT_WORK, REQUESTS_REFUSED
from chassis.problems import Problem, problem_response
from contracts.errors import ProblemCode

_ALWAYS_ANSWERED = frozenset({"/livez", "/readyz", "/metrics"})
_LONGEST_RETRY_SECONDS = 3


class RequestLimit:
    """Refuses requests beyond ``max_requests`` at work with 429 and Retry-After. A service that is full still says how it is.

    An event stream counts until it begins: from then on it waits more than it works, and has a limit of its own.
    """

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._max = max_requests
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self._at_work >= self._max:
            REQUESTS_REFUSED.inc()
            await problem_response(_busy(), scope["path"])(scope, receive, send)
            return
        counted = True

        def leave() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._count(-1)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_event_stream(message):
                leave()
            await send(message)

        self._count(1)
        try:
            await self._app(scope, receive, watched)
        finally:
            leave()

    def _count(self, change: int) -> None:
        self._at_work += change
        REQUESTS_AT_WORK.set(self._at_work)


def _busy() -> Problem:
    # not the same for all, so that they do not come back together
    seconds = random.randint(1, _LONGEST_RETRY_SECONDS)  # noqa: S311 (jitter, not a secret)
    return Problem(
        ProblemCode.BUSY,
        f"服务正在处理的请求已达上限，本次请求未作任何处理，请在 {seconds} 秒后重试。",
        headers={"Retry-After": str(seconds)},
        cause="requests",
    )


def _is_event_stream(start: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream") for name, value in start["headers"]
    )


class BodyLimit:
    """Refuses request bodies over a limit with 413, whether or not their length is declared."""

    def __init__(self, app: ASGIApp, max_bytes: int, unlimited_paths: frozenset[str]) -> None:
        self._app = app
        self._max = max_bytes
        self._unlimited = unlimited_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unlimited:
            await self._app(scope, receive, send)
            return
        # Not "Connection: close": closing while the client still sends resets the connection, and the answer is lost (RFC
        # 9112, 9.6). uvicorn discards the rest of the body.
        problem = Problem(ProblemCode.TOO_LARGE, f"请求正文不得超过 {self._max} 字节，请精简后重试。")
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max:
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                raise problem
            return message

        await self._app(scope, limited, send)
