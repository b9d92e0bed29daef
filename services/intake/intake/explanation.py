"""Why a record may or may not be repaired on a day: every check with its rule and article, by the rules of both days. Pure."""

from collections.abc import Iterator, Sequence
from datetime import date

from contracts.catalogue import Catalogue, Condition, Evidence, Rule, Tier
from contracts.http.eligibility import Check, CheckResult, Explanation, RegimeAnswer, Repair, Transition
from intake.domain.record import Record
from intake.eligibility import applicable, assess, day_after, is_tier_binding

_RESULT_TEXT = {
    CheckResult.PASSED: "符合",
    CheckResult.FAILED: "不符合",
    CheckResult.PERSON: "由认定单位核实",
}
TIER_TEXT = {Tier.MINOR: "轻微", Tier.GENERAL: "一般", Tier.SERIOUS: "严重"}
_REGIME_TEXT = {
    Transition.APPLICATION_DAY: "按申请之日的规则",
    Transition.DECISION_DAY: "按作出决定之日的规则",
}


def explain(
    record: Record, others: Sequence[Record], catalogue: Catalogue, on: date, transition: Transition
) -> Explanation:
    """``others``: all records of the same subject that are known; ``record`` itself among them does not matter."""
    category = catalogue.category(record.facts.category)
    standing = [each for each in others if each.record_id != record.record_id and _stands(each)]
    answers: dict[str, RegimeAnswer] = {}
    for regime in _REGIME_TEXT:
        # what has been decided already, or is not ours, needs no rule
        repair = assess(record, catalogue, on, regime)
        rules = applicable(record, catalogue, on, regime)
        if repair.rule is not None and rules:
            answers.setdefault(
                rules[0].number, _answer(regime, repair, rules[0], record, standing, catalogue, on)
            )
    first = {other: None for answer in answers.values() for check in answer.checks for other in check.records}
    return Explanation(
        record_id=record.record_id,
        document_number=record.facts.document_number,
        category_name=category.name if category else record.facts.category,
        decided_on=record.facts.decided_on,
        on=on,
        transition=transition,
        repair=assess(record, catalogue, on, transition),
        first=[*first],
        regimes=[*answers.values()],
    )


def _stands(record: Record) -> bool:
    ended = record.repaired_at is not None and record.revoked_at is None
    return record.status == "published" and not ended


def _answer(
    regime: Transition,
    repair: Repair,
    rule: Rule,
    record: Record,
    standing: Sequence[Record],
    catalogue: Catalogue,
    on: date,
) -> RegimeAnswer:
    return RegimeAnswer(
        regime=regime,
        regime_text=_REGIME_TEXT[regime],
        repair=repair,
        rule=rule.number,
        decided_by=rule.decided_by,
        materials=[*rule.materials],
        accept_working_days=rule.accept_working_days,
        decide_working_days=rule.decide_working_days,
        extend_working_days=rule.extend_working_days,
        total_working_days=rule.total_working_days,
        targets=[*rule.targets],
        checks=[
            *_row_checks(rule, record, catalogue),
            *_time_checks(rule, record, on),
            *(_condition_check(each, record, standing) for each in catalogue.conditions_of(rule)),
        ],
    )


def _check(
    name: str, result: CheckResult, detail: str, source: str, evidence: Evidence, records: Sequence[str] = ()
) -> Check:
    if result is CheckResult.FAILED and not evidence.binding:
        result, detail = CheckResult.PERSON, f"{detail}；依据的证据等级为 {evidence}，不足以自动判断"
    return Check(
        name=name,
        result=result,
        result_text=_RESULT_TEXT[result],
        detail=detail,
        source=source,
        evidence=evidence,
        records=[*records],
    )


def _row_checks(rule: Rule, record: Record, catalogue: Catalogue) -> Iterator[Check]:
    """Whether it is certain that this row is the one."""
    facts = record.facts
    if rule.tier is not None:
        found = catalogue.tier_of(facts.penalty_kinds)
        certain = is_tier_binding(facts, catalogue)
        yield _check(
            "失信程度的档次",
            CheckResult.PASSED if certain else CheckResult.PERSON,
            f"处罚类别“{facts.penalty_kinds or '未填'}”，按“{TIER_TEXT[rule.tier]}”",
            found[1].source if found else rule.source,
            found[1].evidence if found else rule.grade("tier"),
        )
    if rule.scopes:
        scope = catalogue.scope_of(record.display.legal_basis)
        field = next((each for each in catalogue.scopes if each.id == scope), None)
        if field is not None:
            yield _check(
                "领域",
                CheckResult.PASSED if field.evidence.binding else CheckResult.PERSON,
                f"由处罚依据“{record.display.legal_basis}”推定为{field.name}领域",
                rule.source,
                field.evidence,
            )


def _time_checks(rule: Rule, record: Record, on: date) -> Iterator[Check]:
    decided_on, low, high = record.facts.decided_on, rule.min_publication_months, rule.max_publication_months
    first_day, last_day = day_after(decided_on, low), day_after(decided_on, high)
    if rule.repair == "on_application":
        grade = rule.grade("min_publication_months")
        if first_day is None:
            yield _check("最短公示期", CheckResult.PERSON, "期限不明或由名单自身规定", rule.source, grade)
        else:
            detail = f"{decided_on.isoformat()}起{low}个月，{first_day.isoformat()}届满"
            reached = CheckResult.PASSED if on >= first_day else CheckResult.FAILED
            yield _check("最短公示期已满", reached, detail, rule.source, grade)
    else:
        detail = {"by_itself": "期满自动停止公示，无需申请", "not_repairable": "不予提前修复"}.get(
            rule.repair, f"请向{rule.decided_by}申请"
        )
        yield _check("可以申请提前停止公示", CheckResult.FAILED, detail, rule.source, rule.grade("repair"))
    if last_day is not None:
        detail = f"{decided_on.isoformat()}起{high}个月，{last_day.isoformat()}届满后自动停止公示"
        ended = CheckResult.FAILED if on >= last_day else CheckResult.PASSED
        yield _check("仍在公示期内", ended, detail, rule.source, rule.grade("max_publication_months"))


def _condition_check(condition: Condition, record: Record, standing: Sequence[Record]) -> Check:
    def outcome(result: CheckResult, detail: str, against: Sequence[Record] = ()) -> Check:
        named = [each.record_id for each in against]
        return _check(condition.name, result, detail, condition.source, condition.evidence, named)

    if condition.judged_by == "department":
        return outcome(CheckResult.PERSON, "须有证明材料，由认定单位核实")
    if condition.list_category is not None:
        listed = [each for each in standing if each.facts.category == condition.list_category]
        if listed:
            return outcome(CheckResult.FAILED, f"现有{_named(listed)}，须先办理", listed)
        return outcome(CheckResult.PASSED, "本平台所知的记录中没有；以认定单位的系统为准")
    later = [
        each
        for each in standing
        if each.facts.category == record.facts.category and each.facts.decided_on > record.facts.decided_on
    ]
    kind = record.display.violation_type
    alike = [each for each in later if not kind or each.display.violation_type in ("", kind)]
    if alike:
        return outcome(CheckResult.PERSON, f"此后又有{_named(alike)}，是否同一类违法由认定单位认定")
    return outcome(CheckResult.PASSED, "本平台所知的记录中没有；以认定单位的系统为准")


def _named(records: Sequence[Record]) -> str:
    shown = "、".join(each.facts.document_number for each in records[:3])
    return shown if len(records) <= 3 else f"{shown}等{len(records)}条"
