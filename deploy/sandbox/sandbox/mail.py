"""The mail service: an SMTP sink that keeps what it takes, to be read over HTTP."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from typing import Annotated, Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import APIRouter, Query

from contracts.errors import ProblemCode
from sandbox.db import Database, Row
from sandbox.faults import OUTAGES, Faults, Mode
from sandbox.problems import Problem
from sandbox.requests import MAX_BODY_BYTES

SCHEMA = """
CREATE TABLE IF NOT EXISTS mail (
  id INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, sender TEXT NOT NULL, subject TEXT NOT NULL,
  text TEXT NOT NULL, first_received_at TEXT NOT NULL, last_received_at TEXT NOT NULL,
  deliveries INTEGER NOT NULL DEFAULT 1, acknowledged INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS mail_recipient (
  mail_id INTEGER NOT NULL REFERENCES mail, address TEXT NOT NULL, PRIMARY KEY (mail_id, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mail_recipient_address ON mail_recipient (address, mail_id);
CREATE VIEW IF NOT EXISTS mail_shown AS
  SELECT mail.*, (SELECT json_group_array(address) FROM mail_recipient WHERE mail_id = mail.id) AS recipients FROM mail;
"""

PART = "smtp"
_BUSY = "451 4.3.0 temporarily unavailable, try again"


def _text(message: EmailMessage) -> str:
    body = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return ""
    try:
        return str(body.get_content())
    except (LookupError, KeyError):
        # A charset nobody knows: show what can be shown.
        payload = body.get_payload(decode=True)
        return payload.decode(errors="replace") if isinstance(payload, bytes) else ""


def _parsed(content: bytes) -> tuple[str, str, str]:
    """Message-ID, subject and text; a message without an id is known by its content."""
    message = message_from_bytes(content, policy=default_policy)
    message_id = str(message["message-id"] or "").strip() or f"<{hashlib.sha256(content).hexdigest()}@no-id>"
    return message_id, str(message["subject"] or ""), _text(message)


class _Sink:
    """Handler of aiosmtpd; runs in the controller's thread."""

    def __init__(self, db: Database, faults: Faults) -> None:
        self._db = db
        self._faults = faults

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802
        fault = self._faults.take(PART, OUTAGES | {Mode.APPLY_THEN_FAIL})
        if fault and fault.mode in (Mode.SLOW, Mode.TIMEOUT):
            await asyncio.sleep(fault.wait_seconds)
        if fault and fault.mode in (Mode.FAIL, Mode.TIMEOUT):
            return _BUSY
        content, taken = envelope.content, fault is None or fault.mode is not Mode.APPLY_THEN_FAIL
        self._store(
            envelope.mail_from or "",
            [str(address) for address in envelope.rcpt_tos],
            content if isinstance(content, bytes) else str(content).encode(),
            acknowledged=taken,
        )
        return "250 2.0.0 taken" if taken else _BUSY

    def _store(self, sender: str, recipients: list[str], content: bytes, *, acknowledged: bool) -> None:
        message_id, subject, text = _parsed(content)
        now = datetime.now(UTC).isoformat()
        with self._db.transaction() as connection:
            mail_id = connection.execute(
                "INSERT INTO mail (message_id, sender, subject, text, first_received_at, last_received_at,"
                " acknowledged) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id) DO UPDATE SET"
                " deliveries = deliveries + 1, acknowledged = acknowledged + excluded.acknowledged,"
                " last_received_at = excluded.last_received_at RETURNING id",
                (message_id, sender, subject, text, now, now, acknowledged),
            ).fetchone()["id"]
            connection.executemany(
                "INSERT OR IGNORE INTO mail_recipient VALUES (?, ?)",
                [(mail_id, address) for address in recipients],
            )


def controller(db: Database, faults: Faults, host: str, port: int) -> Controller:
    """The SMTP server, to be started and stopped; it has a thread of its own."""
    db.create(SCHEMA)
    return Controller(_Sink(db, faults), hostname=host, port=port, data_size_limit=MAX_BODY_BYTES)


def _shown(row: Row) -> dict[str, Any]:
    return {**row, "recipients": json.loads(row["recipients"])}


def router(db: Database) -> APIRouter:
    """Endpoints under /mail."""
    api = APIRouter(prefix="/mail", tags=["mail"])

    @api.get("")
    def listing(
        to: str | None = None, after: int = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    ) -> list[dict[str, Any]]:
        rows = db.rows(
            "SELECT * FROM mail_shown WHERE id > ? AND"
            " (? IS NULL OR id IN (SELECT mail_id FROM mail_recipient WHERE address = ?)) ORDER BY id LIMIT ?",
            (after, to, to, limit),
        )
        return [_shown(row) for row in rows]

    @api.get("/{mail_id}")
    def one(mail_id: int) -> dict[str, Any]:
        row = db.one("SELECT * FROM mail_shown WHERE id = ?", (mail_id,))
        if row is None:
            raise Problem(404, ProblemCode.NOT_FOUND, f"no mail {mail_id}: see GET /mail")
        return _shown(row)

    return api
