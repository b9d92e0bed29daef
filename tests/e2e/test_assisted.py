"""帮办代办: a window files for a subject under a mandate; everything is marked, the subject is told and can object."""

from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.people import DESK, OTHER_DESK, Company, Document, World
from e2e.test_flow import item_of, until

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.tokens import Scope
from support import eventually

WINDOW = {"agent_code": "330100-window-1", "agent_name": "杭州市政务服务中心信用修复专窗"}


class Window:
    """Somebody at a window, acting under a mandate."""

    def __init__(self, world: World, token: str, mandate_id: str) -> None:
        self._world, self._token, self.mandate_id = world, token, mandate_id

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return await self._world.ask(
            method,
            self._world.url("intake", path),
            self._token,
            json=body,
            headers={"mandate-id": self.mandate_id, **headers},
        )

    async def submit(self, company: Company, key: str) -> Any:
        under = {"mandate-id": self.mandate_id}
        body = await self._world.confirmed(self._token, self._world.body(company.ids), under)
        return await self.ask("POST", "/v1/applications", body, **{"idempotency-key": key})


async def give(world: World, company: Company, *acts: str, days: int = 30) -> Document:
    until_day = china_date(datetime.now(UTC)) + timedelta(days=days)
    body = {**WINDOW, "acts": list(acts), "valid_until": until_day.isoformat()}
    url = world.url("intake", "/v1/subjects/me/mandates")
    return dict((await world.ask("POST", url, company.token, json=body)).ok())


async def test_a_window_files_and_supplements_within_its_mandate(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    token = await world.sign_in(Scope.AGENT, sub="clerk-7", **WINDOW)
    mandate = await give(world, company, "file", "supplement")
    window = Window(world, token, mandate["mandate_id"])
    listed = (await window.ask("GET", "/v1/subjects/me/records")).ok()
    assert {record["record_id"] for record in listed["records"]} == set(company.ids)
    application = (await window.submit(company, "窗口".encode().hex())).ok()
    assert application["assistance"]["agent"] == {"code": WINDOW["agent_code"], "name": WINDOW["agent_name"]}
    shown = await world.application(company, application["application_id"])
    assert "专窗代办" in shown["timeline"][0]["text"]

    async def told() -> bool:
        page = (await world.ask("GET", world.url("notify", "/v1/subjects/me/messages"), company.token)).ok()
        return any(
            "由杭州市政务服务中心信用修复专窗依据您的委托代办" in message["text"]
            for message in page["messages"]
        )

    application_id, item_id = application["application_id"], application["items"][0]["item_id"]
    (await world.desk(item_id, "request-supplement", {"missing": ["凭证"]})).ok()
    await until(world, company, application_id, item_id, "supplement")
    # what the mandate does not allow, and what only the subject may do
    (await window.ask("POST", f"/v1/items/{item_id}/withdraw")).problem(ProblemCode.MANDATE_NOT_VALID, "撤回")
    (await window.ask("GET", "/v1/subjects/me/mandates")).ok()
    path = f"/v1/subjects/me/mandates/{mandate['mandate_id']}/revoke"
    (await window.ask("POST", path)).problem(ProblemCode.FORBIDDEN, "本人")
    # expired between filing and supplement
    mandates = world.database("intake")["mandates"]
    yesterday = (china_date(datetime.now(UTC)) - timedelta(days=1)).isoformat()
    mandates.update_one({"_id": mandate["mandate_id"]}, {"$set": {"valid_until": yesterday}})
    path = f"/v1/items/{item_id}/supplement"
    (await window.ask("POST", path, {"text": "凭证号 1"})).problem(
        ProblemCode.MANDATE_NOT_VALID, "到期", "重新委托"
    )
    renewed = Window(world, token, (await give(world, company, "supplement"))["mandate_id"])
    (await renewed.ask("POST", path, {"text": "凭证号 1"})).ok()
    await until(world, company, application_id, item_id, "routed")
    # another window, another subject's mandate, no mandate at all
    other = await world.sign_in(Scope.AGENT, sub="x", agent_code="330200-window-9", agent_name="别的专窗")
    for wrong in (Window(world, other, renewed.mandate_id), Window(world, token, "man_" + "0" * 32)):
        (await wrong.ask("GET", "/v1/subjects/me/records")).problem(ProblemCode.MANDATE_NOT_VALID, "核对")
    url = world.url("intake", "/v1/subjects/me/records")
    (await world.ask("GET", url, token)).problem(ProblemCode.MANDATE_NOT_VALID, "Mandate-Id")
    theirs = Window(world, token, (await give(world, stranger, "file"))["mandate_id"])
    (await theirs.submit(company, "k1")).problem(ProblemCode.UNKNOWN_RECORD)
    (await world.desk(item_id, "grant")).ok()
    await world.until_completed(company, application_id)
    await eventually(told, 20)


async def test_the_subject_objects_to_what_was_filed_for_it(world: World) -> None:
    company = await world.company(world.row(DESK), world.row(OTHER_DESK))
    token = await world.sign_in(Scope.AGENT, sub="clerk-8", **WINDOW)
    day = (china_date(datetime.now(UTC)) + timedelta(days=10)).isoformat()
    paper = {
        "subject_type": "legal_person",
        "subject_code": company.code,
        "subject_name": company.name,
        "acts": ["file"],
        "valid_until": day,
        "paper": "委托书〔2026〕18号，窗口档案盒3",
    }
    url = world.url("intake", "/v1/agent/mandates")
    mandate = (await world.ask("POST", url, token, json=paper)).ok()
    assert mandate["registered_by"] == "agent"
    window = Window(world, token, mandate["mandate_id"])
    application = (await window.submit(company, "k2")).ok()
    application_id = application["application_id"]
    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    granted, undecided = (items[world.department(slug).name] for slug in (DESK, OTHER_DESK))
    (await world.desk(granted, "grant")).ok()
    await world.review(undecided)
    await until(world, company, application_id, granted, "granted", "syncing", "repaired")
    await until(world, company, application_id, undecided, "routed")
    path = world.url("intake", f"/v1/applications/{application_id}/object")
    stranger = await world.company()
    (await world.ask("POST", path, stranger.token)).problem(ProblemCode.NOT_FOUND)
    for _ in range(2):
        (await world.ask("POST", path, company.token)).ok()
    ended = await world.until_completed(company, application_id)
    assert {item["item_id"]: item["status"] for item in ended["items"]} == {
        granted: "repaired",
        undecided: "withdrawn",
    }
    (await window.ask("GET", "/v1/subjects/me/records")).problem(ProblemCode.MANDATE_NOT_VALID, "撤销")
    own = (
        await world.submit(
            company, world.body([(await item_of(world, company, application_id, undecided))["record_id"]])
        )
    ).ok()
    path = world.url("intake", f"/v1/applications/{own['application_id']}/object")
    (await world.ask("POST", path, company.token)).problem(ProblemCode.INVALID_TRANSITION, "自行提交")
    for bad in ({"valid_until": "2020-01-01"}, {"valid_until": "2099-01-01"}, {"subject_code": "1"}):
        answer = (await world.ask("POST", url, token, json={**paper, **bad})).problem(ProblemCode.VALIDATION)
        assert [error["field"] for error in answer["errors"]] == [*bad]
