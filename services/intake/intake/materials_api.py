"""HTTP for materials: applicants upload and see their own; other services read them (scope ``cases.read``)."""

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import Material
from contracts.tokens import Claims, Scope
from intake.parts import CurrentApplicant, Parts
from intake.responses import problems

UPLOAD_PATH = "/v1/materials"
_SIGNED_IN = (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.UNAVAILABLE)
router = APIRouter(tags=["材料"], responses=problems(*_SIGNED_IN))
Reader = Annotated[Claims, Depends(require(Scope.CASES_READ))]
_CONTENT = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    **problems(*_SIGNED_IN, ProblemCode.NOT_FOUND),
}


@router.post(
    UPLOAD_PATH,
    status_code=201,
    summary="上传一份材料",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses=problems(
        *_SIGNED_IN,
        ProblemCode.VALIDATION,
        ProblemCode.TOO_LARGE,
        ProblemCode.INVALID_TRANSITION,
        ProblemCode.BUSY,
    ),
)
async def upload(
    request: Request,
    applicant: CurrentApplicant,
    intake: Parts,
    name: Annotated[str, Query(max_length=300, description="文件名，给人看的")],
) -> Material:
    """正文即文件内容：PDF、JPEG 或 PNG，按内容识别。同一主体上传同样的内容得到同一编号；一份材料可供多份申请使用。"""
    return await intake.materials.upload(applicant.subject.subject_id, name, request.stream())


@router.get(
    "/v1/materials/{material_id}", summary="我的材料", response_class=StreamingResponse, responses=_CONTENT
)
async def download(material_id: str, applicant: CurrentApplicant, intake: Parts) -> StreamingResponse:
    """内容与上传时相同。"""
    return _content(await intake.materials.open(material_id, applicant.subject.subject_id))


@router.get(
    "/v1/internal/materials/{material_id}",
    summary="材料的内容（内部）",
    response_class=StreamingResponse,
    responses=_CONTENT,
)
async def download_internally(material_id: str, _reader: Reader, intake: Parts) -> StreamingResponse:
    """供审核工作台和部门系统查看。"""
    return _content(await intake.materials.open(material_id))


def _content(found: tuple[Material, AsyncIterator[bytes]] | None) -> StreamingResponse:
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份材料，请核对编号，或重新上传。")
    material, pieces = found
    return StreamingResponse(
        pieces,
        media_type=material.media_type,
        headers={
            "Content-Length": str(material.size_bytes),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(material.name, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        },
    )
