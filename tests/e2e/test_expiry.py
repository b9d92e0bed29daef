"""公示期满: what has been published for as long as the law allows ends by itself; only who still shows it is told."""

from datetime import UTC, datetime

from e2e.people import Company, World
from e2e.test_flow import item_of, kinds, until
from e2e.test_recognition import SOURCE, shown_no_longer

from contracts.catalogue import add_months
from contracts.clock import china_date
from contracts.errors import ProblemCode
from support import eventually


async def gone(world: World, company: Company) -> bool:
    return all([await world.public(target.id, company) == set() for target in world.told(company)])


async def test_a_record_whose_period_has_passed_ends_and_who_still_shows_it_is_told(world: World) -> None:
    company = await world.company(world.row(months=30), world.row(months=40))
    found = {record["repair"]["status"]: record for record in await world.records(company)}
    record, over = found["repairable"], found["ended"]
    application = (await world.submit(company, world.body([record["record_id"]]))).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    await world.review(item_id)
    # nobody applied for this one: the targets follow all the same
    url, operator = world.url("sync", f"/v1/records/{over['record_id']}"), await world.ops()

    async def followed() -> bool:
        answer = await world.ask("GET", url, operator)
        return answer.status == 200 and bool(answer.body["completed"])

    await eventually(followed, 40)
    shown = (await world.ask("GET", url, operator)).ok()
    assert (shown["item_id"], shown["state"]) == (None, "publication_ended")
    assert shown["decision_number"].startswith("公示期满：")
    lookup = world.url("sync", "/v1/operations/records/lookup")
    question = {"record_ids": [over["record_id"]]}
    (standing,) = (await world.ask("POST", lookup, operator, json=question)).ok()["records"]
    assert (standing["item_id"], standing["version"]) == (None, 1)
    # thirty months later; one platform has stopped by itself
    await shown_no_longer(world, company, record)
    before = len(await world.pushes(SOURCE, company))
    today = china_date(datetime.now(UTC))
    earlier = {"facts.decided_on": add_months(today, -36).isoformat(), "display.published_until": None}
    world.database("intake")["records"].update_one(
        {"_id": record["record_id"]}, {"$set": earlier, "$unset": {"period": ""}}
    )
    completed = await world.until_completed(company, application_id)
    item = await until(world, company, application_id, item_id, "expired")
    assert (item["status_text"], item["decision"]) == ("公示期满", None)
    assert completed["status"] == "completed"
    await eventually(lambda: gone(world, company), 40)
    assert len(await world.pushes(SOURCE, company)) == before, "who does not show it is only looked at"
    told = await kinds(world, company, application_id, item_id)
    assert (told["publication_expired"], told["expired"]) == (1, 1)
    (again,) = (await world.submit(company, world.body([record["record_id"]]))).body["records"]
    assert again["status"] == "ended"
    # the department has nothing left to decide; what is no longer shown may be granted late, and nothing follows
    refused = await world.desk(item_id, "refuse", {"reason": "未履行"})
    refused.problem(ProblemCode.DECISION_CONFLICT, "公示期已于", "无需再作决定")
    assert (await item_of(world, company, application_id, item_id))["status"] == "expired"
