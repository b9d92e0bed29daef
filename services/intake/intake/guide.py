"""The guide of a category, of all of them, and of a subject's own records. Pure: the catalogue and the day go in.

Nothing here is written by hand for a category: all follows from the rows in force. A cell whose evidence does not bind says so.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from contracts.catalogue import Catalogue, Category, Condition, Evidence, Overlay, Rule, Target, Tier
from contracts.http.eligibility import Explanation, RegimeAnswer, Repair, RepairStatus, Transition
from contracts.http.guide import (
    Basis,
    CategoryGuide,
    Extra,
    GroupOfRecords,
    GuideCondition,
    GuideLimit,
    GuideOverview,
    GuidePlatform,
    GuideStep,
    Office,
    OtherRecord,
    OverviewLine,
    PenaltyWord,
    Period,
    RecordGroup,
    RecordGuide,
    StepKind,
    SubjectGuide,
    Way,
)
from contracts.records import SubjectType
from intake.domain.record import Record
from intake.eligibility import assess, day_after
from intake.explanation import TIER_TEXT, explain
from intake.findings import Finding, ban, explained

EVIDENCE_TEXT = {
    Evidence.OFFICIAL: "已读官方原文",
    Evidence.COPY: "已读规则文本（转载）",
    Evidence.SECONDARY: "据报道或解读，原文未读到",
    Evidence.FRAGMENT: "只读到片段，仅供参考",
    Evidence.CODE: "据公开系统的做法，仅供参考",
    Evidence.DESIGN: "本平台推定，仅供参考",
    Evidence.MEMORY: "尚未核对，仅供参考",
}
_LEVEL_TEXT = {"national": "国家级", "provincial": "省级", "municipal": "市级", "district": "区县级"}
_WAY_TITLE = {
    "on_application": "申请修复",
    "by_itself": "无需申请，期满自动停止公示",
    "referred": "请向其他单位申请",
    "not_repairable": "不予提前修复",
}
_SHOWN_FIRST = 10
"""Of the records that come before another."""
# The categories whose records come with 处罚类别, from which their tier is read (Catalogue.penalty_category).
_PENALTIES = frozenset({"administrative_penalty", "samr_administrative_penalty"})
_UNREAD = "期限未读到，以认定单位告知为准"

LEGEND = (
    "最短、最长公示期自作出决定之日起按日历月计算，月末对齐（8月31日起满6个月为次年2月的最后一天）；时限按工作日计算。"
    "标“仅供参考”的内容依据不足，只作提示，不会单独据以拒绝申请，由认定单位判断。"
)
"""How to read a guide; below every page and picture."""


def category_guide(
    catalogue: Catalogue, category: Category, on: date, transition: Transition = Transition.EITHER
) -> CategoryGuide:
    """How records of ``category`` are repaired by the rules of the day. ``transition`` says whether earlier rules may still hold."""
    own = [rule for rule in catalogue.rules if rule.category == category.id]
    rules = sorted((rule for rule in own if rule.in_force(on)), key=_exactness)
    ways = _ways(rules, catalogue, on)
    earlier = [] if transition is Transition.APPLICATION_DAY else [rule for rule in own if _lingers(rule, on)]
    offices = [
        Office(
            slug=each.slug,
            name=each.name,
            short_name=each.short_name,
            level_text=_LEVEL_TEXT[each.level],
            basis=basis(each.source, each.evidence),
        )
        for each in catalogue.departments
        if category.id in each.categories and each.in_force(on)
    ]
    return CategoryGuide(
        category=category.id,
        name=category.name,
        on=on,
        grantable=category.grantable,
        refer_to=category.refer_to,
        summary=_summary(category, ways, on),
        ways=ways,
        offices=offices,
        offices_text=_offices_text(catalogue, category, offices),
        extras=[_extra(each) for each in catalogue.overlays if category.grantable and each.in_force(on)],
        earlier=[_period(rule, earlier, catalogue) for rule in earlier],
        earlier_text=_earlier_text(earlier, transition),
        next_change_on=min((r.effective_from for r in own if r.effective_from > on), default=None),
    )


def overview(catalogue: Catalogue, on: date, transition: Transition = Transition.EITHER) -> GuideOverview:
    """All categories by the rules of the day, one line each."""
    guides = [category_guide(catalogue, category, on, transition) for category in catalogue.categories]
    return GuideOverview(on=on, categories=[_line(guide) for guide in guides])


def basis(source: str, evidence: Evidence) -> Basis:
    """Source and grade, the grade in words too."""
    return Basis(
        source=source,
        evidence=evidence,
        evidence_text=EVIDENCE_TEXT[evidence],
        binding=evidence.binding,
    )


def _of(rule: Rule, field: str) -> Basis:
    return basis(rule.source, rule.grade(field))


def _lingers(rule: Rule, on: date) -> bool:
    """Whether a record decided while the rule was in force may still be shown on the day."""
    if rule.effective_to is None or rule.effective_to >= on:
        return False
    last_day = day_after(rule.effective_to, rule.max_publication_months)
    return last_day is None or on < last_day


def _exactness(rule: Rule) -> tuple[int, bool]:
    """Tiers in their order, then fields of law, then the rest: as people look for their own case."""
    tiers = [*Tier]
    return (tiers.index(rule.tier) if rule.tier else len(tiers), not rule.scopes)


def _earlier_text(earlier: Sequence[Rule], transition: Transition) -> str | None:
    if not earlier:
        return None
    days = sorted({rule.effective_to for rule in earlier if rule.effective_to})
    until = "、".join(day_text(day) for day in days)
    if transition is Transition.DECISION_DAY:
        return f"{until}以前（含当日）作出的决定，适用作出决定之日的规则。"
    return f"{until}以前（含当日）作出的决定，适用新规则还是旧规则由认定单位认定；两套中有一套允许，就可以提交申请。"


# --- ways ------------------------------------------------------------------------------------------------


def _ways(rules: Sequence[Rule], catalogue: Catalogue, on: date) -> list[Way]:
    """Rules that differ in nothing but for whom and how long are one way with several periods."""
    ways: list[Way] = []
    for rule in rules:
        way, period = _way(rule, catalogue, on), _period(rule, rules, catalogue)
        same = next(
            (n for n, each in enumerate(ways) if each.model_copy(update={"periods": []}) == way), None
        )
        if same is None:
            ways.append(way.model_copy(update={"periods": [period]}))
        else:
            ways[same] = way.model_copy(update={"periods": [*ways[same].periods, period]})
    order = ("on_application", "by_itself", "referred", "not_repairable")
    return sorted(ways, key=lambda way: order.index(way.repair))


def _way(rule: Rule, catalogue: Catalogue, on: date) -> Way:
    """The way of one rule, without its period."""
    applies = rule.repair in ("on_application", "referred")
    conditions = [_condition(each) for each in catalogue.conditions_of(rule)]
    total = rule.total_working_days
    return Way(
        title=_way_title(rule),
        repair=rule.repair,
        decided_by=rule.decided_by,
        decided_by_basis=_of(rule, "decided_by"),
        total_working_days=total,
        total_basis=None if total is None else _of(rule, "total_working_days"),
        total_text=None if total is None else f"自申请之日起合计 {total} 个工作日内告知结果",
        periods=[],
        conditions=conditions,
        conditions_text=None
        if conditions or not applies
        else f"目录中没有读到其他条件，请向{rule.decided_by}咨询",
        materials=[*rule.materials],
        materials_text=_materials_text(rule, applies=applies),
        materials_basis=_of(rule, "materials"),
        steps=steps(rule, catalogue, on),
    )


def _way_title(rule: Rule) -> str:
    if rule.repair == "by_itself" and rule.max_publication_months is None:
        return "无需申请"
    return _WAY_TITLE[rule.repair]


def _materials_text(rule: Rule, *, applies: bool) -> str | None:
    if rule.materials:
        return None
    return f"目录中没有读到材料要求，请向{rule.decided_by}咨询" if applies else "不需要材料"


def _condition(condition: Condition) -> GuideCondition:
    by_records = condition.judged_by == "records"
    return GuideCondition(
        name=condition.name,
        judged_by_text="本平台先按所知记录核对" if by_records else "由认定单位核实",
        basis=basis(condition.source, condition.evidence),
    )


def _period(rule: Rule, rules: Sequence[Rule], catalogue: Catalogue) -> Period:
    scopes = [each.name for each in catalogue.scopes if each.id in rule.scopes]
    kinds = [
        PenaltyWord(name=each.words[0], basis=basis(each.source, each.evidence))
        for each in catalogue.penalty_kinds
        if rule.category in _PENALTIES and each.tier is rule.tier
    ]
    low, high = rule.min_publication_months, rule.max_publication_months
    return Period(
        rule=rule.number,
        label=_label(rule, scopes, rules),
        tier=rule.tier,
        scopes=scopes,
        kinds=kinds,
        min_publication_months=low,
        max_publication_months=high,
        min_text=_min_text(rule),
        max_text=_max_text(rule),
        min_basis=_of(rule, "min_publication_months" if rule.repair == "on_application" else "repair"),
        max_basis=_of(rule, "max_publication_months"),
        note=rule.note,
        effective_from=rule.effective_from,
        effective_to=rule.effective_to,
    )


def _label(rule: Rule, scopes: Sequence[str], rules: Sequence[Rule]) -> str:
    parts = [TIER_TEXT[rule.tier]] if rule.tier is not None else []
    parts += [f"{'、'.join(scopes)}领域"] if scopes else []
    return " · ".join(parts) or ("其余情形" if len(rules) > 1 else "所有情形")


def _min_text(rule: Rule) -> str:
    months = rule.min_publication_months
    if rule.repair != "on_application":
        # a number here only says when it ends by itself: nobody has to wait for it to do something
        return {"by_itself": "无需申请", "not_repairable": "不予提前修复"}.get(
            rule.repair, f"由{rule.decided_by}办理"
        )
    if months is None:
        return "最短公示期未读到，由认定单位判断"
    return f"满 {months} 个月后可以申请" if months else "符合条件即可申请，不用等"


def _max_text(rule: Rule) -> str:
    months = rule.max_publication_months
    if months is not None:
        return f"满 {months} 个月自动停止公示"
    return "目录中没有期限，见说明" if rule.repair == "by_itself" else "期限未读到，或由名单自身规定"


def _extra(overlay: Overlay) -> Extra:
    days = overlay.department_working_days
    effects = []
    if overlay.shields:
        begins, ends = "、".join(overlay.begin_materials), "、".join(overlay.end_materials)
        effects.append(f"凭{begins}临时屏蔽公示，凭{ends}终止公示")
    if overlay.waives_min_publication:
        effects.append("不受最短公示期限制")
    if days is not None:
        effects.append(f"部门承诺 {days} 个工作日内办理")
    return Extra(
        name=overlay.name,
        condition=overlay.condition,
        effect="，".join(effects) or "由认定单位判断",
        department_working_days=days,
        basis=basis(overlay.source, overlay.evidence),
    )


# --- steps -----------------------------------------------------------------------------------------------


def steps(
    rule: Rule, catalogue: Catalogue, on: date, subject_type: SubjectType | None = None
) -> list[GuideStep]:
    """What happens under the rule, in order. ``subject_type``: only the platforms that show such subjects."""
    shown = [target for name in rule.targets if (target := catalogue.target(name)) is not None]
    if subject_type is SubjectType.NATURAL_PERSON:
        shown = [target for target in shown if target.natural_persons]
    if rule.repair == "on_application":
        found = [_apply_step(rule), *_decision_steps(rule, _promise(rule, catalogue, on))]
    elif rule.repair == "referred":
        found = [_refer_step(rule), *_decision_steps(rule, None)]
    else:
        found = [_wait_step(rule)]
    return [*found, *_platform_steps(rule, shown)]


def _promise(rule: Rule, catalogue: Catalogue, on: date) -> GuideLimit | None:
    """The shortest service promise in force. One that is not shorter than the limit promises nothing."""
    limit, overlay = rule.decide_working_days, catalogue.promise(on)
    days = overlay.department_working_days if overlay else None
    if overlay is None or days is None or (limit is not None and days >= limit):
        return None
    return GuideLimit(
        text=f"“一件事”承诺 {days} 个工作日",
        working_days=days,
        basis=basis(overlay.source, overlay.evidence),
    )


def _apply_step(rule: Rule) -> GuideStep:
    return GuideStep(
        kind=StepKind.APPLY,
        title="提交申请",
        who="申请人",
        what="在本平台提交，多条记录可以一次申请",
        working_days=None,
        limits=[GuideLimit(text="符合条件后，随时", working_days=None, basis=_of(rule, "materials"))],
    )


def _refer_step(rule: Rule) -> GuideStep:
    return GuideStep(
        kind=StepKind.APPLY,
        title=f"向{rule.decided_by}申请",
        who="申请人",
        what="本平台不受理，也不代收材料",
        working_days=None,
        limits=[GuideLimit(text="符合条件后，随时", working_days=None, basis=_of(rule, "repair"))],
    )


def _decision_steps(rule: Rule, promise: GuideLimit | None) -> Iterator[GuideStep]:
    if rule.accept_working_days is not None:
        yield GuideStep(
            kind=StepKind.ACCEPT,
            title="决定是否受理",
            who=rule.decided_by,
            what="材料齐全、符合要求的，应当受理",
            working_days=rule.accept_working_days,
            limits=[_limit(rule, "accept_working_days", "{} 个工作日内")],
        )
    limits = [_limit(rule, "decide_working_days", "{} 个工作日内")]
    if rule.extend_working_days is not None:
        limits.append(_limit(rule, "extend_working_days", "情况复杂的可延长 {} 个工作日"))
    if promise is not None:
        limits.append(promise)
    yield GuideStep(
        kind=StepKind.DECIDE,
        title="审查并决定",
        who=rule.decided_by,
        what="准予修复，或说明理由不予修复",
        working_days=rule.decide_working_days,
        extend_working_days=rule.extend_working_days,
        promised_working_days=promise.working_days if promise else None,
        limits=limits,
    )


def _limit(rule: Rule, field: str, text: str) -> GuideLimit:
    days: int | None = getattr(rule, field)
    return GuideLimit(
        text=_UNREAD if days is None else text.format(days), working_days=days, basis=_of(rule, field)
    )


def _wait_step(rule: Rule) -> GuideStep:
    months = rule.max_publication_months
    return GuideStep(
        kind=StepKind.WAIT,
        title="期满自动停止公示" if months is not None else "不需要办理",
        who="认定单位",
        what="不用申请" if rule.repair == "by_itself" else "期满前不予修复",
        working_days=None,
        limits=[
            GuideLimit(
                text="以认定单位的规定为准" if months is None else f"自决定之日起满 {months} 个月",
                working_days=None,
                basis=_of(rule, "max_publication_months"),
            )
        ],
    )


def _platform_steps(rule: Rule, shown: Sequence[Target]) -> Iterator[GuideStep]:
    # their limits count from our notice; where nobody applies here there is none
    ours = rule.repair == "on_application"
    for kind, vendors, title, what in (
        (StepKind.PLATFORMS, False, "公示平台同步", "停止公示，结果一致"),
        (StepKind.VENDORS, True, "第三方同步", "与“信用中国”保持一致"),
    ):
        platforms = [_platform(target, ours=ours) for target in shown if (target.kind == "vendor") is vendors]
        if not platforms:
            continue
        days = {each.working_days for each in platforms}
        same = len(days) == 1
        yield GuideStep(
            kind=kind,
            title=title,
            who="、".join(each.name for each in platforms),
            what=what if ours else "随之停止展示；仍在展示的可向认定单位反映",
            working_days=platforms[0].working_days if same else None,
            limits=[
                GuideLimit(
                    text=each.limit_text if same else f"{each.name}：{each.limit_text}",
                    working_days=each.working_days,
                    basis=_weakest([each.basis for each in platforms] if same else [each.basis])
                    if ours
                    else _of(rule, "targets"),
                )
                for each in (platforms[:1] if same else platforms)
            ],
            platforms=platforms,
        )


def _platform(target: Target, *, ours: bool) -> GuidePlatform:
    days = target.time_limit_working_days if ours else None
    return GuidePlatform(
        target_id=target.id,
        name=target.name,
        working_days=days,
        limit_text="随之停止" if days is None else f"收到决定后 {days} 个工作日内",
        natural_persons=target.natural_persons,
        basis=basis(target.time_limit_source, target.time_limit_evidence),
    )


def _weakest(found: Sequence[Basis]) -> Basis:
    """The first that does not bind, else the first: a step is only as certain as its weakest part."""
    return next((each for each in found if not each.binding), found[0])


# --- in one sentence -------------------------------------------------------------------------------------


def _summary(category: Category, ways: Sequence[Way], on: date) -> str:
    if category.refer_to is not None:
        return f"不由本平台受理，请向{category.refer_to}申请。"
    if not ways:
        return f"规则目录中没有{day_text(on)}适用的规则，请向认定单位咨询。"
    found = [f"何时能申请？{_apply_text(ways)}。"]
    if any(period.max_publication_months is not None for _, period in _periods(ways)):
        found.append(f"何时自动停止公示？{_end_text(ways)}。")
    return "".join(found)


def _periods(ways: Sequence[Way]) -> list[tuple[Way, Period]]:
    return [(way, period) for way in ways for period in way.periods]


def _apply_text(ways: Sequence[Way]) -> str:
    return "；".join(_labelled(ways, [period.min_text for _, period in _periods(ways)]))


def _end_text(ways: Sequence[Way]) -> str:
    return "；".join(_labelled(ways, [period.max_text for _, period in _periods(ways)]))


def _labelled(ways: Sequence[Way], texts: Sequence[str]) -> list[str]:
    """Each text once, with the labels it holds for; without labels when it holds for all."""
    labels: dict[str, list[str]] = {}
    for (_, period), text in zip(_periods(ways), texts, strict=True):
        labels.setdefault(text, []).append(period.label)
    if len(labels) == 1:
        return [*labels]
    return [f"{' / '.join(found)}：{text}" for text, found in labels.items()]


def _offices_text(catalogue: Catalogue, category: Category, offices: Sequence[Office]) -> str:
    if category.refer_to is not None:
        return f"向{category.refer_to}申请，本平台不受理"
    if not offices:
        return f"部门目录中没有认定这类记录的部门，由“{catalogue.human_queue.name}”转办"
    return f"谁认定、谁修复：由作出该记录的单位决定，共 {len(offices)} 家，决定书上写明的就是"


def _line(guide: CategoryGuide) -> OverviewLine:
    periods = _periods(guide.ways)
    limits = dict.fromkeys(
        way.total_text or "；".join(_step_text(step) for step in _timed(way))
        for way in guide.ways
        if way.repair in ("on_application", "referred")
    )
    return OverviewLine(
        category=guide.category,
        name=guide.name,
        grantable=guide.grantable,
        summary=guide.summary,
        apply_text=_apply_text(guide.ways) or "没有读到规则",
        end_text=_end_text(guide.ways) or "没有读到规则",
        limit_text="；".join(limits) or "无需办理" if guide.ways else "没有读到规则",
        office_text=guide.refer_to
        or "、".join(dict.fromkeys(way.decided_by for way in guide.ways))
        or "认定单位",
        binding=bool(periods) and all(p.min_basis.binding and p.max_basis.binding for _, p in periods),
    )


def _timed(way: Way) -> list[GuideStep]:
    return [step for step in way.steps if step.kind in (StepKind.ACCEPT, StepKind.DECIDE)]


def _step_text(step: GuideStep) -> str:
    return "；".join([f"{step.title} {step.limits[0].text}", *(each.text for each in step.limits[1:])])


def day_text(day: date) -> str:
    """A day as people write it: 2026年4月1日."""
    return f"{day.year}年{day.month}月{day.day}日"


# --- a subject's own records -----------------------------------------------------------------------------

_GROUPS = {
    RecordGroup.TODAY: ("今天可以申请", "备齐材料，可以在一份申请里一次提交。"),
    RecordGroup.FIRST_ANOTHER: (
        "先办另一条，再办这一条",
        "名录中的记录要先移出；可以在同一份申请里一起提交，前一条准予后，这一条自动开始办理。",
    ),
    RecordGroup.ADVISED: (
        "可以申请，由认定单位判断",
        "现有依据不足以自动判断，不会因此拒绝；提交后由认定单位决定。",
    ),
    RecordGroup.BARRED: (
        "目前不得申请",
        "因提供虚假材料，禁期内不能申请信用修复；到期后可以申请，不服的可以对作出认定的事项提出异议。",
    ),
    RecordGroup.NOT_YET: ("暂不能申请", "按能够申请的日期先后列出，到那一天再来。"),
    RecordGroup.UNDER_APPLICATION: ("正在办理", "请在“我的申请”中看进度，不用重复申请。"),
    RecordGroup.ENDED: ("公示期已满", "应当已自动停止公示，无需申请；仍在展示的，请向认定单位反映。"),
    RecordGroup.NOT_OURS: ("请向其他单位申请", "这类记录不由本平台受理。"),
    RecordGroup.SETTLED: ("已经处理", "已修复、已撤回，或修复被撤销的记录。"),
}
_GROUP_OF = {
    RepairStatus.REPAIRABLE: RecordGroup.TODAY,
    RepairStatus.ADVISED: RecordGroup.ADVISED,
    RepairStatus.BARRED: RecordGroup.BARRED,
    RepairStatus.NOT_YET: RecordGroup.NOT_YET,
    RepairStatus.UNDER_APPLICATION: RecordGroup.UNDER_APPLICATION,
    RepairStatus.ENDED: RecordGroup.ENDED,
    RepairStatus.NOT_OURS: RecordGroup.NOT_OURS,
    RepairStatus.REPAIRED: RecordGroup.SETTLED,
    RepairStatus.REVOKED: RecordGroup.SETTLED,
    RepairStatus.WITHDRAWN: RecordGroup.SETTLED,
}


def subject_guide(
    name: str,
    records: Sequence[Record],
    catalogue: Catalogue,
    on: date,
    transition: Transition,
    *,
    shown: int | None = None,
    finding: Finding | None = None,
) -> SubjectGuide:
    """What the subject can do on the day about each of ``records``, all of one subject, each once.

    ``finding``: the one that bars the subject on the day. ``shown``: only the first so many are told about; the others are known, as conditions of those.
    """
    by_id = {each.record_id: each for each in records}
    listed = [*by_id.values()][:shown]
    members: dict[RecordGroup, list[RecordGuide]] = {group: [] for group in RecordGroup}
    for record in listed:
        found = explained(explain(record, records, catalogue, on, transition), finding)
        first = [_other(by_id[each], catalogue, on, transition) for each in found.first[:_SHOWN_FIRST]]
        members[_group(found)].append(_record_guide(record, found, first, catalogue, on))
    groups = [
        GroupOfRecords(
            group=group,
            title=title,
            advice=advice,
            records=sorted(members[group], key=lambda each: _order(group, each)),
        )
        for group, (title, advice) in _GROUPS.items()
        if members[group]
    ]
    return SubjectGuide(
        subject_name=name,
        on=on,
        transition=transition,
        summary=_subject_summary(members, finding),
        ban=ban(finding),
        materials=_once(m for group in _MAY_APPLY for each in members[group] for m in each.materials),
        groups=groups,
        complete=len(listed) == len(by_id),
    )


_MAY_APPLY = (RecordGroup.TODAY, RecordGroup.FIRST_ANOTHER, RecordGroup.ADVISED)


def _group(explanation: Explanation) -> RecordGroup:
    status = explanation.repair.status
    if status.may_apply and explanation.first:
        return RecordGroup.FIRST_ANOTHER
    return _GROUP_OF[status]


def _order(group: RecordGroup, guide: RecordGuide) -> tuple[date, date, str]:
    wait = guide.repair.from_ or guide.repair.until or date.max
    waits = group in (RecordGroup.NOT_YET, RecordGroup.BARRED)
    return (wait if waits else date.min, guide.decided_on, guide.record_id)


def _record_guide(
    record: Record,
    explanation: Explanation,
    first: Sequence[OtherRecord],
    catalogue: Catalogue,
    on: date,
) -> RecordGuide:
    facts, repair = record.facts, explanation.repair
    answer = _answer(explanation)
    rule = next((each for each in catalogue.rules if answer and each.number == answer.rule), None)
    applies = repair.status in (RepairStatus.REPAIRABLE, RepairStatus.ADVISED, RepairStatus.NOT_YET)
    to_do = rule if applies and rule is not None and rule.repair == "on_application" else None
    office = catalogue.resolve_department(facts.authority_code, facts.authority_name, facts.category, on)
    return RecordGuide(
        record_id=record.record_id,
        document_number=facts.document_number,
        category=facts.category,
        category_name=explanation.category_name,
        authority_name=facts.authority_name,
        decided_on=facts.decided_on,
        penalty_kinds=facts.penalty_kinds,
        application_id=record.application_id,
        repair=repair,
        when_text=_when_text(repair),
        first=[*first],
        decided_by=rule.decided_by if rule else None,
        ask=repair.refer_to
        or (
            office.department.name
            if office.department
            else facts.authority_name or catalogue.human_queue.name
        ),
        materials=[*to_do.materials] if to_do else [],
        checks=[each for each in answer.checks if each.name in _condition_names(to_do, catalogue)]
        if answer
        else [],
        steps=steps(to_do, catalogue, on, facts.subject_type) if to_do else [],
        basis=None
        if repair.source is None or repair.evidence is None
        else basis(repair.source, repair.evidence),
    )


def _other(record: Record, catalogue: Catalogue, on: date, transition: Transition) -> OtherRecord:
    category = catalogue.category(record.facts.category)
    return OtherRecord(
        record_id=record.record_id,
        document_number=record.facts.document_number,
        category_name=category.name if category else record.facts.category,
        status_text=assess(record, catalogue, on, transition).status_text,
    )


def _answer(explanation: Explanation) -> RegimeAnswer | None:
    """The rules of the two days may differ: those that allow an application, when any do."""
    may = (each for each in explanation.regimes if each.repair.status.may_apply)
    return next(may, next(iter(explanation.regimes), None))


def _condition_names(rule: Rule | None, catalogue: Catalogue) -> set[str]:
    return {each.name for each in catalogue.conditions_of(rule)} if rule else set()


def _when_text(repair: Repair) -> str:
    match repair.status:
        case RepairStatus.REPAIRABLE | RepairStatus.ADVISED:
            return "今天就可以申请"
        case RepairStatus.NOT_YET | RepairStatus.BARRED if repair.from_ is not None:
            return f"{day_text(repair.from_)}起可以申请"
        case RepairStatus.NOT_YET if repair.until is not None:
            return f"无需申请，{day_text(repair.until)}自动停止公示"
        case RepairStatus.ENDED if repair.until is not None:
            return f"{day_text(repair.until)}已届满"
    return repair.status_text


def _subject_summary(members: dict[RecordGroup, list[RecordGuide]], finding: Finding | None) -> str:
    today = sum(len(members[group]) for group in _MAY_APPLY)
    total = sum(map(len, members.values()))
    if not total:
        return "本平台没有您的失信记录，不需要办理。"
    waiting = sorted(each.repair.from_ for each in members[RecordGroup.NOT_YET] if each.repair.from_)
    if finding is not None and finding.until is not None:
        return f"共 {total} 条记录，至{day_text(finding.until)}（含）不得申请信用修复（{finding.department.name}，{finding.decision_number}）。"
    parts = [f"共 {total} 条记录，今天可以提交申请的有 {today} 条"]
    if waiting:
        parts.append(f"下一条最早在{day_text(waiting[0])}起可以申请")
    return "；".join(parts) + "。"


def _once(values: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(values)]
