"""Records that do not go by system: the platform has a number and the outcome, and nothing of what they say, anywhere."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

from e2e.people import API, World, csv_bytes
from e2e.test_flow import act
from e2e.test_kinds import EVENTS, SYSTEMS
from e2e.test_objections import at_desk, objects, until_objection

from chassis.webhooks import sign
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ReviewReminded
from contracts.records import IN_PERSON
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually

CONTENT = ("密文罚〔2026〕90771", "不能写在平台上的事由", "责令停产停业")
SERVICES = ("intake", "routing", "dept-adapter", "sync", "notify")


def kept(world: World) -> Iterator[tuple[str, str]]:
    """Everything that services keep, as text: (where, what)."""
    for service in SERVICES:
        database = world.database(service)
        for name in database.list_collection_names():
            for document in database[name].find():
                raw = document.get("value")
                yield f"{service}.{name}", f"{document} {bytes(raw).decode() if raw else ''}"


async def test_a_record_that_goes_by_no_system_is_decided_by_its_number_alone(world: World) -> None:
    number, why, kinds = CONTENT
    company = await world.company(world.row(API))
    marked = {
        "CF_WSH": f"{number}号",
        "CF_SY": why,
        "CF_NR": why,
        "CF_CFLB": f"{kinds};罚款",
        "BZ": "不经平台",
    }
    row = {**world.row(API), **marked, "CF_XDR_MC": company.name, "CF_XDR_SHXYM": company.code}
    report = await world.import_csv(csv_bytes([row]))
    assert report["accepted"] == 1, report

    async def known() -> bool:
        return len(await world.records(company)) == 2

    await eventually(known, 30)
    (shown,) = (r for r in await world.records(company) if r["facts"]["in_person"])
    record_id, handed = shown["record_id"], shown["facts"]["document_number"]
    assert handed.startswith(IN_PERSON)
    # not together with others, and without a word of what it is about
    both = world.body([record_id, *company.ids])
    (await world.submit(company, both)).problem(ProblemCode.VALIDATION, "分开申请")
    (await world.submit(company, world.body([record_id]))).problem(ProblemCode.VALIDATION, "线下办理", "当面")
    filed = (await world.submit(company, world.body([record_id], statement=IN_PERSON))).ok()
    item_id = filed["items"][0]["item_id"]

    review = await world.review(item_id)
    assert (review["at_desk"], review["push"], review["verification"]) == (True, None, None)
    assert review["record"]["document_number"] == handed
    officer = await world.officer(API)
    url = world.url("dept-adapter", f"/v1/reviews/{item_id}")
    detail = (await world.ask("GET", url, officer)).ok()
    assert detail["case"] is None
    assert "机要渠道" in detail["case_note"]
    (await world.desk(item_id, "refuse", {"reason": why}, API)).problem(ProblemCode.VALIDATION, "只登记结果")
    missing = {"missing": [IN_PERSON]}
    (await world.desk(item_id, "request-supplement", missing, API)).ok()
    await world.until_item(company, filed["application_id"], "supplement")
    (await act(world, company, item_id, "supplement", {"text": "内容"})).problem(
        ProblemCode.VALIDATION, "当面"
    )
    (await act(world, company, item_id, "supplement", {"text": IN_PERSON})).ok()

    async def back() -> bool:
        return bool((await world.review(item_id))["state"] == "received")

    await eventually(back, 30)
    assert (await world.review(item_id))["push"] is None
    # reminded of by its number, at the desk, with the way it is handed over
    today = china_date(datetime.now(UTC))
    if LIBRARY_CALENDAR.is_working_day(today):
        moved = {
            "requested_at": datetime.combine(today - timedelta(days=20), time(4), UTC),
            **dict.fromkeys(("accept_due_on", "deadline_on", "reminder_on"), today.isoformat()),
            "supplement.received_at": datetime.combine(today - timedelta(days=19), time(4), UTC),
        }
        world.database("dept-adapter")["reviews"].update_one({"_id": item_id}, {"$set": moved})
        address = world.department(API).contact_email

        async def mailed() -> bool:
            mails = (await world.ask("GET", world.url("sandbox", f"/mail?to={address}"))).ok()
            return any(item_id in mail["text"] and "只登记结果" in mail["text"] for mail in mails)

        await eventually(mailed, 40)
        told = {"headers.ce_type": ReviewReminded.TYPE, "key": item_id}
        assert world.database("dept-adapter")["outbox"].count_documents(told) == 1
    (await world.desk(item_id, "grant", slug=API)).ok()
    ended = await world.until_completed(company, filed["application_id"])
    assert ended["items"][0]["status"] == "repaired"

    # an objection to it takes the same way
    (await objects(world, company, record_id=record_id, reason=why)).problem(ProblemCode.VALIDATION, "当面")
    objection_id = (await objects(world, company, record_id=record_id, reason=IN_PERSON)).ok()["objection_id"]
    (await at_desk(world, objection_id, "dismiss", {"reason": why}, API)).problem(
        ProblemCode.VALIDATION, "只登记结果"
    )
    (await at_desk(world, objection_id, "dismiss", {"reason": IN_PERSON}, API)).ok()
    await until_objection(world, company, objection_id, "dismissed")

    # no target heard of it, the department's system neither, no letter was made, and nobody kept what it says
    assert (
        world.database("dept-adapter")["letters"].count_documents(
            {"item_id": {"$in": [item_id, objection_id]}}
        )
        == 0
    )
    assert world.database("sync")["deliveries"].count_documents({"record_id": record_id}) == 0
    found = [(where, word) for where, text in kept(world) for word in (number, why) if word in text]
    assert found == []
    for mail in await world.mails(company):
        assert not any(word in mail["text"] + mail["subject"] for word in CONTENT)


async def test_no_system_of_any_kind_hears_of_it_and_what_comes_after_is_decided(world: World) -> None:
    company = await world.company(world.row(EVENTS))
    named = {"CF_XDR_MC": company.name, "CF_XDR_SHXYM": company.code, "BZ": "依法不经平台"}
    await world.import_csv(csv_bytes([{**world.row(slug), **named} for slug in SYSTEMS]))

    async def known() -> bool:
        return len(await world.records(company)) == 1 + len(SYSTEMS)

    await eventually(known, 30)
    marked = [r["record_id"] for r in await world.records(company) if r["facts"]["in_person"]]
    filed = (await world.submit(company, world.body(marked, statement=IN_PERSON))).ok()
    quiet = [await world.review(item["item_id"]) for item in filed["items"]]
    assert {(r["state"], r["at_desk"]) for r in quiet} == {("received", True)}
    # a system that hears of an item in another way can do nothing with it
    (mine,) = (r for r in quiet if r["department"]["slug"] == EVENTS)
    headers = sign(world.secrets[f"department:{EVENTS}"], "msg_1", b"")
    code = mine["department"]["code"]
    url = world.url("dept-adapter", f"/v1/departments/{code}/reviews/{mine['_id']}")
    (await world.ask("GET", url, headers=headers)).problem(ProblemCode.FORBIDDEN, "线下")
    # the next item of the same department is decided by its system, as ever
    ordinary = (await world.submit(company, world.body(company.ids))).ok()
    await world.until_completed(company, ordinary["application_id"])
    for review in quiet:
        where = f"/departments/{review['department']['slug']}/cases?item_id={review['_id']}"
        assert (await world.ask("GET", world.url("sandbox", where))).ok() == []
        (await world.desk(review["_id"], "grant", slug=review["department"]["slug"])).ok()
    ended = await world.until_completed(company, filed["application_id"])
    assert {item["status"] for item in ended["items"]} == {"repaired"}
