"""The AsyncAPI document: as generated, valid by AsyncAPI's own schema, complete, and shown by pages that need nobody else."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.architecture import REPOSITORY
from fastapi import FastAPI
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7
from starlette.routing import Match

from chassis.pages import pages_router
from contracts.asyncapi import asyncapi_document
from contracts.catalogue import load_catalogue
from contracts.events import EVENTS
from contracts.topics import TOPICS

VENDOR = REPOSITORY / "contracts" / "vendor" / "asyncapi"
STATIC = REPOSITORY / "services" / "chassis" / "chassis" / "static"
DOCUMENT: dict[str, Any] = json.loads(asyncapi_document())
SPECIFICATION: dict[str, Any] = json.loads(
    (VENDOR / "asyncapi-3.0.0.schema.json").read_text(encoding="utf-8")
)


def _pointed_at(pointer: str) -> Any:
    node: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        node = node[part]
    return node


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_it_is_valid_asyncapi() -> None:
    Draft7Validator(SPECIFICATION).validate(DOCUMENT)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("channels", "records", "bindings", "kafka", "partitions"), 0),
        (("operations", "sendRecords", "action"), "publish"),
        (("components", "messages", "ItemRouted", "correlationId", "location"), "application_id"),
        (("channels", "reviews", "parameters", "department", "enum"), "hz-fgw"),
    ],
)
def test_the_vendored_schema_does_refuse(path: tuple[str, ...], wrong: object) -> None:
    broken = json.loads(asyncapi_document())
    node = broken
    for part in path[:-1]:
        node = node[part]
    assert path[-1] in node
    node[path[-1]] = wrong
    assert not Draft7Validator(SPECIFICATION).is_valid(broken)


def test_every_reference_leads_somewhere() -> None:
    references = set(_references(DOCUMENT))
    assert len(references) > len(EVENTS)
    for reference in references:
        assert isinstance(_pointed_at(reference), dict)


def test_every_topic_is_a_channel_with_its_settings() -> None:
    channels = {channel["address"]: channel for channel in DOCUMENT["channels"].values()}
    assert set(channels) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        channel = channels[topic.name]
        kafka = channel["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        assert kafka["topicConfiguration"]["retention.ms"] == topic.retention_ms
        types = {_pointed_at(message["$ref"])["name"] for message in channel["messages"].values()}
        assert types == {event.TYPE for event in topic.events}
        assert set(re.findall(r"\{(\w+)\}", topic.name)) == set(channel.get("parameters", {}))
    departments = channels["xinfu.reviews.{department}"]["parameters"]["department"]["enum"]
    assert departments == [department.slug for department in load_catalogue().departments]


def test_integrators_may_send_records_and_departments_their_own_words() -> None:
    received = [o["channel"]["$ref"] for o in DOCUMENT["operations"].values() if o["action"] == "receive"]
    assert received == ["#/channels/records", "#/channels/inbound"]
    sent = [o["channel"]["$ref"] for o in DOCUMENT["operations"].values() if o["action"] == "send"]
    assert "#/channels/inbound" not in sent
    writers = DOCUMENT["channels"]["inbound"]["parameters"]["department"]["enum"]
    assert writers == [d.slug for d in load_catalogue().departments if d.mode == "events"]


@pytest.mark.parametrize("cls", EVENTS.values(), ids=list(EVENTS))
def test_every_example_fits_headers_key_and_payload_as_documented(cls: Any) -> None:
    registry = Registry().with_resource("urn:document", DRAFT7.create_resource(DOCUMENT))
    message = DOCUMENT["components"]["messages"][cls.__name__]
    trait = _pointed_at(message["traits"][0]["$ref"])
    (example,) = message["examples"]

    def check(schema: dict[str, Any], value: object) -> None:
        absolute = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
        Draft7Validator(absolute, registry=registry, format_checker=Draft7Validator.FORMAT_CHECKER).validate(
            value
        )

    check(message["payload"], example["payload"])
    check(message["bindings"]["kafka"]["key"], example["payload"][cls.KEY])
    for headers in (trait["headers"], message["headers"]):
        check(headers, example["headers"])
    assert set(example["headers"]) <= set(trait["headers"]["properties"])
    location = message["correlationId"]["location"].removeprefix("$message.payload#/")
    assert location in example["payload"]


@pytest.mark.parametrize("folder", [VENDOR, STATIC], ids=lambda folder: folder.name)
def test_vendored_files_are_the_published_ones(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    listed = {name: digest for digest, name in re.findall(r"(?m)^\| ([0-9a-f]{64}) \| (\S+) \|$", readme)}
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("README.md", "index.html")
    }
    assert found == listed


def test_pages_load_only_what_the_service_serves() -> None:
    app = FastAPI(title="test", docs_url=None, redoc_url=None)
    app.include_router(pages_router())
    page = (STATIC / "asyncapi" / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href|url)[=:]\s*"([^"]+)"', page)
    assert {"asyncapi/index.js", "asyncapi/default.min.css", "asyncapi.json"} <= set(links)
    for link in links:
        scope = {"type": "http", "path": f"/{link}", "method": "GET", "headers": [], "root_path": ""}
        assert link == "data:," or any(route.matches(scope)[0] is Match.FULL for route in app.routes), link
