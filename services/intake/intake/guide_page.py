"""The guide as an HTML page (``templates/guide.html.j2``): no script, nothing from outside, everything escaped."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from contracts.http.guide import CategoryGuide, GuideOverview, SubjectGuide
from intake.guide import LEGEND, day_text

_templates = Environment(
    loader=PackageLoader("intake"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_CSS = PackageLoader("intake").get_source(_templates, "guide.css")[0]
_CSS_HASH = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""To be sent with a page: the browser runs no script and loads nothing."""
_PICTURES = (("一张图（PDF，可打印）", "pdf"), ("一张图（SVG）", "svg"), ("数据（JSON）", "json"))


def category_page(guide: CategoryGuide, asked: date | None) -> str:
    """The page of one category. ``asked``: the day asked for, kept in links."""
    own = guide.category
    links = [("全部类别", _href("../guide", "html", asked)), *_pictures(own, asked)]
    subtitle = f"按{day_text(guide.on)}有效的规则"
    if guide.next_change_on is not None:
        subtitle += f"；{day_text(guide.next_change_on)}起规则变更"
    return _page("category", "信用修复指南 · 一张图", guide.name, subtitle, guide, links)


def overview_page(guide: GuideOverview, asked: date | None) -> str:
    """The page of all categories."""
    hrefs = {each.category: _href(f"guide/{each.category}", "html", asked) for each in guide.categories}
    subtitle = f"按{day_text(guide.on)}有效的规则"
    return _page(
        "overview",
        "信用修复指南 · 一张图",
        "各类失信记录怎样修复",
        subtitle,
        guide,
        _pictures("guide", asked),
        hrefs,
    )


def subject_page(guide: SubjectGuide) -> str:
    """The page of a subject's own records."""
    return _page(
        "subject",
        "我的信用修复一张图 · 今天能做什么",
        guide.subject_name,
        day_text(guide.on),
        guide,
        # a browser sends no token with a link: the page that shows this one offers the pictures
        [],
    )


def _page(
    layout: str,
    kicker: str,
    title: str,
    subtitle: str,
    guide: CategoryGuide | GuideOverview | SubjectGuide,
    links: Sequence[tuple[str, str]],
    hrefs: dict[str, str] | None = None,
) -> str:
    context: dict[str, Any] = {
        "layout": layout,
        "kicker": kicker,
        "title": title,
        "subtitle": subtitle,
        "guide": guide,
        "links": links,
        "hrefs": hrefs or {},
        "legend": LEGEND,
        "css": Markup(_CSS),  # noqa: S704 (our own file, whose hash the policy names)
    }
    return _templates.get_template("guide.html.j2").render(context)


def _href(path: str, form: str, asked: date | None) -> str:
    # relative, so that the pages also work under a path prefix
    return f"{path}?format={form}" + (f"&on={asked}" if asked else "")


def _pictures(path: str, asked: date | None) -> list[tuple[str, str]]:
    return [(text, _href(path, form, asked)) for text, form in _PICTURES]
