"""One layout for every letter (文书) that leaves the platform: what it says as data, as PDF/A and as HTML for a preview.

A letter holds what its reader may see and nothing else: who composes it decides that. The same letter is the same file, byte for
byte, so that its hash can stand in a history.
"""

import hashlib
import io
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from typing import Any

import segno
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, model_validator

from chassis.typesetting import Typesetter

_TEMPLATES = Environment(
    loader=PackageLoader("chassis"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class LetterTable(BaseModel):
    """A table of a letter: every row has a cell for each word of the head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: tuple[str, ...] = Field(min_length=1, max_length=8)
    rows: tuple[tuple[str, ...], ...]

    @model_validator(mode="after")
    def _rectangular(self) -> "LetterTable":
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError("every row needs a cell for each word of the head")
        return self


class Verification(BaseModel):
    """How anybody can check that the letter is genuine: a code, and the address that answers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    url: str


class Letter(BaseModel):
    """What one letter says; all text zh-CN.

    ``issuer``: the office named above the title and below the text; ``number``: 文号; ``addressee``: whom it is to;
    ``paragraphs``: its body before the ``table``, ``closing`` after it; ``basis``: rules it rests on, each with its article;
    ``remedy``: what the addressee can do against it; ``contact``: of the issuing office; ``copies_to``: 抄送; ``note``: small print; ``letterhead``: the issuer's name in red at the head, as offices have it (false: of people and companies).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    title: str
    number: str | None = None
    addressee: str
    paragraphs: tuple[str, ...] = Field(min_length=1)
    table: LetterTable | None = None
    closing: tuple[str, ...] = ()
    basis: tuple[str, ...] = ()
    remedy: str | None = None
    attachments: tuple[str, ...] = ()
    dated: date
    contact: str | None = None
    copies_to: tuple[str, ...] = ()
    verification: Verification | None = None
    note: str | None = None
    letterhead: bool = True

    @property
    def dated_text(self) -> str:
        """``2026年11月25日``."""
        return f"{self.dated.year}年{self.dated.month}月{self.dated.day}日"

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the letter says, 64 hex digits: the same for every rendering of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class LetterPress:
    """Prints letters as PDF/A-2b, one after another; ``max_at_work``: being printed or waiting, one more is refused."""

    def __init__(self, max_at_work: int = 64) -> None:
        template = files("chassis").joinpath("templates", "letter.typ").read_bytes()
        self._typesetter = Typesetter(template, max_at_work, archival=True)

    async def print(self, letter: Letter) -> bytes:
        """The letter as PDF. Raises TypesetterBusyError."""
        return await self._typesetter.set(_data(letter), "pdf")


def as_html(letter: Letter) -> Markup:
    """The letter as an HTML fragment (an ``article`` with classes ``letter…``), to be shown before it is sent."""
    # the template escapes everything that the letter says
    return Markup(_TEMPLATES.get_template("letter.html.j2").render(letter=letter))  # noqa: S704


def _data(letter: Letter) -> dict[str, Any]:
    data = letter.model_dump(mode="json") | {"dated": letter.dated_text, "qr": None}
    if letter.verification:
        data["qr"] = _qr(letter.verification.url)
    return data


def _qr(text: str) -> Sequence[str]:
    """The modules of a QR code (ISO/IEC 18004), a line of 0 and 1 for each row."""
    out = io.StringIO()
    segno.make(text, error="m", micro=False).save(out, kind="txt", border=0)
    return out.getvalue().split()
