"""What callbacks and the desk have in common: a command changes a review and publishes its events, in the review's trace."""

from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind

from chassis.problems import Problem
from chassis.telemetry import remote_context, span_context, tracer
from chassis.unit_of_work import UnitOfWork
from contracts.errors import ProblemCode
from dept_adapter.domain import (
    Command,
    DecisionConflictError,
    NotAllowedError,
    NotAtDeskError,
    Review,
    Transition,
    decide,
)
from dept_adapter.states import Act
from dept_adapter.store import Change, Reviews, StoredReview


def attempt(review: Review, command: Command, now: datetime) -> Transition:
    """What a command leads to. Raises Problem when it contradicts the decision made, is not allowed now, or not the desk's to give."""
    try:
        return decide(review, command, now)
    except DecisionConflictError as error:
        raise Problem(ProblemCode.DECISION_CONFLICT, str(error)) from None
    except (NotAtDeskError, NotAllowedError) as error:
        raise Problem(ProblemCode.INVALID_TRANSITION, str(error)) from None


async def apply(
    unit: UnitOfWork,
    reviews: Reviews,
    stored: StoredReview,
    command: Command,
    *,
    cause: str,
    act: Act | None = None,
) -> Transition:
    """Decide, store and publish. Raises Problem as ``attempt``."""
    request = trace.get_current_span().get_span_context()
    own = span_context(stored.trace)
    # The request belongs to the review's trace when the caller carried it on. Otherwise the review's own goes on, linked.
    carried_on = not own.is_valid or request.trace_id == own.trace_id
    with tracer.start_as_current_span(
        f"{command.action.value} review",
        None if carried_on else remote_context(stored.trace),
        kind=SpanKind.INTERNAL,
        links=[] if carried_on or not request.is_valid else [Link(request)],
        attributes={
            "xinfu.item_id": stored.review.item_id,
            "xinfu.application_id": stored.review.application_id,
            "xinfu.department": stored.review.department.slug,
        },
    ):
        transition = attempt(stored.review, command, unit.now)
        if transition.events:
            change = Change(stored, transition.review, command.by, command.text, act)
            await reviews.save([change], unit.now, unit.session)
        for event in transition.events:
            unit.emit(event, cause=cause)
    return transition
