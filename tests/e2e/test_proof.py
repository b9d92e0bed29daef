"""What is proved about a case: its history, its certificate, the letters to a vendor that does not follow."""

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e.people import Company, Document, World
from pypdf import PdfReader
from yarl import URL

from contracts.catalogue import Protocol
from contracts.errors import ProblemCode
from contracts.signatures import KeySet, UnverifiedError
from support import eventually
from xinfu.audit import Exported, Running, audit, export
from xinfu.certificate import read_certificate
from xinfu.client import Client
from xinfu.compose import SERVICES, replay_outboxes
from xinfu.operators import Services

VENDOR_LETTER = {"headers.ce_type": "cn.xinfu.vendorletter.issued.v1"}


@pytest.fixture(scope="module")
async def repaired(world: World) -> tuple[Company, Document]:
    """A company whose one record is repaired and seen so everywhere."""
    company = await world.company()
    return company, await world.repaired(company)


async def xinfu(world: World, *arguments: str) -> tuple[int | None, str]:
    """A command as an operator gives it: exit status and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "xinfu", *arguments, "--data-dir", str(world.stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200"},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def running(world: World) -> Running:
    """The history of the running sync, as an operator reads it."""
    return Running(Services(Client(world.http, await world.ops()), world.endpoints.services))


async def findings(world: World, record: str | None = None) -> list[str]:
    """Ids of what an audit finds."""
    history = await running(world)
    return list((await audit(history, await history.keys(), record)).findings)


async def test_whatever_is_changed_in_the_history_is_named(
    world: World, repaired: tuple[Company, Document], tmp_path: Path
) -> None:
    company, _ = repaired
    record = company.ids[0]
    history = world.database("sync")["history"]
    chain = f"credit-china|{record}"
    first, second = (f"{chain}#{seq:010d}" for seq in (1, 2))
    assert await findings(world, record) == []
    assert await findings(world) == []
    texts = [json.loads(row["text"]) for row in history.find({"record_id": record})]
    # of the target that is told by letter alone, a letter may have been drafted
    assert {text["kind"] for text in texts} - {"letter"} == {"decision", "push", "reading"}
    assert company.code not in json.dumps(texts)
    # whichever way a target says so: in its answer, a receipt, a file, or by fetching the list
    applied = {text["chain"] for text in texts if text["facts"].get("answer") == "applied"}
    assert applied == {f"{target.id}|{record}" for target in world.told(company)}

    original = history.find_one({"_id": first})
    other = history.find_one({"_id": second})
    assert original is not None
    assert other is not None

    def byte_changed() -> None:
        text = original["text"].replace("applied", "Applied")
        history.update_one({"_id": first}, {"$set": {"text": text}})

    def removed() -> None:
        history.delete_one({"_id": first})

    def inserted() -> None:
        history.insert_one({**original, "_id": first + "a"})

    def swapped() -> None:
        history.replace_one({"_id": first}, {**other, "_id": first})
        history.replace_one({"_id": second}, {**original, "_id": second})

    meddlings: dict[Callable[[], None], set[str]] = {
        byte_changed: {first},
        removed: {first},
        inserted: {first + "a"},
        swapped: {first, second},
    }
    for meddle, named in meddlings.items():
        meddle()
        try:
            assert named <= set(await findings(world, record)), meddle
            file = tmp_path / f"{meddle.__name__}.jsonl"
            await export(await running(world), file)
            with Exported.open(file) as exported:
                found = await audit(exported, await exported.keys())
            assert named <= set(found.findings), meddle
            if meddle is byte_changed:
                for arguments in (("--record", record), ("--file", str(file))):
                    code, output = await xinfu(world, "audit", "verify", *arguments)
                    assert code == 1
                    assert first in output
        finally:
            history.delete_one({"_id": first + "a"})
            history.replace_one({"_id": first}, original, upsert=True)
            history.replace_one({"_id": second}, other, upsert=True)
    assert await findings(world, record) == []


async def test_a_certificate_says_what_is_seen_and_everybody_can_check_it(
    world: World, repaired: tuple[Company, Document], tmp_path: Path
) -> None:
    company, _ = repaired
    record, other = company.ids[0], await world.company()
    address = world.url("intake", f"/v1/subjects/me/records/{record}/certificate")
    (await world.ask("GET", address)).problem(ProblemCode.UNAUTHENTICATED)
    (await world.ask("GET", address, other.token)).problem(ProblemCode.NOT_FOUND)
    own = world.url("intake", f"/v1/subjects/me/records/{other.ids[0]}/certificate")
    (await world.ask("GET", own, other.token)).problem(ProblemCode.NOT_FOUND, "决定")

    signed = (await world.ask("GET", f"{address}?format=json", company.token)).ok()
    again = (await world.ask("GET", f"{address}?format=json", company.token)).ok()
    assert again == signed
    body = signed["certificate"]
    standing = {t.id: "by_letter" for t in world.catalogue.targets if t.protocol is Protocol.LETTER}
    standing |= {t.id: "right" if t.read_back else "acknowledged" for t in world.told(company)}
    assert set(standing.values()) == {"by_letter", "right", "acknowledged"}
    assert {target["target_id"]: target["standing"] for target in body["targets"]} == standing
    assert not body["complete"], "nobody can look at some of them"
    history = world.database("sync")["history"]
    for target in body["targets"]:
        if standing[target["target_id"]] != "right":
            assert target["evidence"] is None
            continue
        reading = history.find_one({"hash": target["evidence"]})
        assert reading is not None
        assert json.loads(reading["text"])["facts"]["right"] is True

    json_file, pdf_file, keys_file = (tmp_path / name for name in ("c.json", "c.pdf", "keys.json"))
    json_file.write_text(json.dumps(signed, ensure_ascii=False))
    async with world.http.get(address, headers={"authorization": f"Bearer {company.token}"}) as response:
        pdf_file.write_bytes(await response.read())
    keys_file.write_text(json.dumps((await world.ask("GET", world.url("sync", "/v1/keys"))).ok()))
    offline = ("certificate", "verify", str(pdf_file), "--keys", str(keys_file))
    assert (await xinfu(world, *offline))[0] == 0
    assert (await xinfu(world, "certificate", "verify", str(json_file), "--now"))[0] == 0
    forged = json.dumps(signed, ensure_ascii=False).replace(company.name, "杭州另一家公司")
    json_file.write_text(forged)
    keys = KeySet.model_validate_json(keys_file.read_text())
    assert read_certificate(pdf_file).checked(keys)[0].code == body["code"]
    with pytest.raises(UnverifiedError):
        read_certificate(json_file).checked(keys)

    # with one target that has not been looked at since, it does not say that all is well
    deliveries = world.database("sync")["deliveries"]
    delivery = deliveries.find_one({"_id": f"qichacha|{record}"})
    assert delivery is not None
    deliveries.update_one({"_id": delivery["_id"]}, {"$set": {"seen_version": 0, "seen_state": "published"}})
    try:
        honest = (await world.ask("GET", f"{address}?format=json", company.token)).ok()["certificate"]
        check = (await world.ask("GET", f"{body['verify_url']}?format=json")).ok()
    finally:
        deliveries.replace_one({"_id": delivery["_id"]}, delivery)
    assert [t["standing"] for t in honest["targets"] if t["target_id"] == "qichacha"] == ["different"]
    assert not honest["complete"]
    assert (check["signature_valid"], check["still_true"], check["revoked"]) == (True, False, False)
    page = str((await world.ask("GET", f"{body['verify_url']}?format=html")).ok())
    assert company.name in page
    assert "现在仍然如此" in page
    (await world.ask("GET", world.url("sync", "/v1/certificates/AAAAA-AAAAA-AAAAA-AAAAA"))).problem(
        ProblemCode.NOT_FOUND
    )


async def test_a_vendor_that_keeps_showing_a_repaired_record_is_written_to_once(
    world: World, repaired: tuple[Company, Document]
) -> None:
    company, _ = repaired
    record = company.ids[0]
    sync, sandbox = world.database("sync"), world.url("sandbox", "/targets/qichacha/sandbox")
    mine = {"subject_code": company.code}
    delivery_id = f"qichacha|{record}"
    ops = await world.ops()

    def letters() -> list[Document]:
        own = {"record_id": record, "target_id": "qichacha"}
        return list(sync["vendor_letters"].find(own).sort("drafted_at"))

    def delivery() -> Document:
        found = sync["deliveries"].find_one({"_id": delivery_id})
        assert found is not None
        return found

    def aged(days: int) -> None:
        """As if the vendor had differed for so long already; the next look is now."""
        at: Document = {"next_action_at": datetime.now(UTC)}
        if days:
            at["differs_since"] = datetime.now(UTC) - timedelta(days=days)
        free: Document = {"_id": delivery_id, "lease_until": {"$lte": datetime.now(UTC)}}
        while not sync["deliveries"].update_one(free, {"$set": at}).matched_count:
            time.sleep(0.02)  # whoever holds it would write its own over this
            free["lease_until"] = {"$lte": datetime.now(UTC)}

    # forgotten: repaired by itself, nobody is written to
    drifts = delivery()["drifts"]
    (await world.ask("POST", f"{sandbox}/forget", json=mine)).ok()
    aged(0)

    async def repaired_again() -> bool:
        found = delivery()
        return bool(found["drifts"] > drifts and found["differs_since"] is None)

    await eventually(repaired_again, 40)
    assert letters() == []

    # shown again, and pushes are refused: after the time limit a letter is drafted, and waits for a person
    (await world.ask("POST", f"{sandbox}/republish", json=mine)).ok()
    aged(0)

    async def differs() -> bool:
        return delivery()["differs_since"] is not None

    await eventually(differs, 40)
    # the record was decided as long ago; the history tells when, and is not touched
    sync["records"].update_one({"_id": record}, {"$set": {"decided_at": "2026-01-05T02:00:00Z"}})
    aged(20)

    async def drafted() -> bool:
        return len(letters()) == 1

    await eventually(drafted, 40)
    (draft,) = letters()
    assert draft["state"] == "draft"
    url = world.url("sync", f"/v1/vendor-letters/{draft['_id']}")
    preview = str((await world.ask("GET", f"{url}/preview", ops)).ok())
    assert company.name in preview
    assert "编号待签发" in preview

    released = (await world.ask("POST", f"{url}/release", ops)).ok()
    assert (await world.ask("POST", f"{url}/release", ops)).ok() == released
    assert released["number"].startswith("信复函〔")
    async with world.http.get(f"{url}/pdf", headers={"authorization": f"Bearer {ops}"}) as response:
        pdf = await response.read()
    await asyncio.to_thread((world.stack.data_dir / "vendor-letter.pdf").write_bytes, pdf)
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    for words in (released["number"], company.code, "企查查科技股份有限公司", "商请"):
        assert words in "".join(text.split())

    async def mails(number: str = released["number"], to: str = "letters@qichacha.example") -> list[Document]:
        address = world.url("sandbox", f"/mail?to={to}")
        return [m for m in (await world.ask("GET", address)).ok() if number in m["subject"]]

    async def sent() -> bool:
        # mailed, and known to be: without that no second letter follows
        return len(await mails()) == 1 and letters()[-1]["dispatch"]["sent_at"] is not None

    await eventually(sent, 30)

    # an answer does not end it; the second letter and the report follow, each after a person released the one before
    (
        await world.ask(
            "POST", f"{url}/answer", ops, json={"text": "数据来自其他渠道", "received_on": "2026-11-20"}
        )
    ).ok()
    for count in (2, 3):
        earlier = letters()[-1]
        long_ago = (datetime.now(UTC) - timedelta(days=20)).isoformat()
        sent_long_ago = {"released_at": long_ago, "dispatch.sent_at": long_ago}
        sync["vendor_letters"].update_one({"_id": earlier["_id"]}, {"$set": sent_long_ago})

        async def next_one(count: int = count) -> bool:
            return len(letters()) == count

        await eventually(next_one, 40)
        own = world.url("sync", f"/v1/vendor-letters/{letters()[-1]['_id']}")
        letter = (await world.ask("POST", f"{own}/release", ops)).ok()
        assert letter["state"] == "released"
        if count == 2:
            supervisor = world.catalogue.target("qichacha").letters.supervisor_email  # type: ignore[union-attr]

            async def copied(number: str = letter["number"], to: str = str(supervisor)) -> bool:
                both = letters()[-1]["dispatch"], letters()[-1]["copy"]
                return all(each["sent_at"] for each in both) and len(await mails(number, to)) == 1

            await eventually(copied, 30)
            (copy,) = await mails(letter["number"], str(supervisor))
            assert copy["subject"].startswith("抄送：再次函告企查查")
            assert len(await mails(letter["number"])) == 1
    numbers = [int(str(letter["number"]).partition("〕")[2].removesuffix("号")) for letter in letters()]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    issued = sync["outbox"].count_documents({"value": {"$exists": True}, "key": record, **VENDOR_LETTER})
    assert issued == 2, "the report is prepared, and never sent by itself"

    # nothing is told twice when everything is published again
    async def quantities() -> list[int]:
        addresses = [letter["_id"] for letter in letters()]
        collections = ("history", "certificates", "vendor_letters")
        counts = [sync[name].count_documents({"record_id": record}) for name in collections]
        return [
            *counts,
            len(addresses),
            len(await mails()),
            world.database("notify")["emails"].count_documents({"subject_id": letters()[0]["subject_id"]}),
            world.database("notify")["messages"].count_documents({"subject_id": letters()[0]["subject_id"]}),
        ]

    # the vendor does as told now: seen right, all letters are closed
    (await world.ask("POST", f"{sandbox}/republish", json={**mine, "then": "repair"})).ok()
    aged(0)

    async def closed() -> bool:
        return all(letter["closed_at"] for letter in letters())

    await eventually(closed, 40)
    sync["deliveries"].update_many(
        {"record_id": record}, {"$set": {"next_action_at": datetime.now(UTC) + timedelta(hours=1)}}
    )
    await asyncio.sleep(1)  # a look that is under way ends
    before = await quantities()
    replay_outboxes(world.stack.mongodb_uri)

    async def published() -> bool:
        waiting = [
            world.database(service)["outbox"].count_documents({"pending": True}) for service in SERVICES
        ]
        return not any(waiting)

    await eventually(published, 60)
    await world.works()
    assert await quantities() == before
    assert await findings(world, record) == []


async def test_operators_pages_are_opened_by_a_link_and_change_nothing(
    world: World, repaired: tuple[Company, Document]
) -> None:
    company, _ = repaired
    pages = world.url("sync", "/v1/pages")
    (await world.ask("GET", f"{pages}/convergence")).problem(ProblemCode.UNAUTHENTICATED, "--open")
    (await world.ask("POST", f"{pages}/links", company.token)).problem(ProblemCode.FORBIDDEN)
    link = (await world.ask("POST", f"{pages}/links", await world.ops())).ok()["url"]
    async with world.http.get(link, allow_redirects=False) as answer:
        assert answer.status == 303
        cookie = answer.headers["set-cookie"]
        address = str(answer.url.join(URL(answer.headers["location"])))
    assert {"HttpOnly", "SameSite=strict", "Path=/v1/pages"} <= {part.strip() for part in cookie.split(";")}
    (await world.ask("GET", link)).problem(ProblemCode.UNAUTHENTICATED)
    own = {"cookie": cookie.partition(";")[0]}
    async with world.http.get(address, headers=own) as answer:
        html = await answer.text()
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert all(target.name in html for target in world.catalogue.targets)
    record = str((await world.ask("GET", f"{pages}/records/{company.ids[0]}", headers=own)).ok())
    assert all(words in record for words in ("推送", "回读", "终止公示", "企查查"))
    assert "<script" not in html + record
    # the cookie opens pages, and nothing else
    (await world.ask("GET", world.url("sync", "/v1/convergence"), headers=own)).problem(
        ProblemCode.UNAUTHENTICATED
    )
    code, output = await xinfu(world, "convergence")
    assert code == 0, output
    assert "信用中国" in output
    code, output = await xinfu(world, "convergence", "--record", company.ids[0])
    assert code == 0, output
