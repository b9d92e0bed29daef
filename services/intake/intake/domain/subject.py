"""Pseudonyms of subjects (docs/decisions/0008)."""

import hashlib
import hmac

from contracts.records import SubjectType


def subject_id(key: bytes, subject_type: SubjectType, code: str) -> str:
    """Pseudonym of a subject: ``sub_`` and 32 hex digits of HMAC-SHA256. ``code`` in its normal form."""
    message = f"{subject_type.value}:{code}".encode()
    return "sub_" + hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
