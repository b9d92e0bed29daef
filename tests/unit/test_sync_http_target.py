"""Sync's HTTP adapter against a real server that misbehaves: what is not clearly answered is not believed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import ClientSession, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chassis.webhooks import verify
from contracts.http.target import RecordKey, RepairPush, RepairStatus
from contracts.records import DisplayState
from sync.http_target import MAX_ANSWER_BYTES, HttpTarget
from sync.target import RefusedError, UnavailableError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connect(Protocol):
    async def __call__(self, handler: Handler, timeout_seconds: float = 30) -> HttpTarget: ...


def key(number: int) -> RecordKey:
    return RecordKey(
        subject_code="91330100MA27XF1Q0T",
        document_number=f"杭测罚〔2026〕{number}号",
        authority_name="杭州市教育局",
    )


def push(number: int) -> RepairPush:
    return RepairPush(
        idempotency_key=f"alpha:{number}:1",
        record=key(number),
        subject_name="测试公司",
        state=DisplayState.PUBLICATION_ENDED,
        version=1,
        decision_number="修〔2026〕1号",
        decided_at=datetime(2026, 3, 2, tzinfo=UTC),
    )


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Starts a server with one handler for everything; gives the adapter pointed at it."""
    runners: list[web.AppRunner] = []
    async with ClientSession() as http:

        async def start(handler: Handler, timeout_seconds: float = 30) -> HttpTarget:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app)
            runners.append(runner)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            return HttpTarget(
                http,
                f"http://127.0.0.1:{port}/base/",
                SECRET,
                timeout_seconds=timeout_seconds,
                retry_after_max_seconds=100,
            )

        yield start
    for runner in runners:
        await runner.cleanup()


def answering(status: int = 200, body: Any = None, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(
            status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return handler


async def test_a_repeated_batch_is_recognisable_and_signed_whatever_its_order(connect: Connect) -> None:
    seen: list[tuple[str, str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        identity = verify(SECRET, request.headers, await request.read())
        seen.append((request.path, identity, request.headers["Idempotency-Key"]))
        return web.json_response({"results": []})

    target = await connect(handler)
    await target.push([push(1), push(2)])
    await target.push([push(2), push(1)])
    await target.push([push(1)])
    first, second, third = seen
    assert first == second != third
    assert first[0] == "/base/v1/repairs"
    assert first[1] == first[2]


async def test_a_redirect_is_not_followed(connect: Connect) -> None:
    visited = []

    async def handler(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    with pytest.raises(UnavailableError, match=r"307 .*a redirect to /elsewhere, which is not followed"):
        await (await connect(handler)).push([push(1)])
    assert visited == ["/base/v1/repairs"]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("9999999", 100, 100),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        ("٣", 0, 100),
        (timedelta(seconds=50), 1, 50),
        (timedelta(days=-1), 0, 0),
        (timedelta(days=9), 100, 100),
    ],
)
async def test_retry_after_is_read_and_clamped(
    connect: Connect, value: str | timedelta, low: float, high: float
) -> None:
    if isinstance(value, timedelta):
        value = format_datetime(datetime.now(UTC) + value, usegmt=True)
    target = await connect(answering(429, "", Retry_After=value))
    with pytest.raises(UnavailableError) as caught:
        await target.push([push(1)])
    assert low <= caught.value.retry_after_seconds <= high


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RefusedError), (413, RefusedError), (422, RefusedError)]
    + [(status, UnavailableError) for status in (201, 204, 401, 403, 404, 409, 500, 502)],
)
async def test_only_200_is_an_answer(connect: Connect, status: int, error: type[Exception]) -> None:
    target = await connect(
        answering(status, {"results": [{"idempotency_key": "alpha:1:1", "status": "applied"}]})
    )
    with pytest.raises(error):
        await target.push([push(1)])


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", "null", '{"results": {}}', '{"results": null}', "[" * 100_000]
)
async def test_an_answer_of_another_shape_is_no_answer(connect: Connect, body: str) -> None:
    with pytest.raises(UnavailableError):
        await (await connect(answering(200, body))).push([push(1)])


async def test_malformed_and_contradicting_rows_are_left_out(connect: Connect) -> None:
    def row(name: str, status: Any) -> dict[str, Any]:
        return {"idempotency_key": name, "status": status}

    rows = [
        row("good", "applied"),
        7,
        None,
        row("odd", "queued"),
        {"status": "applied"},
        row("good", "applied"),
    ]
    rows += [row("both", "applied"), row("both", "rejected"), row("both", "applied"), row("no", "rejected")]
    found = await (await connect(answering(200, {"results": rows}))).push([push(1)])
    assert {k: r.status for k, r in found.items()} == {
        "good": RepairStatus.APPLIED,
        "no": RepairStatus.REJECTED,
    }


async def test_views_are_matched_by_the_key_asked_for(connect: Connect) -> None:
    rows = [
        {"record": key(2).model_dump(), "state": "published", "version": None},
        {"record": key(1).model_dump(), "state": None},
        {"record": key(3).model_dump(), "state": "vanished"},
    ]
    found = await (await connect(answering(200, {"records": rows}))).read_back([key(1), key(2), key(3)])
    assert {k: view.state for k, view in found.items()} == {key(2): DisplayState.PUBLISHED, key(1): None}


async def test_silence_an_endless_answer_and_a_closed_door_are_unavailable(connect: Connect) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(3)
        return web.json_response({"results": []})

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 1_000_000)

    async def slammed(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    for handler, timeout_seconds, reason in (
        (silent, 0.3, "within 0.3 s"),
        (endless, 30, str(MAX_ANSWER_BYTES)),
        (slammed, 30, "Disconnected"),
    ):
        target = await connect(handler, timeout_seconds)
        with pytest.raises(UnavailableError, match=reason):
            await target.push([push(1)])


async def test_a_later_receipt_is_announced(connect: Connect) -> None:
    """202 without a body is of all pushes; with one, of those it names."""
    target = await connect(answering(202, ""))
    told = await target.push([push(1), push(2)])
    assert {result.status for result in told.values()} == {RepairStatus.RECEIVED}
    assert len(told) == 2
    one = {"results": [{"idempotency_key": "alpha:1:1", "status": "received"}]}
    assert list(await (await connect(answering(202, one))).push([push(1), push(2)])) == ["alpha:1:1"]


async def test_a_target_whose_clock_is_wrong_is_told_from_one_with_a_wrong_secret(connect: Connect) -> None:
    late = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    with pytest.raises(UnavailableError, match=r"HTTP 401 .* its clock is \+7\d+ s off"):
        await (await connect(answering(401, "", Date=late))).push([push(1)])
    with pytest.raises(UnavailableError, match=r"HTTP 401 to /v1/repairs$"):
        await (await connect(answering(401, ""))).push([push(1)])
    # and its waits are measured by its own clock
    wait = format_datetime(datetime.now(UTC) + timedelta(hours=2, seconds=50), usegmt=True)
    with pytest.raises(UnavailableError) as told:
        await (await connect(answering(503, "", Date=late, Retry_After=wait))).push([push(1)])
    assert 45 <= told.value.retry_after_seconds <= 51


async def test_what_a_failing_target_says_is_kept_short(connect: Connect) -> None:
    with pytest.raises(UnavailableError) as told:
        await (await connect(answering(500, "错" * 100_000))).push([push(1)])
    assert 0 < len(told.value.answer) <= 4000
    with pytest.raises(RefusedError) as refused:
        await (await connect(answering(422, "批次过大"))).push([push(1)])
    assert "批次过大" in refused.value.answer


async def test_a_wrong_certificate_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + made.public_bytes(Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession() as http:
        target = HttpTarget(http, url, SECRET, timeout_seconds=5, retry_after_max_seconds=1)
        with pytest.raises(UnavailableError, match="certificate verify failed"):
            await target.push([push(1)])
    await runner.cleanup()
