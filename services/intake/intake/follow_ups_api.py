"""HTTP for follow-ups: subjects see and answer theirs, officers those of the repairs their departments granted."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from chassis.auth import require
from contracts.errors import ProblemCode
from contracts.http.follow_up import Answer, FollowUp
from contracts.tokens import Claims, Scope
from intake.parts import CurrentApplicant, Parts
from intake.responses import problems

_SIGNED_IN = (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.UNAVAILABLE)
_ANSWERING = problems(
    *_SIGNED_IN, ProblemCode.VALIDATION, ProblemCode.NOT_FOUND, ProblemCode.INVALID_TRANSITION
)
router = APIRouter(prefix="/v1", tags=["回访"], responses=problems(*_SIGNED_IN))
Officer = Annotated[Claims, Depends(require(Scope.DESK))]


@router.get("/subjects/me/follow-ups", summary="我的回访")
async def my_follow_ups(applicant: CurrentApplicant, intake: Parts) -> list[FollowUp]:
    """先到期的在前。"""
    return await intake.follow_ups.of_subject(applicant.subject.subject_id)


@router.post("/subjects/me/follow-ups/{follow_up_id}/answer", summary="答复回访", responses=_ANSWERING)
async def answer(follow_up_id: str, applicant: CurrentApplicant, intake: Parts, body: Answer) -> FollowUp:
    """到期之后答复，一次；同样内容重复提交没有第二次效果。"""
    owner = {"subject_id": applicant.subject.subject_id}
    return await intake.follow_ups.answer(follow_up_id, owner, body, "subject", officer=False)


@router.get("/follow-ups", summary="本部门所作修复的回访")
async def follow_ups_of_departments(
    officer: Officer,
    intake: Parts,
    failing: Annotated[bool | None, Query(description="只看又有失信的，或没有的；不填则全部")] = None,
) -> list[FollowUp]:
    """先到期的在前；又有失信的供监管使用。"""
    return await intake.follow_ups.of_departments(officer.departments, failing=failing)


@router.post("/follow-ups/{follow_up_id}/answer", summary="审核员记录回访情况", responses=_ANSWERING)
async def answer_as_officer(follow_up_id: str, officer: Officer, intake: Parts, body: Answer) -> FollowUp:
    """主体没有答复的，由审核员了解后记录。"""
    owner = {"department_code": {"$in": list(officer.departments)}}
    return await intake.follow_ups.answer(follow_up_id, owner, body, officer.sub, officer=True)
