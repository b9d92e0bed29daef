"""Callbacks of departments: due rows, sent signed, again and again until taken or finally refused.

In order per item, unless told otherwise.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from contracts.http.department import DecisionCallback
from sandbox.catalogue import Department
from sandbox.db import Database, Row

SCHEMA = """
CREATE TABLE IF NOT EXISTS department_callback (
  seq INTEGER PRIMARY KEY, slug TEXT NOT NULL, item_id TEXT NOT NULL, webhook_id TEXT NOT NULL,
  url TEXT NOT NULL, body TEXT NOT NULL, copies INTEGER NOT NULL, ordered INTEGER NOT NULL, duplicate INTEGER NOT NULL,
  due REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, last_status INTEGER, last_error TEXT, settled_at TEXT
);
CREATE TABLE IF NOT EXISTS department_told (
  position INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, seq INTEGER NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS department_callback_due ON department_callback (slug, due) WHERE settled_at IS NULL;
CREATE INDEX IF NOT EXISTS department_callback_item ON department_callback (slug, item_id);
"""

FINAL_STATUSES = frozenset({404, 409, 422})
"""Answers that will not change: unknown item, contradiction, malformed. All else but 2xx is tried again."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
REQUEST_TIMEOUT_SECONDS = 10.0
AT_ONCE = 50

# What is ordered waits for all before it of the same item, but not for what comes a second time.
_OPEN = """
FROM department_callback AS c WHERE slug = ? AND settled_at IS NULL AND NOT (ordered AND EXISTS (
  SELECT 1 FROM department_callback AS earlier WHERE earlier.slug = c.slug AND earlier.item_id = c.item_id
  AND earlier.seq < c.seq AND earlier.settled_at IS NULL AND NOT earlier.duplicate))
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Callback:
    """A callback to plan: due at ``due`` (Unix time, seconds), sent ``copies`` times in a row.

    ``ordered``: after the earlier ones of its item. ``again``: Unix time at which it comes a second time.
    """

    slug: str
    url: str
    body: DecisionCallback
    due: float
    copies: int = 1
    ordered: bool = True
    again: float | None = None


class Callbacks:
    """The ledger of callbacks, and one worker for each department, so that none waits for another."""

    def __init__(self, db: Database, departments: Mapping[str, Department]) -> None:
        db.create(SCHEMA)
        self._db = db
        self._departments = departments
        self._wakes = {slug: asyncio.Event() for slug in departments}

    def plan(self, connection: sqlite3.Connection, callback: Callback) -> None:
        """Write a callback in the caller's transaction; its webhook-id stays the same over all attempts."""
        slug, item_id = callback.slug, callback.body.item_id
        number = connection.execute(
            "SELECT count(*) + 1 AS next FROM department_callback WHERE slug = ? AND item_id = ? AND NOT duplicate",
            (slug, item_id),
        ).fetchone()["next"]
        same = (slug, item_id, f"{slug}.{item_id}.{number}", callback.url, callback.body.model_dump_json())
        rows = [(*same, callback.copies, callback.ordered, False, callback.due)]
        if callback.again is not None:
            rows.append((*same, 1, False, True, callback.again))
        connection.executemany(
            "INSERT INTO department_callback (slug, item_id, webhook_id, url, body, copies, ordered, duplicate, due)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def wake(self, slug: str) -> None:
        """Let the worker look again. Call from the event loop, after the commit."""
        if slug in self._wakes:
            self._wakes[slug].set()

    def of(self, slug: str, item_id: str) -> list[Row]:
        """Callbacks of an item, in order."""
        return self._db.rows(
            "SELECT webhook_id, body, copies, duplicate, attempts, last_status, last_error, settled_at"
            " FROM department_callback WHERE slug = ? AND item_id = ? ORDER BY seq",
            (slug, item_id),
        )

    def unsettled(self, slug: str) -> int:
        """How many callbacks of a department are neither taken nor finally refused."""
        counted = self._db.one(
            "SELECT count(*) AS n FROM department_callback WHERE slug = ? AND settled_at IS NULL", (slug,)
        )
        return int(counted["n"]) if counted else 0

    def told(self, slug: str, after: int, limit: int) -> list[Row]:
        """What a department that is asked tells from a position on. What is due gets its position now, so none is ever skipped.

        Whoever asks from a position has what is before it.
        """
        now = datetime.now(UTC)
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO department_told (slug, seq) SELECT slug, seq FROM department_callback"
                " WHERE slug = ? AND settled_at IS NULL AND due <= ? AND seq NOT IN (SELECT seq FROM department_told)"
                " ORDER BY due, seq",
                (slug, now.timestamp()),
            )
            connection.execute(
                "UPDATE department_callback SET settled_at = ? WHERE settled_at IS NULL AND seq IN"
                " (SELECT seq FROM department_told WHERE slug = ? AND position <= ?)",
                (now.isoformat(), slug, after),
            )
            return connection.execute(
                "SELECT position, webhook_id, body FROM department_told JOIN department_callback USING (seq)"
                " WHERE department_told.slug = ? AND position > ? ORDER BY position LIMIT ?",
                (slug, after, limit),
            ).fetchall()

    def due(self, slug: str, limit: int) -> list[Row]:
        """What is due and not sent in any way, in order; for departments that do not call."""
        now = datetime.now(UTC).timestamp()
        return self._db.rows(
            "SELECT c.*, traceparent FROM department_callback AS c JOIN department_case USING (slug, item_id)"
            " WHERE slug = ? AND settled_at IS NULL AND attempts = 0 AND due <= ? ORDER BY due, seq LIMIT ?",
            (slug, now, limit),
        )

    def sent(self, rows: Sequence[Row], *, settled: bool, note: str | None = None) -> None:
        """These were sent; ``settled``: nothing more is to come."""
        at = datetime.now(UTC).isoformat() if settled else None
        with self._db.transaction() as connection:
            connection.executemany(
                "UPDATE department_callback SET attempts = attempts + 1, last_error = ?, settled_at = ? WHERE seq = ?",
                [(note, at, row["seq"]) for row in rows],
            )

    async def run(self, slug: str) -> None:
        """Send what is due for one department, for ever."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        wake = self._wakes[slug]
        sending: set[int] = set()

        async def send(row: Row) -> None:
            await self._send(session, row)
            sending.remove(row["seq"])
            wake.set()

        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            while True:
                wake.clear()
                now = datetime.now(UTC).timestamp()
                # Those being sent are due still: of AT_ONCE rows at least as many are others as there is room for.
                due = self._db.rows(
                    f"SELECT c.* {_OPEN} AND due <= ? ORDER BY due LIMIT {AT_ONCE}", (slug, now)
                )
                for row in [row for row in due if row["seq"] not in sending][: AT_ONCE - len(sending)]:
                    sending.add(row["seq"])
                    group.create_task(send(row))
                later = self._db.one(f"SELECT due {_OPEN} AND due > ? ORDER BY due LIMIT 1", (slug, now))
                try:
                    await asyncio.wait_for(wake.wait(), later["due"] - now if later else None)
                except TimeoutError:
                    continue

    async def _send(self, session: aiohttp.ClientSession, row: Row) -> None:
        status, error = None, None
        for _ in range(row["copies"]):
            status, error = await self._post(session, row)
        attempts = row["attempts"] + 1
        settled = status is not None and (200 <= status < 300 or status in FINAL_STATUSES)
        now = datetime.now(UTC)
        retry = min(FIRST_RETRY_SECONDS * 2 ** min(attempts - 1, 10), LONGEST_RETRY_SECONDS)
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE department_callback SET attempts = ?, last_status = ?, last_error = ?, due = ?,"
                " settled_at = ? WHERE seq = ?",
                (
                    attempts,
                    status,
                    error,
                    row["due"] if settled else now.timestamp() + retry,
                    now.isoformat() if settled else None,
                    row["seq"],
                ),
            )
        if not settled:
            log.warning("callback %s: %s, again in %.0f s", row["webhook_id"], error or status, retry)

    async def _post(self, session: aiohttp.ClientSession, row: Row) -> tuple[int | None, str | None]:
        now = datetime.now(UTC)
        signature = self._departments[row["slug"]].webhook.sign(row["webhook_id"], now, row["body"])
        headers = {
            "content-type": "application/json",
            "webhook-id": row["webhook_id"],
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        try:
            async with session.post(
                row["url"], data=row["body"].encode(), headers=headers, allow_redirects=False
            ) as answer:
                text = (await answer.content.read(2000)).decode(errors="replace")
                return answer.status, None if answer.ok else text
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # OSError holds TimeoutError; ValueError: a callback_url that is no URL.
            return None, f"{type(error).__name__}: {error}"
