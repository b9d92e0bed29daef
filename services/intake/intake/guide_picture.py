"""The guide as one drawn picture, SVG or PDF, set by typst from ``templates/guide.typ``.

What is drawn goes in as JSON and is never markup (chassis/typesetting.py).
"""

from collections import OrderedDict
from collections.abc import Iterator
from datetime import date
from importlib.resources import files
from typing import Any, NamedTuple

from chassis.problems import Problem
from chassis.typesetting import Format, Typesetter, TypesetterBusyError
from contracts.errors import ProblemCode
from contracts.http.guide import CategoryGuide, GuideOverview, SubjectGuide
from intake.guide import LEGEND, day_text

_KEPT_PICTURES = 24
_RETRY_SECONDS = 2
_SHOWN_OFFICES, _SHOWN_RECORDS = 12, 12
"""As ``shown-offices`` and ``shown-records`` (of one group) of the template."""


class Picture(NamedTuple):
    """What is to be drawn: the template's data, and its key in the cache when it may be kept."""

    data: dict[str, Any]
    on: date
    key: str | None


def category_picture(guide: CategoryGuide) -> Picture:
    """The picture of one category."""
    subtitle = f"按 {day_text(guide.on)} 有效的规则"
    if guide.next_change_on is not None:
        subtitle += f"\n{day_text(guide.next_change_on)}起规则变更"
    return _picture("category", "信用修复指南 · 一张图", guide.name, subtitle, guide, guide.category)


def overview_picture(guide: GuideOverview) -> Picture:
    """The picture of all categories."""
    subtitle = f"按 {day_text(guide.on)} 有效的规则"
    return _picture("overview", "信用修复指南 · 一张图", "各类失信记录怎样修复", subtitle, guide, "")


def subject_picture(guide: SubjectGuide) -> Picture:
    """The picture of a subject's own records. Never kept."""
    return _picture(
        "subject", "我的信用修复一张图 · 今天能做什么", guide.subject_name, day_text(guide.on), guide, None
    )


def _picture(
    layout: str,
    kicker: str,
    title: str,
    subtitle: str,
    guide: CategoryGuide | GuideOverview | SubjectGuide,
    key: str | None,
) -> Picture:
    dumped = guide.model_dump(mode="json")
    for each in _dicts(dumped):
        if "decided_on" in each:
            each["decided_text"] = day_text(date.fromisoformat(each["decided_on"]))
    sources = _numbered(dumped)
    data = {
        "layout": layout,
        "kicker": kicker,
        "title": title,
        "subtitle": subtitle,
        "legend": LEGEND,
        "sources": sources,
        "guide": dumped,
    }
    return Picture(data, guide.on, None if key is None else f"{layout}:{key}:{guide.on}")


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(each)


def _numbered(dumped: dict[str, Any]) -> list[dict[str, Any]]:
    """Every basis that is shown gets the number under which the foot of the picture lists it, in the order of the picture."""
    listed: dict[tuple[str, str], dict[str, Any]] = {}
    for each in _dicts(_shown(dumped)):
        if "evidence_text" in each:
            key = (each["source"], each["evidence_text"])
            each["number"] = listed.setdefault(key, {**each, "number": len(listed) + 1})["number"]
    return [*listed.values()]


def _shown(dumped: dict[str, Any]) -> list[Any]:
    """The parts with their bases as the picture has them: a step shows the weakest of its platforms, offices beyond some are counted."""
    ways = dumped.get("ways", [])
    return [
        *(
            [
                way["total_basis"],
                [step["limits"] for step in way["steps"]],
                [[period["kinds"], _limits(period)] for period in way["periods"]],
                way["conditions"],
                way["materials_basis"] if way["materials"] else None,
            ]
            for way in ways
        ),
        [way["decided_by_basis"] for way in ways],
        dumped.get("offices", [])[:_SHOWN_OFFICES],
        dumped.get("extras", []),
        [_limits(period) for period in dumped.get("earlier", [])],
        [
            record["basis"]
            for group in dumped.get("groups", [])
            for record in group["records"][:_SHOWN_RECORDS]
        ],
    ]


def _limits(period: dict[str, Any]) -> list[Any]:
    return [
        period["min_basis"],
        None if period["max_publication_months"] is None else period["max_basis"],
    ]


class Painter:
    """Draws pictures one after another; ``max_at_work``: being drawn or waiting, one more is refused (429)."""

    def __init__(self, max_at_work: int) -> None:
        template = files("intake").joinpath("templates", "guide.typ").read_bytes()
        self._typesetter = Typesetter(template, max_at_work)
        self._kept: OrderedDict[tuple[str, Format], bytes] = OrderedDict()

    async def draw(self, picture: Picture, form: Format) -> bytes:
        """The picture as a file. Raises Problem BUSY when too many are waited for."""
        key = None if picture.key is None else (picture.key, form)
        if key is not None and key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            drawn = await self._typesetter.set(picture.data, form)
        except TypesetterBusyError:
            raise Problem(
                ProblemCode.BUSY,
                f"正在绘制的图太多，请在 {_RETRY_SECONDS} 秒后重试；网页版（format=html）不受影响。",
                headers={"Retry-After": str(_RETRY_SECONDS)},
                cause="pictures",
            ) from None
        if key is not None:
            self._kept[key] = drawn
            if len(self._kept) > _KEPT_PICTURES:
                self._kept.popitem(last=False)
        return drawn
