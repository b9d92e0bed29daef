"""Files of a department: looked at, checked whole, then taken row by row like callbacks, and acknowledged.

A file is read only when its manifest is there, and takes effect only when size, hash and number of rows are those of the manifest. What is
wrong is told in an error file, and looked at again until it is right.
"""

import asyncio
import csv
import hashlib
import io
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from chassis.file_store import Entry, Files, FileTooLargeError
from chassis.logs import get_logger
from chassis.telemetry import tracer
from chassis.unit_of_work import UnitOfWork
from contracts.batch_files import Manifest, ManifestEntry
from contracts.catalogue import Department
from contracts.department_files import (
    ACKNOWLEDGEMENT,
    DECISIONS_FOLDER,
    ERROR_COLUMNS,
    ERRORS,
    FIRST_ROW,
    MANIFEST,
    RECEIPTS_FOLDER,
    Acknowledgement,
)
from dept_adapter.kinds.channels import RefusedDecision
from dept_adapter.kinds.files import tables
from dept_adapter.kinds.files.ledger import FileLedger, FileState, InboundFile
from dept_adapter.kinds.files.rows import columns_of, read_row
from dept_adapter.kinds.port import Parts
from dept_adapter.words import Refused, Word

log = get_logger(__name__)
_MAX_MANIFEST_BYTES = 64_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(csv|xlsx)")
_MANIFEST_FORM = (
    ' {"batch_id": …, "created_at": …, "files": [{"name": …, "size": …, "sha256": …, "rows": …}]}'
)
_LOOK_AGAIN = timedelta(seconds=60)


class WrongFileError(ValueError):
    """A file that is not taken as it is. The text (zh-CN) goes into its error file."""


class TakenElsewhereError(Exception):
    """Another process takes this file."""


class Inbound:
    """Takes the files of one department."""

    def __init__(self, department: Department, parts: Parts, ledger: FileLedger) -> None:
        self._department = department
        self._parts = parts
        self._ledger = ledger
        settings = parts.settings
        self._max_bytes = settings.files_max_mb * 1_000_000
        self._max_unpacked = settings.files_max_unpacked_mb * 1_000_000
        self._max_rows = settings.files_max_rows
        self._chunk = settings.files_chunk_rows
        self._patience = timedelta(seconds=settings.files_manifest_patience_seconds)
        self._lease = timedelta(seconds=settings.files_lease_seconds)

    async def step(self, files: Files) -> bool:
        """Look at every file once; returns whether one was taken. Raises FilesUnavailableError."""
        entries = await files.entries(DECISIONS_FOLDER)
        names = sorted(name for name in entries if not name.endswith(MANIFEST))
        known = await self._ledger.files(self._department.slug, names)
        taken = False
        for name in names:
            if await self._look(files, name, entries[name], entries.get(name + MANIFEST), known.get(name)):
                taken = True
        return taken

    async def _look(
        self, files: Files, name: str, entry: Entry, manifest: Entry | None, known: InboundFile | None
    ) -> bool:
        now = datetime.now(UTC)
        look = f"{entry.look}|{manifest.look if manifest else '-'}"
        if known is not None and known.look == look:
            settled = known.state is FileState.TAKEN and known.acknowledged
            waits = known.looked_at is not None and now - known.looked_at < _LOOK_AGAIN
            if settled or (known.state is FileState.WRONG and waits):
                return False
        slug = self._department.slug
        if manifest is None:
            await self._lonely(
                files, known or InboundFile(slug, name, look, FileState.LONELY, seen_at=now), now
            )
            return False
        try:
            if not _NAME.fullmatch(name):
                raise WrongFileError(
                    "文件名应由字母、数字、_、. 和 - 组成，以 .csv 或 .xlsx 结尾，不超过 100 个字。"
                )
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / f"decisions{Path(name).suffix}"
                said, created_at = await self._fetch(files, name, entry, path)
                await self._take(files, name, look, known, said, created_at, path)
        except (WrongFileError, tables.UnreadableFileError) as error:
            await self._wrong(
                files, InboundFile(slug, name, look, FileState.WRONG, looked_at=now), known, str(error)
            )
            return False
        except TakenElsewhereError:
            log.info("another process takes this file", department=slug, file=name)
            return False
        return True

    async def _lonely(self, files: Files, file: InboundFile, now: datetime) -> None:
        """Without a manifest nothing is read; after a while the department is told."""
        if file.seen_at is None or file.state is not FileState.LONELY:
            file = replace(file, state=FileState.LONELY, seen_at=now, reason=None)
        if file.reason is None and file.seen_at is not None and now - file.seen_at >= self._patience:
            file.reason = f"没有清单 {file.name}{MANIFEST}，文件未读取；请在文件写完之后写清单。"
            await self._write_errors(files, file.name, [("", "", file.reason)])
        await self._ledger.save(file)

    async def _wrong(self, files: Files, file: InboundFile, known: InboundFile | None, reason: str) -> None:
        if known is None or known.reason != reason or known.state is not FileState.WRONG:
            log.warning("file is wrong", department=file.slug, file=file.name, reason=reason)
            await self._write_errors(files, file.name, [("", "", reason)])
        await self._ledger.save(replace(file, reason=reason))

    async def _fetch(
        self, files: Files, name: str, entry: Entry, path: Path
    ) -> tuple[ManifestEntry, datetime]:
        """The file, as whole as its manifest says, and when that was made. Raises WrongFileError."""
        try:
            manifest = Manifest.model_validate_json(
                await files.read(f"{DECISIONS_FOLDER}/{name}{MANIFEST}", _MAX_MANIFEST_BYTES)
            )
        except (ValidationError, FileTooLargeError):
            raise WrongFileError(f"清单无法读取，应为{_MANIFEST_FORM}。") from None
        if [each.name for each in manifest.files] != [name]:
            raise WrongFileError(f"清单的 files 应当只写“{name}”这一个文件。")
        said = manifest.files[0]
        if said.rows > self._max_rows:
            raise WrongFileError(
                f"一个文件最多 {self._max_rows} 行，清单写有 {said.rows} 行，请分成几个文件。"
            )
        too_large = f"文件超过 {self._max_bytes // 1_000_000} MB，请分成几个文件。"
        if entry.size > self._max_bytes:
            raise WrongFileError(too_large)
        try:
            await files.fetch(f"{DECISIONS_FOLDER}/{name}", path, self._max_bytes)
        except FileTooLargeError:
            raise WrongFileError(too_large) from None
        size, sha256 = await asyncio.to_thread(_measured, path)
        if (size, sha256) != (said.size, said.sha256):
            raise WrongFileError(
                f"文件有 {size} 字节，清单为 {said.size} 字节，或者 SHA-256 与清单不符："
                "文件没有写完，或者写坏了。补全后自动重读。"
            )
        rows = await asyncio.to_thread(self._count, path)
        if rows != said.rows:
            raise WrongFileError(f"清单写有 {said.rows} 行，文件中有 {rows} 行（不含表头），请核对后重写。")
        return said, manifest.created_at

    def _count(self, path: Path) -> int:
        with tables.reading(path, self._max_unpacked) as (header, rows):
            try:
                columns_of(header)
            except ValueError as error:
                raise WrongFileError(str(error)) from None
            return sum(1 for _ in islice(rows, self._max_rows + 1))

    async def _take(
        self,
        files: Files,
        name: str,
        look: str,
        known: InboundFile | None,
        said: ManifestEntry,
        created_at: datetime,
        path: Path,
    ) -> None:
        slug, sha256 = self._department.slug, said.sha256
        file = InboundFile(slug, name, look, FileState.TAKING, sha256, said.rows)
        if (
            known is not None
            and known.sha256 == sha256
            and known.state in (FileState.TAKING, FileState.TAKEN)
        ):
            file = replace(known, look=look, acknowledged=False)
        await self._ledger.save(file)
        with (
            tracer.start_as_current_span(
                f"take file {slug}",
                kind=SpanKind.CONSUMER,
                attributes={"xinfu.file": name, "messaging.batch.message_count": said.rows},
            ),
            tables.reading(path, self._max_unpacked) as (header, rows),
        ):
            columns = columns_of(header)
            left = islice(rows, file.done, None)
            while chunk := await asyncio.to_thread(lambda: list(islice(left, self._chunk))):
                file = await self._take_rows(file, chunk, columns, created_at)
                await self._parts.channels.hold(slug, self._lease)
        if file.state is FileState.TAKING:
            file = replace(file, state=FileState.TAKEN, taken_at=datetime.now(UTC).replace(microsecond=0))
            await self._ledger.save(file)
        await self._acknowledge(files, file)
        await self._ledger.save(replace(file, acknowledged=True))
        log.info(
            "file taken",
            department=slug,
            file=name,
            rows=file.rows,
            taken=file.taken,
            repeated=file.repeated,
            refused=file.refused,
        )

    async def _take_rows(
        self, file: InboundFile, chunk: list[list[str]], columns: dict[str, int], written_at: datetime
    ) -> InboundFile:
        first = file.done + FIRST_ROW
        words: list[Word] = []
        numbers: list[int] = []
        wrong: list[RefusedDecision] = []

        def refusal(row: int, item_id: str | None, reason: str) -> RefusedDecision:
            return RefusedDecision(_message_id(file, row), item_id, reason, file.version, row)

        for row, cells in enumerate(chunk, start=first):
            try:
                said = read_row(cells, columns, written_at)
            except ValueError as error:
                position = columns["item_id"]
                item_id = cells[position][:40] if position < len(cells) else None
                wrong.append(refusal(row, item_id, str(error)))
                continue
            message_id = _message_id(file, row)
            words.append(Word(said, f"callback:{message_id}", message_id))
            numbers.append(row)

        async def work(unit: UnitOfWork) -> InboundFile:
            results = await self._parts.listener.take(unit, self._department.code, words)
            said = [
                refusal(row, result.item_id, result.reason)
                for row, result in zip(numbers, results, strict=True)
                if isinstance(result, Refused)
            ]
            await self._parts.channels.refuse(file.slug, [*wrong, *said], unit.now, unit.session)
            repeated = sum(1 for result in results if not isinstance(result, Refused) and result.duplicate)
            refused = len(wrong) + len(said)
            moved = replace(
                file,
                done=file.done + len(chunk),
                refused=file.refused + refused,
                repeated=file.repeated + repeated,
                taken=file.taken + len(chunk) - refused - repeated,
            )
            if not await self._ledger.move(moved, file.done, unit.session):
                raise TakenElsewhereError
            return moved

        moved: InboundFile = await self._parts.runtime.outbox.run(work)
        return moved

    # --- receipts

    async def _acknowledge(self, files: Files, file: InboundFile) -> None:
        """The error file first: who sees the acknowledgement finds what it names."""
        if file.refused:
            refused = self._parts.channels.refused_of(file.version)
            rows = [(str(each["row"]), each["item_id"] or "", each["reason"]) async for each in refused]
            await self._write_errors(files, file.name, rows)
        else:
            await files.remove(f"{RECEIPTS_FOLDER}/{file.name}{ERRORS}")
        receipt = Acknowledgement(
            name=file.name,
            sha256=file.sha256,
            rows=file.rows,
            taken=file.taken,
            repeated=file.repeated,
            refused=file.refused,
            errors=file.name + ERRORS if file.refused else None,
            taken_at=file.taken_at or datetime.now(UTC),
        )
        content = receipt.model_dump_json(indent=2).encode() + b"\n"
        await files.write(f"{RECEIPTS_FOLDER}/{file.name}{ACKNOWLEDGEMENT}", content)

    async def _write_errors(self, files: Files, name: str, rows: list[tuple[str, str, str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([ERROR_COLUMNS, *([tables.safe(cell) for cell in row] for row in rows)])
        # a spreadsheet knows UTF-8 by its BOM only
        await files.write(f"{RECEIPTS_FOLDER}/{name}{ERRORS}", text.getvalue().encode("utf-8-sig"))


def _message_id(file: InboundFile, row: int) -> str:
    return f"file:{file.name}:{file.sha256[:32]}:{row}"


def _measured(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return file.tell(), digest.hexdigest()
