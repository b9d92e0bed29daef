"""Why a record may be repaired, asked of the running stack: by its subject over HTTP, by an operator with `xinfu rules explain`."""

import secrets
from datetime import UTC, date, datetime
from typing import Any

from e2e.people import World
from e2e.test_operations import xinfu

from contracts.errors import ProblemCode
from contracts.events import RecordPublished
from contracts.http.eligibility import Explanation
from contracts.records import RecordFacts, SubjectType
from contracts.topics import RECORDS
from support import eventually, message, produce

DAY = date(2026, 11, 24)
SAMR = "hz-samr"
# what was decided, when, under which law: the rows of the catalogue that hold, on the day of the application and of the decision
CASES: dict[str, tuple[dict[str, Any], str | None, list[str]]] = {
    "一般，新规则": ({"CF_CFLB": "罚款", "CF_JDRQ": "2026-05-06"}, None, ["2"]),
    "严重，规则变更前": ({"CF_CFLB": "吊销许可证", "CF_JDRQ": "2026-01-20"}, None, ["3", "5"]),
    "警告，规则变更前": ({"CF_CFLB": "警告", "CF_JDRQ": "2026-03-02"}, None, ["1", "7"]),
    "消防，规则变更前": (
        {"CF_CFLB": "罚款", "CF_JDRQ": "2026-02-28", "CF_YJ": "《消防法》第六十条"},
        None,
        ["2", "6"],
    ),
    "市场监管": ({"CF_CFLB": "罚款", "CF_JDRQ": "2026-05-31"}, SAMR, ["9"]),
    "食品": ({"CF_CFLB": "罚款", "CF_JDRQ": "2026-05-31", "CF_YJ": "《食品安全法》"}, SAMR, ["10"]),
}


async def test_six_records_are_explained_under_both_regimes(world: World) -> None:
    rows = [
        world.row(slug, **changes) if slug else world.row(**changes) for changes, slug, _ in CASES.values()
    ]
    company = await world.company(*rows)
    for record_id, (name, (_, _, rules)) in zip(company.ids, CASES.items(), strict=True):
        url = world.url("intake", f"/v1/subjects/me/records/{record_id}/repair?on={DAY}")
        told = Explanation.model_validate((await world.ask("GET", url, company.token)).ok())
        assert [regime.rule for regime in told.regimes] == rules, name
        ended = await xinfu(world, "rules", "explain", record_id, "--on", str(DAY))
        assert ended.status == 0, ended.text
        for regime in told.regimes:
            assert f"{regime.regime_text}（第 {regime.rule} 行）" in ended.text
            assert all(check.result_text in ended.text for check in regime.checks)
        assert company.name not in ended.text
        assert company.code not in ended.text


async def test_a_listing_told_on_the_bus_comes_first(world: World) -> None:
    row = world.row(SAMR, CF_CFLB="罚款", CF_JDRQ="2026-02-01")
    company = await world.company(row)
    (record_id,) = company.ids
    (known,) = await world.records(company)
    facts = RecordFacts.model_validate(
        {
            **known["facts"],
            "record_id": f"rec_{secrets.token_hex(16)}",
            "subject_type": SubjectType.LEGAL_PERSON,
            "category": "abnormal_operation_list",
            "document_number": f"杭市监异列〔2026〕{company.code[-6:]}号",
            "decided_on": date(2026, 6, 1),
        }
    )
    event = RecordPublished(
        record_id=facts.record_id, record=facts, published_at=datetime(2026, 6, 2, tzinfo=UTC)
    )
    await produce(world.stack, RECORDS.name, [message(event)])
    url = world.url("intake", f"/v1/subjects/me/records/{record_id}/repair?on={DAY}")

    async def comes_first() -> bool:
        return bool((await world.ask("GET", url, company.token)).ok()["first"] == [facts.record_id])

    await eventually(comes_first, 20)
    ended = await xinfu(world, "rules", "explain", record_id, "--on", str(DAY))
    assert f"应先办理：{facts.record_id}" in ended.text


async def test_bad_questions_about_rules(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    (record_id,) = company.ids

    def url(who: str, record: str, on: str = "") -> str:
        return world.url("intake", f"/v1/{who}/records/{record}/repair{on and f'?on={on}'}")

    (await world.ask("GET", url("subjects/me", record_id), stranger.token)).problem(ProblemCode.NOT_FOUND)
    (await world.ask("GET", url("operations", record_id), company.token)).problem(ProblemCode.FORBIDDEN)
    for day in ("2026-02-30", "tomorrow", "99999-01-01"):
        answer = await world.ask("GET", url("subjects/me", record_id, day), company.token)
        assert [error["field"] for error in answer.problem(ProblemCode.VALIDATION)["errors"]] == ["on"]
    # the ends of the calendar are days like others
    for day in ("0001-01-01", "9999-12-31"):
        (await world.ask("GET", url("subjects/me", record_id, day), company.token)).ok()
    ended = await xinfu(world, "rules", "explain", "rec_" + "0" * 32)
    assert (ended.status, "没有这条记录" in ended.text) == (1, True)
    ended = await xinfu(world, "rules", "explain", record_id, "--on", "2026-13-01")
    assert ended.status == 2
