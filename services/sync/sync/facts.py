"""What of a decision, of a push, of a reading and of a letter goes into the history. Pure; nothing personal."""

from datetime import datetime
from typing import Any

from contracts.canonical import Digest
from contracts.history import Kind
from contracts.http.target import RecordView, RepairResult
from contracts.records import DisplayState
from sync.desired import Record, idempotency_key, is_outdated, is_right, shows
from sync.domain import Action, Delivery, Failure, found_the_same
from sync.history import Fact, rfc3339
from sync.vendor_letters import VendorLetter

_MAX_REASON = 500


def decision_fact(record: Record) -> Fact:
    """A decision that changed what has to be shown."""
    facts: dict[str, Any] = {
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
    if record.content is not None:
        facts["content"] = record.content.model_dump(mode="json")
    return Fact(record.record_id, record.record_id, Kind.DECISION, facts)


def step_fact(
    action: Action,
    before: Delivery,
    after: Delivery,
    record: Record,
    answer: RepairResult | RecordView | Failure,
) -> Fact | None:
    """What ``answer`` led to, if it is new: of the same thing seen, or the same failure, again and again only the first is told."""
    if isinstance(answer, RecordView) and found_the_same(before, after):
        return None
    return answer_fact(action, before, record, answer)


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
            "right": is_right(answer, record),
            "shown": answer.state.value if answer.state else None,
            "shown_version": answer.version,
        }
        if is_outdated(answer, record):
            facts["outdated"] = True
    if action is Action.PUSH:
        facts["idempotency_key"] = idempotency_key(before.target_id, record.record_id, record.version)
        kind = Kind.PUSH
    else:
        kind = Kind.READING
    facts |= {"desired": record.state.value, "version": record.version}
    return Fact(before.id, record.record_id, kind, facts)


def letter_fact(letter: VendorLetter, what: str, *, words: str | None = None, **more: Any) -> Fact:
    """What was made of a letter, in the chain of its record. ``words``: of a person; their digest alone is told."""
    facts = {
        "letter_id": letter.id,
        "number": letter.number,
        "step": letter.step.value,
        "target_id": letter.target_id,
        "what": what,
        "by": letter.decided_by,
        "seen": letter.seen and letter.seen.evidence,
        **more,
    }
    if words is not None:
        facts["words"] = Digest.SHA256.of(words.encode())
    return Fact(letter.record_id, letter.record_id, Kind.LETTER, facts)


def answered_fact(delivery: Delivery, record: Record, letter: VendorLetter, by: str) -> Fact:
    """The target's answer to a letter that it is done, in the chain of the record at that target."""
    facts = {
        "answer": "applied",
        "by": by,
        "desired": record.state.value,
        "letter_id": letter.id,
        "number": letter.number,
        "version": record.version,
    }
    return Fact(delivery.id, record.record_id, Kind.LETTER, facts)


def visit_fact(
    delivery: Delivery,
    record: Record,
    shown: DisplayState | None,
    looked_at: datetime,
    by: str,
    words: str,
    *,
    outdated: bool,
) -> Fact:
    """What a person saw at a target that cannot be read back. ``words``: what it refers to; its digest alone is told."""
    facts: dict[str, Any] = {
        "by": by,
        "desired": record.state.value,
        "looked_at": rfc3339(looked_at),
        "right": shows(shown, record, outdated=outdated),
        "shown": shown.value if shown else None,
        "shown_version": None,
        "version": record.version,
        "words": Digest.SHA256.of(words.encode()),
    }
    if outdated:
        facts["outdated"] = True
    return Fact(delivery.id, record.record_id, Kind.READING, facts)


def _plain(text: str) -> str:
    return text[:_MAX_REASON].encode(errors="replace").decode()
