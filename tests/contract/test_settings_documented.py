"""docs/operations.md lists every setting of every service, with its default, and none that is not there."""

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from contract.architecture import REPOSITORY, SERVICES
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from chassis.settings import ChassisSettings

ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \| `?([^|`]+)`? \|", re.MULTILINE)
BEGIN, END = "## 设置", "## 健康检查"


def classes() -> Iterator[type[ChassisSettings]]:
    yield ChassisSettings
    for service in sorted(SERVICES):
        module = importlib.import_module(f"{service}.settings")
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, ChassisSettings) and value is not ChassisSettings
        ]
        assert found, f"{service}.settings has no settings class"
        yield from found


def environment_name(cls: type[ChassisSettings], name: str, field: FieldInfo) -> str:
    match field.validation_alias:
        case AliasChoices(choices=[str(first), *_]):
            return first
        case str(alias):
            return alias
    return f"{cls.model_config['env_prefix']}{name}".upper()


def written(value: Any) -> str:
    """A default as somebody would write it into the environment."""
    if value is None:
        return "—"
    if isinstance(value, str):
        return str(value)
    return json.dumps(value)


def default(field: FieldInfo) -> str:
    return "必填" if field.is_required() else written(field.get_default(call_default_factory=True))


SETTINGS = {
    environment_name(cls, name, field): default(field)
    for cls in classes()
    for name, field in cls.model_fields.items()
}


def documented(text: str) -> dict[str, str]:
    section = text.partition(BEGIN)[2].partition(END)[0]
    return {name: value.strip() for name, value in ROW.findall(section)}


def test_the_table_is_read_as_it_is_written() -> None:
    text = f"| `NOT_HERE` | `1` |\n{BEGIN}\n| `A_B` | `{{}}` | x |\n| `C_D` | 必填 | y |\n{END}\n| `NOR` | `1` | z |"
    assert documented(text) == {"A_B": "{}", "C_D": "必填"}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    found = documented((REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8"))
    assert name in found, f"add a row for {name} to docs/operations.md"
    assert found[name] == SETTINGS[name]


def test_no_setting_is_documented_that_does_not_exist() -> None:
    found = documented((REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8"))
    assert found.keys() <= SETTINGS.keys()
