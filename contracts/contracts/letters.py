"""Letters (文书): their kinds, the placeholders their templates may hold, and their verification codes. Pure.

The templates are rows of ``catalogue/letters.yaml``; what a letter says as a whole is ``chassis.letter.Letter``.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from contracts.identifiers import USCC_ALPHABET


class LetterKind(StrEnum):
    """What a letter is. ``commitment`` is the applicant's own; ``repair_notice`` goes with a record that is published (两书同达)."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    SUPPLEMENT = "supplement"
    EXTENDED = "extended"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"
    RECOGNISED = "recognised"
    OBJECTION_ACCEPTED = "objection_accepted"
    OBJECTION_NOT_ACCEPTED = "objection_not_accepted"
    OBJECTION_UPHELD = "objection_upheld"
    OBJECTION_DISMISSED = "objection_dismissed"
    COMMITMENT = "commitment"
    REPAIR_NOTICE = "repair_notice"


OF_OBJECTIONS = frozenset(
    {
        LetterKind.OBJECTION_ACCEPTED,
        LetterKind.OBJECTION_NOT_ACCEPTED,
        LetterKind.OBJECTION_UPHELD,
        LetterKind.OBJECTION_DISMISSED,
    }
)
"""Kinds a department's step on an objection leads to."""

OF_ITEMS = frozenset(LetterKind) - OF_OBJECTIONS - {LetterKind.COMMITMENT, LetterKind.REPAIR_NOTICE}
"""Kinds a department's step on an item leads to."""

DECISIONS = frozenset({LetterKind.GRANTED, LetterKind.REFUSED, LetterKind.REVOKED})
"""Kinds that bear the number of the decision they are."""

LINES = "text"
"""The one placeholder that stands for paragraphs, an officer's words line by line: alone in its paragraph."""

_EVERY = {"subject_name", "document_number", "authority", "decided_on", "category"}
_ITEM = {*_EVERY, LINES, "department", "application_id", "requested_on"}
_OBJECTION = {*_EVERY, LINES, "department", "objection_id", "received_on", "about", "decide_due_on", "remedy"}
_OF_KIND: dict[LetterKind, set[str]] = {
    LetterKind.ACCEPTED: {"decide_due_on"},
    LetterKind.SUPPLEMENT: {"supplement_due_on"},
    LetterKind.LAPSED: {"supplement_due_on"},
    LetterKind.EXTENDED: {"decide_due_on"},
    LetterKind.GRANTED: {"decision_number"},
    LetterKind.REFUSED: {"decision_number"},
    LetterKind.REVOKED: {"decision_number", "granted_number", "granted_on"},
    LetterKind.RECOGNISED: {"decision_number", "platform"},
}
PLACEHOLDERS: dict[LetterKind, frozenset[str]] = {
    **{kind: frozenset(_ITEM | _OF_KIND.get(kind, set())) for kind in OF_ITEMS},
    **dict.fromkeys(OF_OBJECTIONS, frozenset(_OBJECTION)),
    LetterKind.COMMITMENT: frozenset({"subject_name", "count", "operator"}),
    LetterKind.REPAIR_NOTICE: frozenset(
        {*_EVERY, "published_from", "period", "earliest", "how", "materials", "limits", "decided_by"}
    ),
}
"""Kind -> placeholders its templates may hold, written ``{name}``. Days are printed like 2026年11月25日."""

_PLACEHOLDER = re.compile(r"\{([a-z_]*)\}")


def template_faults(template: str, kind: LetterKind) -> Iterable[str]:
    """What is wrong with a template, one zh-CN line each."""
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS[kind]:
            known = "、".join(sorted(PLACEHOLDERS[kind]))
            yield f"未知的占位符“{{{name}}}”（{kind.value} 可用：{known}）"
    if set(_PLACEHOLDER.sub("", template)) & set("{}"):
        yield "花括号只用于占位符，应写作 {名称}"
    if f"{{{LINES}}}" in template and template != f"{{{LINES}}}":
        yield f"{{{LINES}}} 应单独成段"


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders replaced, once: what a value holds is never a placeholder. KeyError for an unknown one."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


# --- verification codes

_READ_AS = str.maketrans({"I": "1", "O": "0", "S": "5", "V": "U", "Z": "2"})
_RANDOM_CHARACTERS = 15
CODES = len(USCC_ALPHABET) ** _RANDOM_CHARACTERS
"""How many codes there are: 74 bits, so that none can be guessed."""


def verification_code(number: int) -> str:
    """The code of a random number below ``CODES``: four groups of four characters, the last of which checks the others."""
    body = ""
    for _ in range(_RANDOM_CHARACTERS):
        number, place = divmod(number, len(USCC_ALPHABET))
        body += USCC_ALPHABET[place]
    return _grouped(body + _check(body))


def normalise_verification_code(text: str) -> str:
    """A code as it is stored, however it was typed. Raises ValueError (zh-CN) when it cannot be one."""
    typed = re.sub(r"[\s-]", "", text).upper().translate(_READ_AS)
    if len(typed) != _RANDOM_CHARACTERS + 1 or set(typed) - set(USCC_ALPHABET):
        raise ValueError("验证码应为16位数字和字母，请对照文书重新输入")
    if _check(typed[:-1]) != typed[-1]:
        raise ValueError("验证码有误（校验位不符），请对照文书逐位核对")
    return _grouped(typed)


def _check(body: str) -> str:
    """A weighted sum modulo 31: tells of every single wrong character and every swap of neighbours."""
    weighted = sum(weight * USCC_ALPHABET.index(char) for weight, char in enumerate(body, start=2))
    return USCC_ALPHABET[weighted % len(USCC_ALPHABET)]


def _grouped(code: str) -> str:
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))
