"""The catalogue: the shipped one holds, and every broken copy is refused with a line that names the row."""

import csv
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from contracts.catalogue import (
    Catalogue,
    CatalogueError,
    InPersonRule,
    Tier,
    add_months,
    load_catalogue,
)
from contracts.events import ReferralReason
from contracts.identifiers import (
    normalise_document_number,
    normalise_id_number,
    normalise_uscc,
    record_id,
)
from contracts.penalty_feed import COLUMNS
from contracts.records import RecordFacts, SubjectType
from xinfu.sample import DEMO_SUBJECT, write_sample

TODAY = date(2026, 11, 23)
SHIPPED = Path(__file__).parents[2] / "contracts" / "catalogue"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


# --- the shipped catalogue ---------------------------------------------------------------------------------------


def test_shipped_catalogue_has_the_departments_it_promises(catalogue: Catalogue) -> None:
    municipal = [d for d in catalogue.departments if d.level == "municipal"]
    assert len(municipal) >= 35  # the founding article: 35 departments
    assert {d.level for d in catalogue.departments} == {"national", "provincial", "municipal", "district"}
    assert sum(d.level == "district" for d in catalogue.departments) >= 6
    assert {d.mode for d in catalogue.departments} == {"desk", "api", "files", "events"}
    # the two that call back, and one that has to be asked
    assert sorted((d.name, d.callbacks) for d in catalogue.departments if d.mode == "api") == [
        ("杭州市市场监督管理局", True),
        ("杭州市烟草专卖局", False),
        ("杭州市生态环境局", True),
    ]
    assert (catalogue.human_queue.id, catalogue.human_queue.name) == (
        "hz-credit-centre",
        "杭州市信用中心 人工分派席",
    )


def test_every_department_has_a_synthetic_but_valid_code(catalogue: Catalogue) -> None:
    for department in catalogue.departments:
        assert normalise_uscc(department.code) == department.code
        assert department.code[:2] == "11"
        assert department.code[8:10] == "XF", "only synthetic codes are shipped"


def test_every_grantable_category_has_a_department_a_rule_and_a_target(catalogue: Catalogue) -> None:
    for category in catalogue.categories:
        deciding = [d for d in catalogue.departments if category.id in d.categories]
        assert bool(deciding) == category.grantable, category.id
        assert any(r.category == category.id and r.in_force(TODAY) for r in catalogue.rules), category.id
        assert catalogue.targets_for(category.id, SubjectType.LEGAL_PERSON), category.id


def test_rows_of_the_domain_table_are_all_there(catalogue: Catalogue) -> None:
    numbers = {r.number for r in catalogue.rules} | {o.number for o in catalogue.overlays}
    assert {str(n) for n in range(1, 23)} <= numbers


def test_catalogue_is_immutable_and_cached(catalogue: Catalogue) -> None:
    assert load_catalogue() is catalogue
    assert load_catalogue(SHIPPED) is catalogue
    with pytest.raises(ValidationError):
        catalogue.departments[0].name = "改"  # type: ignore[misc]


# --- rules -------------------------------------------------------------------------------------------------------

OLD, NEW = date(2026, 3, 31), date(2026, 4, 1)


@pytest.mark.parametrize(
    ("category", "tier", "scope", "on", "number", "months"),
    [
        ("administrative_penalty", "minor", None, NEW, "1", (0, 3)),
        ("administrative_penalty", "general", None, NEW, "2", (3, 12)),
        ("administrative_penalty", "serious", None, NEW, "3", (12, 36)),
        ("administrative_penalty", "serious", "food", NEW, "3", (12, 36)),
        ("administrative_penalty", "general", None, OLD, "5", (3, 36)),
        ("administrative_penalty", "general", "fire", OLD, "6", (12, 36)),
        ("administrative_penalty", "minor", "fire", OLD, "7", (None, None)),
        ("administrative_penalty", "general", None, date(2023, 4, 30), "22", (3, 12)),
        ("administrative_penalty", "serious", "specific_serious", date(2023, 4, 30), "22b", (36, 36)),
        ("serious_dishonesty_list", "serious", None, NEW, "4", (12, 36)),
        ("serious_dishonesty_list", "serious", None, OLD, "8", (None, None)),
        ("samr_administrative_penalty", "general", None, NEW, "9", (6, 36)),
        ("samr_administrative_penalty", "serious", "food", OLD, "10", (12, 36)),
        ("samr_administrative_penalty", "general", "fire", OLD, "9", (6, 36)),
        ("samr_administrative_penalty", "minor", None, NEW, "11", (3, 3)),
        ("abnormal_operation_list", None, None, NEW, "12", (0, None)),
        ("individual_business_abnormal_status", None, None, NEW, "13", (0, None)),
        ("serious_illegal_list", "serious", None, NEW, "14", (12, 36)),
        ("judgment_defaulter", None, None, NEW, "15", (0, 24)),
        ("wage_arrears_list", "serious", None, NEW, "16", (6, 36)),
        ("major_tax_violation", "serious", None, NEW, "17", (None, 36)),
        ("zhejiang_adverse_information", "serious", "fire", NEW, "19b", (36, 60)),
    ],
)
def test_rule_for(
    catalogue: Catalogue,
    category: str,
    tier: str | None,
    scope: str | None,
    on: date,
    number: str,
    months: tuple[int | None, int | None],
) -> None:
    rule = catalogue.rule_for(category, tier, scope, on)
    assert rule is not None
    assert rule.number == number
    assert (rule.min_publication_months, rule.max_publication_months) == months


def test_no_rule_is_invented(catalogue: Catalogue) -> None:
    assert catalogue.rule_for("administrative_penalty", "general", None, date(2019, 6, 30)) is None
    assert catalogue.rule_for("no_such", None, None, NEW) is None
    # 36号令 knows a penalty only by its tier: without one a person decides.
    assert catalogue.rule_for("administrative_penalty", None, None, NEW) is None


def test_evidence_tells_binding_numbers_from_advice(catalogue: Catalogue) -> None:
    rule = catalogue.rule_for("administrative_penalty", Tier.GENERAL, None, NEW)
    assert rule is not None
    assert rule.grade("min_publication_months").value == "S"
    assert rule.grade("min_publication_months").binding
    assert rule.grade("decide_working_days").value == "M"
    assert not rule.grade("decide_working_days").binding
    local = catalogue.rule_for("zhejiang_adverse_information", None, None, NEW)
    assert local is not None
    assert not local.grade("min_publication_months").binding


def test_overlays_hold_from_their_day(catalogue: Catalogue) -> None:
    promise = catalogue.overlay("hangzhou_one_thing", TODAY)
    assert promise is not None
    assert promise.department_working_days == 5
    assert catalogue.overlay("hangzhou_one_thing", date(2023, 5, 31)) is None
    assert catalogue.overlay("no_such", TODAY) is None


@pytest.mark.parametrize(
    ("text", "tier", "kind"),
    [
        ("警告", "minor", "warning"),
        ("罚款", "general", "fine"),
        ("警告、罚款", "general", "fine"),
        ("没收违法所得、没收非法财物", "general", "confiscate_gains"),
        ("罚款；责令停产停业", "serious", "suspend_business"),
        ("警告,通报批评", "minor", "warning"),
        ("吊销营业执照", "serious", "revoke_business_licence"),
        ("暂扣许可证件", "general", "suspend_licence"),
        ("暂扣或者吊销许可证", "serious", "suspend_or_revoke"),
        ("罚款０．５万元", "general", "fine"),
        ("警告罚款", "general", "fine"),
        ("行政拘留", "serious", "detention"),
        ("其他-责令改正", "general", "other"),
    ],
)
def test_tier_of_penalty_kinds(catalogue: Catalogue, text: str, tier: str, kind: str) -> None:
    found = catalogue.tier_of(text)
    assert found is not None
    assert (found[0], found[1].id) == (tier, kind)


@pytest.mark.parametrize("text", ["", " 、", "行业惩戒", "罚款、行业惩戒", "不予罚款", "警告；免予没收"])
def test_unknown_penalty_kinds_are_left_to_a_person(catalogue: Catalogue, text: str) -> None:
    assert catalogue.tier_of(text) is None


def test_scope_of_the_legal_basis(catalogue: Catalogue) -> None:
    assert catalogue.scope_of("《中华人民共和国食品安全法》第一百二十五条") == "food"
    assert catalogue.scope_of("《中华人民共和国 消防法》第六十条") == "fire"
    assert catalogue.scope_of("《中华人民共和国行政处罚法》") is None


def test_add_months_clamps_to_the_end_of_the_month() -> None:
    assert add_months(date(2025, 8, 31), 6) == date(2026, 2, 28)
    assert add_months(date(2023, 11, 30), 3) == date(2024, 2, 29)
    assert add_months(date(2026, 1, 31), -2) == date(2025, 11, 30)
    assert add_months(date(2026, 12, 15), 1) == date(2027, 1, 15)


# --- departments and targets -------------------------------------------------------------------------------------


def test_resolve_by_code_name_and_alias(catalogue: Catalogue) -> None:
    emergency = catalogue.by_slug("hz-yjj")
    assert emergency is not None
    assert catalogue.department(emergency.code) is emergency
    for code, name in [
        (emergency.code, emergency.name),
        (emergency.code, ""),
        (f" {emergency.code.lower()} ", "一个目录中没有的写法"),
        (None, " 杭州市应急　管理局"),
        ("110000000000000000", "杭州市应急管理局"),  # a code we do not know is no reason to ask a person
        (None, "杭州市安全生产监督管理局"),
    ]:
        found = catalogue.resolve_department(code, name, "administrative_penalty", TODAY)
        assert found.department is emergency, (code, name)
        assert found.reason == ""


@pytest.mark.parametrize(
    ("slug", "name", "category", "on", "reason_code", "says"),
    [
        (None, "杭州市不存在局", "administrative_penalty", TODAY, "unknown_department", "杭州市不存在局"),
        (None, "", "administrative_penalty", TODAY, "unknown_department", "未填写"),
        (None, "应急管理局", "administrative_penalty", TODAY, "unknown_department", "应急管理局"),
        ("hz-yjj", "杭州市公安局", "administrative_penalty", TODAY, "ambiguous_department", "不一致"),
        ("hz-gaj", "", "abnormal_operation_list", TODAY, "category_not_decided", "不认定"),
        ("hz-samr", "", "administrative_penalty", TODAY, "category_not_decided", "不认定"),
        ("hz-gaj", "", "judgment_defaulter", TODAY, "category_not_decided", "执行法院"),
        ("hz-gaj", "", "no_such", TODAY, "category_not_decided", "no_such"),
        ("hz-gaj", "", "administrative_penalty", date(2018, 12, 31), "not_in_force", "2018-12-31"),
    ],
)
def test_unresolved_says_why(
    catalogue: Catalogue, slug: str | None, name: str, category: str, on: date, reason_code: str, says: str
) -> None:
    department = catalogue.by_slug(slug) if slug else None
    found = catalogue.resolve_department(department.code if department else None, name, category, on)
    assert found.department is None
    assert found.reason_code == ReferralReason(reason_code)
    assert says in found.reason


def test_market_supervision_penalties_get_their_own_category(catalogue: Catalogue) -> None:
    for department in catalogue.departments:
        category = catalogue.penalty_category(department.code, department.name)
        found = catalogue.resolve_department(department.code, department.name, category, TODAY)
        assert found.department is department, found.reason
    assert catalogue.penalty_category(None, "杭州市工商行政管理局") == "samr_administrative_penalty"
    assert catalogue.penalty_category(None, "不认识的机关") == "administrative_penalty"


def test_natural_persons_never_reach_vendors(catalogue: Catalogue) -> None:
    everybody = [t.id for t in catalogue.targets_for("administrative_penalty", "legal_person")]
    assert everybody == [t.id for t in catalogue.targets if t.id != "gsxt"], "gsxt: market supervision alone"
    assert everybody == [
        t.id for t in catalogue.targets_for("administrative_penalty", SubjectType.SOLE_TRADER)
    ]
    persons = catalogue.targets_for("administrative_penalty", SubjectType.NATURAL_PERSON)
    assert [t.id for t in persons] == ["credit-zhejiang", "credit-hangzhou"]
    assert catalogue.targets_for("no_such", SubjectType.LEGAL_PERSON) == ()
    with pytest.raises(ValueError, match="alien"):
        catalogue.targets_for("administrative_penalty", "alien")


def test_what_goes_by_no_system_is_marked_by_category_department_or_feed(catalogue: Catalogue) -> None:
    facts = RecordFacts(
        record_id="rec_" + "a1" * 16,
        subject_id="sub_" + "0" * 32,
        subject_type=SubjectType.LEGAL_PERSON,
        category="administrative_penalty",
        document_number="杭教罚〔2026〕7号",
        authority_code=None,
        authority_name="杭州市教育局",
        decided_on=TODAY,
        penalty_kinds="罚款",
    )
    assert catalogue.told(facts, TODAY) is facts, "most records go by system"
    flagged = catalogue.told(facts.model_copy(update={"in_person": True}), TODAY)
    assert (flagged.document_number, flagged.penalty_kinds) == ("线下办理〔A1A1A1A1〕", "")
    assert catalogue.told(flagged, TODAY) == flagged
    assert (catalogue.targets_of(flagged), len(catalogue.targets_of(facts)) > 0) == ((), True)

    def rule(number: str, **marks: object) -> InPersonRule:
        general = catalogue.in_person[0].model_dump()
        return InPersonRule.model_validate({**general, "number": number, **marks})

    school = {"departments": ["hz-jyj"]}
    rows = (rule("A", categories=["administrative_penalty"]), rule("B", **school))
    exact = rule("C", categories=["administrative_penalty"], **school, effective_to="2026-01-01")
    marking = catalogue.model_copy(update={"in_person": (*catalogue.in_person, *rows, exact)})
    found = marking.in_person_rule(facts, date(2026, 1, 1))
    assert found is not None
    assert found.number == "C"
    later = marking.in_person_rule(facts, date(2026, 1, 2))
    assert later is not None
    assert later.number in "AB"
    elsewhere = facts.model_copy(
        update={"category": "abnormal_operation_list", "authority_name": "杭州市财政局"}
    )
    assert marking.told(elsewhere, TODAY) is elsewhere


# --- broken copies -----------------------------------------------------------------------------------------------


def _row(content: Content, section: str, **key: str) -> Content:
    ((name, value),) = key.items()
    return next(row for row in content[section] if row[name] == value)


def _set(section: str, key: tuple[str, str], **changes: object) -> Callable[[Content], object]:
    return lambda content: _row(content, section, **dict([key])).update(changes)


EDUCATION, FINANCE = ("slug", "hz-jyj"), ("slug", "hz-czj")

BROKEN: dict[str, tuple[str, Callable[[Content], object], str]] = {
    "nothing says how what the feed marks is handed over": (
        "rules.yaml",
        _set("in_person", ("number", "P1"), categories=["administrative_penalty"]),
        r"in_person: 须有一行适用于来源标明的记录",
    ),
    "in person at a department nobody knows": (
        "rules.yaml",
        _set("in_person", ("number", "P1"), departments=["nowhere"]),
        r"P1.*未知的部门.*nowhere",
    ),
    "check digit": (
        "departments.yaml",
        _set("departments", EDUCATION, code="11330100XF00000030"),
        r"杭州市教育局.*校验位错误：第18位应为“3”",
    ),
    "code not normal": (
        "departments.yaml",
        _set("departments", EDUCATION, code="11330100xf00000033"),
        r"杭州市教育局.*代码应写作“11330100XF00000033”",
    ),
    "region of code": (
        "departments.yaml",
        _set("departments", EDUCATION, region="330000"),
        r"杭州市教育局.*330100 与 region 330000 不一致",
    ),
    "duplicate code": (
        "departments.yaml",
        _set("departments", FINANCE, code="11330100XF00000033"),
        r"杭州市财政局.*代码“11330100XF00000033”重复.*杭州市教育局",
    ),
    "duplicate slug": (
        "departments.yaml",
        _set("departments", FINANCE, slug="hz-jyj"),
        r"杭州市财政局.*slug “hz-jyj”重复.*杭州市教育局",
    ),
    "slug of the human queue": (
        "departments.yaml",
        _set("departments", FINANCE, slug="hz-credit-centre"),
        r"human_queue: slug “hz-credit-centre”重复.*杭州市财政局",
    ),
    "slug unsafe in a topic": (
        "departments.yaml",
        _set("departments", EDUCATION, slug="HZ_教育"),
        r"杭州市教育局.*slug: ",
    ),
    "alias is another's name, in another width": (
        "departments.yaml",
        _set("departments", FINANCE, aliases=["杭州市 教育局"]),
        r"杭州市财政局.*名称或别名“杭州市教育局”重复.*杭州市教育局",
    ),
    "unknown category of a department": (
        "departments.yaml",
        _set("departments", EDUCATION, categories=["no_such"]),
        r"杭州市教育局.*未知的记录类别“no_such”",
    ),
    "unknown field": (
        "departments.yaml",
        _set("departments", EDUCATION, colour="red"),
        r"杭州市教育局.*colour: ",
    ),
    "missing field": (
        "departments.yaml",
        lambda c: _row(c, "departments", slug="hz-jyj").pop("evidence"),
        r"杭州市教育局.*evidence: ",
    ),
    "dates out of order": (
        "departments.yaml",
        _set("departments", EDUCATION, effective_to=date(2018, 1, 1)),
        r"杭州市教育局.*effective_to 早于 effective_from",
    ),
    "no human queue": ("departments.yaml", lambda c: c.pop("human_queue"), r"human_queue: 缺少该部分"),
    "no departments": ("departments.yaml", lambda c: c.update(departments=[]), r"缺少 departments 部分"),
    "a row that is no mapping": (
        "departments.yaml",
        lambda c: c["departments"].append("杭州市某局"),
        r"departments 第\d+行（杭州市某局）",
    ),
    "unknown category of a rule": (
        "rules.yaml",
        _set("rules", ("number", "3"), category="no_such"),
        r"rules 第3行（3）: 未知的记录类别“no_such”",
    ),
    "unknown scope": (
        "rules.yaml",
        _set("rules", ("number", "6"), scopes=["food", "no_such"]),
        r"第6行（6）: 未知的领域“no_such”",
    ),
    "unknown condition": (
        "rules.yaml",
        _set("rules", ("number", "9"), conditions=["no_such"]),
        r"第9行（9）: 未知的条件“no_such”",
    ),
    "unknown list of a condition": (
        "rules.yaml",
        _set("conditions", ("id", "not_on_serious_list"), list_category="no_such"),
        r"（未在严重违法失信名单中）: 未知的记录类别“no_such”",
    ),
    "a list that only a department can tell": (
        "rules.yaml",
        _set("conditions", ("id", "cause_gone"), list_category="serious_illegal_list"),
        r"（列入.*）: .*list_category 只用于",
    ),
    "categories that wait for each other": (
        "rules.yaml",
        lambda c: (
            _row(c, "rules", number="12").update(conditions=["not_on_serious_list"]),
            _row(c, "rules", number="14").update(conditions=["not_on_abnormal_list"]),
        ),
        r"互相等待：",
    ),
    "unknown target of a rule": (
        "rules.yaml",
        _set("rules", ("number", "3"), targets=["no-such"]),
        r"第3行（3）: 未知的同步平台“no-such”",
    ),
    "target does not show the category": (
        "rules.yaml",
        _set("rules", ("number", "15"), targets=["credit-zhejiang"]),
        r"（15）: 平台“credit-zhejiang”不展示类别“judgment_defaulter”",
    ),
    "overlap by one day": (
        "rules.yaml",
        _set("rules", ("number", "8"), tier="serious", effective_to=date(2026, 4, 1)),
        r"（8）: 有效期与.*（4） 重叠",
    ),
    "overlap in one scope": (
        "rules.yaml",
        _set("rules", ("number", "9"), scopes=["drug"]),
        r"（10）: 有效期与.*（9） 重叠",
    ),
    "minimum above maximum": (
        "rules.yaml",
        _set("rules", ("number", "2"), min_publication_months=13),
        r"（2）: .*min_publication_months 大于",
    ),
    "negative months": (
        "rules.yaml",
        _set("rules", ("number", "2"), min_publication_months=-1),
        r"（2）: min_publication_months: ",
    ),
    "evidence grade": ("rules.yaml", _set("rules", ("number", "2"), evidence="Q"), r"（2）: evidence: "),
    "evidence of an unknown field": (
        "rules.yaml",
        _set("rules", ("number", "2"), evidence_of={"colour": "M"}),
        r"（2）: .*evidence_of 含未知字段：colour",
    ),
    "duplicate rule number": (
        "rules.yaml",
        _set("rules", ("number", "16"), number="15"),
        r"（15）: 规则编号“15”重复",
    ),
    "word of two penalty kinds": (
        "rules.yaml",
        _set("penalty_kinds", ("id", "other"), words=["罚款"]),
        r"other.*处罚类别用词“罚款”重复.*fine",
    ),
    "referred to nobody": (
        "rules.yaml",
        _set("categories", ("id", "judgment_defaulter"), refer_to=None),
        r"失信被执行人名单.*refer_to",
    ),
    "vendor gets natural persons": (
        "targets.yaml",
        _set("targets", ("id", "qichacha"), natural_persons=True),
        r"企查查.*自然人记录不得送第三方",
    ),
    "duplicate target": (
        "targets.yaml",
        _set("targets", ("id", "tianyancha"), id="qichacha"),
        r"天眼查.*平台“qichacha”重复",
    ),
    "unknown category of a target": (
        "targets.yaml",
        _set("targets", ("id", "tianyancha"), categories=["administrative_penalty", "no_such"]),
        r"天眼查.*未知的记录类别“no_such”",
    ),
}


@pytest.fixture(scope="module")
def contents() -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in SHIPPED.glob("*.yaml")}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_copy_is_refused_naming_the_row(name: str, contents: dict[str, str], tmp_path: Path) -> None:
    file, spoil, says = BROKEN[name]
    for each, text in contents.items():
        (tmp_path / each).write_text(text, encoding="utf-8")
    content = yaml.safe_load(contents[file])
    spoil(content)
    (tmp_path / file).write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path)
    hits = [line for line in caught.value.problems if line.startswith(file) and re.search(says, line)]
    assert len(hits) == 1, caught.value.problems
    assert "\n" not in hits[0]


def test_all_faults_are_told_at_once(contents: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "c")
    content = yaml.safe_load(contents["departments.yaml"])
    # one that no expert belongs to: else its expert would be a fault too
    _row(content, "departments", slug="hz-mzj")["code"] = "11330100XF00000050"
    _row(content, "departments", slug="hz-czj")["slug"] = "hz-gaj"
    (tmp_path / "c" / "departments.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(tmp_path / "c")
    assert len(caught.value.problems) == 2
    assert str(caught.value) == "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "无法读取"),
        ("targets: [", "无法读取"),
        ("- a\n- b\n", "应为"),
        ("targets:\n  - id: a\n    id: b\n", "字段 id 重复"),
    ],
)
def test_unreadable_file_is_named(text: str | None, says: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "c")
    broken = tmp_path / "c" / "targets.yaml"
    if text is None:
        broken.unlink()
    else:
        broken.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError, match=rf"^targets\.yaml: .*{says}") as caught:
        load_catalogue(tmp_path / "c")
    assert len(caught.value.problems) == 1


# --- the sample feed ---------------------------------------------------------------------------------------------


def _read(path: Path, encoding: str = "utf-8") -> list[dict[str, str]]:
    with path.open(encoding=encoding, newline="") as file:
        return list(csv.DictReader(file))


def _faults_of(row: dict[str, str]) -> list[str]:
    """What is wrong with a row, judged by the identifiers alone (duplicates apart)."""
    faults = []
    checks: list[Callable[[], object]] = [
        lambda: normalise_document_number(row["CF_WSH"]),
        lambda: (
            normalise_id_number(row["CF_XDR_ZJHM"], today=TODAY)
            if row["CF_XDR_LB"] == "自然人"
            else normalise_uscc(row["CF_XDR_SHXYM"])
        ),
        lambda: date.fromisoformat(row["CF_JDRQ"]),
        lambda: float(row["CF_NR_FK"] or 0),
    ]
    for check in checks:
        try:
            check()
        except ValueError as error:
            faults.append(str(error))
    if not faults and date.fromisoformat(row["CF_JDRQ"]) > TODAY:
        faults.append("future")
    if row["CF_NR_FK"].startswith("-"):
        faults.append("negative")
    if not row["CF_XDR_MC"].strip():
        faults.append("name")
    if row["CF_XDR_LB"] not in ("法人及非法人组织", "个体工商户", "自然人"):
        faults.append("subject type")
    return faults


def test_sample_has_exactly_the_bad_rows_it_names(tmp_path: Path, catalogue: Catalogue) -> None:
    sample = write_sample(tmp_path / "s.csv", today=TODAY)
    rows = _read(sample.path)
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == sample.rows == 200
    assert sample.rejected_rows == 12
    assert sample.accepted_rows == 188
    assert len({bad.fault for bad in sample.bad_rows}) == 12
    named = {bad.line - 2: bad.fault for bad in sample.bad_rows}

    seen = set()
    for index, row in enumerate(rows):
        faults = _faults_of(row)
        if named.get(index) == "duplicate":
            assert row in rows[:index]
        elif index in named:
            assert len(faults) == 1, (named[index], faults)
        else:
            assert faults == []
            subject = row["CF_XDR_SHXYM"] or row["CF_XDR_ZJHM"]
            seen.add(record_id(row["CF_CFJGDM"], row["CF_WSH"], subject))
            category = catalogue.penalty_category(row["CF_CFJGDM"], row["CF_CFJG"])
            assert catalogue.resolve_department(row["CF_CFJGDM"], row["CF_CFJG"], category, TODAY).department
    assert len(seen) == sample.accepted_rows
    assert {"自然人", "个体工商户", "法人及非法人组织"} <= {row["CF_XDR_LB"] for row in rows}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_sample_is_the_same_for_the_same_seed_and_day(tmp_path: Path, encoding: str) -> None:
    first = write_sample(tmp_path / "a.csv", 40, 7, encoding, today=TODAY)
    again = write_sample(tmp_path / "b.csv", 40, 7, encoding, today=TODAY)
    other = write_sample(tmp_path / "c.csv", 40, 8, encoding, today=TODAY)
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.bad_rows == again.bad_rows
    assert first.path.read_bytes() != other.path.read_bytes()
    assert _read(first.path, encoding)[0]["CF_XDR_MC"] == DEMO_SUBJECT.name


@pytest.mark.parametrize("today", [TODAY, date(2028, 2, 29), date(2027, 8, 31)])
def test_demo_subject_owns_three_repairable_records(
    tmp_path: Path, catalogue: Catalogue, today: date
) -> None:
    sample = write_sample(tmp_path / "s.csv", today=today)
    duplicates = {bad.line - 2 for bad in sample.bad_rows if bad.fault == "duplicate"}
    own = [
        row
        for index, row in enumerate(_read(sample.path))
        if row["CF_XDR_SHXYM"] == DEMO_SUBJECT.code and index not in duplicates
    ]
    assert [row["CF_CFJG"] for row in own] == ["杭州市市场监督管理局", "杭州市生态环境局", "杭州市应急管理局"]
    for row in own:
        decided = date.fromisoformat(row["CF_JDRQ"])
        tier = catalogue.tier_of(row["CF_CFLB"])
        assert tier is not None
        category = catalogue.penalty_category(row["CF_CFJGDM"], row["CF_CFJG"])
        # Which regime holds for a record decided before 2026-04-01 is a policy: it must be repairable under both.
        for regime in (decided, today):
            rule = catalogue.rule_for(category, tier[0], catalogue.scope_of(row["CF_YJ"]), regime)
            assert rule is not None
            assert rule.repair == "on_application"
            assert rule.min_publication_months is not None
            assert rule.max_publication_months is not None
            assert add_months(decided, rule.min_publication_months) <= today
            assert add_months(decided, rule.max_publication_months) > add_months(today, 12)


def test_sample_needs_room_for_its_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="至少30行"):
        write_sample(tmp_path / "s.csv", rows=29, today=TODAY)
    assert not (tmp_path / "s.csv").exists()
