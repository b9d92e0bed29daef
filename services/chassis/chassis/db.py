"""MongoDB. motor lives in this module and nowhere else, so that moving to another driver changes one file.

Decision: docs/decisions/0002-motor-behind-one-module.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo import IndexModel
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Session = AsyncIOMotorClientSession
Collection = AsyncIOMotorCollection[Document]
T = TypeVar("T")

_UNAVAILABLE = (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says the database cannot serve now (retry all) rather than that the work is wrong (find the culprit)."""
    if isinstance(error, _UNAVAILABLE):
        return True
    if isinstance(error, PyMongoError) and (
        error.has_error_label("TransientTransactionError")
        or error.has_error_label("UnknownTransactionCommitResult")
        or error.has_error_label("RetryableWriteError")
    ):
        return True
    # 14031 OutOfDiskSpace: nothing is wrong with the event in hand
    return isinstance(error, OperationFailure) and error.code in {14031, 39}


@dataclass(frozen=True)
class CollectionSpec:
    """A collection a service owns, with its indexes; created at start-up (a transaction cannot create everywhere)."""

    name: str
    indexes: Sequence[IndexModel] = field(default=())


class Database:
    """One service's database.

    At most ``pool_size`` operations or transactions run at once; further ones wait in order (the drivers' own pools are
    unfair under overload).
    """

    def __init__(self, uri: str, name: str, *, pool_size: int, timeout_ms: int) -> None:
        self._client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
            uri,
            maxPoolSize=pool_size + 5,
            minPoolSize=2,
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            socketTimeoutMS=max(timeout_ms, 30_000),
            retryWrites=True,
            tz_aware=True,
            tzinfo=UTC,
            w="majority",
        )
        self._db: AsyncIOMotorDatabase[Document] = self._client.get_database(
            name, codec_options=CodecOptions(tz_aware=True, tzinfo=UTC)
        )
        self._slots = asyncio.Semaphore(pool_size)

    def collection(self, name: str) -> Collection:
        """A collection with majority writes."""
        return self._db[name]

    def relaxed(self, name: str) -> Collection:
        """A collection written with w=1: for marks that may be lost and done again without harm."""
        return self._db[name].with_options(write_concern=WriteConcern(w=1))

    async def transaction(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction (snapshot reads, majority writes) and commit it.

        ``work`` runs again after a write conflict or a step-down, so it must have no effect outside the session.
        """
        async with self._slots, await self._client.start_session() as session:
            result: T = await session.with_transaction(
                work,  # type: ignore[arg-type]
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern(w="majority", wtimeout=30_000),
            )
            return result

    async def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        """Create missing collections and indexes; safe to repeat and to run from several replicas."""
        existing = set(await self._db.list_collection_names())
        for spec in specs:
            if spec.name not in existing:
                try:
                    await self._db.create_collection(spec.name)
                except OperationFailure as error:
                    if error.code != 48:  # NamespaceExists: another replica was faster
                        raise
            if spec.indexes:
                await self._db[spec.name].create_indexes(list(spec.indexes))

    async def ping(self) -> None:
        """Raises when no primary answers."""
        await self._client.admin.command("ping")
        hello = await self._client.admin.command("hello")
        if not hello.get("isWritablePrimary"):
            raise ConnectionFailure("no writable primary")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
