"""What is proved about a case: its history, its certificate, the letters to a vendor that does not follow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.people import Company, Document, World
from typer.testing import CliRunner

from contracts.errors import ProblemCode
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


async def test_a_certificate_says_what_is_seen_and_everybody_can_check_it(
    world: World, repaired: tuple[Company, Document], tmp_path: Path
) -> None:
    company, _ = repaired
    record, other = company.ids[0], await world.company()
    address = world.url("intake", f"/v1/subjects/me/records/{record}/certificate")
    (await world.ask("GET", address)).problem(ProblemCode.UNAUTHENTICATED)
    (await world.ask("GET", address, other.token)).problem(ProblemCode.NOT_FOUND)
    own = world.url("intake", f"/v1/subjects/me/records/{other.ids[0]}/certificate")
    (await world.ask("GET", own, other.token)).problem(ProblemCode.NOT_FOUND, "决定")

    signed = (await world.ask("GET", f"{address}?format=json", company.token)).ok()
    again = (await world.ask("GET", f"{address}?format=json", company.token)).ok()
    assert again == signed
    body = signed["certificate"]
    assert body["complete"]
    assert {target["target_id"] for target in body["targets"]} == {t.id for t in world.catalogue.targets}
    history = world.database("sync")["history"]
    for target in body["targets"]:
        reading = history.find_one({"hash": target["evidence"]})
        assert reading is not None
        assert json.loads(reading["text"])["facts"]["right"] is True

    json_file, pdf_file, keys_file = (tmp_path / name for name in ("c.json", "c.pdf", "keys.json"))
    json_file.write_text(json.dumps(signed, ensure_ascii=False))
    async with world.http.get(address, headers={"authorization": f"Bearer {company.token}"}) as response:
        pdf_file.write_bytes(await response.read())
    keys_file.write_text(json.dumps((await world.ask("GET", world.url("sync", "/v1/keys"))).ok()))
    for file in (json_file, pdf_file):
        assert xinfu(world, "certificate", "verify", str(file), "--keys", str(keys_file))[0] == 0
        assert xinfu(world, "certificate", "verify", str(file), "--now")[0] == 0
    forged = json.dumps(signed, ensure_ascii=False).replace(company.name, "杭州另一家公司")
    json_file.write_text(forged)
    assert xinfu(world, "certificate", "verify", str(json_file), "--keys", str(keys_file))[0] == 1

    # with one target that has not been looked at since, it does not say that all is well
    deliveries = world.database("sync")["deliveries"]
    delivery = deliveries.find_one({"_id": f"qichacha|{record}"})
    assert delivery is not None
    deliveries.update_one({"_id": delivery["_id"]}, {"$set": {"seen_version": 0, "seen_state": "published"}})
    try:
        honest = (await world.ask("GET", f"{address}?format=json", company.token)).ok()["certificate"]
        check = (await world.ask("GET", f"{body['verify_url']}?format=json")).ok()
    finally:
        deliveries.replace_one({"_id": delivery["_id"]}, delivery)
    assert [t["standing"] for t in honest["targets"] if t["target_id"] == "qichacha"] == ["different"]
    assert not honest["complete"]
    assert (check["signature_valid"], check["still_true"], check["revoked"]) == (True, False, False)
    page = str((await world.ask("GET", f"{body['verify_url']}?format=html")).ok())
    assert company.name in page
    assert "现在仍然如此" in page
    (await world.ask("GET", world.url("sync", "/v1/certificates/AAAAA-AAAAA-AAAAA-AAAAA"))).problem(
        ProblemCode.NOT_FOUND
    )
