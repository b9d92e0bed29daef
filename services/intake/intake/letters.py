"""Letters as applicants read them: kept and printed by dept-adapter, passed on piece by piece."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import ClientError, ClientSession, ClientTimeout
from fastapi.responses import StreamingResponse

from chassis.auth import ServiceToken
from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.errors import ProblemCode

log = get_logger(__name__)
_TIMEOUT = ClientTimeout(total=60, sock_connect=5, sock_read=30)
_PASSED_ON = ("Content-Length", "Content-Disposition", "Content-Security-Policy", "Referrer-Policy")


class LetterFetcher:
    """Client of dept-adapter's internal API."""

    def __init__(self, http: ClientSession, dept_adapter_url: str, token: ServiceToken) -> None:
        self._http = http
        self._url = dept_adapter_url.rstrip("/")
        self._token = token

    async def response(self, letter_id: str, form: str) -> StreamingResponse:
        """The letter as dept-adapter gives it. Raises Problem UNAVAILABLE, BUSY."""
        url = f"{self._url}/v1/internal/letters/{letter_id}"
        try:
            headers = await self._token.headers()
            answer = await self._http.get(url, params={"format": form}, headers=headers, timeout=_TIMEOUT)
        except (ClientError, TimeoutError, OSError) as error:
            log.warning("dept-adapter does not answer", error=type(error).__name__)
            raise _unavailable() from None
        if answer.status != HTTPStatus.OK:
            answer.release()
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise Problem(
                    ProblemCode.BUSY, "正在生成的文书太多，请 2 秒后重试。", headers={"Retry-After": "2"}
                )
            log.warning("dept-adapter does not give a letter", letter_id=letter_id, status=answer.status)
            raise _unavailable()

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_chunked(65_536):
                    yield piece

        passed_on = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        return StreamingResponse(
            pieces(),
            media_type=answer.headers["Content-Type"],
            headers={
                **passed_on,
                "Cache-Control": "private, no-store",
                "X-Content-Type-Options": "nosniff",
            },
        )


def _unavailable() -> Problem:
    return Problem(
        ProblemCode.UNAVAILABLE, "文书暂时无法读取，请稍后重试；不影响其效力。", headers={"Retry-After": "5"}
    )
