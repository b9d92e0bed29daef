"""HTTP for the question why: may this record be repaired on that day, by which rules. For its subject, and for operators."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.eligibility import Explanation, Plan
from contracts.records import RecordId
from contracts.tokens import Claims, Scope
from intake.explanation import explain
from intake.findings import barred_plan, explained
from intake.parts import CurrentApplicant, Intake, Parts, today
from intake.plan import plan
from intake.responses import problems
from intake.submission import MAX_RECORDS

router = APIRouter(
    tags=["规则"],
    responses=problems(
        ProblemCode.UNAUTHENTICATED,
        ProblemCode.FORBIDDEN,
        ProblemCode.VALIDATION,
        ProblemCode.NOT_FOUND,
        ProblemCode.UNAVAILABLE,
    ),
)
Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
On = Annotated[date | None, Query(description="假定在这一天申请；默认今天（中国时间）")]
_KNOWN_RECORDS = 2_000
"""Of one subject that are looked at, the latest decisions first."""


async def _explanation(
    intake: Intake, record_id: str, on: date | None, subject_id: str | None
) -> Explanation:
    record = (await intake.store.records([record_id])).get(record_id)
    # the same answer for a record of somebody else: nobody learns which ids exist
    if record is None or subject_id not in (None, record.subject_id):
        raise Problem(ProblemCode.NOT_FOUND, "没有这条记录，请在“我的失信记录”中查看编号。")
    others = await intake.store.records_of(record.subject_id, None, _KNOWN_RECORDS)
    day = on or today()
    explanation = explain(record, others, intake.catalogue, day, intake.settings.transition)
    return explained(explanation, await intake.findings.barring(record.subject_id, day))


@router.get("/v1/subjects/me/records/{record_id}/repair", summary="这条记录能否修复，为什么")
async def my_explanation(
    record_id: str, applicant: CurrentApplicant, intake: Parts, on: On = None
) -> Explanation:
    """逐项列出核对的条件和依据。记录在规则变更前作出的，两种适用的结果都列出。"""
    return await _explanation(intake, record_id, on, applicant.subject.subject_id)


@router.get("/v1/subjects/me/plan", summary="几条记录一起申请，先后次序")
async def my_plan(
    applicant: CurrentApplicant,
    intake: Parts,
    record_id: Annotated[
        list[RecordId] | None,
        Query(max_length=MAX_RECORDS, description="要一起申请的记录；不填则为本人全部记录（最近的200条）"),
    ] = None,
    on: On = None,
) -> Plan:
    """哪些可以同时办理，哪些要等前面的准予后自动开始，哪些当天还不能申请、自哪天起；有禁期的写明到哪天。只是预告，不提交申请。"""
    subject_id = applicant.subject.subject_id
    if record_id is None:
        records = await intake.store.records_of(subject_id, None, MAX_RECORDS)
    else:
        found = await intake.store.records(record_id)
        own = {i: record for i, record in found.items() if record.subject_id == subject_id}
        if unknown := [i for i in record_id if i not in own]:
            raise Problem(
                ProblemCode.UNKNOWN_RECORD,
                "所选记录中有不存在或不属于当前主体的，请刷新记录列表后重新选择。",
                record_ids=unknown,
            )
        records = [*own.values()]
    day = on or today()
    planned = plan(records, intake.catalogue, day, intake.settings.transition)
    return barred_plan(planned, await intake.findings.barring(subject_id, day))


@router.get("/v1/operations/records/{record_id}/repair", summary="一条记录能否修复，为什么（运维）")
async def explanation(record_id: str, _operator: Operator, intake: Parts, on: On = None) -> Explanation:
    """同上，任何主体的记录；不含身份信息。"""
    return await _explanation(intake, record_id, on, None)
