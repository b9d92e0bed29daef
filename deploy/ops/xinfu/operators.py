"""Asking services as an operator: whoever does not answer is named, and the others are asked all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import BaseModel

from xinfu.client import Citizenry, Client, RefusedError
from xinfu.compose import Endpoints
from xinfu.terminal import console, fail
from xinfu_local import StackError

PATIENCE_SECONDS = 3.0
_TIMEOUT_SECONDS = 60

UNANSWERED = (RefusedError, ClientError, TimeoutError, OSError, ValueError)
"""A service that refuses, does not answer, or answers something else than it should."""

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


class Services:
    """The services of an installation, asked as an operator."""

    def __init__(self, client: Client, urls: Mapping[str, str]) -> None:
        self.client = client
        self.urls = urls

    async def ask(self, shape: type[S], service: str, path: str, **query: Any) -> S:
        """The answer to a GET. Raises what ``UNANSWERED`` names."""
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self.urls[service]}/v1/operations/{path}?{urlencode(given)}"
        return shape.model_validate(await self.client.call("GET", url))

    async def post(self, shape: type[S], service: str, path: str, body: BaseModel) -> S:
        """The answer to a POST of ``body``."""
        url = f"{self.urls[service]}/v1/operations/{path}"
        answer = await self.client.call("POST", url, body.model_dump(mode="json", exclude_none=True))
        return shape.model_validate(answer)


def _words(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("请写明原因")
    return text


Reason = Annotated[str, typer.Option(callback=_words, help="为什么；与操作人、时间一起记入操作记录")]


@asynccontextmanager
async def as_operator(
    endpoints: Endpoints, timeout_seconds: float, patience_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[Services]:
    """The services, asked with the operator's token. ``timeout_seconds``: of one call; ``patience_seconds``: see Client."""
    async with ClientSession(timeout=ClientTimeout(total=timeout_seconds)) as session:
        yield Services(await Citizenry(session, endpoints).ops(patience_seconds), endpoints.services)


def operate(
    data_dir: Path, work: Callable[[Services], Awaitable[bool]], timeout_seconds: float = _TIMEOUT_SECONDS
) -> None:
    """Do ``work`` as the operator; exit with status 1 unless it returns True. ``timeout_seconds``: of one call."""

    async def main() -> bool:
        async with as_operator(Endpoints.read(data_dir), timeout_seconds) as services:
            return await work(services)

    try:
        good = asyncio.run(main())
    except (StackError, RefusedError, ClientError, TimeoutError, OSError) as error:
        fail(error or type(error).__name__)
    except KeyboardInterrupt:
        console.print("已中断")
        good = False
    if not good:
        raise typer.Exit(1)


async def everyone(
    names: Iterable[str], ask: Callable[[str], Awaitable[T]]
) -> tuple[dict[str, T], dict[str, str]]:
    """Answers by service, and why there is none from the others."""
    answers: dict[str, T] = {}
    failures: dict[str, str] = {}

    async def one(name: str) -> None:
        try:
            answers[name] = await ask(name)
        except UNANSWERED as error:
            failures[name] = str(error) or type(error).__name__

    names = list(names)
    await asyncio.gather(*map(one, names))
    return {name: answers[name] for name in names if name in answers}, failures


def chosen(services: Services, service: str | None) -> list[str]:
    """All services, or this one. Exits when it is unknown."""
    if service is None:
        return list(services.urls)
    if service not in services.urls:
        fail(f"没有服务 {service}；有的是：{'、'.join(services.urls)}")
    return [service]


def show_failures(failures: Mapping[str, str]) -> None:
    """Say who did not answer."""
    for name, why in failures.items():
        console.print(
            f"[red]✗ {name} 没有回答[/red]：{why}\n  以上不含 {name}；先看它是否在运行（xinfu doctor），恢复后再查一次",
            highlight=False,
            soft_wrap=True,
        )
