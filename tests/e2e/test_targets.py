"""Targets that are told in other ways, and what the outside may try: on the running stack."""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from e2e.people import Answer, Company, World

from chassis.webhooks import sign, verify
from contracts.batch_files import Manifest, ManifestEntry
from contracts.catalogue import Protocol
from contracts.errors import ProblemCode
from contracts.http.target import RepairList
from contracts.tokens import Scope
from support import eventually

RECEIPTS, FILES, LIST = "qixinbao", "aiqicha", "shuidi"


async def decided(world: World, company: Company) -> str:
    """The application of a company whose only record has been granted at the desk."""
    application = (await world.submit(company)).ok()
    (await world.desk(application["items"][0]["item_id"], "grant")).ok()
    return str(application["application_id"])


async def matrix(world: World, company: Company) -> dict[str, dict[str, Any]]:
    """The record at all its targets, as operators see it."""
    operator = await world.sign_in(Scope.OPERATIONS, sub="operator")
    answer = await world.ask("GET", world.url("sync", f"/v1/records/{company.ids[0]}"), operator)
    targets = answer.body.get("targets", []) if answer.status == 200 else []
    return {target["target_id"]: target for target in targets}


async def receipt(
    world: World, target_id: str, results: Any, *, webhook_id: str | None = None, secret: str | None = None
) -> Answer:
    """A receipt that a target sends."""
    body = json.dumps({"results": results}).encode()
    url = world.url("sync", f"/v1/targets/{target_id}/receipts")
    headers = sign(
        secret or world.secrets[f"target:{target_id}"], webhook_id or f"t_{secrets.token_hex(8)}", body
    )
    return await world.ask("POST", url, data=body, headers=headers)


async def test_every_protocol_carries_a_decision_and_leaves_its_evidence(world: World) -> None:
    company = await world.company()
    exchanged = world.stack.data_dir / "sandbox" / "sftp" / FILES
    # left alone by a batch that was written again while it was taken: it stands in nobody's way
    (exchanged / "repairs").mkdir(parents=True, exist_ok=True)
    alone = exchanged / "repairs" / "alone.manifest.json"
    entry = ManifestEntry(name="alone.csv", size=1, sha256="0" * 64, rows=1)
    manifest = Manifest(batch_id="alone", created_at=datetime.now(UTC), files=[entry])
    alone.write_text(manifest.model_dump_json())
    await world.fault(RECEIPTS, mode="foreign_receipt", count=1)
    await world.fault(FILES, mode="fail", count=2)  # its SFTP server is gone for a moment
    await world.until_completed(company, await decided(world, company))
    told = world.told(company)
    for target in told:
        assert await world.public(target.id, company) == set(), target.id
        pushes = await world.pushes(target.id, company)
        assert [(push["status"], push["effect"]) for push in pushes] == [("applied", True)], target.id
    found = await matrix(world, company)
    assert all(found[target.id]["settled"] for target in told)
    operator = await world.sign_in(Scope.OPERATIONS, sub="operator")
    url = world.url("sync", f"/v1/records/{company.ids[0]}/attempts")
    answer = (await world.ask("GET", url, operator)).ok()
    assert company.code not in str(answer)
    assert company.name not in str(answer)
    done = {(each["target_id"], each["action"], each["result"]) for each in answer["attempts"]}
    for target in told:
        later = target.protocol is not Protocol.PUSH
        assert (target.id, "push", "received" if later else "applied") in done
        assert ((target.id, "read back", "publication_ended") in done) == target.read_back
    assert {(RECEIPTS, "receipt", "applied"), (LIST, "cursor", "applied")} <= done
    assert (FILES, "receipt file", "applied") in done
    alone.unlink()
    assert list((exchanged / "receipts" / "taken").glob("*.ack.csv")), "it came over SFTP"
    assert not list((exchanged / "repairs").iterdir())
    readings = list(world.database("sync")["readings"].find({"record_id": company.ids[0]}))
    assert {(each["target_id"], each["right"]) for each in readings} == {
        (target.id, True) for target in told if target.read_back
    }


async def test_vendors_and_regulators_are_told_once_the_nation_has_acknowledged(world: World) -> None:
    company = await world.company()
    await world.fault("credit-china", mode="fail", status=503)
    application = await decided(world, company)
    later = {target.id for target in world.told(company) if target.after}

    async def others_done() -> bool:
        found = await matrix(world, company)
        return bool(found) and all(
            target.id == "credit-china" or found[target.id]["settled"] != (target.id in later)
            for target in world.told(company)
        )

    await eventually(others_done, 40)
    found = await matrix(world, company)
    for target_id in later:
        assert found[target_id]["waits_for"] == ["credit-china"]
        assert "等待信用中国确认" in found[target_id]["note"]
        assert await world.pushes(target_id, company) == []
    # its time limit passes at one of them: it is told all the same, and says why
    early = "tianyancha"
    world.database("sync")["deliveries"].update_one(
        {"_id": f"{early}|{company.ids[0]}"}, {"$set": {"next_action_at": datetime.now(UTC)}}
    )

    async def told_early() -> bool:
        return await world.public(early, company) == set()

    await eventually(told_early, 40)
    await world.fault("credit-china", mode="ok")
    await world.until_completed(company, application)
    assert all(not target["waits_for"] for target in (await matrix(world, company)).values())
    assert [push["effect"] for push in await world.pushes(early, company)] == [True]


async def test_a_target_that_answers_and_does_nothing_and_one_that_redirects_are_found_out(
    world: World,
) -> None:
    company = await world.company()
    await world.fault("credit-zhejiang", mode="ignore", count=1)
    await world.fault("credit-hangzhou", mode="redirect")  # looks at other records meet it too
    await world.fault(RECEIPTS, mode="silent", count=1)
    await world.fault(FILES, mode="partial", count=1)
    application = await decided(world, company)

    left = world.stack.data_dir / "sandbox" / "sftp" / FILES / "repairs"

    async def late() -> bool:
        found = await matrix(world, company)
        sent = bool(found) and all(found[target]["sent_version"] == 1 for target in (RECEIPTS, FILES))
        # told again before the file is taken, it would be the same file, taken once and answered never
        return sent and not any(left.iterdir())

    async def redirected() -> bool:
        own = {"rows.record_id": company.ids[0], "target_id": "credit-hangzhou", "error": {"$ne": None}}
        return world.database("sync")["attempts"].find_one(own) is not None

    await eventually(redirected, 40)
    await world.fault("credit-hangzhou", mode="ok")
    await eventually(late, 40)
    # what is without a receipt is told again; nobody waits for that here
    world.database("sync")["deliveries"].update_many(
        {"_id": {"$in": [f"{target}|{company.ids[0]}" for target in (RECEIPTS, FILES)]}},
        {"$set": {"next_action_at": datetime.now(UTC)}},
    )
    await world.until_completed(company, application)
    for target in world.told(company):
        assert await world.public(target.id, company) == set(), target.id
    found = await matrix(world, company)
    assert found["credit-zhejiang"]["drifts"] == 1
    seen = [
        (each["right"], each["seen_state"], len(each["answer_sha256"]))
        for each in world.database("sync")["readings"].find(
            {"record_id": company.ids[0], "target_id": "credit-zhejiang"}, sort=[("at", 1)]
        )
    ]
    assert seen == [(False, "published", 64), (True, "publication_ended", 64)]
    attempts = list(world.database("sync")["attempts"].find({"rows.record_id": company.ids[0]}))
    errors = [each["error"] for each in attempts if each["target_id"] == "credit-hangzhou" and each["error"]]
    assert any("a redirect to http://127.0.0.1:9/, which is not followed" in error for error in errors)


async def test_receipts_of_others_unknown_ones_and_replays_change_nothing(world: World) -> None:
    company = await world.company()
    await world.fault(RECEIPTS, mode="silent", count=1)
    application = await decided(world, company)
    key = f"{RECEIPTS}:{company.ids[0]}:1"

    async def sent() -> bool:
        return (await matrix(world, company)).get(RECEIPTS, {}).get("sent_version") == 1

    await eventually(sent, 40)
    applied = [{"idempotency_key": key, "status": "applied"}]
    other = [*applied, {"idempotency_key": f"{LIST}:{company.ids[0]}:1", "status": "applied"}]
    (await receipt(world, RECEIPTS, other)).problem(ProblemCode.WRONG_TARGET, "启信宝")
    for unknown in (f"{RECEIPTS}:{company.ids[0]}:7", f"{RECEIPTS}:rec_{'e' * 32}:1"):
        rows = [*applied, {"idempotency_key": unknown, "status": "applied"}]
        (await receipt(world, RECEIPTS, rows)).problem(ProblemCode.NOT_FOUND, unknown)
    for nonsense in ("", "x", "a:b:c"):
        rows = [{"idempotency_key": nonsense, "status": "applied"}]
        (await receipt(world, RECEIPTS, rows)).problem(ProblemCode.WRONG_TARGET)
    stolen = world.secrets[f"target:{LIST}"]
    (await receipt(world, RECEIPTS, applied, secret=stolen)).problem(ProblemCode.BAD_SIGNATURE, "时钟")
    (await receipt(world, "nobody", applied, secret=stolen)).problem(ProblemCode.NOT_FOUND)
    (await receipt(world, LIST, applied)).problem(ProblemCode.NOT_FOUND, "不以回执")
    (await receipt(world, RECEIPTS, "nothing")).problem(ProblemCode.VALIDATION)
    assert (await matrix(world, company))[RECEIPTS]["acknowledged_version"] == 0, "nothing has counted so far"
    first = await receipt(world, RECEIPTS, applied, webhook_id="once" + key)
    assert first.ok() == {"taken": 1, "duplicate": False}
    again = await receipt(world, RECEIPTS, applied, webhook_id="once" + key)
    assert again.ok() == {"taken": 0, "duplicate": True}
    rejected = [{"idempotency_key": key, "status": "rejected", "reason": company.code}]
    (await receipt(world, RECEIPTS, rejected, webhook_id="once" + key)).problem(
        ProblemCode.IDEMPOTENCY_CONFLICT, "webhook-id"
    )
    assert (await receipt(world, RECEIPTS, rejected)).ok()["taken"] == 0, "it has been acknowledged"
    # it had taken effect: the receipt alone was lost
    await world.until_completed(company, application)
    assert [push["effect"] for push in await world.pushes(RECEIPTS, company)] == [True]


async def test_a_list_is_handed_to_its_target_alone_and_both_sides_can_tell_who_speaks(world: World) -> None:
    company = await world.company()
    await world.until_completed(company, await decided(world, company))
    secret = world.secrets[f"target:{LIST}"]

    async def ask(path: str, signed: str | None = None, with_secret: str = secret) -> Answer:
        made: Mapping[str, str] = sign(with_secret, f"a_{secrets.token_hex(8)}", (signed or path).encode())
        return await world.ask("GET", world.url("sync", path), headers=made)

    path = f"/v1/targets/{LIST}/list"
    async with world.http.get(
        world.url("sync", f"{path}?cursor=0"), headers=sign(secret, "ask", f"{path}?cursor=0".encode())
    ) as answer:
        body = await answer.read()
        verify(secret, answer.headers, body)
    page = RepairList.model_validate_json(body)
    assert page.pushes == [], "all of it has been taken"
    # the cursor is part of what is signed
    (await ask(f"{path}?cursor=1", signed=f"{path}?cursor=0")).problem(ProblemCode.BAD_SIGNATURE, "路径")
    (await ask(f"{path}?cursor=999999999")).problem(ProblemCode.VALIDATION, "cursor")
    (await ask(path, with_secret=world.secrets[f"target:{RECEIPTS}"])).problem(ProblemCode.BAD_SIGNATURE)
    (await ask(f"/v1/targets/{RECEIPTS}/list")).problem(ProblemCode.NOT_FOUND, "不以清单")


async def test_work_of_a_target_that_left_the_catalogue_is_seen(world: World) -> None:
    deliveries = world.database("sync")["deliveries"]
    (some,) = deliveries.aggregate([{"$limit": 1}])
    gone = {
        **some,
        "_id": f"gone|{some['record_id']}",
        "target_id": "gone",
        "differs_since": datetime.now(UTC),
    }
    deliveries.insert_one(gone)
    operator = await world.sign_in(Scope.OPERATIONS, sub="operator")
    answer = (await world.ask("GET", world.url("sync", "/v1/convergence"), operator)).ok()
    assert answer["departed"] == [{"target_id": "gone", "differing": 1}]
    record = world.url("sync", f"/v1/records/{some['record_id']}")
    shown = (await world.ask("GET", record, operator)).ok()["targets"][-1]
    assert (shown["target_id"], shown["target_name"], shown["settled"]) == ("gone", None, False)
    assert "不在目录" in shown["note"]
    deliveries.delete_one({"_id": gone["_id"]})
