"""CloudEvents 1.0 envelope, Kafka protocol binding, binary content mode.

Attributes travel as ``ce_*`` headers (UTF-8), the data as the message value (JSON), its media type as
``content-type``. W3C Trace Context travels as the headers ``traceparent`` and ``tracestate``.
Source: CloudEvents 1.0.2 spec and Kafka Protocol Binding 1.0.2, section 3.2.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from contracts.errors import DeadLetterReason
from contracts.events import EVENTS, Event

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:xinfu:event")

RawHeaders = Iterable[tuple[str, bytes | None]]


def dataschema(event_type: str) -> str:
    """URI of the JSON Schema of an event type (committed under contracts/schemas/)."""
    return f"urn:xinfu:schema:{event_type}"


def source_of(service: str) -> str:
    """CloudEvents source of what a service emits."""
    return f"/xinfu/{service}"


def event_id(cause: str, event_type: str, key: str, ordinal: int) -> str:
    """Deterministic CloudEvents id: the same cause has the same effects under the same ids.

    ``cause`` is the id of the event or request that led to this one; ``ordinal`` counts the events of one type and key
    that one cause led to.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{cause}/{event_type}/{key}/{ordinal}"))


@dataclass(frozen=True, slots=True)
class Envelope:
    """CloudEvents attributes of one event; ``time`` has an offset, ``source`` is a URI reference."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime

    @property
    def identity(self) -> str:
        """What makes an event unique (CloudEvents 1.0, 3.1: source + id)."""
        return f"{self.source}#{self.id}"

    def headers(self, trace: Mapping[str, str]) -> dict[str, str]:
        """All Kafka headers; ``trace`` holds traceparent and perhaps tracestate."""
        return {
            "ce_specversion": SPEC_VERSION,
            "ce_id": self.id,
            "ce_type": self.type,
            "ce_source": self.source,
            "ce_subject": self.subject,
            "ce_time": self.time.isoformat(),
            "ce_dataschema": dataschema(self.type),
            "content-type": CONTENT_TYPE,
            **trace,
        }


class MalformedEventError(ValueError):
    """A message that can never be processed, with the reason for its dead letter."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


_REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source")


def decode_headers(raw: RawHeaders) -> dict[str, str]:
    """Header names and values as text. Raises MalformedEventError when a value is not UTF-8, or a CloudEvents attribute is given twice.

    Headers without a value (null) are left out.
    """
    decoded: dict[str, str] = {}
    for name, value in raw:
        if value is None:
            continue
        if name in decoded and name.startswith("ce_"):
            # which of them counts would be up to the reader: two readers could see two events
            raise MalformedEventError(DeadLetterReason.BAD_HEADERS, f"header {name} is given twice")
        try:
            decoded[name] = value.decode()
        except UnicodeDecodeError as error:
            raise MalformedEventError(
                DeadLetterReason.BAD_HEADERS, f"header {name} is not UTF-8: {error.reason}"
            ) from None
    return decoded


def parse_headers(headers: Mapping[str, str]) -> Envelope:
    """Read the CloudEvents attributes. Raises MalformedEventError naming the missing or wrong one."""
    missing = [name for name in _REQUIRED if not headers.get(name)]
    if missing:
        raise MalformedEventError(
            DeadLetterReason.BAD_HEADERS,
            f"missing {', '.join(missing)}: send CloudEvents 1.0 in Kafka binary mode",
        )
    if headers["ce_specversion"] != SPEC_VERSION:
        raise MalformedEventError(
            DeadLetterReason.BAD_HEADERS,
            f"ce_specversion {headers['ce_specversion']!r} is not {SPEC_VERSION}",
        )
    if long := [name for name in ("ce_id", "ce_source") if len(headers[name]) > 200]:
        raise MalformedEventError(
            DeadLetterReason.BAD_HEADERS, f"{', '.join(long)} longer than 200 characters"
        )
    try:
        time = datetime.fromisoformat(headers.get("ce_time", "1970-01-01T00:00:00+00:00"))
        if time.tzinfo is None:
            raise ValueError("no offset")
    except ValueError:
        raise MalformedEventError(
            DeadLetterReason.BAD_HEADERS, f"ce_time {headers['ce_time']!r} is not an RFC 3339 time"
        ) from None
    return Envelope(
        headers["ce_id"], headers["ce_type"], headers["ce_source"], headers.get("ce_subject", ""), time
    )


def parse_data(event_type: str, value: bytes | None) -> Event | None:
    """Validate the data of a known event type; None for a type this version does not know.

    Raises MalformedEventError when the value is not JSON or does not fit the event's schema.
    """
    model = EVENTS.get(event_type)
    if model is None:
        return None
    if not value:
        raise MalformedEventError(DeadLetterReason.NOT_JSON, "the value is empty")
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise MalformedEventError(DeadLetterReason.NOT_JSON, first["msg"]) from None
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise MalformedEventError(
            DeadLetterReason.SCHEMA_MISMATCH, f"{where}: {first['msg']}{more}"
        ) from None
