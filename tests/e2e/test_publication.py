"""What is shown of a record changes without a decision on a repair: shielded while a plan is performed, withdrawn, published again."""

from datetime import UTC, datetime
from typing import Any

from e2e.people import DESK, OTHER_DESK, Company, World
from e2e.test_flow import kinds

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import RecordShielded
from contracts.topics import RECORDS
from support import eventually, message, produce

COURT = "浙江省杭州市中级人民法院"
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


async def until_shown(world: World, record_id: str, state: str) -> dict[str, Any]:
    """The record at sync, once every target shows this."""
    url, operator = world.url("sync", f"/v1/records/{record_id}"), await world.ops()
    found: dict[str, Any] = {}

    async def reached() -> bool:
        answer = await world.ask("GET", url, operator)
        found.update(answer.body if answer.status == 200 else {})
        return bool(found.get("completed") and found["state"] == state)

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
    assert (await kinds(world, company, application_id, item_id))["publication_changed"] == 2
