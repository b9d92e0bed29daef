"""Letters (文书): each step has one, whoever asks and however often; anybody can check it, and its hash stands in the history."""

import asyncio
import contextlib
import hashlib
import io
import json
from typing import Any

from aiohttp import ClientError, ClientSession
from e2e.people import API, DESK, Company, Document, World
from pypdf import PdfReader

from chassis.webhooks import sign
from contracts.errors import ProblemCode
from support import eventually


async def raw(url: str, token: str | None = None, accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
    """An answer as it is."""
    headers = {"accept": accept, **({"authorization": f"Bearer {token}"} if token else {})}
    async with ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def letters(world: World, company: Company, application_id: str, *kinds: str) -> list[Document]:
    """The letters of an application once there are these kinds, in this order."""
    url = world.url("intake", f"/v1/applications/{application_id}/letters")

    async def there() -> bool:
        found = (await world.ask("GET", url, company.token)).ok()
        return [letter["kind"] for letter in found] == list(kinds)

    # longer than the lease of what a killed process had in hand
    await eventually(there, 60)
    return list((await world.ask("GET", url, company.token)).ok())


def words(pdf: bytes) -> str:
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    return "".join(text.split()).replace("\u200b", "")


async def test_every_step_of_an_item_has_its_letter(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    application = (await world.submit(company)).ok()
    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "accept", {"text": "请留意短信通知。"})).ok()
    # killed before, while or after the letter is composed: there is one in any case
    await asyncio.to_thread(world.stack.kill, "dept-adapter")

    async def back() -> bool:
        with contextlib.suppress(ClientError):
            return (await world.ask("GET", world.url("dept-adapter", "/readyz"))).status == 200
        return False

    await eventually(back, 60)
    await asyncio.gather(*(world.desk(item_id, "accept") for _ in range(2)))
    granted = (await world.desk(item_id, "grant")).ok()
    await asyncio.gather(*(world.desk(item_id, "grant") for _ in range(2)))
    accepted, decision = await letters(world, company, application_id, "accepted", "granted")
    assert decision["number"] == granted["decision"]["number"]
    assert accepted["number"].startswith("市教育局信修受〔")
    assert world.database("dept-adapter")["letters"].count_documents({"item_id": item_id}) == 2

    # the applicant reads it, nobody else
    base = world.url("intake", f"/v1/applications/{application_id}/letters/{decision['letter_id']}")
    status, headers, pdf = await raw(base, company.token)
    assert (status, headers["Content-Type"]) == (200, "application/pdf")
    for said in (company.name, company.code, decision["number"], "准予信用修复决定书", "第三条"):
        assert said in words(pdf)
    assert pdf == (await raw(base, company.token))[2]
    assert (await raw(base, stranger.token))[0] == 404
    content = (await raw(f"{base}?format=json", company.token))[2]
    assert hashlib.sha256(content).hexdigest() == decision["content_hash"]
    assert json.loads(content)["addressee"].startswith(company.name)
    page = (await raw(f"{base}?format=html", company.token))[2].decode()
    assert company.name in page
    first = world.url("intake", f"/v1/applications/{application_id}/letters/{accepted['letter_id']}")
    assert "请留意短信通知。" in words((await raw(first, company.token))[2])

    # officers read it, its hash stands in the history
    officer = await world.officer(DESK)
    review = (await world.ask("GET", world.url("dept-adapter", f"/v1/reviews/{item_id}"), officer)).ok()
    hashes = [step["content_hash"] for step in review["history"] if step["content_hash"]]
    assert hashes == [accepted["content_hash"], decision["content_hash"]]
    listed = world.url("dept-adapter", f"/v1/reviews/{item_id}/letters")
    assert len((await world.ask("GET", listed, officer)).ok()) == 2
    assert (await raw(f"{listed}/{decision['letter_id']}", officer))[2] == pdf
    other = await world.officer(API)
    assert (await raw(f"{listed}/{decision['letter_id']}", other))[0] == 403

    # anybody can check it, and learns no more of its addressee than its holder shows
    check = world.url("dept-adapter", "/v1/letters")
    code = decision["verification_code"]
    told = (await world.ask("GET", f"{check}/{code.lower().replace('-', '')}")).ok()
    assert (told["genuine"], told["content_hash"]) == (True, decision["content_hash"])
    assert company.name not in json.dumps(told, ensure_ascii=False)
    assert told["superseded"] is None
    (await world.desk(item_id, "revoke", {"reason": "材料虚假"})).ok()
    *_, revoked = await letters(world, company, application_id, "accepted", "granted", "revoked")
    told = (await world.ask("GET", f"{check}/{code}")).ok()
    assert revoked["number"] in told["superseded"]
    status, headers, html = await raw(f"{check}/{code}", accept="text/html")
    assert status == 200
    assert "script" not in html.decode()
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    (await world.ask("GET", f"{check}/{wrong}")).problem(ProblemCode.NOT_FOUND, "校验位")
    assert (await raw(f"{check}/{'0' * 16}", accept="text/html"))[0] == 404


async def test_letters_of_a_kind_are_numbered_one_after_the_other_though_they_are_issued_together(
    world: World,
) -> None:
    company = await world.company(*(world.row(DESK) for _ in range(8)))
    items = (await world.submit(company)).ok()["items"]
    for item in items:
        await world.review(item["item_id"])
    for answer in await asyncio.gather(*(world.desk(item["item_id"], "accept") for item in items)):
        answer.ok()
    letters = world.database("dept-adapter")["letters"]
    own = {"kind": "accepted", "item_id": {"$in": [item["item_id"] for item in items]}}

    async def issued() -> bool:
        return letters.count_documents({**own, "number": {"$type": "string"}}) == len(items)

    await eventually(issued, 40)
    code = world.department(DESK).code
    found = letters.find({"kind": "accepted", "department_code": code, "number": {"$type": "string"}})
    series = sorted(int(each["number"].partition("〕")[2].removesuffix("号")) for each in found)
    assert series == list(range(1, len(series) + 1)), "none left out, none twice"


async def test_refused_items_and_departments_with_a_system_have_letters_too(world: World) -> None:
    company = await world.company(world.row(DESK), world.row(API))
    application = (await world.submit(company)).ok()
    application_id = application["application_id"]
    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    desk, api = (items[world.department(slug).name] for slug in (DESK, API))
    (await world.desk(desk, "refuse", {"reason": "罚款尚有2万元未缴清。"})).ok()

    async def all_there() -> bool:
        view = await world.application(company, application_id)
        kinds = {item["item_id"]: [letter["kind"] for letter in item["letters"]] for item in view["items"]}
        return kinds[desk] == ["refused"] and "granted" in kinds[api]

    await eventually(all_there, 30)
    view: Any = await world.application(company, application_id)
    own = {item["item_id"]: item["letters"][-1] for item in view["items"]}
    base = world.url("intake", f"/v1/applications/{application_id}/letters")
    refusal = words((await raw(f"{base}/{own[desk]['letter_id']}", company.token))[2])
    assert "罚款尚有2万元未缴清。" in refusal
    assert "行政复议" in refusal
    # the department's own system issues the decision letter: ours only tells of it
    assert own[api]["number"] is None
    notice = words((await raw(f"{base}/{own[api]['letter_id']}", company.token))[2])
    assert "准予信用修复告知书" in notice
    assert "以其出具的文书为准" in notice


async def test_the_commitment_is_shown_confirmed_and_read_by_those_who_decide(world: World) -> None:
    company, stranger = await world.company(world.row(DESK), world.row(API)), await world.company()
    url = world.url("intake", "/v1/applications/commitment-preview")
    asked = {"record_ids": company.ids}
    shown = (await world.ask("POST", url, company.token, json=asked)).ok()
    turned = {"record_ids": company.ids[::-1]}
    assert (await world.ask("POST", url, company.token, json=turned)).ok() == shown
    assert company.name in shown["letter"]["paragraphs"][0]
    (await world.ask("POST", url, stranger.token, json=asked)).problem(ProblemCode.UNKNOWN_RECORD)
    for wrong in (None, "0" * 64):
        body = world.body(company.ids, commitment_hash=wrong)
        (await world.submit(company, body)).problem(ProblemCode.COMMITMENT_NOT_CONFIRMED, "再次", "展示")
    # of other records than those shown
    body = world.body(company.ids[:1], commitment_hash=shown["commitment_hash"])
    (await world.submit(company, body)).problem(ProblemCode.COMMITMENT_NOT_CONFIRMED)
    body = world.body(company.ids, commitment_hash=shown["commitment_hash"])
    application = (await world.submit(company, body)).ok()
    application_id = application["application_id"]
    assert application["commitment"]["content_hash"] == shown["commitment_hash"]
    assert application["timeline"][0]["facts"]["commitment_hash"] == shown["commitment_hash"]
    mine = world.url("intake", f"/v1/applications/{application_id}/commitment")
    content = (await raw(f"{mine}?format=json", company.token))[2]
    assert hashlib.sha256(content).hexdigest() == shown["commitment_hash"]
    assert (await raw(mine, stranger.token))[0] == 404
    pdf = (await raw(mine, company.token))[2]
    assert "信用信息修复承诺书" in words(pdf)

    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    desk, api = (items[world.department(slug).name] for slug in (DESK, API))
    await world.review(desk)
    officer = await world.officer(DESK)
    review = (await world.ask("GET", world.url("dept-adapter", f"/v1/reviews/{desk}"), officer)).ok()
    assert review["case"]["commitment"]["content_hash"] == shown["commitment_hash"]
    assert (await raw(world.url("dept-adapter", f"/v1/reviews/{desk}/commitment"), officer))[2] == pdf
    await world.review(api)
    path = f"/v1/departments/{world.department(API).code}/reviews/{api}/commitment"
    signed = sign(world.secrets[f"department:{API}"], "msg_1", b"")
    async with (
        ClientSession() as session,
        session.get(world.url("dept-adapter", path), headers=signed) as response,
    ):
        assert (response.status, await response.read()) == (200, pdf)

    # what was missing comes with a material, and only with the applicant's own
    (await world.desk(desk, "request-supplement", {"missing": ["缴款凭证"]})).ok()
    name = "v1/materials?name=%E5%87%AD%E8%AF%81.pdf"
    material, foreign = [
        (await world.ask("POST", world.url("intake", f"/{name}"), who.token, data=b"%PDF-1.7 receipt")).ok()
        for who in (company, stranger)
    ]
    supplement = world.url("intake", f"/v1/items/{desk}/supplement")

    async def asked_for() -> bool:
        view = await world.application(company, application_id)
        return any(item["status"] == "supplement" for item in view["items"])

    await eventually(asked_for, 20)
    said = {"text": "见附件。", "material_ids": [foreign["material_id"]]}
    (await world.ask("POST", supplement, company.token, json=said)).problem(ProblemCode.UNKNOWN_MATERIAL)
    said["material_ids"] = [material["material_id"]]
    for _ in range(2):
        (await world.ask("POST", supplement, company.token, json=said)).ok()
    review = (await world.ask("GET", world.url("dept-adapter", f"/v1/reviews/{desk}"), officer)).ok()
    assert review["case"]["supplement_materials"] == {desk: [material["material_id"]]}
    assert [each["material_id"] for each in review["case"]["materials"]] == [material["material_id"]]
    read = world.url("dept-adapter", f"/v1/reviews/{desk}/materials/{material['material_id']}")
    assert (await raw(read, officer))[2] == b"%PDF-1.7 receipt"


async def test_a_published_record_has_its_repair_notice(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    mine = world.url("intake", f"/v1/subjects/me/records/{company.ids[0]}/notice")
    status, headers, pdf = await raw(mine, company.token)
    assert (status, headers["Content-Type"]) == (200, "application/pdf")
    for said in (company.name, "信用修复告知书", "公示多久", "何时可以申请修复", "不收取任何费用"):
        assert said in words(pdf)
    served = world.url("intake", f"/v1/operations/records/{company.ids[0]}/notice")
    assert (await raw(served, await world.ops()))[2] == pdf
    assert (await raw(served, company.token))[0] == 403
    assert (await raw(mine, stranger.token))[0] == 404
