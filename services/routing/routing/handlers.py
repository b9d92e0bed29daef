"""Events in, domain, store and events out."""

from collections.abc import Mapping, Sequence

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.errors import DeadLetterReason
from contracts.events import (
    ApplicationSubmitted,
    ClosureRequested,
    Event,
    ItemStarted,
    ObjectionFiled,
    ObjectionReferred,
    ObjectionWithdrawalRequested,
    WithdrawalRequested,
)
from contracts.records import DepartmentRef
from routing.domain import (
    FollowUp,
    ObjectionSent,
    Referred,
    Routed,
    cancel_objection,
    ended_unassigned,
    forward,
    items_to_route,
    route,
    route_objection,
)
from routing.store import Referrals


class ApplicationHandler:
    """Routes the items of a batch, and forwards what their applicants do afterwards to whoever has them."""

    def __init__(self, catalogue: Catalogue, referrals: Referrals, referral_working_days: int) -> None:
        self._catalogue = catalogue
        self._referrals = referrals
        self._referral_working_days = referral_working_days

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events of the topic need no routing."""
        referred: list[Referred] = []
        unassigned: list[Received] = []
        objections: list[tuple[ObjectionFiled, ObjectionReferred]] = []
        for received in batch:
            event = received.event
            if isinstance(event, ObjectionFiled):
                sent = route_objection(event, self._catalogue, unit.now, self._referral_working_days)
                if isinstance(sent, ObjectionReferred):
                    objections.append((event, sent))
                    unit.emit(sent, cause=received.id, trace=received.trace)
                else:
                    emit_objection(unit, sent, cause=received.id, trace=received.trace)
                continue
            if isinstance(event, FollowUp | ObjectionWithdrawalRequested):
                if event.department is None:
                    unassigned.append(received)
                else:
                    unit.emit(_forwarded(event, event.department), cause=received.id, trace=received.trace)
                continue
            if not isinstance(event, ApplicationSubmitted | ItemStarted):
                continue
            for item in items_to_route(event):
                result = route(item, self._catalogue, unit.now, self._referral_working_days)
                if isinstance(result, Referred):
                    referred.append(result)
                    unit.emit(result.referred, cause=received.id, trace=received.trace)
                else:
                    emit_routed(unit, result, cause=received.id, trace=received.trace)
        if referred:
            await self._referrals.add(referred, unit.session)
        if objections:
            await self._referrals.add_objections(objections, unit.session)
        for received in unassigned:
            await self._end(unit, received)

    async def _end(self, unit: UnitOfWork, received: Received) -> None:
        """Rare: an item or objection of the human queue. A department that a person named meanwhile has the last word."""
        event = received.event
        if not isinstance(event, WithdrawalRequested | ClosureRequested | ObjectionWithdrawalRequested):
            return
        queued = event.objection_id if isinstance(event, ObjectionWithdrawalRequested) else event.item_id
        referral = await self._referrals.get(queued, unit.session)
        if referral is None:
            detail = f"{queued} is not in the human queue: name the department that has it"
            unit.reject(received, DeadLetterReason.UNKNOWN_AGGREGATE, detail)
        elif referral["status"] == "assigned":
            department = self._catalogue.department(referral["assignment"]["department_code"])
            if department is None:
                raise LookupError(f"{queued} was assigned to a department that left the catalogue")
            ref = DepartmentRef(code=department.code, slug=department.slug, name=department.name)
            unit.emit(_forwarded(event, ref), cause=received.id, trace=received.trace)
        elif referral["status"] == "open":
            unit.emit(ended_unassigned(event, unit.now), cause=received.id, trace=received.trace)
            await self._referrals.mark_withdrawn(queued, unit.now, unit.session)


def _forwarded(event: FollowUp | ObjectionWithdrawalRequested, department: DepartmentRef) -> Event:
    if isinstance(event, ObjectionWithdrawalRequested):
        return cancel_objection(event, department)
    return forward(event, department)


def emit_routed(
    unit: UnitOfWork, result: Routed, *, cause: str, trace: Mapping[str, str] | None = None
) -> None:
    """Tell everybody where the item went, and ask the department."""
    unit.emit(result.routed, cause=cause, trace=trace)
    unit.emit(result.requested, cause=cause, trace=trace)


def emit_objection(
    unit: UnitOfWork, sent: ObjectionSent, *, cause: str, trace: Mapping[str, str] | None = None
) -> None:
    """Tell everybody who has the objection, and ask the department."""
    unit.emit(sent.routed, cause=cause, trace=trace)
    unit.emit(sent.forwarded, cause=cause, trace=trace)
