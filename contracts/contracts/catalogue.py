"""Law as data: the departments, rules and targets of ``catalogue/*.yaml``, checked when loaded. Pure; no clock: days are arguments."""

import calendar
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.events import ReferralReason
from contracts.identifiers import normalise_uscc
from contracts.letters import DECISIONS, OF_ITEMS, OF_OBJECTIONS, LetterKind, template_faults
from contracts.records import RecordFacts, SubjectType
from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar, first_day, library_knows

Months = Annotated[int, Field(ge=0, le=120)]
WorkingDays = Annotated[int, Field(ge=0, le=250)]
Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,40}$")]
Email = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,180}$")]
Region = Annotated[
    str, Field(pattern=r"^[0-9]{6}$", description="行政区划代码 (GB/T 2260); 100000 is the nation")
]


class Tier(StrEnum):
    """轻微 / 一般 / 严重 (国办发〔2025〕22号 第二条)."""

    MINOR = "minor"
    GENERAL = "general"
    SERIOUS = "serious"


class Evidence(StrEnum):
    """How well a fact is known. Only ``binding`` grades may refuse anybody anything; the others advise a person."""

    OFFICIAL = "V"
    COPY = "C"
    SECONDARY = "S"
    FRAGMENT = "F"
    MEMORY = "M"
    CODE = "X"
    DESIGN = "D"

    @property
    def binding(self) -> bool:
        return self in (Evidence.OFFICIAL, Evidence.COPY, Evidence.SECONDARY)


class Row(BaseModel):
    """Base of all rows: immutable, and a field nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InForce(Row):
    """A row with a time of validity, both days inclusive."""

    effective_from: date
    effective_to: date | None

    def in_force(self, on: date) -> bool:
        return self.effective_from <= on and (self.effective_to is None or on <= self.effective_to)

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.effective_to is not None and self.effective_to < self.effective_from:
            raise ValueError("effective_to 早于 effective_from")
        return self


DepartmentMode = Literal["desk", "api", "files", "events"]


class FileForm(Row):
    """What the batch files for a department look like. ``encoding``: of CSV; XLSX has one of its own."""

    format: Literal["csv", "xlsx"] = "csv"
    encoding: Literal["utf-8", "gb18030"] = "utf-8"


class Department(InForce):
    """A 认定单位. ``mode``: how it takes part (docs/departments.md).

    ``callbacks``: false for a system of mode api that cannot call back, so it is asked. ``files``: of mode files. ``issues_letters``:
    its own system issues the letters of what is decided there, ours only tell of them.
    ``contact``: where its letters say that it can be asked. ``four_eyes``: decisions that an officer proposes and another confirms
    (复核); an own arrangement of the department. ``contact_email``: of its officers, ``approver_email``: of those who approve there,
    for reminders; null: not known.
    """

    code: str
    name: Text
    contact_email: Email | None = None
    approver_email: Email | None = None
    short_name: Text
    slug: Slug
    region: Region
    level: Literal["national", "provincial", "municipal", "district"]
    mode: DepartmentMode
    callbacks: bool = True
    files: FileForm | None = None
    four_eyes: tuple[Literal["grant", "refuse", "revoke"], ...] = ()
    categories: tuple[str, ...] = Field(min_length=1)
    aliases: tuple[Text, ...]
    issues_letters: bool = False
    contact: Text | None = None
    source: Text
    evidence: Evidence

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        if not self.callbacks and self.mode != "api":
            raise ValueError("callbacks: false 只用于 mode: api")
        if (self.files is not None) != (self.mode == "files"):
            raise ValueError("mode: files 必须且只有此时填写 files")
        return self


class HumanQueue(Row):
    """The named queue for what cannot be resolved. ``contact_email``: of the credit centre's supervisors (督办)."""

    id: Slug
    name: Text
    contact_email: Email | None = None


class Category(Row):
    """A kind of 失信记录. ``grantable`` false: not ours to grant, refer to ``refer_to``."""

    id: str
    name: Text
    grantable: bool
    refer_to: str | None = None

    @model_validator(mode="after")
    def _referred_to_somebody(self) -> Self:
        if self.grantable == (self.refer_to is not None):
            raise ValueError("grantable 为 false 时必须且只有此时填写 refer_to")
        return self


class Scope(Row):
    """A field of law with periods of its own; ``laws``: words in 处罚依据 that show it."""

    id: str
    name: Text
    laws: tuple[Text, ...]
    evidence: Evidence


class PenaltyKind(Row):
    """Words in 处罚类别 and the tier they mean."""

    id: str
    words: tuple[Text, ...] = Field(min_length=1)
    tier: Tier
    source: Text
    evidence: Evidence


class Condition(Row):
    """What a rule asks for beside time. ``judged_by``: ``records``, the other records of the subject as far as they are known here
    (``list_category``: on no such list; else no later penalty of the same kind); ``department``: nothing here can tell.
    """

    id: str
    name: Text
    judged_by: Literal["records", "department"]
    list_category: str | None = None
    source: Text
    evidence: Evidence

    @model_validator(mode="after")
    def _list_only_in_records(self) -> Self:
        if self.list_category is not None and self.judged_by != "records":
            raise ValueError("list_category 只用于 judged_by 为 records 的条件")
        return self


class Rule(InForce):
    """When and how a record of one category may be repaired. Months count from the decision date; null is 'not known'."""

    number: Text
    category: str
    tier: Tier | None
    scopes: tuple[str, ...]
    repair: Literal["on_application", "by_itself", "referred", "not_repairable"]
    min_publication_months: Months | None
    max_publication_months: Months | None
    conditions: tuple[str, ...] = ()
    materials: tuple[Text, ...]
    accept_working_days: WorkingDays | None
    decide_working_days: WorkingDays | None
    extend_working_days: WorkingDays | None
    total_working_days: WorkingDays | None
    decided_by: Text
    targets: tuple[str, ...]
    source: Text
    evidence: Evidence
    evidence_of: Mapping[str, Evidence]
    note: str | None = None

    def grade(self, field: str) -> Evidence:
        """Evidence of one field: its own, else that of the row."""
        return self.evidence_of.get(field, self.evidence)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.min_publication_months, self.max_publication_months
        if low is not None and high is not None and low > high:
            raise ValueError("min_publication_months 大于 max_publication_months")
        if unknown := set(self.evidence_of) - set(type(self).model_fields):
            raise ValueError(f"evidence_of 含未知字段：{'、'.join(sorted(unknown))}")
        return self


class Overlay(InForce):
    """What is laid over a rule while ``condition`` holds. ``department_working_days``: a service promise, never longer than the rule.

    ``shields``: meanwhile the record is not shown (临时屏蔽); ``begin_materials``, ``end_materials``: what shows that it begins, and that it
    ends with the final repair.
    """

    number: Text
    id: str
    name: Text
    condition: Text
    waives_min_publication: bool
    department_working_days: WorkingDays | None
    shields: bool = False
    begin_materials: tuple[Text, ...] = ()
    end_materials: tuple[Text, ...] = ()
    source: Text
    evidence: Evidence


class Protocol(StrEnum):
    """How a target is told (docs/targets.md)."""

    PUSH = "push"
    PUSH_RECEIPT = "push_receipt"
    FILES = "files"
    PULL = "pull"
    LETTER = "letter"


class LetterOffice(Row):
    """Who gets formal letters about what a vendor shows. ``email`` None: a person takes the letter there.

    ``supervisor``: who gets a copy of the second letter (信用中国 or the authority in charge), ``supervisor_email`` None: from a person.
    """

    office: Text
    email: Email | None = None
    supervisor: Text | None = None
    supervisor_email: Email | None = None

    @model_validator(mode="after")
    def _supervisor_named(self) -> Self:
        if self.supervisor_email and not self.supervisor:
            raise ValueError("填写 supervisor_email 时须填写 supervisor：抄送给谁")
        return self


class ObjectionRule(InForce):
    """Time limits of objections. ``categories`` empty: all that have no row of their own. ``file_within_days``: calendar days after
    the decision document within which the record itself may be objected to; null: not limited.
    """

    number: Text
    categories: tuple[str, ...]
    file_within_days: Annotated[int, Field(ge=1, le=3650)] | None
    accept_working_days: WorkingDays
    decide_working_days: WorkingDays
    source: Text
    evidence: Evidence
    note: str | None = None


class FalseMaterialRule(InForce):
    """For how many years whoever handed in false material is barred; where the evidence does not bind, the officer states it."""

    number: Text
    block_years: int = Field(ge=0, le=10)
    source: Text
    evidence: Evidence
    note: str | None = None


class InPersonRule(InForce):
    """Records that are not to go by system, and how they are handed over instead (zh-CN, shown to both sides).

    ``categories``, ``departments`` (slugs): which records it marks, empty: all. With both empty it marks none by itself and says how
    records are handed over that their feed marks.
    """

    number: Text
    categories: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    handover: Text
    source: Text
    evidence: Evidence
    note: str | None = None

    @property
    def exactness(self) -> int:
        """Of two rows the one with more of it holds; 0: it marks nothing by itself."""
        return bool(self.categories) + bool(self.departments)

    def marks(self, category: str, slug: str | None) -> bool:
        """Whether records of this category and department are handed over in person because of this row."""
        of_category = not self.categories or category in self.categories
        return of_category and (not self.departments or slug in self.departments) and self.exactness > 0


class TimeLimits(NamedTuple):
    """Working days of a department. ``decide`` counts from the last day of acceptance; ``extend`` None: it may not be put off."""

    accept: int
    decide: int
    extend: int | None


class Target(Row):
    """A platform that has to show what was decided. ``timeout_seconds``: of one call.

    ``rate_per_second`` and ``burst`` count records, ``concurrency`` calls under way at once: of all replicas together. ``after``:
    told once these have acknowledged. ``agency``: slug of the city department through which it is told (代办).
    """

    id: Slug
    name: Text
    kind: Literal["national", "provincial", "local", "vendor"]
    region: Region
    categories: tuple[str, ...] = Field(min_length=1)
    protocol: Protocol
    read_back: bool
    batch_size: int = Field(ge=1, le=1000)
    rate_per_second: float = Field(gt=0, le=100_000)
    burst: int = Field(ge=1, le=1_000_000)
    concurrency: int = Field(ge=1, le=100)
    timeout_seconds: float = Field(gt=0, le=120)
    receipt_seconds: float | None = Field(default=None, gt=0, le=864_000)
    after: tuple[Slug, ...] = ()
    agency: Slug | None = None
    time_limit_working_days: WorkingDays
    time_limit_source: Text
    time_limit_evidence: Evidence
    natural_persons: bool
    letters: LetterOffice | None = None

    @model_validator(mode="after")
    def _no_persons_at_vendors(self) -> Self:
        if self.kind == "vendor" and self.natural_persons:
            raise ValueError("自然人记录不得送第三方（kind 为 vendor 时 natural_persons 必须为 false）")
        if self.letters and self.kind != "vendor":
            raise ValueError("只有第三方（kind 为 vendor）才函告，请去掉 letters")
        return self

    @model_validator(mode="after")
    def _protocol_complete(self) -> Self:
        waits = self.protocol in (Protocol.PUSH_RECEIPT, Protocol.FILES)
        if waits != (self.receipt_seconds is not None):
            raise ValueError("protocol 为 push_receipt 或 files 时必须且只有此时填写 receipt_seconds")
        if self.protocol in (Protocol.LETTER, Protocol.FILES) and self.read_back:
            raise ValueError("protocol 为 letter 或 files 时没有可查询的接口，read_back 必须为 false")
        if self.protocol is Protocol.LETTER and self.after:
            raise ValueError("protocol 为 letter 时不填写 after：函告由人决定何时发出")
        if self.protocol is Protocol.LETTER and self.letters is None:
            raise ValueError("protocol 为 letter 时须填写 letters：函告发往何处")
        return self


class Source(Row):
    """A source of facts outside, and which conditions (``checks``) it can tell about."""

    id: Slug
    name: Text
    tells: Text
    checks: tuple[str, ...] = Field(min_length=1)
    source: Text
    evidence: Evidence


class Expert(Row):
    """A member of the expert pool. ``organisation``: code of the department the expert belongs to."""

    id: Slug
    name: Text
    organisation: str | None
    fields: tuple[Text, ...]
    source: Text
    evidence: Evidence


class Holiday(BaseModel):
    """Days off, first and last included."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Text
    first: date = Field(alias="from")
    last: date = Field(alias="to")

    @property
    def days(self) -> Iterator[date]:
        return (self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1))


_HOLIDAYS = ("元旦", "春节", "清明", "劳动", "端午", "中秋", "国庆")
_FIXED = ((1, 1), (5, 1), (10, 1), (10, 2), (10, 3))
"""Days off in every year (全国年节及纪念日放假办法 第二条)."""


class CalendarYear(Row):
    """The State Council's notice of one year, complete. ``overrides``: it wins over what the library knows of the year."""

    year: int = Field(ge=2004, le=2100)
    source: Text
    evidence: Evidence
    overrides: bool
    holidays: tuple[Holiday, ...]
    workdays: tuple[date, ...]

    @property
    def days(self) -> dict[date, bool]:
        """What the notice says of single days; all others follow the week."""
        return {day: False for holiday in self.holidays for day in holiday.days} | dict.fromkeys(
            self.workdays, True
        )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        first, last = first_day(self.year), date(self.year, 12, 31)
        for holiday in self.holidays:
            if holiday.last < holiday.first:
                raise ValueError(f"“{holiday.name}”的 to 早于 from")
        off = [day for holiday in self.holidays for day in holiday.days]
        wrong = [day for day in (*off, *self.workdays) if not first <= day <= last]
        if wrong:
            raise ValueError(f"{wrong[0]} 不在 {self.year} 年（至早 {first}）")
        twice = [day for day, times in Counter((*off, *self.workdays)).items() if times > 1]
        if twice:
            raise ValueError(f"{twice[0]} 出现了两次：一天不能既放假又上班，也不必重复")
        if idle := [day for day in self.workdays if day.weekday() < 5]:
            raise ValueError(f"{idle[0]} 是周一至周五，不是调休上班日，请核对通知")
        if unnamed := [name for name in _HOLIDAYS if not any(name in h.name for h in self.holidays)]:
            raise ValueError(f"缺少节日：{'、'.join(unnamed)}。通知须全部录入，否则期限会算错")
        if fixed := [date(self.year, *day) for day in _FIXED if date(self.year, *day) not in off]:
            raise ValueError(f"{fixed[0]} 每年都放假，但不在 holidays 中")
        return self


class Operator(Row):
    """Who runs the platform: to whom commitments are made, and who issues what no department does."""

    name: Text
    contact: Text


class LetterTemplate(InForce):
    """What letters of one kind say. ``departments`` (slugs) and ``categories``: whose letters of what; empty is every one.

    ``number_words``: what stands between the department's short name and 〔year〕; null: such letters have no number of their own,
    and those of decisions bear the number of the decision.
    ``notice_title``: where the department's own system issues the letter and ours only tells of it. ``default_text``: the officer's
    words where the officer has none.
    """

    kind: LetterKind
    departments: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    title: Text
    notice_title: Text | None = None
    number_words: Text | None
    paragraphs: tuple[Text, ...] = Field(min_length=1)
    closing: tuple[Text, ...] = ()
    default_text: str = ""
    remedy: str | None = None
    source: Text
    evidence: Evidence

    @model_validator(mode="after")
    def _placeholders_known(self) -> Self:
        texts = (*self.paragraphs, *self.closing, self.default_text)
        if faults := [fault for text in texts for fault in template_faults(text, self.kind)]:
            raise ValueError("；".join(faults))
        if "{text}" in self.default_text:
            raise ValueError("default_text 不能引用 {text}")
        if self.number_words and self.kind in DECISIONS | (frozenset(LetterKind) - OF_ITEMS - OF_OBJECTIONS):
            raise ValueError("决定的文书用决定的文号，承诺书和告知书没有文号：number_words 应为 null")
        if self.kind in OF_ITEMS and self.notice_title is None:
            raise ValueError("事项的文书须填写 notice_title：部门以自有系统出具文书时使用")
        return self


class LetterBasis(InForce):
    """A rule that letters of these kinds rest on. ``article``: null where it could not be read; ``categories`` empty: of all records."""

    kinds: tuple[LetterKind, ...] = Field(min_length=1)
    categories: tuple[str, ...] = ()
    rule: Text
    article: Text | None
    source: Text
    evidence: Evidence

    @property
    def text(self) -> str:
        """As it is cited."""
        return self.rule + (self.article or "")


class Remedy(InForce):
    """What can be done against a decision."""

    id: Slug
    text: Text
    source: Text
    evidence: Evidence


class Letters(Row):
    """Everything letters are made of."""

    operator: Operator
    templates: tuple[LetterTemplate, ...]
    bases: tuple[LetterBasis, ...]
    remedies: tuple[Remedy, ...]

    def template(self, kind: LetterKind, department: str | None, category: str, on: date) -> LetterTemplate:
        """The template in force on that day. The most exact row wins: of department and category, department, category, neither.

        The catalogue has a row for every kind, department and category from the first day of the kind on; before it the first one.
        """
        found = {
            key: row
            for row in self.templates
            if row.kind is kind and row.in_force(on)
            for key in _letter_keys(row)
        }
        keys = ((department, category), (department, None), (None, category), (None, None))
        row = next((found[key] for key in keys if key in found), None)
        return row or min((r for r in self.templates if r.kind is kind), key=lambda r: r.effective_from)

    def basis(self, kind: LetterKind, category: str, on: date) -> tuple[str, ...]:
        """The rules in force on that day, as they are cited. Rows about the category stand instead of those about all."""
        found = [row for row in self.bases if kind in row.kinds and row.in_force(on)]
        own = [row for row in found if category in row.categories]
        return tuple(row.text for row in own or [row for row in found if not row.categories])

    def remedy(self, remedy: str | None, on: date) -> str | None:
        """The text of a remedy on that day."""
        return next((row.text for row in self.remedies if row.id == remedy and row.in_force(on)), None)


def _letter_keys(row: LetterTemplate) -> list[tuple[str | None, str | None]]:
    return [(d, c) for d in row.departments or (None,) for c in row.categories or (None,)]


class Resolution(NamedTuple):
    """A department, or why there is none (``reason_code``, and ``reason`` in zh-CN)."""

    department: Department | None
    reason: str = ""
    reason_code: ReferralReason | None = None


class CatalogueError(ValueError):
    """The catalogue cannot be used. ``problems``: one line each, naming file and row."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def normalise_name(name: str) -> str:
    """Fold the width of a department's name (NFKC) and drop its spaces, for exact comparison."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", name))


def add_months(day: date, months: int) -> date:
    """``day`` plus calendar months, clamped to the end of the month: 08-31 plus 6 is 02-28 or 02-29, not 03-03."""
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


DEFAULT_ACCEPT_WORKING_DAYS = 3
DEFAULT_DECIDE_WORKING_DAYS = 7
"""国办发〔2025〕22号: acceptance within 3, feedback within 10 working days (domain notes 3.1); for records without a rule."""

_TIER_ORDER = {tier: rank for rank, tier in enumerate(Tier)}


class Catalogue(Row):
    """All rows, and the questions services ask of them."""

    departments: tuple[Department, ...]
    human_queue: HumanQueue
    categories: tuple[Category, ...]
    scopes: tuple[Scope, ...]
    penalty_kinds: tuple[PenaltyKind, ...]
    conditions: tuple[Condition, ...]
    rules: tuple[Rule, ...]
    overlays: tuple[Overlay, ...]
    objections: tuple[ObjectionRule, ...]
    false_material: tuple[FalseMaterialRule, ...]
    in_person: tuple[InPersonRule, ...]
    targets: tuple[Target, ...]
    sources: tuple[Source, ...]
    experts: tuple[Expert, ...]
    letters: Letters
    calendar_years: tuple[CalendarYear, ...] = ()

    @cached_property
    def calendar(self) -> WorkCalendar:
        """Working days, as far as they are known."""
        return WorkCalendar({row.year: row.days for row in self.calendar_years})

    @cached_property
    def _by_code(self) -> dict[str, Department]:
        return {d.code: d for d in self.departments}

    @cached_property
    def _by_slug(self) -> dict[str, Department]:
        return {d.slug: d for d in self.departments}

    @cached_property
    def _by_name(self) -> dict[str, Department]:
        return {normalise_name(n): d for d in self.departments for n in (d.name, *d.aliases)}

    @cached_property
    def _by_category(self) -> dict[str, Category]:
        return {c.id: c for c in self.categories}

    @cached_property
    def _by_condition(self) -> dict[str, Condition]:
        return {c.id: c for c in self.conditions}

    @cached_property
    def _kind_by_word(self) -> dict[str, PenaltyKind]:
        return {word: kind for kind in self.penalty_kinds for word in kind.words}

    @cached_property
    def _kind_pattern(self) -> re.Pattern[str]:
        # Longest first: 吊销营业执照 before 吊销, 暂扣或者吊销许可证 before 暂扣.
        return re.compile("|".join(map(re.escape, sorted(self._kind_by_word, key=len, reverse=True))))

    def department(self, code: str) -> Department | None:
        """The department with this code (18 characters, as in the catalogue)."""
        return self._by_code.get(code)

    def by_slug(self, slug: str) -> Department | None:
        """The department with this slug."""
        return self._by_slug.get(slug)

    def category(self, category: str) -> Category | None:
        """The record category with this id."""
        return self._by_category.get(category)

    def conditions_of(self, rule: Rule) -> tuple[Condition, ...]:
        """What the rule asks for beside time, in its order."""
        return tuple(self._by_condition[condition] for condition in rule.conditions)

    def source_of(self, condition: str) -> Source | None:
        """The source that can tell about this condition."""
        return next((s for s in self.sources if condition in s.checks), None)

    def target(self, target: str) -> Target | None:
        """The target with this id."""
        return next((t for t in self.targets if t.id == target), None)

    def overlay(self, overlay: str, on: date) -> Overlay | None:
        """The overlay with this id, if in force on that day."""
        return next((o for o in self.overlays if o.id == overlay and o.in_force(on)), None)

    def shield(self, on: date) -> Overlay | None:
        """The overlay in force on that day by which records are shielded; None: no rule of that day speaks of it."""
        return next((o for o in self.overlays if o.shields and o.in_force(on)), None)

    def promise(self, on: date) -> Overlay | None:
        """The overlay in force on that day that promises applicants the fewest working days. A service promise, no legal limit."""
        found = [o for o in self.overlays if o.department_working_days is not None and o.in_force(on)]
        return min(found, key=lambda o: o.department_working_days or 0, default=None)

    def resolve_department(self, code: str | None, name: str, category: str, on: date) -> Resolution:
        """Find who made a record of ``category``: by code, else by exact name or alias (width and spaces folded).

        ``on`` is the day of routing: the department has to be in force then. When the code and the name belong to two
        departments, a person decides: sending a record to the wrong one is worse than asking.
        """

        def nobody(reason_code: ReferralReason, reason: str) -> Resolution:
            return Resolution(None, reason, reason_code)

        known = self.category(category)
        if known is None:
            return nobody(ReferralReason.CATEGORY_NOT_DECIDED, f"未知的记录类别“{category}”")
        if not known.grantable:
            return nobody(
                ReferralReason.CATEGORY_NOT_DECIDED,
                f"“{known.name}”不由本平台部门修复，请向{known.refer_to}申请",
            )
        by_code = self._by_code.get(normalise_name(code).upper()) if code else None
        by_name = self._by_name.get(normalise_name(name))
        if by_code and by_name and by_code != by_name:
            return nobody(
                ReferralReason.AMBIGUOUS_DEPARTMENT,
                f"机关代码属于“{by_code.name}”，机关名称属于“{by_name.name}”，两者不一致",
            )
        found = by_code or by_name
        if found is None:
            return nobody(
                ReferralReason.UNKNOWN_DEPARTMENT, f"部门目录中没有“{name or code or '（未填写）'}”"
            )
        if category not in found.categories:
            return nobody(ReferralReason.CATEGORY_NOT_DECIDED, f"“{found.name}”不认定“{known.name}”")
        if not found.in_force(on):
            return nobody(ReferralReason.NOT_IN_FORCE, f"“{found.name}”在{on.isoformat()}不在目录有效期内")
        return Resolution(found)

    def penalty_category(self, code: str | None, name: str) -> str:
        """Category of a penalty in a 双公示 feed, which has no column for it: market supervision penalties have their own rule."""
        found = (self._by_code.get(normalise_name(code).upper()) if code else None) or self._by_name.get(
            normalise_name(name)
        )
        samr = found is not None and "samr_administrative_penalty" in found.categories
        return "samr_administrative_penalty" if samr else "administrative_penalty"

    def rule_for(self, category: str, tier: Tier | str | None, scope: str | None, on: date) -> Rule | None:
        """The rule in force on that day. The most exact row wins: tier and scope, tier, scope, neither."""
        found = {
            (rule.tier, each): rule
            for rule in self.rules
            if rule.category == category and rule.in_force(on)
            for each in rule.scopes or (None,)
        }
        keys = ((tier, scope), (tier, None), (None, scope), (None, None))
        return next((found[key] for key in keys if key in found), None)

    def time_limits(self, category: str, tier: Tier | str | None, on: date) -> TimeLimits:
        """Within how many working days a department accepts and decides on a repair; a total counts from the application."""
        rule = self.rule_for(category, tier, None, on)
        accept, decide = DEFAULT_ACCEPT_WORKING_DAYS, DEFAULT_DECIDE_WORKING_DAYS
        if rule is None:
            return TimeLimits(accept, decide, None)
        accept = rule.accept_working_days if rule.accept_working_days is not None else accept
        if rule.total_working_days is not None:
            decide = max(rule.total_working_days - accept, 0)
        elif rule.decide_working_days is not None:
            decide = rule.decide_working_days
        return TimeLimits(accept, decide, rule.extend_working_days)

    def objection_rule(self, category: str, on: date) -> ObjectionRule:
        """The row of the category, else the general one. Raises LookupError on a day for which the catalogue has neither."""
        rows = [row for row in self.objections if row.in_force(on)]
        found = next((row for row in rows if category in row.categories), None)
        found = found or next((row for row in rows if not row.categories), None)
        if found is None:
            raise LookupError(
                f"rules.yaml: objections: no row is in force on {on.isoformat()} for {category}"
            )
        return found

    def false_material_rule(self, on: date) -> FalseMaterialRule | None:
        """The row in force on that day."""
        return next((row for row in self.false_material if row.in_force(on)), None)

    def in_person_rule(self, record: RecordFacts, on: date) -> InPersonRule | None:
        """By which row a record is handed over in person (不经系统); None: it goes by system."""
        rows = [row for row in self.in_person if row.in_force(on)]
        found = self.resolve_department(record.authority_code, record.authority_name, record.category, on)
        slug = found.department.slug if found.department else None
        marking = [row for row in rows if row.marks(record.category, slug)]
        if marking:
            return max(marking, key=lambda row: row.exactness)
        if not record.in_person:
            return None
        general = next((row for row in rows if not row.exactness), None)
        if general is None:
            raise LookupError(f"rules.yaml: in_person: no row is in force on {on.isoformat()}")
        return general

    def told(self, record: RecordFacts, on: date) -> RecordFacts:
        """The record as it may be kept and told here: one that is handed over in person without its content."""
        return record if self.in_person_rule(record, on) is None else record.reduced()

    def rules_on(self, on: date) -> str:
        """Names the rules in force on that day: another name, other answers may be right."""
        changes = [r.effective_from for r in self.rules]
        changes += [r.effective_to + timedelta(days=1) for r in self.rules if r.effective_to]
        since = max((day for day in changes if day <= on), default=date.min)
        return f"{self._rules_digest}:{since.isoformat()}"

    @cached_property
    def _rules_digest(self) -> str:
        content = self.model_dump_json(include={"rules", "scopes", "penalty_kinds", "categories"})
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def tier_of(self, penalty_kinds_text: str) -> tuple[Tier, PenaltyKind] | None:
        """Tier of a 处罚类别 text and the row that gave it; several kinds, the highest.

        None when any part is unknown (it might be the highest) or says that there was no penalty: a person looks.
        """
        parts = [
            p for p in re.split(r"[、,;/|+\s。]+", unicodedata.normalize("NFKC", penalty_kinds_text)) if p
        ]
        kinds: list[PenaltyKind] = []
        for part in parts:
            words = self._kind_pattern.findall(part)
            if not words or re.search(r"不予|免予|免于", part):
                return None
            kinds += [self._kind_by_word[word] for word in words]
        if not kinds:
            return None
        highest = max(kinds, key=lambda kind: _TIER_ORDER[kind.tier])
        return highest.tier, highest

    def scope_of(self, legal_basis: str) -> str | None:
        """The field of law that a 处罚依据 names, or None. Advice (grade D)."""
        basis = normalise_name(legal_basis)
        return next((s.id for s in self.scopes if any(law in basis for law in s.laws)), None)

    def targets_of(self, record: RecordFacts) -> tuple[Target, ...]:
        """Targets that are told of a record: none of one that is handed over in person."""
        return () if record.in_person else self.targets_for(record.category, record.subject_type)

    def targets_for(self, category: str, subject_type: SubjectType | str) -> tuple[Target, ...]:
        """Targets that show this category for this kind of subject."""
        person = SubjectType(subject_type) is SubjectType.NATURAL_PERSON
        return tuple(
            t for t in self.targets if category in t.categories and (t.natural_persons or not person)
        )


# --- loading -----------------------------------------------------------------------------------------------------

_R = TypeVar("_R", bound=Row)


class _Loader(yaml.SafeLoader):
    """Refuses a key written twice in one row, which YAML would take silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"字段 {key.value} 重复", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _default_directory() -> Path:
    here = Path(__file__).resolve().parent
    packed = here / "catalogue_data"
    return packed if packed.is_dir() else here.parent / "catalogue"


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a day that does not exist is a ValueError
        problems.append(f"{path.name}: 无法读取：{' '.join(str(error).split())}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name}: 应为由各部分组成的映射")
        return {}
    return content


def _label(raw: object) -> str:
    if not isinstance(raw, dict):
        return str(raw)
    return str(raw.get("name") or raw.get("number") or raw.get("id") or raw.get("year") or "未命名")


def _rows(
    file: str, section: str, content: Mapping[str, Any], model: type[_R], problems: list[str]
) -> Iterator[tuple[str, _R]]:
    """Yield (where, row) for each good row; append a line to ``problems`` for each fault of the others."""
    raws = content.get(section)
    if not isinstance(raws, list) or not raws:
        problems.append(f"{file}: 缺少 {section} 部分，或其内容为空")
        return
    for index, raw in enumerate(raws, start=1):
        where = f"{file}: {section} 第{index}行（{_label(raw)}）"
        try:
            yield where, model.model_validate(raw)
        except ValidationError as error:
            for fault in error.errors():
                field = ".".join(map(str, fault["loc"]))
                problems.append(f"{where}: {field + ': ' if field else ''}{fault['msg']}")


def _one(
    file: str, section: str, content: Mapping[str, Any], model: type[_R], problems: list[str]
) -> _R | None:
    """The one row of a section, or None and a line in ``problems``."""
    try:
        return model.model_validate(content.get(section))
    except ValidationError as error:
        fault = error.errors()[0]
        problems.append(f"{file}: {section}: 缺少该部分或内容有误：{fault['loc']} {fault['msg']}")
        return None


def _check_unique(values: Iterable[tuple[str, str]], what: str) -> Iterator[str]:
    first: dict[str, str] = {}
    for where, value in values:
        if value in first:
            yield f"{where}: {what}“{value}”重复，已见于 {first[value]}"
        else:
            first[value] = where


def _check_known(where: str, values: Iterable[str], known: Iterable[str], what: str) -> Iterator[str]:
    known = set(known)
    return (f"{where}: 未知的{what}“{value}”" for value in values if value not in known)


def _check_codes(departments: Iterable[tuple[str, Department]]) -> Iterator[str]:
    for where, row in departments:
        try:
            code = normalise_uscc(row.code)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if code != row.code:
            yield f"{where}: 代码应写作“{code}”"
        if code[2:8] != row.region:
            yield f"{where}: 代码中的行政区划 {code[2:8]} 与 region {row.region} 不一致"


def _check_overlaps(rules: Iterable[tuple[str, Rule]]) -> Iterator[str]:
    groups: dict[tuple[str, str | None, str | None], list[tuple[str, Rule]]] = defaultdict(list)
    for where, rule in rules:
        for scope in rule.scopes or (None,):
            earlier = groups[rule.category, rule.tier, scope]
            for other_where, other in earlier:
                if _overlap(rule, other):
                    yield f"{where}: 有效期与同类别、同档次、同领域的 {other_where} 重叠"
            earlier.append((where, rule))


def _check_letters(
    templates: Sequence[tuple[str, LetterTemplate]],
    slugs: Iterable[str],
    categories: Iterable[str],
    remedies: Sequence[tuple[str, Remedy]],
) -> Iterator[str]:
    """Every kind has a row for every department and category, on every day from its first on; no two rows hold for the same."""
    seen: dict[tuple[LetterKind, str | None, str | None], list[tuple[str, LetterTemplate]]] = defaultdict(
        list
    )
    ids = {remedy.id for _, remedy in remedies}
    slugs, categories = set(slugs), set(categories)
    for where, row in templates:
        yield from _check_known(where, row.departments, slugs, "部门 slug ")
        yield from _check_known(where, row.categories, categories, "记录类别")
        yield from _check_known(where, [row.remedy] if row.remedy else [], ids, "救济")
        for key in _letter_keys(row):
            for other_where, other in seen[row.kind, *key]:
                if _overlap(row, other):
                    yield f"{where}: 有效期与同种类、同部门、同类别的 {other_where} 重叠"
            seen[row.kind, *key].append((where, row))
    for kind in LetterKind:
        general = sorted((row for _, row in seen[kind, None, None]), key=lambda row: row.effective_from)
        if not general:
            yield f"letters.yaml: templates: 缺少“{kind.value}”的通用模板（departments、categories 为空）"
        for row, following in pairwise(general):
            if (
                row.effective_to is not None
                and row.effective_to + timedelta(days=1) < following.effective_from
            ):
                yield f"letters.yaml: templates: “{kind.value}”的通用模板在{row.effective_to}之后中断"
        if general and general[-1].effective_to is not None:
            yield f"letters.yaml: templates: “{kind.value}”的通用模板在{general[-1].effective_to}之后中断"


def _overlap(one: InForce, other: InForce) -> bool:
    return one.effective_from <= (other.effective_to or date.max) and other.effective_from <= (
        one.effective_to or date.max
    )


def _check_circles(
    rules: Iterable[tuple[str, Rule]], conditions: Iterable[tuple[str, Condition]]
) -> Iterator[str]:
    """A record that had to wait for itself would wait for ever."""
    lists = {c.id: c.list_category for _, c in conditions if c.list_category}
    first: dict[str, set[str]] = defaultdict(set)
    for where, rule in rules:
        first[rule.category] |= {lists[condition] for condition in rule.conditions if condition in lists}
        try:
            TopologicalSorter(first).prepare()
        except CycleError as error:
            yield f"{where}: 条件使记录类别互相等待：{' → '.join(error.args[1])}"
            return


def _check_calendar(years: Iterable[tuple[str, CalendarYear]]) -> Iterator[str]:
    """What the library knows otherwise is a slip, unless the row says that it is not."""
    for where, row in years:
        if row.overrides or not library_knows(row.year):
            continue
        told = WorkCalendar({row.year: row.days})
        whole_year = (date(row.year, 1, 1) + timedelta(days=n) for n in range(366))
        for day in whole_year:
            if day.year == row.year and told.is_working_day(day) != LIBRARY_CALENDAR.is_working_day(day):
                known = "上班" if LIBRARY_CALENDAR.is_working_day(day) else "放假"
                yield f"{where}: {day} 与日历库不一致（库中为{known}）；通知确有变更的，写 overrides: true"
                break


def _check_order(targets: Iterable[tuple[str, Target]], departments: Iterable[str]) -> Iterator[str]:
    """Who is told after whom: known targets that can acknowledge, and nobody after itself."""
    rows = list(targets)
    by_letter = {t.id for _, t in rows if t.protocol is Protocol.LETTER}
    after: dict[str, set[str]] = {}
    slugs = set(departments)
    for where, row in rows:
        yield from _check_known(where, row.after, (t.id for _, t in rows), "在先平台")
        yield from _check_known(where, [row.agency] if row.agency else [], slugs, "代办单位")
        if unable := by_letter & set(row.after):
            yield f"{where}: after 中的平台“{'、'.join(sorted(unable))}”只能函告，不会确认"
        after[row.id] = set(row.after)
        try:
            TopologicalSorter(after).prepare()
        except CycleError as error:
            yield f"{where}: 平台互相等待：{' → '.join(error.args[1])}"
            return


def _check_rule_targets(rules: Iterable[tuple[str, Rule]], targets: Mapping[str, Target]) -> Iterator[str]:
    for where, rule in rules:
        yield from _check_known(where, rule.targets, targets, "同步平台")
        for target in rule.targets:
            if target in targets and rule.category not in targets[target].categories:
                yield f"{where}: 平台“{target}”不展示类别“{rule.category}”"


@lru_cache(maxsize=8)
def _load(directory: Path) -> Catalogue:
    problems: list[str] = []
    contents = {
        name: _read(directory / name, problems)
        for name in (
            "departments.yaml",
            "rules.yaml",
            "targets.yaml",
            "sources.yaml",
            "experts.yaml",
            "calendar.yaml",
            "letters.yaml",
        )
    }
    if problems:
        raise CatalogueError(problems)

    def rows(file: str, section: str, model: type[_R]) -> list[tuple[str, _R]]:
        return list(_rows(file, section, contents[file], model, problems))

    departments = rows("departments.yaml", "departments", Department)
    categories = rows("rules.yaml", "categories", Category)
    scopes = rows("rules.yaml", "scopes", Scope)
    kinds = rows("rules.yaml", "penalty_kinds", PenaltyKind)
    conditions = rows("rules.yaml", "conditions", Condition)
    sources = rows("sources.yaml", "sources", Source)
    experts = rows("experts.yaml", "experts", Expert)
    rules = rows("rules.yaml", "rules", Rule)
    overlays = rows("rules.yaml", "overlays", Overlay)
    objections = rows("rules.yaml", "objections", ObjectionRule)
    false_material = rows("rules.yaml", "false_material", FalseMaterialRule)
    in_person = rows("rules.yaml", "in_person", InPersonRule)
    targets = rows("targets.yaml", "targets", Target)
    # no year needs to be added as long as the library knows them all
    added = contents["calendar.yaml"].get("years") != []
    years = rows("calendar.yaml", "years", CalendarYear) if added else []
    templates = rows("letters.yaml", "templates", LetterTemplate)
    bases = rows("letters.yaml", "bases", LetterBasis)
    remedies = rows("letters.yaml", "remedies", Remedy)

    operator = _one("letters.yaml", "operator", contents["letters.yaml"], Operator, problems)
    queue = _one("departments.yaml", "human_queue", contents["departments.yaml"], HumanQueue, problems)

    problems += _check_codes(departments)
    problems += _check_unique(((w, d.code) for w, d in departments), "代码")
    slugs = [(w, d.slug) for w, d in departments]
    if queue:
        slugs.append(("departments.yaml: human_queue", queue.id))
    problems += _check_unique(slugs, "slug ")
    problems += _check_unique(
        ((w, normalise_name(n)) for w, d in departments for n in (d.name, *d.aliases)), "名称或别名"
    )
    problems += _check_unique(((w, c.id) for w, c in categories), "类别")
    problems += _check_unique(((w, s.id) for w, s in scopes), "领域")
    problems += _check_unique(((w, k.id) for w, k in kinds), "处罚种类")
    problems += _check_unique(((w, word) for w, k in kinds for word in k.words), "处罚类别用词")
    problems += _check_unique(((w, c.id) for w, c in conditions), "条件")
    problems += _check_unique(((w, r.number) for w, r in rules), "规则编号")
    problems += _check_unique(((w, o.id) for w, o in overlays), "叠加规则")
    problems += _check_unique(((w, t.id) for w, t in targets), "平台")
    numbers = [(w, o.number) for w, o in objections] + [(w, f.number) for w, f in false_material]
    numbers += [(w, row.number) for w, row in in_person]
    problems += _check_unique(numbers, "编号")
    category_ids = {c.id for _, c in categories}
    scope_ids = {s.id for _, s in scopes}
    condition_ids = {c.id for _, c in conditions}
    shown = [(w, d.categories) for w, d in departments] + [(w, t.categories) for w, t in targets]
    shown += [(w, o.categories) for w, o in objections]
    if objections and not any(not o.categories and o.effective_to is None for _, o in objections):
        problems.append("rules.yaml: objections: 须有一行适用于全部类别（categories 为空）且没有失效日")
    shown += [(w, row.categories) for w, row in in_person]
    if in_person and not any(not row.exactness and row.effective_to is None for _, row in in_person):
        problems.append(
            "rules.yaml: in_person: 须有一行适用于来源标明的记录（categories 和 departments 都为空）且没有失效日"
        )
    for where, row in in_person:
        problems += _check_known(where, row.departments, {d.slug for _, d in departments}, "部门")
    for where, ids in shown:
        problems += _check_known(where, ids, category_ids, "记录类别")
    for where, rule in rules:
        problems += _check_known(where, (rule.category,), category_ids, "记录类别")
        problems += _check_known(where, rule.scopes, scope_ids, "领域")
        problems += _check_known(where, rule.conditions, condition_ids, "条件")
    for where, condition in conditions:
        problems += _check_known(
            where, [condition.list_category] if condition.list_category else [], category_ids, "记录类别"
        )
    problems += _check_unique(((w, s.id) for w, s in sources), "来源")
    problems += _check_unique(((w, check) for w, s in sources for check in s.checks), "由一个来源核验的条件")
    problems += _check_unique(((w, e.id) for w, e in experts), "专家")
    codes = {d.code for _, d in departments}
    for where, expert in experts:
        problems += _check_known(
            where, [expert.organisation] if expert.organisation else [], codes, "部门代码"
        )
    for where, source in sources:
        problems += _check_known(where, source.checks, condition_ids, "条件")
    problems += _check_letters(templates, {d.slug for _, d in departments}, category_ids, remedies)
    for where, basis in bases:
        problems += _check_known(where, basis.categories, category_ids, "记录类别")
    problems += _check_circles(rules, conditions)
    problems += _check_order(targets, (d.slug for _, d in departments))
    problems += _check_rule_targets(rules, {t.id: t for _, t in targets})
    problems += _check_overlaps(rules)
    problems += _check_unique(((w, str(y.year)) for w, y in years), "年份")
    problems += _check_calendar(years)
    if problems or queue is None or operator is None:
        raise CatalogueError(problems)

    def bare(pairs: list[tuple[str, _R]]) -> tuple[_R, ...]:
        return tuple(row for _, row in pairs)

    return Catalogue(
        departments=bare(departments),
        human_queue=queue,
        categories=bare(categories),
        scopes=bare(scopes),
        penalty_kinds=bare(kinds),
        conditions=bare(conditions),
        rules=bare(rules),
        overlays=bare(overlays),
        objections=bare(objections),
        false_material=bare(false_material),
        in_person=bare(in_person),
        targets=bare(targets),
        sources=bare(sources),
        experts=bare(experts),
        calendar_years=bare(years),
        letters=Letters(
            operator=operator, templates=bare(templates), bases=bare(bases), remedies=bare(remedies)
        ),
    )


def load_catalogue(directory: Path | None = None) -> Catalogue:
    """Read and check all files of the catalogue; cached for each directory.

    Default: ``catalogue_data`` beside this module (in a wheel), else ``contracts/catalogue`` of the repository.

    Raises CatalogueError with one line for every fault, naming file and row.
    """
    return _load((directory or _default_directory()).resolve())
