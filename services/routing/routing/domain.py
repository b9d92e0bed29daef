"""Pure decisions of routing: which department decides on a record (谁认定、谁修复), and until when."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.events import (
    ApplicationSubmitted,
    ClosureForwarded,
    ClosureRequested,
    ExpiryForwarded,
    ExpiryRequested,
    FalseMaterialForwarded,
    FalseMaterialFound,
    ItemClosed,
    ItemReferred,
    ItemRouted,
    ItemStarted,
    ItemWithdrawn,
    ObjectionCancelled,
    ObjectionEvent,
    ObjectionFiled,
    ObjectionForwarded,
    ObjectionReferralOverdue,
    ObjectionReferralWithdrawn,
    ObjectionReferred,
    ObjectionRouted,
    ObjectionWithdrawalRequested,
    RecognitionForwarded,
    RecognitionRequested,
    ReferralDueConfirmed,
    ReferralOverdue,
    ReferralReason,
    ReviewCancelled,
    ReviewEvent,
    ReviewRequested,
    SupplementForwarded,
    SupplementProvided,
    WithdrawalRequested,
)
from contracts.identifiers import item_id
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import Count, Deadline, WorkCalendar


@dataclass(frozen=True)
class Item:
    """One record of one application on its way to a department."""

    application_id: str
    subject_id: str
    record: RecordFacts

    @property
    def id(self) -> str:
        """Deterministic: the same application and record are the same item, however often routed."""
        return item_id(self.application_id, self.record.record_id)


@dataclass(frozen=True)
class Routed:
    """The department was found: tell everybody, and ask it."""

    item: Item
    routed: ItemRouted
    requested: ReviewRequested


@dataclass(frozen=True)
class Referred:
    """A person has to find the department. ``count``: how the day was counted by which that has to be."""

    item: Item
    count: Count
    referred: ItemReferred


def items_to_route(event: ApplicationSubmitted | ItemStarted) -> list[Item]:
    """The items of an application, one for each record that is not held; or the one whose turn has come."""
    if isinstance(event, ItemStarted):
        return [Item(event.application_id, event.subject_id, event.record)]
    held = set(event.held)
    return [
        Item(event.application_id, event.subject_id, record)
        for record in event.records
        if record.record_id not in held
    ]


FollowUp = (
    SupplementProvided
    | WithdrawalRequested
    | RecognitionRequested
    | ExpiryRequested
    | ClosureRequested
    | FalseMaterialFound
)
"""What is forwarded to whoever has the item."""


def forward(event: FollowUp, department: DepartmentRef) -> ReviewEvent:
    """What the department that has the item is told."""
    about = {
        "application_id": event.application_id,
        "item_id": event.item_id,
        "record_id": event.record_id,
        "subject_id": event.subject_id,
        "department": department,
    }
    if isinstance(event, SupplementProvided):
        return SupplementForwarded.model_validate({**about, "provided_at": event.provided_at})
    if isinstance(event, RecognitionRequested):
        found = event.model_dump(include={"platform_id", "platform_name", "decision_number", "repaired_at"})
        return RecognitionForwarded.model_validate({**about, **found})
    if isinstance(event, FalseMaterialFound):
        found = event.model_dump(include={"ground", "reason", "lifted", "found_at"})
        return FalseMaterialForwarded.model_validate({**about, **found})
    if isinstance(event, ExpiryRequested):
        found = event.model_dump(include={"ended_on", "requested_at"})
        return ExpiryForwarded.model_validate({**about, **found})
    if isinstance(event, ClosureRequested):
        found = event.model_dump(include={"reason_code", "reason", "requested_at"})
        return ClosureForwarded.model_validate({**about, **found})
    return ReviewCancelled.model_validate({**about, "requested_at": event.requested_at})


def ended_unassigned(
    event: WithdrawalRequested | ClosureRequested | ObjectionWithdrawalRequested, now: datetime
) -> ItemWithdrawn | ItemClosed | ObjectionReferralWithdrawn:
    """An item or objection of the human queue ends: no department has had it."""
    if isinstance(event, ObjectionWithdrawalRequested):
        return ObjectionReferralWithdrawn(**_objection(event), withdrawn_at=now)
    about = event.model_dump(include={"application_id", "item_id", "record_id", "subject_id"})
    if isinstance(event, ClosureRequested):
        return ItemClosed(**about, reason_code=event.reason_code, reason=event.reason, closed_at=now)
    return ItemWithdrawn(**about, withdrawn_at=now)


def overdue(
    referred: ItemReferred | ObjectionReferred, now: datetime
) -> ReferralOverdue | ObjectionReferralOverdue:
    """The human queue has not named a department in time: told once, the item or objection goes on waiting."""
    queue = {
        "queue_id": referred.queue_id,
        "queue_name": referred.queue_name,
        "due_on": referred.due_on,
        "noticed_at": now,
    }
    if isinstance(referred, ObjectionReferred):
        return ObjectionReferralOverdue.model_validate({**_objection(referred), **queue})
    about = referred.model_dump(include={"application_id", "item_id", "record_id", "subject_id"})
    return ReferralOverdue.model_validate({**about, **queue})


def route(item: Item, catalogue: Catalogue, now: datetime, referral_working_days: int) -> Routed | Referred:
    """Find the department that made the record; what cannot be resolved goes to the named human queue."""
    today = china_date(now)
    record = item.record
    resolution = catalogue.resolve_department(
        record.authority_code, record.authority_name, record.category, today
    )
    if resolution.department is not None:
        return assign(item, resolution.department, catalogue, now)
    due = catalogue.calendar.working_days_after(today, referral_working_days)
    return Referred(
        item,
        due.count,
        ItemReferred(
            application_id=item.application_id,
            item_id=item.id,
            record_id=record.record_id,
            subject_id=item.subject_id,
            queue_id=catalogue.human_queue.id,
            queue_name=catalogue.human_queue.name,
            reason_code=resolution.reason_code or ReferralReason.UNKNOWN_DEPARTMENT,
            reason=resolution.reason,
            due_on=due.on,
            due_provisional=due.provisional,
            calendar_version=due.count.calendar,
            referred_at=now,
        ),
    )


def assign(item: Item, department: Department, catalogue: Catalogue, now: datetime) -> Routed:
    """Ask a department for its decision, within the time limits of the record's rule."""
    today = china_date(now)
    record = item.record
    limits = catalogue.time_limits(record.category, record.tier, today)
    calendar = catalogue.calendar
    accept_due = calendar.working_days_after(today, limits.accept)
    decide_due = calendar.working_days_after(today, limits.accept + limits.decide)
    provisional = decide_due.provisional
    ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
    return Routed(
        item,
        ItemRouted(
            application_id=item.application_id,
            item_id=item.id,
            record_id=record.record_id,
            subject_id=item.subject_id,
            department=ref,
            decide_due_on=decide_due.on,
            due_provisional=provisional,
            calendar_version=calendar.version,
            routed_at=now,
        ),
        ReviewRequested(
            application_id=item.application_id,
            item_id=item.id,
            record_id=record.record_id,
            subject_id=item.subject_id,
            department=ref,
            record=record,
            accept_due_on=accept_due.on,
            decide_due_on=decide_due.on,
            due_provisional=provisional,
            calendar_version=calendar.version,
            accept_working_days=limits.accept,
            decide_working_days=limits.accept + limits.decide,
            extend_working_days=limits.extend,
            requested_at=now,
        ),
    )


# --- objections


@dataclass(frozen=True)
class ObjectionSent:
    """The department has the objection: tell everybody, and ask it."""

    routed: ObjectionRouted
    forwarded: ObjectionForwarded


def route_objection(
    event: ObjectionFiled, catalogue: Catalogue, now: datetime, referral_working_days: int
) -> ObjectionSent | ObjectionReferred:
    """To who decided the result, or made the record; where nobody knows who that is, to the named human queue."""
    today = china_date(now)
    if event.department is not None:
        return _send(event, event.department, catalogue, now)
    record = event.record
    resolution = catalogue.resolve_department(
        record.authority_code, record.authority_name, record.category, today
    )
    if resolution.department is not None:
        return assign_objection(event, resolution.department, catalogue, now)
    due = catalogue.calendar.working_days_after(today, referral_working_days)
    return ObjectionReferred(
        **_objection(event),
        queue_id=catalogue.human_queue.id,
        queue_name=catalogue.human_queue.name,
        reason_code=resolution.reason_code or ReferralReason.UNKNOWN_DEPARTMENT,
        reason=resolution.reason,
        due_on=due.on,
        due_provisional=due.provisional,
        referred_at=now,
    )


def assign_objection(
    event: ObjectionFiled, department: Department, catalogue: Catalogue, now: datetime
) -> ObjectionSent:
    """Ask a department to decide on an objection, within the time limits of the catalogue."""
    ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
    return _send(event, ref, catalogue, now)


def _send(
    event: ObjectionFiled, department: DepartmentRef, catalogue: Catalogue, now: datetime
) -> ObjectionSent:
    today = china_date(now)
    rule = catalogue.objection_rule(event.record.category, today)
    accept_due = catalogue.calendar.working_days_after(today, rule.accept_working_days)
    whole = rule.accept_working_days + rule.decide_working_days
    decide_due = catalogue.calendar.working_days_after(today, whole)
    facts = {
        **_objection(event),
        "department": department,
        "accept_due_on": accept_due.on,
        "decide_due_on": decide_due.on,
        "due_provisional": accept_due.provisional or decide_due.provisional,
    }
    counted = {
        "record": event.record,
        "calendar_version": decide_due.count.calendar,
        "accept_working_days": rule.accept_working_days,
        "decide_working_days": whole,
    }
    return ObjectionSent(
        ObjectionRouted.model_validate({**facts, "routed_at": now}),
        ObjectionForwarded.model_validate({**facts, **counted, "forwarded_at": now}),
    )


def cancel_objection(event: ObjectionWithdrawalRequested, department: DepartmentRef) -> ObjectionCancelled:
    """What the department that has the objection is told."""
    return ObjectionCancelled(**_objection(event), department=department, requested_at=event.requested_at)


def _objection(event: ObjectionEvent) -> dict[str, Any]:
    return {
        "objection_id": event.objection_id,
        "kind": event.kind,
        "subject_id": event.subject_id,
        "record_id": event.record_id,
        "application_id": event.application_id,
        "item_id": event.item_id,
    }


def confirm(
    referred: ItemReferred, count: Count, calendar: WorkCalendar, now: datetime
) -> tuple[Count, ReferralDueConfirmed] | None:
    """What to tell when the year that was missing is known now; None while it is not."""
    if not calendar.may_confirm(count):
        return None
    due = calendar.again(Deadline(referred.due_on, count))
    return due.count, ReferralDueConfirmed(
        application_id=referred.application_id,
        item_id=referred.item_id,
        record_id=referred.record_id,
        subject_id=referred.subject_id,
        due_on=due.on,
        due_provisional=due.provisional,
        calendar_version=due.count.calendar,
        confirmed_at=now,
    )
