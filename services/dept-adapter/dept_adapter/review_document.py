"""A review as it is stored, and back."""

from collections.abc import Collection as Bag
from dataclasses import asdict
from datetime import date

from chassis.db import Document
from contracts.events import FalseMaterial
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import Count
from dept_adapter.domain import Decision, Dispute, Proposal, Review, Supplement, is_provisional
from dept_adapter.states import Action, State


def document_of(review: Review) -> Document:
    """The fields that a review is stored as."""
    return {
        "_id": review.item_id,
        "application_id": review.application_id,
        "record_id": review.record_id,
        "subject_id": review.subject_id,
        "department": review.department.model_dump(),
        "record": review.record.model_dump(mode="json"),
        "accept_due_on": review.accept_due_on.isoformat(),
        "decide_due_on": review.decide_due_on.isoformat(),
        "requested_at": review.requested_at,
        "at_desk": review.at_desk,
        "state": review.state.value,
        "accepted_at": review.accepted_at,
        "decision": asdict(review.decision) if review.decision else None,
        "revocation": asdict(review.revocation) if review.revocation else None,
        "extend_working_days": review.extend_working_days,
        "supplement": _supplement(review.supplement),
        "note": review.note,
        "overdue_told": review.overdue_told.isoformat() if review.overdue_told else None,
        "deadline_on": _deadline(review),
        "accept_count": _counted(review.accept_count),
        "decide_count": _counted(review.decide_count),
        "missing_year": review.missing_year,
        "due_on": review.due_on.isoformat() if review.due_on else None,
        "round": review.round,
        "reopened_at": review.reopened_at,
        "overturned": list(review.overturned),
        "disputes": [asdict(each) for each in review.disputes],
    }


def review_of(document: Document, desk_codes: Bag[str]) -> Review:
    """The review of a document. ``desk_codes``: departments that decide at our desk, however a review came to them."""
    decision, revocation = document["decision"], document.get("revocation")
    supplement = document.get("supplement")
    department = DepartmentRef.model_validate(document["department"])
    return Review(
        item_id=document["_id"],
        application_id=document["application_id"],
        record_id=document["record_id"],
        subject_id=document["subject_id"],
        department=department,
        record=RecordFacts.model_validate(document["record"]),
        accept_due_on=date.fromisoformat(document["accept_due_on"]),
        decide_due_on=date.fromisoformat(document["decide_due_on"]),
        requested_at=document["requested_at"],
        at_desk=document["at_desk"] or department.code in desk_codes,
        state=State(document["state"]),
        accepted_at=document["accepted_at"],
        decision=Decision(**decision) if decision else None,
        revocation=Decision(**revocation) if revocation else None,
        extend_working_days=document.get("extend_working_days"),
        supplement=Supplement(
            missing=tuple(supplement["missing"]),
            requested_on=date.fromisoformat(supplement["requested_on"]),
            due_on=date.fromisoformat(supplement["due_on"]),
            received_at=supplement["received_at"],
            count=_count(supplement["count"]),
        )
        if supplement
        else None,
        note=document.get("note"),
        overdue_told=_day(document.get("overdue_told")),
        round=document.get("round", 0),
        reopened_at=document.get("reopened_at"),
        overturned=tuple(document.get("overturned", ())),
        disputes=tuple(Dispute(**each) for each in document.get("disputes", ())),
        accept_count=_count(document["accept_count"]),
        decide_count=_count(document["decide_count"]),
    )


def proposal_of(kept: Document | None) -> Proposal | None:
    """What an officer proposed, as it is stored."""
    if not kept:
        return None
    found = kept.get("false_material")
    read = {"action": Action(kept["action"]), "false_material": found and FalseMaterial.model_validate(found)}
    return Proposal(**{**kept, **read})


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _supplement(supplement: Supplement | None) -> Document | None:
    if supplement is None:
        return None
    days = {"requested_on": supplement.requested_on.isoformat(), "due_on": supplement.due_on.isoformat()}
    rest = {"missing": list(supplement.missing), "received_at": supplement.received_at}
    return {**days, **rest, "count": _counted(supplement.count)}


def _counted(count: Count | None) -> Document | None:
    return None if count is None else {**asdict(count), "start": count.start.isoformat()}


def _count(document: Document | None) -> Count | None:
    if document is None:
        return None
    return Count(**{**document, "start": date.fromisoformat(document["start"])})


def _deadline(review: Review) -> str | None:
    """The day whose passing is still to be noticed; a provisional one is not."""
    due_on = review.due_on
    if due_on is None or due_on == review.overdue_told or is_provisional(review.due_count):
        return None
    return due_on.isoformat()
