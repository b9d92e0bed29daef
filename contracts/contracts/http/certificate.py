"""The repair certificate (修复证明): what was decided about a record, and what each platform was last seen showing.

``GET /v1/records/{record_id}/certificate`` at sync (scopes ``propagation.read``, ``operations``), for its subject
``GET /v1/subjects/me/records/{record_id}/certificate`` at intake; for everybody ``GET /v1/certificates/{code}`` at sync. The
signature is over the canonical form of ``certificate`` (``contracts.canonical``, ``contracts.signatures``).
"""

import json
from enum import StrEnum
from typing import Any

from pydantic import Field

from contracts.canonical import canonical
from contracts.records import DisplayState, RecordId, Shape, SubjectType
from contracts.signatures import KeySet, PublicKey, Signature, verify

CERTIFICATE_FORMAT = "xinfu-repair-certificate/1"
ATTACHMENT_NAME = "certificate.json"
"""Name of the signed JSON inside the PDF."""


class Standing(StrEnum):
    """How a target stands to what was decided."""

    RIGHT = "right"
    PENDING = "pending"
    DIFFERENT = "different"
    ACKNOWLEDGED = "acknowledged"
    SEEN_BY_PERSON = "seen_by_person"
    BY_LETTER = "by_letter"
    LETTER_SENT = "letter_sent"
    LEFT = "left"


STANDING_TEXT = {
    Standing.RIGHT: "一致",
    Standing.PENDING: "待核验",
    Standing.DIFFERENT: "不一致",
    Standing.ACKNOWLEDGED: "已确认（该平台不能回读）",
    Standing.SEEN_BY_PERSON: "一致（经办人查看）",
    Standing.BY_LETTER: "只能函告，尚未发函（该平台不能回读）",
    Standing.LETTER_SENT: "已函告，待其答复（该平台不能回读）",
    Standing.LEFT: "已不在平台目录",
}


class CertifiedTarget(Shape):
    """One target at the time of issue. ``seen_right_at``: when the public was last seen being shown what was decided; ``evidence``:
    hash of the entry in the history that first told what was seen then, and ever since; or of the one that saw something else.
    """

    target_id: str
    target_name: str
    desired: DisplayState
    version: int
    standing: Standing
    standing_text: str
    shown: DisplayState | None = None
    seen_right_at: str | None = None
    evidence: str | None = None


class CertifiedSubject(Shape):
    """Whose record it is. No ID number; of a natural person the family name only, and no code."""

    subject_type: SubjectType
    name: str
    code: str | None = None


class CertifiedRecord(Shape):
    """The record as it was published."""

    record_id: RecordId
    category: str
    document_number: str
    authority_name: str
    decided_on: str


class CertifiedDecision(Shape):
    """The repair. ``recognised_from``: the platform it was made at, when it was recognised (互认)."""

    number: str
    decided_at: str
    state: DisplayState
    version: int
    recognised_from: str | None = None


class HeadReference(Shape):
    """The newest signed head of the history when the certificate was issued: whoever holds the certificate is its witness."""

    number: int
    hash: str


class Certificate(Shape):
    """What is certified. Times are RFC 3339 in UTC. ``complete``: every target was seen right."""

    format: str = Field(pattern=f"^{CERTIFICATE_FORMAT}$")
    code: str
    issuer: str
    issued_at: str
    verify_url: str
    subject: CertifiedSubject
    record: CertifiedRecord
    decision: CertifiedDecision
    targets: tuple[CertifiedTarget, ...]
    complete: bool
    history_head: HeadReference | None = None


class SignedCertificate(Shape):
    """A certificate as it travels. ``certificate``: kept as it came, for the signature is over every member of it."""

    certificate: dict[str, Any]
    signature: Signature

    def checked(self, keys: KeySet) -> tuple[Certificate, PublicKey]:
        """What is certified, and the key that signed it. Raises UnverifiedError, or ValueError for another shape."""
        try:
            payload = canonical(self.certificate)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return Certificate.model_validate(self.certificate), verify(payload, self.signature, keys)

    def as_text(self) -> str:
        """As a file: readable, and the same for the same certificate."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


class TargetNow(Shape):
    """How a target stands now, beside how it was certified."""

    target_id: str
    target_name: str
    certified: Standing
    now: Standing
    now_text: str
    seen_right_at: str | None


class CertificateCheck(Shape):
    """The answer of the public page. ``still_true``: not revoked, and every target that was certified as right still is."""

    code: str
    signature_valid: bool
    signature_problem: str | None
    key_id: str | None
    revoked: bool = Field(
        description="the repair was revoked, or decided anew, after the certificate was issued"
    )
    still_true: bool
    checked_at: str
    targets: list[TargetNow]
    signed: SignedCertificate
