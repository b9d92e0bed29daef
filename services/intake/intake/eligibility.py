"""Whether a record may be repaired today: a pure function over the rows of the catalogue.

A row refuses nobody unless the evidence of the very cell is binding (``Evidence.binding``). Where it is not certain which row
holds, all that may hold have to refuse: the field of law is only guessed from 处罚依据, and no text was read that says whether
the rule of the day of the decision or of the day of the application holds (domain notes, section 11, gap 8): a setting says
which (``Transition``). Everything else is advice, and the department decides. Why, check by check: ``intake.explanation``.
"""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from contracts.catalogue import Catalogue, Evidence, Overlay, Rule, add_months
from contracts.http.eligibility import Repair, RepairStatus, Transition
from contracts.records import RecordFacts, SubjectType
from intake.domain.record import Record, Shield

STATUS_TEXT = {
    RepairStatus.REPAIRABLE: "可申请修复",
    RepairStatus.NOT_YET: "暂不能申请",
    RepairStatus.ADVISED: "可申请，由认定单位判断",
    RepairStatus.UNDER_APPLICATION: "办理中",
    RepairStatus.ENDED: "公示期已满",
    RepairStatus.NOT_OURS: "请向其他单位申请",
    RepairStatus.REPAIRED: "已修复",
    RepairStatus.REVOKED: "修复已撤销",
    RepairStatus.WITHDRAWN: "记录已撤回",
    RepairStatus.BARRED: "目前不得申请",
}


class _Verdict(NamedTuple):
    """What one row says: ``refuses`` only with binding evidence."""

    rule: Rule
    status: RepairStatus
    first_day: date | None
    last_day: date | None
    evidence: Evidence
    advice: str

    @property
    def refuses(self) -> bool:
        return not self.status.may_apply


_UNSURE = "现有依据不足以自动判断，可以提交申请，由认定单位决定。"


def assess(
    record: Record, catalogue: Catalogue, today: date, transition: Transition = Transition.EITHER
) -> Repair:
    """Whether ``record`` may be repaired on ``today`` (the day in China), and what to tell the subject."""
    if record.status == "withdrawn":
        return _plain(RepairStatus.WITHDRAWN, "该记录已由认定单位撤回，无需申请。")
    if record.revoked_at is not None:
        # The law bars the subject for some years. No text that says for how many was read, so it is barred until one is.
        return _plain(
            RepairStatus.REVOKED,
            "该记录的修复已被认定单位撤销，恢复公示，目前不能再次申请；对撤销不服的，可以对该事项提出异议。",
        )
    if record.result_objection_id is not None:
        return _plain(
            RepairStatus.UNDER_APPLICATION,
            "对该记录上次办理结果的异议正在办理，有结果后再申请；请在“我的异议”中查看进度。",
        )
    if record.repaired_at is not None:
        return _plain(RepairStatus.REPAIRED, "该记录已完成修复。")
    if record.application_id is not None:
        return _plain(RepairStatus.UNDER_APPLICATION, "该记录已在申请中，请查看办理进度。")
    facts = record.facts
    if record.expired_on is not None:
        return _plain(
            RepairStatus.ENDED,
            f"公示期已于{record.expired_on.isoformat()}届满，已自动停止公示，无需申请；如仍在展示，请向认定单位反映。",
        )
    category = catalogue.category(facts.category)
    if category is not None and category.refer_to is not None:
        return _plain(
            RepairStatus.NOT_OURS,
            f"“{category.name}”不由本平台受理，请向{category.refer_to}申请。",
            category.refer_to,
        )
    rules = applicable(record, catalogue, today, transition)
    if not rules:
        return _plain(RepairStatus.ADVISED, f"规则目录中没有适用的规则。{_UNSURE}")
    tier_is_binding = is_tier_binding(facts, catalogue)
    found = _answer([_verdict(rule, facts, today, tier_is_binding=tier_is_binding) for rule in rules])
    return _shielded(found, record.shield, catalogue.shield(today))


def _shielded(found: Repair, shield: Shield | None, rule: Overlay | None) -> Repair:
    """Of a record that is shielded: what the overlay waives refuses nobody; as its evidence is weak, the department decides."""
    if shield is None or not shield.is_on:
        return found
    ends = "、".join(rule.end_materials) if rule else ""
    later = f"计划执行完毕后，凭{ends}终止公示。" if ends else "计划执行完毕后终止公示。"
    advice = f"该记录依{shield.court}裁定（{shield.ruling_number}）临时屏蔽，暂不公示；{later}"
    waived = found.status is RepairStatus.NOT_YET and rule is not None and rule.waives_min_publication
    if not waived or rule is None:
        return found.model_copy(update={"advice": f"{advice}{found.advice}"})
    return found.model_copy(
        update={
            "status": RepairStatus.ADVISED,
            "status_text": STATUS_TEXT[RepairStatus.ADVISED],
            "from_": None,
            "rule": rule.number,
            "source": rule.source,
            "evidence": rule.evidence,
            "advice": f"{advice}执行期间可以不受最短公示期限制提出申请，{_UNSURE}",
        }
    )


class PeriodEnd(NamedTuple):
    """The first day on which a record is not shown any more, and the row that says so."""

    on: date
    rule: Rule


def publication_end(
    record: Record, catalogue: Catalogue, today: date, transition: Transition
) -> PeriodEnd | None:
    """When publication ends by itself; None: no rule of today says so with certainty.

    All rows that may hold have to say so with binding evidence, and the last of them counts, or the day the source itself names, if
    later (a restriction may run longer). What the department refused to repair, or shows again after a revocation, is not known to
    be corrected: its own rule applies (信用修复管理办法（36号令）, domain notes 3.2).
    """
    ended = record.status == "withdrawn" or record.repaired_at is not None or record.expired_on is not None
    if ended or record.revoked_at is not None or record.refused_at is not None:
        return None
    facts, found = record.facts, list[PeriodEnd]()
    tier_is_binding = is_tier_binding(facts, catalogue)
    for rule in applicable(record, catalogue, today, transition):
        on = day_after(facts.decided_on, rule.max_publication_months)
        certain = is_certain(rule, facts, tier_is_binding=tier_is_binding)
        if on is None or not (certain and rule.grade("max_publication_months").binding):
            return None
        found.append(PeriodEnd(on, rule))
    if not found:
        return None
    last = max(found, key=lambda end: end.on)
    told = record.display.published_until
    return last._replace(on=told) if told and told > last.on else last


def _plain(status: RepairStatus, advice: str, refer_to: str | None = None) -> Repair:
    return Repair(status=status, status_text=STATUS_TEXT[status], advice=advice, refer_to=refer_to)


def applicable(record: Record, catalogue: Catalogue, today: date, transition: Transition) -> Sequence[Rule]:
    """The row that holds most exactly, then the others that may hold; none when the catalogue has none for today."""
    facts, scope = record.facts, catalogue.scope_of(record.display.legal_basis)

    def rows(*days: date) -> Sequence[Rule]:
        found = [
            catalogue.rule_for(facts.category, facts.tier, each, day)
            for day in days
            for each in (scope, None)
        ]
        return [*{rule.number: rule for rule in found if rule is not None}.values()]

    now = rows(today)
    if not now or facts.decided_on >= now[0].effective_from or transition is Transition.APPLICATION_DAY:
        return now
    if transition is Transition.DECISION_DAY:
        return rows(facts.decided_on) or now
    return rows(today, facts.decided_on)


def is_tier_binding(facts: RecordFacts, catalogue: Catalogue) -> bool:
    """A tier read from words is as certain as the row of these words; one that a feed gave is certain."""
    found = catalogue.tier_of(facts.penalty_kinds)
    return found is None or found[0] != facts.tier or found[1].evidence.binding


def is_certain(rule: Rule, facts: RecordFacts, *, tier_is_binding: bool) -> bool:
    """Whether the row is the one for this record. 36号令 may not hold for natural persons: the final text was not read (domain notes 3.2)."""
    return (rule.tier is None or tier_is_binding) and facts.subject_type is not SubjectType.NATURAL_PERSON


def _verdict(rule: Rule, facts: RecordFacts, today: date, *, tier_is_binding: bool) -> _Verdict:
    first_day = day_after(facts.decided_on, rule.min_publication_months)
    last_day = day_after(facts.decided_on, rule.max_publication_months)
    certain = is_certain(rule, facts, tier_is_binding=tier_is_binding)

    def verdict(status: RepairStatus, field: str, advice: str, day: date | None = first_day) -> _Verdict:
        grade = rule.grade(field)
        if not status.may_apply and not (certain and grade.binding):
            return _Verdict(rule, RepairStatus.ADVISED, day, last_day, grade, f"{advice}但{_UNSURE}")
        return _Verdict(rule, status, day, last_day, grade, advice)

    if last_day is not None and today >= last_day:
        advice = (
            f"公示期已于{last_day.isoformat()}届满，应自动停止公示，无需申请；如仍在展示，请向认定单位反映。"
        )
        return verdict(RepairStatus.ENDED, "max_publication_months", advice)
    if rule.repair != "on_application":
        words = {"by_itself": "无需申请", "not_repairable": "不予提前修复"}.get(rule.repair, "不由本平台受理")
        when = f"，{last_day.isoformat()}公示期满自动停止公示" if last_day else ""
        return verdict(RepairStatus.NOT_YET, "repair", f"{words}{when}。", None)
    if first_day is None:
        return verdict(RepairStatus.ADVISED, "min_publication_months", f"最短公示期不明。{_UNSURE}")
    if today < first_day:
        advice = f"未满最短公示期{rule.min_publication_months}个月，自{first_day.isoformat()}起可以申请。"
        return verdict(RepairStatus.NOT_YET, "min_publication_months", advice)
    materials = f"请准备：{'、'.join(rule.materials)}。" if rule.materials else ""
    return verdict(
        RepairStatus.REPAIRABLE, "min_publication_months", f"已满最短公示期，可以申请修复。{materials}"
    )


def day_after(day: date, months: int | None) -> date | None:
    """The day so many months later; None when the number is not known."""
    if months is None:
        return None
    return date.max if day.year + months // 12 >= date.max.year else add_months(day, months)


def _answer(verdicts: list[_Verdict]) -> Repair:
    """The first verdict, unless it refuses and another row that may hold does not."""
    first, *others = verdicts
    status, first_day, advice = first.status, first.first_day, first.advice
    lenient = next((other for other in others if not other.refuses), None)
    if first.refuses and lenient is not None:
        status = RepairStatus.ADVISED
        advice = (
            f"按{first.rule.source}：{first.advice}按{lenient.rule.source}：{lenient.advice}"
            "适用哪一规则由认定单位认定，可以提交申请。"
        )
    elif status is RepairStatus.NOT_YET and first_day is not None:
        # Before this day every row refuses; from it on one of them does not.
        earliest = min([first_day, *(other.first_day for other in others if other.first_day)])
        if earliest < first_day:
            advice = (
                f"最早自{earliest.isoformat()}起可以提交申请，由认定单位判断。按{first.rule.source}：{advice}"
            )
            first_day = earliest
    return Repair(
        status=status,
        status_text=STATUS_TEXT[status],
        from_=first_day,
        until=first.last_day,
        rule=first.rule.number,
        source=first.rule.source,
        evidence=first.evidence,
        advice=advice + (f"（{first.rule.note}）" if first.rule.note else ""),
    )
