"""Producers emit what the contracts promise: every event in every outbox fits its committed schema, headers and example."""

import json
from pathlib import Path
from typing import Any

from e2e.people import World
from jsonschema import Draft202012Validator

from contracts.topics import TOPICS
from xinfu.compose import SERVICES

CONTRACTS = Path(__file__).parents[2] / "contracts"
BY_EVERY_RUN = {
    "cn.xinfu.record.published.v1",
    "cn.xinfu.application.submitted.v1",
    "cn.xinfu.application.completed.v1",
    "cn.xinfu.item.routed.v1",
    "cn.xinfu.item.referred.v1",
    "cn.xinfu.review.requested.v1",
    "cn.xinfu.review.accepted.v1",
    "cn.xinfu.repair.granted.v1",
    "cn.xinfu.repair.refused.v1",
    "cn.xinfu.repair.revoked.v1",
    "cn.xinfu.target.acknowledged.v1",
    "cn.xinfu.target.verified.v1",
    "cn.xinfu.propagation.completed.v1",
    "cn.xinfu.notification.sent.v1",
    "cn.xinfu.letter.issued.v1",
}


def differences(data: Any, example: Any, where: str = "") -> list[str]:
    """Names that stand in one and not in the other; an empty list or a null says nothing about what would be in it."""
    if isinstance(data, dict) and isinstance(example, dict):
        odd = [f"{where}.{name}" for name in data.keys() ^ example.keys()]
        return odd + [
            found
            for name in data.keys() & example.keys()
            for found in differences(data[name], example[name], f"{where}.{name}")
        ]
    if isinstance(data, list) and isinstance(example, list) and data and example:
        return differences(data[0], example[0], f"{where}[0]")
    return []


async def test_what_is_emitted_is_what_is_promised(world: World) -> None:
    granted, refused = await world.company(), await world.company()
    referred = await world.company(world.row(None))
    (repaired,) = (await world.repaired(granted))["items"]
    (await world.desk(repaired["item_id"], "revoke", {"reason": "材料虚假"})).ok()
    item = (await world.submit(refused)).ok()["items"][0]
    (await world.desk(item["item_id"], "refuse", {"reason": "尚未缴清罚款"})).ok()
    await world.until_completed(refused, await _only(world, refused))
    await world.submit(referred)
    await world.until_item(referred, await _only(world, referred), "referred")

    owners = {event.TYPE: topic.owner for topic in TOPICS for event in topic.events}
    seen: set[str] = set()
    for service in SERVICES:
        for document in world.database(service)["outbox"].find():
            headers, data = document["headers"], json.loads(document["value"])
            event_type = headers["ce_type"]
            example = json.loads((CONTRACTS / "examples" / f"{event_type}.json").read_text("utf-8"))
            schema = json.loads((CONTRACTS / "schemas" / f"{event_type}.json").read_text("utf-8"))
            Draft202012Validator(schema).validate(data)
            assert owners[event_type] == service
            assert headers["ce_source"] == f"/xinfu/{service}"
            assert set(headers) == set(example["headers"]) - {"traceparent", "tracestate"}
            assert differences(data, example["data"]) == [], event_type
            seen.add(event_type)
    assert seen >= BY_EVERY_RUN


async def _only(world: World, company: Any) -> str:
    answer = await world.ask("GET", world.url("intake", "/v1/applications"), company.token)
    (application,) = answer.ok()["applications"]
    return str(application["application_id"])
