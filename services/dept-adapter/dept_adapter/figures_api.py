"""HTTP for the figures: of a department for its officers, of all for the credit centre. ``?format=`` or ``Accept``: JSON or CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel

from chassis.auth import require
from chassis.negotiation import preferred
from chassis.problems import Problem
from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.records import DepartmentRef
from contracts.tokens import Claims, Role, Scope
from dept_adapter.figures import Figures, Reasons, ReviewFigures, Speed
from dept_adapter.states import STATE_TEXT

router = APIRouter(prefix="/v1", tags=["办理情况"])
Viewer = Annotated[Claims, Depends(require(Scope.DESK, Scope.OPERATIONS))]
MAX_DAYS = 366
"""Of a period."""


class FiguresFormat(StrEnum):
    """How figures are answered."""

    JSON = "json"
    CSV = "csv"


_MEDIA_TYPES = {FiguresFormat.JSON: "application/json", FiguresFormat.CSV: "text/csv"}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/csv": {"schema": {"type": "string"}}},
        "description": "JSON 或 CSV（UTF-8，带 BOM）",
    }
}
From = Annotated[
    date | None, Query(alias="from", description="收到之日从这一天起（中国日期）；默认当年1月1日")
]
To = Annotated[date | None, Query(alias="to", description="到这一天止（含）；默认今天")]
Form = Annotated[
    FiguresFormat | None, Query(alias="format", description="json 或 csv；不填时按 Accept，再不然为 json")
]
Accept = Annotated[str | None, Header(include_in_schema=False)]


class FiguresOfAll(BaseModel):
    """The figures of all served departments, in the catalogue's order."""

    figures: list[Figures]


def oversees(claims: Claims) -> bool:
    """Whether the caller looks at all departments: a supervisor of the credit centre, or operations."""
    return claims.allows(Scope.OPERATIONS) or (claims.allows(Scope.DESK) and claims.holds(Role.SUPERVISOR))


def only_overseers(claims: Claims) -> None:
    """Raises Problem FORBIDDEN for everybody else."""
    if not oversees(claims):
        raise Problem(ProblemCode.FORBIDDEN, "只有督办人员可以查看全部部门；请查看本部门的事项和办理情况。")


@router.get(
    "/departments/{code}/figures", summary="一个部门的办理情况", responses=_RESPONSES, response_model=Figures
)
async def department_figures(
    request: Request,
    viewer: Viewer,
    code: str,
    first_day: From = None,
    last_day: To = None,
    form: Form = None,
    accept: Accept = None,
) -> Response:
    """这段时间收到的事项现在办得怎样：多少、多快、超期多少、为何不予。供本部门人员和督办查看。"""
    department = request.app.state.departments.get(code)
    if department is None:
        raise Problem(ProblemCode.NOT_FOUND, f"本服务未接入代码为 {code} 的部门，请核对后重试。")
    if code not in viewer.departments and not oversees(viewer):
        raise Problem(ProblemCode.WRONG_DEPARTMENT, "您的账号不属于该部门；如需查看，请联系管理员授权。")
    (figures,) = await count(request, [department], first_day, last_day)
    if _form(form, accept) is FiguresFormat.CSV:
        rows = [("指标", "项目", "数值"), *_rows(figures), *_reason_rows(figures)]
        return _csv(rows, f"figures-{department.slug}-{figures.first_day}-{figures.last_day}.csv")
    return _json(figures)


@router.get("/figures", summary="全部所接部门的办理情况", responses=_RESPONSES, response_model=FiguresOfAll)
async def all_figures(
    request: Request,
    viewer: Viewer,
    first_day: From = None,
    last_day: To = None,
    form: Form = None,
    accept: Accept = None,
) -> Response:
    """每个部门一行，供信用中心督办比较。需要督办角色（supervisor）或运维权限。"""
    only_overseers(viewer)
    departments: Mapping[str, Department] = request.app.state.departments
    found = await count(request, list(departments.values()), first_day, last_day)
    if _form(form, accept) is FiguresFormat.CSV:
        titles = [
            "部门",
            "部门代码",
            *(f"{name}{part and f'（{part}）'}" for name, part, _ in _rows(found[0])),
        ]
        rows = [
            (each.department.name, each.department.code, *(value for _, _, value in _rows(each)))
            for each in found
        ]
        return _csv([titles, *rows], f"figures-{found[0].first_day}-{found[0].last_day}.csv")
    return _json(FiguresOfAll(figures=found))


async def count(
    request: Request, departments: Sequence[Department], first_day: date | None, last_day: date | None
) -> list[Figures]:
    """The figures of departments in a period, by default this year so far. Raises Problem VALIDATION."""
    today = china_date(datetime.now(UTC))
    last_day = last_day or today
    first_day = first_day or last_day.replace(month=1, day=1)
    if not 0 <= (last_day - first_day).days < MAX_DAYS:
        raise Problem(
            ProblemCode.VALIDATION, f"from 不应晚于 to，且一次至多{MAX_DAYS}天，请调整起止日期后重试。"
        )
    catalogue: Catalogue = request.app.state.settings.catalogue

    def promised(on: date) -> int | None:
        overlay = catalogue.promise(on)
        return overlay.department_working_days if overlay else None

    figures: ReviewFigures = request.app.state.figures
    refs = {d.code: DepartmentRef(code=d.code, slug=d.slug, name=d.name) for d in departments}
    return await figures.count(refs, first_day, last_day, today, promised)


def _form(form: FiguresFormat | None, accept: str | None) -> FiguresFormat:
    return form or preferred(accept, _MEDIA_TYPES, FiguresFormat.JSON)


_HEADERS = {"Cache-Control": "private, no-store", "Vary": "Accept, Authorization"}


def _json(shown: BaseModel) -> Response:
    return Response(shown.model_dump_json(), media_type="application/json", headers=_HEADERS)


def _csv(rows: Iterable[Sequence[object]], name: str) -> Response:
    """Spreadsheets know UTF-8 by its BOM, and lines by CR LF (RFC 4180)."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows([[_cell(value) for value in row] for row in rows])
    headers = {
        **_HEADERS,
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(file.getvalue().encode("utf-8-sig"), media_type="text/csv", headers=headers)


_FORMULA = tuple("=+-@＝＋－＠")


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is marked as text (OWASP, CSV Injection)."""
    if isinstance(value, str) and (value.lstrip().startswith(_FORMULA) or value[:1] in ("\t", "\r")):
        return f"'{value}"
    return value


def _rows(figures: Figures) -> list[tuple[str, str, object]]:
    """(figure, part of it, value); empty where there is none."""
    promise = figures.within_promise
    return [
        ("统计起", "", figures.first_day.isoformat()),
        ("统计止", "", figures.last_day.isoformat()),
        ("收到", "件", figures.received),
        ("在办", "件", figures.open),
        ("在办已超期", "件", figures.overdue_now),
        ("受理", "件", figures.accepted),
        ("逾期受理", "件", figures.accepted_late),
        ("决定", "件", figures.decided),
        ("逾期决定", "件", figures.decided_late),
        *(("结果", STATE_TEXT[state], number) for state, number in figures.outcomes.items()),
        *_speed_rows("收到至受理", figures.to_accept),
        *_speed_rows("收到至决定", figures.to_decide),
        ("服务承诺", "工作日", _shown(figures.promise_working_days)),
        ("承诺内决定", "%", _shown(promise.percent if promise else None)),
        ("法定期限内决定", "%", _shown(figures.within_law.percent)),
        ("补正", "件", figures.supplements),
        ("延期", "件", figures.extensions),
        ("自动通过", "件", figures.automatic),
    ]


def _speed_rows(name: str, speed: Speed) -> list[tuple[str, str, object]]:
    return [
        (name, "工作日，中位数", _shown(speed.median_working_days)),
        (name, "工作日，90分位", _shown(speed.p90_working_days)),
    ]


def _reason_rows(figures: Figures) -> list[tuple[str, str, object]]:
    def rows(name: str, reasons: Reasons) -> list[tuple[str, str, object]]:
        shown = [(name, reason.reason, reason.number) for reason in reasons.shown]
        return [*shown, (name, "其他原因", reasons.others)] if reasons.others else [*shown]

    return [*rows("不予修复的原因", figures.refused_why), *rows("不予受理的原因", figures.not_accepted_why)]


def _shown(value: float | None) -> object:
    return "" if value is None else value
