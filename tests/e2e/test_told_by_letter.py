"""A target that is told by letter alone: the letter goes out, or a person takes it there; its answer and what a person saw are the evidence."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.people import Company, Document, World
from e2e.test_publication import ruling, shield

from contracts.errors import ProblemCode
from support import eventually
from xinfu.audit import Running, audit
from xinfu.client import Client
from xinfu.operators import Services

PAPER = "shili-zhengxin"


async def xinfu(world: World, *arguments: str) -> str:
    """A command of an operator that succeeds; what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xinfu", *arguments, "--data-dir", str(world.stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "250"},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


class Told:
    """One record at the target."""

    def __init__(self, world: World, company: Company) -> None:
        self.world = world
        self.company = company
        self.record = company.ids[0]

    def letter(self) -> Document | None:
        """The newest letter about it."""
        letters = self.world.database("sync")["vendor_letters"]
        return letters.find_one({"record_id": self.record, "target_id": PAPER}, sort=[("drafted_at", -1)])

    async def row(self) -> dict[str, Any]:
        """As operators see it."""
        url = self.world.url("sync", f"/v1/records/{self.record}")
        found = (await self.world.ask("GET", url, await self.world.ops())).ok()
        return next(target for target in found["targets"] if target["target_id"] == PAPER)

    async def released(self, step: int = 1) -> str:
        """Wait for the draft of this step, release it; its id."""

        async def drafted() -> bool:
            found = self.letter()
            return bool(found and found["step"] == step)

        await eventually(drafted, 40)
        found = self.letter()
        assert found is not None
        url = self.world.url("sync", f"/v1/vendor-letters/{found['_id']}/release")
        (await self.world.ask("POST", url, await self.world.ops())).ok()
        return str(found["_id"])

    async def until(self, part: str, name: str) -> None:
        """Wait until this is known of how the letter, or its copy, leaves."""

        async def known() -> bool:
            found = self.letter()
            return bool(found and found[part] and found[part][name])

        await eventually(known, 40)

    async def standing(self) -> dict[str, Any]:
        """What the certificate says of the target."""
        path = f"/v1/subjects/me/records/{self.record}/certificate?format=json"
        signed = (await self.world.ask("GET", self.world.url("intake", path), self.company.token)).ok()
        targets: list[dict[str, Any]] = signed["certificate"]["targets"]
        return next(target for target in targets if target["target_id"] == PAPER)

    async def findings(self) -> list[str]:
        """Of an audit of its history."""
        client = Client(self.world.http, await self.world.ops())
        history = Running(Services(client, self.world.endpoints.services))
        return list((await audit(history, await history.keys(), self.record)).findings)


async def test_a_letter_is_mailed_answered_and_what_a_person_sees_is_evidence(world: World) -> None:
    told = Told(world, company := await world.company())
    await world.repaired(company)
    assert (await told.standing())["standing"] == "by_letter"

    async def drafted() -> bool:
        return told.letter() is not None

    await eventually(drafted, 40)
    assert "已签发" in await xinfu(world, "letters", "release-notices", PAPER)
    letter = str((told.letter() or {})["_id"])
    await told.until("dispatch", "sent_at")
    row = await told.row()
    assert (row["sent_version"], row["acknowledged_version"], row["settled"]) == (1, 0, False)
    assert row["due_on"] is not None, "its time limit runs from the letter"
    assert "等待该平台答复" in row["note"]
    number = (told.letter() or {})["number"]
    mails = (await world.ask("GET", world.url("sandbox", f"/mail?to=letters@{PAPER}.example"))).ok()
    (mail,) = [each for each in mails if number in each["subject"]]
    assert "告知信用修复决定" in mail["subject"]
    assert (await told.standing())["standing"] == "letter_sent"
    # an answer that nothing was done changes nothing; that it is done is its acknowledgement
    await xinfu(world, "letters", "answer", letter, "--text", "已转有关部门")
    assert not (await told.row())["settled"]
    output = await xinfu(
        world, "letters", "answer", letter, "--text", "已停止展示", "--done", "--reference", "复1号"
    )
    assert "已了结" in output
    row = await told.row()
    assert (row["acknowledged_version"], row["settled"], row["differs_since"]) == (1, True, None)
    assert (row["due_on"], row["overdue"]) == (None, False)
    assert (await told.standing())["standing"] == "acknowledged"
    # a person looks, and sees it
    await xinfu(world, "letters", "seen", told.record, PAPER, "--reference", "截图 1")
    row = await told.row()
    assert (row["seen_version"], row["seen_state"]) == (1, None)
    standing = await told.standing()
    assert (standing["standing"], standing["standing_text"]) == ("seen_by_person", "一致（经办人查看）")
    entry = world.database("sync")["history"].find_one({"hash": standing["evidence"]})
    assert entry is not None
    assert json.loads(entry["text"])["facts"]["by"]
    # and later sees it published again: it is written to again
    url = world.url("sync", f"/v1/records/{told.record}/targets/{PAPER}/visits")
    again = {"shown": "published", "reference": "截图 2"}
    seen = (await world.ask("POST", url, await world.ops(), json=again)).ok()
    assert (seen["settled"], seen["drifts"]) == (False, 1)
    assert (await told.standing())["standing"] == "different"

    async def drafted_again() -> bool:
        found = told.letter()
        return bool(found and found["_id"] != letter and found["state"] == "draft")

    await eventually(drafted_again, 40)
    past = {**again, "looked_at": "2026-01-01T00:00:00+08:00"}
    (await world.ask("POST", url, await world.ops(), json=past)).problem(ProblemCode.VALIDATION, "looked_at")
    elsewhere = url.replace(PAPER, "credit-china")
    (await world.ask("POST", elsewhere, await world.ops(), json=again)).problem(
        ProblemCode.INVALID_TRANSITION, "自动查看"
    )
    (await world.ask("POST", url, company.token, json=again)).problem(ProblemCode.FORBIDDEN)
    assert await told.findings() == []
    types = world.database("sync")["outbox"].distinct("headers.ce_type", {"key": told.record})
    assert {f"cn.xinfu.target.{what}.v1" for what in ("acknowledged", "verified", "drifted")} <= set(types)


async def test_a_letter_that_cannot_be_mailed_is_taken_there_by_a_person_and_followed_by_one_more(
    world: World,
) -> None:
    told = Told(world, company := await world.company())
    (item,) = (await world.repaired(company))["items"]
    await world.fault("smtp", mode="fail")
    try:
        letter = await told.released()
        emails = world.database("notify")["emails"]
        own = {"vendor_letter.letter_id": letter}

        async def given_up() -> bool:
            # a worker that has it in hand writes its own number of attempts over this
            emails.update_many(own, {"$set": {"attempts": 9999}})
            dispatch = (told.letter() or {})["dispatch"]
            return bool(dispatch and dispatch["problem"])

        await eventually(given_up, 40)
    finally:
        await world.fault("smtp", mode="ok")
    assert (await told.row())["sent_version"] == 0, "it has not left"

    async def measured() -> bool:
        name = "xinfu_sync_letters_waiting"
        return await world.metric("sync", name, target=PAPER, waits_for="sending") >= 1

    await eventually(measured, 40)
    found = await world.ask("GET", world.url("sync", "/v1/convergence"), await world.ops())
    (paper,) = (each for each in found.ok()["targets"] if each["target_id"] == PAPER)
    assert "sending" in {each["waits_for"] for each in paper["letters_waiting"]}
    listed = await xinfu(world, "letters", "list", "--state", "released")
    assert "请人送达" in listed
    url = world.url("sync", f"/v1/vendor-letters/{letter}/sent")
    early = {"sent_at": "2026-01-01T00:00:00+08:00", "reference": "EMS 1"}
    (await world.ask("POST", url, await world.ops(), json=early)).problem(ProblemCode.VALIDATION, "签发之后")
    copy = {"reference": "EMS 1", "to_supervisor": True}
    (await world.ask("POST", url, await world.ops(), json=copy)).problem(
        ProblemCode.INVALID_TRANSITION, "没有抄送件"
    )
    await xinfu(world, "letters", "sent", letter, "--reference", "EMS 1")
    assert (await told.row())["sent_version"] == 1
    first = (told.letter() or {})["dispatch"]
    await xinfu(world, "letters", "sent", letter, "--reference", "EMS 2")
    assert (told.letter() or {})["dispatch"] == first, "it leaves once"
    # no answer for long: one more, with a copy for the supervisor; and no report, as nobody has looked
    sync = world.database("sync")
    long_ago = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    sync["vendor_letters"].update_one({"_id": letter}, {"$set": {"dispatch.sent_at": long_ago}})
    sync["deliveries"].update_one(
        {"_id": f"{PAPER}|{told.record}"}, {"$set": {"next_action_at": datetime.now(UTC)}}
    )
    await told.released(step=2)
    await told.until("dispatch", "sent_at")
    await told.until("copy", "sent_at")
    number = (told.letter() or {})["number"]
    supervisor = world.catalogue.target(PAPER).letters.supervisor_email  # type: ignore[union-attr]
    mails = (await world.ask("GET", world.url("sandbox", f"/mail?to={supervisor}"))).ok()
    assert len([each for each in mails if number in each["subject"]]) == 1
    assert (await told.row())["next_action_at"] is None
    # revoked: the letters about the grant are over, and it is told to show the record again
    (await world.desk(item["item_id"], "revoke", {"reason": "材料虚假"})).ok()

    async def told_anew() -> bool:
        found = told.letter()
        return bool(found and found["version"] == 2)

    await eventually(told_anew, 40)
    new = told.letter()
    assert new is not None
    about_the_grant = sync["vendor_letters"].find(
        {"record_id": told.record, "target_id": PAPER, "version": 1}
    )
    assert [each["closed_at"] is None for each in about_the_grant] == [False, False]
    preview = await world.ask(
        "GET", world.url("sync", f"/v1/vendor-letters/{new['_id']}/preview"), await world.ops()
    )
    assert "恢复展示该记录" in str(preview.ok())
    assert await told.findings() == []


async def test_a_shield_and_its_end_are_told_by_letter_without_any_application(world: World) -> None:
    told = Told(world, company := await world.company())
    (await shield(world, ruling("（2026）浙01破21号", told.record))).ok()
    letter = await told.released()
    await told.until("dispatch", "sent_at")
    found = told.letter() or {}
    assert (found["application_id"], found["item_id"]) == (None, None)
    mails = (await world.ask("GET", world.url("sandbox", f"/mail?to=letters@{PAPER}.example"))).ok()
    (mail,) = [each for each in mails if found["number"] in each["subject"]]
    assert "告知失信记录公示变动" in mail["subject"]
    preview = await world.ask(
        "GET", world.url("sync", f"/v1/vendor-letters/{letter}/preview"), await world.ops()
    )
    shown = str(preview.ok())
    assert "（2026）浙01破21号" in shown
    assert "暂停展示该记录" in shown
    messages = world.url("notify", "/v1/subjects/me/messages")

    async def told_about_it() -> bool:
        own = (await world.ask("GET", messages, company.token)).ok()["messages"]
        return any("公示变动" in each["title"] for each in own)

    await eventually(told_about_it, 40)
    await xinfu(world, "letters", "answer", letter, "--text", "已暂停展示", "--done")
    assert (await told.row())["settled"]
    # the plan failed: it may be shown again, and the letters about the shield are over
    ended = ruling("（2026）浙01破22号", told.record, outcome="failed")
    (await shield(world, ended, "/end")).ok()

    async def told_anew() -> bool:
        found = told.letter()
        return bool(found and found["version"] == 2 and found["state"] == "draft")

    await eventually(told_anew, 40)
    new = (told.letter() or {})["_id"]
    await xinfu(world, "letters", "discard", new, "--reason", "该平台从未展示")
    again = await xinfu(world, "letters", "restore", new)
    assert "草稿" in again
    assert (told.letter() or {})["state"] == "draft"
    assert await told.findings() == []
