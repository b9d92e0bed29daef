"""Drafts the letters to targets that are told by letter alone, of decisions and of what else becomes of a record: a page of due deliveries in one transaction.

Such a delivery is due when it has to be written about: at once after a decision, and again when an answer has been waited for long enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Target
from contracts.clock import china_date
from sync.desired import Record
from sync.domain import Delivery, hold, redirect
from sync.facts import letter_fact
from sync.letter_store import LetterStore
from sync.policy import Policy
from sync.store import Store
from sync.vendor_letters import (
    LetterPolicy,
    LetterState,
    LetterStep,
    VendorLetter,
    again_at,
    closed,
    finding_id,
    letter_id,
    next_step,
)

PAGE = 200


class Notices:
    """``policies``: of all targets of the catalogue."""

    def __init__(
        self,
        letters: LetterStore,
        store: Store,
        rows: Rows,
        policies: Mapping[str, Policy],
        policy: LetterPolicy,
    ) -> None:
        self._letters = letters
        self._store = store
        self._rows = rows
        self._policies = policies
        self._policy = policy

    async def draft(self, target: Target) -> tuple[int, list[VendorLetter]]:
        """Deal with one page of what is due; how many deliveries it held, and the letters drafted."""

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> list[VendorLetter]:
            # whoever writes them first in a transaction has them
            due = [
                row
                for row in await self._store.by_id(ids, unit.session)
                if row.next_action_at is not None and row.next_action_at <= unit.now
            ]
            records = await self._store.records((row.record_id for row in due), unit.session)
            rows = [(self._current(row, records, unit), records[row.record_id]) for row in due]
            findings = [finding_id(row, record) for row, record in rows if row.differs_since]
            known = await self._letters.of_findings(findings, unit.session)
            before = await self._letters.open_at(target.id, records, unit.session)
            # a newer decision, or another finding
            over = [letter for letter in before if letter.finding not in known]
            await close(unit, self._letters, self._store, over)
            drafted: list[VendorLetter] = []
            after: list[Delivery] = []
            for row, record in rows:
                own = known.get(finding_id(row, record), {}) if row.differs_since else {}
                step = next_step(row, record, target, own, self._policy, china_date(unit.now))
                if step is not None:
                    drafted.append(_letter(row, record, step, unit))
                waits = again_at(own[max(own)], self._policy) if own and step is None else None
                after.append(replace(row, next_action_at=waits))
            if after:
                await self._store.save(after, unit.session)
            if drafted:
                await self._letters.save_many(drafted, unit.session)
                facts = [letter_fact(letter, "drafted") for letter in drafted]
                await self._store.history.append(facts, unit.now, unit.session)
            return drafted

        now = datetime.now(UTC)
        ids = await self._rows.due(PAGE, lambda limit: self._store.due_ids(target.id, limit, now))
        return len(ids), [letter for done in await self._rows.run(ids, work) for letter in done]

    def _current(self, row: Delivery, records: Mapping[str, Record], unit: UnitOfWork) -> Delivery:
        record = records[row.record_id]
        if row.desired_version == record.version:
            return row
        # the target was out of the catalogue when this was decided
        return hold(redirect(row, record, row.target_id, unit.now), record, self._policies, unit.now)


async def close(unit: UnitOfWork, letters: LetterStore, store: Store, over: Sequence[VendorLetter]) -> None:
    """Close letters whose finding is over, in the caller's transaction."""
    done = [closed(letter, unit.now) for letter in over]
    await letters.save_many(done, unit.session)
    await store.history.append([letter_fact(letter, "closed") for letter in done], unit.now, unit.session)


def _letter(row: Delivery, record: Record, step: LetterStep, unit: UnitOfWork) -> VendorLetter:
    finding = finding_id(row, record)
    assert row.differs_since is not None  # noqa: S101 (next_step writes about what differs)
    return VendorLetter(
        id=letter_id(finding, step),
        finding=finding,
        step=step,
        state=LetterState.DRAFT,
        target_id=row.target_id,
        record_id=record.record_id,
        version=record.version,
        application_id=record.application_id,
        item_id=record.item_id,
        subject_id=record.subject_id,
        since=row.differs_since,
        seen=None,
        official=None,
        drafted_at=unit.now,
    )
