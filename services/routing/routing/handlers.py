"""Events in, domain, store and events out."""

from collections.abc import Mapping, Sequence

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.events import ApplicationSubmitted
from routing.domain import Referred, Routed, route, split
from routing.store import Referrals


class ApplicationHandler:
    """Routes every item of the submitted applications of a batch."""

    def __init__(self, catalogue: Catalogue, referrals: Referrals, referral_working_days: int) -> None:
        self._catalogue = catalogue
        self._referrals = referrals
        self._referral_working_days = referral_working_days

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events of the topic need no routing."""
        referred: list[Referred] = []
        for received in batch:
            if not isinstance(received.event, ApplicationSubmitted):
                continue
            for item in split(received.event):
                result = route(item, self._catalogue, unit.now, self._referral_working_days)
                if isinstance(result, Referred):
                    referred.append(result)
                    unit.emit(result.referred, cause=received.id, trace=received.trace)
                else:
                    emit_routed(unit, result, cause=received.id, trace=received.trace)
        if referred:
            await self._referrals.add(referred, unit.session)


def emit_routed(
    unit: UnitOfWork, result: Routed, *, cause: str, trace: Mapping[str, str] | None = None
) -> None:
    """Tell everybody where the item went, and ask the department."""
    unit.emit(result.routed, cause=cause, trace=trace)
    unit.emit(result.requested, cause=cause, trace=trace)
