"""All rows together, and the questions services ask of them. Pure; no clock: days are arguments."""

import calendar
import hashlib
import re
import unicodedata
from datetime import date, timedelta
from functools import cached_property
from typing import NamedTuple

from contracts.catalogue.rows import (
    CalendarYear,
    Category,
    Condition,
    Department,
    Expert,
    FalseMaterialRule,
    HumanQueue,
    InPersonRule,
    Letters,
    ObjectionRule,
    Overlay,
    PenaltyKind,
    Row,
    Rule,
    Scope,
    Source,
    Target,
    Tier,
    TimeLimits,
)
from contracts.events import ReferralReason
from contracts.records import RecordFacts, SubjectType
from contracts.working_days import WorkCalendar


class Resolution(NamedTuple):
    """A department, or why there is none (``reason_code``, and ``reason`` in zh-CN)."""

    department: Department | None
    reason: str = ""
    reason_code: ReferralReason | None = None


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
