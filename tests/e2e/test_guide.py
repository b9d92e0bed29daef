"""The guide asked of the running stack: by anybody, by a subject for its own records, and with `xinfu guide`."""

import io
import secrets
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from e2e.people import DESK, World
from e2e.test_operations import xinfu
from pypdf import PdfReader

from contracts.errors import ProblemCode
from contracts.events import RecordPublished
from contracts.http.guide import CategoryGuide, GuideOverview, RecordGroup, SubjectGuide
from contracts.records import RecordFacts, SubjectType
from contracts.topics import RECORDS
from support import eventually, message, produce

DAY = date(2026, 11, 24)
SAMR = "hz-samr"


async def fetched(
    world: World, path: str, token: str | None = None, accept: str = "*/*"
) -> tuple[str, bytes]:
    """Media type and bytes of a good answer."""
    headers = {"accept": accept, **({"authorization": f"Bearer {token}"} if token else {})}
    async with world.http.get(world.url("intake", path), headers=headers) as response:
        body = await response.read()
        assert response.status == 200, body
        assert "filename=" in response.headers["content-disposition"]
        shared = response.headers["cache-control"].startswith("public")
        assert shared is (token is None)
        return response.content_type, body


def pdf_text(data: bytes) -> str:
    (page,) = PdfReader(io.BytesIO(data)).pages
    return "".join(page.extract_text().split())


async def test_anybody_reads_the_guide_of_every_category_in_every_form(world: World) -> None:
    media, body = await fetched(world, f"/v1/guide?on={DAY}")
    whole = GuideOverview.model_validate_json(body)
    assert media == "application/json"
    assert [each.category for each in whole.categories] == [c.id for c in world.catalogue.categories]
    for line in whole.categories:
        path = f"/v1/guide/{line.category}?on={DAY}"
        guide = CategoryGuide.model_validate_json((await fetched(world, path))[1])
        assert guide.summary == line.summary
        media, page = await fetched(world, path, accept="text/html,*/*;q=0.1")
        assert (media, '<html lang="zh-CN">' in page.decode(), line.name in page.decode()) == (
            "text/html",
            True,
            True,
        )
        media, picture = await fetched(world, f"{path}&format=svg")
        assert (media, picture[:4]) == ("image/svg+xml", b"<svg")
        media, document = await fetched(world, f"{path}&format=pdf")
        assert media == "application/pdf"
        for way in guide.ways:
            for words in [period.min_text for period in way.periods] + way.materials:
                assert "".join(words.split()) in pdf_text(document)
    # the day matters
    for on, months in (("2026-03-31", 36), ("2026-04-01", 3)):
        guide = CategoryGuide.model_validate_json(
            (await fetched(world, f"/v1/guide/administrative_penalty?on={on}"))[1]
        )
        assert guide.ways[0].periods[0].max_publication_months == months


async def test_bad_questions_about_the_guide(world: World) -> None:
    url = world.url("intake", "/v1/guide")
    problem = (await world.ask("GET", f"{url}/no_such")).problem(
        ProblemCode.NOT_FOUND, "administrative_penalty"
    )
    assert problem["categories"] == [c.id for c in world.catalogue.categories]
    for query, field, words in (("format=docx", "format", "pdf"), ("on=2026-02-30", "on", "")):
        problem = (await world.ask("GET", f"{url}?{query}")).problem(ProblemCode.VALIDATION)
        assert [error["field"] for error in problem["errors"]] == [field]
        assert words in problem["errors"][0]["reason"]
    for day in ("0001-01-01", "9999-12-31"):
        for category in ("", "/administrative_penalty"):
            for form in ("json", "html", "svg", "pdf"):
                await fetched(world, f"/v1/guide{category}?on={day}&format={form}")
    mine = world.url("intake", "/v1/subjects/me/guide")
    (await world.ask("GET", mine)).problem(ProblemCode.UNAUTHENTICATED)
    (await world.ask("GET", mine, await world.ops())).problem(ProblemCode.FORBIDDEN)


async def test_a_company_sees_what_it_can_do_today(world: World) -> None:
    company = await world.company(
        world.row(DESK, CF_CFLB="罚款", CF_JDRQ="2026-05-06"),
        world.row(DESK, CF_CFLB="罚款", CF_JDRQ="2026-11-02"),
        world.row(DESK, CF_CFLB="吊销许可证", CF_JDRQ="2026-01-20"),
        world.row(SAMR, CF_CFLB="罚款", CF_JDRQ="2026-02-01"),
    )
    ready, waiting, advised, penalty = company.ids
    samr = next(r for r in await world.records(company) if r["record_id"] == penalty)
    listing = RecordFacts.model_validate(
        {
            **samr["facts"],
            "record_id": f"rec_{secrets.token_hex(16)}",
            "subject_type": SubjectType.LEGAL_PERSON,
            "category": "abnormal_operation_list",
            "document_number": f"杭市监异列〔2026〕{company.code[-6:]}号",
            "decided_on": date(2026, 6, 1),
        }
    )
    event = RecordPublished(
        record_id=listing.record_id, record=listing, published_at=datetime(2026, 6, 2, tzinfo=UTC)
    )
    await produce(world.stack, RECORDS.name, [message(event)])
    path = f"/v1/subjects/me/guide?on={DAY}"

    async def told() -> dict[str, RecordGroup]:
        guide = SubjectGuide.model_validate_json((await fetched(world, path, company.token))[1])
        return {each.record_id: group.group for group in guide.groups for each in group.records}

    async def all_told() -> bool:
        return listing.record_id in await told()

    await eventually(all_told, 20)
    assert await told() == {
        ready: RecordGroup.TODAY,
        listing.record_id: RecordGroup.TODAY,
        penalty: RecordGroup.FIRST_ANOTHER,
        advised: RecordGroup.ADVISED,
        waiting: RecordGroup.NOT_YET,
    }
    _, page = await fetched(world, path, company.token, accept="text/html")
    document = pdf_text((await fetched(world, f"{path}&format=pdf", company.token))[1])
    for words in (company.name, "今天可以申请", "先办另一条，再办这一条", listing.document_number):
        assert words in page.decode()
        assert words in document
    # nobody else's
    stranger = await world.company()
    _, other = await fetched(world, f"{path}&format=svg", stranger.token)
    _, own = await fetched(world, f"{path}&format=svg", company.token)
    assert other != own
    assert company.name not in (await fetched(world, path, stranger.token))[1].decode()
    # filed: under way, no longer to be done
    (await world.submit(company, world.body([ready]))).ok()
    assert (await told())[ready] is RecordGroup.UNDER_APPLICATION


async def test_the_command_writes_a_file(world: World, tmp_path: Path) -> None:
    for arguments, start in (
        (["administrative_penalty", "--format", "pdf"], b"%PDF"),
        (["--format", "svg", "--on", "2026-03-31"], b"<svg"),
        (["serious_dishonesty_list", "--format", "html"], b"<!doctype html>"),
    ):
        file = tmp_path / "guide"
        ended = await xinfu(world, "guide", *arguments, "--out", str(file))
        assert ended.status == 0, ended.text
        assert file.read_bytes().lower().startswith(start.lower())
    ended = await xinfu(world, "guide", "no_such", "--out", str(tmp_path / "none"))
    assert (ended.status, "没有这个类别" in ended.text) == (1, True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(AssertionError):
        await fetched(world, "/v1/guide/no_such")
