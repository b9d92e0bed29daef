"""The history on a real database: written by several at once, headed by two replicas, checked by the audit."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from chassis.db import Database, Session
from contracts.canonical import Digest
from contracts.history import HistoryEntry, HistoryHead, HistoryTip, Kind
from contracts.signatures import KeySet, SigningKey, key_set, new_secret
from support import settings_for
from sync.history import COLLECTIONS, Fact, History
from xinfu.audit import Audit, audit
from xinfu_local import Broker, Stack

KEY = SigningKey.read(new_secret("sm2"))


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    settings = settings_for(infra, broker_kind)
    made = Database(
        settings.mongodb_uri.get_secret_value(),
        f"test_{secrets.token_hex(6)}",
        pool_size=10,
        timeout_ms=10_000,
    )
    await made.ensure(COLLECTIONS)
    yield made
    made.close()


class Direct:
    """What an audit reads, without HTTP; small pages."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def keys(self) -> KeySet:
        return key_set(KEY)

    async def entries(self, record: str | None, after: str = "") -> AsyncIterator[HistoryEntry]:
        following: str | None = after
        while following is not None:
            page = await self._history.entries(record, following, 7)
            for entry in page.entries:
                yield entry
            following = page.next

    async def tips(self, record: str | None, after: str = "") -> AsyncIterator[HistoryTip]:
        following: str | None = after
        while following is not None:
            page = await self._history.tips(record, following, 3)
            for tip in page.tips:
                yield tip
            following = page.next

    async def heads(self, after: int = 0) -> AsyncIterator[HistoryHead]:
        following: int | None = after
        while following is not None:
            page = await self._history.heads(following, 2)
            for head in page.heads:
                yield head
            following = page.next

    async def lookup(self, ids: Sequence[str]) -> list[HistoryEntry]:
        return await self._history.lookup(ids)


def facts(target: str, round_: int) -> list[Fact]:
    records = [f"rec_{number:032x}" for number in range(20)]
    return [Fact(f"{target}|{r}", r, Kind.READING, {"right": True, "round": round_}) for r in records]


async def check(history: History, record: str | None = None) -> Audit:
    return await audit(Direct(history), key_set(KEY), record)


async def test_several_write_at_once_while_two_replicas_sign_heads_and_an_audit_reads(
    database: Database,
) -> None:
    histories = [History(database), History(database, Digest.SM3)]

    async def write(target: str, history: History) -> None:
        for round_ in range(6):
            now, batch = datetime.now(UTC), facts(target, round_)

            async def work(
                session: Session, batch: list[Fact] = batch, now: datetime = now
            ) -> list[HistoryEntry]:
                return await history.append(batch, now, session)

            assert len(await database.transaction(work)) == 20

    async def sign(history: History) -> None:
        for _ in range(6):
            await history.sign_head(KEY)
            await asyncio.sleep(0.01)

    async def look() -> None:
        for _ in range(3):
            assert (await check(histories[0])).findings == {}

    writers = (write(f"target-{number}", histories[number % 2]) for number in range(4))
    await asyncio.gather(*writers, sign(histories[0]), sign(histories[1]), look())
    while await histories[0].sign_head(KEY):
        pass
    found = await check(histories[0])
    assert found.findings == {}
    assert (found.entries, found.chains, found.without_head) == (4 * 20 * 6, 80, 0)
    assert found.heads >= 1

    # a chain that vanishes whole is missed by the head that covers it; one record's own check sees a rewritten end
    chain = f"target-1|rec_{7:032x}"
    await database.collection("history").delete_many({"chain": chain})
    await database.collection("history_tips").delete_one({"_id": chain})
    assert {id_.partition("#")[0] for id_ in (await check(histories[0])).findings} == {chain}
    other = f"rec_{8:032x}"
    last = f"target-2|{other}#{6:010d}"
    entry = await database.collection("history").find_one({"_id": last})
    assert entry is not None
    text = entry["text"].replace("true", "false")
    forged = {"text": text, "hash": Digest.SHA256.of(text.encode())}
    await database.collection("history").update_one({"_id": last}, {"$set": forged})
    await database.collection("history_tips").update_one(
        {"_id": f"target-2|{other}"}, {"$set": {"hash": forged["hash"]}}
    )
    assert list((await check(histories[0], other)).findings) == [last]
