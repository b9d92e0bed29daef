"""Objections at the review desk, as officers decide them in a browser and as their subjects hear of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta

import pytest
from e2e.browser import hire, open_browser, signed_in
from e2e.people import Document, World
from e2e.test_flow import until
from e2e.test_materials import PDF, upload
from e2e.test_objections import FOUR_EYES, at_desk, objects, until_objection
from playwright.async_api import Browser

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.tokens import Role
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually

SLUG = "hz-jxj"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with open_browser() as browser:
        yield browser


async def test_objections_are_decided_at_the_desk_with_letters_and_can_be_withdrawn(
    world: World, browser: Browser
) -> None:
    await hire(world, "objections", "钱议", [SLUG], [Role.OFFICER])
    company = await world.company(*(world.row(SLUG) for _ in range(3)))
    refused, wrong, gone = company.ids
    application = (await world.submit(company, world.body([refused]))).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "refuse", {"reason": "尚未履行完毕"}, SLUG)).ok()
    await until(world, company, application_id, item_id, "refused")
    material = (await upload(world, company, PDF)).ok()["material_id"]
    filing = {"item_id": item_id, "material_ids": [material], "reason": "罚款已于决定前缴清，见附件凭证。"}
    of_result = (await objects(world, company, **filing)).ok()["objection_id"]
    of_record = (await objects(world, company, record_id=wrong, reason="处罚类别有误，只有罚款。")).ok()[
        "objection_id"
    ]
    taken_back = (await objects(world, company, record_id=gone)).ok()["objection_id"]
    for each in (of_result, of_record, taken_back):
        await at_desk(world, each, slug=SLUG)

    async with signed_in(world, browser, "objections", "/desk/objections") as desk:
        await desk.look("objections")
        assert await desk.page.locator("tbody tr").count() == 3
        await desk.open(f"/desk/objections/{of_result}")
        assert "罚款已于决定前缴清" in await desk.text()
        await desk.look("objection", whole=True)
        await desk.does("a")
        assert "异议已受理" in await desk.text()
        await desk.open(f"/desk/objections/{of_result}")
        async with desk.page.expect_navigation():
            await desk.keys("g")
        await desk.page.fill("#text", "经核查，缴款凭证属实，<b>原决定</b>依据有误。")
        await desk.page.wait_for_selector("#preview >> text=<b>原决定</b>依据有误")
        await desk.look("objection-uphold")
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        # a record: corrected in what is wrong, and nothing else
        await desk.open(f"/desk/objections/{of_record}?do=uphold")
        await desk.page.check("[value=corrected]")
        await desk.page.fill("#text", "处罚类别应为罚款。")
        await desk.page.click("#act button.primary")
        await desk.page.wait_for_selector("text=请填写应有的认定日期")
        assert await desk.page.input_value("#text") == "处罚类别应为罚款。"
        await desk.page.fill("#penalty_kinds", "罚款")
        await desk.page.wait_for_selector("#preview >> text=更正该记录")
        await desk.look("objection-correct", whole=True)
        async with desk.page.expect_navigation():
            await desk.page.click("#act button.primary")
        desk.problems.clear()  # the browser notes the 422
        # the officer looks at it while its subject withdraws it: told so, nothing is decided
        await desk.open(f"/desk/objections/{taken_back}?do=dismiss")
        withdraw = world.url("intake", f"/v1/objections/{taken_back}/withdraw")
        for _ in range(2):
            (await world.ask("POST", withdraw, company.token)).ok()
        await until_objection(world, company, taken_back, "withdrawn")
        await desk.page.fill("#text", "写了很久的理由")
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        assert "申请人" in await desk.text()
        assert await desk.page.input_value("textarea") == "写了很久的理由"
        await desk.look("objection-overtaken")
        desk.problems.clear()  # the browser notes the 409
        await desk.open("/desk/objections")
        assert "没有待办的异议" in await desk.text()

    await until(world, company, application_id, item_id, "accepted")
    seen = await until_objection(world, company, of_result, "upheld")
    assert seen["outcome_reason"] == "经核查，缴款凭证属实，<b>原决定</b>依据有误。"
    answer = await world.ask(
        "POST", world.url("intake", f"/v1/objections/{of_result}/withdraw"), company.token
    )
    answer.problem(ProblemCode.INVALID_TRANSITION, "已经办结")

    # each step has its letter: numbered, to be checked by anybody, read by its addressee alone
    found: Document = {}

    async def lettered() -> bool:
        url = world.url("intake", f"/v1/objections/{of_result}")
        found.update((await world.ask("GET", url, company.token)).ok())
        return len(found["letters"]) == 2

    await eventually(lettered, 30)
    accepted, upheld = found["letters"]
    assert [accepted["kind"], upheld["kind"]] == ["objection_accepted", "objection_upheld"]
    assert "异议核〔" in upheld["number"]
    checked = (
        await world.ask("GET", world.url("dept-adapter", f"/v1/letters/{upheld['verification_code']}"))
    ).ok()
    assert checked["content_hash"] == upheld["content_hash"]
    path = f"/v1/objections/{of_result}/letters/{upheld['letter_id']}"
    text = (await world.ask("GET", world.url("intake", f"{path}?format=html"), company.token)).ok()
    assert "缴款凭证属实，&lt;b&gt;原决定" in text
    stranger = await world.company()
    (await world.ask("GET", world.url("intake", path), stranger.token)).problem(ProblemCode.NOT_FOUND)
    other = f"/v1/objections/{of_record}/letters/{upheld['letter_id']}"
    (await world.ask("GET", world.url("intake", other), company.token)).problem(ProblemCode.NOT_FOUND)

    # an objection to a record has no application: its mail finds its subject all the same
    async def mailed() -> bool:
        return any(of_record in mail["text"] for mail in await world.mails(company))

    await eventually(mailed, 30)
    # what was withdrawn can be made again; a provisional day is counted again once its year is known
    again = (await objects(world, company, record_id=gone)).ok()["objection_id"]
    await at_desk(world, again, slug=SLUG)
    objections = world.database("dept-adapter")["objections"]
    year = world.catalogue.calendar.missing - 1
    moved = {"missing_year": year, "decide_count.missing_year": year, "decide_due_on": "2026-01-05"}
    objections.update_one({"_id": again}, {"$set": moved})

    async def counted() -> bool:
        url = world.url("intake", f"/v1/objections/{again}")
        told = (await world.ask("GET", url, company.token)).ok()
        row = objections.find_one({"_id": again}) or {}
        due = row["decide_due_on"]
        return bool(row["missing_year"] != year and told["decide_due_on"] == due > "2026-01-05")

    await eventually(counted, 60)


async def test_a_second_officer_confirms_at_the_desk_and_the_credit_centre_sees_what_is_late(
    world: World, browser: Browser
) -> None:
    await hire(world, "proposes", "冯提", [FOUR_EYES], [Role.OFFICER])
    await hire(world, "confirms", "陈核", [FOUR_EYES], [Role.OFFICER, Role.APPROVER])
    await hire(world, "centre", "沈督", [], [Role.SUPERVISOR])
    company = await world.company(world.row(FOUR_EYES))
    objection_id = (
        await objects(world, company, record_id=company.ids[0], reason="该处罚不是对本公司作出的。")
    ).ok()["objection_id"]
    await at_desk(world, objection_id, slug=FOUR_EYES)
    path = f"/desk/objections/{objection_id}"
    # its last day was ten days ago: reminded of at once, up to the credit centre
    today = china_date(datetime.now(UTC))
    late = LIBRARY_CALENDAR.working_days_after(today - timedelta(days=14), 1).on
    moved = {
        "received_at": datetime.combine(late - timedelta(days=20), time(4), UTC).isoformat(),
        **dict.fromkeys(("accept_due_on", "due_on", "deadline_on", "reminder_on"), late.isoformat()),
    }
    rows = world.database("dept-adapter")["objections"]
    rows.update_one({"_id": objection_id}, {"$set": moved})

    async def noticed() -> bool:
        row = rows.find_one({"_id": objection_id}) or {}
        return bool(row["overdue_told"] == late.isoformat())

    await eventually(noticed, 30)
    async with signed_in(world, browser, "proposes", path) as desk:
        if LIBRARY_CALENDAR.is_working_day(today):
            await desk.page.wait_for_selector("text=说明催办")
            await desk.look("objection-reminded", whole=True)
            await desk.page.fill("#reason", "等待调取案卷")
            async with desk.page.expect_navigation():
                await desk.page.click("text=说明催办 >> nth=-1")
            assert "等待调取案卷" in await desk.text()
        await desk.open(f"{path}?do=uphold")
        await desk.page.check("[value=withdrawn]")
        await desk.page.fill("#text", "经核查，主体认定有误。")
        async with desk.page.expect_navigation():
            await desk.page.click("#act button.primary")
        assert "已提请复核" in await desk.text()
        await desk.open(path)
        assert "收回提请" in await desk.page.locator("aside").inner_text()
    async with signed_in(world, browser, "confirms", "/desk/objections?view=confirm") as desk:
        assert "待复核（" in await desk.text()
        await desk.open(path)
        assert "主体认定有误" in await desk.page.locator("#preview").inner_text()
        await desk.look("objection-confirm", whole=True)
        # nothing is sent back without a word
        await desk.page.click("button[value=send_back]")
        await desk.page.wait_for_selector("text=退回须说明理由")
        desk.problems.clear()  # the browser notes the 422
    async with signed_in(world, browser, "centre", "/desk/overdue") as desk:
        assert "逾期异议" in await desk.text()
        await desk.look("overdue-objections", whole=True)
    async with signed_in(world, browser, "confirms", path) as desk:
        async with desk.page.expect_navigation():
            await desk.page.click("button[value=confirm]")
        assert "复核已通过" in await desk.text()
    told = await until_objection(world, company, objection_id, "upheld")
    assert told["outcome_reason"] == "经核查，主体认定有误。"
