"""What happens to an item between filing and decision: its turn, supplements, withdrawals, extensions, deadlines that pass."""

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2e.people import API, DESK, OTHER_API, OTHER_DESK, Company, Document, World

from contracts.catalogue import Protocol
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import RecordPublished
from contracts.http.eligibility import Plan
from contracts.records import RecordFacts
from contracts.tokens import Scope
from contracts.topics import RECORDS
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually, message, produce

MISSING = ["罚款缴纳凭证", "整改完成的证明（加盖公章）"]


async def act(world: World, company: Company, item_id: str, action: str, body: Any = None) -> Any:
    """The applicant acts on an item."""
    url = world.url("intake", f"/v1/items/{item_id}/{action}")
    return await world.ask("POST", url, company.token, json=body)


async def item_of(world: World, company: Company, application_id: str, item_id: str) -> Document:
    items = (await world.application(company, application_id))["items"]
    return next(item for item in items if item["item_id"] == item_id)


async def until(
    world: World, company: Company, application_id: str, item_id: str, *statuses: str
) -> Document:
    async def reached() -> bool:
        return (await item_of(world, company, application_id, item_id))["status"] in statuses

    await eventually(reached, 30)
    return await item_of(world, company, application_id, item_id)


async def kinds(world: World, company: Company, application_id: str, item_id: str) -> Counter[str]:
    timeline = (await world.application(company, application_id))["timeline"]
    return Counter(line["type"] for line in timeline if line["item_id"] == item_id)


async def test_what_is_missing_is_told_once_and_provided_once_while_others_go_on(world: World) -> None:
    company = await world.company(world.row(DESK), world.row(OTHER_DESK))
    application = (await world.submit(company)).ok()
    application_id = application["application_id"]
    by_department = {item["authority_name"]: item["item_id"] for item in application["items"]}
    mine, other = (by_department[world.department(slug).name] for slug in (DESK, OTHER_DESK))
    (await act(world, company, mine, "supplement", {"text": "太早"})).problem(ProblemCode.INVALID_TRANSITION)
    asked = (await world.desk(mine, "request-supplement", {"missing": MISSING})).ok()
    today = china_date(datetime.now(UTC))
    assert (asked["state"], asked["due_on"]) == (
        "supplement",
        LIBRARY_CALENDAR.working_days_after(today, 15).on.isoformat(),
    )
    waiting = await until(world, company, application_id, mine, "supplement")
    assert (waiting["missing"], waiting["due_on"]) == (MISSING, asked["due_on"])
    # the other item ends meanwhile, and its record may be applied for again at once
    (await world.desk(other, "not-accept", {"reason": "不属于本机关职权"}, OTHER_DESK)).ok()
    (await world.desk(other, "grant", slug=OTHER_DESK)).problem(ProblemCode.DECISION_CONFLICT, "不予受理")
    await until(world, company, application_id, other, "not_accepted")
    again = (await world.submit(company, world.body([_record(application, other)]))).ok()
    assert again["items"][0]["status"] == "submitted"

    stranger = await world.company()
    (await act(world, stranger, mine, "supplement", {"text": "别人的"})).problem(ProblemCode.NOT_FOUND)
    for bad in ({}, {"text": " "}, {"text": "长" * 5001}):
        (await act(world, company, mine, "supplement", bad)).problem(ProblemCode.VALIDATION)
    answers = await asyncio.gather(
        *(act(world, company, mine, "supplement", {"text": "凭证号 0001"}) for _ in range(3))
    )
    assert [answer.ok()["item_id"] for answer in answers] == [mine] * 3
    (await act(world, company, mine, "supplement", {"text": "另一份"})).problem(
        ProblemCode.INVALID_TRANSITION
    )
    await until(world, company, application_id, mine, "routed")
    url = world.url("dept-adapter", f"/v1/reviews/{mine}")
    shown = (await world.ask("GET", url, await world.officer(DESK))).ok()
    assert shown["case"]["supplements"] == {mine: "凭证号 0001"}
    second = await world.desk(mine, "request-supplement", {"missing": ["又一份"]})
    second.problem(ProblemCode.INVALID_TRANSITION, "一次性告知")
    (await world.desk(mine, "grant")).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["status"] for item in ended["items"]} == {"repaired", "not_accepted"}
    told = await kinds(world, company, application_id, mine)
    assert (told["supplement_requested"], told["supplemented"], told["supplement_received"]) == (1, 1, 1)

    async def mailed() -> bool:
        subjects = [mail["subject"] for mail in await world.mails(company)]
        return sum("补正" in subject for subject in subjects) == 1

    await eventually(mailed, 20)


def _record(application: Document, item_id: str) -> str:
    return next(str(item["record_id"]) for item in application["items"] if item["item_id"] == item_id)


async def test_a_department_with_a_system_asks_and_is_told_again(world: World) -> None:
    await world.fault(API, mode="supplement", count=1)
    company = await world.company(world.row(API))
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    await until(world, company, application["application_id"], item["item_id"], "supplement")
    (await act(world, company, item["item_id"], "supplement", {"text": "凭证号 0002"})).ok()
    ended = await world.until_completed(company, application["application_id"])
    assert ended["items"][0]["status"] == "repaired"
    url = world.url("sandbox", f"/departments/{API}/cases?item_id={item['item_id']}")
    (case,) = (await world.ask("GET", url)).ok()
    assert case["submission"]["supplement"] == "凭证号 0002"


async def test_an_item_is_withdrawn_before_it_is_decided_wherever_it_is(world: World) -> None:
    await world.fault(API, mode="silent", count=1)
    company = await world.company(world.row(DESK), world.row(API), world.row(None))
    application = (await world.submit(company)).ok()
    application_id = application["application_id"]
    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    desk, api = (items[world.department(slug).name] for slug in (DESK, API))
    (nowhere,) = set(items.values()) - {desk, api}
    await world.review(desk)
    await until(world, company, application_id, nowhere, "referred")
    reviews = world.database("dept-adapter")["reviews"]

    async def delivered() -> bool:
        found = reviews.find_one({"_id": api})
        return found is not None and found["state"] == "delivered"

    await eventually(delivered, 30)
    for item_id in (desk, api):
        await until(world, company, application_id, item_id, "routed")
    for item_id in (desk, api, nowhere):
        for _ in range(2):
            (await act(world, company, item_id, "withdraw")).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["status"] for item in ended["items"]} == {"withdrawn"}
    (await world.desk(desk, "grant")).problem(ProblemCode.DECISION_CONFLICT, "已撤回")
    (await act(world, company, desk, "withdraw")).ok()
    clerk = await world.sign_in(Scope.ROUTING_ASSIGN, sub="clerk")
    url = world.url("routing", f"/v1/referrals/{nowhere}/assign")
    answer = await world.ask("POST", url, clerk, json={"department_code": world.department(DESK).code})
    answer.problem(ProblemCode.INVALID_TRANSITION, "已撤回")

    async def told() -> bool:
        cases = world.url("sandbox", f"/departments/{API}/cases?item_id={api}")
        return bool((await world.ask("GET", cases)).ok()[0]["cancelled"])

    await eventually(told, 30)
    assert (await kinds(world, company, application_id, api))["withdrawn"] == 1
    (await world.submit(company)).ok()


async def test_a_withdrawal_that_races_a_grant_ends_one_way_everywhere(world: World) -> None:
    company = await world.company(*(world.row(DESK) for _ in range(6)))
    application = (await world.submit(company)).ok()
    application_id = application["application_id"]
    items = [item["item_id"] for item in application["items"]]
    for item_id in items:
        await world.review(item_id)
        await until(world, company, application_id, item_id, "routed")

    async def race(number: int, item_id: str) -> None:
        async def grant() -> None:
            await asyncio.sleep(0.05 * number)
            answer = await world.desk(item_id, "grant")
            assert answer.status in (200, 409)

        withdrawn, _ = await asyncio.gather(act(world, company, item_id, "withdraw"), grant())
        assert withdrawn.status in (202, 409)

    await asyncio.gather(*(race(number, item_id) for number, item_id in enumerate(items)))
    ended = await world.until_completed(company, application_id)
    reviews = world.database("dept-adapter")["reviews"]
    agreed = {"withdrawn": "withdrawn", "granted": "repaired"}
    states = {review["_id"]: review["state"] for review in reviews.find({"_id": {"$in": items}})}
    for item in ended["items"]:
        assert item["status"] == agreed[states[item["item_id"]]]
        told = await kinds(world, company, application_id, item["item_id"])
        assert told["withdrawn"] + told["granted"] == 1


async def test_an_extension_is_made_once_and_passed_deadlines_are_told_once(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    await world.review(item_id)
    await until(world, company, application_id, item_id, "routed")
    reviews = world.database("dept-adapter")["reviews"]

    def missed(step: str) -> str:
        """The day for a step has gone by while nobody looked."""
        day = (china_date(datetime.now(UTC)) - timedelta(days=3)).isoformat()
        certain = {f"{step}_count.missing_year": None, "missing_year": None}
        passed = {f"{step}_due_on": day, "deadline_on": day, **certain}
        reviews.update_one({"_id": item_id}, {"$set": passed})
        return day

    async def overdue(times: int) -> bool:
        return (await kinds(world, company, application_id, item_id))["overdue"] == times

    missed("accept")
    await eventually(lambda: overdue(1), 20)
    shown = await item_of(world, company, application_id, item_id)
    assert (shown["status"], shown["overdue"]) == ("routed", True)
    (await world.desk(item_id, "accept")).ok()
    before = (await world.review(item_id))["decide_due_on"]
    extended = (await world.desk(item_id, "extend", {"reason": "案情复杂，需要现场核查"})).ok()
    days = extended["extend_working_days"]
    assert extended["decide_due_on"] == LIBRARY_CALENDAR.working_days_after(_day(before), days).on.isoformat()
    again = (await world.desk(item_id, "extend", {"reason": "再延"})).ok()
    assert again["decide_due_on"] == extended["decide_due_on"]
    shown = await until(world, company, application_id, item_id, "extended")
    assert (shown["decide_due_on"], shown["overdue"]) == (extended["decide_due_on"], False)
    day = missed("decide")
    await eventually(lambda: overdue(2), 20)
    (await world.desk(item_id, "refuse", {"reason": "未履行"})).ok()
    await world.until_completed(company, application_id)
    await asyncio.sleep(3)
    assert await overdue(2)
    assert day < china_date(datetime.now(UTC)).isoformat()


def _day(text: str) -> Any:
    return datetime.fromisoformat(text).date()


async def test_a_supplement_that_does_not_come_ends_the_item(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "request-supplement", {"missing": MISSING})).ok()
    await until(world, company, application_id, item_id, "supplement")
    day = (china_date(datetime.now(UTC)) - timedelta(days=1)).isoformat()
    world.database("dept-adapter")["reviews"].update_one(
        {"_id": item_id},
        {"$set": {"supplement.due_on": day, "supplement.count.missing_year": None, "deadline_on": day}},
    )
    await world.until_completed(company, application_id)
    ended = await item_of(world, company, application_id, item_id)
    assert ended["status"] == "withdrawn"
    (await world.submit(company)).ok()


async def listing(
    world: World, company: Company, like: Document, category: str = "abnormal_operation_list"
) -> str:
    """The company is on a list, of abnormal operations by default, by whoever made the record ``like``; as the bus tells."""
    facts = RecordFacts.model_validate(
        {
            **like["facts"],
            "record_id": f"rec_{secrets.token_hex(16)}",
            "category": category,
            "document_number": f"杭列〔2025〕{company.code[-6:]}号",
            "penalty_kinds": "",
            "tier": "serious" if category == "serious_dishonesty_list" else None,
        }
    )
    published = [
        {
            "record": {
                "subject_code": company.code,
                "document_number": facts.document_number,
                "authority_name": facts.authority_name,
            },
            "subject_name": company.name,
            "category": facts.category,
        }
    ]
    for target in world.catalogue.targets_for(facts.category, facts.subject_type):
        url = world.url("sandbox", f"/targets/{target.id}/sandbox/records")
        (await world.ask("POST", url, json={"records": published})).ok()
    event = RecordPublished(record_id=facts.record_id, record=facts, published_at=datetime.now(UTC))
    await produce(world.stack, RECORDS.name, [message(event)])

    async def known() -> bool:
        return any(record["record_id"] == facts.record_id for record in await world.records(company))

    await eventually(known, 20)
    return facts.record_id


@pytest.mark.parametrize(
    ("slug", "category"), [(OTHER_DESK, "serious_dishonesty_list"), (OTHER_API, "serious_illegal_list")]
)
async def test_who_was_put_on_a_list_of_serious_dishonesty_is_taken_off_everywhere(
    world: World, slug: str, category: str
) -> None:
    company = await world.company(world.row(slug))
    (penalty,) = await world.records(company)
    listed = await listing(world, company, penalty, category)
    application = (await world.submit(company, world.body([listed]))).ok()
    (item,) = application["items"]
    if slug == OTHER_DESK:
        (await world.desk(item["item_id"], "accept", slug=slug)).ok()
        (await world.desk(item["item_id"], "grant", slug=slug)).ok()
    ended = await world.until_completed(company, application["application_id"])
    (item,) = ended["items"]
    assert item["status"] == "repaired"
    # the penalty is another record: it stays published
    (kept,) = [each for each in await world.records(company) if each["record_id"] == company.ids[0]]
    assert kept["repair"]["status"] not in ("repaired", "withdrawn")
    facts = next(e["facts"] for e in await world.records(company) if e["record_id"] == listed)
    followed = world.catalogue.targets_for(category, facts["subject_type"])
    # whoever can only be written to is told by letter, and has no state of its own here
    told = {target.id for target in followed if target.protocol is not Protocol.LETTER}
    assert {each["target_id"] for each in item["targets"]} == told
    for target_id in told:
        assert facts["document_number"] not in await world.public(target_id, company), target_id


async def test_an_item_that_depends_on_another_starts_by_itself(world: World) -> None:
    company = await world.company(world.row(OTHER_API, CF_CFLB="罚款"), world.row(DESK))
    penalty = next(
        r
        for r in await world.records(company)
        if r["facts"]["authority_code"] == world.department(OTHER_API).code
    )
    listed = await listing(world, company, penalty)
    records = [*company.ids, listed]
    query = "&".join(f"record_id={record_id}" for record_id in records)
    told = Plan.model_validate(
        (await world.ask("GET", world.url("intake", f"/v1/subjects/me/plan?{query}"), company.token)).ok()
    )
    assert [{record.record_id for record in step.records} for step in told.steps] == [
        set(records) - {penalty["record_id"]},
        {penalty["record_id"]},
    ]
    assert told.steps[1].records[0].after == [listed]
    unknown = world.url("intake", f"/v1/subjects/me/plan?record_id=rec_{'0' * 32}")
    (await world.ask("GET", unknown, company.token)).problem(ProblemCode.UNKNOWN_RECORD)

    await world.fault(OTHER_API, mode="silent", count=1)
    application = (await world.submit(company, world.body(records))).ok()
    application_id = application["application_id"]
    by_record = {item["record_id"]: item["item_id"] for item in application["items"]}
    waits, first = by_record[penalty["record_id"]], by_record[listed]
    queued = await item_of(world, company, application_id, waits)
    assert (queued["status"], queued["after"]) == ("queued", [first])
    await world.review(first)
    assert world.database("dept-adapter")["reviews"].find_one({"_id": waits}) is None
    decide = world.url("sandbox", f"/departments/{OTHER_API}/sandbox/decisions")

    async def delivered() -> bool:
        return bool((await world.review(first))["state"] == "delivered")

    await eventually(delivered, 30)
    (await world.ask("POST", decide, json={"item_id": first, "outcome": "granted"})).ok()
    # granted: the other starts by itself, at the department that decides it on its own
    await until(world, company, application_id, waits, "accepted", "granted", "syncing", "repaired")
    assert (await kinds(world, company, application_id, waits))["started"] == 1
    (await world.desk(by_record[next(r for r in company.ids if r != penalty["record_id"])], "grant")).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["status"] for item in ended["items"]} == {"repaired"}


async def test_a_refusal_of_the_first_holds_nobody_up_and_a_queued_item_is_withdrawn_at_once(
    world: World,
) -> None:
    company = await world.company(world.row(OTHER_API, CF_CFLB="罚款"), world.row(OTHER_API, CF_CFLB="罚款"))
    penalty = (await world.records(company))[0]
    listed = await listing(world, company, penalty)
    await world.fault(OTHER_API, mode="refuse", count=1)
    await world.fault(OTHER_API, mode="silent", count=1)
    application = (await world.submit(company, world.body([*company.ids, listed]))).ok()
    application_id = application["application_id"]
    by_record = {item["record_id"]: item["item_id"] for item in application["items"]}
    first, second = (by_record[record_id] for record_id in company.ids)
    (await act(world, company, second, "withdraw")).ok()
    assert (await item_of(world, company, application_id, second))["status"] == "withdrawn"
    await world.review(by_record[listed])
    decide = world.url("sandbox", f"/departments/{OTHER_API}/sandbox/decisions")

    async def refused() -> bool:
        answer = await world.ask("POST", decide, json={"item_id": by_record[listed], "outcome": "refused"})
        shown = await item_of(world, company, application_id, by_record[listed])
        return answer.status in (202, 404) and shown["status"] == "refused"

    await eventually(refused, 30)
    ended = await world.until_completed(company, application_id)
    assert {item["item_id"]: item["status"] for item in ended["items"]} == {
        by_record[listed]: "refused",
        first: "repaired",
        second: "withdrawn",
    }
    text = next(line["text"] for line in ended["timeline"] if line["type"] == "started")
    assert "未获准予" in text
