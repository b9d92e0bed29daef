"""What is proved about a case: its history, its certificate, the letters to a vendor that does not follow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.people import Company, Document, World
from typer.testing import CliRunner

from xinfu.cli import app


@pytest.fixture(scope="module")
async def repaired(world: World) -> tuple[Company, Document]:
    """A company whose one record is repaired and seen so everywhere."""
    company = await world.company()
    return company, await world.repaired(company)


def xinfu(world: World, *arguments: str) -> tuple[int, str]:
    """A command as an operator gives it: exit status and what it says."""
    result = CliRunner().invoke(app, [*arguments, "--data-dir", str(world.stack.data_dir)])
    return result.exit_code, result.output


def findings(world: World, *arguments: str) -> list[str]:
    """Ids of what `xinfu audit verify` finds."""
    code, output = xinfu(world, "audit", "verify", "--json", *arguments)
    found = [finding["id"] for finding in json.loads(output)["findings"]]
    assert code == (1 if found else 0), output
    return found


async def test_whatever_is_changed_in_the_history_is_named(
    world: World, repaired: tuple[Company, Document], tmp_path: Path
) -> None:
    company, _ = repaired
    record = company.ids[0]
    history = world.database("sync")["history"]
    chain = f"credit-china|{record}"
    first, second = (f"{chain}#{seq:010d}" for seq in (1, 2))
    assert findings(world, "--record", record) == []
    assert findings(world) == []
    texts = [json.loads(row["text"]) for row in history.find({"record_id": record})]
    assert {text["kind"] for text in texts} == {"decision", "push", "reading"}
    assert company.code not in json.dumps(texts)

    original = history.find_one({"_id": first})
    other = history.find_one({"_id": second})
    assert original is not None
    assert other is not None

    def byte_changed() -> None:
        text = original["text"].replace("applied", "Applied")
        history.update_one({"_id": first}, {"$set": {"text": text}})

    def removed() -> None:
        history.delete_one({"_id": first})

    def inserted() -> None:
        history.insert_one({**original, "_id": first + "a"})

    def swapped() -> None:
        history.replace_one({"_id": first}, {**other, "_id": first})
        history.replace_one({"_id": second}, {**original, "_id": second})

    meddlings: dict[Callable[[], None], set[str]] = {
        byte_changed: {first},
        removed: {first},
        inserted: {first + "a"},
        swapped: {first, second},
    }
    for meddle, named in meddlings.items():
        meddle()
        try:
            assert named <= set(findings(world, "--record", record)), meddle
            exported = tmp_path / f"{meddle.__name__}.jsonl"
            assert xinfu(world, "audit", "export", str(exported))[0] == 0
            assert named <= set(findings(world, "--file", str(exported))), meddle
        finally:
            history.delete_one({"_id": first + "a"})
            history.replace_one({"_id": first}, original, upsert=True)
            history.replace_one({"_id": second}, other, upsert=True)
    assert findings(world, "--record", record) == []
