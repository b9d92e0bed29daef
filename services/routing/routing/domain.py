"""Pure decisions of routing: which department decides on a record (谁认定、谁修复), and until when."""

from dataclasses import dataclass
from datetime import datetime

from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.events import (
    ApplicationSubmitted,
    ItemReferred,
    ItemRouted,
    ItemStarted,
    ItemWithdrawn,
    RecognitionForwarded,
    RecognitionRequested,
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
from contracts.working_days import working_days_after

DEFAULT_ACCEPT_WORKING_DAYS = 3
DEFAULT_DECIDE_WORKING_DAYS = 7
"""国办发〔2025〕22号: acceptance within 3, feedback within 10 working days (domain notes 3.1); for records without a rule."""


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
    """A person has to find the department."""

    item: Item
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


def forward(
    event: SupplementProvided | WithdrawalRequested | RecognitionRequested, department: DepartmentRef
) -> ReviewEvent:
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
    return ReviewCancelled.model_validate({**about, "requested_at": event.requested_at})


def withdrawn(event: WithdrawalRequested, now: datetime) -> ItemWithdrawn:
    """An item of the human queue ends: no department has had it."""
    return ItemWithdrawn(
        application_id=event.application_id,
        item_id=event.item_id,
        record_id=event.record_id,
        subject_id=event.subject_id,
        withdrawn_at=now,
    )


def overdue(referred: ItemReferred, now: datetime) -> ReferralOverdue:
    """The human queue has not named a department in time: told once, the item goes on waiting."""
    return ReferralOverdue(
        application_id=referred.application_id,
        item_id=referred.item_id,
        record_id=referred.record_id,
        subject_id=referred.subject_id,
        queue_id=referred.queue_id,
        queue_name=referred.queue_name,
        due_on=referred.due_on,
        noticed_at=now,
    )


def route(item: Item, catalogue: Catalogue, now: datetime, referral_working_days: int) -> Routed | Referred:
    """Find the department that made the record; what cannot be resolved goes to the named human queue."""
    today = china_date(now)
    record = item.record
    resolution = catalogue.resolve_department(
        record.authority_code, record.authority_name, record.category, today
    )
    if resolution.department is not None:
        return assign(item, resolution.department, catalogue, now)
    due = working_days_after(today, referral_working_days)
    return Referred(
        item,
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
            referred_at=now,
        ),
    )


def assign(item: Item, department: Department, catalogue: Catalogue, now: datetime) -> Routed:
    """Ask a department for its decision, within the time limits of the record's rule."""
    today = china_date(now)
    record = item.record
    rule = catalogue.rule_for(record.category, record.tier, None, today)
    accept_days = DEFAULT_ACCEPT_WORKING_DAYS
    decide_days = DEFAULT_DECIDE_WORKING_DAYS
    if rule is not None:
        accept_days = rule.accept_working_days if rule.accept_working_days is not None else accept_days
        if rule.total_working_days is not None:
            decide_days = max(rule.total_working_days - accept_days, 0)
        elif rule.decide_working_days is not None:
            decide_days = rule.decide_working_days
    accept_due = working_days_after(today, accept_days)
    decide_due = working_days_after(accept_due.on, decide_days)
    provisional = accept_due.provisional or decide_due.provisional
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
            extend_working_days=rule.extend_working_days if rule else None,
            requested_at=now,
        ),
    )
