"""What the desk's API shows."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from contracts.catalogue import DepartmentMode
from contracts.events import FalseMaterial, Ground, ReminderLevel, ReviewStep
from contracts.http.intake import Case
from contracts.http.source import Fact
from contracts.records import DepartmentRef, RecordFacts
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import is_provisional
from dept_adapter.reminders import level_of, step_of
from dept_adapter.states import Act, Action, State
from dept_adapter.store import StoredReview


class DecisionView(BaseModel):
    """The decision made. ``false_material``: the finding it makes; ``ground``: the finding at another item that it rests on."""

    number: str
    reason: str | None
    decided_at: datetime
    by: str
    false_material: FalseMaterial | None = None
    ground: Ground | None = None


class DisputeView(BaseModel):
    """A warning: what this item rests on was found false at another item."""

    ground: Ground
    reason: str
    found_at: datetime


class PushView(BaseModel):
    """How handing the review over to the department's system went. ``problem`` (zh-CN): why it did not, so far."""

    attempts: int = 0
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    receipt_number: str | None = None
    problem: str | None = None


class StepView(BaseModel):
    """One step of the review's history. ``act``: what an officer did, where the state does not tell it.

    ``letter_id``, ``content_hash``: of the letter that it tells was issued.
    """

    at: datetime
    state: State
    by: str
    detail: str | None = None
    act: Act | None = None
    letter_id: str | None = None
    content_hash: str | None = None


class ProposalView(BaseModel):
    """A decision that awaits its confirmation by a second officer."""

    action: Action
    reason: str | None
    by: str
    at: datetime


class SupplementView(BaseModel):
    """What was found missing. ``received_at``: null while it is awaited, until the end of ``due_on``."""

    missing: list[str]
    requested_on: date
    due_on: date
    received_at: datetime | None


class FindingView(BaseModel):
    """What data told of one condition. ``fact``: null while its source is being asked. ``advisory``: no rule asks for it."""

    condition: str
    name: str
    fact: Fact | None
    source_name: str | None
    detail: str
    as_of: datetime | None
    advisory: bool = False


class SpotCheckView(BaseModel):
    """What an officer found of an automatic decision that was drawn."""

    finding: Literal["confirmed", "wrong"]
    note: str
    by: str
    at: datetime


class VerificationView(BaseModel):
    """``automatic``: no person decided. ``sampled``: drawn to be looked at; ``spot_check``: what was found then."""

    findings: list[FindingView] = []
    completed_at: datetime | None = None
    automatic: bool = False
    sampled: bool = False
    spot_check: SpotCheckView | None = None


class AcknowledgementView(BaseModel):
    """An officer has seen a reminder. ``reason`` (zh-CN): why the item is not done yet."""

    by: str
    reason: str
    at: datetime


class ReminderView(BaseModel):
    """A reminder that was told. ``due_on``: the last day of the step; ``promised_on``: the day of the service promise it counts from,
    which is no legal limit; null when it counts from ``due_on``.
    """

    step: ReviewStep
    level: ReminderLevel
    due_on: date
    promised_on: date | None
    told_at: datetime
    acknowledged: AcknowledgementView | None


class OverdueReview(BaseModel):
    """A review whose last day has passed: what its item is, never what it is about. ``level``: how far up reminders have got."""

    item_id: str
    application_id: str
    department: DepartmentRef
    state: State
    step: ReviewStep
    due_on: date
    working_days_late: int
    level: ReminderLevel | None
    reminders: list[ReminderView]


class OverduePage(BaseModel):
    """The longest overdue first. Ask again with ``after`` = ``next`` while it is not null."""

    reviews: list[OverdueReview]
    next: str | None = Field(description="Opaque position")


class ReviewSummary(BaseModel):
    """A review in a list. ``at_desk``: it is decided here, not in the department's own system.

    ``due_on``: the last day of whoever has to act now; ``overdue``: it has passed, and everybody was told;
    ``due_provisional``: the working days on the way are not published yet, nothing follows from its passing. ``note`` (zh-CN): why it
    was not accepted, or put off. ``round``: how often it was reopened after an upheld objection; ``overturned``: numbers of decisions
    that no longer stand. ``disputes``: warnings of false material.
    """

    item_id: str
    application_id: str
    department: DepartmentRef
    mode: DepartmentMode
    at_desk: bool
    state: State
    record: RecordFacts
    accept_due_on: date
    decide_due_on: date
    requested_at: datetime
    accepted_at: datetime | None
    decision: DecisionView | None
    revocation: DecisionView | None
    extend_working_days: int | None
    supplement: SupplementView | None
    note: str | None
    due_on: date | None
    due_provisional: bool
    overdue: bool
    round: int
    overturned: list[str]
    disputes: list[DisputeView]
    push: PushView | None
    verification: VerificationView | None
    reminders: list[ReminderView]
    proposal: ProposalView | None = None


class ReviewDetail(ReviewSummary):
    """A review with its history and, where intake answers, the applicant's side. ``case_note`` (zh-CN): why ``case`` is null.

    ``false_material_default_years``: what the catalogue proposes for ``block_years`` of a finding of false material.
    """

    history: list[StepView]
    false_material_default_years: int | None = None
    case: Case | None = None
    case_note: str | None = None


class ReviewPage(BaseModel):
    """Ask again with ``after`` = ``next`` while it is not null."""

    reviews: list[ReviewSummary]
    next: str | None = Field(description="Opaque position")


class DepartmentView(BaseModel):
    """A served department. ``breaker``: whether its system is tried now; null where we call nobody (desk, events).

    ``problem`` (zh-CN): why its system could not be reached the last time. ``refused``: how much of what it said could not take effect
    lately (``/refused-decisions``).
    """

    department: DepartmentRef
    mode: DepartmentMode
    reviews: dict[State, int]
    breaker: Literal["closed", "half_open", "open"] | None
    problem: str | None = None
    refused: int = 0


class RefusedDecisionView(BaseModel):
    """What a department's system said and what could not take effect. ``reason`` (zh-CN). ``message_id``: its webhook-id, or file and row."""

    message_id: str
    item_id: str | None
    reason: str
    at: datetime


def summary(stored: StoredReview) -> ReviewSummary:
    """A stored review as a list shows it."""
    return ReviewSummary.model_validate(_fields(stored), from_attributes=True)


def detail(stored: StoredReview) -> ReviewDetail:
    """A stored review with its history, without its case."""
    return ReviewDetail.model_validate({**_fields(stored), "history": stored.history}, from_attributes=True)


def overdue(stored: StoredReview, today: date) -> OverdueReview:
    """A stored review whose last day has passed. Raises ValueError when the department owes nothing."""
    review, step = stored.review, step_of(stored.review)
    if step is None or review.due_on is None:
        raise ValueError(f"nothing is owed for {review.item_id}")
    return OverdueReview.model_validate(
        {
            **vars(review),
            "step": step,
            "due_on": review.due_on,
            "working_days_late": LIBRARY_CALENDAR.working_days_between(review.due_on, today),
            "level": level_of(review, stored.reminders),
            "reminders": stored.reminders,
        },
        from_attributes=True,
    )


def _fields(stored: StoredReview) -> dict[str, object]:
    review = stored.review
    overdue = review.due_on is not None and review.due_on == review.overdue_told
    told = {
        "push": stored.push,
        "verification": stored.verification,
        "reminders": stored.reminders,
        "proposal": stored.proposal,
    }
    due = {"due_on": review.due_on, "due_provisional": is_provisional(review.due_count)}
    shown = {**due, "overdue": overdue, "mode": stored.mode, **told}
    return {**vars(review), **shown}
