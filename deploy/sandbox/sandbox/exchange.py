"""Targets that are not pushed to: one takes files from a folder, one fetches its list. They take a batch as the others do."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from pydantic import ValidationError
from standardwebhooks.webhooks import WebhookVerificationError

from contracts.batch_files import MANIFEST_SUFFIX, Manifest
from contracts.http.target import RepairList, RepairPush, RepairResult
from contracts.target_files import ACK_SUFFIX, ERROR_SUFFIX, RECEIPTS, REPAIRS, read_pushes, write_results
from sandbox.catalogue import Target
from sandbox.db import Database
from sandbox.faults import OUTAGES, Faults, Mode
from sandbox.targets import PUSH_FAULTS, release_due, take

SCHEMA = "CREATE TABLE IF NOT EXISTS target_cursor (target_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL);"
_SILENT = frozenset({Mode.APPLY_THEN_FAIL, Mode.SILENT})
"""Faults after which nobody hears what became of a batch."""

log = logging.getLogger(__name__)


class Exchange:
    """The workers."""

    def __init__(self, db: Database, faults: Faults, pause_seconds: float) -> None:
        db.create(SCHEMA)
        self._db = db
        self._faults = faults
        self._pause = pause_seconds

    def _taken(self, target: Target, pushes: Sequence[RepairPush]) -> list[RepairResult] | None:
        """The answers to a batch, or None when nothing is to be heard of it."""
        fault = self._faults.take(target.id, PUSH_FAULTS)
        release_due(self._db, target)
        results = take(self._db, target, list(pushes), fault)
        return None if fault and fault.mode in _SILENT else results

    # --- files

    async def take_files(self, target: Target, folder: Path) -> None:
        """Take batches from a folder, for ever; an outage is a night without."""
        while True:
            if self._faults.take(target.id, OUTAGES) is None:
                for manifest in sorted((folder / REPAIRS).glob(f"*{MANIFEST_SUFFIX}")):
                    self._take_batch(target, folder, manifest)
            await asyncio.sleep(self._pause)

    def _take_batch(self, target: Target, folder: Path, path: Path) -> None:
        manifest = Manifest.model_validate_json(path.read_bytes())
        results: list[RepairResult] = []
        for entry in manifest.files:
            data = path.with_name(entry.name)
            try:
                content = data.read_bytes()
            except FileNotFoundError:
                # taken already: a batch that is written again while it is taken may leave its manifest alone
                log.warning("batch %s: %s is not there", manifest.batch_id, entry.name)
                return
            if fault := entry.fault(content):
                log.error("batch %s: %s", manifest.batch_id, fault)
                return
            results += self._taken(target, list(read_pushes(content))) or []
            data.unlink()
        path.unlink()
        acks, errors = write_results(results)
        receipts = folder / RECEIPTS
        receipts.mkdir(parents=True, exist_ok=True)
        for suffix, content in ((ACK_SUFFIX, acks), (ERROR_SUFFIX, errors)):
            if content:
                whole = receipts / f"{manifest.batch_id}{suffix}"
                part = whole.with_name(whole.name + ".part")
                part.write_bytes(content)
                part.replace(whole)

    # --- lists

    async def fetch_lists(self, target: Target, base_url: str) -> None:
        """Fetch page after page, for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                more = False
                if self._faults.take(target.id, OUTAGES) is None:
                    try:
                        more = await self._fetch(session, target, base_url)
                    except (aiohttp.ClientError, OSError, ValidationError, WebhookVerificationError) as error:
                        log.warning("list of %s: %s", target.id, error)
                if not more:
                    await asyncio.sleep(self._pause)

    async def _fetch(self, session: aiohttp.ClientSession, target: Target, base_url: str) -> bool:
        """One page; whether to ask again at once, be it only to acknowledge it."""
        found = self._db.one("SELECT cursor FROM target_cursor WHERE target_id = ?", (target.id,))
        cursor = found["cursor"] if found else 0
        path = f"/v1/targets/{target.id}/list?cursor={cursor}"
        now = datetime.now(UTC)
        message_id = f"ask_{target.id}_{cursor}_{now.timestamp()}"
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": target.webhook.sign(message_id, now, path),
        }
        async with session.get(base_url.rstrip("/") + path, headers=headers) as answer:
            answer.raise_for_status()
            body = await answer.read()
        target.webhook.verify(body, dict(answer.headers), json_parse=False)
        page = RepairList.model_validate_json(body)
        if page.pushes and self._taken(target, page.pushes) is None:
            return False
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO target_cursor VALUES (?, ?) ON CONFLICT DO UPDATE SET cursor = excluded.cursor",
                (target.id, page.cursor),
            )
        return page.cursor > cursor
