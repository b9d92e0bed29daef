"""Events in, domain, store."""

from collections.abc import Callable, Mapping, Sequence

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.errors import DeadLetterReason
from contracts.events import ReviewRequested
from dept_adapter.domain import receive
from dept_adapter.store import NewReview, Reviews


class ReviewHandler:
    """Takes over the reviews requested of the served departments.

    ``departments``: by slug. ``wakes``: by slug, called after the commit when there is something new to push.
    """

    def __init__(
        self,
        departments: Mapping[str, Department],
        reviews: Reviews,
        wakes: Mapping[str, Callable[[], None]],
    ) -> None:
        self._departments = departments
        self._reviews = reviews
        self._wakes = wakes

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """An item that is here already is not asked for again. Other events of the topics are not for us."""
        new: dict[str, NewReview] = {}
        for received in batch:
            event = received.event
            if not isinstance(event, ReviewRequested):
                continue
            # the chassis has checked that the slug of the event is that of its topic
            department = self._departments[event.department.slug]
            if event.department.code != department.code:
                unit.reject(
                    received,
                    DeadLetterReason.UNKNOWN_AGGREGATE,
                    f"department {event.department.code} is not {department.slug} ({department.code}):"
                    " use the same catalogue in routing and dept-adapter",
                )
                continue
            review = receive(event, at_desk=department.mode == "desk")
            new.setdefault(event.item_id, NewReview(review, department.mode, received.trace))
        if not new:
            return
        for item_id in await self._reviews.known(list(new), unit.session):
            del new[item_id]
        if not new:
            return
        await self._reviews.add(list(new.values()), unit.now, unit.session)
        for slug in {added.review.department.slug for added in new.values()} & set(self._wakes):
            unit.after_commit(self._wakes[slug])
