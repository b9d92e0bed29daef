"""JSON Schemas (2020-12) of the events, made from their classes, and what may change in them."""

from collections.abc import Iterator, Mapping
from typing import Any

from contracts.envelope import dataschema
from contracts.events import Event
from contracts.glossary import EVENT_MEANINGS, EVENT_TITLES, FIELD_TITLES, SHAPE_TITLES

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SAYS_NOTHING_ABOUT_VALUES = {"$id", "$schema", "$defs", "title", "description", "examples", "default"}


def event_schema(cls: type[Event]) -> Schema:
    """Schema of the data of one event: open, so that a reader built today accepts the fields of tomorrow.

    Raises KeyError for an event, shape or field that ``contracts.glossary`` does not name.
    """
    schema = cls.model_json_schema()
    shapes = schema.pop("$defs", {})
    for name, shape in shapes.items():
        _describe(shape, f"{SHAPE_TITLES[name]} {name}")
    _describe(schema, f"{EVENT_TITLES[cls.__name__]} {cls.__name__}")
    schema["description"] = f"{EVENT_MEANINGS[cls.__name__]} {schema['description']}"
    defs = {"$defs": shapes} if shapes else {}
    return {"$schema": DIALECT, "$id": dataschema(cls.TYPE), **schema, **defs}


def _describe(shape: Schema, title: str) -> None:
    shape["title"] = title
    if shape["type"] == "object":
        shape["additionalProperties"] = True
    for name, field in shape.get("properties", {}).items():
        if "$ref" in field:  # the shape referred to has a title of its own
            field.pop("title", None)
        else:
            field["title"] = FIELD_TITLES[name]


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What readers or writers built for ``old`` would stumble over in ``new``; empty when they may be mixed freely.

    Old and new producers and consumers run side by side, and old events are replayed, so compatibility is needed in both
    directions: all a version of an event may gain is optional fields and better words. Anything else is a new version.
    """
    return list(_differences("", _resolved(old, old), _resolved(new, new)))


def _resolved(node: Any, root: Schema) -> Any:
    """``node`` with local references replaced by what they refer to and without annotations."""
    if isinstance(node, list):
        return [_resolved(each, root) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    found = {
        k: _resolved(v, root) for k, v in node.items() if k not in {*_SAYS_NOTHING_ABOUT_VALUES, "properties"}
    }
    if "properties" in node:
        found["properties"] = {name: _resolved(each, root) for name, each in node["properties"].items()}
    return found


def _differences(path: str, old: Schema, new: Schema) -> Iterator[str]:
    fields: Mapping[str, Schema] = old.get("properties", {})
    now: Mapping[str, Schema] = new.get("properties", {})
    was_required, is_required = set(old.get("required", ())), set(new.get("required", ()))
    for name in fields:
        if name not in now:
            yield f"{path}{name}: field removed"
        else:
            yield from _differences(f"{path}{name}.", fields[name], now[name])
    for name in sorted(is_required - was_required):
        yield f"{path}{name}: {'became required' if name in fields else 'new field is required'}"
    for name in sorted((was_required - is_required) & now.keys()):
        yield f"{path}{name}: no longer required"
    compared = {"properties", "required"}
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        compared.add("items")
        yield from _differences(f"{path.removesuffix('.')}[].", old["items"], new["items"])
    for keyword in sorted((old.keys() | new.keys()) - compared):
        before, after = _canonical(old, keyword), _canonical(new, keyword)
        if before != after:
            yield f"{path.removesuffix('.') or 'event'}: {keyword} {before} became {after}"


def _canonical(schema: Schema, keyword: str) -> Any:
    if keyword == "additionalProperties":
        return schema.get(keyword, True)
    return (
        sorted(schema[keyword], key=str) if keyword == "enum" and keyword in schema else schema.get(keyword)
    )
