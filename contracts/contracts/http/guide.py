"""The guide (办事指南“一张图”): conditions, materials, steps, time limits and offices of a category, and what a subject can do today.

Service: intake. Paths: ``GET /v1/guide``, ``GET /v1/guide/{category}`` (both public), ``GET /v1/subjects/me/guide``. All of it
is computed from the catalogue. Every number has its basis beside it; texts are zh-CN, for people. Months are calendar months
from the day of the decision, clamped to the end of the month; days are working days (工作日).
"""

from datetime import date
from enum import StrEnum
from typing import Literal

from pydantic import Field

from contracts.catalogue import Evidence, Tier
from contracts.http.eligibility import Ban, Check, Repair, Transition
from contracts.records import Shape

DISCLAIMER = "本指南由规则目录自动生成，仅供办事参考，不是法律意见；以法律法规原文和认定单位的决定为准。信用修复不收费。"


class Basis(Shape):
    """依据：哪一份文件、哪一条，以及对它读到了什么程度。"""

    source: str = Field(description="文件与条款")
    evidence: Evidence = Field(description="规则目录中的证据等级")
    evidence_text: str = Field(description="证据等级，用平常的话说")
    binding: bool = Field(description="false：仅供参考，不单独据以拒绝任何人，由认定单位判断")


class GuideCondition(Shape):
    """一项条件（公示期以外）。"""

    name: str = Field(description="条件")
    judged_by_text: str = Field(description="由谁核对")
    basis: Basis = Field(description="依据")


class PenaltyWord(Shape):
    """属于某一档的处罚种类。"""

    name: str = Field(description="处罚类别中的用词")
    basis: Basis = Field(description="为什么属于这一档")


class Period(Shape):
    """一种情形的公示期：规则目录的一行。"""

    rule: str = Field(description="规则目录中的编号")
    label: str = Field(description="哪种情形：失信程度、领域")
    tier: Tier | None = Field(description="失信程度；空：不分档")
    scopes: list[str] = Field(description="限于哪些领域；空：不限")
    kinds: list[PenaltyWord] = Field(description="哪些处罚属于这一档；不是行政处罚或不分档的为空")
    min_publication_months: int | None = Field(description="最短公示期（月），满后才能申请；空：未读到")
    max_publication_months: int | None = Field(
        description="最长公示期（月），届满自动停止公示；空：未读到或另有规定"
    )
    min_text: str = Field(description="最短公示期，给人看")
    max_text: str = Field(description="最长公示期，给人看")
    min_basis: Basis = Field(description="最短公示期的依据")
    max_basis: Basis = Field(description="最长公示期的依据")
    note: str | None = Field(description="补充说明")
    effective_from: date = Field(description="施行之日")
    effective_to: date | None = Field(description="失效之日（含当日）；空：现行有效")


class GuidePlatform(Shape):
    """一个公示平台。"""

    target_id: str = Field(description="平台标识")
    name: str = Field(description="平台名称")
    working_days: int | None = Field(description="自收到决定起几个工作日内更新；空：不经本平台通知")
    limit_text: str = Field(description="时限，给人看")
    natural_persons: bool = Field(description="是否展示自然人的记录")
    basis: Basis = Field(description="时限的依据")


class GuideLimit(Shape):
    """一步的一项时限。"""

    text: str = Field(description="给人看")
    working_days: int | None = Field(description="工作日；空：无固定时限或未读到")
    basis: Basis = Field(description="依据；没有时限的，为该步骤的依据")


class StepKind(StrEnum):
    """What happens in a step."""

    APPLY = "apply"
    ACCEPT = "accept"
    DECIDE = "decide"
    WAIT = "wait"
    PLATFORMS = "platforms"
    VENDORS = "vendors"


class GuideStep(Shape):
    """办理流程中的一步。"""

    kind: StepKind = Field(description="哪一步")
    title: str = Field(description="步骤名称")
    who: str = Field(description="由谁做")
    what: str = Field(description="做什么")
    working_days: int | None = Field(description="时限（工作日）；空：无固定时限或未读到")
    extend_working_days: int | None = Field(None, description="可以延长的工作日")
    promised_working_days: int | None = Field(None, description="服务承诺的工作日，不长于时限")
    limits: list[GuideLimit] = Field(description="时限、延长、服务承诺，各有依据；第一项是时限本身")
    platforms: list[GuidePlatform] = Field(default=[], description="须更新的平台")


class Way(Shape):
    """一种办法：同样的条件、材料和流程，适用于若干种情形。"""

    title: str = Field(description="办法")
    repair: Literal["on_application", "by_itself", "referred", "not_repairable"] = Field(
        description="on_application 须申请；by_itself 期满自动停止；referred 由其他单位办理；not_repairable 不予提前修复"
    )
    decided_by: str = Field(description="由谁决定")
    decided_by_basis: Basis = Field(description="由谁决定的依据")
    total_working_days: int | None = Field(description="自申请之日起合计的工作日；空：未读到")
    total_basis: Basis | None = Field(description="合计时限的依据；没有合计时限的为空")
    total_text: str | None = Field(description="合计时限，给人看")
    periods: list[Period] = Field(description="适用的情形及其公示期")
    conditions: list[GuideCondition] = Field(description="公示期以外的条件")
    conditions_text: str | None = Field(description="没有列出条件时的说明")
    materials: list[str] = Field(description="材料")
    materials_text: str | None = Field(description="没有列出材料时的说明")
    materials_basis: Basis = Field(description="材料的依据")
    steps: list[GuideStep] = Field(description="流程，依次进行")


class Office(Shape):
    """一个认定单位。"""

    slug: str = Field(description="部门标识")
    name: str = Field(description="全称")
    short_name: str = Field(description="简称")
    level_text: str = Field(description="国家级、省级、市级、区县级")
    basis: Basis = Field(description="该行的依据")


class Extra(Shape):
    """叠加的规则：满足其条件时一并适用。"""

    name: str = Field(description="名称")
    condition: str = Field(description="在什么情况下")
    effect: str = Field(description="有什么不同")
    department_working_days: int | None = Field(description="部门承诺的工作日")
    basis: Basis = Field(description="依据")


class CategoryGuide(Shape):
    """一类失信记录怎样修复：条件、材料、流程、时限、找谁办。"""

    category: str = Field(description="记录类别标识")
    name: str = Field(description="记录类别")
    on: date = Field(description="按这一天有效的规则")
    grantable: bool = Field(description="本平台是否受理")
    refer_to: str | None = Field(description="本平台不受理时，向谁申请")
    summary: str = Field(description="一句话")
    ways: list[Way] = Field(description="各种办法；目录中没有这一天的规则时为空")
    offices: list[Office] = Field(description="认定单位（谁认定、谁修复）")
    offices_text: str = Field(description="找谁办")
    extras: list[Extra] = Field(description="叠加的规则")
    earlier: list[Period] = Field(
        description="已失效、但此前作出的决定可能仍适用的规则；按设置不适用旧规则时为空"
    )
    earlier_text: str | None = Field(description="旧规则怎样适用")
    next_change_on: date | None = Field(description="这一类别的规则下一次变更之日")
    disclaimer: str = Field(DISCLAIMER, description="声明")


class OverviewLine(Shape):
    """一类失信记录，一行。"""

    category: str = Field(description="记录类别标识，详见 GET /v1/guide/{category}")
    name: str = Field(description="记录类别")
    grantable: bool = Field(description="本平台是否受理")
    summary: str = Field(description="一句话")
    apply_text: str = Field(description="何时可以申请")
    end_text: str = Field(description="何时自动停止公示")
    limit_text: str = Field(description="办理时限")
    office_text: str = Field(description="找谁办")
    binding: bool = Field(description="false：其中有仅供参考的数字")


class GuideOverview(Shape):
    """全部类别的总览。"""

    on: date = Field(description="按这一天有效的规则")
    categories: list[OverviewLine] = Field(description="每类一行")
    disclaimer: str = Field(DISCLAIMER, description="声明")


class RecordGroup(StrEnum):
    """What a subject can do about a record on the day. Every record is in exactly one group."""

    TODAY = "today"
    FIRST_ANOTHER = "first_another"
    ADVISED = "advised"
    BARRED = "barred"
    NOT_YET = "not_yet"
    UNDER_APPLICATION = "under_application"
    ENDED = "ended"
    NOT_OURS = "not_ours"
    SETTLED = "settled"


class OtherRecord(Shape):
    """应先办理的另一条记录。"""

    record_id: str
    document_number: str = Field(description="文号")
    category_name: str = Field(description="记录类别")
    status_text: str = Field(description="它目前的状态")


class RecordGuide(Shape):
    """一条记录：今天能做什么。"""

    record_id: str
    document_number: str = Field(description="文号")
    category: str = Field(description="记录类别标识")
    category_name: str = Field(description="记录类别")
    authority_name: str = Field(description="认定单位")
    decided_on: date = Field(description="决定日期")
    penalty_kinds: str = Field(description="处罚类别")
    application_id: str | None = Field(description="正在办理的申请")
    repair: Repair = Field(description="能否申请，何时起，为什么")
    when_text: str = Field(description="何时，给人看")
    first: list[OtherRecord] = Field(description="应先办理的记录")
    decided_by: str | None = Field(description="由谁决定")
    ask: str = Field(description="有疑问找谁")
    materials: list[str] = Field(description="材料")
    checks: list[Check] = Field(description="公示期以外的条件")
    steps: list[GuideStep] = Field(description="流程；无须或不能申请的为空")
    basis: Basis | None = Field(description="所依据的规则；不看规则即可回答的为空")


class GroupOfRecords(Shape):
    """一组记录。"""

    group: RecordGroup
    title: str = Field(description="这一组是什么")
    advice: str = Field(description="怎样办")
    records: list[RecordGuide]


class SubjectGuide(Shape):
    """我的一张图：今天能做什么。"""

    subject_name: str = Field(description="信用主体")
    on: date = Field(description="假定在这一天申请")
    transition: Transition = Field(description="规则变更前作出的决定适用哪一日的规则（设置）")
    summary: str = Field(description="一句话")
    ban: Ban | None = Field(None, description="当天有效的禁期；空：没有")
    materials: list[str] = Field(description="今天可以申请的各条记录一共要备的材料")
    groups: list[GroupOfRecords] = Field(description="有记录的各组，先列今天能办的；每条记录恰在一组中")
    complete: bool = Field(description="false：记录太多，只列出决定日期最近的")
    disclaimer: str = Field(DISCLAIMER, description="声明")
