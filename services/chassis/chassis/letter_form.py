"""A letter over HTTP: as PDF, as a page, or as the JSON whose hash stands in a history."""

import base64
import hashlib
from enum import StrEnum
from importlib.resources import files
from urllib.parse import quote

from fastapi import Response
from markupsafe import Markup, escape

from chassis.letter import Letter, LetterPress, as_html
from chassis.problems import Problem
from chassis.typesetting import TypesetterBusyError
from contracts.errors import ProblemCode

_CSS = files("chassis").joinpath("templates", "letter.css").read_text(encoding="utf-8")
_CSS_HASH = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""To be sent with a page: the browser runs no script and loads nothing."""


class LetterForm(StrEnum):
    """How a letter is answered."""

    PDF = "pdf"
    HTML = "html"
    JSON = "json"


MEDIA_TYPES = {
    LetterForm.PDF: "application/pdf",
    LetterForm.HTML: "text/html; charset=utf-8",
    LetterForm.JSON: "application/json",
}


def page(title: str, body: Markup) -> str:
    """A whole HTML page (zh-CN) in the style of letters, without script or outside assets; send it with ``PAGE_HEADERS``."""
    return (
        f'<!doctype html>\n<html lang="zh-CN"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_CSS}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


async def letter_response(
    press: LetterPress, letter: Letter, content: str, form: LetterForm, name: str
) -> Response:
    """``content``: the JSON as it was hashed; ``name``: of the file, without its extension. Raises Problem BUSY."""
    headers = {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(f'{name}.{form.value}', safe='')}",
    }
    match form:
        case LetterForm.PDF:
            try:
                body: str | bytes = await press.print(letter)
            except TypesetterBusyError:
                raise Problem(
                    ProblemCode.BUSY, "正在生成的文书太多，请 2 秒后重试。", headers={"Retry-After": "2"}
                ) from None
        case LetterForm.HTML:
            body = page(letter.title, as_html(letter))
            headers |= PAGE_HEADERS
        case LetterForm.JSON:
            body = content
    return Response(body, media_type=MEDIA_TYPES[form], headers=headers)
