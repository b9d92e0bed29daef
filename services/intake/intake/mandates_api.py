"""HTTP for mandates: subjects give them and take them back, windows register and list theirs, a subject objects."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.mandate import Agent, Mandate, MandateAct
from contracts.records import SubjectType
from contracts.tokens import Claims, Scope
from intake.mandates import NewMandate
from intake.parts import CurrentApplicant, Parts, agent_of, normalise_code
from intake.parts import identified as identify
from intake.responses import problems

_SIGNED_IN = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.FORBIDDEN,
    ProblemCode.VALIDATION,
    ProblemCode.UNAVAILABLE,
)
router = APIRouter(prefix="/v1", tags=["帮办代办"], responses=problems(*_SIGNED_IN))
Window = Annotated[Claims, Depends(require(Scope.AGENT))]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class GivenMandate(BaseModel):
    """主体委托一个窗口。"""

    model_config = ConfigDict(extra="forbid")

    agent_code: Text = Field(description="窗口代码")
    agent_name: Text = Field(description="窗口名称")
    acts: list[MandateAct] = Field(min_length=1, max_length=3, description="可以代为办理的事")
    valid_until: date = Field(description="有效至这一天（含）")


class RegisteredMandate(BaseModel):
    """窗口登记书面委托。主体会被告知，可以随时撤销。"""

    model_config = ConfigDict(extra="forbid")

    subject_type: SubjectType
    subject_code: Text = Field(description="统一社会信用代码或身份证号")
    subject_name: Text
    acts: list[MandateAct] = Field(min_length=1, max_length=3, description="可以代为办理的事")
    valid_until: date = Field(description="有效至这一天（含）")
    paper: Text = Field(description="书面委托的文号或存放处，以备核查")


def _own(applicant: CurrentApplicant) -> None:
    if applicant.mandate is not None:
        raise Problem(ProblemCode.FORBIDDEN, "委托由主体本人管理，窗口不能代办。")


@router.post("/subjects/me/mandates", status_code=201, summary="委托窗口代办")
async def give(applicant: CurrentApplicant, intake: Parts, body: GivenMandate) -> Mandate:
    """写明给谁、办什么、到哪一天。窗口所做的都会标明，可以随时撤销。"""
    _own(applicant)
    agent = Agent(code=body.agent_code, name=body.agent_name)
    new = NewMandate(applicant.subject, agent, tuple(body.acts), body.valid_until, "subject")
    return await intake.mandates.add(new)


@router.get("/subjects/me/mandates", summary="我的委托")
async def given(applicant: CurrentApplicant, intake: Parts) -> list[Mandate]:
    """最新的在前。"""
    return await intake.mandates.of_subject(applicant.subject.subject_id)


@router.post(
    "/subjects/me/mandates/{mandate_id}/revoke",
    summary="撤销委托",
    responses=problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
)
async def revoke(mandate_id: str, applicant: CurrentApplicant, intake: Parts) -> Mandate:
    """立即生效；此前已办的不受影响，可以另行撤回或提出异议。"""
    _own(applicant)
    return await intake.mandates.revoke(applicant.subject.subject_id, mandate_id)


@router.post("/agent/mandates", status_code=201, summary="窗口登记书面委托")
async def register(window: Window, intake: Parts, body: RegisteredMandate) -> Mandate:
    """主体不便上网时，窗口凭书面委托登记，写明存放处。"""
    try:
        normalise_code(body.subject_type, body.subject_code)
    except ValueError as error:
        raise Problem(
            ProblemCode.VALIDATION,
            "请按 errors 中的说明更正后重新提交。",
            errors=[{"field": "subject_code", "reason": str(error)}],
        ) from None
    subject = await identify(intake, body.subject_type, body.subject_code, body.subject_name)
    new = NewMandate(subject, agent_of(window), tuple(body.acts), body.valid_until, "agent", body.paper)
    return await intake.mandates.add(new)


@router.get("/agent/mandates", summary="给本窗口的委托")
async def received(window: Window, intake: Parts) -> list[Mandate]:
    """最新的在前。"""
    return await intake.mandates.of_agent(agent_of(window).code)


@router.post(
    "/applications/{application_id}/object",
    status_code=202,
    summary="对代办的申请提出异议",
    responses=problems(*_SIGNED_IN, ProblemCode.NOT_FOUND, ProblemCode.INVALID_TRANSITION),
)
async def object_to(application_id: str, applicant: CurrentApplicant, intake: Parts) -> None:
    """委托随即终止，尚未决定的事项撤回；已经决定的不受影响。"""
    _own(applicant)
    await intake.acts.object_to(applicant, application_id, intake.mandates)
