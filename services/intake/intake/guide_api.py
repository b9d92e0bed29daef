"""HTTP for the guide: of all categories and of each for everybody, of a subject's own records for the subject.

One address, several representations: ``?format=`` or, without it, the first of ``Accept`` that there is.
"""

import asyncio
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, BeforeValidator

from chassis.negotiation import preferred
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.guide import CategoryGuide, GuideOverview, SubjectGuide
from intake import guide_page
from intake.guide import category_guide, overview, subject_guide
from intake.guide_picture import Picture, category_picture, overview_picture, subject_picture
from intake.parts import CurrentApplicant, Intake, Parts, today
from intake.responses import problems

_KNOWN_RECORDS, _SHOWN_RECORDS = 2_000, 200
"""Of one subject that are looked at, and that are told about, the latest decisions first."""


class GuideFormat(StrEnum):
    """How the guide is answered."""

    JSON = "json"
    HTML = "html"
    SVG = "svg"
    PDF = "pdf"


_MEDIA_TYPES = {
    GuideFormat.JSON: "application/json",
    GuideFormat.HTML: "text/html",
    GuideFormat.SVG: "image/svg+xml",
    GuideFormat.PDF: "application/pdf",
}
_PUBLIC = {"Cache-Control": "public, max-age=300", "Vary": "Accept"}
_PRIVATE = {"Cache-Control": "private, no-store", "Vary": "Accept, Authorization"}
_SVG_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


def _known_format(value: Any) -> Any:
    if value is not None and value not in list(GuideFormat):
        raise ValueError(f"可用的形式：{'、'.join(GuideFormat)}")
    return value


def negotiated(accept: str | None) -> GuideFormat:
    """The form the client likes best of those there are; JSON when it says nothing that we have."""
    return preferred(accept, _MEDIA_TYPES, GuideFormat.JSON)


On = Annotated[date | None, Query(description="按这一天有效的规则；默认今天（中国时间）")]
Form = Annotated[
    GuideFormat | None,
    BeforeValidator(_known_format),
    Query(alias="format", description="json、html、svg、pdf；不填时按 Accept，再不然为 json"),
]
Accept = Annotated[str | None, Header(include_in_schema=False)]


def _responses(*codes: ProblemCode) -> dict[int | str, dict[str, Any]]:
    others = {media: {"schema": {"type": "string"}} for media in list(_MEDIA_TYPES.values())[1:]}
    return {
        200: {"content": others, "description": "JSON、网页（HTML）、一张图（SVG 或 PDF）"},
        **problems(ProblemCode.VALIDATION, ProblemCode.BUSY, *codes),
    }


router = APIRouter(prefix="/v1", tags=["办事指南"])


@router.get("/guide", summary="办事指南：全部类别", responses=_responses(), response_model=GuideOverview)
async def guide_of_all(intake: Parts, on: On = None, form: Form = None, accept: Accept = None) -> Response:
    """每类失信记录一行：何时能申请、何时自动停止公示、办理时限、由谁决定。不需要登录。"""
    guide = overview(intake.catalogue, on or today(), intake.settings.transition)
    return await _answer(
        intake,
        form or negotiated(accept),
        guide,
        lambda: guide_page.overview_page(guide, on),
        lambda: overview_picture(guide),
        f"guide-{guide.on}",
        _PUBLIC,
    )


@router.get(
    "/guide/{category}",
    summary="办事指南：一个类别",
    responses=_responses(ProblemCode.NOT_FOUND),
    response_model=CategoryGuide,
)
async def guide_of_category(
    category: str, intake: Parts, on: On = None, form: Form = None, accept: Accept = None
) -> Response:
    """一类失信记录的条件、材料、流程、时限、认定单位，每项注明依据及其可靠程度。不需要登录。"""
    found = intake.catalogue.category(category)
    if found is None:
        known = [each.id for each in intake.catalogue.categories]
        raise Problem(ProblemCode.NOT_FOUND, f"没有这个类别。有的是：{'、'.join(known)}。", categories=known)
    guide = category_guide(intake.catalogue, found, on or today(), intake.settings.transition)
    return await _answer(
        intake,
        form or negotiated(accept),
        guide,
        lambda: guide_page.category_page(guide, on),
        lambda: category_picture(guide),
        f"guide-{guide.category}-{guide.on}",
        _PUBLIC,
    )


@router.get(
    "/subjects/me/guide",
    summary="我的一张图：今天能做什么",
    responses=_responses(ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.UNAVAILABLE),
    response_model=SubjectGuide,
)
async def my_guide(
    applicant: CurrentApplicant, intake: Parts, on: On = None, form: Form = None, accept: Accept = None
) -> Response:
    """我的每条记录在哪一组：今天可以申请、先办另一条、由人判断、暂不能（按日期）、办理中、已届满、不归本平台、已处理。"""
    subject, day = applicant.subject, on or today()
    records = await intake.store.records_of(subject.subject_id, None, _KNOWN_RECORDS)
    finding = await intake.findings.barring(subject.subject_id, day)
    # every record is compared with all others: beside the event loop, not in it
    guide = await asyncio.to_thread(
        subject_guide,
        subject.name,
        records,
        intake.catalogue,
        day,
        intake.settings.transition,
        shown=_SHOWN_RECORDS,
        finding=finding,
    )
    return await _answer(
        intake,
        form or negotiated(accept),
        guide,
        lambda: guide_page.subject_page(guide),
        lambda: subject_picture(guide),
        f"my-guide-{guide.on}",
        _PRIVATE,
    )


async def _answer(
    intake: Intake,
    form: GuideFormat,
    guide: BaseModel,
    page: Callable[[], str],
    picture: Callable[[], Picture],
    name: str,
    headers: dict[str, str],
) -> Response:
    headers = {**headers, "Content-Disposition": f'inline; filename="{name}.{form}"'}
    match form:
        case GuideFormat.JSON:
            content: str | bytes = guide.model_dump_json(by_alias=True)
        case GuideFormat.HTML:
            content, headers = page(), {**headers, **guide_page.HEADERS}
        case GuideFormat.SVG | GuideFormat.PDF:
            content = await intake.painter.draw(picture(), "svg" if form is GuideFormat.SVG else "pdf")
            headers |= _SVG_HEADERS if form is GuideFormat.SVG else {"X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_MEDIA_TYPES[form], headers=headers)
