"""HTTP for the question why: may this record be repaired on that day, by which rules. For its subject, and for operators."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.eligibility import Explanation
from contracts.tokens import Claims, Scope
from intake.explanation import explain
from intake.parts import CurrentApplicant, Intake, Parts, today
from intake.responses import problems

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
    return explain(record, others, intake.catalogue, on or today(), intake.settings.transition)


@router.get("/v1/subjects/me/records/{record_id}/repair", summary="这条记录能否修复，为什么")
async def my_explanation(
    record_id: str, applicant: CurrentApplicant, intake: Parts, on: On = None
) -> Explanation:
    """逐项列出核对的条件和依据。记录在规则变更前作出的，两种适用的结果都列出。"""
    return await _explanation(intake, record_id, on, applicant.subject.subject_id)


@router.get("/v1/operations/records/{record_id}/repair", summary="一条记录能否修复，为什么（运维）")
async def explanation(record_id: str, _operator: Operator, intake: Parts, on: On = None) -> Explanation:
    """同上，任何主体的记录；不含身份信息。"""
    return await _explanation(intake, record_id, on, None)
