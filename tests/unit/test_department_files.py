"""Batch files of departments: what is written is read back, nothing is a formula, and what is wrong is said in Chinese."""

import csv
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.catalogue import FileForm
from contracts.decisions import Outcome
from contracts.department_files import DECISION_COLUMNS
from dept_adapter.kinds.files.rows import columns_of, read_row
from dept_adapter.kinds.files.tables import UnreadableFileError, reading, safe, write

WRITTEN_AT = datetime(2026, 11, 25, 1, 30, tzinfo=UTC)
HEADER = list(DECISION_COLUMNS.values())
COLUMNS = columns_of(HEADER)
ITEM = "itm_" + "1" * 32
FORMS = [FileForm(format=f, encoding=e) for f, e in (("csv", "utf-8"), ("csv", "gb18030"), ("xlsx", "utf-8"))]
MAX = 100_000_000
cells = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff"), max_size=20
)


def back(path: Path) -> list[list[str]]:
    with reading(path, MAX) as (header, rows):
        return [header, *rows]


@settings(max_examples=30)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=8))
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_written_is_read_back_and_the_same_rows_are_the_same_bytes(
    form: FileForm, tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    rows = [["行", *row] for row in rows]
    path, again = (tmp_path_factory.mktemp("t") / f"a.{form.format}" for _ in range(2))
    for each in (path, again):
        write(each, form, ["甲", "乙", "丙", "丁"], rows)
    assert path.read_bytes() == again.read_bytes()
    header, *found = back(path)
    assert header == ["甲", "乙", "丙", "丁"]
    assert [[*row, *[""] * (4 - len(row))] for row in found] == [[safe(cell) for cell in row] for row in rows]


@pytest.mark.parametrize("cell", ["=1+1", "+86", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_ours_is_a_formula(cell: str) -> None:
    assert safe(cell) == f"'{cell}"


def test_formulas_of_theirs_are_text(tmp_path: Path) -> None:
    """In CSV as they stand; in XLSX what is stored beside them. Nothing is computed."""
    formula = '=HYPERLINK("http://evil.example","x")'
    row = [ITEM, "不予", "杭公积金不予信修〔2026〕1号", formula, "", ""]
    text = tmp_path / "d.csv"
    with text.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, row])
    (read,) = back(text)[1:]
    assert read_row(read, COLUMNS, WRITTEN_AT).reason == formula
    book = tmp_path / "d.xlsx"
    with xlsxwriter.Workbook(str(book)) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER)
        sheet.write_row(1, 0, row[:3])
        sheet.write_formula(1, 3, "=1+1", value="存的值")
    (read,) = back(book)[1:]
    assert read_row(read, COLUMNS, WRITTEN_AT).reason == "存的值"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["", "准予", "1号"], "事项编号为空"),
        (["itm_1", "准予", "1号"], "不是 itm_"),
        ([ITEM, "同意", "1号"], "结果“同意”不认识"),
        ([ITEM, "准予"], "须填写决定文号"),
        ([ITEM, "不予", "1号"], "须填写理由"),
        ([ITEM, "延期"], "须填写理由"),
        ([ITEM, "补正"], "一次写明全部"),
        ([ITEM, "准予", "1" * 129], "“决定文号”太长"),
        ([ITEM, "准予", "1号", "", "", "昨天"], "应写作 2026-11-25 09:30:00"),
        ([], "整行为空"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(row: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_row(row, COLUMNS, WRITTEN_AT)


def test_a_time_without_offset_is_chinas_and_without_time_it_is_the_files() -> None:
    row = [ITEM, "granted", "1号", "", "", "2026/11/25 09:30:00"]
    assert read_row(row, COLUMNS, WRITTEN_AT).occurred_at == WRITTEN_AT
    assert read_row([ITEM, "受理"], COLUMNS, WRITTEN_AT).occurred_at == WRITTEN_AT
    asked = read_row([ITEM, "补正", "", "", "凭证；说明\n照片"], COLUMNS, WRITTEN_AT)
    assert (asked.outcome, asked.missing) == (Outcome.SUPPLEMENT_REQUESTED, ("凭证", "说明", "照片"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"\x00\x01\x02"),
        ("a.csv", b"\xff\xff\xff\xff\x80"),
        ("a.csv", '甲,"乙\n'.encode()),
        ("a.xlsx", b"PK\x03\x04 not a book"),
        ("a.xlsx", b""),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError):
        back(path)


def test_a_book_that_unpacks_to_too_much_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", io.BytesIO(b"0" * 3_000_000).getvalue())
    assert path.stat().st_size < 10_000
    with pytest.raises(UnreadableFileError, match="解开后有 3 MB"), reading(path, 1_000_000):
        pass


@pytest.mark.parametrize("header", [["结果"], ["事项编号"], ["事项编号", "结果", "结果"]])
def test_a_header_without_a_column_or_with_one_twice(header: list[str]) -> None:
    with pytest.raises(ValueError, match="表头"):
        columns_of(header)
