"""The import of 双公示 CSV files: what is taken, what is refused and why, and on which line."""

import csv
import io
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.problems import Problem
from contracts.catalogue import load_catalogue
from contracts.errors import ProblemCode
from contracts.events import RecordPublished
from contracts.identifiers import id_check_character, uscc_check_character
from contracts.penalty_feed import COLUMNS
from contracts.records import IN_PERSON, SubjectType
from intake.csv_import import (
    Accepted,
    BadHeaderError,
    Rejected,
    RowChecker,
    RowReader,
    parse_date,
    read_header,
)
from intake.domain.record import Display, publish
from intake.domain.subject import subject_id
from intake.importing import detect_encoding, imported, open_csv
from intake.in_person import check as check_words
from xinfu import sample

CATALOGUE = load_catalogue()
KEY = b"k" * 32
TODAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
_BODY = "91330100XD0000001"
GOOD = dict.fromkeys(COLUMNS, "") | {
    "CF_XDR_MC": "杭州示例科技有限公司",
    "CF_XDR_LB": "法人及非法人组织",
    "CF_XDR_SHXYM": _BODY + uscc_check_character(_BODY),
    "CF_WSH": "杭教罚[2026] 12",
    "CF_YJ": "《教育法》第一条",
    "CF_CFLB": "罚款",
    "CF_NR_FK": "0.500000",
    "CF_JDRQ": "2026-08-31",
    "CF_CFJG": "杭州市教育局",
    "CF_CFJGDM": "11330100XF00000033",
}
_PERSON_BODY = "33010619900101123"
PERSON = {
    "CF_XDR_LB": "自然人",
    "CF_XDR_SHXYM": "",
    "CF_XDR_ZJLX": "身份证",
    "CF_XDR_ZJHM": _PERSON_BODY + id_check_character(_PERSON_BODY),
}


def text_of(*rows: dict[str, str]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows({**GOOD, **row} for row in rows)
    return out.getvalue()


def check(text: str) -> list[Accepted | Rejected]:
    rows = RowReader(io.StringIO(text, newline=""))
    checker = RowChecker(read_header(rows), CATALOGUE, KEY, TODAY)
    return [checker.check(raw) for raw in rows]


def one(**changes: str) -> Accepted | Rejected:
    (result,) = check(text_of(changes))
    return result


def good(**changes: str) -> Accepted:
    result = one(**changes)
    assert isinstance(result, Accepted), result
    return result


def reasons(**changes: str) -> list[str]:
    result = one(**changes)
    assert isinstance(result, Rejected), result
    return result.reasons


# --- a good row ------------------------------------------------------------------------------------------


def test_a_good_row_becomes_a_record_of_a_pseudonymous_subject() -> None:
    row = good()
    assert row.facts.document_number == "杭教罚〔2026〕12号"
    assert (row.facts.category, row.facts.tier) == ("administrative_penalty", "general")
    assert row.facts.decided_on == date(2026, 8, 31)
    assert row.facts.subject_id == subject_id(KEY, SubjectType.LEGAL_PERSON, GOOD["CF_XDR_SHXYM"])
    assert row.subject.code == GOOD["CF_XDR_SHXYM"]
    assert row.display.fine_wan_yuan == Decimal("0.5")
    samr = next(d for d in CATALOGUE.departments if "samr_administrative_penalty" in d.categories)
    penalty = good(CF_CFJG=samr.name, CF_CFJGDM=samr.code)
    assert penalty.facts.category == "samr_administrative_penalty"


def test_no_personal_code_is_in_what_is_published_of_a_natural_person() -> None:
    row = good(**PERSON, CF_FRDB="李四", CF_FR_ZJHM="330106199001011236")
    published = row.facts.model_dump_json() + row.display.model_dump_json()
    assert row.subject.code == PERSON["CF_XDR_ZJHM"]
    for secret in (PERSON["CF_XDR_ZJHM"], "330106199001011236", "李四"):
        assert secret not in published
    # nor can the record id be found by trying all ID numbers without the key
    other = RowChecker(list(COLUMNS), CATALOGUE, b"l" * 32, TODAY)
    rows = RowReader(io.StringIO(text_of(PERSON), newline=""))
    next(rows)
    again = other.check(next(rows))
    assert isinstance(again, Accepted)
    assert again.facts.record_id != row.facts.record_id


def test_nothing_that_a_row_says_is_kept_of_what_goes_by_no_system() -> None:
    usual = good(CF_SY="事由", CF_NR="内容")
    marked = good(CF_SY="事由", CF_NR="内容", BZ="依法不经平台办理")
    assert (marked.facts.record_id, marked.facts.in_person) == (usual.facts.record_id, True)
    said = marked.facts.model_dump_json() + marked.display.model_dump_json()
    for word in (usual.facts.document_number, "罚款", "事由", "内容", "教育法", "0.5"):
        assert word not in said
    # it had gone by system before: what was shown of it goes too, whoever tells
    before = imported(None, usual, NOW)
    later = {"record_id": before.record_id, "record": marked.facts, "published_at": NOW + timedelta(days=1)}
    for after in (imported(before, marked, NOW), publish(before, RecordPublished.model_validate(later))):
        assert after.display == Display()
        assert after.facts == marked.facts
    records = [before.facts, marked.facts]
    for words, materials in (("说明", []), (IN_PERSON, ["mat_" + "0" * 32])):
        with pytest.raises(Problem, match="当面"):
            check_words([marked.facts], words, materials)
    with pytest.raises(Problem, match="分开申请"):
        check_words(records, IN_PERSON, [])
    check_words([marked.facts], IN_PERSON, [])
    check_words([before.facts], "说明", ["mat_" + "0" * 32])


def test_spelling_does_not_make_another_record() -> None:
    row = good()
    spellings = [
        {"CF_WSH": "杭教罚（２０２６）１２号"},
        {"CF_XDR_SHXYM": f" {GOOD['CF_XDR_SHXYM'].lower()} "},
        {"CF_JDRQ": "2026年8月31日"},
        {"CF_JDRQ": "20260831"},
    ]
    for spelling in spellings:
        assert good(**spelling).content_hash == row.content_hash
        assert good(**spelling).facts.record_id == row.facts.record_id
    assert good(CF_NR_FK="0.6").content_hash != row.content_hash
    assert good(CF_XDR_MC="杭州示例改名有限公司").facts.record_id == row.facts.record_id


def test_an_authority_without_code_is_the_same_as_with_the_code_its_name_has() -> None:
    assert good(CF_CFJGDM="").facts.record_id == good().facts.record_id
    assert good(CF_CFJGDM="").facts.authority_code is None
    assert good(CF_CFJGDM="", CF_CFJG="某某市某局").facts.authority_name == "某某市某局"


# --- bad rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"CF_XDR_MC": " 　"}, "CF_XDR_MC"),
        ({"CF_XDR_MC": "名" * 201}, "CF_XDR_MC"),
        ({"CF_XDR_LB": "其他"}, "CF_XDR_LB"),
        ({"CF_XDR_SHXYM": GOOD["CF_XDR_SHXYM"][:17] + "I"}, "CF_XDR_SHXYM"),
        ({"CF_XDR_SHXYM": ""}, "CF_XDR_SHXYM"),
        ({**PERSON, "CF_XDR_ZJHM": "330106199002301231"}, "CF_XDR_ZJHM"),
        ({**PERSON, "CF_XDR_ZJLX": "护照"}, "CF_XDR_ZJLX"),
        ({"CF_WSH": ""}, "CF_WSH"),
        ({"CF_WSH": "1" * 200}, "CF_WSH"),
        ({"CF_JDRQ": ""}, "CF_JDRQ"),
        ({"CF_JDRQ": "2026-02-30"}, "CF_JDRQ"),
        ({"CF_JDRQ": "2026-11-24"}, "CF_JDRQ"),
        ({"CF_JDRQ": "0026-08-31"}, "CF_JDRQ"),
        ({"CF_JDRQ": "31/08/2026"}, "CF_JDRQ"),
        ({"CF_YXQ": "永久"}, "CF_YXQ"),
        ({"CF_NR_FK": "-1"}, "CF_NR_FK"),
        ({"CF_NR_FK": "1,000"}, "CF_NR_FK"),
        ({"CF_NR_FK": "0.1234567"}, "CF_NR_FK"),
        ({"CF_NR_WFFF": "NaN"}, "CF_NR_WFFF"),
        ({"CF_CFJG": ""}, "CF_CFJG"),
        ({"CF_CFJG": "\u200b\U00018cd6", "CF_CFJGDM": ""}, "CF_CFJG"),
        ({"CF_CFJGDM": "11330100XF00000034"}, "CF_CFJGDM"),
        ({"CF_CFLB": "罚" * 201}, "CF_CFLB"),
    ],
)
def test_a_fault_is_named_with_its_column(changes: dict[str, str], column: str) -> None:
    (reason,) = reasons(**changes)
    assert reason.startswith(f"{column}：")


def test_all_faults_of_a_row_are_told_and_no_id_number() -> None:
    wrong = PERSON["CF_XDR_ZJHM"][:17] + ("1" if PERSON["CF_XDR_ZJHM"][17] != "1" else "2")
    bad = {**PERSON, "CF_XDR_ZJHM": wrong, "CF_WSH": "无", "CF_JDRQ": "昨天", "CF_NR_FK": "x"}
    told = reasons(**bad)
    assert [reason.split("：")[0] for reason in told] == ["CF_XDR_ZJHM", "CF_WSH", "CF_JDRQ", "CF_NR_FK"]
    assert not any(wrong in reason for reason in told)


@given(st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=40)))
def test_no_cell_makes_the_check_fail(cells: dict[str, str]) -> None:
    checker = RowChecker(list(COLUMNS), CATALOGUE, KEY, TODAY)
    rows = RowReader(io.StringIO(text_of({k: v.replace("\0", "") for k, v in cells.items()}), newline=""))
    next(rows)
    for raw in rows:
        result = checker.check(raw)
        assert isinstance(result, Accepted) or result.reasons


@pytest.mark.parametrize(
    "text", ["2026-8-31", "2026/08/31", "2026年08月31日", "20260831", "2026-08-31 00:00:00"]
)
def test_days_as_feeds_write_them(text: str) -> None:
    assert parse_date(text) == date(2026, 8, 31)


@pytest.mark.parametrize(
    "text", ["2026-08/31", "2026831", "2026-08-31 12:00", "2026-13-01", "٢٠٢٦-08-31x", ""]
)
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(ValueError, match="日期"):
        parse_date(text)


# --- lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_lines_are_numbered_as_an_editor_shows_them(end: str) -> None:
    text = text_of({"CF_SY": "第一行\r\n第二行"}, {"CF_WSH": ""}, {}).replace("\r\n", end)
    header, rest = text.split(end, 1)
    results = check(f"{header}{end}{end}{rest}")  # an empty line after the header
    assert [r.line for r in results] == [3, 5, 6]
    assert isinstance(results[2], Rejected)
    assert results[2].reasons == ["与第3行重复（处罚机关、文号和行政相对人相同）"]


def test_a_repetition_of_a_refused_row_is_not_refused() -> None:
    first, second, third = check(text_of({"CF_NR_FK": "x"}, {}, {}))
    assert isinstance(first, Rejected)
    assert isinstance(second, Accepted)
    assert isinstance(third, Rejected)
    assert "第3行" in third.reasons[0]


def test_a_row_that_cannot_be_split_loses_only_itself() -> None:
    text = text_of({}, {"CF_WSH": "杭教罚〔2026〕13号"}, {"CF_WSH": "杭教罚〔2026〕14号"})
    lines = text.split("\r\n")
    lines[2] = lines[2].replace("杭州示例", '"杭州"示例', 1)
    results = check("\r\n".join(lines))
    assert [(r.line, isinstance(r, Accepted)) for r in results] == [(2, True), (3, False), (4, True)]
    short = text.split("\r\n")
    short[2] = "只有一列"
    assert [isinstance(r, Accepted) for r in check("\r\n".join(short))] == [True, False, True]


def test_an_open_quote_is_told_with_the_lines_it_swallowed() -> None:
    text = text_of({}) + '"never closed\r\nthis line\r\nand this one\r\n'
    last = check(text)[-1]
    assert isinstance(last, Rejected)
    assert last.line == 3
    assert "第3至5行" in last.reasons[0]


# --- files -----------------------------------------------------------------------------------------------


def test_columns_may_stand_in_any_order_with_others_and_their_old_name() -> None:
    names = ["多余", *reversed(COLUMNS)]
    names[names.index("CF_FR_ZJHM")] = "cf_fr_sfzh "
    row = [GOOD.get(name, "x") for name in ["多余", *reversed(COLUMNS)]]
    (result,) = check(",".join(names) + "\n" + ",".join(row) + "\n")
    assert isinstance(result, Accepted)
    assert result.content_hash == good().content_hash


def test_missing_and_repeated_columns_are_named() -> None:
    names = [name for name in COLUMNS if name not in ("CF_WSH", "BZ")] + ["CF_JDRQ"]
    with pytest.raises(BadHeaderError) as caught:
        read_header(RowReader([",".join(names)]))
    assert (caught.value.missing, caught.value.repeated) == (["CF_WSH", "BZ"], ["CF_JDRQ"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_both_encodings_give_the_same_rows(encoding: str) -> None:
    file = open_csv(io.BytesIO(text_of({"CF_XDR_MC": "杭州𠮷示例有限公司"}).encode(encoding)))
    checker = RowChecker(file.columns, CATALOGUE, KEY, TODAY)
    (row,) = [checker.check(raw) for raw in file.rows]
    assert file.total == 1
    assert isinstance(row, Accepted)
    assert row.subject.name == "杭州𠮷示例有限公司"
    assert row.content_hash == good().content_hash


def test_a_bad_byte_at_the_very_end_is_found() -> None:
    big = text_of(*({"CF_WSH": f"杭教罚〔2026〕{n}号"} for n in range(9000))).encode("gb18030")
    assert len(big) > 1 << 20
    assert detect_encoding(io.BytesIO(big)) == "gb18030"
    assert detect_encoding(io.BytesIO(big + b"\xff")) is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", ProblemCode.MISSING_COLUMNS),
        (b"\xef\xbb\xbf", ProblemCode.MISSING_COLUMNS),
        (b"a,b\n1,2\n", ProblemCode.MISSING_COLUMNS),
        (text_of({}).encode("utf-16"), ProblemCode.UNKNOWN_ENCODING),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ProblemCode.UNKNOWN_ENCODING),
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes, code: ProblemCode) -> None:
    with pytest.raises(Problem) as caught:
        open_csv(io.BytesIO(content))
    assert caught.value.code is code


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_the_sample_is_taken_but_for_its_bad_rows(tmp_path: Path, encoding: str) -> None:
    written = sample.write_sample(tmp_path / "sample.csv", 400, encoding=encoding, today=TODAY)
    with written.path.open("rb") as raw:
        file = open_csv(raw)
        checker = RowChecker(file.columns, CATALOGUE, KEY, TODAY)
        results = [checker.check(row) for row in file.rows]
    rejected = [r.line for r in results if isinstance(r, Rejected)]
    assert rejected == sorted(bad.line for bad in written.bad_rows)
    assert file.total == written.rows
    types = Counter(r.subject.subject_type for r in results if isinstance(r, Accepted))
    assert set(types) == set(SubjectType)


# --- records ---------------------------------------------------------------------------------------------


def test_a_row_that_changes_and_changes_back_is_published_three_times() -> None:
    versions: list[Any] = [None]
    for row in (good(), good(CF_NR_FK="0.6"), good()):
        versions.append(imported(versions[-1], row, NOW))
    _, first, second, third = versions
    assert first.content_hash == third.content_hash
    assert len({(v.content_hash, v.revision) for v in (first, second, third)}) == 3
    # later than the one before, though the clock stood still
    assert first.published_at < second.published_at < third.published_at


def test_an_import_keeps_the_application_and_outlives_a_publication_from_the_future() -> None:
    first = imported(None, good(), NOW)
    ahead = first.model_copy(
        update={"published_at": NOW + timedelta(days=400), "application_id": "app_" + "a" * 32}
    )
    again = imported(ahead, good(CF_NR_FK="0.6"), NOW)
    assert again.published_at > ahead.published_at
    assert again.application_id == ahead.application_id
