"""One form of JSON for everything that is hashed or signed, and its digests.

The form is RFC 8785 (JCS) for what we write: members sorted, no white space, UTF-8, only what must be escaped is. There are no
floating-point numbers in it, so that nobody has to agree on how one is printed; names of members are ASCII, for which JCS's
order (UTF-16 code units) is that of the characters.
"""

import hashlib
import json
from enum import StrEnum
from typing import Any

from gmssl_pyx import sm3_hash


class Digest(StrEnum):
    """A hash function. A digest is written ``<function>:<64 hex digits>``, so that a change of function is seen in the text."""

    SHA256 = "sha256"
    SM3 = "sm3"

    def of(self, data: bytes) -> str:
        """The digest of ``data``."""
        value = hashlib.sha256(data).digest() if self is Digest.SHA256 else bytes(sm3_hash(data))
        return f"{self}:{value.hex()}"


def canonical(value: Any) -> bytes:
    """``value`` in the one form. Raises TypeError for a float or what JSON has no word for, ValueError for a lone surrogate."""
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def matches(digest: str, data: bytes) -> bool:
    """Whether ``digest`` is that of ``data``; False too for a function nobody knows."""
    try:
        return Digest(digest.partition(":")[0]).of(data) == digest
    except ValueError:
        return False


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("write a number with a fraction as text: floats have no one form")
    if isinstance(value, dict):
        for name, each in value.items():
            if not (isinstance(name, str) and name.isascii()):
                raise TypeError(f"names of members are ASCII text, not {name!r}")
            _refuse_floats(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _refuse_floats(each)
