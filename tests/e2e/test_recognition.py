"""互认: a repair made elsewhere ends the item here, the targets follow, and nothing is echoed to the platform it came from."""

from datetime import UTC, datetime
from typing import Any

from e2e.people import DESK, OTHER_API, Company, World
from e2e.test_flow import item_of, kinds, listing, until

from contracts.errors import ProblemCode
from contracts.events import RecordRepairedElsewhere
from contracts.topics import RECORDS
from support import eventually, message, produce

SOURCE = "credit-zhejiang"


async def repaired_elsewhere(world: World, record_id: str, times: int = 1) -> None:
    event = RecordRepairedElsewhere(
        record_id=record_id,
        platform_id=SOURCE,
        platform_name="信用浙江",
        decision_number="浙信修〔2026〕9号",
        repaired_at=datetime.now(UTC),
    )
    await produce(world.stack, RECORDS.name, [message(event) for _ in range(times)])


async def shown_no_longer(world: World, company: Company, record: Any) -> None:
    """The platform it comes from has stopped showing it by itself."""
    facts = record["facts"]
    key = {
        "subject_code": company.code,
        "document_number": facts["document_number"],
        "authority_name": facts["authority_name"],
    }
    ended = {"record": key, "subject_name": company.name, "category": facts["category"]}
    url = world.url("sandbox", f"/targets/{SOURCE}/sandbox/records")
    (await world.ask("POST", url, json={"records": [{**ended, "state": "publication_ended"}]})).ok()


async def test_an_item_whose_record_is_repaired_elsewhere_ends_and_the_targets_follow(world: World) -> None:
    company = await world.company()
    (record,) = await world.records(company)
    application = (await world.submit(company)).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    await world.review(item_id)
    await shown_no_longer(world, company, record)
    await repaired_elsewhere(world, record["record_id"], times=2)
    await world.until_completed(company, application_id)
    shown = await until(world, company, application_id, item_id, "recognised")
    assert shown["decision_number"] == "浙信修〔2026〕9号"

    async def all_follow() -> bool:
        item = await item_of(world, company, application_id, item_id)
        states = {target["target_id"]: target["state"] for target in item["targets"]}
        return states == {t.id: "verified" if t.read_back else "acknowledged" for t in world.told(company)}

    await eventually(all_follow, 40)
    for target in world.told(company):
        assert await world.public(target.id, company) == set()
        pushed = await world.pushes(target.id, company)
        assert bool(pushed) == (target.id != SOURCE), "nothing is echoed to where it comes from"
    told = await kinds(world, company, application_id, item_id)
    assert (told["repaired_elsewhere"], told["recognised"]) == (1, 1)
    answer = (await world.submit(company)).problem(ProblemCode.RECORD_NOT_REPAIRABLE)
    assert answer["records"][0]["status"] == "repaired"
    # the department says the same, late; and may take it back
    (await world.desk(item_id, "grant")).ok()
    (await world.desk(item_id, "refuse", {"reason": "x"})).problem(ProblemCode.DECISION_CONFLICT, "认可")


async def test_a_platform_that_still_shows_it_is_told_after_all(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    await world.review(application["items"][0]["item_id"])
    await repaired_elsewhere(world, company.ids[0])
    await world.until_completed(company, application["application_id"])

    async def gone() -> bool:
        return await world.public(SOURCE, company) == set()

    await eventually(gone, 60)


async def test_what_is_decided_stands_and_what_waits_need_not_wait(world: World) -> None:
    company = await world.company(world.row(OTHER_API, CF_CFLB="罚款"), world.row(DESK))
    records = {record["record_id"]: record for record in await world.records(company)}
    penalty = next(r for r in records.values() if r["facts"]["category"] == "samr_administrative_penalty")
    (other,) = set(records) - {penalty["record_id"]}
    listed = await listing(world, company, penalty)
    await world.fault(OTHER_API, mode="silent", count=2)
    application = (await world.submit(company, world.body([*records, listed]))).ok()
    application_id = application["application_id"]
    by_record = {item["record_id"]: item["item_id"] for item in application["items"]}
    queued = by_record[penalty["record_id"]]
    assert (await item_of(world, company, application_id, queued))["status"] == "queued"
    (await world.desk(by_record[other], "refuse", {"reason": "未履行"})).ok()
    await until(world, company, application_id, by_record[other], "refused")
    for record_id in records:
        await repaired_elsewhere(world, record_id)
    await until(world, company, application_id, queued, "recognised")
    assert (await item_of(world, company, application_id, by_record[other]))["status"] == "refused"
    (
        await world.ask("POST", world.url("intake", f"/v1/items/{by_record[listed]}/withdraw"), company.token)
    ).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["status"] for item in ended["items"]} == {"recognised", "refused", "withdrawn"}
    # it may have been recognised before it was pushed: the fault must not wait for somebody else's
    await world.fault(OTHER_API, mode="ok")


async def test_a_record_nobody_knows_is_a_dead_letter_and_one_without_application_is_just_repaired(
    world: World,
) -> None:
    before = await world.metric("intake", "xinfu_events_dead_total", reason="unknown_aggregate")
    await repaired_elsewhere(world, "rec_" + "f" * 32)
    company = await world.company()
    await repaired_elsewhere(world, company.ids[0])

    async def known() -> bool:
        (record,) = await world.records(company)
        return bool(record["repair"]["status"] == "repaired")

    await eventually(known, 20)

    async def put_aside() -> bool:
        now = await world.metric("intake", "xinfu_events_dead_total", reason="unknown_aggregate")
        return now > before

    await eventually(put_aside, 20)
