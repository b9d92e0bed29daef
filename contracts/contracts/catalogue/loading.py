"""Reads ``catalogue/*.yaml`` and checks what no row can know by itself; every fault is named with its file and row."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from contracts.catalogue.questions import Catalogue, normalise_name
from contracts.catalogue.rows import (
    CalendarYear,
    Category,
    Condition,
    Department,
    Expert,
    FalseMaterialRule,
    HumanQueue,
    InForce,
    InPersonRule,
    LetterBasis,
    Letters,
    LetterTemplate,
    ObjectionRule,
    Operator,
    Overlay,
    PenaltyKind,
    Protocol,
    Remedy,
    Row,
    Rule,
    Scope,
    Source,
    Target,
    letter_keys,
)
from contracts.identifiers import normalise_uscc
from contracts.letters import LetterKind
from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar, library_knows


class CatalogueError(ValueError):
    """The catalogue cannot be used. ``problems``: one line each, naming file and row."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


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
    package = Path(__file__).resolve().parent.parent
    packed = package / "catalogue_data"
    return packed if packed.is_dir() else package.parent / "catalogue"


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
        for key in letter_keys(row):
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
    told = ((w, check) for w, s in sources for check in (*s.checks, *(advice.id for advice in s.advises)))
    problems += _check_unique(told, "由一个来源说明的事实")
    for where, source in sources:
        if taken := {advice.id for advice in source.advises} & condition_ids:
            problems.append(f"{where}: advises 与 rules.yaml 的条件同名：{'、'.join(sorted(taken))}")
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

    Default: ``catalogue_data`` beside this package (in a wheel), else ``contracts/catalogue`` of the repository.

    Raises CatalogueError with one line for every fault, naming file and row.
    """
    return _load((directory or _default_directory()).resolve())
