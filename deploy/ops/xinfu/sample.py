"""A synthetic 双公示 feed of administrative penalties (2018 column set), for demonstrations and tests.

Every subject is invented: names say 示例, the body of each code starts with XD, ID numbers use region 330199, which does
not exist. The same seed and day give the same bytes.
"""

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from contracts.catalogue import Catalogue, Department, add_months, load_catalogue
from contracts.identifiers import MAX_DOCUMENT_NUMBER, id_check_character, uscc_check_character
from contracts.penalty_feed import COLUMNS

Row = dict[str, str]

_CHINA = timezone(timedelta(hours=8))


class Subject(NamedTuple):
    """A synthetic 信用主体; ``code`` is a USCC, or the ID number of a natural person."""

    name: str
    code: str


class BadRow(NamedTuple):
    """A row a correct import refuses. ``line``: line of the file, the header being line 1."""

    line: int
    fault: str


@dataclass(frozen=True)
class Sample:
    """What was written: ``rows`` data rows, of which ``bad_rows`` must be refused."""

    path: Path
    rows: int
    bad_rows: tuple[BadRow, ...]

    @property
    def rejected_rows(self) -> int:
        return len(self.bad_rows)

    @property
    def accepted_rows(self) -> int:
        return self.rows - self.rejected_rows


def _uscc(prefix: str, number: int) -> str:
    body = f"{prefix}XD{number:07d}"
    return body + uscc_check_character(body)


def _id_number(born: date, number: int) -> str:
    body = f"330199{born:%Y%m%d}{number:03d}"
    return body + id_check_character(body)


def _wrong_last(code: str) -> str:
    return code[:-1] + ("0" if code[-1] != "0" else "1")


DEMO_SUBJECT = Subject("杭州示例演示科技有限公司", _uscc("91330100", 9_000_001))
"""Owns exactly three records, of three departments, all past their minimum publication period (see ``_demo_rows``)."""

# 违法行为, 处罚依据, 处罚类别, 处罚内容, fine in 万元, confiscated in 万元
_CASES = (
    ("未按规定公示信息", "《企业信息公示暂行条例》第十八条", "警告", "予以警告", "", ""),
    ("未按规定如实报送材料", "《中华人民共和国行政处罚法》第二十八条", "罚款", "罚款0.5万元", "0.500000", ""),
    ("未取得许可从事经营活动", "《无证无照经营查处办法》第十三条", "罚款、没收违法所得", "罚款2万元，没收违法所得1.2万元", "2.000000", "1.200000"),
    ("未落实安全生产培训要求", "《中华人民共和国安全生产法》第九十七条", "罚款", "罚款3万元", "3.000000", ""),
    ("消防设施未保持完好有效", "《中华人民共和国消防法》第六十条", "责令停产停业;罚款", "责令停产停业，罚款5万元", "5.000000", ""),
    ("经营标签不符合规定的食品", "《中华人民共和国食品安全法》第一百二十五条", "没收违法所得、没收非法财物", "没收违法所得0.03万元", "", "0.030000"),
    # A kind no catalogue knows is not a bad row: a person sets the tier.
    ("违反行业管理规定", "《行业管理办法》第九条", "行业惩戒", "予以行业惩戒", "", ""),
)  # fmt: skip
_CLOSED = 4  # the 严重 case: 责令停产停业


def _document_number(department: Department, year: int, number: int, style: int) -> str:
    """A 文号 in one of the spellings met in feeds; ``number`` makes it unique."""
    mark = f"{department.short_name}罚"
    return (f"{mark}〔{year}〕{number}号", f"{mark}[{year}] {number}号", f"{mark}（{year}）{number}")[
        style % 3
    ]


def _row(
    subject: Subject,
    subject_type: str,
    department: Department,
    decided: date,
    number: int,
    case: int,
    style: int = 0,
) -> Row:
    act, basis, kind, content, fine, confiscated = _CASES[case]
    person = subject_type == "自然人"
    row = dict.fromkeys(COLUMNS, "")
    row.update(
        CF_XDR_MC=subject.name,
        CF_XDR_LB=subject_type,
        CF_WSH=_document_number(department, decided.year, number, style),
        CF_WFXW=act,
        CF_SY=f"经查，当事人{act}，情况属实（示例数据）",
        CF_YJ=basis,
        CF_CFLB=kind,
        CF_NR=content,
        CF_NR_FK=fine,
        CF_NR_WFFF=confiscated,
        CF_JDRQ=decided.isoformat(),
        CF_YXQ="2099-12-31",
        CF_GSJZQ=add_months(decided, 36).isoformat(),
        CF_CFJG=department.name,
        CF_CFJGDM=department.code,
        CF_SJLY=department.name,
        CF_SJLYDM=department.code,
        BZ="示例数据",
    )
    if person:
        row.update(CF_XDR_ZJLX="身份证", CF_XDR_ZJHM=subject.code)
    else:
        row.update(CF_XDR_SHXYM=subject.code, CF_FRDB=f"示例人{number:04d}")
    return row


def _demo_rows(catalogue: Catalogue, today: date) -> list[Row]:
    """Three records of DEMO_SUBJECT, 严重 (责令停产停业) and 13 to 15 months old: past the longest minimum (12 months) and 21 months
    or more before the maximum (36) of every regime that could apply."""

    def of(slug: str) -> Department:
        department = catalogue.by_slug(slug)
        if department is None:
            raise ValueError(f"部门目录中没有 {slug}，无法生成演示记录")
        return department

    kinds = (
        ("hz-samr", 13, "未取得许可从事经营活动", "《无证无照经营查处办法》第十三条"),
        ("hz-sthj", 14, "未依法取得排污许可证排放污染物", "《排污许可管理条例》第三十三条"),
        ("hz-yjj", 15, "未落实安全生产培训要求", "《中华人民共和国安全生产法》第九十七条"),
    )
    rows = []
    for number, (slug, months, act, basis) in enumerate(kinds, start=9001):
        row = _row(DEMO_SUBJECT, "法人及非法人组织", of(slug), add_months(today, -months), number, _CLOSED)
        row.update(CF_WFXW=act, CF_SY=f"经查，当事人{act}，情况属实（示例数据）", CF_YJ=basis)
        rows.append(row)
    return rows


def _faults(today: date) -> dict[str, Callable[[Row], object]]:
    """Each fault, and how it is made in a good row of a company."""
    person = {"CF_XDR_LB": "自然人", "CF_XDR_SHXYM": "", "CF_FRDB": "", "CF_XDR_ZJLX": "身份证"}
    wrong_id = _wrong_last(_id_number(date(1980, 1, 1), 7))
    return {
        "uscc_check_digit": lambda r: r.update(CF_XDR_SHXYM=_wrong_last(r["CF_XDR_SHXYM"])),
        "document_number_missing": lambda r: r.update(CF_WSH=""),
        "date_impossible": lambda r: r.update(CF_JDRQ=f"{today.year}-02-30"),
        "date_in_future": lambda r: r.update(CF_JDRQ=add_months(today, 1).isoformat()),
        "date_format": lambda r: r.update(CF_JDRQ="2026/13/40"),
        "fine_negative": lambda r: r.update(CF_NR_FK="-1.000000"),
        "fine_not_a_number": lambda r: r.update(CF_NR_FK="伍仟元整"),
        "id_number_check_digit": lambda r: r.update(person, CF_XDR_MC="示例人错号", CF_XDR_ZJHM=wrong_id),
        "name_empty": lambda r: r.update(CF_XDR_MC="　"),
        "document_number_too_long": lambda r: r.update(CF_WSH=r["CF_WSH"] + "1" * MAX_DOCUMENT_NUMBER),
        "subject_type_unknown": lambda r: r.update(CF_XDR_LB="其他主体"),
    }


def _good_row(rng: random.Random, number: int, departments: list[Department], today: date) -> Row:
    decided = today - timedelta(days=rng.randrange(1, 900))
    department = rng.choice(departments)
    case, style, draw = rng.randrange(len(_CASES)), rng.randrange(3), rng.random()
    # A subject has about two records, so that one application can hold several.
    owner = number // 2
    if draw < 0.08:
        born = date(1960, 1, 1) + timedelta(days=rng.randrange(15_000))
        subject = Subject(f"示例人{number:04d}", _id_number(born, number % 1000))
        return _row(subject, "自然人", department, decided, number, case, style)
    if draw < 0.2:
        subject = Subject(f"杭州示例{number:04d}小吃店", _uscc("92330106", number))
        return _row(subject, "个体工商户", department, decided, number, case, style)
    subject = Subject(f"杭州示例{owner:04d}科技有限公司", _uscc("91330100", owner))
    return _row(subject, "法人及非法人组织", department, decided, number, case, style)


def write_sample(
    path: Path, rows: int = 200, seed: int = 20260401, encoding: str = "utf-8", *, today: date | None = None
) -> Sample:
    """Write ``rows`` data rows of a 双公示 CSV (RFC 4180, header of ``COLUMNS``) and say which a correct import must refuse.

    The first three rows are DEMO_SUBJECT's; twelve rows are bad, each in its own way, one of them a repetition of an earlier row.
    ``today``: the day the dates relate to, by default the day in China. ``encoding``: utf-8, utf-8-sig or gb18030.

    Raises ValueError when ``rows`` is less than 30.
    """
    if rows < 30:
        raise ValueError(f"示例数据至少30行，实际要求{rows}行")
    today = today or datetime.now(_CHINA).date()
    rng = random.Random(seed)  # noqa: S311 (repeatable data, nothing secret)
    catalogue = load_catalogue()
    departments = [
        d
        for d in catalogue.departments
        if d.level in ("municipal", "district")
        and {"administrative_penalty", "samr_administrative_penalty"} & set(d.categories)
        and d.in_force(today)
    ]

    demo = _demo_rows(catalogue, today)
    written = demo + [_good_row(rng, n, departments, today) for n in range(1, rows - len(demo) + 1)]

    faults = _faults(today)
    spoiled = sorted(rng.sample(range(len(demo), rows), len(faults) + 1))
    bad: list[BadRow] = []
    for index, (fault, spoil) in zip(spoiled, faults.items(), strict=False):
        company = Subject(f"杭州示例{5000 + index:04d}科技有限公司", _uscc("91330100", 5000 + index))
        row = _row(
            company, "法人及非法人组织", rng.choice(departments), add_months(today, -8), 5000 + index, 1
        )
        spoil(row)
        written[index] = row
        bad.append(BadRow(index + 2, fault))
    written[spoiled[-1]] = dict(demo[0])
    bad.append(BadRow(spoiled[-1] + 2, "duplicate"))

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(written)
    return Sample(path, rows, tuple(bad))
