"""Pure: the 信用修复告知书 that goes with a record that is published (两书同达): what is shown, until when, and how to repair it.

Made of the record and of the rules of the day of its publication, so that it is the same whenever it is printed. What rests on weak
evidence is worded as advice: the department's answer holds.
"""

from collections.abc import Sequence
from datetime import date, datetime

from chassis.letter import Letter
from contracts.catalogue import Catalogue, Rule
from contracts.clock import china_date
from contracts.events import RepairNoticeServed
from contracts.http.eligibility import Transition
from contracts.http.intake import Subject
from contracts.identifiers import mask_id_number
from contracts.letters import LetterKind, fill
from contracts.records import SubjectType
from intake.domain.record import Record
from intake.eligibility import applicable, day_after, is_tier_binding
from intake.guide import day_text

_ADVICE = "（此项供参考，以认定单位的答复为准）"


def repair_notice(record: Record, subject: Subject, catalogue: Catalogue, transition: Transition) -> Letter:
    """The notice of one record to its subject."""
    facts, letters = record.facts, catalogue.letters
    published = china_date(record.published_at)
    department = catalogue.resolve_department(
        facts.authority_code, facts.authority_name, facts.category, published
    ).department
    category = catalogue.category(facts.category)
    name = category.name if category else facts.category
    slug = department.slug if department else None
    template = letters.template(LetterKind.REPAIR_NOTICE, slug, facts.category, published)
    rules = applicable(record, catalogue, published, transition)
    refer_to = category.refer_to if category else None
    values = {
        "subject_name": subject.name,
        "document_number": facts.document_number,
        "authority": facts.authority_name,
        "decided_on": day_text(facts.decided_on),
        "category": name,
        "published_from": day_text(published),
        **_said(record, rules[0] if rules else None, refer_to, catalogue),
    }
    code = subject.code
    person = subject.subject_type is SubjectType.NATURAL_PERSON
    return Letter(
        issuer=facts.authority_name,
        title=template.title,
        addressee=f"{subject.name}（身份证件号码 {mask_id_number(code)}）"
        if person
        else f"{subject.name}（统一社会信用代码 {code}）",
        paragraphs=tuple(fill(each, values) for each in template.paragraphs),
        closing=tuple(fill(each, values) for each in template.closing),
        basis=letters.basis(LetterKind.REPAIR_NOTICE, facts.category, published),
        dated=published,
        contact=(department.contact if department else None) or letters.operator.contact,
    )


def notice_served(
    record: Record, catalogue: Catalogue, transition: Transition, *, by_email: bool, now: datetime
) -> RepairNoticeServed:
    """What its subject is told of the notice of a record: the sentences of the letter."""
    facts = record.facts
    category = catalogue.category(facts.category)
    rules = applicable(record, catalogue, china_date(record.published_at), transition)
    said = _said(record, rules[0] if rules else None, category.refer_to if category else None, catalogue)
    return RepairNoticeServed.model_validate(
        {
            **said,
            "record_id": record.record_id,
            "subject_id": record.subject_id,
            "record": facts,
            "category_name": category.name if category else facts.category,
            "by_email": by_email,
            "served_at": now,
        }
    )


def _said(record: Record, rule: Rule | None, refer_to: str | None, catalogue: Catalogue) -> dict[str, str]:
    """The sentences on period, first day, way, materials and time."""
    if rule is None:
        unknown = "没有读到适用的规则，请向认定单位咨询。"
        return {
            **dict.fromkeys(("period", "earliest", "how", "materials", "limits"), unknown),
            "decided_by": "认定单位",
        }
    certain = is_tier_binding(record.facts, catalogue)
    way = {
        "on_application": "登录本平台提交申请，多条记录可以一次申请；也可以委托政务服务中心的信用修复专窗代办。",
        "by_itself": "无需申请，公示期满自动停止公示。",
        "referred": f"本平台不受理，请向{refer_to or rule.decided_by}申请。",
        "not_repairable": "公示期满前不予提前修复，公示期满自动停止公示。",
    }[rule.repair]
    applies = rule.repair in ("on_application", "referred")
    return {
        "period": _period(record, rule, certain=certain),
        "earliest": _earliest(record, rule, certain=certain) if applies else "无需申请。",
        "how": _graded(way, rule, ["repair"], certain=True),
        "materials": _graded(
            f"{'、'.join(rule.materials)}。" if rule.materials and applies else "无需提交材料。",
            rule,
            ["materials"],
            certain=True,
        ),
        "limits": _limits(rule) if applies else "",
        "decided_by": rule.decided_by,
    }


def _graded(text: str, rule: Rule, fields: Sequence[str], *, certain: bool) -> str:
    binding = certain and all(rule.grade(field).binding for field in fields)
    return text if binding else f"{text.removesuffix('。')}{_ADVICE}。"


def _period(record: Record, rule: Rule, *, certain: bool) -> str:
    until = record.display.published_until
    months = rule.max_publication_months
    last = day_after(record.facts.decided_on, months)
    told = f"来源数据所载的公示截止期为{day_text(until)}。" if until else ""
    if months is None or last is None:
        return _graded(
            f"{told}最长公示期由认定单位的规定确定。", rule, ["max_publication_months"], certain=certain
        )
    text = f"自认定之日起满{months}个月（{day_text(last)}）自动停止公示，无需申请。"
    return told + _graded(text, rule, ["max_publication_months"], certain=certain)


def _earliest(record: Record, rule: Rule, *, certain: bool) -> str:
    months = rule.min_publication_months
    first: date | None = day_after(record.facts.decided_on, months)
    if months is None or first is None:
        text = "最短公示期由认定单位的规定确定，可向其咨询。"
    elif months == 0:
        text = "履行义务、纠正失信行为后即可申请。"
    else:
        text = f"最短公示期{months}个月，履行义务、纠正失信行为的，自{day_text(first)}起可以申请。"
    return _graded(text, rule, ["min_publication_months"], certain=certain)


def _limits(rule: Rule) -> str:
    parts, fields = [], []
    for field, words in (
        ("accept_working_days", "收到申请之日起{}个工作日内决定是否受理"),
        ("decide_working_days", "受理之日起{}个工作日内"),
    ):
        days: int | None = getattr(rule, field)
        if days is not None:
            parts.append(words.format(days))
            fields.append(field)
    if not parts:
        return "时限由认定单位的规定确定，"
    return f"{_graded('，'.join(parts), rule, fields, certain=True).removesuffix('。')}，"
