"""Reads a 双公示 CSV of administrative penalties (2018 column set, domain notes 6.2). Pure: text in, rows or reasons out.

The legal representative's name and ID number (CF_FRDB, CF_FR_*) are in the file but not needed for a repair: they are never kept.
"""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TypeVar

from contracts.catalogue import Catalogue, normalise_name
from contracts.http.intake import Subject
from contracts.identifiers import (
    is_blank,
    normalise_document_number,
    normalise_id_number,
    normalise_uscc,
    record_id,
)
from contracts.penalty_feed import COLUMNS
from contracts.records import RecordFacts, SubjectType
from intake.domain.record import Display
from intake.domain.subject import subject_id

_COLUMN_ALIASES = {"CF_FR_SFZH": "CF_FR_ZJHM"}
_SUBJECT_TYPES = {
    "法人及非法人组织": SubjectType.LEGAL_PERSON,
    "法人": SubjectType.LEGAL_PERSON,
    "非法人组织": SubjectType.LEGAL_PERSON,
    "个体工商户": SubjectType.SOLE_TRADER,
    "自然人": SubjectType.NATURAL_PERSON,
}
# All are 18 characters of GB 11643 shape.
_ID_DOCUMENTS = ("", "身份证", "居民身份证", "港澳台居民居住证", "外国人永久居留身份证")
_DATE = re.compile(
    r"(\d{4})(?:-(\d{1,2})-(\d{1,2})|/(\d{1,2})/(\d{1,2})|年(\d{1,2})月(\d{1,2})日|(\d{2})(\d{2}))(?:[ T]0?0:00(?::00(?:\.0+)?)?)?"
)
NOT_BY_SYSTEM = "不经平台"
"""In a row's 备注 (BZ): the record is handed over in person."""
_FIRST_DAY = date(1949, 10, 1)
_MONEY = re.compile(r"\d{1,12}(?:\.\d{1,6})?")  # decimal(18,6)
_MAX_TEXT = 10_000
T = TypeVar("T")


class BadHeaderError(ValueError):
    """The first line is no usable header. ``missing``: columns that are not there; ``repeated``: that are there twice."""

    def __init__(self, missing: list[str], repeated: list[str]) -> None:
        super().__init__(f"missing {missing}, repeated {repeated}")
        self.missing = missing
        self.repeated = repeated


@dataclass(frozen=True, slots=True)
class Accepted:
    """A good row. ``content_hash`` changes when anything kept of the row does."""

    line: int
    subject: Subject
    facts: RecordFacts
    display: Display
    content_hash: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A bad row with all its reasons (zh-CN). ``line`` is that of the file as an editor shows it, where the row begins."""

    line: int
    reasons: list[str]
    document_number: str | None = None


@dataclass(frozen=True, slots=True)
class RawRow:
    """The cells of one row, or why the row could not be split into cells."""

    line: int
    cells: list[str]
    fault: str = ""


def read_header(reader: "RowReader") -> list[str]:
    """Names of the columns, in the order of the file. Raises BadHeaderError."""
    first = next(reader, None)
    cells = [] if first is None or first.fault else first.cells
    names = [unicodedata.normalize("NFKC", cell).strip().upper() for cell in cells]
    names = [_COLUMN_ALIASES.get(name, name) for name in names]
    missing = [column for column in COLUMNS if column not in names]
    repeated = [column for column in COLUMNS if names.count(column) > 1]
    if missing or repeated:
        raise BadHeaderError(missing, repeated)
    return names


class RowReader(Iterator[RawRow]):
    """Rows of a CSV text (RFC 4180) whose line ends are not translated (``newline=""``); empty lines are passed over."""

    def __init__(self, text: Iterable[str]) -> None:
        self._reader = csv.reader(text, strict=True)

    def __next__(self) -> RawRow:
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except csv.Error:
                return RawRow(line, [], self._fault(line))
            if any(cells):
                return RawRow(line, cells)

    def _fault(self, line: int) -> str:
        last = self._reader.line_num
        lines = f"第{line}行" if last <= line else f"第{line}至{last}行"
        return f"{lines}无法拆分为列：请检查双引号是否成对，且单元格不超过{csv.field_size_limit()}个字符"


@dataclass
class RowChecker:
    """Checks rows one after another; remembers the accepted ones to find repetitions. ``key`` is that of the pseudonyms."""

    columns: list[str]
    catalogue: Catalogue
    key: bytes
    today: date
    _lines: dict[bytes, int] = field(default_factory=dict)

    def check(self, raw: RawRow) -> Accepted | Rejected:
        """A row with its record and subject, or all that is wrong with it."""
        if raw.fault:
            return Rejected(raw.line, [raw.fault])
        if len(raw.cells) != len(self.columns):
            fault = f"列数应为{len(self.columns)}，实际为{len(raw.cells)}：请检查逗号和双引号"
            return Rejected(raw.line, [fault])
        row = {name: cell.strip() for name, cell in zip(self.columns, raw.cells, strict=True)}
        checked = _Row(row, self.catalogue, self.key, self.today).checked(raw.line)
        if isinstance(checked, Accepted):
            key = bytes.fromhex(checked.facts.record_id.removeprefix("rec_"))
            first = self._lines.setdefault(key, raw.line)
            if first != raw.line:
                reason = f"与第{first}行重复（处罚机关、文号和行政相对人相同）"
                return Rejected(raw.line, [reason], checked.facts.document_number)
        return checked


class _Row:
    """One row while it is checked: every fault is noted, then the row is built or refused."""

    def __init__(self, cells: dict[str, str], catalogue: Catalogue, key: bytes, today: date) -> None:
        self._cells = cells
        self._catalogue = catalogue
        self._key = key
        self._today = today
        self._reasons: list[str] = []

    def checked(self, line: int) -> Accepted | Rejected:
        subject = self._subject()
        number = self._try("CF_WSH", normalise_document_number)
        decided_on = self._try("CF_JDRQ", self._past_date)
        authority = self._text("CF_CFJG", 200, required=True)
        code = self._cells["CF_CFJGDM"]
        authority_code = self._try("CF_CFJGDM", normalise_uscc) if code else None
        kinds = self._text("CF_CFLB", 200)
        display = self._display()
        if self._reasons or not (subject and number and decided_on and display):
            return Rejected(line, self._reasons, number or self._cells["CF_WSH"][:200] or None)
        person = subject.subject_type is SubjectType.NATURAL_PERSON
        tier = self._catalogue.tier_of(kinds)
        category = self._catalogue.penalty_category(authority_code, authority)
        facts = RecordFacts(
            record_id=record_id(
                authority_code or self._authority_key(authority, category),
                number,
                subject.subject_id if person else subject.code,
            ),
            subject_id=subject.subject_id,
            subject_type=subject.subject_type,
            category=category,
            document_number=number,
            authority_code=authority_code,
            authority_name=authority,
            decided_on=decided_on,
            penalty_kinds=kinds,
            tier=tier[0].value if tier else None,
            in_person=NOT_BY_SYSTEM in display.remark,
        )
        if (told := self._catalogue.told(facts, self._today)) is not facts:
            # nothing of what it says is kept, from here on
            facts, display = told, Display()
        content = f"{facts.model_dump_json()}\n{display.model_dump_json()}"
        return Accepted(line, subject, facts, display, hashlib.sha256(content.encode()).hexdigest())

    def _authority_key(self, name: str, category: str) -> str:
        """What stands for the code of an authority in the record's key when the feed has no code."""
        found = self._catalogue.resolve_department(None, name, category, self._today).department
        return found.code if found else normalise_name(name)

    def _subject(self) -> Subject | None:
        name = self._text("CF_XDR_MC", 200, required=True)
        kind = _SUBJECT_TYPES.get(normalise_name(self._cells["CF_XDR_LB"]))
        if kind is None:
            given = self._cells["CF_XDR_LB"][:50] or "空"
            known = "、".join(_SUBJECT_TYPES)
            self._reasons.append(f"CF_XDR_LB：行政相对人类别“{given}”不在可用值之内（{known}）")
            return None
        if kind is SubjectType.NATURAL_PERSON:
            document = normalise_name(self._cells["CF_XDR_ZJLX"])
            if document not in _ID_DOCUMENTS:
                self._reasons.append(
                    f"CF_XDR_ZJLX：暂不支持证件类型“{document[:50]}”，请使用居民身份证或同号码规则的证件"
                )
                return None
            code = self._try("CF_XDR_ZJHM", lambda text: normalise_id_number(text, today=self._today))
        else:
            code = self._try("CF_XDR_SHXYM", normalise_uscc)
        if not code or not name:
            return None
        return Subject(subject_id=subject_id(self._key, kind, code), subject_type=kind, code=code, name=name)

    def _display(self) -> Display | None:
        shown = {
            "violation_type": self._text("CF_WFXW", _MAX_TEXT),
            "violation": self._text("CF_SY", _MAX_TEXT),
            "legal_basis": self._text("CF_YJ", _MAX_TEXT),
            "content": self._text("CF_NR", _MAX_TEXT),
            "licence": self._text("CF_NR_ZKDX", 200),
            "source": self._text("CF_SJLY", 200),
            "remark": self._text("BZ", _MAX_TEXT),
        }
        fine, confiscated = self._optional("CF_NR_FK", _money), self._optional("CF_NR_WFFF", _money)
        valid, published = self._optional("CF_YXQ", parse_date), self._optional("CF_GSJZQ", parse_date)
        if self._reasons:
            return None
        return Display(
            **shown,
            fine_wan_yuan=fine,
            confiscated_wan_yuan=confiscated,
            valid_until=valid,
            published_until=published,
        )

    def _text(self, column: str, longest: int, *, required: bool = False) -> str:
        text = self._cells[column]
        if required and is_blank(text):
            self._reasons.append(f"{column}：不能为空")
        if len(text) > longest:
            self._reasons.append(f"{column}：最多{longest}个字符，实际为{len(text)}个")
        return text

    def _try(self, column: str, read: Callable[[str], T]) -> T | None:
        try:
            return read(self._cells[column])
        except ValueError as error:
            self._reasons.append(f"{column}：{error}")
            return None

    def _optional(self, column: str, read: Callable[[str], T]) -> T | None:
        return self._try(column, read) if self._cells[column] else None

    def _past_date(self, text: str) -> date:
        day = parse_date(text)
        if day > self._today:
            raise ValueError(f"处罚决定日期{day.isoformat()}晚于今天")
        if day < _FIRST_DAY:
            raise ValueError(f"处罚决定日期{day.isoformat()}过早，请核对年份")
        return day


def parse_date(text: str) -> date:
    """A day as feeds write it: 2026-01-31, 2026/1/31, 2026年1月31日 or 20260131, with or without midnight.

    Raises ValueError (zh-CN) for another form and for a day that does not exist.
    """
    found = _DATE.fullmatch(unicodedata.normalize("NFKC", text).strip())
    if found is None:
        raise ValueError(
            f"日期“{text[:30]}”格式有误，应为2026-01-31这样的年-月-日" if text else "日期不能为空"
        )
    year, month, day = (int(part) for part in found.groups() if part is not None)
    try:
        return date(year, month, day)
    except ValueError:
        raise ValueError(f"日期“{text[:30]}”不存在") from None


def _money(text: str) -> Decimal:
    folded = unicodedata.normalize("NFKC", text).strip()
    if folded.startswith("-"):
        raise ValueError(f"金额“{text[:30]}”不能为负数")
    if not _MONEY.fullmatch(folded):
        raise ValueError(
            f"金额“{text[:30]}”应为以万元为单位的数字，整数最多12位、小数最多6位，不带千位分隔符"
        )
    return Decimal(folded)
