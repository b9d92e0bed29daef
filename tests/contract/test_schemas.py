"""JSON Schemas of the events: as generated, valid, open, agreeing with the classes; and what counts as a breaking change."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract.architecture import REPOSITORY
from jsonschema import Draft202012Validator, ValidationError
from pydantic import create_model

from contracts.envelope import dataschema
from contracts.events import EVENTS, Event, RepairRefused
from contracts.generate import CONTRACTS, breaks, generated, main, stale_files
from contracts.schemas import breaking_changes, event_schema

SCHEMAS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((REPOSITORY / "contracts" / "schemas").glob("*.json"))
}
each_schema = pytest.mark.parametrize("event_type", SCHEMAS)
FILES = generated(CONTRACTS)


def _example(event_type: str) -> dict[str, Any]:
    path = REPOSITORY / "contracts" / "examples" / f"{event_type}.json"
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["data"]
    return data


def _check(event_type: str, data: object) -> None:
    schema = SCHEMAS[event_type]
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(data)


def _objects(node: object) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in _objects(value))]
    return [found for value in node for found in _objects(value)] if isinstance(node, list) else []


# --- the committed files


def test_what_is_committed_is_what_is_generated() -> None:
    assert stale_files(CONTRACTS, FILES) == [], "run python -m contracts.generate"


@each_schema
def test_schema_is_valid_and_named(event_type: str) -> None:
    schema = SCHEMAS[event_type]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == dataschema(event_type)


@each_schema
def test_example_fits(event_type: str) -> None:
    _check(event_type, _example(event_type))


@each_schema
def test_unknown_fields_are_tolerated_at_every_level(event_type: str) -> None:
    newer = _example(event_type)
    for found in _objects(newer):
        found["added_in_a_later_version"] = {"any": ["thing"]}
    _check(event_type, newer)


@each_schema
def test_a_missing_field_is_refused_when_the_class_requires_it(event_type: str) -> None:
    for name, field in EVENTS[event_type].model_fields.items():
        data = {key: value for key, value in _example(event_type).items() if key != name}
        if field.is_required():
            with pytest.raises(ValidationError, match=name):
                _check(event_type, data)
        else:
            _check(event_type, data)


@each_schema
def test_no_field_takes_just_anything(event_type: str) -> None:
    for name, value in _example(event_type).items():
        wrong = 1 if isinstance(value, str) else "wrong"
        with pytest.raises(ValidationError):
            _check(event_type, {**_example(event_type), name: wrong})


# --- compatibility

ANY = "cn.xinfu.repair.refused.v1"
Change = Callable[[dict[str, Any]], object]


def _changed(change: Change) -> dict[str, Any]:
    schema = copy.deepcopy(SCHEMAS[ANY])
    change(schema)
    return schema


@pytest.mark.parametrize(
    "change",
    [
        lambda s: None,
        lambda s: s["properties"].update(appeal_by={"type": "string", "format": "date"}),
        lambda s: s["$defs"]["RecordFacts"]["properties"].update(note={"type": "string"}),
        lambda s: s["properties"]["reason"].update(description="Better words", title="Better"),
        lambda s: s.update(description="Better words"),
        lambda s: s["required"].reverse(),
        lambda s: s["$defs"]["SubjectType"]["enum"].reverse(),
        lambda s: s["$defs"].update(Unused={"type": "string"}),
        lambda s: s.pop("additionalProperties"),
    ],
)
def test_changes_that_break_nobody(change: Change) -> None:
    assert breaking_changes(SCHEMAS[ANY], _changed(change)) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["properties"].pop("reason"), "reason: field removed"),
        (lambda s: (s["properties"].update(x={}), s["required"].append("x")), "x: new field is required"),
        (lambda s: s["required"].remove("reason"), "reason: no longer required"),
        (lambda s: s["$defs"]["RecordFacts"]["required"].append("tier"), "record.tier: became required"),
        (lambda s: s["$defs"]["RecordFacts"]["properties"].pop("tier"), "record.tier: field removed"),
        (lambda s: s["properties"]["reason"].update(type="integer"), "reason: type string became integer"),
        (lambda s: s["properties"]["reason"].update(maxLength=10), "reason: maxLength 2000 became 10"),
        (lambda s: s["properties"]["reason"].update(maxLength=9999), "reason: maxLength 2000 became 9999"),
        (lambda s: s["properties"]["reason"].pop("minLength"), "reason: minLength 1 became None"),
        (lambda s: s["$defs"]["SubjectType"]["enum"].remove("sole_trader"), "record.subject_type: enum"),
        (lambda s: s["$defs"]["SubjectType"]["enum"].append("fund"), "record.subject_type: enum"),
        (lambda s: s.update(additionalProperties=False), "event: additionalProperties"),
        (
            lambda s: s["$defs"]["RecordFacts"]["properties"]["authority_code"]["anyOf"].pop(),
            "record.authority_code: anyOf",
        ),
    ],
)
def test_changes_that_need_a_new_version(change: Change, named: str) -> None:
    (found,) = breaking_changes(SCHEMAS[ANY], _changed(change))
    assert found.startswith(named)


def test_a_change_inside_a_list_is_found() -> None:
    old = SCHEMAS["cn.xinfu.application.submitted.v1"]
    new = copy.deepcopy(old)
    del new["$defs"]["RecordFacts"]["properties"]["decided_on"]
    assert "records[].decided_on: field removed" in breaking_changes(old, new)


def test_a_field_without_a_name_in_the_glossary_is_refused() -> None:
    later = create_model("RepairRefused", __base__=RepairRefused, hint=(str | None, None))
    with pytest.raises(KeyError, match="hint"):
        event_schema(later)


# --- the generator


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with the examples and everything generated from them."""
    (tmp_path / "examples").symlink_to(CONTRACTS / "examples")
    assert main([], tmp_path) == 0
    return tmp_path


def test_check_names_stale_files_and_generating_mends_them(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"], repository) == 0
    (repository / "asyncapi.json").write_text("{}", encoding="utf-8")
    (repository / "schemas" / f"{ANY}.json").unlink()
    assert main(["--check"], repository) == 1
    told = capsys.readouterr().err
    assert "contracts/asyncapi.json" in told
    assert f"contracts/schemas/{ANY}.json" in told
    assert main([], repository) == 0
    assert stale_files(repository, FILES) == []


def test_a_breaking_change_is_refused_unless_forced(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "schemas" / f"{ANY}.json"
    # as if the committed version had a field that the class no longer has
    old = _changed(lambda s: s["properties"].update(gone={"type": "string"}))
    path.write_text(json.dumps(old), encoding="utf-8")
    (repository / "schemas" / "cn.xinfu.gone.event.v1.json").write_text("{}", encoding="utf-8")
    assert breaks(repository, FILES) == [
        "schemas/cn.xinfu.gone.event.v1.json: event removed",
        f"schemas/{ANY}.json: gone: field removed",
    ]
    assert main([], repository) == 1
    assert json.loads(path.read_text(encoding="utf-8")) == old
    assert "gone: field removed" in capsys.readouterr().err
    assert main(["--breaking"], repository) == 0
    assert stale_files(repository, FILES) == []


def test_schemas_are_made_of_the_classes_alone() -> None:
    classes: list[type[Event]] = list(EVENTS.values())
    assert {cls.TYPE: event_schema(cls) for cls in classes} == SCHEMAS
