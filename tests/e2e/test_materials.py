"""Materials: uploaded once, recognised by content, scanned, handed in with an application, read at the desk and by department systems."""

import asyncio
import hashlib
from typing import Any
from urllib.parse import quote

from aiohttp import ClientSession
from e2e.people import API, DESK, Company, Document, World

from chassis.webhooks import sign
from contracts.errors import ProblemCode

PDF = b"%PDF-1.7\n" + b"\xe7\xa4\xba\xe4\xbe\x8b" * 2000
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


async def upload(world: World, company: Company, content: bytes, name: str = "缴款凭证.pdf") -> Any:
    url = world.url("intake", f"/v1/materials?name={quote(name)}")
    return await world.ask("POST", url, company.token, data=content)


async def raw(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """An answer that is no JSON."""
    async with ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def test_a_material_goes_with_an_application_to_whoever_decides(world: World) -> None:
    company, stranger = await world.company(world.row(DESK), world.row(API)), await world.company()
    first, again = await asyncio.gather(upload(world, company, PDF), upload(world, company, PDF))
    material: Document = first.ok()
    assert again.ok()["material_id"] == material["material_id"]
    assert material["media_type"] == "application/pdf"
    assert material["sha256"] == hashlib.sha256(PDF).hexdigest()
    assert material["scanned"] is True
    picture = (await upload(world, company, PNG, "../../整改\u202e照片\n.jpg")).ok()
    assert (picture["name"], picture["media_type"]) == ("整改照片.jpg", "image/png")
    theirs = (await upload(world, stranger, PDF)).ok()
    assert theirs["material_id"] != material["material_id"]

    ids = [material["material_id"], picture["material_id"]]
    foreign = world.body(company.ids, material_ids=[*ids, theirs["material_id"]])
    refused = (await world.submit(company, foreign)).problem(ProblemCode.UNKNOWN_MATERIAL)
    assert refused["material_ids"] == [theirs["material_id"]]
    form = {"performed": "罚款已缴清", "corrected": "已整改", "prevention": "建立自查制度", "welfare": "助学"}
    application = (
        await world.submit(company, world.body(company.ids, material_ids=ids, statement=form))
    ).ok()
    assert [each["material_id"] for each in application["materials"]] == ids
    assert "一、履行处罚义务的情况：罚款已缴清" in application["statement"]
    assert "四、社会公益：助学" in application["statement"]

    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    desk, api = (items[world.department(slug).name] for slug in (DESK, API))
    await world.review(desk)
    url = world.url("dept-adapter", f"/v1/reviews/{desk}/materials/{material['material_id']}")
    officer = {"authorization": f"Bearer {await world.officer(DESK)}"}
    status, headers, content = await raw(url, officer)
    assert (status, content) == (200, PDF)
    assert headers["Content-Type"] == "application/pdf"
    assert "sandbox" in headers["Content-Security-Policy"]
    other = world.url("dept-adapter", f"/v1/reviews/{desk}/materials/{theirs['material_id']}")
    assert (await raw(other, officer))[0] == 404

    await world.review(api)
    code = world.department(API).code
    url = world.url(
        "dept-adapter", f"/v1/departments/{code}/reviews/{api}/materials/{picture['material_id']}"
    )
    status, _, content = await raw(url, sign(world.secrets[f"department:{API}"], "msg_1", b""))
    assert (status, content) == (200, PNG)
    status, _, _ = await raw(url, sign(world.secrets["department:hz-samr"], "msg_1", b""))
    assert status == 401
    mine = world.url("intake", f"/v1/materials/{material['material_id']}")
    assert (await raw(mine, {"authorization": f"Bearer {company.token}"}))[2] == PDF
    assert (await raw(mine, {"authorization": f"Bearer {stranger.token}"}))[0] == 404


async def test_what_is_no_material_is_refused_with_a_reason(world: World) -> None:
    company = await world.company()
    for content, name in ((b"MZ\x90" + b"\0" * 99, "证明.pdf"), (b"", "空.pdf"), (b"<html>", "页.png")):
        answer = (await upload(world, company, content, name)).problem(ProblemCode.VALIDATION)
        assert answer["errors"][0]["field"] == "file"
    answer = (await upload(world, company, PDF, " \u202e ")).problem(ProblemCode.VALIDATION)
    assert answer["errors"][0]["field"] == "name"
    (await upload(world, company, b"%PDF-" + EICAR)).problem(ProblemCode.VALIDATION, "errors")
    # a 40 MB scan
    (await upload(world, company, b"%PDF-" + b"0" * 40_000_000)).problem(ProblemCode.TOO_LARGE, "分辨率")
    await world.fault("scanner", mode="fail", count=1)
    (await upload(world, company, PDF)).problem(ProblemCode.UNAVAILABLE, "稍后")
    (await upload(world, company, PDF)).ok()
    four = [f"mat_{number:032x}" for number in range(4)]
    answer = (await world.submit(company, world.body(company.ids, material_ids=four))).problem(
        ProblemCode.VALIDATION
    )
    assert answer["errors"][0]["field"] == "material_ids"
    bad = world.body(company.ids, statement={"performed": "已缴", "corrected": " ", "more": "x"})
    answer = (await world.submit(company, bad)).problem(ProblemCode.VALIDATION)
    (error,) = answer["errors"]
    assert error["field"] == "statement"
    assert all(word in error["reason"] for word in ("corrected", "prevention", "more"))
