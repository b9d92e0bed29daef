"""Departments of every kind: what each of them is promised, one application for all of them, and what comes of bad files and words."""

from typing import Any

from e2e.people import API, DESK, World

from support import eventually

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
        names = [span["name"] for span in spans if span["trace_id"] == trace]
        wanted = {f"push review {API}", f"push review {POLLED}", f"write review {FILES}"}
        wanted |= {"process cn.xinfu.decision.reported.v1"}
        return wanted <= set(names) and names.count("grant review") == 5

    await eventually(traced, 20)
