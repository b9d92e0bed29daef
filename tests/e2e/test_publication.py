"""What is shown of a record changes without a decision on a repair: shielded while a plan is performed, withdrawn, published again."""

from datetime import UTC, datetime
from typing import Any

from e2e.people import DESK, OTHER_API, OTHER_DESK, TELLS_NO_CONTENT, Company, World, csv_bytes
from e2e.test_flow import item_of, kinds, listing, until

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import RecordPublished, RecordShielded, RecordWithdrawn
from contracts.identifiers import normalise_document_number
from contracts.topics import RECORDS
from support import eventually, message, produce

BY_LETTER = "shili-zhengxin"
COURT = "浙江省杭州市中级人民法院"
SUBJECT = ("CF_XDR_MC", "CF_XDR_LB", "CF_XDR_SHXYM")
TODAY = china_date(datetime.now(UTC))


def ruling(number: str, *record_ids: str, **more: Any) -> dict[str, Any]:
    return {
        "record_ids": list(record_ids),
        "court": COURT,
        "ruling_number": number,
        "ruled_on": TODAY.isoformat(),
        **more,
    }


async def shield(world: World, body: dict[str, Any], path: str = "") -> Any:
    url = world.url("intake", f"/v1/records/shields{path}")
    return await world.ask("POST", url, await world.ops(), json=body)


async def until_shown(world: World, record_id: str, state: str, version: int = 1) -> dict[str, Any]:
    """The record at sync, once every target shows this, in this version or a later one."""
    url, operator = world.url("sync", f"/v1/records/{record_id}"), await world.ops()
    found: dict[str, Any] = {}

    async def reached() -> bool:
        answer = await world.ask("GET", url, operator)
        found.update(answer.body if answer.status == 200 else {})
        right = found.get("state") == state and found["version"] >= version
        return bool(right and found["completed"])

    try:
        await eventually(reached, 40)
    except AssertionError:
        raise AssertionError(found) from None
    return found


async def public(world: World, company: Company) -> dict[str, set[str]]:
    return {target.id: await world.public(target.id, company) for target in world.told(company)}


async def test_a_record_is_shielded_while_the_plan_runs_and_repaired_or_shown_again_after_it(
    world: World,
) -> None:
    company, other = (
        await world.company(world.row(DESK), world.row(OTHER_DESK, months=1)),
        await world.company(),
    )
    kept, failing = company.ids
    application = (await world.submit(company, world.body([kept]))).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    await world.review(item_id)
    mixed = await shield(world, ruling("破1号", kept, other.ids[0]))
    mixed.problem(ProblemCode.VALIDATION, "同一主体")
    (await shield(world, ruling("破1号", kept, outcome="failed"), "/end")).problem(
        ProblemCode.INVALID_TRANSITION, "不在屏蔽中"
    )
    for _ in range(2):
        shielded = (await shield(world, ruling("破1号", kept))).ok()
        assert [record["state"] for record in shielded["records"]] == ["shielded"]
        assert (shielded["rule"], shielded["evidence"]) == ("18", "F")
    # another is told of by its source
    event = RecordShielded(
        record_id=failing, court=COURT, ruling_number="破1号", ruled_on=TODAY, shielded_at=datetime.now(UTC)
    )
    await produce(world.stack, RECORDS.name, [message(event) for _ in range(2)])
    for record_id in company.ids:
        at_targets = await until_shown(world, record_id, "shielded")
        assert (at_targets["version"], at_targets["item_id"]) == (1, None)
        read = {t.id for t in world.told(company) if t.read_back}
        assert all(t["seen_state"] == "shielded" for t in at_targets["targets"] if t["target_id"] in read)
    assert not any((await public(world, company)).values())
    records = {record["record_id"]: record for record in await world.records(company)}
    assert records[failing]["repair"]["status"] == "advised", "the minimum period is waived, a person decides"
    assert "临时屏蔽" in records[failing]["repair"]["advice"]
    certificate = world.url("intake", f"/v1/subjects/me/records/{kept}/certificate")
    (await world.ask("GET", certificate, company.token)).problem(ProblemCode.INVALID_TRANSITION, "临时屏蔽")

    (await shield(world, ruling("破9号", failing, outcome="failed"), "/end")).ok()
    await until_shown(world, failing, "published")
    assert all((await public(world, company)).values())
    for _ in range(2):
        (await shield(world, ruling("破9号", kept, outcome="performed"), "/end")).ok()
    ended = await until_shown(world, kept, "publication_ended")
    assert (ended["version"], ended["decision_number"]) == (2, "破9号")
    (await shield(world, ruling("破10号", kept))).problem(ProblemCode.INVALID_TRANSITION, "无须屏蔽")
    records = {record["record_id"]: record for record in await world.records(company)}
    assert [records[i]["repair"]["status"] for i in company.ids] == ["repaired", "not_yet"]
    told = await kinds(world, company, application_id, item_id)
    assert (told["publication_changed"], told["closed"]) == (2, 1)
    (item,) = (await world.until_completed(company, application_id))["items"]
    assert (item["status"], item["decision"]) == ("closed", None)


async def messages(world: World, company: Company) -> list[dict[str, Any]]:
    url = world.url("notify", "/v1/subjects/me/messages?limit=100")
    return list((await world.ask("GET", url, company.token)).ok()["messages"])


async def test_a_withdrawn_record_is_shown_nowhere_and_its_item_ends_wherever_it_is(world: World) -> None:
    company = await world.company(
        world.row(DESK), world.row(None), world.row(OTHER_API, CF_CFLB="罚款"), world.row(OTHER_DESK)
    )
    desk, nowhere, penalty, granted = company.ids
    facts = {record["record_id"]: record for record in await world.records(company)}
    listed = await listing(world, company, facts[penalty])
    await world.fault(OTHER_API, mode="silent", count=2)
    application = (await world.submit(company, world.body([*company.ids, listed]))).ok()
    application_id = application["application_id"]
    items = {item["record_id"]: item["item_id"] for item in application["items"]}
    await world.review(items[desk])
    await until(world, company, application_id, items[nowhere], "referred")
    assert (await item_of(world, company, application_id, items[penalty]))["status"] == "queued"
    (await world.desk(items[granted], "grant", slug=OTHER_DESK)).ok()
    await until(world, company, application_id, items[granted], "repaired")
    at = datetime.now(UTC)
    gone = [RecordWithdrawn(record_id=i, reason="处罚决定经复议撤销", withdrawn_at=at) for i in company.ids]
    await produce(world.stack, RECORDS.name, [message(event) for event in (*gone, *gone)])
    for record_id in (desk, nowhere, penalty):
        shown = await until(world, company, application_id, items[record_id], "closed")
        assert (shown["status_text"], shown["decision"]) == ("无须修复", None)
        at_targets = await until_shown(world, record_id, "publication_ended")
        assert at_targets["decision_number"] == "记录撤回：处罚决定经复议撤销"
    numbers = set(company.record_ids)
    assert not any(seen & numbers for seen in (await public(world, company)).values())
    # what was repaired before stays repaired, and is not told again
    assert (await until_shown(world, granted, "publication_ended"))["version"] == 1
    assert (await item_of(world, company, application_id, items[granted]))["status"] == "repaired"
    lines = (await world.application(company, application_id))["timeline"]
    (line,) = [e["text"] for e in lines if e["item_id"] == items[desk] and e["type"] == "closed"]
    assert "处罚决定经复议撤销" in line
    refused = await world.desk(items[desk], "refuse", {"reason": "未履行"})
    refused.problem(ProblemCode.DECISION_CONFLICT, "记录撤回", "无需再作决定")
    # a repair that is revoked does not bring back what was withdrawn meanwhile
    (await world.desk(items[granted], "revoke", {"reason": "材料虚假"}, OTHER_DESK)).ok()
    await until(world, company, application_id, items[granted], "revoked")
    assert (await until_shown(world, granted, "publication_ended", version=2))["item_id"] is None
    again = RecordPublished(record_id=desk, record=facts[desk]["facts"], published_at=datetime.now(UTC))
    await produce(world.stack, RECORDS.name, [message(again)])
    await until_shown(world, desk, "published")
    assert all(
        facts[desk]["facts"]["document_number"] in seen for seen in (await public(world, company)).values()
    )
    (await world.ask("POST", world.url("intake", f"/v1/items/{items[listed]}/withdraw"), company.token)).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["status"] for item in ended["items"]} == {"closed", "revoked", "withdrawn"}
    await world.fault(OTHER_API, mode="ok")


async def test_the_subject_of_a_record_gets_the_repair_notice_once(world: World) -> None:
    company = await world.company()

    async def told() -> bool:
        return len(await messages(world, company)) == 1

    await eventually(told, 30)
    (notice,) = await messages(world, company)
    facts = (await world.records(company))[0]["facts"]
    assert facts["document_number"] in notice["title"]
    assert all(word in notice["text"] for word in ("公示多久", "自动停止公示", "怎样修复", "信用修复告知书"))
    assert (notice["application_id"], await world.mails(company)) == (None, [])
    # an address is known from now on: the next record's notice is mailed, the first one's never again
    (await world.submit(company)).ok()
    row = {**world.row(OTHER_DESK), **{k: company.rows[0][k] for k in SUBJECT}}
    changed = {**company.rows[0], "CF_NR": "罚款二万元"}
    for _ in range(2):
        await world.import_csv(csv_bytes([row, changed]))

    async def mailed() -> bool:
        subjects = [mail["subject"] for mail in await world.mails(company)]
        return sum("信用修复告知" in subject for subject in subjects) == 1

    await eventually(mailed, 30)
    notices = [each for each in await messages(world, company) if each["title"].startswith("信用修复告知")]
    assert len(notices) == 2


async def test_what_is_corrected_is_read_so_wherever_it_is_shown_and_nowhere_shown_for_that(
    world: World,
) -> None:
    company = await world.company(world.row(DESK))
    (record_id,) = company.ids
    told = [target for target in world.told(company) if target.read_back]
    names = [target.id for target in told]
    # one has ended its publication by itself, one says what is right already
    hidden, ready, *others = names
    (row,) = company.rows
    right = {"decided_on": row["CF_JDRQ"], "penalty_kinds": "罚款"}
    key = {
        "subject_code": company.code,
        "document_number": normalise_document_number(row["CF_WSH"]),
        "authority_name": row["CF_CFJG"],
    }
    category = world.catalogue.penalty_category(row["CF_CFJGDM"], row["CF_CFJG"])
    about = {"record": key, "subject_name": company.name, "category": category}
    for target, more in ((hidden, {"state": "publication_ended"}), (ready, {"content": right})):
        url = world.url("sandbox", f"/targets/{target}/sandbox/records")
        (await world.ask("POST", url, json={"records": [{**about, **more}]})).ok()

    for _ in range(2):
        assert (await world.import_csv(csv_bytes([{**row, "CF_CFLB": "罚款"}])))["rejected"] == []
    at_targets = await until_shown(world, record_id, "published")
    assert (at_targets["version"], at_targets["item_id"], at_targets["content"]) == (1, None, right)
    assert await world.public(hidden, company) == set()
    for target in (ready, *others):
        (shown,) = await world.page(target, company)
        assert (shown["decided_on"], shown["penalty_kinds"]) == (right["decided_on"], "罚款"), target
    for target in (hidden, ready):
        assert await world.pushes(target, company) == [], "nothing there was wrong"
    assert TELLS_NO_CONTENT in others
    pages = world.url("sync", "/v1/pages")
    link = (await world.ask("POST", f"{pages}/links", await world.ops())).ok()["url"]
    async with world.http.get(link, allow_redirects=False) as answer:
        own = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
    page = str((await world.ask("GET", f"{pages}/records/{record_id}", headers=own)).ok())
    assert f"认定日期 {right['decided_on']}，处罚类别“罚款”" in page
    assert "没有在展示的平台也算一致" in page
    assert "None" not in page
    (message_,) = [m for m in await messages(world, company) if "已更正" in m["title"]]
    assert "处罚类别“罚款”" in message_["text"]

    # whoever is told by letter has a draft; a person who looks there has to say what is read
    paper = world.url("sync", f"/v1/records/{record_id}/targets/{BY_LETTER}/visits")
    seen = {"shown": "published", "reference": "截图 1"}
    (await world.ask("POST", paper, await world.ops(), json=seen)).problem(
        ProblemCode.VALIDATION, "content_right"
    )
    for content_right in (False, True):
        said = {**seen, "content_right": content_right}
        noted = (await world.ask("POST", paper, await world.ops(), json=said)).ok()
        assert (noted["seen_outdated"], noted["settled"]) == (not content_right, content_right)

    # a vendor that loads its old copy is told again
    forgets = world.url("sandbox", f"/targets/{others[0]}/sandbox/forget")
    assert (await world.ask("POST", forgets, json={"subject_code": company.code})).ok() == {"forgotten": 1}
    (shown,) = await world.page(others[0], company)
    assert shown["penalty_kinds"] == row["CF_CFLB"]
    world.database("sync")["deliveries"].update_one(
        {"_id": f"{others[0]}|{record_id}"}, {"$set": {"next_action_at": datetime.now(UTC)}}
    )

    async def corrected_again() -> bool:
        (found,) = await world.page(others[0], company)
        return bool(found["penalty_kinds"] == "罚款")

    await eventually(corrected_again, 30)

    # repaired, it is shown nowhere; the repair revoked, it is shown as corrected, where its publication had ended too
    application = (await world.submit(company, world.body([record_id]))).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "grant")).ok()
    await until(world, company, application_id, item_id, "repaired")
    assert not any((await public(world, company)).values())
    (await world.desk(item_id, "revoke", {"reason": "材料虚假"})).ok()
    again = await until_shown(world, record_id, "published", 3)
    assert again["content"] == right
    for target in names:
        (shown,) = await world.page(target, company)
        assert shown["penalty_kinds"] == "罚款", target
