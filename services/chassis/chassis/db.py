"""MongoDB. motor lives in this module and nowhere else, so that moving to another driver changes one file.

Decision: docs/decisions/0002-motor-behind-one-module.md.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
    AsyncIOMotorGridFSBucket,
)
from pymongo import IndexModel
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
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
FileBucket = AsyncIOMotorGridFSBucket
T = TypeVar("T")

_RETRY_SECONDS = 60.0
_NOT_TOLD = frozenset({13, 59, 72, 8000})
"""Unauthorized, CommandNotFound, InvalidOptions, AtlasError."""
_UNAVAILABLE = (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

_NO_SESSIONS = "Sessions are not supported"
"""What pymongo says while a server of the replica set is starting: its hello does not name a time-out of sessions yet."""

# nothing is wrong with the event in hand (source: MongoDB's error_codes.yml)
_UNAVAILABLE_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        39,  # FileStreamFailed
        43,  # CursorNotFound (its server has restarted)
        50,  # MaxTimeMSExpired
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern
        112,  # WriteConflict (outside of a transaction, or after the last retry)
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        202,  # NetworkInterfaceExceededTimeLimit
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
    }
)


def _labelled(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)


def describe(error: BaseException) -> str:
    """An error for logs and documents, at most 1,000 characters. The database's own texts quote documents: left out."""
    if isinstance(error, PyMongoError):
        return f"{type(error).__name__} (code {getattr(error, 'code', None)})"
    return f"{type(error).__name__}: {error}"[:1000]


async def _abort(session: Session) -> None:
    if session.delegate.in_transaction:
        await session.abort_transaction()


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says the database cannot serve now (retry all) rather than that the work is wrong (find the culprit)."""
    if isinstance(error, _UNAVAILABLE) or (
        isinstance(error, ConfigurationError) and _NO_SESSIONS in str(error)
    ):
        return True
    labels = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")
    if any(_labelled(error, label) for label in labels):
        return True
    if isinstance(error, BulkWriteError):
        failures = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or []
        return bool(failures) and all(failure.get("code") in _UNAVAILABLE_CODES for failure in failures)
    return isinstance(error, OperationFailure) and error.code in _UNAVAILABLE_CODES


@dataclass(frozen=True)
class CollectionSpec:
    """A collection a service owns, with its indexes; created at start-up (a transaction cannot create everywhere)."""

    name: str
    indexes: Sequence[IndexModel] = field(default=())


class Database:
    """One service's database.

    At most ``pool_size`` transactions run at once; further ones wait in order (the drivers' own pools are unfair under
    overload).
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
        self._declared: Sequence[CollectionSpec] = ()

    def collection(self, name: str) -> Collection:
        """A collection with majority writes."""
        return self._db[name]

    def bucket(self, name: str) -> FileBucket:
        """A GridFS bucket with majority writes, for files."""
        return AsyncIOMotorGridFSBucket(self._db, name)

    def committed(self, name: str) -> Collection:
        """A collection of which only that is seen which a majority has: what a new primary could take back is not there yet."""
        return self._db[name].with_options(read_concern=ReadConcern("majority"))

    def relaxed(self, name: str) -> Collection:
        """A collection written with w=1: for marks that may be lost and done again without harm."""
        return self._db[name].with_options(write_concern=WriteConcern(w=1))

    async def transaction(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction (snapshot reads, majority writes) and commit it.

        ``work`` runs again after a write conflict or a step-down, so it must have no effect outside the session.
        """
        # motor's with_transaction commits on leaving its own context manager, where a conflict at commit escapes its
        # retry (seen with motor 3.7.1), and it retries without a pause. Hence the drivers' specification by hand.
        deadline = time.monotonic() + _RETRY_SECONDS
        async with self._slots, await self._client.start_session() as session:
            for attempt in itertools.count():
                session.start_transaction(
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern(w="majority", wtimeout=30_000),
                )
                try:
                    result = await work(session)
                    await self._commit(session, deadline)
                except BaseException as error:
                    with contextlib.suppress(PyMongoError):
                        await _abort(session)
                    if not _labelled(error, "TransientTransactionError") or time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(min(0.002 * 2.0 ** min(attempt, 8), 0.5) * random.random())  # noqa: S311
                else:
                    return result
        raise AssertionError("unreachable")

    async def _commit(self, session: Session, deadline: float) -> None:
        while True:
            try:
                await session.commit_transaction()
            except PyMongoError as error:
                if not _labelled(error, "UnknownTransactionCommitResult") or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    async def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        """Create missing collections and indexes; safe to repeat and to run from several replicas."""
        self._declared = specs
        existing = set(await self._db.list_collection_names())
        for spec in specs:
            if spec.name not in existing:
                try:
                    await self._db.create_collection(spec.name, check_exists=False)
                except OperationFailure as error:
                    if error.code != 48:  # NamespaceExists: another replica was faster
                        raise
            for index in spec.indexes:
                await self._ensure_index(spec.name, index)

    async def _ensure_index(self, collection: str, index: IndexModel) -> None:
        try:
            await self._db[collection].create_indexes([index])
        except OperationFailure as error:
            retention = index.document.get("expireAfterSeconds")
            if error.code != 85 or retention is None:  # IndexOptionsConflict: the setting has changed
                raise
            change = {"name": index.document["name"], "expireAfterSeconds": retention}
            await self._db.command("collMod", collection, index=change)

    async def ping(self) -> None:
        """Raises when no primary answers."""
        await self.hello()

    async def hello(self) -> Document:
        """The primary's answer to ``hello`` (setName, hosts, me, localTime). Raises when there is none."""
        # a command does not take the client's codec options by itself
        found: Document = await self._db.command("hello", codec_options=self._db.codec_options)
        if not found.get("isWritablePrimary"):
            raise ConnectionFailure("no writable primary")
        return found

    async def now(self) -> datetime:
        """The primary's clock: one time for all who share something. Raises when there is no primary."""
        at: datetime = (await self.hello())["localTime"]
        return at

    async def parameter(self, name: str) -> int | None:
        """A server parameter of the primary; None when it may not be read (privilege ``getParameter``) or is not known."""
        try:
            answer = await self._client.admin.command({"getParameter": 1, name: 1})
        except OperationFailure as error:
            if error.code not in _NOT_TOLD:
                raise
            return None
        return int(answer[name])

    async def missing_indexes(self) -> list[str]:
        """Indexes that ``ensure`` was told of and that are not there as declared, as ``collection.index``."""
        missing = []
        for spec in self._declared:
            if not spec.indexes:
                continue
            found = await self._db[spec.name].index_information()
            for index in spec.indexes:
                declared = index.document
                there = found.get(declared["name"])
                same = there is not None and all(
                    there.get(option) == declared.get(option)
                    for option in ("unique", "expireAfterSeconds", "partialFilterExpression")
                )
                if there is None or not same or there["key"] != [*declared["key"].items()]:
                    missing.append(f"{spec.name}.{declared['name']}")
        return missing

    async def probe(self, seconds: float = 2.0) -> None:
        """Raises an error of an unavailable database when a small write by the majority takes longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._db["probe"].update_one(
                    {"_id": "probe"}, {"$currentDate": {"at": True}}, upsert=True
                )
        except TimeoutError:
            raise NetworkTimeout(f"the database takes longer than {seconds:g} s for a small write") from None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
