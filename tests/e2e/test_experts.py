"""专家评审: a panel without conflicts advises, with dissent recorded; the department decides."""

import asyncio

from e2e.people import DESK, OTHER_DESK, Document, World

from contracts.errors import ProblemCode
from contracts.tokens import Scope

QUESTION = {"question": "两次处罚是否属于同一类违法行为？"}


async def test_a_panel_is_drawn_speaks_and_advises(world: World) -> None:
    company = await world.company()
    (item,) = (await world.submit(company)).ok()["items"]
    item_id = item["item_id"]
    first, second = await asyncio.gather(
        *(world.desk(item_id, "refer-to-experts", QUESTION) for _ in range(2))
    )
    panel = first.ok()
    assert second.ok()["experts"] == panel["experts"]
    assert len(panel["experts"]) == 3
    names = {expert.name: expert for expert in world.catalogue.experts}
    code = world.department(DESK).code
    assert not any(names[name].organisation == code for name in panel["experts"])
    assert "属于作出认定的部门" in panel["excluded"].values()
    (await world.desk(item_id, "refer-to-experts", QUESTION, OTHER_DESK)).problem(
        ProblemCode.WRONG_DEPARTMENT
    )

    async def expert(id_: str) -> str:
        return await world.sign_in(Scope.EXPERT, sub=id_)

    def url(path: str) -> str:
        return world.url("dept-adapter", f"/v1/experts/me/cases{path}")

    sitting = [names[name].id for name in panel["experts"]]
    cases = (await world.ask("GET", url(""), await expert(sitting[0]))).ok()
    (case,) = [each for each in cases if each["item_id"] == item_id]
    assert company.code not in str(case)
    assert company.name not in str(case)
    outsider = next(e.id for e in world.catalogue.experts if e.id not in sitting)
    opinion = {"vote": "grant", "text": "行为不同，不属于同一类"}
    answer = await world.ask("POST", url(f"/{item_id}/opinion"), await expert(outsider), json=opinion)
    answer.problem(ProblemCode.NOT_FOUND)
    reason = {"reason": "曾任该企业顾问"}
    (await world.ask("POST", url(f"/{item_id}/declare-conflict"), await expert(sitting[2]), json=reason)).ok()

    async def shown() -> Document:
        path = world.url("dept-adapter", f"/v1/reviews/{item_id}/panel")
        return dict((await world.ask("GET", path, await world.officer(DESK))).ok())

    now = await shown()
    assert now["experts"][:2] == panel["experts"][:2]
    assert now["outcome"] is None
    sitting = [names[name].id for name in now["experts"]]
    votes = ["grant", "refuse", "grant"]
    for id_, vote in zip(sitting, votes, strict=True):
        body = {"vote": vote, "text": f"意见：{vote}"}
        for _ in range(2):
            (await world.ask("POST", url(f"/{item_id}/opinion"), await expert(id_), json=body)).ok()
    changed = await world.ask(
        "POST", url(f"/{item_id}/opinion"), await expert(sitting[1]), json={"vote": "grant", "text": "改"}
    )
    changed.problem(ProblemCode.INVALID_TRANSITION, "不能更改")
    outcome = (await shown())["outcome"]
    assert (outcome["majority"], outcome["votes"]) == ("grant", {"grant": 2, "refuse": 1})
    assert [each["expert_id"] for each in outcome["dissent"]] == [sitting[1]]
    # the panel advises: the department decides otherwise
    (await world.desk(item_id, "refuse", {"reason": "认定为同一类违法"})).ok()
    (await world.desk(item_id, "refer-to-experts", QUESTION)).ok()


async def test_who_judged_the_same_subject_before_is_not_drawn_again(world: World) -> None:
    company = await world.company(world.row(DESK), world.row(OTHER_DESK))
    application = (await world.submit(company)).ok()
    items = {item["authority_name"]: item["item_id"] for item in application["items"]}
    mine, other = (items[world.department(slug).name] for slug in (DESK, OTHER_DESK))
    first = (await world.desk(mine, "refer-to-experts", QUESTION)).ok()
    second = (await world.desk(other, "refer-to-experts", QUESTION, OTHER_DESK)).ok()
    assert not set(first["experts"]) & set(second["experts"])
    assert set(first["experts"]) <= set(second["excluded"])
