"""Notices targets that have not shown a decision within their time limit (catalogue): each delivery and day once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from chassis.background import Loop
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from sync.domain import Delivery, is_overdue, notice_day
from sync.metrics import OVERDUE
from sync.policy import Policy
from sync.store import Store

log = get_logger(__name__)
_BATCH = 200
COUNTED_AT_MOST = 1000


class TimeLimits:
    """Looks through the deliveries of each target whose last day has passed."""

    def __init__(
        self, store: Store, outbox: Outbox, policies: Mapping[str, Policy], poll_seconds: float
    ) -> None:
        self._store = store
        self._policies = policies
        self.loop = Loop("time limits", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def overdue(self, target_id: str) -> int:
        """How many records a target shows wrongly beyond its time limit, counted up to 1000."""
        now = datetime.now(UTC)
        found = await self._store.past_due(target_id, china_date(now), COUNTED_AT_MOST)
        return sum(is_overdue(delivery, self._policies[target_id], now) for delivery in found)

    async def step(self) -> bool:
        """One batch for each target; returns whether there may be more."""
        more = False
        for target_id, policy in self._policies.items():
            today = china_date(datetime.now(UTC))
            untold = partial(self._store.untold, target_id, today)
            told = await self._tell(await self._rows.due(_BATCH, untold), policy)
            OVERDUE.labels(target_id).set(await self.overdue(target_id))
            more = more or told == _BATCH
        return more

    async def _tell(self, ids: list[str], policy: Policy) -> int:
        async def work(unit: UnitOfWork, ids: Sequence[str]) -> int:
            deliveries = await self._store.by_id(ids, unit.session)
            records = await self._store.records((d.record_id for d in deliveries), unit.session)
            changed: list[Delivery] = []
            for delivery in deliveries:
                record = records[delivery.record_id]
                after, events = notice_day(delivery, record, policy, unit.now)
                if after is delivery:
                    continue
                changed.append(after)
                for event in events:
                    cause = f"overdue:{delivery.id}:{record.version}:{after.overdue_told}"
                    unit.emit(event, cause=cause, trace=record.trace)
            if changed:
                await self._store.save_told(changed, unit.session)
            return len(changed)

        told = sum(await self._rows.run(ids, work))
        if told:
            log.warning("a target is beyond its time limit", target=policy.target_id, records=told)
        return told
