"""The guide: numbers as in the catalogue, every record of a subject once, and words that stay words in pages and pictures."""

import asyncio
import hashlib
import io
import re
from base64 import b64encode
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader
from pypdf.generic import ContentStream
from unit.record_samples import CATALOGUE, NOW, TODAY, record

from chassis.problems import Problem
from contracts.catalogue import Catalogue, Evidence, Rule
from contracts.errors import ProblemCode
from contracts.http.eligibility import RepairStatus, Transition
from contracts.http.guide import CategoryGuide, GuideStep, RecordGroup, StepKind, SubjectGuide
from intake.domain.record import Record
from intake.eligibility import assess
from intake.explanation import explain
from intake.guide import category_guide, overview, subject_guide
from intake.guide_api import GuideFormat, negotiated
from intake.guide_page import HEADERS, category_page, overview_page, subject_page
from intake.guide_picture import Painter, Picture, category_picture, overview_picture, subject_picture

CATEGORIES = [category.id for category in CATALOGUE.categories]
SAMR, PENALTY = "samr_administrative_penalty", "administrative_penalty"
# before any rule, each regime, the day before and the day of the change, today, far away
DAYS = [date(2010, 1, 1), date(2020, 6, 1), date(2026, 3, 31), date(2026, 4, 1), TODAY, date(9999, 12, 31)]
NASTY = '#import "x": * $1/0$ [a] \\ *b* _c_ `d` <script>alert(1)</script> {{ 7*7 }} & "q"'


def guide_of(
    category: str,
    on: date = TODAY,
    catalogue: Catalogue = CATALOGUE,
    transition: Transition = Transition.EITHER,
) -> CategoryGuide:
    """The guide of a category by its id."""
    found = catalogue.category(category)
    assert found is not None
    return category_guide(catalogue, found, on, transition)


def changed(number: str, **changes: Any) -> Catalogue:
    """The catalogue with one rule changed."""
    rules = [r.model_copy(update=changes) if r.number == number else r for r in CATALOGUE.rules]
    return CATALOGUE.model_copy(update={"rules": tuple(rules)})


def drawn(picture: Picture, form: Any = "pdf") -> bytes:
    """A picture by a painter of its own."""
    return asyncio.run(Painter(1).draw(picture, form))


def words_of(pdf: bytes) -> str:
    """The text of the one page, without spaces: typst sets them between scripts."""
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return re.sub(r"[\s\u200b]", "", page.extract_text())


def step(steps: list[GuideStep], kind: StepKind) -> GuideStep | None:
    """The step of this kind."""
    return next((each for each in steps if each.kind is kind), None)


# --- categories


@pytest.mark.parametrize("on", DAYS, ids=str)
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_rule_in_force_is_told_once_with_its_own_numbers(category: str, on: date) -> None:
    guide = guide_of(category, on)
    rules = {r.number: r for r in CATALOGUE.rules if r.category == category and r.in_force(on)}
    told = [(way, period) for way in guide.ways for period in way.periods]
    assert sorted(period.rule for _, period in told) == sorted(rules)
    for way, period in told:
        rule = rules[period.rule]
        assert period.min_publication_months == rule.min_publication_months
        assert period.max_publication_months == rule.max_publication_months
        assert (way.repair, way.decided_by, way.materials) == (
            rule.repair,
            rule.decided_by,
            [*rule.materials],
        )
        assert way.total_working_days == rule.total_working_days
        assert [each.name for each in way.conditions] == [c.name for c in CATALOGUE.conditions_of(rule)]
        check_steps(rule, way.steps)
        field = "min_publication_months" if rule.repair == "on_application" else "repair"
        assert period.min_basis.evidence is rule.grade(field)
        assert period.min_basis.binding is rule.grade(field).binding
        months = rule.min_publication_months
        if rule.repair == "on_application" and months:
            assert period.min_text == f"满 {months} 个月后可以申请"
    assert guide.summary
    assert guide.offices_text
    offices = {d.slug for d in CATALOGUE.departments if category in d.categories and d.in_force(on)}
    assert {each.slug for each in guide.offices} == offices


def check_steps(rule: Rule, steps: list[GuideStep]) -> None:
    """The steps have the numbers of the rule and of its targets, and all of these targets."""
    accept, decide = step(steps, StepKind.ACCEPT), step(steps, StepKind.DECIDE)
    if rule.repair in ("on_application", "referred"):
        assert (accept.working_days if accept else None) == rule.accept_working_days
        assert decide is not None
        assert decide.working_days == rule.decide_working_days
        assert decide.extend_working_days == rule.extend_working_days
        for limit in decide.limits:
            assert limit.working_days is None or str(limit.working_days) in limit.text
        assert decide.limits[0].basis.evidence is rule.grade("decide_working_days")
    else:
        assert (accept, decide) == (None, None)
    platforms = [platform for each in steps for platform in each.platforms]
    assert {platform.target_id for platform in platforms} == set(rule.targets)
    for platform in platforms:
        target = CATALOGUE.target(platform.target_id)
        assert target is not None
        ours = rule.repair == "on_application"
        assert platform.working_days == (target.time_limit_working_days if ours else None)


def test_a_changed_row_changes_the_guide_and_only_its_own() -> None:
    catalogue = changed("2", min_publication_months=4, decide_working_days=8, materials=("甲",))
    before, after = guide_of(PENALTY), guide_of(PENALTY, catalogue=catalogue)
    assert "满 4 个月" in after.summary
    assert "满 4 个月" not in before.summary
    # it no longer goes the same way as its neighbours
    assert (len(before.ways), len(after.ways)) == (1, 2)
    (own,) = [way for way in after.ways if way.materials == ["甲"]]
    assert [period.rule for period in own.periods] == ["2"]
    assert guide_of(SAMR, catalogue=catalogue) == guide_of(SAMR)


def test_a_weak_number_is_marked_and_a_binding_one_is_not() -> None:
    weak = changed("2", evidence_of={"min_publication_months": Evidence.MEMORY})
    for catalogue, binding in ((CATALOGUE, True), (weak, False)):
        guide = guide_of(PENALTY, catalogue=catalogue)
        (period,) = [p for way in guide.ways for p in way.periods if p.rule == "2"]
        assert period.min_basis.binding is binding
        assert ("仅供参考" in period.min_basis.evidence_text) is not binding
        line = overview(catalogue, TODAY).categories[0]
        assert line.binding is binding


def test_earlier_rules_are_told_as_long_as_a_record_under_them_may_be_shown() -> None:
    def earlier(on: date, transition: Transition = Transition.EITHER) -> set[str]:
        return {each.rule for each in guide_of(PENALTY, on, transition=transition).earlier}

    assert earlier(date(2026, 3, 31)) == {"22a", "22b"}
    assert earlier(TODAY) == {"5", "6", "7"}
    # 58号令 ended on 2026-03-31, at most 36 months of publication; row 7 names no end
    assert earlier(date(2029, 3, 30)) == {"5", "6", "7"}
    assert earlier(date(2029, 3, 31)) == {"7"}
    assert earlier(TODAY, Transition.APPLICATION_DAY) == set()
    assert guide_of(PENALTY, date(2026, 3, 31)).next_change_on == date(2026, 4, 1)


# --- a subject's records

records = st.lists(
    st.fixed_dictionaries(
        {
            "decided_on": st.dates(date(2019, 1, 1), date(2028, 1, 1)),
            "category": st.sampled_from([*CATEGORIES, "no_such_category"]),
            "tier": st.sampled_from(["minor", "general", "serious", None]),
            "penalty_kinds": st.sampled_from(["罚款", "警告", "某种处罚", ""]),
            "authority_code": st.sampled_from([None, "11330100XF00000033", "nonsense"]),
            "subject_type": st.sampled_from(["legal_person", "natural_person"]),
            "state": st.sampled_from(
                [
                    {},
                    {},
                    {"application_id": "app_" + "1" * 32},
                    {"repaired_at": NOW},
                    {"repaired_at": NOW, "revoked_at": NOW},
                    {"status": "withdrawn", "withdrawn_at": NOW},
                ]
            ),
        }
    ),
    max_size=8,
)


def subject_records(rows: list[dict[str, Any]]) -> list[Record]:
    """A record of each."""
    return [
        record(
            record_id=f"rec_{number:032d}",
            document_number=f"杭罚〔2026〕{number}号",
            **{name: value for name, value in row.items() if name != "state"},
            **row["state"],
        )
        for number, row in enumerate(rows)
    ]


def guide_for(
    own: list[Record], on: date = TODAY, transition: Transition = Transition.EITHER, name: str = "甲"
) -> SubjectGuide:
    """The guide of a subject with these records."""
    return subject_guide(name, own, CATALOGUE, on, transition)


@settings(max_examples=60)
@given(records, st.dates(date(2019, 1, 1), date(2032, 1, 1)), st.sampled_from(Transition))
def test_every_record_is_in_exactly_one_group_and_the_right_one(
    rows: list[dict[str, Any]], on: date, transition: Transition
) -> None:
    own = subject_records(rows)
    guide = guide_for(own, on, transition)
    told = [(group.group, each) for group in guide.groups for each in group.records]
    assert sorted(each.record_id for _, each in told) == sorted(each.record_id for each in own)
    by_id = {each.record_id: each for each in own}
    for group, each in told:
        repair = assess(by_id[each.record_id], CATALOGUE, on, transition)
        assert each.repair == repair
        first = explain(by_id[each.record_id], own, CATALOGUE, on, transition).first
        may = group in (RecordGroup.TODAY, RecordGroup.FIRST_ANOTHER, RecordGroup.ADVISED)
        assert may is repair.status.may_apply
        assert (group is RecordGroup.FIRST_ANOTHER) is bool(first and repair.status.may_apply)
        assert (group is RecordGroup.TODAY) <= (repair.status is RepairStatus.REPAIRABLE)
        # nobody is sent away by evidence that only advises
        if group in (RecordGroup.NOT_YET, RecordGroup.ENDED):
            assert each.basis is not None
            assert each.basis.binding
        assert each.ask
        assert each.when_text
        if by_id[each.record_id].facts.subject_type == "natural_person":
            assert not any(step.kind is StepKind.VENDORS for step in each.steps)
    waiting = [each for group, each in told if group is RecordGroup.NOT_YET]
    days = [each.repair.from_ or each.repair.until or date.max for each in waiting]
    assert days == sorted(days)
    # no representation fails, whatever there is
    assert "None" not in subject_page(guide)


def test_the_listing_comes_before_the_penalty() -> None:
    listing, penalty = subject_records(
        [
            {"category": "abnormal_operation_list", "decided_on": date(2026, 6, 1), "state": {}},
            {"category": SAMR, "decided_on": date(2026, 2, 1), "tier": None, "state": {}},
        ]
    )
    guide = guide_for([penalty, listing])
    assert {g.group: [r.record_id for r in g.records] for g in guide.groups} == {
        RecordGroup.TODAY: [listing.record_id],
        RecordGroup.FIRST_ANOTHER: [penalty.record_id],
    }
    (waiting,) = guide.groups[1].records
    assert [each.document_number for each in waiting.first] == [listing.facts.document_number]
    assert set(guide.materials) >= {"信用修复申请书", "守信承诺书"}
    # told about one only, the other is still known
    guide = subject_guide("甲", [penalty, listing], CATALOGUE, TODAY, Transition.EITHER, shown=1)
    assert (guide.complete, guide.groups[0].group) == (False, RecordGroup.FIRST_ANOTHER)


def test_what_has_to_wait_is_in_the_order_of_the_days() -> None:
    later, sooner = subject_records(
        [
            {
                "category": PENALTY,
                "decided_on": date(2026, 5, 1),
                "tier": "serious",
                "penalty_kinds": "责令关闭",
                "state": {},
            },
            {"category": PENALTY, "decided_on": date(2026, 11, 1), "tier": "general", "state": {}},
        ]
    )
    (group,) = guide_for([later, sooner]).groups
    assert [(each.record_id, each.when_text) for each in group.records] == [
        (sooner.record_id, "2027年2月1日起可以申请"),
        (later.record_id, "2027年5月1日起可以申请"),
    ]


# --- pages and pictures


class Reader(HTMLParser):
    """What a browser would see: elements, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "style")
            assert not (name == "href" and re.match(r"[a-z]+:|//", value or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_stay_names_in_page_and_picture() -> None:
    own = [record(document_number=NASTY, authority_name=NASTY, authority_code=None, penalty_kinds=NASTY)]
    guide = guide_for(own, name=NASTY)
    page = Reader(subject_page(guide))
    assert page.text.count(NASTY) >= 4
    assert not {"script", "img", "iframe", "link"} & set(page.tags)
    seen = words_of(drawn(subject_picture(guide)))
    assert seen.count(re.sub(r"\s", "", NASTY)) >= 2
    catalogue = changed("2", note=NASTY, materials=(NASTY,), decided_by=NASTY, source=NASTY)
    guide_with = guide_of(PENALTY, catalogue=catalogue)
    assert re.sub(r"\s", "", NASTY) in words_of(drawn(category_picture(guide_with)))
    assert "script" not in Reader(category_page(guide_with, None)).tags


@pytest.mark.parametrize("on", [date(2020, 6, 1), date(2026, 3, 31), TODAY], ids=str)
def test_every_category_is_drawn_on_one_page_with_its_numbers(on: date) -> None:
    painter = Painter(1)
    for category in CATEGORIES:
        guide = guide_of(category, on)
        picture = category_picture(guide)
        text = words_of(asyncio.run(painter.draw(picture, "pdf")))
        # a source is listed at the foot because something above names its number
        assert [s["number"] for s in picture.data["sources"] if text.count(f"[{s['number']}]") < 2] == []
        assert guide.name in text
        assert "不是法律意见" in text
        assert not re.search(r"None|null|true|false", text)
        for way in guide.ways:
            shown = [p.min_text for p in way.periods] + [each.text for s in way.steps for each in s.limits]
            for words in [*shown, *way.materials, *(each.name for each in way.conditions)]:
                assert re.sub(r"\s", "", words) in text, (category, words)
        page = Reader(category_page(guide, on))
        assert page.tags.count("h1") == 1
        assert all(period.min_text in page.text for way in guide.ways for period in way.periods)
    everything = overview(CATALOGUE, on)
    text = words_of(asyncio.run(painter.draw(overview_picture(everything), "pdf")))
    page = Reader(overview_page(everything, on))
    for line in everything.categories:
        assert line.name in text
        assert line.name in page.text


def test_a_drawing_needs_no_font_of_the_machine_that_shows_it() -> None:
    svg = drawn(category_picture(guide_of(PENALTY)), "svg").decode()
    assert svg.startswith("<svg")
    assert "<text" not in svg
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]+"', "", svg)
    assert svg.count("<use") > 500


def empty_boxes(pdf: bytes) -> int:
    """How often the glyph 0 is set: what a character that the font does not have looks like."""
    reader = PdfReader(io.BytesIO(pdf))
    (page,) = reader.pages
    shown: list[bytes] = []
    for operands, operator in ContentStream(page.get_contents(), reader).operations:
        if operator in (b"Tj", b"TJ"):
            values = operands[0] if operator == b"TJ" else operands
            shown += [each.original_bytes for each in values if hasattr(each, "original_bytes")]
    codes = [each[at : at + 2] for each in shown for at in range(0, len(each), 2)]
    assert len(codes) > 100
    return codes.count(b"\0\0")


def test_every_character_of_every_picture_has_a_glyph() -> None:
    own = subject_records(
        [{"category": each, "decided_on": date(2026, 3, 2), "state": {}} for each in CATEGORIES]
    )
    pictures = [category_picture(guide_of(each)) for each in CATEGORIES]
    pictures += [overview_picture(overview(CATALOGUE, TODAY)), subject_picture(guide_for(own))]
    for picture in pictures:
        assert empty_boxes(drawn(picture)) == 0, picture.data["title"]
    # a character that the font does not have is seen here
    assert empty_boxes(drawn(subject_picture(guide_for([record(document_number="☐")])))) == 1


def test_pictures_are_kept_but_never_those_of_a_subject() -> None:
    async def run() -> None:
        painter = Painter(2)
        guide = guide_of(PENALTY)
        first = await painter.draw(category_picture(guide), "svg")
        assert await painter.draw(category_picture(guide), "svg") is first
        other = await painter.draw(category_picture(guide_of(PENALTY, date(2026, 3, 31))), "svg")
        assert other != first
        mine, yours = (guide_for([record()], name=name) for name in ("甲公司", "乙公司"))
        drawings = [await painter.draw(subject_picture(each), "svg") for each in (mine, yours)]
        assert drawings[0] != drawings[1]
        for number in range(60):
            on = date.fromordinal(TODAY.toordinal() + number)
            await painter.draw(category_picture(guide_of("judgment_defaulter", on)), "svg")
        assert len(painter._kept) <= 24
        # two at once, one more is refused; afterwards there is room again
        pictures = [category_picture(guide_of(SAMR, date(2024, 1, day))) for day in range(1, 6)]
        answers = await asyncio.gather(*(painter.draw(p, "pdf") for p in pictures), return_exceptions=True)
        refused = [each for each in answers if isinstance(each, Problem)]
        assert (len(refused), {each.code for each in refused}) == (3, {ProblemCode.BUSY})
        assert (await painter.draw(pictures[4], "pdf")).startswith(b"%PDF")

    asyncio.run(run())


def test_the_policy_names_the_style_of_the_page() -> None:
    page = overview_page(overview(CATALOGUE, TODAY), None)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "html"),
        ("application/pdf;q=0.2, image/svg+xml;q=0.9", "svg"),
        ("text/html;q=0, application/pdf", "pdf"),
        ("text/html;q=nonsense, ;;,", "json"),
    ],
)
def test_accept_is_understood(accept: str | None, form: str) -> None:
    assert negotiated(accept) is GuideFormat(form)
