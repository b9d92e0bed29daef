"""HTTP as a citizen, an officer or an operator of the local stack would do it. Survives services that are restarted meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from contracts.tokens import Scope
from xinfu.compose import Endpoints


class RefusedError(Exception):
    """The other side answered with a problem; the text says what and why."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        try:
            problem = json.loads(body)
            text = f"{problem.get('title', '')}：{problem.get('detail', body)}"
        except ValueError:
            text = body[:300]
        super().__init__(f"{method} {url} → {status} {text}")
        self.status = status


class Client:
    """A session with a bearer token, if any. ``patience_seconds``: how long a refused connection or a 502–504 is tried again."""

    def __init__(
        self, session: ClientSession, token: str | None = None, patience_seconds: float = 30
    ) -> None:
        self._session = session
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._patience = patience_seconds

    async def call(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON answer. Raises RefusedError for a 4xx or 5xx, ClientError when nobody answers for too long."""
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                async with self._session.request(
                    method, url, json=body, headers={**self._headers, **(headers or {})}
                ) as response:
                    text = await response.text()
                    if response.status < 400:
                        return json.loads(text) if text else None
                    error: Exception = RefusedError(method, url, response.status, text)
                    if response.status not in (429, 502, 503, 504):
                        raise error
            except (ClientError, TimeoutError) as failure:
                error = failure
            if asyncio.get_running_loop().time() > deadline:
                raise error
            await asyncio.sleep(0.3)

    async def content(self, url: str) -> bytes:
        """A file. Raises RefusedError for a 4xx or 5xx."""
        async with self._session.get(url, headers=self._headers) as response:
            if response.status >= 400:
                raise RefusedError("GET", url, response.status, await response.text())
            return await response.read()

    @asynccontextmanager
    async def upload(self, url: str, data: Any, content_type: str) -> AsyncIterator[ClientResponse]:
        """Send a body and read the answer as a stream. Raises RefusedError for a 4xx or 5xx."""
        headers = {**self._headers, "content-type": content_type}
        async with self._session.post(
            url, data=data, headers=headers, timeout=ClientTimeout(total=None, sock_connect=10)
        ) as response:
            if response.status >= 400:
                raise RefusedError("POST", url, response.status, await response.text())
            yield response

    async def events(self, url: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as (event, data); comes again with Last-Event-ID when the connection ends."""
        last = ""
        while True:
            headers = {**self._headers, **({"last-event-id": last} if last else {})}
            try:
                async with self._session.get(
                    url, headers=headers, timeout=ClientTimeout(total=None)
                ) as response:
                    if response.status >= 500:
                        raise ClientError(f"{url} → {response.status}")
                    if response.status >= 400:
                        raise RefusedError("GET", url, response.status, await response.text())
                    kind = ""
                    async for raw in response.content:
                        name, _, value = raw.decode().rstrip("\r\n").partition(": ")
                        if name == "event":
                            kind = value
                        elif name == "id":
                            last = value
                        elif name == "data":
                            yield kind, json.loads(value)
            except (ClientError, TimeoutError):
                await asyncio.sleep(0.3)


class Citizenry:
    """Signs people in at the sandbox's issuer, and the ops client with its secret."""

    def __init__(self, session: ClientSession, endpoints: Endpoints) -> None:
        self._session = session
        self._endpoints = endpoints

    async def sign_in(self, sub: str, scope: Scope, **claims: Any) -> Client:
        """Somebody signed in, in place of a sign-in page."""
        answer = await Client(self._session).call(
            "POST", f"{self._endpoints.oidc}/sandbox/sign-in", {"sub": sub, "scope": scope.value, **claims}
        )
        return Client(self._session, answer["access_token"])

    async def ops(self, patience_seconds: float = 30) -> Client:
        """The ops client (client credentials). ``patience_seconds``: see Client."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self._endpoints.ops_client,
            "client_secret": self._endpoints.ops_secret,
        }
        async with self._session.post(f"{self._endpoints.oidc}/token", data=form) as response:
            text = await response.text()
            if response.status >= 400:
                raise RefusedError("POST", f"{self._endpoints.oidc}/token", response.status, text)
        return Client(self._session, json.loads(text)["access_token"], patience_seconds)
