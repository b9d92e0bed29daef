"""Materials as departments see them: those of the application an item belongs to, and no others."""

from collections.abc import Iterable
from urllib.parse import quote

from aiohttp import ClientError
from fastapi.responses import StreamingResponse

from chassis.cases import CaseDirectory
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import Material


async def material_response(cases: CaseDirectory, application_id: str, material_id: str) -> StreamingResponse:
    """The content, passed on piece by piece. Raises Problem: NOT_FOUND, UNAVAILABLE."""
    try:
        case = (await cases.cases([application_id])).get(application_id)
    except (ClientError, TimeoutError, OSError, ValueError):
        raise Problem(ProblemCode.UNAVAILABLE, "受理端未应答，材料暂时无法读取，请稍后重试。") from None
    return stream_material(cases, case.materials if case else (), material_id)


def stream_material(
    cases: CaseDirectory, materials: Iterable[Material], material_id: str
) -> StreamingResponse:
    """The content of one of these materials. Raises Problem NOT_FOUND when it is none of them."""
    found = next((m for m in materials if m.material_id == material_id), None)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这份材料，请刷新后重试。")
    return StreamingResponse(
        cases.material(material_id),
        media_type=found.media_type,
        headers={
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(found.name, safe='')}",
            # an uploaded file is never a page of ours
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        },
    )
