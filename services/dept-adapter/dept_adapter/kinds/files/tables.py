"""Rows of batch files: written as CSV or XLSX, read from either, a chunk at a time. No cell is ever evaluated.

The same rows give the same bytes: a batch that is written again is the same file.
"""

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import xlsxwriter
from python_calamine import CalamineError, CalamineWorkbook

from contracts.catalogue import FileForm

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_MAX_COLUMNS = 200
_MAX_CELL = 10_000
csv.field_size_limit(1_000_000)


class UnreadableFileError(ValueError):
    """A file that is no table. The text (zh-CN) says why and what to do."""


def safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV Injection)."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def write(path: Path, form: FileForm, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table."""
    if form.format == "xlsx":
        _write_xlsx(path, header, rows)
        return
    # a spreadsheet knows UTF-8 by its BOM only; a character GB18030 does not have does not exist
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([safe(cell) for cell in row] for row in rows)


def _write_xlsx(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_numbers": False,
        "strings_to_urls": False,
    }
    with xlsxwriter.Workbook(str(path), options) as workbook:
        workbook.set_properties({"created": datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None)})
        sheet = workbook.add_worksheet()
        for number, row in enumerate([header, *([safe(cell) for cell in row] for row in rows)]):
            for column, cell in enumerate(row):
                sheet.write_string(number, column, cell[:32_000])


@contextmanager
def reading(path: Path, max_unpacked_bytes: int) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """(header, rows below it without blank ones at the end). Raises UnreadableFileError, also while rows are read."""
    if path.suffix == ".xlsx":
        with _open_xlsx(path, max_unpacked_bytes) as workbook:
            sheet = workbook.get_sheet_by_index(0)
            rows = ([_text(cell) for cell in row[:_MAX_COLUMNS]] for row in sheet.iter_rows())
            yield _split(rows)
        return
    with path.open("rb") as binary, io.TextIOWrapper(binary, _encoding(path), newline="") as file:
        yield _split(_csv_rows(file))


def _split(rows: Iterator[list[str]]) -> tuple[list[str], Iterator[list[str]]]:
    header = next(rows, None)
    if header is None:
        raise UnreadableFileError("文件是空的，连表头也没有。")
    return [cell.strip() for cell in header], _without_blank_end(rows)


def _without_blank_end(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Blank rows between others keep their numbers; those at the end are what a spreadsheet leaves behind."""
    blank = 0
    for row in rows:
        if not any(cell.strip() for cell in row):
            blank += 1
            continue
        for _ in range(blank):
            yield []
        blank = 0
        yield row


def _csv_rows(file: io.TextIOWrapper) -> Iterator[list[str]]:
    try:
        for row in csv.reader(file, strict=True):
            yield [cell[:_MAX_CELL] for cell in row[:_MAX_COLUMNS]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"CSV 无法读取（{error}），请检查引号与编码。") from None


def _encoding(path: Path) -> str:
    """UTF-8 where all of it is, else GB18030. Raises UnreadableFileError."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            with path.open(encoding=encoding, newline="") as file:
                while block := file.read(65_536):
                    if "\x00" in block:
                        raise UnreadableFileError(
                            "文件不是文本（含空字节），请用 UTF-8 或 GB18030 编码的 CSV。"
                        )
        except UnicodeDecodeError:
            continue
        return encoding
    raise UnreadableFileError("文件编码既不是 UTF-8 也不是 GB18030，请另存后重新生成。")


@contextmanager
def _open_xlsx(path: Path, max_unpacked_bytes: int) -> Iterator[CalamineWorkbook]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > max_unpacked_bytes:
            raise UnreadableFileError(
                f"XLSX 解开后有 {unpacked // 1_000_000} MB，超过 {max_unpacked_bytes // 1_000_000} MB，请分成几个文件。"
            )
        with CalamineWorkbook.from_path(str(path)) as workbook:
            yield workbook
    except (zipfile.BadZipFile, CalamineError) as error:
        raise UnreadableFileError(f"XLSX 无法打开（{type(error).__name__}），请用 Excel 重新保存。") from None


def _text(cell: object) -> str:
    """A cell as text: the stored value, never what a formula would give now."""
    match cell:
        case bool():
            return str(cell)
        case float() if cell.is_integer():
            return str(int(cell))
        case datetime() | date() | time():
            return cell.isoformat()
        case timedelta():
            return str(cell)
    return str(cell)[:_MAX_CELL]
