"""The list a target fetches: pages from a cursor on; the next cursor acknowledges what was on the page before."""

from collections.abc import Sequence

from aiohttp import ClientError

from chassis.cases import CaseDirectory
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.errors import ProblemCode
from contracts.http.target import RepairList, RepairPush, RepairResult, RepairStatus
from sync.desired import Record, idempotency_key, push_of
from sync.receipts import Channel, Receipts
from sync.settlement import Change
from sync.store import ListEntry, Store


class TargetList:
    """The list of one target."""

    def __init__(
        self,
        receipts: Receipts,
        store: Store,
        outbox: Outbox,
        directory: CaseDirectory,
        page_size: int,
        agent: str | None,
    ) -> None:
        self._receipts = receipts
        self._target_id = receipts.policy.target_id
        self._store = store
        self._outbox = outbox
        self._directory = directory
        self._page_size = page_size
        self._agent = agent

    async def page(self, cursor: int) -> RepairList:
        """The page after ``cursor``, once all up to there is acknowledged. Raises Problem for a cursor that was never given."""
        acknowledged, last = await self._store.cursor(self._target_id)
        if cursor > last:
            raise Problem(
                ProblemCode.VALIDATION, f"没有给出过 cursor {cursor}：请从上一页的 cursor 继续，或从 0 开始。"
            )
        while acknowledged < cursor:
            acknowledged = await self._acknowledge(cursor)
        entries = await self._store.listed(self._target_id, cursor, self._page_size)
        pushes = await self._pushes(entries)
        end = entries[-1].seq if entries else cursor
        return RepairList(pushes=pushes, cursor=end, more=len(entries) == self._page_size)

    async def _acknowledge(self, cursor: int) -> int:
        """Take in one part of what the target says it has; how far that goes."""

        async def work(unit: UnitOfWork) -> tuple[int, list[RepairResult], list[Change]]:
            done, _ = await self._store.cursor(self._target_id, unit.session)
            if done >= cursor:
                return done, [], []
            entries = [
                entry
                for entry in await self._store.listed(self._target_id, done, self._page_size, unit.session)
                if entry.seq <= cursor
            ]
            upto = entries[-1].seq if len(entries) == self._page_size else cursor
            results = [
                RepairResult(
                    idempotency_key=idempotency_key(self._target_id, entry.record_id, entry.version),
                    status=RepairStatus.APPLIED,
                )
                for entry in entries
            ]
            changes = await self._receipts.take_in(unit, results)
            await self._store.advance(self._target_id, upto, unit.session)
            return upto, results, changes

        upto, results, changes = await self._outbox.run(work)
        await self._receipts.complete(changes)
        await self._receipts.log(Channel.CURSOR, results)
        return upto

    async def _pushes(self, entries: Sequence[ListEntry]) -> list[RepairPush]:
        """What to tell now: of a record that stands there twice, or was decided anew, the newest entry alone counts."""
        records = await self._store.records({entry.record_id for entry in entries})
        newest: dict[str, Record] = {}
        for entry in entries:
            record = records.get(entry.record_id)
            if record is not None and record.version == entry.version:
                newest.pop(entry.record_id, None)
                newest[entry.record_id] = record
        try:
            subjects = await self._directory.subjects(record.subject_id for record in newest.values())
        except (ClientError, TimeoutError, OSError, ValueError, KeyError):
            raise Problem(
                ProblemCode.UNAVAILABLE,
                "暂时查不到主体信息，请稍后用同一 cursor 再取。",
                headers={"Retry-After": "5"},
            ) from None
        return [
            push_of(record, subjects[record.subject_id], self._target_id, self._agent)
            for record in newest.values()
            if record.subject_id in subjects
        ]
