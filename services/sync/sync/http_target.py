"""A target that speaks contracts.http.target: JSON over HTTP, signed by Standard Webhooks."""

import hashlib
import json
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from pydantic import ValidationError

from chassis.webhooks import sign
from contracts.http.target import (
    RecordKey,
    RecordQuery,
    RecordView,
    RepairBatch,
    RepairPush,
    RepairResult,
    RepairStatus,
)
from contracts.records import Shape
from sync.target import RefusedError, UnavailableError

MAX_ANSWER_BYTES = 10_000_000
_SHOWN_BYTES = 4000
_TOLERANCE_SECONDS = 300
"""Of timestamps of signatures (Standard Webhooks)."""
_REFUSALS = frozenset({400, 413, 422})

A = TypeVar("A", bound=Shape)
K = TypeVar("K", bound=Hashable)


class HttpTarget:
    """The adapter. Redirects are not followed: a signed body goes to the configured address only."""

    def __init__(
        self,
        http: ClientSession,
        base_url: str,
        secret: str,
        *,
        timeout_seconds: float,
        retry_after_max_seconds: float,
        receipts_url: str | None = None,
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._timeout = ClientTimeout(total=timeout_seconds)
        self._retry_after_max_seconds = retry_after_max_seconds
        self._receipts_url = receipts_url

    async def push(self, batch: Sequence[RepairPush]) -> Mapping[str, RepairResult]:
        """POST /v1/repairs. The same pushes have the same Idempotency-Key and webhook-id, whenever they are sent."""
        identity = "psh_" + batch_digest(batch)
        body = RepairBatch(pushes=list(batch), receipts_url=self._receipts_url).model_dump_json().encode()
        status, answer = await self._post("/v1/repairs", identity, body, {"Idempotency-Key": identity})
        if status == HTTPStatus.ACCEPTED and not answer.strip():
            return received(batch)
        return _by_key(answer, "results", RepairResult, lambda result: result.idempotency_key)

    async def read_back(self, batch: Sequence[RecordKey]) -> Mapping[RecordKey, RecordView]:
        """POST /v1/records/query. Each question has a webhook-id of its own: the answer may differ every time."""
        body = RecordQuery(records=list(batch)).model_dump_json().encode()
        _, answer = await self._post("/v1/records/query", f"qry_{uuid.uuid4().hex}", body, {})
        return _by_key(answer, "records", RecordView, lambda view: view.record)

    async def _post(
        self, path: str, message_id: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            async with self._http.post(
                self._base_url + path,
                data=body,
                headers={**sign(self._secret, message_id, body), **headers},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
                    return response.status, await _read(response)
                said = (await response.content.read(_SHOWN_BYTES)).decode("utf-8", "replace")
                if response.status in _REFUSALS:
                    raise RefusedError(f"HTTP {response.status} to {path}", said)
                reason = f"HTTP {response.status} to {path}{_hint(response)}"
                raise UnavailableError(reason, self._retry_after(response), said)
        except TimeoutError:
            raise UnavailableError(f"no answer to {path} within {self._timeout.total:g} s") from None
        except (ClientError, OSError) as error:
            raise UnavailableError(f"{path}: {type(error).__name__}: {error}") from None

    def _retry_after(self, response: ClientResponse) -> float:
        """Seconds of Retry-After (RFC 9110, 10.2.3: seconds or a date), at most the configured ones; 0 without one.

        A date is compared with the target's own clock, when it tells that: it may be wrong, and its waits right all the same.
        """
        value = response.headers.get("Retry-After", "").strip()
        try:
            seconds = (
                float(value)
                if value.isdecimal()
                else (parsedate_to_datetime(value).astimezone(UTC) - _its_clock(response)).total_seconds()
            )
        except ValueError:
            return 0.0
        return min(max(seconds, 0.0), self._retry_after_max_seconds)


def batch_digest(batch: Sequence[RepairPush]) -> str:
    """Names a batch: the same for the same pushes, in whatever order and whenever."""
    return hashlib.sha256("\n".join(sorted(push.idempotency_key for push in batch)).encode()).hexdigest()


def received(batch: Sequence[RepairPush]) -> dict[str, RepairResult]:
    """The answer "taken, what becomes of it is told later" for all of a batch."""
    return {
        push.idempotency_key: RepairResult(idempotency_key=push.idempotency_key, status=RepairStatus.RECEIVED)
        for push in batch
    }


def _its_clock(response: ClientResponse) -> datetime:
    """The target's time by its Date header, else ours."""
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def _hint(response: ClientResponse) -> str:
    """What an operator should look at, where the answer shows it."""
    if 300 <= response.status < 400:
        return f": a redirect to {response.headers.get('Location', 'nowhere')[:200]}, which is not followed"
    off = (_its_clock(response) - datetime.now(UTC)).total_seconds()
    if response.status == HTTPStatus.UNAUTHORIZED and abs(off) > _TOLERANCE_SECONDS:
        return f": its clock is {off:+.0f} s off, so it takes no signature of ours"
    return ""


async def _read(response: ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise UnavailableError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _by_key(answer: bytes, member: str, model: type[A], key: Callable[[A], K]) -> dict[K, A]:
    """Rows of an answer. A malformed row is left out; so is a key that was answered twice, and differently."""
    try:
        rows = json.loads(answer)[member]
        if not isinstance(rows, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        said = answer[:_SHOWN_BYTES].decode("utf-8", "replace")
        raise UnavailableError(f"the answer is not JSON with a list {member}", answer=said) from None
    found: dict[K, A] = {}
    unclear: set[K] = set()
    for row in rows:
        try:
            parsed = model.model_validate(row)
        except ValidationError:
            continue
        if found.setdefault(key(parsed), parsed) != parsed:
            unclear.add(key(parsed))
    return {k: parsed for k, parsed in found.items() if k not in unclear}
