"""Departments and targets that exchange files: an SFTP server, and behind it a department's small batch system that reads ours and
writes its own."""

import asyncio
import csv
import hmac
import io
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

from contracts.batch_files import Manifest
from contracts.decisions import Outcome
from contracts.department_files import (
    ACKNOWLEDGEMENT,
    DECISION_COLUMNS,
    DECISIONS_FOLDER,
    ERRORS,
    FIRST_ROW,
    FOLDERS,
    MANIFEST,
    OUTCOME_WORDS,
    RECEIPTS_FOLDER,
    REVIEW_COLUMNS,
    REVIEWS_FOLDER,
    TELLINGS,
    manifest_of,
)
from contracts.http.department import DecisionCallback
from sandbox.callbacks import Callbacks
from sandbox.cases import Asked, Cases
from sandbox.catalogue import Department
from sandbox.db import Database, Row
from sandbox.faults import Faults, Mode

SCHEMA = """
CREATE TABLE IF NOT EXISTS department_batch (slug TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (slug, name));
CREATE TABLE IF NOT EXISTS department_file (
  slug TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, seqs TEXT NOT NULL, acknowledged TEXT,
  PRIMARY KEY (slug, number)
);
"""
LOOK_SECONDS = 0.3
ROWS = 5000
_WORDS = {outcome: word for word, outcome in OUTCOME_WORDS.items()}

log = logging.getLogger(__name__)


def folder(data_dir: Path, slug: str) -> Path:
    """The folder of a department, or of a target."""
    return data_dir / "sftp" / slug


class _Server(asyncssh.SSHServer):
    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = passwords

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        own = self._passwords.get(username)
        return own is not None and hmac.compare_digest(own, password)


class _Files(asyncssh.SFTPServer):
    """The folder of who signs in and nothing else."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", data_dir: Path, faults: Faults) -> None:
        self._slug = str(channel.get_extra_info("username"))
        self._faults = faults
        super().__init__(channel, chroot=str(folder(data_dir, self._slug)).encode())

    def scandir(self, path: bytes) -> object:  # type: ignore[override]
        self._suffer(Mode.FAIL)
        return super().scandir(path)

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        if not str(getattr(file_obj, "name", "")).endswith(MANIFEST):
            self._suffer(Mode.GONE)
        return super().read(file_obj, offset, size)  # type: ignore[return-value]

    def _suffer(self, mode: Mode) -> None:
        if self._faults.take(self._slug, frozenset({mode})):
            self.connection.abort()
            raise asyncssh.SFTPConnectionLost("gone")


async def serve(
    passwords: Mapping[str, str], data_dir: Path, faults: Faults, host: str, port: int, host_key: str
) -> asyncssh.SSHAcceptor:
    """Start the SFTP server; ``passwords``: of departments by slug and of targets by id."""
    key = asyncssh.import_private_key(host_key) if host_key else asyncssh.generate_private_key("ssh-ed25519")
    for name in passwords:
        folder(data_dir, name).mkdir(parents=True, exist_ok=True)
    return await asyncssh.create_server(
        lambda: _Server(passwords),
        host,
        port,
        server_host_keys=[key],
        sftp_factory=lambda channel: _Files(channel, data_dir, faults),
    )


class BatchSystem:
    """The batch system of one department."""

    def __init__(
        self,
        department: Department,
        data_dir: Path,
        db: Database,
        faults: Faults,
        callbacks: Callbacks,
        book: Cases,
    ) -> None:
        db.create(SCHEMA)
        self._department = department
        self._root = folder(data_dir, department.slug)
        for name in FOLDERS:
            (self._root / name).mkdir(parents=True, exist_ok=True)
        self._db = db
        self._faults = faults
        self._callbacks = callbacks
        self._book = book

    async def run(self) -> None:
        """Look at the folder for ever."""
        while True:
            self._read_reviews()
            await self._write_decisions()
            self._read_receipts()
            await asyncio.sleep(LOOK_SECONDS)

    def _read_reviews(self) -> None:
        slug = self._department.slug
        for path in sorted((self._root / REVIEWS_FOLDER).glob(f"*{MANIFEST}")):
            manifest = Manifest.model_validate_json(path.read_bytes())
            seen = "SELECT 1 FROM department_batch WHERE slug = ? AND name = ?"
            if self._db.one(seen, (slug, manifest.batch_id)):
                continue
            (entry,) = manifest.files
            content = path.with_name(entry.name).read_bytes()
            if fault := entry.fault(content):
                log.error("%s", fault)
                continue
            encoding = "utf-8-sig" if self._department.encoding == "utf-8" else self._department.encoding
            rows = list(csv.DictReader(io.StringIO(content.decode(encoding), newline="")))
            if len(rows) != entry.rows:
                log.error("%s has %d rows, not %d", manifest.batch_id, len(rows), entry.rows)
                continue
            for row in rows:
                self._read_row({name: row[title] for name, title in REVIEW_COLUMNS.items()})
            with self._db.transaction() as connection:
                connection.execute("INSERT INTO department_batch VALUES (?, ?)", (slug, manifest.batch_id))

    def _read_row(self, row: dict[str, str]) -> None:
        if row["telling"] == TELLINGS["cancellation"]:
            self._book.cancel(self._department.slug, row["item_id"])
            return
        supplement = row["supplement"] if row["telling"] == TELLINGS["supplement"] else None
        asked = Asked(
            row["item_id"],
            row["application_id"],
            row["record_id"],
            row["document_number"],
            row["statement"],
            supplement,
            json.dumps(row, ensure_ascii=False),
        )
        self._book.receive(self._department, asked)

    async def _write_decisions(self) -> None:
        slug = self._department.slug
        rows = self._callbacks.due(slug, ROWS)
        if not rows:
            return
        with self._db.transaction() as connection:
            number = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 AS next FROM department_file WHERE slug = ?", (slug,)
            ).fetchone()["next"]
            name = f"decisions-{number:06}.csv"
            seqs = json.dumps([row["seq"] for row in rows])
            connection.execute(
                "INSERT INTO department_file (slug, number, name, seqs) VALUES (?, ?, ?, ?)",
                (slug, number, name, seqs),
            )
        self._callbacks.sent(rows, settled=False, note=name)
        fault = self._faults.take(slug, frozenset({Mode.TRUNCATED, Mode.WRONG_COUNT, Mode.TWICE}))
        content, count = _table(rows), len(rows)
        if fault is not None and fault.mode is not Mode.TWICE:
            cut = content[: len(content) // 2] if fault.mode is Mode.TRUNCATED else content
            self._write(name, cut, _described(name, content, count + (fault.mode is Mode.WRONG_COUNT)))
            await asyncio.sleep(fault.wait_seconds)
        self._write(name, content, _described(name, content, count))
        if fault is not None and fault.mode is Mode.TWICE:
            await asyncio.sleep(fault.wait_seconds)
            self._write(name, content, _described(name, content, count))
            again = f"again-{name}"
            self._write(again, content, _described(again, content, count))

    def _write(self, name: str, content: bytes, manifest: Manifest) -> None:
        for file, data in ((name, content), (name + MANIFEST, manifest.model_dump_json().encode())):
            part = self._root / DECISIONS_FOLDER / f"{file}.part"
            part.write_bytes(data)
            part.replace(part.with_name(file))

    def _read_receipts(self) -> None:
        slug = self._department.slug
        for row in self._db.rows(
            "SELECT * FROM department_file WHERE slug = ? AND acknowledged IS NULL", (slug,)
        ):
            receipt = self._root / RECEIPTS_FOLDER / (row["name"] + ACKNOWLEDGEMENT)
            if not receipt.exists():
                continue
            refused: dict[int, str] = {}
            errors = receipt.with_name(row["name"] + ERRORS)
            if errors.exists():
                with errors.open(encoding="utf-8-sig", newline="") as file:
                    refused = {
                        int(line["行号"]): line["原因"] for line in csv.DictReader(file) if line["行号"]
                    }
            seqs = json.loads(row["seqs"])
            for position, seq in enumerate(seqs, start=FIRST_ROW):
                self._callbacks.sent([{"seq": seq}], settled=True, note=refused.get(position))
            with self._db.transaction() as connection:
                connection.execute(
                    "UPDATE department_file SET acknowledged = ? WHERE slug = ? AND number = ?",
                    (datetime.now(UTC).isoformat(), slug, row["number"]),
                )


def _described(name: str, content: bytes, rows: int) -> Manifest:
    return manifest_of(name, content, rows, datetime.now(UTC))


def _table(rows: list[Row]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(DECISION_COLUMNS.values())
    for row in rows:
        said = DecisionCallback.model_validate_json(row["body"])
        cells = {
            "item_id": said.item_id,
            "outcome": _WORDS[Outcome(said.outcome)],
            "decision_number": said.decision_number or "",
            "reason": said.reason or "",
            "missing": "；".join(said.missing),
            "occurred_at": said.occurred_at.isoformat(),
        }
        writer.writerow([cells[name] for name in DECISION_COLUMNS])
    return file.getvalue().encode("gb18030")
