"""Documents set by typst: one template, data that goes in as JSON and is never markup.

Fonts come from a package, not from the machine, so that every machine sets the same. A typst compiler is not thread-safe: each
typesetter has one, in a thread of its own.
"""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Literal

import typst

Format = Literal["svg", "pdf", "png"]
_FONT_PACKAGE = "manimgx_fonts_cjk"


class TypesetterBusyError(Exception):
    """As many documents are being set or waiting as may be."""


class Typesetter:
    """Sets documents of one template, one after another; ``max_at_work``: being set or waiting, one more is refused.

    ``archival``: PDFs are PDF/A-2b (ISO 19005-2), except where a text holds a character that the font does not have: then there is
    an empty box in its place, which the standard forbids.
    """

    def __init__(self, template: bytes, max_at_work: int, *, archival: bool = False) -> None:
        self._template = template
        self._max = max_at_work
        self._archival = archival
        self._at_work = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="typesetter")
        self._compiler: typst.Compiler | None = None

    async def set(self, data: dict[str, Any], form: Format) -> bytes:
        """The document as a file; svg and png have one page. Raises TypesetterBusyError."""
        if self._at_work >= self._max:
            raise TypesetterBusyError
        self._at_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._set, data, form)
        finally:
            self._at_work -= 1

    def _set(self, data: dict[str, Any], form: Format) -> bytes:
        text = json.dumps(printable(data), ensure_ascii=False)
        try:
            made = self._compile(text, form, archival=self._archival and form == "pdf")
        except typst.TypstError as error:
            # a rare character of a name must not keep a letter from its reader
            if "could not be displayed" not in str(error):
                raise
            made = self._compile(text, form, archival=False)
        if not isinstance(made, bytes):
            raise TypeError("a picture of more than one page")
        return made

    def _compile(self, text: str, form: Format, *, archival: bool) -> Any:
        # made when the first document is asked for: most processes never set one, and the fonts take memory
        if self._compiler is None:
            fonts = typst.Fonts(
                include_system_fonts=False,
                include_embedded_fonts=False,
                font_paths=[str(files(_FONT_PACKAGE))],
            )
            self._compiler = typst.Compiler(font_paths=fonts)
        return self._compiler.compile(
            input=self._template,
            format=form,
            sys_inputs={"data": text},
            # the same document is the same file
            timestamp=datetime(2000, 1, 1, tzinfo=UTC),
            pdf_standards="a-2b" if archival else None,
        )


def printable(value: Any) -> Any:
    """The same JSON without control characters, and with places to break words too long for a line."""
    if isinstance(value, str):
        seen = "".join(c if c.isprintable() or c == "\n" else " " for c in value)
        return re.sub(r"([!-~]{18})(?=[!-~])", "\\1\u200b", seen)
    if isinstance(value, dict):
        return {name: printable(each) for name, each in value.items()}
    return [printable(each) for each in value] if isinstance(value, list) else value
