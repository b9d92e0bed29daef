"""Bad input on the running stack: each kind gets an answer that says what to do, and the pipeline goes on."""

import asyncio
import base64
import hmac
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from e2e.people import (
    API,
    DESK,
    OTHER_API,
    OTHER_DESK,
    Answer,
    Company,
    World,
    csv_bytes,
    wrong_check_character,
)
from joserfc import jwt
from joserfc.jwk import RSAKey
from standardwebhooks import Webhook

from contracts.errors import DeadLetterReason, ProblemCode
from contracts.events import RepairGranted, ReviewAccepted
from contracts.penalty_feed import COLUMNS
from contracts.records import DepartmentRef, RecordFacts, SubjectType
from contracts.tokens import Scope
from contracts.topics import review_topic
from support import eventually, message, produce
from xinfu.compose import SERVICES

UNKNOWN_RECORD_ID = "rec_" + "f" * 32


# --- applications


async def test_a_record_of_another_subject_is_like_one_that_does_not_exist(world: World) -> None:
    owner, other = await world.company(), await world.company()
    body = world.body([*other.ids, *owner.ids, UNKNOWN_RECORD_ID])
    problem = (await world.submit(other, body)).problem(ProblemCode.UNKNOWN_RECORD, "刷新记录列表")
    assert problem["record_ids"] == [*owner.ids, UNKNOWN_RECORD_ID]
    # nothing of it was taken, for nobody
    for company in (owner, other):
        assert [r["application_id"] for r in await world.records(company)] == [None]
        (await world.submit(company)).ok()


async def test_an_application_of_another_subject_is_not_found(world: World) -> None:
    owner, other = await world.company(), await world.company()
    application = (await world.submit(owner)).ok()
    for path in ("", "/events"):
        url = world.url("intake", f"/v1/applications/{application['application_id']}{path}")
        (await world.ask("GET", url, other.token)).problem(ProblemCode.NOT_FOUND, "我的申请")


async def test_a_record_under_application(world: World) -> None:
    company = await world.company()
    (await world.submit(company)).ok()
    problem = (await world.submit(company)).problem(ProblemCode.RECORD_UNDER_APPLICATION, "正在办理")
    assert problem["record_ids"] == company.ids


async def test_of_concurrent_applications_for_one_record_one_is_taken(world: World) -> None:
    company = await world.company()
    answers = await asyncio.gather(*(world.submit(company) for _ in range(6)))
    taken = [answer for answer in answers if answer.status == 201]
    assert len(taken) == 1, [answer.status for answer in answers]
    for answer in answers:
        if answer is not taken[0]:
            answer.problem(ProblemCode.RECORD_UNDER_APPLICATION, "正在办理")
    url = world.url("intake", "/v1/applications")
    listed = (await world.ask("GET", url, company.token)).ok()["applications"]
    assert [each["application_id"] for each in listed] == [taken[0].body["application_id"]]


async def test_concurrent_requests_with_one_key_are_one_application(world: World) -> None:
    company = await world.company()
    answers = await asyncio.gather(*(world.submit(company, key="same-key") for _ in range(6)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["application_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize("statement", ["", " \n　", "长" * 5001])
async def test_a_statement_without_words_or_with_too_many(world: World, statement: str) -> None:
    company = await world.company()
    body = world.body(company.ids, statement=statement)
    problem = (await world.submit(company, body)).problem(ProblemCode.VALIDATION, "errors")
    assert [error["field"] for error in problem["errors"]] == ["statement"]
    assert "情况说明" in problem["errors"][0]["reason"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_statement_of_ten_megabytes(world: World, declared: bool) -> None:
    company = await world.company()
    body = json.dumps(world.body(company.ids, statement="a" * 10_000_000)).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for _ in range(
        5
    ):  # whether the answer gets past what is still being sent is a matter of luck, or of reading it all
        answer = await world.ask(
            "POST",
            world.url("intake", "/v1/applications"),
            company.token,
            data=body if declared else chunks(),
            headers={"content-type": "application/json", "idempotency-key": "large"},
        )
        assert answer.status == 413
        answer.problem(ProblemCode.TOO_LARGE, "1000000 字节")
    (await world.submit(company, key="large")).ok()


async def test_requests_on_one_connection_have_traces_of_their_own(world: World) -> None:
    """Though reading from it was paused and went on while one of them was answered."""
    company = await world.company()
    bodies = [b"{" + b" " * size for size in (900_000, 900_000, 0, 0)]
    headers = {"authorization": f"Bearer {company.token}", "content-type": "application/json"}
    traces = []
    async with ClientSession(connector=TCPConnector(limit=1)) as connection:
        for n, body in enumerate(bodies):
            async with connection.post(
                world.url("intake", "/v1/applications"),
                data=body,
                headers={**headers, "idempotency-key": f"one-connection-{n}"},
            ) as answer:
                traces.append((await answer.json())["trace_id"])
    assert len(set(traces)) == len(bodies)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{", ProblemCode.MALFORMED_JSON),
        (b"", ProblemCode.VALIDATION),
        (b"[]", ProblemCode.VALIDATION),
        (b"null", ProblemCode.VALIDATION),
        (b'{"statement": "\xff\xfe"}', ProblemCode.MALFORMED_JSON),
        (b"[" * 100_000, ProblemCode.MALFORMED_JSON),
        (b'{"contact_name": "\\ud800"}', ProblemCode.VALIDATION),
        (b'{"record_ids": {"$ne": null}}', ProblemCode.VALIDATION),
    ],
    ids=["cut off", "empty", "array", "null", "not utf-8", "deep", "lone surrogate", "operator"],
)
async def test_malformed_json(world: World, data: bytes, code: ProblemCode) -> None:
    company = await world.company()
    answer = await world.ask(
        "POST",
        world.url("intake", "/v1/applications"),
        company.token,
        data=data,
        headers={"content-type": "application/json", "idempotency-key": "malformed"},
    )
    answer.problem(code, "重新提交")


@pytest.mark.parametrize("key", [None, "", "k" * 201, "键"])
async def test_an_idempotency_key_that_cannot_be_used(world: World, key: str | None) -> None:
    company = await world.company()
    headers = {} if key is None else {"idempotency-key": key}
    url = world.url("intake", "/v1/applications")
    answer = await world.ask("POST", url, company.token, json=world.body(company.ids), headers=headers)
    answer.problem(ProblemCode.IDEMPOTENCY_KEY_MISSING, "Idempotency-Key", "200")
    assert [r["application_id"] for r in await world.records(company)] == [None]


async def test_an_idempotency_key_again(world: World) -> None:
    company = await world.company(world.row(), world.row())
    one, two = company.ids
    first = await world.submit(company, world.body([one]), key="k")
    assert first.status == 201
    assert "idempotency-replayed" not in first.headers
    again = await world.submit(company, world.body([one]), key="k")
    assert (again.status, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.body == first.body
    assert again.headers["location"] == first.headers["location"]
    other = await world.submit(company, world.body([two]), key="k")
    other.problem(ProblemCode.IDEMPOTENCY_CONFLICT, "换一个键")
    # a key belongs to its subject: the same text is another key for somebody else
    stranger = await world.company()
    taken = await world.submit(stranger, key="k")
    assert taken.body["application_id"] != first.body["application_id"]
    assert "idempotency-replayed" not in taken.headers


# --- codes


async def test_a_code_with_a_wrong_check_character_in_a_file(world: World) -> None:
    company = await world.company()
    wrong = wrong_check_character(company.code)
    row = {**world.row(), "CF_XDR_MC": company.name, "CF_XDR_SHXYM": wrong}
    report = await world.import_csv(csv_bytes([row]))
    assert (report["accepted"], [rejected["line"] for rejected in report["rejected"]]) == (0, [2])
    assert f"应为“{company.code[-1]}”" in "".join(report["rejected"][0]["reasons"])


async def test_a_code_with_a_wrong_check_character_in_a_token(world: World) -> None:
    company = await world.company()
    claims = {"subject_type": "legal_person", "subject_name": company.name}
    token = await world.sign_in(Scope.APPLICANT, subject_code=wrong_check_character(company.code), **claims)
    answer = await world.ask("GET", world.url("intake", "/v1/subjects/me/records"), token)
    answer.problem(ProblemCode.FORBIDDEN, "校验位错误", "重新登录")
    answer = await world.ask("GET", world.url("notify", "/v1/subjects/me/messages"), token)
    answer.problem(ProblemCode.FORBIDDEN, "主体代码有误")


# --- tokens

PROTECTED = {
    "intake": ("/v1/applications", Scope.APPLICANT),
    "routing": ("/v1/referrals", Scope.ROUTING_ASSIGN),
    "dept-adapter": ("/v1/departments", Scope.DESK),
    "sync": ("/v1/convergence", Scope.OPERATIONS),
    "notify": ("/v1/subjects/me/messages", Scope.APPLICANT),
}


def issuer_key(world: World) -> RSAKey:
    """The key the sandbox's issuer signs with: a token of ours then differs in nothing but its claims."""
    path = world.stack.data_dir / "sandbox" / "sandbox.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        pem = connection.execute("SELECT pem FROM oidc_key ORDER BY seq DESC LIMIT 1").fetchone()[0]
    return RSAKey.import_key(pem)


def by_hand(claims: dict[str, Any], alg: str, kid: str, secret: bytes | None = None) -> str:
    """A token no library would make: without signature, or signed by HMAC-SHA256."""
    parts = [json.dumps(part).encode() for part in ({"alg": alg, "kid": kid, "typ": "at+jwt"}, claims)]
    content = b".".join(map(base64url, parts))
    signature = hmac.digest(secret, content, "sha256") if secret else b""
    return (content + b"." + base64url(signature)).decode()


def base64url(data: bytes) -> bytes:
    """RFC 7515, section 2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def bad_tokens(world: World, scope: Scope, company: Company) -> dict[str, str | None]:
    """Tokens that each fail by one thing."""
    key = issuer_key(world)
    kid = key.thumbprint()
    foreign = RSAKey.generate_key(2048, private=True)
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": world.endpoints.oidc,
        "aud": "xinfu",
        "sub": "mallory",
        "iat": now,
        "exp": now + 600,
        "scope": scope.value,
        "subject_type": "legal_person",
        "subject_code": company.code,
        "subject_name": company.name,
    }

    def signed(by: RSAKey = key, **changes: Any) -> str:
        header = {"alg": "RS256", "kid": kid}
        body = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(header, body, by, algorithms=["RS256"])

    head, _, signature = signed().rpartition(".")
    good_head = head.split(".")[0]
    other_body = signed(sub="somebody").split(".")[1]
    return {
        "good": signed(),
        "none": None,
        "garbage": "garbage",
        "expired": signed(exp=now - 60, iat=now - 660),
        "never expires": signed(exp=None),
        "not yet": signed(nbf=now + 600),
        "unsigned": by_hand(claims, "none", kid),
        "signature cut off": by_hand(claims, "RS256", kid),
        "other claims": f"{good_head}.{other_body}.{signature}",
        "public key as secret": by_hand(claims, "HS256", kid, key.as_pem(private=False)),
        "foreign key": signed(by=foreign),
        "foreign issuer": signed(iss="https://elsewhere.example/oidc"),
        "wrong audience": signed(aud="another"),
        "no audience": signed(aud=None),
    }


@pytest.mark.parametrize("service", SERVICES)
async def test_tokens_that_do_not_count(world: World, service: str) -> None:
    path, scope = PROTECTED[service]
    company = await world.company()
    tokens = bad_tokens(world, scope, company)
    # the good one differs from each bad one in one thing, so it is this thing that is refused
    (await world.ask("GET", world.url(service, path), tokens.pop("good"))).ok()
    for name, token in tokens.items():
        answer = await world.ask("GET", world.url(service, path), token)
        assert answer.status == 401, (name, answer)
        answer.problem(ProblemCode.UNAUTHENTICATED, "令牌")
        assert answer.headers["www-authenticate"] == "Bearer"
    for scopes in ("", "applicants other", "cases.read"):
        token = await world.sign_in(scopes, subject_type="legal_person", subject_code=company.code)
        (await world.ask("GET", world.url(service, path), token)).problem(ProblemCode.FORBIDDEN, scope.value)


# --- files


async def test_a_file_without_a_column(world: World) -> None:
    columns = [name for name in COLUMNS if name not in ("CF_WSH", "CF_JDRQ")]
    answer = await world.import_answer(csv_bytes([world.row()], columns))
    problem = answer.problem(ProblemCode.MISSING_COLUMNS, "CF_WSH、CF_JDRQ", "补齐")
    assert problem["missing"] == ["CF_WSH", "CF_JDRQ"]


async def test_a_file_with_a_column_twice(world: World) -> None:
    answer = await world.import_answer(csv_bytes([world.row()], [*COLUMNS, "CF_WSH"]))
    assert answer.problem(ProblemCode.MISSING_COLUMNS, "重复：CF_WSH")["repeated"] == ["CF_WSH"]


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", secrets.token_bytes(4096) + b"\xff\xff", "列,名\n".encode("utf-16")],
    ids=["png", "noise", "utf-16"],
)
async def test_a_file_that_is_no_text(world: World, data: bytes) -> None:
    (await world.import_answer(data)).problem(ProblemCode.UNKNOWN_ENCODING, "UTF-8", "GB18030", "另存为")


async def test_an_empty_file(world: World) -> None:
    (await world.import_answer(b"")).problem(ProblemCode.MISSING_COLUMNS, "CF_XDR_MC")


async def test_gb18030_is_read_as_well(world: World) -> None:
    company = await world.company()
    row = {**world.row(), "CF_XDR_MC": company.name, "CF_XDR_SHXYM": company.code, "BZ": "𠮷野家"}
    report = await world.import_csv(csv_bytes([row], encoding="gb18030"))
    assert (report["accepted"], report["encoding"], report["rejected"]) == (1, "gb18030", [])
    known = {record["facts"]["document_number"] for record in await world.records(company)}
    assert row["CF_WSH"] in known
    again = await world.import_csv(csv_bytes([row]))
    assert (again["accepted"], again["unchanged"], again["encoding"]) == (0, 1, "utf-8-sig")


async def test_files_are_for_those_who_may_bring_them(world: World) -> None:
    company = await world.company()
    url = world.url("intake", "/v1/records/imports")
    answer = await world.ask("POST", url, company.token, data=csv_bytes([world.row()]))
    answer.problem(ProblemCode.FORBIDDEN, "records.write")


# --- events

CONSUMERS = {
    "xinfu.records": ("intake",),
    "xinfu.applications": ("routing", "notify"),
    "xinfu.decisions": ("intake", "sync", "notify"),
    "xinfu.propagation": ("intake", "notify"),
    review_topic(DESK): ("dept-adapter",),
    review_topic(API): ("dept-adapter",),
}

Message = tuple[str, dict[str, str | bytes], bytes | None]


def accepted(world: World, **ids: str) -> ReviewAccepted:
    """A valid ReviewAccepted about an item nobody knows."""
    department = world.department(DESK)
    return ReviewAccepted(
        application_id=ids.get("application_id", "app_" + secrets.token_hex(16)),
        item_id="itm_" + secrets.token_hex(16),
        record_id="rec_" + secrets.token_hex(16),
        subject_id="sub_" + secrets.token_hex(16),
        department=DepartmentRef(code=department.code, slug=department.slug, name=department.name),
        accepted_at=datetime.now(UTC),
    )


async def dead_letters(world: World, service: str, key: str, number: int) -> list[dict[str, Any]]:
    """The letters of a service about this message key, once there are so many."""
    letters = world.database(service)["dead_letters"]

    async def are_there() -> bool:
        return letters.count_documents({"key": key.encode()}) >= number

    await eventually(are_there, 30)
    return list(letters.find({"key": key.encode()}))


@pytest.mark.parametrize("topic", CONSUMERS)
async def test_messages_that_can_never_take_effect(world: World, topic: str) -> None:
    """Each becomes a dead letter of each service that reads the topic, with what is wrong with it."""
    key = "bad-" + secrets.token_hex(8)
    _, headers, value = message(accepted(world))
    without_type = {name: each for name, each in headers.items() if name != "ce_type"}
    bad: dict[str, tuple[Message, DeadLetterReason, str]] = {
        "not JSON": ((key, {**headers}, b"{"), DeadLetterReason.NOT_JSON, "JSON"),
        "empty": ((key, {**headers}, b""), DeadLetterReason.NOT_JSON, "empty"),
        "deep": ((key, {**headers}, b"[" * 100_000), DeadLetterReason.NOT_JSON, ""),
        "no value": ((key, {**headers}, None), DeadLetterReason.NOT_JSON, "empty"),
        "no type": ((key, {**without_type}, value), DeadLetterReason.BAD_HEADERS, "ce_type"),
        "no headers": ((key, {}, value), DeadLetterReason.BAD_HEADERS, "ce_specversion, ce_id"),
        "header not UTF-8": (
            (key, {**headers, "ce_subject": b"\xff\xfe"}, value),
            DeadLetterReason.BAD_HEADERS,
            "ce_subject",
        ),
        "no such schema": (
            (key, {**headers}, b'{"a": 1}'),
            DeadLetterReason.SCHEMA_MISMATCH,
            "Field required",
        ),
        "other key": ((key, {**headers}, value), DeadLetterReason.KEY_MISMATCH, key),
        "too large": ((key, {**headers}, b" " * 950_000), DeadLetterReason.TOO_LARGE, "900000"),
    }
    await produce(world.stack, topic, [each for each, _, _ in bad.values()])
    for service in CONSUMERS[topic]:
        letters = await dead_letters(world, service, key, len(bad))
        assert len(letters) == len(bad)
        for name, (_, reason, words) in bad.items():
            found = [x for x in letters if x["reason"] == reason and words in x["detail"]]
            assert found, (name, [(x["reason"], x["detail"]) for x in letters])
            assert {letter["topic"] for letter in found} == {topic}
            assert {letter["consumer"] for letter in found} == {service}


async def test_an_event_on_the_wrong_topic(world: World) -> None:
    key, headers, value = message(accepted(world))
    await produce(world.stack, "xinfu.propagation", [(key, {**headers}, value)])
    for service in CONSUMERS["xinfu.propagation"]:
        (letter,) = await dead_letters(world, service, key, 1)
        assert letter["reason"] == DeadLetterReason.SCHEMA_MISMATCH
        assert "xinfu.decisions" in letter["detail"]


@pytest.mark.parametrize("topic", CONSUMERS)
async def test_an_event_type_of_the_future_is_skipped_and_counted(world: World, topic: str) -> None:
    future = f"cn.xinfu.test{secrets.token_hex(4)}.happened.v9"
    _, headers, _ = message(accepted(world))
    key = "future-" + secrets.token_hex(8)
    await produce(world.stack, topic, [(key, {**headers, "ce_type": future}, b'{"new": true}')] * 3)
    for service in CONSUMERS[topic]:

        async def counted(service: str = service) -> bool:
            return await world.metric(service, "xinfu_events_skipped_total", type=future) == 3

        await eventually(counted, 30)
        assert world.database(service)["dead_letters"].count_documents({"key": key.encode()}) == 0


async def test_a_grant_for_an_unknown_item_while_others_go_on(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    await world.review(item["item_id"])
    template = accepted(world)
    unknown = RepairGranted(
        **template.model_dump(exclude={"accepted_at"}),
        record=RecordFacts(
            record_id=template.record_id,
            subject_id=template.subject_id,
            subject_type=SubjectType.LEGAL_PERSON,
            category="shown-nowhere",  # or sync would ask intake for the subject for ever, as it should
            document_number="示例〔2026〕1号",
            authority_code=None,
            authority_name="杭州市教育局",
            decided_on=datetime.now(UTC).date(),
        ),
        decision_number="示例〔2026〕1号",
        decided_at=datetime.now(UTC),
    )
    # known application and record, but an item that is not theirs
    mixed = accepted(world, application_id=application["application_id"])
    messages = [(key, {**headers}, value) for key, headers, value in map(message, (unknown, mixed))]
    await produce(world.stack, "xinfu.decisions", messages)
    (await world.desk(item["item_id"], "grant")).ok()
    for event in (unknown, mixed):
        letters = await dead_letters(world, "intake", event.item_id, 1)
        assert {letter["reason"] for letter in letters} == {DeadLetterReason.UNKNOWN_AGGREGATE}
        assert event.item_id in letters[0]["detail"]
        assert event.application_id in letters[0]["detail"]
    done = await world.until_completed(company, application["application_id"])
    assert [each["type"] for each in done["timeline"]].count("granted") == 1
    assert [each["type"] for each in done["timeline"]].count("accepted") == 1


async def test_a_redelivered_event_has_no_second_effect(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    (await world.desk(item["item_id"], "accept")).ok()
    await world.until_item(company, application["application_id"], "accepted")
    outbox = world.database("dept-adapter")["outbox"]
    (sent,) = outbox.find({"key": item["item_id"], "headers.ce_type": ReviewAccepted.TYPE})
    again = [(sent["key"], sent["headers"], bytes(sent["value"]))] * 3
    before = await world.metric("intake", "xinfu_events_duplicate_total")
    await produce(world.stack, "xinfu.decisions", again)

    async def recognised() -> bool:
        return await world.metric("intake", "xinfu_events_duplicate_total") >= before + 3

    await eventually(recognised, 30)
    (await world.desk(item["item_id"], "grant")).ok()
    done = await world.until_completed(company, application["application_id"])
    assert [each["type"] for each in done["timeline"]].count("accepted") == 1


# --- callbacks


class DepartmentSystem:
    """The system of a department, in place of the sandbox's, which was told to be silent."""

    def __init__(self, world: World, slug: str = API) -> None:
        self._world = world
        self._secret = world.secrets[f"department:{slug}"]
        self.code = world.department(slug).code

    async def call(
        self,
        callback: dict[str, Any] | bytes,
        webhook_id: str | None = None,
        *,
        secret: str | None = None,
        at: datetime | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Call back. By default correctly signed, now, under a new webhook-id."""
        body = callback if isinstance(callback, bytes) else json.dumps(callback).encode()
        webhook_id, at = webhook_id or secrets.token_hex(8), at or datetime.now(UTC)
        signature = Webhook(secret or self._secret).sign(webhook_id, at, body.decode())
        signed = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signature,
            "content-type": "application/json",
        }
        url = self._world.url("dept-adapter", f"/v1/departments/{code or self.code}/decisions")
        return await self._world.ask("POST", url, data=body, headers={**signed, **(headers or {})})


def said(item_id: str, outcome: str, **more: str) -> dict[str, Any]:
    """Body of a callback."""
    return {"item_id": item_id, "outcome": outcome, "occurred_at": datetime.now(UTC).isoformat(), **more}


async def taken_by_department(world: World, item_id: str) -> None:
    """Wait until the department's system has the item, and with it the fault that was meant for it."""
    cases = world.url("sandbox", f"/departments/{API}/cases?item_id={item_id}")

    async def taken() -> bool:
        return bool((await world.ask("GET", cases)).ok())

    await eventually(taken, 30)


async def silent_item(world: World) -> tuple[Company, str, str]:
    """A company, its application, and the item its department's system has taken without a word."""
    await world.fault(API, mode="silent", count=1)
    company = await world.company(world.row(API))
    application = (await world.submit(company)).ok()
    item_id = application["items"][0]["item_id"]
    await taken_by_department(world, item_id)
    return company, application["application_id"], item_id


async def test_callbacks(world: World) -> None:
    """All that a department's system can say wrongly about one item, between what it says rightly."""
    company, application_id, item_id = await silent_item(world)
    system, other = DepartmentSystem(world), DepartmentSystem(world, OTHER_API)
    accept = said(item_id, "accepted")

    (await system.call(accept, secret="whsec_" + base64.b64encode(b"x" * 24).decode())).problem(
        ProblemCode.BAD_SIGNATURE, "密钥", "重新签名"
    )
    for header in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        (await system.call(accept, headers={header: "v1,x"})).problem(ProblemCode.BAD_SIGNATURE)
    for minutes in (-6, 6):
        at = datetime.now(UTC) + timedelta(minutes=minutes)
        (await system.call(accept, at=at)).problem(ProblemCode.BAD_SIGNATURE, "5分钟", "时钟")
    (await system.call(accept, code=other.code)).problem(ProblemCode.BAD_SIGNATURE)
    (await other.call(accept)).problem(ProblemCode.WRONG_DEPARTMENT, item_id)
    (await system.call(accept, code=world.department(DESK).code)).problem(
        ProblemCode.NOT_FOUND, "callback_url"
    )
    unknown = "itm_" + "0" * 32
    (await system.call(said(unknown, "accepted"))).problem(ProblemCode.UNKNOWN_ITEM, unknown)
    (await system.call(b"{")).problem(ProblemCode.MALFORMED_JSON, "JSON")
    for incomplete in (said(item_id, "granted"), said(item_id, "refused", decision_number="1"), {}):
        problem = (await system.call(incomplete)).problem(ProblemCode.VALIDATION, "errors")
        assert problem["errors"]
    application = await world.application(company, application_id)
    assert [item["status"] for item in application["items"]] == ["routed"]

    receipt = (await system.call(accept, "callback-1")).ok()
    assert receipt == {"item_id": item_id, "state": "accepted", "duplicate": False}
    for _ in range(3):  # the same callback, signed again, as a retry is
        again = (await system.call(accept, "callback-1")).ok()
        assert again == {"item_id": item_id, "state": "accepted", "duplicate": True}
    (await system.call(said(item_id, "accepted"), "callback-1")).problem(
        ProblemCode.IDEMPOTENCY_CONFLICT, "callback-1"
    )
    grant = said(item_id, "granted", decision_number="杭环信修〔2026〕77号")
    granted = await asyncio.gather(*(system.call(grant, "callback-2") for _ in range(4)))
    assert sorted(answer.ok()["duplicate"] for answer in granted) == [False, True, True, True]
    contradictions: Sequence[dict[str, Any]] = (
        said(item_id, "refused", decision_number="杭环不予信修〔2026〕78号", reason="未整改"),
        said(item_id, "granted", decision_number="杭环信修〔2026〕79号"),
    )
    for contradiction in contradictions:
        answer = await system.call(contradiction)
        assert answer.status == 409
        answer.problem(ProblemCode.DECISION_CONFLICT, "杭环信修〔2026〕77号", "未生效")

    done = await world.until_completed(company, application_id)
    assert [item["decision_number"] for item in done["items"]] == ["杭环信修〔2026〕77号"]
    types = [each["type"] for each in done["timeline"]]
    assert (types.count("accepted"), types.count("granted"), types.count("refused")) == (1, 1, 0)


async def test_the_desk_decides_only_its_own_items(world: World) -> None:
    company = await world.company(world.row(), world.row(API))
    await world.fault(API, mode="silent", count=1)
    items = {item["authority_name"]: item["item_id"] for item in (await world.submit(company)).ok()["items"]}
    ours = items[world.department(DESK).name]
    theirs = items[world.department(API).name]
    await taken_by_department(world, theirs)
    (await world.desk(ours, "grant", slug=OTHER_DESK)).problem(ProblemCode.WRONG_DEPARTMENT, "不办理该部门")
    (await world.desk(theirs, "grant", slug=API)).problem(ProblemCode.INVALID_TRANSITION, "自有系统")
    (await world.desk(ours, "refuse", {"reason": " "})).problem(ProblemCode.VALIDATION, "errors")
    (await world.desk(ours, "grant")).ok()
    (await world.desk(ours, "refuse", {"reason": "未整改"})).problem(
        ProblemCode.DECISION_CONFLICT, "准予修复"
    )
    unknown = world.url("dept-adapter", "/v1/reviews/itm_x/grant")
    (await world.ask("POST", unknown, await world.officer(DESK))).problem(ProblemCode.UNKNOWN_ITEM, "itm_x")


# --- every service


@pytest.mark.parametrize("service", [*SERVICES])
async def test_an_unknown_path_and_the_pages_of_a_service(world: World, service: str) -> None:
    for path in ("/v1/nothing", "/%00", "/v1/applications/../../etc/passwd"):
        problem = (await world.ask("GET", world.url(service, path))).problem(ProblemCode.NOT_FOUND, "地址")
        assert problem["status"] == 404
    wrong = await world.ask("DELETE", world.url(service, "/livez"))
    wrong.problem(ProblemCode.METHOD_NOT_ALLOWED, "GET")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")
    assert (await world.ask("GET", world.url(service, "/livez"))).ok() == {"status": "ok"}
    ready = (await world.ask("GET", world.url(service, "/readyz"))).ok()
    assert ready["checks"] == {"database": "ok", "bus": "ok", "progress": "ok"}
    assert "xinfu_events_processed_total" in (await world.ask("GET", world.url(service, "/metrics"))).ok()
    docs = await world.ask("GET", world.url(service, "/docs"))
    assert docs.headers["content-type"].startswith("text/html")
    assert "openapi.json" in docs.ok()
    described = (await world.ask("GET", world.url(service, "/openapi.json"))).ok()
    assert PROTECTED[service][0] in described["paths"]


async def test_the_pipeline_still_works(world: World) -> None:
    """The last of the file: after all the bad input a good application ends at every target."""
    await world.works()
