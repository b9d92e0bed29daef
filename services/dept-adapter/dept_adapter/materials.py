"""Materials as departments see them: those of the application an item belongs to, and no others."""

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi.responses import StreamingResponse

from chassis.cases import CaseDirectory
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import Case, Material
from dept_adapter.intake_side import AWAY

T = TypeVar("T")


FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
"""OpenAPI: the answer is a file."""


async def material_response(cases: CaseDirectory, application_id: str, material_id: str) -> StreamingResponse:
    """The content, passed on piece by piece. Raises Problem: NOT_FOUND, UNAVAILABLE."""
    case = await _case(cases, application_id)
    return stream_material(cases, case.materials if case else (), material_id)


def stream_material(
    cases: CaseDirectory, materials: Iterable[Material], material_id: str
) -> StreamingResponse:
    """The content of one of these materials. Raises Problem NOT_FOUND when it is none of them."""
    found = next((m for m in materials if m.material_id == material_id), None)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份材料，请刷新后重试。")
    return _inline(cases.material(material_id), found.media_type, found.name)


async def commitment_response(cases: CaseDirectory, application_id: str) -> StreamingResponse:
    """The applicant's commitment as PDF. Raises Problem: NOT_FOUND, UNAVAILABLE."""
    case = await _case(cases, application_id)
    if case is None or case.commitment is None:
        raise Problem(ProblemCode.NOT_FOUND, "该申请没有承诺书：提交时未要求确认，请申请人补充。")
    return _inline(cases.commitment(application_id), "application/pdf", "信用信息修复承诺书.pdf")


async def objection_material(cases: CaseDirectory, objection_id: str, material_id: str) -> StreamingResponse:
    """The content of a material of an objection. Raises Problem: NOT_FOUND, UNAVAILABLE."""
    case = await _asked(cases.objections([objection_id]), objection_id)
    return stream_material(cases, case.materials if case else (), material_id)


async def _case(cases: CaseDirectory, application_id: str) -> Case | None:
    return await _asked(cases.cases([application_id]), application_id)


async def _asked(asking: Awaitable[Mapping[str, T]], id_: str) -> T | None:
    try:
        return (await asking).get(id_)
    except AWAY:
        raise Problem(ProblemCode.UNAVAILABLE, "受理端未应答，材料暂时无法读取，请稍后重试。") from None


def _inline(pieces: AsyncIterator[bytes], media_type: str, name: str) -> StreamingResponse:
    return StreamingResponse(
        pieces,
        media_type=media_type,
        headers={
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
            # an uploaded file is never a page of ours
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        },
    )
