"""The operator's commands on the running stack, as somebody types them."""

import asyncio
import os
import re
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any

from e2e.people import World
from e2e.test_services import quiet, snapshot

from contracts.errors import ProblemCode
from contracts.events import ReviewAccepted
from contracts.tokens import Scope
from support import PATIENCE, eventually, message, produce, published
from xinfu.compose import SERVICES

REASON = "演练"
TOO_LARGE = b" " * 900_001
"""After a value: still the same JSON, but more than is taken."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    text: str


async def xinfu(world: World, *arguments: str) -> Ended:
    """Run a command on the stack; its output is as wide as it likes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "xinfu",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "XINFU_DATA_DIR": str(world.stack.data_dir), "COLUMNS": "200"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode is not None
    return Ended(process.returncode, output.decode())


async def waiting(world: World, service: str, key: str) -> str:
    """The id of the dead letter with this key, from the list, once it is there."""
    found: list[str] = []

    async def listed() -> bool:
        nonlocal found
        shown = (await xinfu(world, "dlq", "list", "--service", service, "--limit", "10000")).text
        found = re.findall(rf"键 {re.escape(key)}.*\n.*\n  xinfu dlq show (\S+)", shown)
        return bool(found)

    await eventually(listed, 30)
    assert len(found) == 1
    assert found[0].startswith(f"{service}/")
    return found[0]


async def audited(world: World, service: str, word: str) -> list[dict[str, Any]]:
    """Entries of a service's audit whose subject holds this word, the oldest first."""
    url = world.url(service, "/v1/operations/audit?limit=200")
    entries = (await world.ask("GET", url, await world.ops())).ok()["entries"]
    return [entry for entry in reversed(entries) if word in entry["subject"]]


async def test_a_message_that_can_never_take_effect(world: World) -> None:
    """It is listed, shown, tried without effect, given up with a reason, and all of that is written down."""
    key = "poison-" + secrets.token_hex(8)
    _, headers, _ = message(published("1"))
    ((_, offset),) = await produce(world.stack, "xinfu.decisions", [(key, {**headers}, b'{"a": [1')])
    identity = await waiting(world, "sync", key)
    shown = await xinfu(world, "dlq", "show", identity)
    assert shown.status == 0
    for words in ("not_json", '{"a": [1', headers["ce_id"], f"位点 {offset}"):
        assert words in shown.text

    tried = await xinfu(world, "dlq", "dry-run", identity)
    assert (tried.status, "还会被拒收" in tried.text) == (1, True), tried.text
    again = await xinfu(world, "dlq", "redrive", identity, "--reason", REASON)
    assert (again.status, "什么都没有改变" in again.text) == (1, True), again.text
    assert (await xinfu(world, "dlq", "discard", identity)).status == 2
    blank = await xinfu(world, "dlq", "discard", identity, "--reason", "  ")
    assert (blank.status, "请写明原因" in blank.text) == (2, True), blank.text
    url = world.url("sync", f"/v1/operations/dead-letters/{identity.partition('/')[2]}/discard")
    for body in ({}, {"reason": " "}):
        (await world.ask("POST", url, await world.ops(), json=body)).problem(ProblemCode.VALIDATION)
    assert (await xinfu(world, "dlq", "discard", identity, "--reason", REASON)).status == 0

    twice = await xinfu(world, "dlq", "discard", identity, "--reason", REASON)
    assert (twice.status, "已被放弃" in twice.text) == (1, True), twice.text
    assert key not in (await xinfu(world, "dlq", "list", "--limit", "10000", "--service", "sync")).text
    given_up = await xinfu(
        world, "dlq", "list", "--state", "discarded", "--reason", "not_json", "--limit", "10000"
    )
    assert key in given_up.text
    entries = await audited(world, "sync", f"|{offset}|")
    assert [(e["by"], e["action"], e["reason"]) for e in entries] == [
        ("ops", "redrive", REASON),
        ("ops", "discard", REASON),
    ]
    assert [entry["result"].partition(":")[0] for entry in entries] == ["rejected", "discarded"]


async def test_a_letter_takes_effect_once(world: World) -> None:
    record = secrets.token_hex(16)
    event = published(record)
    key, headers, value = message(event)
    ((partition, offset),) = await produce(
        world.stack, "xinfu.records", [(key, {**headers}, value + TOO_LARGE)]
    )
    identity = await waiting(world, "intake", key)
    records = world.database("intake")["records"]
    assert records.find_one({"_id": event.record_id}) is None
    tried = await xinfu(world, "dlq", "dry-run", identity)
    assert (tried.status, "会成功" in tried.text) == (0, True), tried.text
    assert records.find_one({"_id": event.record_id}) is None

    done = await xinfu(world, "dlq", "redrive", identity, "--reason", REASON)
    assert (done.status, "已生效" in done.text) == (0, True), done.text
    assert records.find_one({"_id": event.record_id}) is not None
    twice = await xinfu(world, "dlq", "redrive", identity, "--reason", REASON)
    assert (twice.status, "409" in twice.text) == (1, True), twice.text
    entries = await audited(world, "intake", f"|xinfu.records|{partition}|{offset}|")
    assert [entry["result"] for entry in entries] == ["succeeded"]


async def test_what_has_taken_effect_is_not_redriven(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    (await world.desk(item["item_id"], "accept")).ok()
    await world.until_item(company, application["application_id"], "accepted")
    outbox = world.database("dept-adapter")["outbox"]
    (sent,) = outbox.find({"key": item["item_id"], "headers.ce_type": ReviewAccepted.TYPE})
    again = (sent["key"], sent["headers"], bytes(sent["value"]) + TOO_LARGE)
    await produce(world.stack, "xinfu.decisions", [again])
    identity = await waiting(world, "intake", item["item_id"])
    before = world.database("intake")["timeline"].count_documents({})
    tried = await xinfu(world, "dlq", "dry-run", identity)
    assert (tried.status, "已经生效" in tried.text) == (0, True), tried.text
    url = world.url("intake", f"/v1/operations/dead-letters/{identity.partition('/')[2]}/redrive")
    answer = await world.ask("POST", url, await world.ops(), json={"reason": REASON})
    assert answer.status == 409
    answer.problem(ProblemCode.ALREADY_SUCCEEDED, "已经生效")
    assert world.database("intake")["timeline"].count_documents({}) == before
    (await world.ask("POST", url, await world.sign_in(Scope.DESK), json={"reason": REASON})).problem(
        ProblemCode.FORBIDDEN
    )
    for path in ("/v1/operations/dead-letters/x", "/v1/operations/dead-letters/bGludGFrZXx4"):
        (await world.ask("GET", world.url("intake", path), await world.ops())).problem(ProblemCode.NOT_FOUND)


async def test_replaying_all_outboxes_twice_changes_nothing(world: World) -> None:
    company = await world.company(world.row(), world.row())
    await world.repaired(company)
    before = await quiet(lambda: snapshot(world))
    name = "xinfu_events_duplicate_total"
    for _ in range(2):
        known = {service: await world.metric(service, name) for service in SERVICES}
        replayed = await xinfu(world, "outbox", "replay", "--reason", REASON)
        assert replayed.status == 0, replayed.text
        total = sum(before["events"].values())
        assert f"合计 {total} 条" in replayed.text, replayed.text
        for service in SERVICES:
            assert f"{service}：{before['events'][service]} 条已全部重新发布" in replayed.text
            pending = world.database(service)["outbox"].count_documents({"pending": True})
            assert pending == 0, service

        async def came_again(known: dict[str, float] = known) -> bool:
            return all([await world.metric(s, name) > known[s] for s in SERVICES])

        await eventually(came_again, 40)
    after = await quiet(lambda: snapshot(world))
    for part, value in before.items():
        assert after[part] == value, part
    entries = await audited(world, "intake", "all topics")
    assert [entry["result"] for entry in entries[-2:]] == [f"marked {before['events']['intake']}"] * 2
    unknown = await xinfu(world, "outbox", "replay", "--reason", REASON, "--topic", "xinfu.nothing")
    assert (unknown.status, "xinfu.decisions" in unknown.text) == (1, True), unknown.text


async def test_doctor(world: World) -> None:
    """All well; then it names the index that is gone and the service that is down, while the other commands do without it."""

    async def all_well() -> None:
        """Breakers that earlier tests opened close again, and what was restarted comes up."""
        deadline = time.monotonic() + 60 * PATIENCE
        while (ended := await xinfu(world, "doctor")).status:
            assert time.monotonic() < deadline, ended.text
            await asyncio.sleep(1)

    await all_well()
    for command in (["outbox", "status"], ["lag"], ["dlq", "list"]):
        ended = await xinfu(world, *command)
        assert ended.status == 0, ended.text
    world.database("routing")["outbox"].drop_index("by_topic")
    world.stack.stop_process("notify")
    admin, lifetime = world.database("sync").client.admin, "transactionLifetimeLimitSeconds"
    before = admin.command({"getParameter": 1, lifetime: 1})[lifetime]
    window = "minSnapshotHistoryWindowInSeconds"
    admin.command({"setParameter": 1, lifetime: 60})
    admin.command({"setParameter": 1, window: 300})
    try:
        found = await xinfu(world, "doctor")
        assert found.status == 1
        wrong = [line for line in found.text.splitlines() if line.startswith("✗")]
        assert [line.split("：")[0] for line in wrong] == [
            "✗ notify 就绪",
            "✗ routing 数据库",
            "✗ notify 概况",
        ]
        assert "outbox.by_topic" in wrong[1]
        assert f"{lifetime}=15" in found.text
        assert f"{window}=0" in found.text
        assert "✓ 历史签名头" in found.text
        for command in (["dlq", "list"], ["outbox", "status"], ["lag"]):
            ended = await xinfu(world, *command)
            assert (ended.status, "notify 没有回答" in ended.text) == (1, True), ended.text
        assert "intake" in ended.text
    finally:
        admin.command({"setParameter": 1, lifetime: before})
        admin.command({"setParameter": 1, window: 0})
        world.stack.start_process("notify")
        world.stack.restart("routing")
    await all_well()
