"""Departments of every kind: what each of them is promised, one application for all of them, and what comes of bad files and words."""

import secrets
from datetime import UTC, datetime
from typing import Any

import pytest
from e2e.people import API, DESK, Company, World

from contracts.decisions import Outcome
from contracts.events import DecisionReported
from contracts.records import DepartmentRef
from contracts.topics import inbound_topic
from support import eventually, message, produce

POLLED, FILES, EVENTS = "hz-ycj", "hz-gjjzx", "hz-yzj"
"""Departments whose systems are asked, exchange files, and live on the bus."""
SYSTEMS = (API, POLLED, FILES, EVENTS)


async def case(world: World, slug: str, item_id: str) -> dict[str, Any]:
    """An item at the system of its department, once it is there."""
    url = world.url("sandbox", f"/departments/{slug}/cases?item_id={item_id}")

    async def there() -> bool:
        return bool((await world.ask("GET", url)).ok())

    await eventually(there, 30)
    return dict((await world.ask("GET", url)).ok()[0])


def types(application: dict[str, Any], item_id: str) -> list[str]:
    return [line["type"] for line in application["timeline"] if line.get("item_id") == item_id]


async def test_one_application_at_departments_of_every_kind_and_the_trace_of_each_path(world: World) -> None:
    company = await world.company(*(world.row(slug) for slug in (DESK, *SYSTEMS)))
    application = (await world.submit(company)).ok()
    items = {item["department"]["slug"] if item["department"] else "": item for item in application["items"]}
    application_id = application["application_id"]

    async def routed() -> bool:
        nonlocal items
        found = (await world.application(company, application_id))["items"]
        items = {item["department"]["slug"]: item for item in found if item["department"]}
        return len(items) == 5

    await eventually(routed, 30)
    (await world.desk(items[DESK]["item_id"], "accept")).ok()
    (await world.desk(items[DESK]["item_id"], "grant")).ok()
    done = await world.until_completed(company, application_id, 60)
    assert {item["status"] for item in done["items"]} == {"repaired"}
    for slug in SYSTEMS:
        lines = types(done, items[slug]["item_id"])
        assert (lines.count("accepted"), lines.count("granted")) == (1, 1), (slug, lines)
    url = world.url(
        "sandbox",
        f"/otlp/traces?attribute=xinfu.application_id&value={application_id}&max_traces=20&max_spans=50000",
    )

    async def traced() -> bool:
        spans = (await world.ask("GET", url)).ok()["spans"]
        (trace,) = {span["trace_id"] for span in spans if span["name"] == "POST /v1/applications"}
        own = [span for span in spans if span["trace_id"] == trace]
        wanted = {f"push review {API}", f"push review {POLLED}", f"write review {FILES}"}
        wanted |= {"process cn.xinfu.decision.reported.v1"}
        # a span of its own also for each attempt of a transaction that met a conflict: so items, not spans
        granted = {span["attributes"]["xinfu.item_id"] for span in own if span["name"] == "grant review"}
        return wanted <= {span["name"] for span in own} and len(granted) == 5

    await eventually(traced, 20)


async def at_system(world: World, slug: str, **fault: Any) -> tuple[Company, str, str]:
    """A company, its application, and its item, taken by the department's system while this fault is on there."""
    await world.fault(slug, count=1, **fault)
    company = await world.company(world.row(slug))
    application = (await world.submit(company)).ok()
    item_id = application["items"][0]["item_id"]
    await case(world, slug, item_id)
    return company, application["application_id"], item_id


async def said_by(world: World, slug: str, item_id: str, outcome: str) -> None:
    url = world.url("sandbox", f"/departments/{slug}/sandbox/decisions")
    (await world.ask("POST", url, json={"item_id": item_id, "outcome": outcome})).ok()


async def problems(world: World, slug: str) -> str:
    """What of a department's words could not take effect, where people find it."""
    if slug == EVENTS:
        found = world.database("dept-adapter")["dead_letters"].find({"consumer": f"dept-adapter.{slug}"})
        return " ".join(str(letter.get("detail")) for letter in found)
    code = world.department(slug).code
    url = world.url("dept-adapter", f"/v1/departments/{code}/refused-decisions")
    return str((await world.ask("GET", url, await world.officer(slug))).ok())


@pytest.mark.parametrize("slug", [POLLED, FILES, EVENTS])
async def test_what_every_kind_keeps(world: World, slug: str) -> None:
    """Supplements and withdrawals are handed over; what contradicts takes no effect and is told; others go on."""
    company, application_id, item_id = await at_system(world, slug, mode="supplement")
    await world.until_item(company, application_id, "supplement")
    url = world.url("intake", f"/v1/items/{item_id}/supplement")
    (await world.ask("POST", url, company.token, json={"text": "补充罚款缴纳凭证，已完成整改。"})).ok()
    silent, silent_application, silent_item = await at_system(world, slug, mode="silent")
    await world.until_item(silent, silent_application, "routed")
    url = world.url("intake", f"/v1/items/{silent_item}/withdraw")
    (await world.ask("POST", url, silent.token)).ok()
    await world.until_item(silent, silent_application, "withdrawn")

    async def stopped() -> bool:
        return bool((await case(world, slug, silent_item))["cancelled"])

    await eventually(stopped, 30)
    done = await world.until_completed(company, application_id, 60)
    number = done["items"][0]["decision_number"]
    lines = types(done, item_id)
    assert (lines.count("supplement_requested"), lines.count("accepted"), lines.count("granted")) == (1, 1, 1)

    # the contrary of what was decided, and a word about what was withdrawn
    await said_by(world, slug, item_id, "refused")
    await said_by(world, slug, silent_item, "granted")

    async def told() -> bool:
        text = await problems(world, slug)
        return number in text and "已撤回" in text

    await eventually(told, 30)
    assert (await world.application(company, application_id))["items"][0]["status"] == "repaired"


async def test_a_department_on_the_bus_speaks_of_its_own_items_only(world: World) -> None:
    company, application_id, item_id = await at_system(world, API, mode="silent")
    department = world.department(EVENTS)
    ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
    word = DecisionReported(
        item_id=item_id,
        outcome=Outcome.GRANTED,
        decision_number="1号",
        occurred_at=datetime.now(UTC),
        department=ref,
    )
    strange = ref.model_copy(update={"code": world.department(API).code})
    events = [word, word.model_copy(update={"department": strange})]
    infra = world.stack
    await produce(infra, inbound_topic(EVENTS), [message(event, secrets.token_hex(8)) for event in events])

    async def put_aside() -> bool:
        letters = world.database("dept-adapter")["dead_letters"].find({"key": item_id.encode()})
        return sorted(letter["reason"] for letter in letters) == ["schema_mismatch", "unknown_aggregate"]

    await eventually(put_aside, 30)
    assert (await world.application(company, application_id))["items"][0]["status"] == "routed"


async def test_bad_days_of_a_department_with_files(world: World) -> None:
    """Truncated, miscounted, twice, gone in mid-file: each item is decided once, whatever happens on the way."""
    for fault in (
        {"mode": "truncated", "seconds": 1.5},
        {"mode": "wrong_count", "seconds": 1.5},
        {"mode": "twice", "seconds": 0.5},
        {"mode": "gone"},
    ):
        await world.fault(FILES, count=1, **fault)
        company = await world.company(world.row(FILES))
        application = (await world.submit(company)).ok()
        done = await world.until_completed(company, application["application_id"], 60)
        lines = types(done, application["items"][0]["item_id"])
        assert (lines.count("accepted"), lines.count("granted")) == (1, 1), (fault, lines)
    (found,) = [
        each
        for each in (
            await world.ask("GET", world.url("dept-adapter", "/v1/departments"), await world.officer(FILES))
        ).ok()
        if each["department"]["slug"] == FILES
    ]
    assert (found["mode"], found["breaker"], found["problem"]) == ("files", "closed", None)
