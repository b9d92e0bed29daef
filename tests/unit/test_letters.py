"""Letters of items: every kind of every department and category can be written, printed and checked, whatever people type."""

import asyncio
import io
import re
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader
from pypdf.generic import ContentStream
from unit.review_samples import REQUESTED

from chassis.letter import Letter, LetterPress, Verification, as_html
from contracts.catalogue import CatalogueError, Department, load_catalogue
from contracts.http.intake import Subject
from contracts.identifiers import USCC_ALPHABET
from contracts.letters import (
    CODES,
    OF_ITEMS,
    LetterKind,
    fill,
    normalise_verification_code,
    verification_code,
)
from contracts.records import SubjectType
from dept_adapter.domain import Command, DecisionConflictError, Review, decide, receive
from dept_adapter.letters import NOT_NUMBERED, draft, kind_of, letter_id, masked, own_number, preview
from dept_adapter.states import Action, State

CATALOGUE = load_catalogue()
NOW = datetime(2026, 11, 25, 17, tzinfo=UTC)  # in China the 26th
SUBJECT = Subject(
    subject_id="sub_" + "2" * 32,
    subject_type=SubjectType.LEGAL_PERSON,
    code="91330100XD1234567A",
    name="杭州示例西湖科技有限公司",
)
PRESS = LetterPress()
VERIFICATION = Verification(
    code=verification_code(123456789**2), url="https://xinfu.example/v1/letters/40CN-GK3F-EJJ0-000P"
)


def review_at(department: Department, category: str, *, at_desk: bool = True) -> Review:
    asked = {"code": department.code, "slug": department.slug, "name": department.name}
    requested = REQUESTED.model_copy(
        update={
            "department": REQUESTED.department.model_copy(update=asked),
            "record": REQUESTED.record.model_copy(
                update={"category": category, "authority_name": department.name}
            ),
            "extend_working_days": 10,
        }
    )
    return receive(requested, at_desk=at_desk)


def step(action: Action, by: str = "officer", **more: Any) -> Command:
    return Command(action, by=by, from_desk=False, supplement_working_days=15, **more)


WAYS: dict[LetterKind, tuple[Command, ...]] = {
    LetterKind.ACCEPTED: (step(Action.ACCEPT),),
    LetterKind.NOT_ACCEPTED: (step(Action.NOT_ACCEPT, reason="材料不能证明罚款已经缴清"),),
    LetterKind.SUPPLEMENT: (step(Action.REQUEST_SUPPLEMENT, missing=("缴款凭证", "整改照片")),),
    LetterKind.EXTENDED: (step(Action.ACCEPT), step(Action.EXTEND, reason="需要现场核查")),
    LetterKind.GRANTED: (step(Action.GRANT, number="示信修〔2026〕1号"),),
    LetterKind.REFUSED: (step(Action.REFUSE, number="示不予信修〔2026〕2号", reason="罚款尚未缴清"),),
    LetterKind.REVOKED: (
        step(Action.GRANT, number="示信修〔2026〕1号"),
        step(Action.REVOKE, number="示撤销信修〔2026〕3号", reason="凭证系伪造"),
    ),
    LetterKind.WITHDRAWN: (step(Action.WITHDRAW, by="applicant"),),
    LetterKind.LAPSED: (
        step(Action.REQUEST_SUPPLEMENT, missing=("缴款凭证",)),
        step(Action.LAPSE, by="clock"),
    ),
    LetterKind.RECOGNISED: (
        step(
            Action.RECOGNISE,
            by="gsxt",
            number="浙信修〔2026〕9号",
            platform=("gsxt", "国家企业信用信息公示系统"),
            ended_on=date(2026, 11, 20),
        ),
    ),
}


def taken(review: Review, kind: LetterKind) -> Review:
    before = review
    for command in WAYS[kind]:
        before, review = review, decide(review, command, NOW).review
    assert kind_of(before.state, review.state, WAYS[kind][-1].by) is kind
    return review


def written(review: Review, kind: LetterKind, text: str | None = None) -> Letter:
    after = taken(review, kind)
    number = own_number(kind, after) or "示〔2026〕7号"
    return draft(kind, after, SUBJECT, text, number, NOW, CATALOGUE, VERIFICATION)


def empty_boxes(pdf: bytes) -> int:
    """How often the glyph 0 is set: what a character that the font does not have looks like."""
    reader, count = PdfReader(io.BytesIO(pdf)), 0
    for page in reader.pages:
        for operands, operator in ContentStream(page.get_contents(), reader).operations:
            if operator in (b"Tj", b"TJ"):
                values = operands[0] if operator == b"TJ" else operands
                shown = [each.original_bytes for each in values if hasattr(each, "original_bytes")]
                count += sum(each[at : at + 2] == b"\0\0" for each in shown for at in range(0, len(each), 2))
    return count


def test_every_kind_is_written_for_every_department_and_category_it_decides() -> None:
    assert set(WAYS) == OF_ITEMS
    distinct: dict[tuple[str, tuple[str, ...]], Letter] = {}
    for department in CATALOGUE.departments:
        for category in department.categories:
            for kind in OF_ITEMS:
                letter = written(review_at(department, category), kind)
                assert letter.issuer == department.name
                assert letter.dated == date(2026, 11, 26)
                assert letter.basis, (kind, category)
                said = " ".join((*letter.paragraphs, *letter.closing))
                assert "{" not in said
                assert NOT_NUMBERED not in said
                assert bool(letter.remedy) == (
                    kind in (LetterKind.NOT_ACCEPTED, LetterKind.REFUSED, LetterKind.REVOKED)
                )
                assert letter.number
                distinct.setdefault((letter.title, letter.basis), letter)
    for letter in distinct.values():
        assert empty_boxes(asyncio.run(PRESS.print(letter))) == 0, letter.title
    # a character that the font does not have is seen here
    odd = next(iter(distinct.values())).model_copy(update={"note": "☐"})
    assert empty_boxes(asyncio.run(PRESS.print(odd))) == 1


def test_ours_is_a_notice_where_the_departments_own_system_issues_letters() -> None:
    department = CATALOGUE.by_slug("hz-samr")
    assert department is not None
    assert department.issues_letters
    for kind in OF_ITEMS:
        notice = written(review_at(department, "abnormal_operation_list", at_desk=False), kind)
        assert notice.issuer == CATALOGUE.letters.operator.name
        assert notice.number is None
        assert "决定书" not in notice.title
        assert department.name in (notice.note or "")
        assert department.name in " ".join(notice.paragraphs)
        # what our desk decides for it has our letter
        own = written(review_at(department, "abnormal_operation_list"), kind)
        assert own.issuer == department.name


def test_the_most_exact_template_of_the_day_wins_and_rests_on_the_rules_of_that_day() -> None:
    letters = CATALOGUE.letters
    (general,) = [r for r in letters.templates if r.kind is LetterKind.GRANTED and not r.categories]
    rows = [
        general,
        general.model_copy(update={"categories": ("c",), "title": "category"}),
        general.model_copy(update={"departments": ("d",), "title": "department"}),
        general.model_copy(
            update={
                "departments": ("d",),
                "categories": ("c",),
                "title": "both",
                "effective_from": date(2026, 1, 1),
            }
        ),
    ]
    own = letters.model_copy(update={"templates": tuple(rows)})

    def title(department: str, category: str, on: date = date(2026, 5, 1)) -> str:
        return own.template(LetterKind.GRANTED, department, category, on).title

    assert [title("x", "x"), title("x", "c"), title("d", "x"), title("d", "c")] == [
        general.title,
        "category",
        "department",
        "both",
    ]
    assert title("d", "c", date(2025, 5, 1)) == "department"
    old, new = (
        letters.basis(LetterKind.GRANTED, "administrative_penalty", day)
        for day in (date(2026, 3, 31), date(2026, 4, 1))
    )
    assert any("58号" in each for each in old)
    assert not any("58号" in each for each in new)
    assert any("36号" in each and "第三条" in each for each in new)


LINES = st.text(max_size=120) | st.sampled_from(
    ['#import "x"', "{subject_name}", "{{7*7}}", "<script>alert(1)</script>", "$a$ *b* `c`", "\u202e反\x00"]
)


@settings(max_examples=8)
@given(text=st.lists(LINES, min_size=1, max_size=4).map("\n".join), kind=st.sampled_from(sorted(OF_ITEMS)))
def test_an_officers_words_are_words_and_nothing_else(text: str, kind: LetterKind) -> None:
    department = CATALOGUE.by_slug("hz-jyj")
    assert department is not None
    letter = written(review_at(department, "administrative_penalty"), kind, text)
    kept = [line for each in text.splitlines() if (line := each.strip())]
    for line in kept:
        assert any(paragraph.endswith(line) for paragraph in letter.paragraphs), line
    assert asyncio.run(PRESS.print(letter)) == asyncio.run(PRESS.print(letter))
    assert "<script" not in as_html(letter)


def test_a_preview_is_the_letter_of_the_step_and_a_step_that_is_not_allowed_has_none() -> None:
    department = CATALOGUE.by_slug("hz-jyj")
    assert department is not None
    review = review_at(department, "administrative_penalty")
    shown = preview(review, step(Action.GRANT, text="情况属实。"), SUBJECT, NOW, CATALOGUE)
    assert shown is not None
    assert shown.number == NOT_NUMBERED
    assert "情况属实。" in shown.paragraphs
    asked = preview(review, WAYS[LetterKind.SUPPLEMENT][0], SUBJECT, NOW, CATALOGUE)
    assert asked is not None
    assert "1. 缴款凭证" in asked.paragraphs
    assert "2026年12月17日" in " ".join(asked.closing)
    assert preview(review, step(Action.DELIVER), SUBJECT, NOW, CATALOGUE) is None
    with pytest.raises(DecisionConflictError):
        preview(
            replace(review, state=State.WITHDRAWN), step(Action.GRANT, number="x"), SUBJECT, NOW, CATALOGUE
        )


def test_what_nobody_may_read_is_masked() -> None:
    person = SUBJECT.model_copy(
        update={"subject_type": SubjectType.NATURAL_PERSON, "code": "330102199001011234", "name": "张三"}
    )
    department = CATALOGUE.by_slug("hz-jyj")
    assert department is not None
    after = taken(review_at(department, "administrative_penalty"), LetterKind.ACCEPTED)
    letter = draft(LetterKind.ACCEPTED, after, person, None, None, NOW, CATALOGUE)
    assert "19900101" not in letter.model_dump_json()
    assert [masked(name) for name in ("张三", "欧阳某某", "杭州示例西湖科技有限公司")] == [
        "张*",
        "欧***",
        "杭州***公司",
    ]


def test_a_letter_has_one_id_however_often_its_step_is_told() -> None:
    first = letter_id("itm_1", LetterKind.GRANTED, "1号")
    assert first == letter_id("itm_1", LetterKind.GRANTED, "1号")
    others = [
        letter_id("itm_2", LetterKind.GRANTED, "1号"),
        letter_id("itm_1", LetterKind.REVOKED, "1号"),
        letter_id("itm_1", LetterKind.GRANTED, "2号"),
    ]
    assert len({first, *others}) == 4


@given(number=st.integers(0, CODES - 1), place=st.integers(0, 15), data=st.data())
def test_a_code_typed_wrongly_is_told_from_a_code_that_does_not_exist(
    number: int, place: int, data: st.DataObject
) -> None:
    code = verification_code(number)
    assert normalise_verification_code(f" {code.lower().replace('-', ' ')} ") == code
    typed = code.replace("-", "")
    other = data.draw(st.sampled_from([char for char in USCC_ALPHABET if char != typed[place]]))
    with pytest.raises(ValueError, match="校验位"):
        normalise_verification_code(typed[:place] + other + typed[place + 1 :])
    if place < 15 and typed[place] != typed[place + 1]:
        swapped = typed[:place] + typed[place + 1] + typed[place] + typed[place + 2 :]
        with pytest.raises(ValueError, match="校验位"):
            normalise_verification_code(swapped)


def test_a_value_is_never_a_placeholder() -> None:
    assert fill("{a}{b}", {"a": "{b}", "b": "x"}) == "{b}x"
    assert re.fullmatch(r"([0-9A-Z]{4}-){3}[0-9A-Z]{4}", verification_code(CODES - 1))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{decide_due_on}前作出", "{due}前作出", ("第1行", "未知的占位符“{due}”", "decide_due_on")),
        ("{decide_due_on}前作出", "{decide_due_on前作出", ("第1行", "花括号")),
        ("kind: accepted", "kind: welcome", ("第1行", "kind")),
        ("categories: [abnormal_operation_list]\n    title", "categories: [none]\n    title", ("未知的记录类别“none”",)),
        ("remedy: review-and-suit", "remedy: prayer", ("未知的救济“prayer”",)),
        ("    title: 信用修复申请受理通知书", "    departments: [mars]\n    title: 信用修复申请受理通知书", ("mars", "缺少“accepted”的通用模板")),
        ("    effective_from: 2019-01-01\n    effective_to: null", "    effective_from: 2019-01-01\n    effective_to: 2020-01-01", ("accepted", "中断")),
        ("  - kind: not_accepted\n", "  - kind: accepted\n", ("重叠",)),
        ("  name: 杭州市信用中心\n", "", ("letters.yaml: operator",)),
        ("number_words: null", "number_words: 信修", ("决定的文号",)),
    ],
)  # fmt: skip
def test_a_wrong_template_stops_the_start_up_with_its_line(
    old: str, new: str, told: tuple[str, ...], tmp_path: Any
) -> None:
    shipped = Path(__file__).parents[2] / "contracts" / "catalogue"
    directory = shutil.copytree(shipped, tmp_path / "catalogue")
    text = (directory / "letters.yaml").read_text(encoding="utf-8")
    assert old in text
    (directory / "letters.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CatalogueError) as error:
        load_catalogue(directory)
    for words in told:
        assert words in str(error.value), str(error.value)
