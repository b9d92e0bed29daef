"""HTTP for repair certificates of a subject's own records: asked of sync, handed on as they come."""

import json
from typing import Annotated, Literal

from aiohttp import ClientError
from fastapi import APIRouter, Path, Query, Response

from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.certificate import SignedCertificate
from contracts.records import RecordId
from intake.parts import CurrentApplicant, Parts
from intake.responses import problems

router = APIRouter(prefix="/v1", tags=["修复证明"])
_RETRY = {"Retry-After": "5"}


@router.get(
    "/subjects/me/records/{record_id}/certificate",
    summary="我的修复证明",
    response_model=SignedCertificate,
    responses={
        200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(
            ProblemCode.UNAUTHENTICATED,
            ProblemCode.FORBIDDEN,
            ProblemCode.NOT_FOUND,
            ProblemCode.INVALID_TRANSITION,
            ProblemCode.UNAVAILABLE,
        ),
    },
)
async def my_certificate(
    record_id: Annotated[RecordId, Path()],
    applicant: CurrentApplicant,
    intake: Parts,
    form: Annotated[Literal["json", "pdf"], Query(alias="format")] = "pdf",
) -> Response:
    """一条已修复记录的证明：修复决定，每个平台最近一次见到与决定一致的时间；带数字签名，任何人可在公开网页或离线核对。"""
    record = (await intake.store.records([record_id])).get(record_id)
    if record is None or record.facts.subject_id != applicant.subject.subject_id:
        raise Problem(ProblemCode.NOT_FOUND, "您名下没有这条记录，请在“我的失信记录”中核对编号。")
    try:
        status, media_type, content = await intake.certificates.fetch(record_id, form)
    except (ClientError, TimeoutError, OSError):
        raise Problem(ProblemCode.UNAVAILABLE, "证明暂时无法出具，请稍后再试。", headers=_RETRY) from None
    match status:
        case 200:
            headers = {
                "Content-Disposition": f'inline; filename="certificate-{record_id}.{form}"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "private, no-store",
            }
            return Response(content, media_type=media_type, headers=headers)
        case 404:
            raise Problem(
                ProblemCode.NOT_FOUND, "这条记录还没有修复决定：作出准予修复的决定之后才能出具证明。"
            )
        case 409:
            # revoked, shielded, withdrawn: sync says which
            raise Problem(ProblemCode.INVALID_TRANSITION, str(json.loads(content)["detail"]))
    raise Problem(ProblemCode.UNAVAILABLE, "证明暂时无法出具，请稍后再试。", headers=_RETRY)
