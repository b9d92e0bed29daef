"""Phone numbers in mainland China, in one form."""

import re
import unicodedata

_MOBILE = re.compile(r"1[3-9]\d{9}")
# Area codes: 010 and 02x have three digits, the others four; subscriber numbers do not begin with 0 or 1.
_LANDLINE = re.compile(
    r"(0(?:10|2\d|[3-9]\d{2}))-?([2-9]\d{6,7})(?:(?:-|转|x|ext\.?)(\d{1,6}))?", re.IGNORECASE
)


def normalise_phone(text: str) -> str:
    """Return ``13812345678``, or ``0571-87654321`` with ``-123`` for an extension.

    Width, spaces, brackets, hyphens and +86 or 0086 are folded. Raises ValueError (zh-CN) for anything else.
    """
    folded = unicodedata.normalize("NFKC", text)
    compact = re.sub(r"[\s()（）]", "", re.sub(r"[‐-―−]", "-", folded))
    national = re.sub(r"^(?:\+86|0086)-?", "", compact)
    digits = national.replace("-", "")
    if _MOBILE.fullmatch(digits):
        return digits
    if national != compact and not national.startswith("0"):
        national = "0" + national  # abroad the trunk prefix is left out
    if landline := _LANDLINE.fullmatch(national):
        area, number, extension = landline.groups()
        return f"{area}-{number}" + (f"-{extension}" if extension else "")
    raise ValueError("请填写11位手机号码，或带区号的固定电话（如0571-87654321，分机加“-分机号”）")
