"""两书同达: the subject of a record that is published gets the repair notice, once: in the app, and by e-mail where it has left an address.

Told by an event, in the transaction that first stores the record; notify tells it. Of a record whose period has passed there is nothing to
tell, and an old one that comes with an import was published long before.
"""

from collections.abc import Sequence
from datetime import timedelta

from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.http.eligibility import Transition
from intake.domain.record import Record, is_shown
from intake.eligibility import publication_end
from intake.notice import notice_served
from intake.store import Store


class Notices:
    """Serves them, of records decided within so many days."""

    def __init__(
        self, store: Store, catalogue: Catalogue, transition: Transition, *, within_days: int
    ) -> None:
        self._within = timedelta(days=within_days)
        self._store = store
        self._catalogue = catalogue
        self._transition = transition

    async def serve(self, unit: UnitOfWork, records: Sequence[Record]) -> list[Record]:
        """The same records, in order; those whose subjects are told now say so, and are still to be stored."""
        due = [record for record in records if self._is_due(record, unit)]
        reachable = await self._store.emails({r.subject_id for r in due}, unit.session) if due else {}
        served: dict[str, Record] = {}
        for record in due:
            event = notice_served(
                record,
                self._catalogue,
                self._transition,
                by_email=record.subject_id in reachable,
                now=unit.now,
            )
            unit.emit(event, cause=f"notice:{record.record_id}")
            served[record.record_id] = record.model_copy(update={"notice_served_at": unit.now})
        return [served.get(record.record_id, record) for record in records]

    def _is_due(self, record: Record, unit: UnitOfWork) -> bool:
        # what goes by no system has no notice here either
        if record.notice_served_at is not None or record.facts.in_person or not is_shown(record):
            return False
        today = china_date(unit.now)
        if record.facts.decided_on < today - self._within:
            return False
        end = publication_end(record, self._catalogue, today, self._transition)
        return end is None or end.on > today
