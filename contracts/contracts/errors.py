"""Error codes that cross a boundary: RFC 9457 problem types and dead-letter reasons."""

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """Why a message was put aside for a person instead of taking effect."""

    BAD_HEADERS = "bad_headers"
    NOT_JSON = "not_json"
    SCHEMA_MISMATCH = "schema_mismatch"
    KEY_MISMATCH = "key_mismatch"
    TOO_LARGE = "too_large"
    UNKNOWN_AGGREGATE = "unknown_aggregate"
    CONTRADICTION = "contradiction"


class ProblemCode(StrEnum):
    """``type`` of an RFC 9457 problem: ``urn:xinfu:problem:<code>``."""

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    VALIDATION = "validation-failed"
    MALFORMED_JSON = "malformed-json"
    TOO_LARGE = "content-too-large"
    UNKNOWN_RECORD = "unknown-record"
    UNKNOWN_MATERIAL = "unknown-material"
    RECORD_UNDER_APPLICATION = "record-under-application"
    RECORD_NOT_REPAIRABLE = "record-not-repairable"
    COMMITMENT_NOT_CONFIRMED = "commitment-not-confirmed"
    SUBJECT_BARRED = "subject-barred"
    OBJECTION_NOT_POSSIBLE = "objection-not-possible"
    IDEMPOTENCY_CONFLICT = "idempotency-key-reused"
    IDEMPOTENCY_KEY_MISSING = "idempotency-key-missing"
    MANDATE_NOT_VALID = "mandate-not-valid"
    BAD_SIGNATURE = "bad-signature"
    UNKNOWN_ITEM = "unknown-item"
    WRONG_DEPARTMENT = "wrong-department"
    WRONG_TARGET = "wrong-target"
    DECISION_CONFLICT = "decision-conflict"
    INVALID_TRANSITION = "invalid-transition"
    MISSING_COLUMNS = "missing-columns"
    UNKNOWN_ENCODING = "unknown-encoding"
    ALREADY_SUCCEEDED = "already-succeeded"
    BUSY = "too-many-requests"
    UNAVAILABLE = "temporarily-unavailable"
    INTERNAL = "internal-error"


def problem_type(code: ProblemCode) -> str:
    """URI of a problem type."""
    return f"urn:xinfu:problem:{code}"
