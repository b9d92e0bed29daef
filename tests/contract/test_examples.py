"""contracts/examples: one example of every event, and what the envelope makes of good, newer and broken messages."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from contract.architecture import REPOSITORY

from chassis.inbox import Malformed, Received, Unknown, receive
from contracts.catalogue import load_catalogue
from contracts.envelope import (
    MalformedEventError,
    decode_headers,
    event_id,
    parse_data,
    parse_headers,
)
from contracts.errors import DeadLetterReason
from contracts.events import EVENTS, DecisionReported, Event
from contracts.identifiers import item_id, normalise_document_number, normalise_uscc
from contracts.topics import TOPICS

EXAMPLES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(REPOSITORY / "contracts" / "examples").iterdir())
}
OWNERS = {event.TYPE: topic.owner for topic in TOPICS for event in topic.events}
CATALOGUE = load_catalogue()
ANY = "cn.xinfu.repair.refused.v1"
each_example = pytest.mark.parametrize("event_type", EXAMPLES)


def _value(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode()


def _event(event_type: str) -> Event:
    event = parse_data(event_type, _value(EXAMPLES[event_type]["data"]))
    assert event is not None
    return event


def _objects(node: object) -> list[dict[str, Any]]:
    """Every JSON object in a document, the document itself first."""
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in _objects(value))]
    if isinstance(node, list):
        return [found for value in node for found in _objects(value)]
    return []


def _record(event_type: str, **changes: Any) -> ConsumerRecord:
    """The example as it comes from Kafka; ``changes`` replace topic, key, value or headers."""
    example, event = EXAMPLES[event_type], _event(event_type)
    fields: dict[str, Any] = {
        "topic": event.topic,
        "partition": 0,
        "offset": 0,
        "timestamp": 0,
        "timestamp_type": 0,
        "key": example["key"].encode(),
        "value": _value(example["data"]),
        "checksum": None,
        "serialized_key_size": 0,
        "serialized_value_size": 0,
        "headers": tuple((name, value.encode()) for name, value in example["headers"].items()),
    }
    return ConsumerRecord(**(fields | changes))


# --- the examples


def test_there_is_one_example_of_each_event() -> None:
    assert list(EXAMPLES) == sorted(EVENTS)


@each_example
def test_example_is_what_its_headers_say(event_type: str) -> None:
    example = EXAMPLES[event_type]
    assert set(example) == {"headers", "key", "data"}
    envelope, event = parse_headers(example["headers"]), _event(event_type)
    assert isinstance(event, EVENTS[event_type])
    assert envelope.type == event_type
    # what a department writes comes from a system of its own
    if event_type != DecisionReported.TYPE:
        assert envelope.source == f"/xinfu/{OWNERS[event_type]}"
    assert envelope.subject == example["key"] == event.key
    # also pins the derivation of ids: with another one, a replayed outbox would take effect again
    assert envelope.id == event_id("example", event_type, event.key, 0)


@each_example
def test_example_round_trips(event_type: str) -> None:
    example = EXAMPLES[event_type]
    event = _event(event_type)
    assert json.loads(event.model_dump_json()) == example["data"]
    envelope = parse_headers(example["headers"])
    headers = envelope.headers({"traceparent": example["headers"]["traceparent"]})
    assert headers == example["headers"]
    assert (
        parse_headers(decode_headers((name, value.encode()) for name, value in headers.items())) == envelope
    )


@each_example
def test_example_is_received_from_kafka(event_type: str) -> None:
    received = receive(_record(event_type), 900_000)
    assert isinstance(received, Received)
    assert received.event == _event(event_type)
    assert received.trace == {"traceparent": EXAMPLES[event_type]["headers"]["traceparent"]}


@each_example
def test_example_has_valid_codes_and_no_personal_data(event_type: str) -> None:
    data = EXAMPLES[event_type]["data"]
    for found in _objects(data):
        if "slug" in found:
            department = CATALOGUE.by_slug(found["slug"])
            assert department is not None
            assert (department.code, department.name) == (found["code"], found["name"])
            assert normalise_uscc(found["code"]) == found["code"]
        if "document_number" in found:
            assert normalise_document_number(found["document_number"]) == found["document_number"]
            assert CATALOGUE.category(found["category"]) is not None
        # an objection to a record has its own id there; a ground names another item, without its record;
        # what a department reports names neither record nor application
        if "record_id" in found and found.get("item_id", "").startswith("itm_") and "application_id" in data:
            assert found["item_id"] == item_id(data["application_id"], found["record_id"])
        for target_id in [
            *found.get("target_ids", []),
            *([found["target_id"]] if "target_id" in found else []),
        ]:
            assert CATALOGUE.target(target_id) is not None
    text = json.dumps(data, ensure_ascii=False)
    assert re.search(r"[\u4e00-\u9fff]", text) or event_type.startswith(
        (
            "cn.xinfu.application.completed",
            "cn.xinfu.objection.referralwithdrawn",
            "cn.xinfu.item.withdrawn",
            "cn.xinfu.followup",
            "cn.xinfu.propagation",
            "cn.xinfu.referral.dueconfirmed",
            "cn.xinfu.notification.sent",
            "cn.xinfu.vendorletter.sent",
        )
    )
    assert "@" not in text
    assert not re.search(r"(?<![0-9a-f])1[3-9][0-9]{9}(?![0-9a-f])", text)
    assert not re.search(r"(?<![0-9a-zA-Z])[1-9][0-9]{16}[0-9X](?![0-9a-zA-Z])", text)


# --- newer and broken messages


@each_example
def test_unknown_fields_are_tolerated_at_every_level(event_type: str) -> None:
    newer = json.loads(json.dumps(EXAMPLES[event_type]["data"]))
    for found in _objects(newer):
        found["added_in_a_later_version"] = {"any": ["thing"]}
    assert parse_data(event_type, _value(newer)) == _event(event_type)


@each_example
def test_a_missing_field_is_named(event_type: str) -> None:
    for name, field in EVENTS[event_type].model_fields.items():
        data = {key: value for key, value in EXAMPLES[event_type]["data"].items() if key != name}
        # what a refusal needs, other words do not
        needed = event_type == DecisionReported.TYPE and name in ("decision_number", "reason")
        if not field.is_required() and not needed:
            assert parse_data(event_type, _value(data)) is not None
            continue
        with pytest.raises(MalformedEventError, match=re.escape(name)) as caught:
            parse_data(event_type, _value(data))
        assert caught.value.reason is DeadLetterReason.SCHEMA_MISMATCH


@pytest.mark.parametrize(
    "event_type", ["cn.xinfu.repair.refused.v2", "cn.xinfu.coffee.brewed.v1", "", "CN.XINFU"]
)
def test_an_unknown_type_is_no_error(event_type: str) -> None:
    assert parse_data(event_type, b"not even JSON") is None
    if event_type:
        headers = {**EXAMPLES[ANY]["headers"], "ce_type": event_type}
        record = _record(ANY, headers=tuple((name, value.encode()) for name, value in headers.items()))
        assert receive(record, 900_000) == Unknown(event_type)


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_type", "ce_source"])
@pytest.mark.parametrize("change", ["missing", "empty", "null"])
def test_a_missing_attribute_is_named(name: str, change: str) -> None:
    raw: list[tuple[str, bytes | None]] = [
        (k, v.encode()) for k, v in EXAMPLES[ANY]["headers"].items() if k != name
    ]
    if change != "missing":
        raw.append((name, b"" if change == "empty" else None))
    with pytest.raises(MalformedEventError, match=name) as caught:
        parse_headers(decode_headers(raw))
    assert caught.value.reason is DeadLetterReason.BAD_HEADERS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", "0.3"),
        ("ce_specversion", "1.0.2"),
        ("ce_id", "x" * 201),
        ("ce_time", "yesterday"),
        ("ce_time", ""),
        ("ce_time", "2026-11-23"),
        ("ce_time", "2026-11-23T10:00:00"),
    ],
)
def test_a_wrong_attribute_is_named(name: str, value: str) -> None:
    with pytest.raises(MalformedEventError, match=name) as caught:
        parse_headers({**EXAMPLES[ANY]["headers"], name: value})
    assert caught.value.reason is DeadLetterReason.BAD_HEADERS


def test_optional_attributes_may_be_missing() -> None:
    headers = {
        k: v
        for k, v in EXAMPLES[ANY]["headers"].items()
        if k not in ("ce_time", "ce_subject", "ce_dataschema")
    }
    envelope = parse_headers(headers)
    assert envelope.subject == ""
    assert envelope.time == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_header_that_is_not_utf8_is_named() -> None:
    with pytest.raises(MalformedEventError, match="x-legacy") as caught:
        decode_headers([("ce_id", b"1"), ("x-legacy", "信用".encode("gb18030"))])
    assert caught.value.reason is DeadLetterReason.BAD_HEADERS


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, DeadLetterReason.NOT_JSON),
        (b"", DeadLetterReason.NOT_JSON),
        (b"{", DeadLetterReason.NOT_JSON),
        (b"\xff\xfe", DeadLetterReason.NOT_JSON),
        (b"[" * 100_000, DeadLetterReason.NOT_JSON),
        (b"[]", DeadLetterReason.SCHEMA_MISMATCH),
        (b"null", DeadLetterReason.SCHEMA_MISMATCH),
        (b"{}", DeadLetterReason.SCHEMA_MISMATCH),
    ],
)
def test_a_broken_value_has_its_reason(value: bytes | None, reason: DeadLetterReason) -> None:
    with pytest.raises(MalformedEventError) as caught:
        parse_data(ANY, value)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": b"itm_" + b"0" * 32}, DeadLetterReason.KEY_MISMATCH),
        ({"key": None}, DeadLetterReason.KEY_MISMATCH),
        ({"key": b"\xff"}, DeadLetterReason.KEY_MISMATCH),
        ({"topic": "xinfu.routing"}, DeadLetterReason.SCHEMA_MISMATCH),
        ({"headers": ()}, DeadLetterReason.BAD_HEADERS),
        ({"value": None}, DeadLetterReason.NOT_JSON),
        ({"value": b" " * 900_001}, DeadLetterReason.TOO_LARGE),
    ],
)
def test_a_broken_message_is_a_dead_letter_with_its_reason(
    changes: dict[str, Any], reason: DeadLetterReason
) -> None:
    received = receive(_record(ANY, **changes), 900_000)
    assert isinstance(received, Malformed)
    assert received.reason is reason
