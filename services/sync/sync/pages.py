"""Pages of sync: rendered here, no script, nothing from outside, everything escaped."""

import base64
import hashlib
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_templates = Environment(
    loader=PackageLoader("sync"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_CSS = PackageLoader("sync").get_source(_templates, "page.css")[0]
_CSS_HASH = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def page(template: str, *, title: str, kicker: str, **values: Any) -> HTMLResponse:
    """A page with headers that let the browser run and load nothing."""
    css = Markup(_CSS)  # noqa: S704 (our own file; the policy allows this text alone)
    html = _templates.get_template(template).render(title=title, kicker=kicker, css=css, **values)
    return HTMLResponse(html, headers=_HEADERS)
