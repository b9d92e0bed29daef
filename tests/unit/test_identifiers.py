"""Identifiers: no corruption passes, every spelling of one thing is one thing."""

import unicodedata
from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.identifiers import (
    MAX_DOCUMENT_NUMBER,
    USCC_ALPHABET,
    id_check_character,
    item_id,
    mask_id_number,
    mask_phone,
    normalise_document_number,
    normalise_id_number,
    normalise_uscc,
    record_id,
    region_of,
    uscc_check_character,
)

TODAY = date(2026, 11, 23)
FULL_WIDTH = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})


def _reference_uscc_check(body: str) -> str:
    """GB/T 17710 mod 31 written from the standard's formula, apart from the library the code uses."""
    return USCC_ALPHABET[-sum(USCC_ALPHABET.index(c) * pow(3, i, 31) for i, c in enumerate(body)) % 31]


@st.composite
def usccs(draw: st.DrawFn) -> str:
    head = draw(st.text(USCC_ALPHABET, min_size=2, max_size=2))
    region = draw(st.text("0123456789", min_size=6, max_size=6))
    body = head + region + draw(st.text(USCC_ALPHABET, min_size=9, max_size=9))
    return body + _reference_uscc_check(body)


@st.composite
def id_numbers(draw: st.DrawFn) -> str:
    province = draw(st.sampled_from(["11", "33", "54", "65", "71", "81", "82", "83", "91", "99"]))
    county = draw(st.text("0123456789", min_size=4, max_size=4))
    born = draw(st.dates(date(1900, 1, 1), TODAY))
    body = f"{province}{county}{born:%Y%m%d}" + draw(st.text("0123456789", min_size=3, max_size=3))
    # ISO 7064 mod 11-2 in its recursive form.
    rest = 0
    for digit in body:
        rest = (rest + int(digit)) * 2 % 11
    return body + "0123456789X"[(12 - rest) % 11]


def test_codes_seen_in_public_are_accepted() -> None:
    assert normalise_uscc("91110000600037341L") == "91110000600037341L"  # example of python-stdnum
    assert (
        normalise_id_number("11010519491231002X", today=TODAY) == "11010519491231002X"
    )  # example of GB 11643


@given(usccs())
def test_good_uscc_in_any_width_case_and_spacing(code: str) -> None:
    assert normalise_uscc(code) == code
    assert normalise_uscc(code.translate(FULL_WIDTH).lower()) == code
    assert normalise_uscc(f" {code[:2]}\u3000{code[2:8]}\u200b {code[8:]}\n") == code
    assert uscc_check_character(code[:17]) == code[17]
    assert region_of(code) == code[2:8]


@given(usccs(), st.integers(0, 17), st.sampled_from(USCC_ALPHABET + "IOSVZ*市٣"))
def test_every_one_character_corruption_of_a_uscc_is_refused(code: str, at: int, char: str) -> None:
    assume(code[at] != char)
    with pytest.raises(ValueError, match="统一社会信用代码"):
        normalise_uscc(code[:at] + char + code[at + 1 :])


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("", "应为18位，实际为0位"),
        ("91110000600037341", "应为18位，实际为17位"),
        ("91110000600037341LL", "应为18位，实际为19位"),
        ("9111000060003734IL", "第17位“I”不是允许的字符"),
        ("91A10000600037341L", "第3位“A”应为数字"),
        ("911100006000373418", "第18位应为“L”，实际为“8”"),
    ],
)
def test_uscc_message_says_what_is_wrong(code: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        normalise_uscc(code)


@given(id_numbers())
def test_good_id_number_in_any_width(number: str) -> None:
    assert normalise_id_number(number, today=TODAY) == number
    assert normalise_id_number(f" {number.lower().translate(FULL_WIDTH)} ", today=TODAY) == number
    assert id_check_character(number[:17]) == number[17]


@given(id_numbers(), st.integers(0, 17), st.sampled_from("0123456789XA٣"))
def test_every_one_character_corruption_of_an_id_number_is_refused(number: str, at: int, char: str) -> None:
    assume(number[at] != char)
    with pytest.raises(ValueError, match="身份证件号码") as caught:
        normalise_id_number(number[:at] + char + number[at + 1 :], today=TODAY)
    assert number[6:17] not in str(caught.value)


def _with_check(body: str) -> str:
    return body + id_check_character(body)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (_with_check("33019920250229001"), "不是真实存在的日期"),
        (_with_check("33019920261124001"), "晚于今天"),
        (_with_check("00019919800101001"), "省级行政区划代码"),
        (_with_check("84019919800101001"), "省级行政区划代码"),
        ("330199800101001", "应为18位，实际为15位"),
    ],
)
def test_id_number_that_only_its_check_digit_supports_is_refused(number: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        normalise_id_number(number, today=TODAY)


def test_id_number_of_today_is_not_in_the_future() -> None:
    newborn = _with_check("33019920261123001")
    assert normalise_id_number(newborn, today=TODAY) == newborn
    with pytest.raises(ValueError, match="晚于今天"):
        normalise_id_number(newborn, today=TODAY - timedelta(days=1))


@pytest.mark.parametrize(
    "spelling",
    [
        "杭环罚〔2025〕12号",
        "杭环罚[2025]12号",
        "杭环罚［２０２５］１２号",
        "杭环罚（2025）12",
        "杭环罚(2025) 12 号",
        "杭环罚【2025】12号",
        "\ufeff杭环罚﹝2025﹞12号\u200b",
    ],
)
def test_spellings_of_one_document_number(spelling: str) -> None:
    assert normalise_document_number(spelling) == "杭环罚〔2025〕12号"


@given(st.text(max_size=140))
def test_document_number_is_stable_and_within_its_length(text: str) -> None:
    try:
        once = normalise_document_number(text)
    except ValueError as error:
        assert "文号" in str(error)  # noqa: PT017 (any text may be refused, only never in another way)
        return
    assert normalise_document_number(once) == once
    assert normalise_document_number(f" {text}　") == once
    assert 0 < len(once) <= MAX_DOCUMENT_NUMBER
    assert once == unicodedata.normalize("NFKC", once)
    assert once.endswith("号")
    assert not set(once) & set("[]()【】（） ")


@pytest.mark.parametrize(
    "text", ["", " 　", "号", "罚决字", "\u200b", "杭罚〔2025〕" + "1" * MAX_DOCUMENT_NUMBER]
)
def test_unusable_document_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="文号"):
        normalise_document_number(text)


def test_document_numbers_that_differ_stay_apart() -> None:
    numbers = ["杭环罚〔2025〕12号", "杭环罚〔2025〕012号", "杭环罚〔2024〕12号", "杭环处〔2025〕12号"]
    assert len({normalise_document_number(n) for n in numbers}) == len(numbers)


def test_record_id_is_fixed_for_ever() -> None:
    # Ids are stored and published: a change here orphans every record.
    expected = "rec_03e3b47e77299e1545a9d72516535f94"
    assert record_id("11330100XF0000028L", "杭市监罚〔2025〕1号", "91110000600037341L") == expected


def test_item_id_is_fixed_for_ever() -> None:
    assert item_id("app_" + "0" * 32, "rec_" + "0" * 32) == "itm_57419270d395797e2487f2e0ea64aa49"


@given(usccs(), usccs(), st.integers(1, 99999))
def test_record_id_follows_the_key_not_its_spelling(authority: str, subject: str, number: int) -> None:
    first = record_id(authority, f"杭罚〔2025〕{number}号", subject)
    assert first == record_id(authority.lower(), f"杭罚[2025] {number}", subject.translate(FULL_WIDTH))
    assert first != record_id(authority, f"杭罚〔2025〕{number + 1}号", subject)
    assert first.startswith("rec_")
    assert len(first) == 36
    if authority != subject:
        assert first != record_id(subject, f"杭罚〔2025〕{number}号", authority)


def test_parts_of_an_id_cannot_slide_into_each_other() -> None:
    assert record_id("AB", "1号", "C") != record_id("A", "B1号", "C")
    assert item_id("ab", "c") != item_id("a", "bc")


@pytest.mark.parametrize(("authority", "subject"), [("", "91"), ("11", " "), ("11", "\x1f")])
def test_record_id_needs_every_part(authority: str, subject: str) -> None:
    with pytest.raises(ValueError, match="不能为空"):
        record_id(authority, "杭罚〔2025〕1号", subject)


def test_masks_look_as_documented() -> None:
    assert mask_id_number("330199198001011234") == "330***********1234"
    assert mask_phone("13812345678") == "138****5678"
    assert mask_phone("+86 138-1234-5678") == "138****5678"


@given(st.text(max_size=30))
def test_masks_never_show_more_than_seven_characters(text: str) -> None:
    for masked in (mask_id_number(text), mask_phone(text)):
        assert len(masked.replace("*", "")) <= 7
    assert set(mask_id_number(text[:7])) <= {"*"} or len(unicodedata.normalize("NFKC", text[:7])) > 7
