"""回访: a repair is followed up, once for each day of the setting; the subject or an officer answers, a new failing is seen."""

import asyncio
from datetime import UTC, datetime, timedelta

from e2e.people import DESK, OTHER_DESK, World
from e2e.test_flow import kinds

from contracts.clock import china_date
from contracts.errors import ProblemCode
from support import eventually

GOOD = {"failing": False, "text": "整改措施保持，未再发生"}
BAD = {"failing": True, "text": "又因同类违法被处罚"}


async def test_a_repair_is_followed_up_by_its_subject_and_by_officers(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    application = await world.repaired(company)
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    url = world.url("intake", "/v1/subjects/me/follow-ups")

    async def listed() -> list[dict[str, object]]:
        return list((await world.ask("GET", url, company.token)).ok())

    planned = await listed()
    today = china_date(datetime.now(UTC))
    assert [each["due_on"] for each in planned] == [
        (today + timedelta(days=number)).isoformat() for number in (30, 90)
    ]
    first, second = (str(each["follow_up_id"]) for each in planned)
    early = await world.ask("POST", f"{url}/{first}/answer", company.token, json=GOOD)
    early.problem(ProblemCode.INVALID_TRANSITION, "届时")
    rows = world.database("intake")["follow_ups"]
    # both days have come while nobody looked
    rows.update_many({"item_id": item_id}, {"$set": {"due_on": (today - timedelta(days=2)).isoformat()}})

    async def told() -> bool:
        return (await kinds(world, company, application_id, item_id))["follow_up_due"] == 2

    await eventually(told, 20)
    await asyncio.sleep(5)
    assert await told(), "each is told once"

    async def mailed() -> bool:
        return sum("回访" in mail["subject"] for mail in await world.mails(company)) == 2

    await eventually(mailed, 20)
    for token in (stranger.token,):
        (await world.ask("POST", f"{url}/{first}/answer", token, json=GOOD)).problem(ProblemCode.NOT_FOUND)
    answers = await asyncio.gather(
        *(world.ask("POST", f"{url}/{first}/answer", company.token, json=GOOD) for _ in range(3))
    )
    assert {answer.ok()["answer"]["failing"] for answer in answers} == {False}
    changed = await world.ask("POST", f"{url}/{first}/answer", company.token, json=BAD)
    changed.problem(ProblemCode.INVALID_TRANSITION, "已有答复")
    (await world.ask("POST", f"{url}/{second}/answer", company.token, json={"failing": True})).problem(
        ProblemCode.VALIDATION
    )
    desk = world.url("intake", "/v1/follow-ups")
    other = await world.officer(OTHER_DESK)
    (await world.ask("POST", f"{desk}/{second}/answer", other, json=BAD)).problem(ProblemCode.NOT_FOUND)
    officer = await world.officer(DESK)
    (await world.ask("POST", f"{desk}/{second}/answer", officer, json=BAD)).ok()
    failing = (await world.ask("GET", f"{desk}?failing=true", officer)).ok()
    assert second in {each["follow_up_id"] for each in failing}
    assert first not in {each["follow_up_id"] for each in failing}
    assert (await kinds(world, company, application_id, item_id))["follow_up_answered"] == 2


async def test_a_repair_that_was_revoked_is_not_followed_up(world: World) -> None:
    company = await world.company()
    application = await world.repaired(company)
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "revoke", {"reason": "材料虚假"})).ok()

    async def revoked() -> bool:
        return (await kinds(world, company, application_id, item_id))["revoked"] == 1

    await eventually(revoked, 20)
    rows = world.database("intake")["follow_ups"]
    rows.update_many({"item_id": item_id}, {"$set": {"due_on": "2020-01-01"}})

    async def looked_at() -> bool:
        return all(row["told_at"] for row in rows.find({"item_id": item_id}))

    await eventually(looked_at, 20)
    assert (await kinds(world, company, application_id, item_id))["follow_up_due"] == 0
