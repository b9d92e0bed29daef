"""The review desk as officers use it: in a real browser, and by plain HTTP where a browser would not do such things."""

import asyncio
import io
import re
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import ClientSession, CookieJar
from e2e.browser import Desk, hire, open_browser, signed_in
from e2e.people import Company, Document, World, csv_bytes
from e2e.test_materials import upload
from e2e.test_verification import know
from playwright.async_api import Browser
from pypdf import PdfWriter

from contracts.clock import china_date
from contracts.records import IN_PERSON
from contracts.tokens import Role
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually

MORNING, FOUR_EYES, HTTP, MANY = "hz-sfj", "hz-czj", "hz-jxj", "hz-tyjr"
"""Departments of the catalogue that no other test uses; the second asks for four eyes."""
HOSTILE = "<script>alert(1)</script>“牛&马”\u202e有限公司"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with open_browser() as browser:
        yield browser


def _scan(size: int) -> bytes:
    """A PNG of this size, all but a picture of one dot being a comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 600, 400, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\x00" + b"\xd8" * 600) * 400))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"tEXt", b"Comment\x00" + b"x" * size)
        + rows
        + chunk(b"IEND", b"")
    )


def _paper() -> bytes:
    """A PDF of one page."""
    file, writer = io.BytesIO(), PdfWriter()
    writer.add_blank_page(595, 842)
    writer.write(file)
    return file.getvalue()


async def items_at(world: World, slug: str, companies: int, each: int) -> list[tuple[Company, Document]]:
    """New items at the desk of a department, verified; (company, item) in the order of filing."""
    made: list[tuple[Company, Document]] = []
    for _ in range(companies):
        company = await world.company(*(world.row(slug, months=13 + n % 3) for n in range(each)))
        application = (await world.submit(company)).ok()
        made += [(company, item) for item in application["items"]]
    reviews = world.database("dept-adapter")["reviews"]
    ids = [item["item_id"] for _, item in made]

    async def verified() -> bool:
        done = {"_id": {"$in": ids}, "verification.completed_at": {"$exists": True}}
        return reviews.count_documents(done) == len(ids)

    await eventually(verified, 60)
    return made


def state_of(world: World, item_id: str) -> str:
    return str(world.database("dept-adapter")["reviews"].find_one({"_id": item_id})["state"])  # type: ignore[index]


async def test_a_morning_of_forty_items_by_keyboard(world: World, browser: Browser) -> None:
    await hire(world, "morning", "钱晓", [MORNING], [Role.OFFICER])
    made = await items_at(world, MORNING, 4, 10)
    ids = [item["item_id"] for _, item in made]
    async with signed_in(world, browser, "morning") as desk:
        await desk.look("queue")
        assert await desk.page.locator("tbody tr").count() == 40
        # a company is found by a part of its name
        await desk.keys("/")
        await desk.page.keyboard.type(made[-1][0].name[4:11])
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        assert await desk.page.locator("tbody tr").count() == 10
        await desk.look("search")
        # by its code, and a letter typed there is a letter
        await desk.page.fill("#q", "")
        await desk.page.keyboard.type(f"{made[0][0].code}")
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        assert await desk.page.locator("tbody tr").count() == 10
        await desk.open("/desk/queue")
        await desk.keys("j", "j", "k")
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        await desk.look("item", whole=True)
        # a supplement: what the rule asks for, and a line of one's own; it is sent once
        async with desk.page.expect_navigation():
            await desk.keys("s")
        await desk.page.locator("[name=missing]").first.check()
        await desk.page.fill("#free", "法定代表人签字的授权委托书")
        await desk.page.wait_for_selector("#preview >> text=2. 法定代表人签字的授权委托书")
        await desk.look("supplement")
        supplemented = desk.page.url.split("/items/")[1].split("?")[0]
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        assert "已告知补正" in await desk.text()
        # the next item is open: refused, with the words edited and seen in the letter
        refused = desk.page.url.split("/items/")[1].split("?")[0]
        async with desk.page.expect_navigation():
            await desk.keys("r")
        await desk.page.fill("#text", "整改尚未完成：<b>消防设施</b>未通过复查。")
        await desk.page.wait_for_selector("#preview >> text=<b>消防设施</b>未通过复查")
        await desk.look("refuse")
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        await desk.open("/desk/queue")
        await desk.keys("j")
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        async with desk.page.expect_navigation(url="**do=grant*"):
            await desk.keys("g")
        await desk.look("grant")
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        for _ in range(17):
            await desk.does("g")
        # a letter by itself decides nothing, and what was not opened is as it was
        assert sum(state_of(world, id_) == "granted" for id_ in ids) == 18
        await desk.open("/desk/queue")
        await desk.page.check("[data-all]")
        async with desk.page.expect_navigation():
            await desk.page.click("button[value=grant]")
        await desk.look("bulk")
        async with desk.page.expect_navigation():
            await desk.keys("Enter")
        assert "已办理 20 件" in await desk.text()
        await desk.look("bulk-done")
        await desk.open("/desk/queue")
        assert "没有待办事项" in await desk.text()
        await desk.look("queue-empty")
        await desk.open("/desk/figures")
        await desk.look("figures")
        await desk.open("/desk/help")
        await desk.look("help")
        async with desk.page.expect_navigation():
            await desk.page.click("text=退出")
        await desk.look("signed-out")
    states = {id_: state_of(world, id_) for id_ in ids}
    assert (states.pop(supplemented), states.pop(refused)) == ("supplement", "refused")
    assert set(states.values()) == {"granted"}
    kept = await world.review(refused)
    assert kept["decision"]["reason"] == "整改尚未完成：<b>消防设施</b>未通过复查。"
    assert kept["decision"]["by"] == "morning"
    assert (await world.review(supplemented))["supplement"]["missing"][-1] == "法定代表人签字的授权委托书"


async def test_one_proposes_and_another_confirms(world: World, browser: Browser) -> None:
    ((_, item), (_, other)) = await items_at(world, FOUR_EYES, 1, 2)
    path = f"/desk/items/{item['item_id']}"
    async with signed_in(world, browser, "lina", path) as lina:
        await lina.does("g")
        assert "已提请复核" in await lina.text()
        await lina.open(path)
        assert "取回提请" in await lina.page.locator("nav.options").inner_text()
        assert await lina.page.locator("nav.options .primary").count() == 0
    assert state_of(world, item["item_id"]) == "received"
    # whoever proposes does not confirm, whatever roles
    async with signed_in(world, browser, "zhaogang", f"/desk/items/{other['item_id']}") as zhao:
        await zhao.does("g")
    sub = {
        "sub": "zhaogang",
        "departments": [world.department(FOUR_EYES).code],
        "roles": ["officer", "approver"],
    }
    url = world.url("dept-adapter", f"/v1/reviews/{other['item_id']}/confirm")
    assert (await world.ask("POST", url, await world.sign_in("desk", **sub))).status == 403
    async with signed_in(world, browser, "chenjing") as chen:
        await chen.look("confirm-queue")
        await chen.open(path)
        async with chen.page.expect_navigation():
            await chen.keys("c")
        assert "准予信用修复决定书" in await chen.page.locator("#preview").inner_text()
        await chen.look("confirm", whole=True)
        async with chen.page.expect_navigation():
            await chen.keys("Enter")
        assert state_of(world, item["item_id"]) == "granted"
        # the other one is sent back
        await chen.open(f"/desk/items/{other['item_id']}?do=send_back&view=confirm")
        await chen.page.fill("#text", "请补充复查记录")
        async with chen.page.expect_navigation():
            await chen.keys("Control+Enter")
    kept = await world.review(item["item_id"])
    acts = [(step["by"], step["act"]) for step in kept["history"] if step.get("act")]
    assert acts == [
        ("lina", "propose"),
        ("chenjing", "confirm"),
    ]
    assert (await world.review(other["item_id"])).get("proposal") is None
    # the API obeys too
    answer = (await world.desk(other["item_id"], "refuse", {"reason": "不符合条件"}, FOUR_EYES)).ok()
    assert (answer["state"], answer["proposal"]["action"]) == ("received", "refuse")


async def test_of_two_officers_at_one_item_the_second_is_told(world: World, browser: Browser) -> None:
    await hire(world, "first", "周一", [HTTP], [Role.OFFICER])
    await hire(world, "second", "周二", [HTTP], [Role.OFFICER])
    ((_, item),) = await items_at(world, HTTP, 1, 1)
    path = f"/desk/items/{item['item_id']}"
    async with signed_in(world, browser, "second", f"{path}?do=refuse") as second:
        await second.page.fill("#text", "第二名经办写的理由")
        async with signed_in(world, browser, "first", path) as first:
            await first.does("a")
        async with second.page.expect_navigation():
            await second.keys("Control+Enter")
        said = await second.text()
        assert "周一" in said
        assert "已受理" in said
        assert await second.page.input_value("#text") == "第二名经办写的理由"
        await second.look("overtaken")
        assert state_of(world, item["item_id"]) == "accepted"
        second.problems.clear()  # the browser notes the 409
        # knowing it, he may go on
        async with second.page.expect_navigation():
            await second.page.click("#act button.danger")
    assert state_of(world, item["item_id"]) == "refused"


async def test_a_role_that_is_taken_away_counts_at_once_and_no_text_is_lost(
    world: World, browser: Browser
) -> None:
    await hire(world, "leaving", "吴离", [HTTP], [Role.OFFICER])
    ((_, item),) = await items_at(world, HTTP, 1, 1)
    async with signed_in(world, browser, "leaving", f"/desk/items/{item['item_id']}?do=refuse") as desk:
        await desk.page.fill("#text", "写了很久的理由")
        await hire(world, "leaving", "吴离", [HTTP], [Role.APPROVER])
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        assert "您现在没有这项权限" in await desk.text()
        assert await desk.page.locator("textarea").first.input_value() == "写了很久的理由"
        await desk.look("role-taken-away")
        desk.problems.clear()  # the browser notes the 403
        await hire(world, "leaving", "吴离", [], [])
        await desk.open("/desk/queue")
        assert "没有" in await desk.text()
        desk.problems.clear()
    assert state_of(world, item["item_id"]) == "received"


async def test_experts_and_the_credit_centre_have_pages_of_their_own(world: World, browser: Browser) -> None:
    await hire(world, "asking", "郑问", [HTTP], [Role.OFFICER])
    ((_, item),) = await items_at(world, HTTP, 1, 1)
    async with signed_in(world, browser, "asking", f"/desk/items/{item['item_id']}?do=refer") as desk:
        await desk.look("refer")
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
    panel = world.database("dept-adapter")["panels"].find_one({"_id": item["item_id"]})
    assert panel is not None
    experts = panel["experts"]
    for sub in experts:
        await hire(world, sub, f"专家{sub[-2:]}", [], [Role.EXPERT])
    async with signed_in(world, browser, experts[0]) as desk:
        await desk.look("experts")
        await desk.open(f"/desk/experts/{item['item_id']}")
        await desk.page.check("[value=grant]")
        await desk.page.fill("#text", "整改到位，同意修复。")
        await desk.look("expert")
        async with desk.page.expect_navigation():
            await desk.keys("Control+Enter")
        assert "意见已提交" in await desk.text()
    reviews = world.database("dept-adapter")["reviews"]
    now = datetime.now(UTC)
    reminded = LIBRARY_CALENDAR.is_working_day(china_date(now))  # nobody is reminded on other days
    passed = (china_date(now) - timedelta(days=40)).isoformat()
    late = dict.fromkeys(("accept_due_on", "due_on", "deadline_on", "reminder_on"), passed)
    late_request = {"requested_at": now - timedelta(days=60)}
    reviews.update_one({"_id": item["item_id"]}, {"$set": {**late, **late_request}})
    async with signed_in(world, browser, "asking", f"/desk/items/{item['item_id']}") as desk:
        if reminded:
            await eventually(lambda: _shows(desk, "说明催办"), 30)
            async with desk.page.expect_navigation():
                await desk.keys("t")
            await desk.page.fill("#text", "等待专家评审意见")
            await desk.look("acknowledge")
            async with desk.page.expect_navigation():
                await desk.keys("Control+Enter")
    async with signed_in(world, browser, "sunwei") as desk:
        await eventually(lambda: _shows(desk, "已逾期"), 20)
        assert ("等待专家评审意见" in await desk.text()) == reminded
        await desk.look("overdue")
        await desk.open("/desk/figures")
        await desk.look("departments")
        await desk.open("/desk/queue")
        assert "您现在没有这项权限" in await desk.text()
        desk.problems.clear()


async def _shows(desk: Desk, words: str) -> bool:
    await desk.page.reload()
    return words in await desk.text()


async def test_materials_are_looked_at_in_place_and_on_demand(world: World, browser: Browser) -> None:
    await hire(world, "looking", "王看", [HTTP], [Role.OFFICER])
    company = await world.company(world.row(HTTP))
    scan = (
        await upload(
            world,
            company,
            _scan(9_500_000),
            "一份很大的扫描件，文件名也很长很长很长很长很长很长很长很长很长很长很长.png",
        )
    ).ok()
    paper = (await upload(world, company, _paper(), "整改报告.pdf")).ok()
    ids = [scan["material_id"], paper["material_id"]]
    (item,) = (await world.submit(company, world.body(company.ids, material_ids=ids))).ok()["items"]
    await world.review(item["item_id"])
    async with signed_in(world, browser, "looking", f"/desk/items/{item['item_id']}") as desk:
        asked: list[str] = []
        desk.page.on("request", lambda request: asked.append(request.url))
        await desk.page.reload()
        assert "9.5 MB" in await desk.text()
        # nothing of it is loaded before somebody wants to see it
        assert not any("/materials/" in url for url in asked)
        async with desk.page.expect_navigation():
            await desk.page.get_by_role("link", name="在此查看 一份很大").click()
        await desk.page.wait_for_function("document.querySelector('img.material').naturalWidth > 0")
        await desk.look("material")
        async with desk.page.expect_navigation():
            await desk.page.get_by_role("link", name="在此查看 整改报告.pdf").click()
        await desk.look("material-pdf")


class Visitor:
    """Plain HTTP with cookies, as a signed-in officer, but not with a browser's good behaviour."""

    def __init__(self, world: World, http: ClientSession) -> None:
        self.world, self.http = world, http

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.world.url("dept-adapter", path)) as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, **form: str) -> tuple[int, str]:
        async with self.http.post(self.world.url("dept-adapter", path), data=form) as answer:
            return answer.status, await answer.text()

    async def sign_in(self, sub: str) -> None:
        async with self.http.get(
            self.world.url("dept-adapter", "/desk/sign-in"), allow_redirects=False
        ) as answer:
            asked = {
                name: each[0] for name, each in parse_qs(urlsplit(answer.headers["location"]).query).items()
            }
        async with self.http.get(
            f"{self.world.endpoints.oidc}/authorize/as", params={**asked, "sub": sub}
        ) as answer:
            assert answer.status == 200, await answer.text()


def _hidden(page: str, name: str) -> str:
    found = re.search(f'name="{name}" value="([^"]*)"', page)
    assert found, page
    return found[1]


async def test_forms_of_others_repeated_grants_and_hostile_names(world: World) -> None:
    await hire(world, "plain", HOSTILE, [HTTP], [Role.OFFICER])
    company = await world.company(world.row(HTTP, CF_CFLB="罚款", CF_WFXW=HOSTILE[:20]))
    (item,) = (await world.submit(company, world.body(company.ids, statement=HOSTILE))).ok()["items"]
    await world.review(item["item_id"])
    path = f"/desk/items/{item['item_id']}"
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as http:
        visitor = Visitor(world, http)
        status, said = await visitor.post(f"{path}/act", do="refuse", text="没有登录时写的")
        assert (status, "没有登录时写的" in said) == (401, True)
        await visitor.sign_in("plain")
        status, page = await visitor.get(f"{path}?do=grant")
        assert status == 200
        # what people wrote is text, and nothing of it runs
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
        csrf, seen = _hidden(page, "csrf"), _hidden(page, "seen")
        status, said = await visitor.post(
            f"{path}/act", do="grant", seen=seen, csrf="x" * 43, text="别处的表单"
        )
        assert (status, "别处的表单" in said) == (403, True)
        assert state_of(world, item["item_id"]) == "received"
        form = {"do": "grant", "seen": seen, "csrf": csrf, "text": "", "view": "todo"}
        answers = await asyncio.gather(*(visitor.post(f"{path}/act", **form) for _ in range(3)))
        assert [status for status, _ in answers] == [200, 200, 200]
        kept = await world.review(item["item_id"])
        steps = [step["state"] for step in kept["history"] if not step.get("letter_id")]
        assert steps == ["received", "granted"]
        # bulk is refused where a check has not passed, whatever the form says
        failed = await world.company(world.row(HTTP))
        await know(world, failed, "fines", "duties_performed", "fail", "罚款尚欠2万元")
        (bad,) = (await world.submit(failed)).ok()["items"]
        await world.review(bad["item_id"])
        form = {"csrf": csrf, "action": "grant", "confirmed": "yes", "item": f"{bad['item_id']}~1"}
        assert "没有办理" in (await visitor.post("/desk/queue/bulk", **form))[1]
        assert state_of(world, bad["item_id"]) == "received"
        # an item of another department is nobody's business
        ((_, other),) = await items_at(world, MORNING, 1, 1)
        assert (await visitor.get(f"/desk/items/{other['item_id']}"))[0] == 403
        # over is over: by the clock of the session, and by signing out
        sessions = world.database("dept-adapter")["desk_sessions"]
        cookie = next(c for c in http.cookie_jar if c.key == "xinfu_desk")
        assert (cookie["httponly"], cookie["samesite"].lower()) == (True, "lax")
        assert sessions.find_one({"_id": cookie.value}) is None  # only its hash is kept
        assert (await visitor.post("/desk/sign-out", csrf=csrf))[0] == 200
        async with http.get(world.url("dept-adapter", path), allow_redirects=False) as answer:
            assert answer.status == 303


LONG = "杭州" + "名称非常非常长的" * 23 + "有限公司"
"""190 characters: as long as a name gets."""


async def test_two_hundred_items_and_the_longest_names_stay_usable(world: World, browser: Browser) -> None:
    await hire(
        world, "many", "很长的姓名" * 10, [MANY], [Role.OFFICER, Role.APPROVER, Role.EXPERT, Role.SUPERVISOR]
    )
    number = "杭退罚〔2026〕" + "9" * 100 + "号"
    company = await world.company(world.row(MANY, CF_CFLB="罚款", CF_WSH=number))
    (item,) = (
        await world.submit(company, world.body(company.ids, statement=f"{LONG}\n" * 20 + "x" * 900))
    ).ok()["items"]
    kept = await world.review(item["item_id"])
    marked = world.row(MANY, CF_XDR_MC=company.name, CF_XDR_SHXYM=company.code, BZ="不经平台")
    await world.import_csv(csv_bytes([marked]))

    async def known() -> bool:
        return len(await world.records(company)) == 2

    await eventually(known, 30)
    (quiet,) = (r["record_id"] for r in await world.records(company) if r["facts"]["in_person"])
    filed = (await world.submit(company, world.body([quiet], statement=IN_PERSON))).ok()
    in_person = filed["items"][0]["item_id"]
    await world.review(in_person)
    named = {"subject_type": "legal_person", "code": company.code, "name": LONG}
    url = world.url("intake", "/v1/internal/subjects")
    (await world.ask("PUT", url, await world.ops(), json=named)).ok()
    # many more of the same, as they would be stored
    reviews = world.database("dept-adapter")["reviews"]
    verified = {"attempts": 0, "findings": [], "completed_at": datetime.now(UTC)}
    copies = [
        {**kept, "_id": f"itm_{n:032x}", "verification": verified, "trace": {}, "push": None}
        for n in range(198)
    ]
    reviews.insert_many(copies)
    try:
        async with signed_in(world, browser, "many", "/desk/queue") as desk:
            await desk.look("queue-long")
            heights = "[...document.querySelectorAll('tbody tr')].map(row => row.offsetHeight)"
            assert max(await desk.page.evaluate(heights)) <= 64, "a row is three lines at most"
            top = await desk.page.evaluate("document.querySelector('.top').offsetHeight")
            assert top <= 60, "a long name takes no place from the page"
            for _ in range(3):
                async with desk.page.expect_navigation():
                    await desk.keys("]")
            assert "已到最后" in await desk.text()
            # the keyboard goes through a page to its end, and the row with the focus is in sight
            await desk.keys(*["j"] * 50)
            box = await desk.page.evaluate(
                "(({top, bottom}) => [top, bottom, innerHeight])(document.activeElement.getBoundingClientRect())"
            )
            assert 0 <= box[0] < box[1] <= box[2], box
            await desk.open(f"/desk/items/{item['item_id']}?do=refuse")
            await desk.page.fill("#text", f"{LONG * 10}\n" + "长" * 90)
            await desk.page.wait_for_selector(f"#preview >> text={LONG[:30]}")
            await desk.look("item-long")
            button = await desk.page.locator("#act button.danger").bounding_box()
            assert button is not None
            assert button["y"] + button["height"] <= 768, "what sends the form is in sight"
            await desk.open(f"/desk/items/{in_person}?do=refuse")
            await desk.look("in-person")
            assert company.code not in await desk.text()
            async with desk.page.expect_navigation():
                await desk.keys("Enter")
        assert (await world.review(in_person))["decision"]["reason"] == IN_PERSON
    finally:
        reviews.delete_many({"_id": {"$in": [copy["_id"] for copy in copies]}})


async def test_pages_for_those_who_are_not_signed_in_or_lost_are_accessible(
    world: World, browser: Browser
) -> None:
    await hire(world, "lost", "周迷", [HTTP], [Role.OFFICER])
    async with signed_in(world, browser, "lost") as desk:
        for name, path, says in (
            ("not-found", "/desk/items/itm_" + "0" * 32, "没有事项"),
            ("sign-in-refused", "/desk/callback?state=x&code=y", "请重新登录"),
            ("bad-address", "/desk/queue?view=nothing", "地址或表单内容有误"),
        ):
            await desk.open(path)
            assert says in await desk.text()
            await desk.look(name)
        async with desk.page.expect_navigation():
            await desk.page.click("text=退出")
        await desk.open("/desk/queue")
        await desk.look("sign-in")
        desk.problems.clear()  # the browser notes the answers
