"""Events in, domain, store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.errors import DeadLetterReason
from contracts.events import RecognitionForwarded, ReviewCancelled, ReviewRequested, SupplementForwarded
from dept_adapter.domain import Command, Review, decide, receive
from dept_adapter.states import Action, State
from dept_adapter.store import Change, NewReview, Reviews


class ReviewHandler:
    """Takes over the reviews requested of the served departments, and what their applicants do afterwards.

    ``departments``: by slug. ``wakes``: by slug, called after the commit when there is something new to push; ``verify``: when there
    is something new to verify.
    """

    def __init__(
        self,
        departments: Mapping[str, Department],
        reviews: Reviews,
        wakes: Mapping[str, Callable[[], None]],
        verify: Callable[[], None],
    ) -> None:
        self._departments = departments
        self._reviews = reviews
        self._wakes = wakes
        self._verify = verify

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """An item that is here already is not asked for again. Other events of the topics are not for us."""
        new: dict[str, NewReview] = {}
        follow_ups: list[Received] = []
        for received in batch:
            event = received.event
            if not isinstance(event, ReviewRequested):
                if isinstance(event, SupplementForwarded | ReviewCancelled | RecognitionForwarded):
                    follow_ups.append(received)
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
            review = self._told(receive(event, at_desk=department.mode == "desk"), unit.now)
            new.setdefault(event.item_id, NewReview(review, department.mode, received.trace))
        await self._add(unit, new)
        if follow_ups:
            await self._follow_up(unit, follow_ups)

    async def _add(self, unit: UnitOfWork, new: dict[str, NewReview]) -> None:
        if not new:
            return
        for item_id in await self._reviews.known(list(new), unit.session):
            del new[item_id]
        if not new:
            return
        await self._reviews.add(list(new.values()), unit.now, unit.session)
        unit.after_commit(self._verify)
        self._wake(unit, {added.review.department.slug for added in new.values()})

    async def _follow_up(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """After the reviews of the same batch: of one item they come in order."""
        stored = await self._reviews.load([received.key for received in batch], unit.session)
        now: dict[str, Review] = {}
        for received in batch:
            event = received.event
            if not isinstance(event, SupplementForwarded | ReviewCancelled | RecognitionForwarded):
                continue
            found = stored.get(event.item_id)
            if found is None or found.review.department.code != event.department.code:
                detail = f"{event.department.slug} was not asked to review {event.item_id}"
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                continue
            transition = decide(now.get(event.item_id, found.review), _command(event), unit.now)
            for told in transition.events:
                unit.emit(told, cause=received.id, trace=received.trace)
            if transition.events:
                now[event.item_id] = self._told(transition.review, unit.now)
        changes = [Change(stored[item_id], review, _by(review)) for item_id, review in now.items()]
        await self._reviews.save(changes, unit.now, unit.session)
        self._wake(unit, {change.review.department.slug for change in changes})

    def _told(self, review: Review, now: datetime) -> Review:
        """A department of mode events reads its topic itself: what is there has been handed over to it."""
        department = self._departments[review.department.slug]
        if department.mode != "events" or review.state is not State.RECEIVED:
            return review
        return decide(review, Command(Action.DELIVER, "bus", from_desk=False), now).review

    def _wake(self, unit: UnitOfWork, slugs: set[str]) -> None:
        for slug in slugs & set(self._wakes):
            unit.after_commit(self._wakes[slug])


_BY = "applicant"


def _by(review: Review) -> str:
    return review.decision.by if review.decision else _BY


def _command(event: SupplementForwarded | ReviewCancelled | RecognitionForwarded) -> Command:
    match event:
        case SupplementForwarded():
            return Command(Action.SUPPLEMENT, _BY, from_desk=False, occurred_at=event.provided_at)
        case ReviewCancelled():
            return Command(Action.WITHDRAW, _BY, from_desk=False, occurred_at=event.requested_at)
    return Command(
        Action.RECOGNISE,
        event.platform_id,
        from_desk=False,
        number=event.decision_number,
        occurred_at=event.repaired_at,
        platform=(event.platform_id, event.platform_name),
    )
