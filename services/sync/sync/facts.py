"""What of a decision, of a push and of a reading goes into the history. Pure; nothing personal."""

from typing import Any

from contracts.history import Kind
from contracts.http.target import RecordView, RepairResult
from sync.domain import Action, Delivery, Failure, Record, idempotency_key, shows
from sync.history import Fact, rfc3339

_MAX_REASON = 500


def decision_fact(record: Record) -> Fact:
    """A decision that changed what has to be shown."""
    facts = {
        "application_id": record.application_id,
        "authority_name": record.facts.authority_name,
        "category": record.facts.category,
        "decided_at": rfc3339(record.decided_at),
        "decision_number": record.decision_number,
        "document_number": record.facts.document_number,
        "item_id": record.item_id,
        "source": record.source,
        "state": record.state.value,
        "targets": list(record.targets),
        "version": record.version,
    }
    return Fact(record.record_id, record.record_id, Kind.DECISION, facts)


def answer_fact(
    action: Action, before: Delivery, record: Record, answer: RepairResult | RecordView | Failure
) -> Fact | None:
    """A push with its answer, or what was seen. Of the same failure again and again only the first is told."""
    facts: dict[str, Any]
    if isinstance(answer, Failure):
        reason = _plain(answer.reason)
        if before.last_error == reason:
            return None
        facts = {"answer": "none", "reason": reason}
    elif isinstance(answer, RepairResult):
        facts = {"answer": answer.status.value, "reason": _plain(answer.reason) if answer.reason else None}
    else:
        facts = {
            "right": shows(answer.state, record.state),
            "shown": answer.state.value if answer.state else None,
            "shown_version": answer.version,
        }
    if action is Action.PUSH:
        facts["idempotency_key"] = idempotency_key(before.target_id, record.record_id, record.version)
        kind = Kind.PUSH
    else:
        kind = Kind.READING
    facts |= {"desired": record.state.value, "version": record.version}
    return Fact(before.id, record.record_id, kind, facts)


def _plain(text: str) -> str:
    return text[:_MAX_REASON].encode(errors="replace").decode()
