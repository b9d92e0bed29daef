"""Objections and false material: upheld or dismissed by the department, targets follow, what rests on a finding falls and rises with it."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.people import API, DESK, OTHER_DESK, Company, Document, World
from e2e.test_flow import act, item_of, kinds, until
from e2e.test_materials import PDF, upload

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.tokens import Scope
from support import eventually

FOUR_EYES = "hz-czj"
"""A department that has decisions confirmed by a second officer."""


async def objects(world: World, company: Company, key: str | None = None, **body: Any) -> Any:
    """The subject objects. ``key``: by default a new one."""
    return await world.ask(
        "POST",
        world.url("intake", "/v1/objections"),
        company.token,
        json={"reason": "处罚已经履行，决定有误", **body},
        headers={"idempotency-key": key or secrets.token_hex(8)},
    )


async def at_desk(
    world: World, objection_id: str, action: str = "", body: Any = None, slug: str = DESK
) -> Any:
    """An officer looks at, or acts on, an objection that is, or soon will be, at the desk."""
    url = world.url("dept-adapter", f"/v1/objections/{objection_id}")
    officer = await world.officer(slug)

    async def is_there() -> bool:
        return (await world.ask("GET", url, officer)).status == 200

    await eventually(is_there, 30)
    if not action:
        return await world.ask("GET", url, officer)
    return await world.ask("POST", f"{url}/{action}", officer, json=body)


async def until_objection(world: World, company: Company, objection_id: str, status: str) -> Document:
    url = world.url("intake", f"/v1/objections/{objection_id}")
    found: Document = {}

    async def reached() -> bool:
        found.update((await world.ask("GET", url, company.token)).ok())
        return bool(found["status"] == status)

    await eventually(reached, 30)
    return found


async def test_a_refusal_is_objected_to_reopened_and_granted(world: World) -> None:
    company, stranger = await world.company(world.row(API)), await world.company()
    # decided by the department's own system; what is objected to is decided at the desk
    await world.fault(API, mode="refuse", count=1)
    application = (await world.submit(company)).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await objects(world, stranger, item_id=item_id)).problem(ProblemCode.NOT_FOUND)
    await until(world, company, application_id, item_id, "refused")
    await world.until_completed(company, application_id)
    material = (await upload(world, company, PDF)).ok()["material_id"]

    filing = {"item_id": item_id, "material_ids": [material]}
    answers = await asyncio.gather(*(objects(world, company, "k", **filing) for _ in range(3)))
    (objection_id,) = {answer.ok()["objection_id"] for answer in answers}
    (await objects(world, company, "k", item_id=item_id)).problem(ProblemCode.IDEMPOTENCY_CONFLICT)
    twice = (await objects(world, company, item_id=item_id)).problem(ProblemCode.OBJECTION_NOT_POSSIBLE)
    assert twice["objection_id"] == objection_id
    # nobody applies anew for what is objected to
    blocked = (await world.submit(company)).problem(ProblemCode.RECORD_NOT_REPAIRABLE)
    assert "异议" in blocked["records"][0]["reason"]

    shown = (await at_desk(world, objection_id, slug=API)).ok()
    assert (shown["state"], shown["result_state"], shown["item_id"]) == ("received", "refused", item_id)
    assert shown["case"]["reason"] == "处罚已经履行，决定有误"
    assert [m["material_id"] for m in shown["case"]["materials"]] == [material]
    (await at_desk(world, objection_id, "accept", slug=API)).ok()
    (await at_desk(world, objection_id, "not-accept", {"reason": "x"}, API)).problem(
        ProblemCode.DECISION_CONFLICT
    )
    for _ in range(2):
        upheld = (await at_desk(world, objection_id, "uphold", {"reason": "凭证属实"}, API)).ok()
        assert (upheld["state"], upheld["remedy"]) == ("upheld", "reopened")
    (await at_desk(world, objection_id, "dismiss", {"reason": "x"}, API)).problem(
        ProblemCode.DECISION_CONFLICT
    )

    reopened = await until(world, company, application_id, item_id, "accepted")
    assert (reopened["round"], reopened["decision"], reopened["overdue"]) == (1, None, False)
    assert reopened["due_on"] > china_date(datetime.now(UTC)).isoformat()
    view = await world.application(company, application_id)
    assert (view["status"], view["open_items"]) == ("open", 1)
    seen = await until_objection(world, company, objection_id, "upheld")
    assert seen["remedy_text"] == "事项重新办理"
    (await world.desk(item_id, "grant", slug=API)).ok()
    ended = await until(world, company, application_id, item_id, "repaired")
    assert ended["decision"] == "granted"
    for target in world.told(company):
        assert await world.public(target.id, company) == set()
    told = await kinds(world, company, application_id, item_id)
    expected = ("objection_filed", "objection_routed", "objection_upheld", "reopened", "refused", "granted")
    assert [told[kind] for kind in expected] == [1] * 6
    (await objects(world, company, item_id=item_id)).problem(
        ProblemCode.OBJECTION_NOT_POSSIBLE, "无需提出异议"
    )


async def test_a_record_is_corrected_and_withdrawn_on_objection_and_one_goes_by_the_human_queue(
    world: World,
) -> None:
    company = await world.company(world.row(DESK), world.row(None))
    mine, unknown = company.ids
    first = (await objects(world, company, record_id=mine)).ok()["objection_id"]
    (await at_desk(world, first, "uphold", {"reason": "x"})).problem(ProblemCode.VALIDATION, "remedy")
    correction = {"reason": "只有罚款", "remedy": "corrected", "penalty_kinds": "罚款"}
    (await at_desk(world, first, "uphold", correction)).ok()

    async def corrected() -> bool:
        found = {r["record_id"]: r["facts"] for r in await world.records(company)}
        return (found[mine]["penalty_kinds"], found[mine]["tier"]) == ("罚款", "general")

    await eventually(corrected, 30)

    queued = (await objects(world, company, record_id=unknown)).ok()["objection_id"]
    waiting = await until_objection(world, company, queued, "referred")
    assert waiting["queue_name"] == world.catalogue.human_queue.name
    assert waiting["due_on"]
    clerk = await world.sign_in(Scope.ROUTING_ASSIGN)
    code = world.department(DESK).code
    # taken back before anybody has it, and made again
    withdraw = world.url("intake", f"/v1/objections/{queued}/withdraw")
    for _ in range(2):
        (await world.ask("POST", withdraw, company.token)).ok()
    await until_objection(world, company, queued, "withdrawn")
    taken_back = queued
    assign = world.url("routing", f"/v1/referrals/{queued}/assign")
    late = await world.ask("POST", assign, clerk, json={"department_code": code})
    late.problem(ProblemCode.INVALID_TRANSITION, "已撤回")
    queued = (await objects(world, company, record_id=unknown)).ok()["objection_id"]
    await until_objection(world, company, queued, "referred")
    # nobody names the department in time: the credit centre is told, once
    late_day = {"$set": {"deadline_on": "2026-01-05"}}
    world.database("routing")["referrals"].update_one({"_id": queued}, late_day)
    centre = world.url("sandbox", f"/mail?to={world.catalogue.human_queue.contact_email}")

    async def told() -> bool:
        mails = (await world.ask("GET", centre)).ok()
        return sum(f"异议 {queued}：应于" in mail["text"] for mail in mails) == 1

    await eventually(told, 30)
    assign = world.url("routing", f"/v1/referrals/{queued}/assign")
    for _ in range(2):
        (await world.ask("POST", assign, clerk, json={"department_code": code})).ok()
    # a deadline that passes is noticed once, and everybody sees it
    await at_desk(world, queued)
    world.database("dept-adapter")["objections"].update_one(
        {"_id": queued},
        {"$set": dict.fromkeys(("accept_due_on", "deadline_on"), "2026-01-05")},
    )

    async def overdue() -> bool:
        url = world.url("intake", f"/v1/objections/{queued}")
        return bool((await world.ask("GET", url, company.token)).ok()["overdue"])

    await eventually(overdue, 60)
    assert (await at_desk(world, queued)).ok()["overdue"] is True
    withdrawal = {"reason": "处罚决定已被复议撤销", "remedy": "withdrawn"}
    (await at_desk(world, queued, "uphold", withdrawal)).ok()

    async def withdrawn() -> bool:
        found = {r["record_id"]: r["repair"]["status"] for r in await world.records(company)}
        return bool(found[unknown] == "withdrawn")

    await eventually(withdrawn, 30)
    (await objects(world, company, record_id=unknown)).problem(ProblemCode.OBJECTION_NOT_POSSIBLE, "撤回")
    listed = (await world.ask("GET", world.url("intake", "/v1/objections"), company.token)).ok()
    assert {o["objection_id"]: o["status"] for o in listed["objections"]} == {
        first: "upheld",
        taken_back: "withdrawn",
        queued: "upheld",
    }


async def test_what_rests_on_false_material_falls_everywhere_and_rises_when_the_finding_does(
    world: World,
) -> None:
    company = await world.company(
        world.row(DESK), world.row(OTHER_DESK), world.row(OTHER_DESK), world.row(DESK)
    )
    material = (await upload(world, company, PDF)).ok()["material_id"]
    filed = [
        (await world.submit(company, world.body([record], material_ids=[material]))).ok()
        for record in company.ids[:3]
    ]
    (finder, fid), (other, oid), (third, tid) = (
        (each["items"][0]["item_id"], each["application_id"]) for each in filed
    )
    (await world.desk(finder, "grant")).ok()
    (await world.desk(other, "grant", slug=OTHER_DESK)).ok()
    await world.until_completed(company, fid)
    await world.until_completed(company, oid)
    false = {"material_ids": ["mat_" + "0" * 32], "block_years": 3}
    wrong = {"reason": "凭证系伪造", "false_material": false}
    (await world.desk(finder, "revoke", wrong)).problem(ProblemCode.UNKNOWN_MATERIAL)
    found = {**wrong, "false_material": {"material_ids": [material], "block_years": 3}}
    for _ in range(2):
        (await world.desk(finder, "revoke", found)).ok()

    revoked = await until(world, company, oid, other, "revoked")
    assert "认定本事项所依据的材料虚假" in revoked["revocation_reason"]
    assert revoked["revocation_number"].startswith(world.department(OTHER_DESK).short_name)

    async def warned() -> bool:
        review = await world.review(third)
        return bool(review["disputes"]) and review["state"] == "received"

    await eventually(warned, 30)
    (await objects(world, company, item_id=third)).problem(ProblemCode.OBJECTION_NOT_POSSIBLE, "还没有结果")
    spare = await world.company()
    barred = (await world.submit(company, world.body(spare.ids))).problem(
        ProblemCode.SUBJECT_BARRED, "不得申请信用修复", "异议"
    )
    assert barred["item_id"] == finder
    plan = (await world.ask("GET", world.url("intake", "/v1/subjects/me/plan"), company.token)).ok()
    assert (plan["ban"]["until"], plan["ban"]["by"], plan["steps"]) == (
        barred["until"],
        world.department(DESK).name,
        [],
    )
    guide = (await world.ask("GET", world.url("intake", "/v1/subjects/me/guide"), company.token)).ok()
    assert guide["ban"] == plan["ban"]
    assert "barred" in {group["group"] for group in guide["groups"]}
    url = world.url("intake", f"/v1/subjects/me/records/{company.ids[3]}/repair")
    explained = (await world.ask("GET", url, company.token)).ok()
    assert explained["repair"]["status"] == "barred"
    failed = [check for check in explained["regimes"][0]["checks"] if check["result"] == "failed"]
    assert world.department(DESK).name in failed[0]["source"]
    for target in world.catalogue.targets[:1]:

        async def shown_again(target_id: str = target.id) -> bool:
            return len(await world.public(target_id, company)) == 4

        await eventually(shown_again, 40)

    # the finding is objected to, and does not stand: it is lifted, and what fell with it rises
    objection = (await objects(world, company, item_id=finder)).ok()["objection_id"]
    upheld = (await at_desk(world, objection, "uphold", {"reason": "凭证经银行核实属实"})).ok()
    assert upheld["remedy"] == "restored"
    await until(world, company, fid, finder, "repaired")
    await until(world, company, oid, other, "repaired")
    told = await kinds(world, company, oid, other)
    assert (told["revoked"], told["restored"], told["false_material"], told["false_material_lifted"]) == (
        1,
        1,
        1,
        1,
    )

    async def lifted() -> bool:
        return not (await world.review(third))["disputes"]

    await eventually(lifted, 30)
    (await world.submit(company, world.body([company.ids[3]]))).ok()
    (await act(world, company, third, "withdraw")).ok()
    await until(world, company, tid, third, "withdrawn")
    (await objects(world, company, item_id=third)).problem(ProblemCode.OBJECTION_NOT_POSSIBLE, "重新申请")
    assert (await item_of(world, company, fid, finder))["round"] == 1
    assert timedelta(0) < datetime.now(UTC) - datetime.fromisoformat(upheld["decided_at"])


async def test_where_four_eyes_are_asked_for_a_second_officer_confirms_the_decision(world: World) -> None:
    company = await world.company(world.row(FOUR_EYES))
    objection_id = (await objects(world, company, record_id=company.ids[0])).ok()["objection_id"]
    proposed = (await at_desk(world, objection_id, "dismiss", {"reason": "查明属实"}, FOUR_EYES)).ok()
    assert (proposed["state"], proposed["proposal"]["action"]) == ("received", "dismiss")
    url = world.url("dept-adapter", f"/v1/objections/{objection_id}")
    code = world.department(FOUR_EYES).code
    approver, both = [
        await world.sign_in(Scope.DESK, sub=sub, departments=[code], roles=["officer", "approver"])
        for sub in ("approver", "officer")
    ]

    async def ask(action: str, token: str, body: Any = None) -> Any:
        return await world.ask("POST", f"{url}/{action}", token, json=body)

    upheld = {"reason": "主体有误", "remedy": "withdrawn"}
    # said again, something else meanwhile, and confirmed by whoever proposed it
    (await at_desk(world, objection_id, "dismiss", {"reason": "查明属实"}, FOUR_EYES)).ok()
    (await ask("uphold", approver, upheld)).problem(ProblemCode.INVALID_TRANSITION, "已提请复核")
    (await ask("confirm", both)).problem(ProblemCode.FORBIDDEN, "不能复核自己提请")
    (await ask("confirm", await world.officer(FOUR_EYES))).problem(ProblemCode.FORBIDDEN, "复核")
    sent = (await ask("send-back", approver, {"reason": "请核对主体代码"})).ok()
    assert (sent["state"], sent["proposal"]) == ("received", None)
    (await ask("confirm", approver)).problem(ProblemCode.INVALID_TRANSITION, "没有待复核")
    (await at_desk(world, objection_id, "uphold", upheld, FOUR_EYES)).ok()
    for _ in range(2):
        done = (await ask("confirm", approver)).ok()
        assert (done["state"], done["by"], done["proposal"]) == ("upheld", "approver", None)
    shown = (await world.ask("GET", url, approver)).ok()
    acts = [(step["by"], step["state"]) for step in shown["history"] if step["by"] != "routing"]
    assert acts[:4] == [
        ("officer", "received"),
        ("approver", "received"),
        ("officer", "received"),
        ("approver", "upheld"),
    ]
    told = await until_objection(world, company, objection_id, "upheld")
    assert told["remedy"] == "withdrawn"
