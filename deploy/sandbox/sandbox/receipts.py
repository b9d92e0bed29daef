"""Receipts of targets that answer 202: kept until our counterpart has taken them, sent signed, again and again."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import aiohttp

from contracts.http.target import RepairReceipt, RepairResult
from sandbox.catalogue import Target
from sandbox.db import Database, Row

SCHEMA = """
CREATE TABLE IF NOT EXISTS target_receipt (
  seq INTEGER PRIMARY KEY, target_id TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL, due REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, last_status INTEGER, settled_at TEXT
);
CREATE INDEX IF NOT EXISTS target_receipt_due ON target_receipt (due) WHERE settled_at IS NULL;
"""

_FINAL = frozenset({400, 403, 404, 409, 422})
_LONGEST_RETRY_SECONDS = 10.0
_AT_ONCE = 20

log = logging.getLogger(__name__)


class ReceiptDesk:
    """The receipts still to be sent, and the worker that sends them."""

    def __init__(self, db: Database, targets: Mapping[str, Target]) -> None:
        db.create(SCHEMA)
        self._db = db
        self._targets = targets
        self._wake = asyncio.Event()

    def plan(
        self, target_id: str, url: str, results: Sequence[RepairResult], *, foreign: bool = False
    ) -> None:
        """Keep a receipt of these results. ``foreign``: and one that speaks of pushes to somebody else."""
        bodies = [RepairReceipt(results=list(results))] if results else []
        if foreign:
            others = [
                r.model_copy(
                    update={"idempotency_key": r.idempotency_key.replace(target_id, "somebody-else", 1)}
                )
                for r in results
            ]
            bodies.insert(0, RepairReceipt(results=others))
        now = datetime.now(UTC).timestamp()
        with self._db.transaction() as connection:
            connection.executemany(
                "INSERT INTO target_receipt (target_id, url, body, due) VALUES (?, ?, ?, ?)",
                [(target_id, url, body.model_dump_json(), now) for body in bodies],
            )
        self._wake.set()

    async def run(self) -> None:
        """Send what is due, for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                self._wake.clear()
                due = self._db.rows(
                    "SELECT * FROM target_receipt WHERE settled_at IS NULL AND due <= ? ORDER BY due LIMIT ?",
                    (datetime.now(UTC).timestamp(), _AT_ONCE),
                )
                await asyncio.gather(*(self._send(session, row) for row in due))
                if not due:
                    try:
                        await asyncio.wait_for(self._wake.wait(), 0.5)
                    except TimeoutError:
                        continue

    async def _send(self, session: aiohttp.ClientSession, row: Row) -> None:
        now, message_id = datetime.now(UTC), f"rcp_{row['target_id']}_{row['seq']}"
        webhook = self._targets[row["target_id"]].webhook
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": webhook.sign(message_id, now, row["body"]),
        }
        status = None
        try:
            async with session.post(
                row["url"], data=row["body"].encode(), headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.warning("receipt %s: %s", message_id, error)
        settled = status is not None and (200 <= status < 300 or status in _FINAL)
        attempts = row["attempts"] + 1
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE target_receipt SET attempts = ?, last_status = ?, due = ?, settled_at = ? WHERE seq = ?",
                (
                    attempts,
                    status,
                    now.timestamp() + min(0.5 * 2**attempts, _LONGEST_RETRY_SECONDS),
                    now.isoformat() if settled else None,
                    row["seq"],
                ),
            )
