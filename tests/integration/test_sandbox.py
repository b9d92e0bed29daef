"""Drives the sandbox as others meet it: a real process, real HTTP, SMTP and OTLP."""

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.errors import ExpiredTokenError
from joserfc.jwk import KeySet
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind
from standardwebhooks import Webhook

from support import PATIENCE

T = TypeVar("T")

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
TARGETS = ("credit-china", "credit-zhejiang", "qichacha", "tianyancha")
SAMR = "11330100XF0000028L"
AUTHORITY = "杭州市市场监督管理局"
ID_NUMBER = "330199199001011234"


@dataclass
class Sandbox:
    """A sandbox process that can be killed and started again on the same data and ports."""

    data_dir: Path
    http_port: int
    smtp_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        settings = {
            "HTTP_PORT": str(self.http_port),
            "SMTP_PORT": str(self.smtp_port),
            "DATA_DIR": str(self.data_dir),
            "DECISION_DELAY_SECONDS": "0.2",
            "TARGET_SECRETS": json.dumps(dict.fromkeys(TARGETS, SECRET)),
            "DEPARTMENT_SECRETS": json.dumps({"hz-samr": SECRET}),
            "OIDC_CLIENTS": json.dumps({"dept:adapter": {"secret": "p%ss/ +", "scope": "cases.read x"}}),
        }
        env = os.environ | {f"SANDBOX_{name}": value for name, value in settings.items()}
        with (self.data_dir.parent / "sandbox.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox"], env=env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30 * PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.data_dir.parent / "sandbox.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.http_port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the sandbox does not listen")

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    found = Sandbox(tmp_path_factory.mktemp("sandbox") / "data", *_free_ports())
    found.start()
    yield found
    assert found.end(signal.SIGTERM) == 0


@pytest.fixture
async def http(shared: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(shared.url) as session:
        yield session
        async with session.delete("/sandbox/faults") as cleared:
            assert cleared.status == 204


async def _eventually(
    read: Callable[[], Awaitable[T]], ready: Callable[[T], object], seconds: float = 20
) -> T:
    deadline = time.monotonic() + seconds
    while True:
        value = await read()
        if ready(value):
            return value
        assert time.monotonic() < deadline, f"last seen: {value}"
        await asyncio.sleep(0.05)


def _signed(body: bytes, message_id: str, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "content-type": "application/json",
        "idempotency-key": message_id,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(message_id, at, body.decode()),
    }


async def _post(
    http: aiohttp.ClientSession, path: str, body: Any, message_id: str = "msg_1"
) -> tuple[int, Any]:
    raw = json.dumps(body).encode()
    async with http.post(path, data=raw, headers=_signed(raw, message_id)) as answer:
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
        return answer.status, await answer.json(content_type=None)


async def _get(http: aiohttp.ClientSession, path: str, **query: str | int) -> Any:
    async with http.get(path, params=query) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def _command(http: aiohttp.ClientSession, path: str, body: Any) -> Any:
    async with http.post(path, json=body) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json() if answer.status != 204 else None


# --- targets ---------------------------------------------------------------------------------------------


def _key(code: str, number: str = "杭市监罚〔2026〕7号") -> dict[str, str]:
    return {"subject_code": code, "document_number": number, "authority_name": AUTHORITY}


def _push(key: dict[str, str], version: int, state: str = "publication_ended") -> dict[str, Any]:
    return {
        "idempotency_key": f"{key['subject_code']}/{key['document_number']}/{version}",
        "record": key,
        "subject_name": "示例公司",
        "state": state,
        "version": version,
        "decision_number": "杭市监信修〔2026〕1号",
        "decided_at": "2026-11-02T09:00:00+08:00",
    }


async def _seed(http: aiohttp.ClientSession, target: str, *keys: dict[str, str], **more: Any) -> Any:
    records = [
        {"record": key, "subject_name": "示例公司", "category": "samr_administrative_penalty", **more}
        for key in keys
    ]
    return await _command(http, f"/targets/{target}/sandbox/records", {"records": records})


async def _repair(http: aiohttp.ClientSession, target: str, *pushes: dict[str, Any]) -> list[str]:
    status, answer = await _post(http, f"/targets/{target}/v1/repairs", {"pushes": list(pushes)})
    assert status == 200, answer
    return [result["status"] for result in answer["results"]]


async def _seen(
    http: aiohttp.ClientSession, target: str, key: dict[str, str]
) -> tuple[str | None, int | None]:
    status, answer = await _post(http, f"/targets/{target}/v1/records/query", {"records": [key]})
    assert status == 200, answer
    (view,) = answer["records"]
    assert view["record"] == key
    return view["state"], view["version"]


async def _effects(http: aiohttp.ClientSession, target: str) -> dict[str, int]:
    summary: dict[str, int] = (await _get(http, f"/targets/{target}/sandbox/log", limit=0))["summary"]
    return summary


async def test_push_takes_effect_once_and_never_backwards(http: aiohttp.ClientSession) -> None:
    key = _key("91330100XD00000017")
    await _seed(http, "credit-china", key)
    assert await _seen(http, "credit-china", key) == ("published", None)
    public = await _get(http, "/targets/credit-china/public", subject_code=key["subject_code"])
    assert [record["document_number"] for record in public["records"]] == [key["document_number"]]

    # The platform writes the 文号 in another way than we do; it is the same record.
    ours = {**key, "document_number": "杭市监罚[2026]7号"}
    assert await _repair(http, "credit-china", _push(ours, 1)) == ["applied"]
    assert await _repair(http, "credit-china", _push(ours, 1)) == ["applied"]
    assert await _seen(http, "credit-china", key) == ("publication_ended", 1)
    public = await _get(http, "/targets/credit-china/public", subject_code=key["subject_code"])
    assert public["records"] == []

    assert await _repair(http, "credit-china", _push(ours, 3, "published")) == ["applied"]
    assert await _repair(http, "credit-china", _push(ours, 2)) == ["superseded"]
    assert await _repair(http, "credit-china", _push(ours, 1)) == ["superseded"]
    assert await _repair(http, "credit-china", _push(ours, 3)) == ["rejected"], "one version, two states"
    assert await _repair(
        http, "credit-china", {**_push(ours, 4), "idempotency_key": _push(ours, 3)["idempotency_key"]}
    ) == ["rejected"]
    assert await _repair(http, "credit-china", _push(_key("91330100XD00000025"), 1)) == ["rejected"]
    assert await _seen(http, "credit-china", key) == ("published", 3)
    # Seeding again is what a department's daily feed does: it undoes nothing.
    assert await _repair(http, "credit-china", _push(ours, 4)) == ["applied"]
    await _seed(http, "credit-china", key)
    assert await _seen(http, "credit-china", key) == ("publication_ended", 4)
    assert await _effects(http, "credit-china") == {
        "received": 9,
        "first_effect": 3,
        "repeated": 1,
        "superseded": 2,
        "rejected": 3,
        "held": 0,
        "held_back": 0,
        "forgotten": 0,
    }


async def test_forgotten_record_can_be_pushed_again_with_the_same_key(http: aiohttp.ClientSession) -> None:
    kept, lost = _key("91330100XD00000033"), _key("91330100XD00000041")
    await _seed(http, "tianyancha", kept, lost)
    assert await _repair(http, "tianyancha", _push(kept, 5), _push(lost, 5)) == ["applied"] * 2
    answer = await _command(
        http, "/targets/tianyancha/sandbox/forget", {"subject_code": lost["subject_code"]}
    )
    assert answer == {"forgotten": 1}
    assert await _seen(http, "tianyancha", lost) == ("published", None)
    assert await _seen(http, "tianyancha", kept) == ("publication_ended", 5)
    assert await _repair(http, "tianyancha", _push(lost, 5)) == ["applied"]
    assert await _seen(http, "tianyancha", lost) == ("publication_ended", 5)


async def test_vendor_takes_no_natural_persons(http: aiohttp.ClientSession) -> None:
    person = _key(ID_NUMBER)
    assert (await _seed(http, "qichacha", person))["stored"] == 0
    assert await _repair(http, "qichacha", _push(person, 1)) == ["rejected"]
    status, _ = await _post(http, "/targets/qichacha/v1/records/query", {"records": [person]})
    assert status == 422
    # The provincial platform does show them.
    assert (await _seed(http, "credit-zhejiang", person))["stored"] == 1
    assert await _repair(http, "credit-zhejiang", _push(person, 1)) == ["applied"]
    # A USCC of digits alone, with a date where an ID number has the birthday, is no person.
    company = _key("913301199007020051")
    await _seed(http, "qichacha", company)
    assert await _repair(http, "qichacha", _push(company, 1)) == ["applied"]


async def test_requests_a_target_refuses(http: aiohttp.ClientSession) -> None:
    path = "/targets/qichacha/v1/repairs"
    body = json.dumps({"pushes": [_push(_key("91330100XD00000017"), 1)]}).encode()
    stale = _signed(body, "m", datetime.now(UTC) - timedelta(minutes=6))
    unsigned = {name: value for name, value in _signed(body, "m").items() if name != "webhook-signature"}
    before = await _effects(http, "qichacha")
    for headers, sent in (
        (_signed(body, "m"), body.replace(b'"version": 1', b'"version": 2')),
        (_signed(body, "m") | {"webhook-id": "other"}, body),
        (_signed(body, "m") | {"webhook-signature": "nonsense"}, body),
        (_signed(body, "m") | {"webhook-signature": "v1,***"}, body),
        (stale, body),
        (unsigned, body),
    ):
        async with http.post(path, data=sent, headers=headers) as answer:
            assert answer.status == 401
            assert answer.content_type == "application/problem+json"
            assert (await answer.json())["type"] == "urn:xinfu:problem:bad-signature"
    no_key = {name: value for name, value in _signed(body, "m").items() if name != "idempotency-key"}
    async with http.post(path, data=body, headers=no_key) as answer:
        assert answer.status == 400
    many = [_push(_key("91330100XD00000017"), n) for n in range(1, 502)]
    for count, expected in ((51, 413), (501, 413), (0, 422)):
        status, _ = await _post(http, path, {"pushes": many[:count]})
        assert status == expected, count
    assert (await _post(http, "/targets/nowhere/v1/repairs", {}))[0] == 404
    assert await _effects(http, "qichacha") == before
    async with http.post(path, data=b"x" * 10_000_001) as answer:
        assert answer.status == 413


async def test_target_misbehaves_as_told(http: aiohttp.ClientSession) -> None:
    target = "credit-zhejiang"
    keys = [_key("91330100XD00000050", f"杭市监罚〔2026〕{n}号") for n in range(1, 5)]
    pushes = [_push(key, 1) for key in keys]
    await _seed(http, target, *keys)

    async def fault(**body: Any) -> None:
        await _command(http, f"/sandbox/faults/{target}", body)

    async def push(*some: dict[str, Any]) -> tuple[int, Any]:
        return await _post(http, f"/targets/{target}/v1/repairs", {"pushes": list(some)})

    before = await _effects(http, target)
    await fault(mode="fail", count=2, status=502)
    assert [(await push(pushes[0]))[0] for _ in range(2)] == [502, 502]
    await fault(mode="timeout", seconds=30)
    with pytest.raises(TimeoutError):
        async with http.post(
            f"/targets/{target}/v1/repairs",
            data=(raw := json.dumps({"pushes": pushes}).encode()),
            headers=_signed(raw, "m"),
            timeout=aiohttp.ClientTimeout(total=0.3),
        ):
            pass
    assert await _effects(http, target) == before, "nothing was done"

    await fault(mode="apply_then_fail", count=1, status=500)
    assert await _seen(http, target, keys[0]) == ("published", None), "reading uses nothing up"
    assert (await push(pushes[0]))[0] == 500
    assert await _seen(http, target, keys[0]) == ("publication_ended", 1)
    assert await _repair(http, target, pushes[0]) == ["applied"]

    await fault(mode="partial", count=1)
    status, answer = await push(*pushes[1:])
    assert (status, len(answer["results"])) == (200, 1)
    assert [(await _seen(http, target, key))[1] for key in keys] == [1, 1, None, None]

    await fault(mode="answer_twice", count=1)
    assert await _repair(http, target, pushes[2]) == ["applied", "applied"]
    await fault(mode="slow", seconds=0.3, count=1)
    started = time.monotonic()
    assert await _repair(http, target, pushes[3]) == ["applied"]
    assert time.monotonic() - started >= 0.3

    after = await _effects(http, target)
    assert after["first_effect"] - before["first_effect"] == 4
    assert after["repeated"] - before["repeated"] == 1
    assert (await _get(http, "/sandbox/faults"))[target]["fault"] is None, "counts are used up"

    async def draws(seed: int) -> list[int]:
        await fault(mode="fail", rate=0.5, seed=seed)
        return [(await push(pushes[0]))[0] for _ in range(12)]

    first = await draws(1)
    assert set(first) == {200, 503}
    assert await draws(1) == first
    assert await draws(2) != first
    await fault(mode="ok")
    assert (await push(pushes[0]))[0] == 200

    for part, body, expected in (
        ("nowhere", {"mode": "fail"}, 404),
        (target, {"mode": "refuse"}, 422),
        (target, {"mode": "fail", "percent": 3}, 422),
    ):
        assert (await _post(http, f"/sandbox/faults/{part}", body))[0] == expected


async def test_target_takes_out_of_order_and_forgets_and_tells_whose_effect_it_was(
    http: aiohttp.ClientSession,
) -> None:
    target = "tianyancha"
    keys = [_key("91330100XD00000076", f"杭市监罚〔2026〕{n}号") for n in range(1, 4)]
    await _seed(http, target, *keys)
    after = (await _get(http, f"/targets/{target}/sandbox/log"))["pushes"][-1:]
    seq = after[0]["seq"] if after else 0

    async def fault(**body: Any) -> None:
        await _command(http, f"/sandbox/faults/{target}", {"count": 1, **body})

    async def lines() -> list[tuple[str, int, bool, bool, str | None]]:
        log = (await _get(http, f"/targets/{target}/sandbox/log", after=seq))["pushes"]
        return [
            (line["cause"], line["version"], line["effect"], line["held"], line["status"]) for line in log
        ]

    one = keys[0]
    await fault(mode="out_of_order", seconds=600)
    assert await _repair(http, target, _push(one, 1)) == ["applied"]
    assert await _seen(http, target, one) == ("published", None)
    assert await _repair(http, target, _push(one, 2, "published")) == ["applied"]
    assert await _seen(http, target, one) == ("publication_ended", 1), "the older one came last"
    assert await _repair(http, target, _push(one, 2, "published")) == ["applied"]
    assert await _seen(http, target, one) == ("published", 2)
    assert await lines() == [
        ("push", 1, False, True, "applied"),
        ("push", 2, True, False, "applied"),
        ("held_back", 1, True, False, None),
        ("push", 2, True, False, "applied"),
    ]

    # Without another push it takes effect after a while, also when the fault is long gone.
    await fault(mode="out_of_order", seconds=0.3)
    assert await _repair(http, target, _push(keys[1], 1)) == ["applied"]
    assert await _seen(http, target, keys[1]) == ("published", None)
    await _eventually(lambda: _seen(http, target, keys[1]), lambda seen: seen == ("publication_ended", 1))

    await fault(mode="forget")
    assert await _repair(http, target, _push(keys[1], 2), _push(keys[2], 1)) == ["applied", "applied"]
    assert [await _seen(http, target, key) for key in keys] == [("published", 2), *[("published", None)] * 2]
    assert await _repair(http, target, _push(keys[2], 1)) == ["applied"]
    assert (await lines())[-5:] == [
        ("push", 2, True, False, "applied"),
        ("push", 1, True, False, "applied"),
        ("forgotten", 2, True, False, None),
        ("forgotten", 1, True, False, None),
        ("push", 1, True, False, "applied"),
    ]

    found: list[dict[str, Any]] = []
    position: int | None = 0
    while position is not None:
        page = await _get(http, f"/targets/{target}/sandbox/records", after=position, limit=2)
        assert len(page["records"]) <= 2
        found, position = found + page["records"], page["next"]
    shown = {
        record["document_number"]: (record["state"], record["version"])
        for record in found
        if record["subject_code"] == one["subject_code"]
    }
    assert list(shown.values()) == [("published", 2), ("published", None), ("publication_ended", 1)]


# --- departments -----------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """What dept-adapter is to the department: checks signatures, answers as told (then 200)."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    hangs: set[str] = field(default_factory=set)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(SECRET).verify(body, dict(request.headers))
        self.got.append((request.headers["webhook-id"], json.loads(body)))
        if self.got[-1][1]["item_id"] in self.hangs:
            await asyncio.sleep(60)
        return web.json_response({}, status=self.answers.pop(0) if self.answers else 200)

    def outcomes(self, item: str) -> list[str]:
        return [body["outcome"] for _, body in self.got if body["item_id"] == item]

    async def wait(self, item: str, count: int) -> list[str]:
        async def read() -> list[str]:
            return self.outcomes(item)

        return await _eventually(read, lambda found: len(found) >= count)


@asynccontextmanager
async def _receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/decisions", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/decisions"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with _receiving() as found:
        yield found


def _review(url: str, statement: str = "罚款已缴纳，问题已整改。", **changes: Any) -> dict[str, Any]:
    return {
        "item_id": "itm_" + secrets.token_hex(16),
        "application_id": "app_" + "a" * 32,
        "department_code": SAMR,
        "subject": {
            "subject_id": "sub_" + "0" * 32,
            "subject_type": "legal_person",
            "code": "91330100XD00000017",
            "name": "示例公司",
        },
        "contact": {"name": "张三", "phone": "13800005678", "email": None},
        "record": {
            "record_id": "rec_" + "0" * 32,
            "subject_id": "sub_" + "0" * 32,
            "subject_type": "legal_person",
            "category": "samr_administrative_penalty",
            "document_number": "杭市监罚〔2026〕7号",
            "authority_code": SAMR,
            "authority_name": AUTHORITY,
            "decided_on": "2026-01-05",
        },
        "statement": statement,
        "accept_due_on": "2026-11-05",
        "decide_due_on": "2026-11-19",
        "callback_url": url,
        **changes,
    }


async def _submit(http: aiohttp.ClientSession, review: dict[str, Any]) -> tuple[int, Any]:
    return await _post(http, "/departments/hz-samr/reviews", review, review["item_id"])


async def _case(http: aiohttp.ClientSession, item: str) -> dict[str, Any]:
    (found,) = await _get(http, "/departments/hz-samr/cases", item_id=item)
    return dict(found)


async def test_review_leads_to_one_decision(http: aiohttp.ClientSession, receiver: Receiver) -> None:
    review = _review(receiver.url)
    item = review["item_id"]
    status, receipt = await _submit(http, review)
    assert (status, receipt["item_id"]) == (202, item)
    assert await _submit(http, review) == (202, receipt), "the same review again is the same case"
    assert await receiver.wait(item, 2) == ["accepted", "granted"]
    (accepted_id, accepted), (granted_id, granted) = receiver.got
    assert accepted_id != granted_id
    assert accepted["decision_number"] is None
    assert re.fullmatch(r"杭市监信修〔\d{4}〕\d+号", granted["decision_number"])
    # Each comes after the delay, in order.
    received = datetime.fromisoformat((await _case(http, item))["received_at"])
    times = [datetime.fromisoformat(body["occurred_at"]) - received for body in (accepted, granted)]
    assert times == [timedelta(seconds=0.2), timedelta(seconds=0.4)]

    careless = _review(receiver.url, "请尽快处理。")
    await _submit(http, careless)
    assert await receiver.wait(careless["item_id"], 2) == ["accepted", "refused"]
    assert "履行" in receiver.got[-1][1]["reason"]
    assert receiver.got[-1][1]["decision_number"] != granted["decision_number"]
    assert receiver.outcomes(item) == ["accepted", "granted"], "nothing came twice"


async def test_reviews_a_department_refuses_to_take(http: aiohttp.ClientSession, receiver: Receiver) -> None:
    review = _review(receiver.url)
    await _submit(http, review)
    changed = {**review, "record": {**review["record"], "record_id": "rec_" + "1" * 32}}
    assert (await _submit(http, changed))[0] == 409
    for wrong in (
        _review(receiver.url, department_code="11330100XF00000121"),
        _review("ftp://somewhere/"),
        _review(receiver.url, record={}),
    ):
        assert (await _submit(http, wrong))[0] == 422
    other = _review(receiver.url)
    assert (await _post(http, "/departments/hz-samr/reviews", other, "msg_other"))[0] == 422
    async with http.post("/departments/hz-samr/reviews", json=other) as answer:
        assert answer.status == 401
    assert await _get(http, "/departments/hz-samr/cases", item_id=other["item_id"]) == []


async def test_callbacks_in_any_order_and_once_more_later_then_a_revocation(
    http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    await _command(http, "/sandbox/faults/hz-samr", {"mode": "reorder", "seconds": 0.5, "twice": True})
    items = [_review(receiver.url) for _ in range(12)]
    for review in items:
        await _submit(http, review)
    orders = []
    for review in items:
        await receiver.wait(review["item_id"], 4)
        got = [(id_, body["outcome"]) for id_, body in receiver.got if body["item_id"] == review["item_id"]]
        assert sorted(outcome for _, outcome in got) == ["accepted", "accepted", "granted", "granted"]
        assert len(set(got)) == 2, "the second time it is the same callback"
        orders.append(tuple(outcome for _, outcome in got))
    assert {order[0] for order in orders} == {"accepted", "granted"}
    assert any(order[0] != order[1] for order in orders), "the second time does not follow at once"

    item = items[0]["item_id"]
    await _command(http, "/departments/hz-samr/sandbox/decisions", {"item_id": item, "outcome": "revoked"})
    await receiver.wait(item, 5)
    _, body = receiver.got[-1]
    assert (body["item_id"], body["outcome"]) == (item, "revoked")
    assert "撤销信修" in body["decision_number"]
    assert body["reason"]


async def test_a_callback_that_hangs_keeps_no_other_waiting(
    http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    stuck, *others = [_review(receiver.url) for _ in range(4)]
    receiver.hangs.add(stuck["item_id"])
    for review in (stuck, *others):
        await _submit(http, review)
    started = time.monotonic()
    for review in others:
        assert await receiver.wait(review["item_id"], 2) == ["accepted", "granted"]
    assert time.monotonic() - started < 3
    assert receiver.outcomes(stuck["item_id"]) == ["accepted"]
    receiver.hangs.clear()


async def test_department_misbehaves_as_told(http: aiohttp.ClientSession, receiver: Receiver) -> None:
    async def fault(**body: Any) -> None:
        await _command(http, "/sandbox/faults/hz-samr", {"count": 1, **body})

    await fault(mode="silent")
    silent = _review(receiver.url)
    assert (await _submit(http, silent))[0] == 202
    await fault(mode="refuse")
    refused = _review(receiver.url)
    await _submit(http, refused)
    await fault(mode="answer_twice")
    twice = _review(receiver.url)
    await _submit(http, twice)
    await fault(mode="apply_then_fail")
    retried = _review(receiver.url)
    assert (await _submit(http, retried))[0] == 503
    assert (await _submit(http, retried))[0] == 202

    assert await receiver.wait(refused["item_id"], 2) == ["accepted", "refused"]
    assert await receiver.wait(twice["item_id"], 4) == ["accepted", "accepted", "granted", "granted"]
    ids = [id_ for id_, body in receiver.got if body["item_id"] == twice["item_id"]]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert await receiver.wait(retried["item_id"], 2) == ["accepted", "granted"]
    assert (await _case(http, silent["item_id"]))["callbacks"] == []

    # An officer wakes up, and decides against the earlier decision.
    await _command(
        http, "/departments/hz-samr/sandbox/decisions", {"item_id": silent["item_id"], "outcome": "granted"}
    )
    assert await receiver.wait(silent["item_id"], 1) == ["granted"]
    receiver.answers = [409]
    await _command(
        http, "/departments/hz-samr/sandbox/decisions", {"item_id": silent["item_id"], "outcome": "refused"}
    )

    async def last() -> dict[str, Any]:
        return dict((await _case(http, silent["item_id"]))["callbacks"][-1])

    settled = await _eventually(last, lambda callback: callback["settled_at"])
    assert (settled["attempts"], settled["last_status"]) == (1, 409), "a contradiction is not sent again"


async def test_kill_loses_neither_callbacks_nor_state(tmp_path: Path, receiver: Receiver) -> None:
    own = Sandbox(tmp_path / "data", *_free_ports())
    own.start()
    key = _key("91330100XD00000017")
    review = _review(receiver.url)
    try:
        async with aiohttp.ClientSession(own.url) as http:
            await _seed(http, "qichacha", key)
            assert await _repair(http, "qichacha", _push(key, 1)) == ["applied"]
            token = await _command(http, "/oidc/sandbox/sign-in", {"sub": "u"})
            await _command(http, "/sandbox/faults/smtp", {"mode": "fail", "count": 7})
            receiver.answers = [503, 200]
            await _submit(http, review)
            await receiver.wait(review["item_id"], 1)
            own.end(signal.SIGKILL)
        own.start()
        async with aiohttp.ClientSession(own.url) as http:
            assert await receiver.wait(review["item_id"], 3) == ["accepted", "accepted", "granted"]
            assert receiver.got[0] == receiver.got[1], "same id, same body"
            assert (await _submit(http, review))[1]["item_id"] == review["item_id"]
            assert await _seen(http, "qichacha", key) == ("publication_ended", 1)
            assert await _repair(http, "qichacha", _push(key, 1)) == ["applied"]
            assert (await _effects(http, "qichacha"))["first_effect"] == 1
            keys = KeySet.import_key_set(await _get(http, "/oidc/jwks"))
            jwt.decode(token["access_token"], keys, algorithms=["RS256"])
            assert (await _get(http, "/sandbox/faults"))["smtp"]["remaining"] == 7
    finally:
        assert own.end(signal.SIGTERM) == 0


async def test_a_file_of_another_version_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    own = Sandbox(tmp_path / "data", *_free_ports())
    own.start()
    assert own.end(signal.SIGTERM) == 0
    with sqlite3.connect(own.data_dir / "sandbox.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(AssertionError, match="delete it"):
        own.start()


# --- sign-in, mail, traces -------------------------------------------------------------------------------


async def test_tokens_verify_against_the_published_keys(http: aiohttp.ClientSession, shared: Sandbox) -> None:
    issuer = f"{shared.url}/oidc"
    found = await _get(http, "/oidc/.well-known/openid-configuration")
    assert found["issuer"] == issuer
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": "xinfu"},
        exp={"essential": True},
    )

    async def verified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        async with http.get(found["jwks_uri"]) as answer:
            published = await answer.json()
        assert not {"d", "p", "q"} & {name for key in published["keys"] for name in key}, "no private parts"
        decoded = jwt.decode(token, KeySet.import_key_set(published), algorithms=["RS256"])
        registry.validate(decoded.claims)
        return dict(decoded.header), dict(decoded.claims)

    raw = base64.b64encode(b"dept%3Aadapter:p%25ss%2F+%2B").decode()
    grant = {"grant_type": "client_credentials"}
    post = {**grant, "client_id": "dept:adapter", "client_secret": "p%ss/ +"}
    async with http.post(
        found["token_endpoint"], data=grant, headers={"authorization": f"Basic {raw}"}
    ) as answer:
        assert answer.status == 200, await answer.text()
        by_basic = await answer.json()
    assert (await verified(by_basic["access_token"]))[1]["scope"] == "cases.read x"
    async with http.post("/oidc/token", data={**post, "scope": "cases.read"}) as answer:
        by_post = await answer.json()
    header, claims = await verified(by_post["access_token"])
    assert (claims["sub"], claims["scope"], header["typ"]) == ("dept:adapter", "cases.read", "at+jwt")
    for form, status, error in (
        ({**post, "client_secret": "guess"}, 401, "invalid_client"),
        ({**post, "client_id": "nobody"}, 401, "invalid_client"),
        (grant, 401, "invalid_client"),
        ({**post, "scope": "cases.read desk"}, 400, "invalid_scope"),
        ({**post, "grant_type": "password"}, 400, "unsupported_grant_type"),
    ):
        async with http.post("/oidc/token", data=form) as answer:
            assert (answer.status, (await answer.json())["error"]) == (status, error)

    person = {
        "sub": "u1",
        "scope": "applicant",
        "subject_type": "legal_person",
        "subject_code": "91330100XD00000017",
        "subject_name": "示例公司",
        "departments": [SAMR],
    }
    signed_in = await _command(http, "/oidc/sandbox/sign-in", person)
    old_header, claims = await verified(signed_in["access_token"])
    assert person.items() <= claims.items()
    rotated = await _command(http, "/oidc/sandbox/rotate", {})
    await verified(signed_in["access_token"])
    again = await _command(http, "/oidc/sandbox/sign-in", person)
    assert (await verified(again["access_token"]))[0]["kid"] == rotated["kid"] != old_header["kid"]
    expired = await _command(http, "/oidc/sandbox/sign-in", {"sub": "u1", "expires_in_seconds": -60})
    with pytest.raises(ExpiredTokenError):
        await verified(expired["access_token"])
    await _command(http, "/sandbox/faults/oidc", {"mode": "fail", "count": 1})
    async with http.get("/oidc/jwks") as answer:
        assert answer.status == 503


def _mail(message_id: str) -> EmailMessage:
    message = EmailMessage()
    message["Message-ID"], message["From"], message["To"] = message_id, "notify@xinfu.example", "a@x.example"
    message["Subject"] = "信用修复办结通知"
    message.set_content("您好：\n您的申请已办结。\n", cte="base64")
    return message


async def test_mail_is_kept_once_and_counted(http: aiohttp.ClientSession, shared: Sandbox) -> None:
    def send(message_id: str, *to: str) -> None:
        with smtplib.SMTP("127.0.0.1", shared.smtp_port, timeout=10) as smtp:
            smtp.send_message(_mail(message_id), to_addrs=to or ("a@x.example",))

    await asyncio.to_thread(send, "<1@t>")
    await asyncio.to_thread(send, "<2@t>", "b@x.example", "c@x.example")
    for mode, kept in (("fail", 1), ("apply_then_fail", 2)):  # 451 both times
        await _command(http, "/sandbox/faults/smtp", {"mode": mode, "count": 1})
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            await asyncio.to_thread(send, "<1@t>")
        (mail,) = await _get(http, "/mail", to="a@x.example")
        assert mail["deliveries"] == kept
    assert (mail["subject"], mail["text"]) == ("信用修复办结通知", "您好：\n您的申请已办结。\n")
    assert mail["acknowledged"] == 1
    assert (mail["message_id"], mail["sender"]) == ("<1@t>", "notify@xinfu.example")
    assert await _get(http, f"/mail/{mail['id']}") == mail
    (other,) = await _get(http, "/mail", to="c@x.example")
    assert other["recipients"] == ["b@x.example", "c@x.example"]
    assert len(await _get(http, "/mail")) == 2
    async with http.get("/mail/999") as answer:
        assert answer.status == 404


async def test_traces_are_found_by_attribute_and_through_links(
    http: aiohttp.ClientSession, shared: Sandbox
) -> None:
    def export() -> None:
        for compression in (Compression.Gzip, Compression.NoCompression):
            provider = TracerProvider(resource=Resource({"service.name": f"svc-{compression.value}"}))
            exporter = OTLPSpanExporter(f"{shared.url}/otlp/v1/traces", compression=compression)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("test")
            tag = compression.value
            with tracer.start_as_current_span(
                f"submit-{tag}", attributes={"xinfu.application_id": f"app-{tag}", "n": 3}
            ) as submit:
                tracer.start_span(f"child-{tag}", kind=SpanKind.PRODUCER).end()
            batch = tracer.start_span(f"batch-{tag}", links=[Link(submit.get_span_context())])
            batch.end()
            tracer.start_span(f"after-{tag}", links=[Link(batch.get_span_context())]).end()
            tracer.start_span(f"other-{tag}", attributes={"xinfu.application_id": "another"}).end()
            provider.shutdown()

    await asyncio.to_thread(export)
    for tag in ("gzip", "none"):
        # From any end of the chain of links, and nothing that is not linked.
        found = await _get(http, "/otlp/traces", attribute="xinfu.application_id", value=f"app-{tag}")
        spans = {span["name"]: span for span in found["spans"]}
        assert set(spans) == {f"{name}-{tag}" for name in ("submit", "child", "batch", "after")}
        submit, child, batch = (spans[f"{name}-{tag}"] for name in ("submit", "child", "batch"))
        assert (child["parent_span_id"], child["trace_id"]) == (submit["span_id"], submit["trace_id"])
        assert (child["kind"], submit["service_name"]) == ("producer", f"svc-{tag}")
        assert submit["attributes"] == {"xinfu.application_id": f"app-{tag}", "n": 3}
        assert [link["span_id"] for link in batch["links"]] == [submit["span_id"]]
        assert submit["end_unix_nano"] >= child["end_unix_nano"] >= child["start_unix_nano"] > 0
    nearest = await _get(
        http, "/otlp/traces", attribute="xinfu.application_id", value="app-gzip", max_traces=2
    )
    assert {span["name"] for span in nearest["spans"]} == {"submit-gzip", "child-gzip", "batch-gzip"}

    protobuf = {"content-type": "application/x-protobuf"}
    for headers, body, status in (
        (protobuf, b"\xff\xff", 400),
        (protobuf | {"content-encoding": "gzip"}, b"no gzip", 400),
        (protobuf | {"content-encoding": "br"}, b"", 415),
        ({"content-type": "application/json"}, b"{}", 415),
    ):
        async with http.post("/otlp/v1/traces", data=body, headers=headers) as answer:
            assert answer.status == status
    for signal_name in ("metrics", "logs"):
        async with http.post(f"/otlp/v1/{signal_name}", data=b"", headers=protobuf) as answer:
            assert answer.status == 200


async def test_index_links_lead_somewhere(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as answer:
        links = re.findall(r'href="([^"]+)"', await answer.text())
    assert len(links) >= 12
    for link in links:
        async with http.get(link) as answer:
            assert answer.status == 200, link
    key = _key("91330100XD00000068", "杭市监罚〔2026〕<b>9号")
    await _seed(http, "qichacha", key)
    async with http.get("/targets/qichacha/", params={"subject_code": key["subject_code"]}) as answer:
        page = await answer.text()
    assert "杭市监罚〔2026〕&lt;b&gt;9号" in page
    assert "<b>" not in page


# --- conformance of targets (xinfu conformance target)


def _conformance(
    url: str, target: str, key: dict[str, str], *more: str
) -> "subprocess.CompletedProcess[str]":
    named = [f"--{name.replace('_', '-')}={value}" for name, value in key.items()]
    command = [
        sys.executable,
        "-m",
        "xinfu",
        "conformance",
        "target",
        f"--url={url}/targets/{target}",
        *named,
    ]
    environment = os.environ | {"XINFU_CONFORMANCE_SECRET": SECRET, "COLUMNS": "200"}
    return subprocess.run([*command, *more], capture_output=True, text=True, env=environment, timeout=120)


async def test_the_conformance_kit_passes_a_good_target_and_fails_a_wrong_one(
    http: aiohttp.ClientSession, shared: Sandbox
) -> None:
    key = _key("91330100XD0000777" + "A")
    content = {"decided_on": "2026-01-05", "penalty_kinds": "罚款"}
    await _seed(http, "qichacha", key, content=content)
    good = await asyncio.to_thread(_conformance, shared.url, "qichacha", key, "--batch-size=50")
    assert good.returncode == 0, good.stdout + good.stderr
    assert (good.stdout.count("✓"), good.stdout.count("✗")) == (12, 0), good.stdout
    assert await _seen(http, "qichacha", key) == ("published", 14), "as it was found"
    page = await _get(http, "/targets/qichacha/public", subject_code=key["subject_code"])
    assert {name: page["records"][0][name] for name in content} == content
    # a second run goes on above the version it finds
    assert (
        await asyncio.to_thread(_conformance, shared.url, "qichacha", key, "--batch-size=50")
    ).returncode == 0

    async def failing(fault: dict[str, Any]) -> set[str]:
        await _command(http, "/sandbox/faults/qichacha", fault)
        found = await asyncio.to_thread(
            _conformance, shared.url, "qichacha", key, "--batch-size=50", "--wait-seconds=0.2"
        )
        async with http.delete("/sandbox/faults/qichacha") as cleared:
            assert cleared.status == 204
        assert found.returncode == 1, found.stdout
        return {line.split("│")[2].strip() for line in found.stdout.splitlines() if "✗" in line}

    ignored = await failing({"mode": "ignore"})
    assert "终止公示，查询与之一致" in ignored
    assert any(name.startswith("更正内容") for name in ignored)
    assert not any("签名" in name for name in ignored)
    assert "不认识的记录应答 rejected，其余照办" in await failing({"mode": "partial"})
    assert await failing({"mode": "redirect"}) == {"查得到测试记录"}, "then nothing else is tried"
    wrong = await asyncio.to_thread(
        _conformance, shared.url, "qichacha", {**key, "document_number": "没有〔2020〕1号"}
    )
    assert wrong.returncode == 1
    assert "请先在平台公示这条记录" in wrong.stdout
