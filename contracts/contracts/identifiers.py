"""Identifiers: normal forms, deterministic ids, masking. Pure; nothing here reads a clock.

A ``ValueError`` carries one zh-CN sentence that says what is wrong and can be shown to the person who typed the value.
"""

import hashlib
import re
import string
import unicodedata
from datetime import date

from stdnum.cn import uscc as _uscc

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""GB 32100-2015: digits and capitals without I, O, S, V, Z."""

MAX_DOCUMENT_NUMBER = 128
"""Longest 文号, in characters (双公示 2018, CF_WSH)."""

# GB/T 2260 provinces; 81/82/83: residence permits of 港澳台居民; 9x: permanent residence cards of foreigners.
_ID_PROVINCE = re.compile(r"1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|9[0-9]")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECK = "10X98765432"

_BRACKETS = str.maketrans(dict.fromkeys("([【〖「{", "〔") | dict.fromkeys(")]】〗」}", "〕"))
_ASCII_DIGITS = frozenset(string.digits)
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def _compact(text: str) -> str:
    """Fold width (NFKC) and ASCII case (upper), drop spaces and invisible characters (Unicode classes Z* and C*)."""
    folded = unicodedata.normalize("NFKC", text)
    kept = "".join(c for c in folded if unicodedata.category(c)[0] not in "ZC")
    # Once more: what was dropped may have stood between two characters that compose.
    return unicodedata.normalize("NFKC", kept.translate(_UPPER))


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be seen: it is empty, or holds only spaces and characters that show nothing."""
    return not _compact(text)


def uscc_check_character(body: str) -> str:
    """Check character (GB/T 17710, mod 31) for the first 17 characters of a USCC."""
    return str(_uscc.calc_check_digit(body))


def id_check_character(body: str) -> str:
    """Check character (GB 11643, mod 11-2) for the first 17 digits of an ID number."""
    return _ID_CHECK[sum(int(digit) * weight for digit, weight in zip(body, _ID_WEIGHTS, strict=True)) % 11]


def normalise_uscc(text: str) -> str:
    """Return the 18 characters of a 统一社会信用代码 (GB 32100-2015), upper case, half width, without spaces.

    The first two characters may be letters (N: rural collectives, A: military, Y: others), which
    ``stdnum.cn.uscc.validate`` refuses; only its check character (GB/T 17710) is used.

    Raises ValueError (zh-CN) for a wrong length, a character not allowed, or a wrong check character.
    """
    code = _compact(text)
    if len(code) != 18:
        raise ValueError(f"统一社会信用代码应为18位，实际为{len(code)}位")
    for position, char in enumerate(code, start=1):
        if char not in USCC_ALPHABET:
            raise ValueError(
                f"统一社会信用代码第{position}位“{char}”不是允许的字符（数字或除I、O、S、V、Z以外的大写字母）"
            )
        if 3 <= position <= 8 and char not in _ASCII_DIGITS:
            raise ValueError(f"统一社会信用代码第{position}位“{char}”应为数字（第3至8位是行政区划代码）")
    expected = uscc_check_character(code[:17])
    if code[17] != expected:
        raise ValueError(
            f"统一社会信用代码校验位错误：第18位应为“{expected}”，实际为“{code[17]}”，请核对各位"
        )
    return code


def region_of(uscc: str) -> str:
    """Return the 6-digit 行政区划代码 (GB/T 2260) inside a USCC. Raises as ``normalise_uscc``."""
    return normalise_uscc(uscc)[2:8]


def normalise_id_number(text: str, *, today: date) -> str:
    """Return the 18 characters of a 公民身份号码 (GB 11643), or of a 港澳台居民居住证 (81/82/83) or new
    外国人永久居留身份证 (9x), upper case and half width.

    Only the first two digits of the region are checked: county codes are created and abolished, and people keep theirs.
    ``today`` is the day in China; a birth date after it is refused. Raises ValueError (zh-CN) without repeating
    the number: messages end up in logs.
    """
    number = _compact(text)
    if len(number) != 18:
        raise ValueError(f"身份证件号码应为18位，实际为{len(number)}位")
    for position, char in enumerate(number, start=1):
        if char not in _ASCII_DIGITS and not (position == 18 and char == "X"):
            raise ValueError(f"身份证件号码第{position}位应为数字（仅第18位可以是X）")
    if not _ID_PROVINCE.match(number):
        raise ValueError("身份证件号码前两位不是省级行政区划代码")
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        raise ValueError("身份证件号码第7至14位不是真实存在的日期") from None
    if born > today:
        raise ValueError("身份证件号码中的出生日期晚于今天")
    if number[17] != id_check_character(number[:17]):
        raise ValueError("身份证件号码校验位错误，请核对各位")
    return number


def normalise_document_number(text: str) -> str:
    """Return a 文号 in the form used for matching: half width, no spaces, every bracket 〔〕, one 号 at the end.

    ``杭环罚[2025] 12`` and ``杭环罚（２０２５）１２号`` both give ``杭环罚〔2025〕12号``. Applying it twice changes nothing.

    Raises ValueError (zh-CN) when it is empty, holds no digit, or is longer than ``MAX_DOCUMENT_NUMBER`` characters.
    """
    number = _compact(text).translate(_BRACKETS).rstrip("号")
    if not number:
        raise ValueError("文号为空，请填写决定书文号")
    if not any(char.isdigit() for char in number):
        raise ValueError("文号中没有数字，请核对决定书文号")
    number += "号"
    if len(number) > MAX_DOCUMENT_NUMBER:
        raise ValueError(f"文号过长：最多{MAX_DOCUMENT_NUMBER}个字符，实际为{len(number)}个")
    return number


def _digest(*parts: str) -> str:
    # The separator cannot occur in a part (_compact drops control characters), so no two lists of parts look alike.
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def record_id(authority_code: str, document_number: str, subject_code: str) -> str:
    """Return ``rec_`` and 32 hex digits, the same for every spelling of the key of a 失信记录: 处罚机关 code, 文号, subject.

    For a natural person pass the pseudonymous subject id, never the ID number: who knows the other two parts could find
    an ID number from the hash by trying all. The codes are folded, not validated. Raises ValueError (zh-CN) for an empty part
    or an unusable 文号.
    """
    authority, subject = _compact(authority_code), _compact(subject_code)
    if not authority or not subject:
        raise ValueError("处罚机关代码和行政相对人代码均不能为空")
    return "rec_" + _digest(authority, normalise_document_number(document_number), subject)


def item_id(application_id: str, record_id: str) -> str:
    """Return ``itm_`` and 32 hex digits: the same application and record always give the same item."""
    return "itm_" + _digest(application_id, record_id)


def _mask(text: str, head: int, tail: int) -> str:
    if len(text) <= head + tail:
        return "*" * len(text)
    return text[:head] + "*" * (len(text) - head - tail) + text[-tail:]


def mask_id_number(text: str) -> str:
    """``330***********1234``: first 3 and last 4 stay. A text too short to hide anything is hidden whole. Never raises."""
    return _mask(_compact(text), 3, 4)


def mask_phone(text: str) -> str:
    """``138****5678``: first 3 and last 4 stay, ``+86`` and hyphens dropped. Too short: hidden whole. Never raises."""
    return _mask(re.sub(r"^(\+|00)86|-", "", _compact(text)), 3, 4)
