"""A target that fetches: what it has to be told is put at the end of its list (sync.lists hands that out)."""

from collections.abc import Mapping, Sequence

from chassis.db import Database, Session
from contracts.http.target import RecordKey, RecordView, RepairPush, RepairResult
from sync.desired import parse_idempotency_key
from sync.http_target import received
from sync.store import Store
from sync.target import Target


class ListTarget:
    """The adapter. ``window``: how to look at what it shows, for one that can be asked."""

    def __init__(self, target_id: str, database: Database, store: Store, window: Target | None) -> None:
        self._target_id = target_id
        self._database = database
        self._store = store
        self._window = window

    async def push(self, batch: Sequence[RepairPush]) -> Mapping[str, RepairResult]:
        """Which records, in which version: what else a push holds is looked up when the target asks, and kept nowhere here."""
        entries = []
        for push in batch:
            _, record_id, version = parse_idempotency_key(push.idempotency_key)
            entries.append((record_id, version))

        async def work(session: Session) -> None:
            await self._store.append(self._target_id, entries, session)

        await self._database.transaction(work)
        return received(batch)

    async def read_back(self, batch: Sequence[RecordKey]) -> Mapping[RecordKey, RecordView]:
        """What the public sees; nothing, of a target that cannot be asked."""
        return await self._window.read_back(batch) if self._window else {}
