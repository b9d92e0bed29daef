"""One SQLite file for all that the sandbox remembers."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SCHEMA_VERSION = 4
"""Raise it with every change of a table: a file of another version is refused, not misread."""


class DatabaseError(ValueError):
    """The file cannot be used; the text says what to do."""


class Database:
    """One connection behind a lock: the HTTP loop, the SMTP thread and worker threads share it.

    WAL without waiting for the disk: what was committed survives kill -9 of the process (not a power cut).
    Raises DatabaseError for a file that another version of the sandbox has written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # the file holds the issuer's private keys
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        version = self._connection.execute("PRAGMA user_version").fetchone()["user_version"]
        if version != SCHEMA_VERSION and self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise DatabaseError(f"{path} is of another version of the sandbox: delete it to start afresh")
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def create(self, schema: str) -> None:
        """Run statements that create what does not exist yet."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction; rolled back when the block raises. Not reentrant."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, sql: str, parameters: Sequence[Any] | Row = ()) -> list[Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] | Row = ()) -> Row | None:
        """First row of a query, or None."""
        with self._lock:
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
            return row

    def close(self) -> None:
        """Close the connection; SQLite folds the WAL into the file."""
        with self._lock:
            self._connection.close()
