"""HTTP for the shield while a bankruptcy plan is performed (scope ``records.write``): whoever brings records has read the ruling."""

from typing import Annotated

from fastapi import APIRouter, Depends

from chassis.auth import require
from contracts.errors import ProblemCode
from contracts.tokens import Claims, Scope
from intake.parts import Parts
from intake.responses import problems
from intake.shields import EndOfShield, NewShield, Shielded

router = APIRouter(
    prefix="/v1/records/shields",
    tags=["破产临时屏蔽"],
    responses=problems(
        ProblemCode.UNAUTHENTICATED,
        ProblemCode.FORBIDDEN,
        ProblemCode.VALIDATION,
        ProblemCode.UNKNOWN_RECORD,
        ProblemCode.INVALID_TRANSITION,
        ProblemCode.UNAVAILABLE,
    ),
)
Writer = Annotated[Claims, Depends(require(Scope.RECORDS_WRITE))]


@router.post("", summary="临时屏蔽一个主体的记录")
async def begin_shield(body: NewShield, writer: Writer, intake: Parts) -> Shielded:
    """法院裁定批准重整计划或认可和解协议之后。各平台随之暂停公示；在办的事项照常办理。重复提交没有第二次效果。"""
    return await intake.shields.begin(body, writer.sub)


@router.post("/end", summary="结束临时屏蔽")
async def end_shield(body: EndOfShield, writer: Writer, intake: Parts) -> Shielded:
    """计划执行完毕的，终止公示（最终修复）；未能执行的，恢复公示。重复提交没有第二次效果。"""
    return await intake.shields.end(body, writer.sub)
