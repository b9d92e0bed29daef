"""Letters: what they say is text and never markup, and the same letter is the same file."""

import asyncio
import io
import re
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError
from pypdf import PdfReader

from chassis.letter import Letter, LetterPress, LetterTable, Verification, as_html
from chassis.typesetting import TypesetterBusyError

NASTY = '#import "x" $a$ [b] <script>alert(1)</script> 〔2026〕 \\ *c* `d` {{ e }}'
PRESS = LetterPress()


def letter(**changes: Any) -> Letter:
    facts: dict[str, Any] = {
        "issuer": "杭州市教育局",
        "title": "准予信用修复决定书",
        "number": "市教育局信修〔2026〕12号",
        "addressee": "杭州示例科技有限公司",
        "paragraphs": ("现决定：准予信用修复。",),
        "dated": date(2026, 11, 25),
        "verification": Verification(code="7K3M-Q2XA-94TD", url="https://example.org/v1/letters/7K3M"),
    }
    return Letter.model_validate(facts | changes)


def text_of(pdf: bytes) -> str:
    """Without white space: a line may break anywhere."""
    return re.sub(
        r"[\s\u200b]", "", "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    )


def printed(each: Letter) -> bytes:
    return asyncio.run(PRESS.print(each))


def test_everything_a_letter_says_is_printed_and_previewed_as_it_is() -> None:
    full = letter(
        paragraphs=(NASTY, "第二段。"),
        table=LetterTable(head=("决定文书号", NASTY), rows=((NASTY, "二"), ("三", "四"))),
        closing=("请予办理。",),
        basis=("《信用修复管理办法》第三条",),
        remedy="可以申请行政复议。",
        attachments=("承诺书", NASTY),
        copies_to=("杭州市信用中心",),
        contact="0571-00000000",
        note="小字。",
    )
    pdf, html = text_of(printed(full)), as_html(full)
    assert pdf.count(re.sub(r"\s", "", NASTY)) == 4
    assert html.count("&lt;script&gt;") == 4
    assert "<script" not in html
    for words in (
        "市教育局信修〔2026〕12号",
        "第二段。",
        "请予办理。",
        "第三条",
        "行政复议",
        "承诺书",
        "2026年11月25日",
        "7K3M-Q2XA-94TD",
    ):
        assert words in pdf
        assert words in html


def test_the_same_letter_is_the_same_file_and_another_has_another_hash() -> None:
    assert printed(letter()) == asyncio.run(LetterPress().print(letter()))
    assert letter().content_hash == letter().content_hash
    assert letter().content_hash != letter(addressee="杭州示例科技有限公司。").content_hash


def test_a_long_letter_has_pages_and_a_head_on_each_table_page() -> None:
    rows = tuple((f"市教育局罚〔2025〕{number}号", "杭州市教育局") for number in range(200))
    reader = PdfReader(
        io.BytesIO(printed(letter(table=LetterTable(head=("决定文书号", "认定单位"), rows=rows))))
    )
    assert len(reader.pages) > 3
    assert all("决定文书号" in page.extract_text() for page in reader.pages[1:-1])


def test_a_row_that_does_not_fit_its_head_and_an_empty_letter_are_refused() -> None:
    with pytest.raises(ValidationError, match="a cell for each word"):
        LetterTable(head=("一", "二"), rows=(("只有一格",),))
    with pytest.raises(ValidationError):
        letter(paragraphs=())


def test_more_letters_than_may_wait_are_refused() -> None:
    async def run() -> list[Any]:
        press = LetterPress(max_at_work=1)
        return await asyncio.gather(*(press.print(letter()) for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(run())
    assert isinstance(first, bytes)
    assert isinstance(second, TypesetterBusyError)
