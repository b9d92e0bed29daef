"""What data tells before a person looks: at the desk beside the item, with sources that fail, and items that need nobody."""

from typing import Any

from e2e.people import DESK, Company, Document, World
from e2e.test_flow import act

from contracts.errors import ProblemCode
from support import eventually

AUTO = "hz-mzhj"
"""Lets verified items of the tier minor through (the local stack's setting)."""
NOTHING_AT_COURT = {"no_bankruptcy": "pass", "not_dishonest_debtor": "pass"}
WARNING = {"CF_CFLB": "警告", "CF_NR": "警告", "CF_NR_FK": ""}


async def know(world: World, company: Company, source: str, check: str, fact: str, detail: str) -> None:
    """A source knows something about the company's first record."""
    body = {
        "subject_code": company.code,
        "document_number": next(iter(company.record_ids)),
        "check": check,
        "fact": fact,
        "detail": detail,
    }
    (await world.ask("POST", world.url("sandbox", f"/sources/{source}/sandbox/facts"), json=body)).ok()


async def verified(world: World, item_id: str, slug: str = DESK) -> Document:
    """The item at the desk, once every condition has its result."""
    await world.review(item_id)
    officer = await world.officer(slug)
    url = world.url("dept-adapter", f"/v1/reviews/{item_id}")

    async def done() -> bool:
        shown = (await world.ask("GET", url, officer)).ok()
        return bool(shown["verification"]["completed_at"])

    await eventually(done, 40)
    return dict((await world.ask("GET", url, officer)).ok())


def facts(shown: Document) -> dict[str, str]:
    return {each["condition"]: each["fact"] for each in shown["verification"]["findings"]}


async def test_the_desk_shows_what_each_source_told_and_decides_itself(world: World) -> None:
    company = await world.company()
    await know(world, company, "fines", "duties_performed", "fail", "罚款尚欠2万元")
    (item,) = (await world.submit(company)).ok()["items"]
    shown = await verified(world, item["item_id"])
    assert facts(shown) == {"duties_performed": "fail", "commitment": "pass", **NOTHING_AT_COURT}
    fine = shown["verification"]["findings"][0]
    assert (fine["source_name"], fine["detail"]) == ("非税收入收缴系统", "罚款尚欠2万元")
    assert fine["as_of"]
    asked = world.url("sandbox", f"/sources/fines/sandbox/questions?item_id={item['item_id']}")
    assert (await world.ask("GET", asked)).ok() == {"duties_performed": 1}
    # a failed fact refuses nobody: the department decides
    assert shown["state"] == "received"
    (await world.desk(item["item_id"], "grant")).ok()


async def test_after_a_supplement_is_asked_again_what_had_not_passed(world: World) -> None:
    company = await world.company()
    await know(world, company, "fines", "duties_performed", "fail", "罚款尚欠2万元")
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    item_id = item["item_id"]
    await verified(world, item_id)
    (await world.desk(item_id, "request-supplement", {"missing": ["缴款凭证"]})).ok()
    await world.until_item(company, application["application_id"], "supplement")
    await know(world, company, "fines", "duties_performed", "pass", "已缴清")
    (await act(world, company, item_id, "supplement", {"text": "凭证号 0003"})).ok()

    async def passed() -> bool:
        shown = await verified(world, item_id)
        return set(facts(shown).values()) == {"pass"}

    await eventually(passed, 30)
    told = {"fines": {"duties_performed": 2}, "commitments": {"commitment": 1}}
    told["courts"] = dict.fromkeys(NOTHING_AT_COURT, 1)
    for source, counts in told.items():
        asked = world.url("sandbox", f"/sources/{source}/sandbox/questions?item_id={item_id}")
        assert (await world.ask("GET", asked)).ok() == counts, source
    # what an officer has asked about, an officer decides
    assert (await verified(world, item_id))["state"] == "received"
    (await world.desk(item_id, "grant")).ok()


async def test_a_source_that_is_down_delays_nobody_and_is_asked_again(world: World) -> None:
    await world.fault("commitments", mode="fail", count=2)
    company = await world.company()
    (item,) = (await world.submit(company)).ok()["items"]
    await world.review(item["item_id"])
    shown = await verified(world, item["item_id"])
    assert facts(shown) == {"duties_performed": "pass", "commitment": "pass", **NOTHING_AT_COURT}
    await world.fault("fines", mode="fail")
    try:
        later = await world.company()
        (item,) = (await world.submit(later)).ok()["items"]
        (await world.desk(item["item_id"], "grant")).ok()
        # nobody waits for it, and nobody is asked about what is over
        await verified(world, item["item_id"])
    finally:
        await world.fault("fines", mode="ok")


async def test_what_is_verified_wholly_needs_nobody_and_is_marked_and_sampled(world: World) -> None:
    companies = [await world.company(world.row(AUTO, months=1, **WARNING)) for _ in range(6)]
    owing = await world.company(world.row(AUTO, months=1, **WARNING))
    await know(world, owing, "fines", "duties_performed", "unknown", "查无此单")
    items: list[str] = []
    for company in companies:
        application = (await world.submit(company)).ok()
        ended = await world.until_completed(company, application["application_id"])
        (item,) = ended["items"]
        assert item["status"] == "repaired"
        items.append(item["item_id"])
    bankrupt = await world.company(world.row(AUTO, months=1, **WARNING))
    await know(world, bankrupt, "courts", "no_bankruptcy", "fail", "（2026）浙0102破12号，重整计划执行中")
    for company in (owing, bankrupt):
        (waiting,) = (await world.submit(company)).ok()["items"]
        shown = await verified(world, waiting["item_id"], AUTO)
        assert (shown["state"], shown["verification"]["automatic"]) == ("received", False)
    (told,) = [each for each in shown["verification"]["findings"] if each["fact"] == "fail"]
    assert (told["condition"], told["advisory"]) == ("no_bankruptcy", True)

    officer = await world.officer(AUTO)
    code = world.department(AUTO).code
    sampled: list[str] = []
    for item_id in items:
        shown = await verified(world, item_id, AUTO)
        assert shown["decision"]["by"] == "verification"
        assert shown["verification"]["automatic"]
        sampled += [item_id] if shown["verification"]["sampled"] else []

    async def to_check() -> set[str]:
        url = world.url("dept-adapter", f"/v1/departments/{code}/reviews?to_spot_check=true&limit=200")
        page: Any = (await world.ask("GET", url, officer)).ok()
        return {review["item_id"] for review in page["reviews"]} & set(items)

    assert await to_check() == set(sampled)
    finding = {"finding": "confirmed", "note": "缴款凭证在卷"}
    for item_id in items:
        answer = await world.desk(item_id, "spot-check", finding, AUTO)
        if item_id in sampled:
            assert answer.ok()["verification"]["spot_check"]["finding"] == "confirmed"
        else:
            answer.problem(ProblemCode.INVALID_TRANSITION, "没有被抽中")
    assert await to_check() == set()
