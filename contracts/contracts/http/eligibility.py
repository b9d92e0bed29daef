"""Whether a record may be repaired, why, and in which order several: what intake answers to their subject and to operators.

Services: intake. Paths: ``GET /v1/subjects/me/records/{record_id}/repair?on=``, ``GET /v1/operations/records/{record_id}/repair?on=``,
``GET /v1/subjects/me/plan?record_id=&on=``.
"""

from datetime import date
from enum import StrEnum

from pydantic import ConfigDict, Field

from contracts.catalogue import Evidence
from contracts.records import Shape


class RepairStatus(StrEnum):
    """Whether a record may be applied for now."""

    REPAIRABLE = "repairable"
    NOT_YET = "not_yet"
    ADVISED = "advised"
    UNDER_APPLICATION = "under_application"
    ENDED = "ended"
    NOT_OURS = "not_ours"
    REPAIRED = "repaired"
    REVOKED = "revoked"
    WITHDRAWN = "withdrawn"
    BARRED = "barred"

    @property
    def may_apply(self) -> bool:
        """Whether an application is taken."""
        return self in (RepairStatus.REPAIRABLE, RepairStatus.ADVISED)


class Transition(StrEnum):
    """Whose day the rules are of, for a record decided before they changed: of the application, of the decision, or both, so that
    only what both refuse is refused.
    """

    EITHER = "either"
    APPLICATION_DAY = "application_day"
    DECISION_DAY = "decision_day"


class Repair(Shape):
    """The answer for one record, with the rule it rests on."""

    model_config = ConfigDict(populate_by_name=True)

    status: RepairStatus
    status_text: str = Field(description="给人看的状态")
    from_: date | None = Field(None, alias="from", description="按该规则可以申请的第一天；advised 时仅供参考")
    until: date | None = Field(None, description="公示期满、自动停止公示之日")
    rule: str | None = Field(None, description="规则目录中的编号")
    source: str | None = Field(None, description="规则依据")
    evidence: Evidence | None = Field(
        None, description="所依据数字的证据等级；F、X、D、M 只作提示，不据以拒绝"
    )
    refer_to: str | None = Field(None, description="应向谁申请（not_ours）")
    advice: str = Field(description="给申请人的说明")


class Ban(Shape):
    """因提供虚假材料，目前不得申请信用修复（禁期）。"""

    until: date = Field(description="不得申请的最后一天（含）")
    by: str = Field(description="作出认定的单位")
    decision_number: str = Field(description="认定所在的决定书文号")
    advice: str = Field(description="给申请人的说明，含怎样提出异议")


class CheckResult(StrEnum):
    """``person``: what is known here does not tell, so the department looks."""

    PASSED = "passed"
    FAILED = "failed"
    PERSON = "person"


class Check(Shape):
    """一项条件的核对结果。"""

    name: str = Field(description="条件")
    result: CheckResult
    result_text: str
    detail: str = Field(description="为什么；涉及的日期、记录")
    source: str = Field(description="依据")
    evidence: Evidence = Field(description="依据的证据等级；F、X、D、M 只作提示，不据以拒绝")
    records: list[str] = Field(default=[], description="使其不符合的其他记录（record_id）")


class RegimeAnswer(Shape):
    """按某一日的规则，这条记录怎样。"""

    regime: Transition
    regime_text: str
    repair: Repair
    rule: str = Field(description="规则目录中的编号")
    decided_by: str = Field(description="由谁决定")
    materials: list[str]
    accept_working_days: int | None
    decide_working_days: int | None
    extend_working_days: int | None
    total_working_days: int | None = Field(description="自申请之日起合计")
    targets: list[str] = Field(description="须同步的平台")
    checks: list[Check]


class Explanation(Shape):
    """一条记录在某一天能否修复，及其理由。"""

    record_id: str
    document_number: str
    category_name: str
    decided_on: date
    on: date = Field(description="假定在这一天申请")
    transition: Transition = Field(description="规则变更前作出的决定适用哪一日的规则（设置）")
    repair: Repair = Field(description="本平台据此接受或不接受申请")
    first: list[str] = Field(description="应先办理的其他记录（record_id）")
    regimes: list[RegimeAnswer] = Field(
        description="两种适用各自的结果；规则未曾变更时只有一种；无须看规则时为空"
    )


class PlannedRecord(Shape):
    """办理次序中的一条记录。"""

    record_id: str
    document_number: str
    category_name: str
    authority_name: str
    after: list[str] = Field(description="待哪些记录（record_id）准予修复后自动开始；为空即可立即办理")
    repair: Repair


class PlanStep(Shape):
    """同一步中的记录可以同时办理。"""

    step: int = Field(ge=1)
    records: list[PlannedRecord]


class Plan(Shape):
    """若干记录一起申请时的办理次序。"""

    on: date = Field(description="假定在这一天申请")
    ban: Ban | None = Field(None, description="当天有效的禁期：其间什么也不能申请，steps 为空")
    steps: list[PlanStep] = Field(description="当天可以申请的，按先后分步；一份申请即可，后面各步自动开始")
    later: list[PlannedRecord] = Field(description="当天不能申请的及其原因；可以申请之日在前的在先")
