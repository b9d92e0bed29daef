"""Events in, domain, store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.clock import china_date
from contracts.errors import DeadLetterReason
from contracts.events import (
    ClosureForwarded,
    ExpiryForwarded,
    FalseMaterialForwarded,
    ObjectionCancelled,
    ObjectionForwarded,
    RecognitionForwarded,
    ReviewCancelled,
    ReviewRequested,
    SupplementForwarded,
)
from contracts.records import DepartmentRef
from contracts.working_days import WorkCalendar
from dept_adapter.domain import (
    FALSE_MATERIAL,
    Command,
    Review,
    Transition,
    acts_on,
    decide,
    decision_number,
    dispute,
    receive,
)
from dept_adapter.objection import Objection, Ruling, receive_objection, rule_on
from dept_adapter.objections import Objections, StoredObjection
from dept_adapter.states import Action, ObjectionAction, State
from dept_adapter.store import Change, NewReview, Reviews

_Said = SupplementForwarded | ReviewCancelled | RecognitionForwarded | ExpiryForwarded | ClosureForwarded
_FollowUp = _Said | FalseMaterialForwarded


class ReviewHandler:
    """Takes over the reviews requested of the served departments, and what their applicants do afterwards.

    ``departments``: by slug. ``wakes``: by slug, called after the commit when there is something new to push; ``verify``: when there
    is something new to verify.
    """

    def __init__(
        self,
        departments: Mapping[str, Department],
        reviews: Reviews,
        objections: Objections,
        wakes: Mapping[str, Callable[[], None]],
        verify: Callable[[], None],
        calendar: WorkCalendar,
    ) -> None:
        self._departments = departments
        self._reviews = reviews
        self._objections = objections
        self._wakes = wakes
        self._verify = verify
        self._calendar = calendar

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """An item that is here already is not asked for again. Other events of the topics are not for us."""
        new: dict[str, NewReview] = {}
        objections: dict[str, tuple[Objection, Mapping[str, str]]] = {}
        follow_ups: list[Received] = []
        cancelled: list[Received] = []
        for received in batch:
            event = received.event
            if isinstance(event, _FollowUp):
                follow_ups.append(received)
                continue
            if isinstance(event, ObjectionCancelled):
                cancelled.append(received)
                continue
            if not isinstance(event, ReviewRequested | ObjectionForwarded):
                continue
            department = self._asked(unit, received, event.department)
            if department is None:
                continue
            if isinstance(event, ObjectionForwarded):
                new_objection = receive_objection(event, self._calendar)
                objections.setdefault(event.objection_id, (new_objection, received.trace))
                continue
            at_desk = department.mode == "desk" or event.record.in_person
            review = receive(event, at_desk=at_desk, calendar=self._calendar)
            review = self._told(review, unit.now)
            new.setdefault(event.item_id, NewReview(review, department.mode, received.trace))
        await self._add(unit, new)
        if objections:
            await self._objections.add(objections, unit.now, unit.session)
        if cancelled:
            await self._withdraw(unit, cancelled)
        if follow_ups:
            await self._follow_up(unit, follow_ups)

    def _asked(self, unit: UnitOfWork, received: Received, asked: DepartmentRef) -> Department | None:
        """The department that is asked. The chassis has checked that the slug of the event is that of its topic."""
        department = self._departments[asked.slug]
        if asked.code == department.code:
            return department
        unit.reject(
            received,
            DeadLetterReason.UNKNOWN_AGGREGATE,
            f"department {asked.code} is not {department.slug} ({department.code}):"
            " use the same catalogue in routing and dept-adapter",
        )
        return None

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

    async def _withdraw(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Objections whose subjects withdraw them; a decision that was made before stands."""
        ids = [event.objection_id for r in batch if isinstance(event := r.event, ObjectionCancelled)]
        stored = await self._objections.load(ids, unit.session)
        changed: dict[str, tuple[StoredObjection, Objection]] = {}
        for received in batch:
            event = received.event
            if not isinstance(event, ObjectionCancelled):
                continue
            found = stored.get(event.objection_id)
            if found is None or found.objection.department.code != event.department.code:
                detail = f"{event.department.slug} was not asked to decide on {event.objection_id}"
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                continue
            _, before = changed.get(event.objection_id, (found, found.objection))
            after, events = rule_on(before, Ruling(ObjectionAction.WITHDRAW, _BY), unit.now)
            for told in events:
                unit.emit(told, cause=received.id, trace=received.trace)
            if events:
                changed[event.objection_id] = found, after
        await self._objections.save(list(changed.values()), _BY, unit.now, unit.session)

    async def _follow_up(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """After the reviews of the same batch: of one item they come in order."""
        stored = await self._reviews.load([received.key for received in batch], unit.session)
        now: dict[str, Review] = {}
        warned: dict[str, str] = {}
        for received in batch:
            event = received.event
            if not isinstance(event, _FollowUp):
                continue
            found = stored.get(event.item_id)
            if found is None or found.review.department.code != event.department.code:
                detail = f"{event.department.slug} was not asked to review {event.item_id}"
                unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
                continue
            before = now.get(event.item_id, found.review)
            if isinstance(event, FalseMaterialForwarded):
                transition = await self._dispute(unit, before, event)
                warned[event.item_id] = _warning(event)
            else:
                transition = decide(before, _command(event), unit.now, self._calendar)
            for told in transition.events:
                unit.emit(told, cause=received.id, trace=received.trace)
            if transition.review is not before:
                now[event.item_id] = self._told(transition.review, unit.now)
        changes = [
            Change(
                stored[item_id],
                review,
                FALSE_MATERIAL if item_id in warned else _by(review),
                warned.get(item_id),
            )
            for item_id, review in now.items()
        ]
        await self._reviews.save(changes, unit.now, unit.session)
        unit.after_commit(self._verify)
        self._wake(unit, {change.review.department.slug for change in changes})

    async def _dispute(self, unit: UnitOfWork, review: Review, event: FalseMaterialForwarded) -> Transition:
        """Its department's decision, made here: the numbers are those of its desk."""
        action, number = acts_on(review, event), None
        if action is not None:
            department, year = self._departments[event.department.slug], china_date(unit.now).year
            serial = await self._reviews.next_serial(department.code, year, unit.session)
            number = decision_number(department.short_name, action, year, serial)
        return dispute(review, event, number, unit.now)

    def _told(self, review: Review, now: datetime) -> Review:
        """A department of mode events reads its topic itself: what is there has been handed over to it."""
        department = self._departments[review.department.slug]
        if department.mode != "events" or review.state is not State.RECEIVED or review.record.in_person:
            return review
        return decide(review, Command(Action.DELIVER, "bus", from_desk=False), now, self._calendar).review

    def _wake(self, unit: UnitOfWork, slugs: set[str]) -> None:
        for slug in slugs & set(self._wakes):
            unit.after_commit(self._wakes[slug])


_BY = "applicant"
_BY_SOURCE = "source"
"""Who brings the record, or the ruling that ends its shield."""


def _by(review: Review) -> str:
    if review.state is State.EXPIRED:
        return "clock"
    if review.state is State.CLOSED:
        return _BY_SOURCE
    return review.decision.by if review.decision else _BY


def _warning(event: FalseMaterialForwarded) -> str:
    made = f"{event.ground.department.name}（{event.ground.decision_number}）"
    return f"{made}认定材料虚假：{event.reason}" if not event.lifted else f"{made}的虚假材料认定已被推翻"


def _command(event: _Said) -> Command:
    match event:
        case SupplementForwarded():
            return Command(Action.SUPPLEMENT, _BY, from_desk=False, occurred_at=event.provided_at)
        case ReviewCancelled():
            return Command(Action.WITHDRAW, _BY, from_desk=False, occurred_at=event.requested_at)
        case ExpiryForwarded():
            return Command(Action.EXPIRE, "clock", from_desk=False, ended_on=event.ended_on)
        case ClosureForwarded():
            return Command(
                Action.CLOSE,
                _BY_SOURCE,
                from_desk=False,
                reason=event.reason,
                closure=event.reason_code,
                occurred_at=event.requested_at,
            )
    return Command(
        Action.RECOGNISE,
        event.platform_id,
        from_desk=False,
        number=event.decision_number,
        occurred_at=event.repaired_at,
        platform=(event.platform_id, event.platform_name),
    )
