"""The rows of ``catalogue/*.yaml``: what each says, and what is right within itself."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.letters import DECISIONS, OF_ITEMS, OF_OBJECTIONS, LetterKind, template_faults
from contracts.working_days import first_day

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
    four_eyes: tuple[Literal["grant", "refuse", "revoke", "uphold", "dismiss"], ...] = ()
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


class Advice(Row):
    """A fact that no rule asks for, but that whoever decides should know. It is put so that ``pass`` means: nothing to look at."""

    id: str = Field(pattern=r"^[a-z0-9_]{2,60}$")
    name: Text


class Source(Row):
    """A source of facts outside: which conditions (``checks``) it can tell about, and what else (``advises``) of any item."""

    id: Slug
    name: Text
    tells: Text
    checks: tuple[str, ...] = ()
    advises: tuple[Advice, ...] = ()
    source: Text
    evidence: Evidence

    @model_validator(mode="after")
    def _tells_something(self) -> "Source":
        if not self.checks and not self.advises:
            raise ValueError("checks 与 advises 至少填一项：什么都不能说明的来源不用列出")
        return self


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
            for key in letter_keys(row)
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


def letter_keys(row: LetterTemplate) -> list[tuple[str | None, str | None]]:
    """(department slug, category id) for which the template is; None: for all."""
    return [(d, c) for d in row.departments or (None,) for c in row.categories or (None,)]
