"""Importing a CSV of records: the upload is spooled to disk, checked as a whole, then taken in batches, each one transaction.

An interrupted import is simply sent again: rows that are already there are 'unchanged'.
"""

import asyncio
import codecs
import io
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from chassis.db import is_unavailable
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.errors import ProblemCode
from contracts.events import RecordPublished
from intake.csv_import import Accepted, BadHeaderError, RawRow, Rejected, RowChecker, RowReader, read_header
from intake.domain.record import Record, publication_changed
from intake.notices import Notices
from intake.store import Store

log = get_logger(__name__)
BATCH_ROWS = 500
_CHUNK_BYTES = 1 << 20
_ENCODINGS = ("utf-8-sig", "gb18030")


# --- the file ------------------------------------------------------------------------------------------


async def spool(request: Request, max_bytes: int) -> IO[bytes]:
    """The request body in a temporary file that vanishes when closed. Raises Problem TOO_LARGE or VALIDATION."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Problem(ProblemCode.VALIDATION, "请把 CSV 文件本身作为请求正文（text/csv），不要用表单上传。")
    too_large = Problem(ProblemCode.TOO_LARGE, f"文件不得超过 {max_bytes} 字节，请拆分后分次导入。")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    file: IO[bytes] = await asyncio.to_thread(tempfile.TemporaryFile)
    try:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise too_large
            await asyncio.to_thread(file.write, chunk)
    except ClientDisconnect:
        file.close()
        raise Problem(ProblemCode.VALIDATION, "上传中断，请重新上传整个文件。") from None
    except BaseException:
        file.close()
        raise
    return file


def detect_encoding(file: IO[bytes]) -> str | None:
    """utf-8-sig or gb18030, by decoding the whole file strictly; None when neither fits."""
    for encoding in _ENCODINGS:
        decoder = codecs.getincrementaldecoder(encoding)()
        file.seek(0)
        try:
            while chunk := file.read(_CHUNK_BYTES):
                if b"\0" in chunk:
                    return None  # UTF-16 or no text at all
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    return None


@dataclass(frozen=True)
class CsvFile:
    """An upload that can be imported: its columns in order, the number of its data rows, and the rows themselves."""

    columns: list[str]
    total: int
    encoding: str
    rows: Iterator[RawRow]
    text: io.TextIOWrapper


def open_csv(file: IO[bytes]) -> CsvFile:
    """Check encoding and header, and count the rows. Blocks. Raises Problem UNKNOWN_ENCODING or MISSING_COLUMNS."""
    encoding = detect_encoding(file)
    if encoding is None:
        raise Problem(
            ProblemCode.UNKNOWN_ENCODING,
            "文件既不是 UTF-8 也不是 GB18030 编码的文本，请另存为“CSV UTF-8”后重新上传。",
        )
    text = io.TextIOWrapper(file, encoding, newline="")
    try:
        columns, rows = _start(text)
        total = sum(1 for _ in rows)
        _, rows = _start(text)
    except BadHeaderError as error:
        said = [f"缺少：{'、'.join(error.missing)}"] if error.missing else []
        said += [f"重复：{'、'.join(error.repeated)}"] if error.repeated else []
        raise Problem(
            ProblemCode.MISSING_COLUMNS,
            f"第一行应为列名。{'；'.join(said)}。请补齐后重新上传。",
            missing=error.missing,
            repeated=error.repeated,
        ) from None
    return CsvFile(columns, total, encoding, rows, text)


def _start(text: io.TextIOWrapper) -> tuple[list[str], RowReader]:
    text.seek(0)
    rows = RowReader(text)
    return read_header(rows), rows


# --- the import ----------------------------------------------------------------------------------------


class Importer:
    """Takes the rows of files into the database."""

    def __init__(
        self, store: Store, outbox: Outbox, room: Callable[[], Awaitable[None]], notices: Notices
    ) -> None:
        """``room`` is awaited before each batch: it returns when there is room for more, or raises Problem."""
        self._store = store
        self._outbox = outbox
        self._room = room
        self._notices = notices

    async def run(self, file: CsvFile, checker: RowChecker) -> AsyncIterator[bytes]:
        """Lines of NDJSON: progress after each batch, the report at the end, or an ``error`` (a problem) instead of it.

        Closes the file. Rejected rows wait for the report in a temporary file, however many there are.
        """
        counts = {"accepted": 0, "unchanged": 0, "rejected_rows": 0}
        done = 0
        with file.text, await asyncio.to_thread(_reject_file) as rejects:
            try:
                while checked := await asyncio.to_thread(_next_batch, file.rows, checker):
                    good = [row for row in checked if isinstance(row, Accepted)]
                    bad = [row for row in checked if isinstance(row, Rejected)]
                    await self._room()
                    changed = await self._take(good) if good else 0
                    counts["accepted"] += changed
                    counts["unchanged"] += len(good) - changed
                    await asyncio.to_thread(_note_rejects, rejects, bad, first=counts["rejected_rows"] == 0)
                    counts["rejected_rows"] += len(bad)
                    done += len(checked)
                    yield _line({"progress": done, "total": file.total})
            except Exception as error:
                yield _line({"error": _problem(error).body()})
                return
            report = {"rows": file.total, "encoding": file.encoding, **counts}
            yield f'{{"report": {json.dumps(report)[:-1]}, "rejected": ['.encode()
            rejects.seek(0)
            while text := await asyncio.to_thread(rejects.read, _CHUNK_BYTES):
                yield text.encode()
            yield b"]}}\n"

    async def _take(self, rows: Sequence[Accepted]) -> int:
        async def work(unit: UnitOfWork) -> int:
            known = await self._store.records([row.facts.record_id for row in rows], unit.session)
            changed: list[Record] = []
            for row in rows:
                before = known.get(row.facts.record_id)
                if before is not None and before.content_hash == row.content_hash:
                    continue
                record, told = publication_changed(before, imported(before, row, unit.now), unit.now)
                changed.append(record)
                if told is not None:
                    unit.emit(told, cause=f"import:{record.record_id}:{record.revision}")
                unit.emit(
                    RecordPublished(
                        record_id=record.record_id, record=record.facts, published_at=record.published_at
                    ),
                    # with the revision: a row that changes and changes back is a new publication
                    cause=f"import:{record.record_id}:{record.content_hash}:{record.revision}",
                )
            await self._store.save_subjects([row.subject for row in rows], unit.session)
            await self._store.save_records(await self._notices.serve(unit, changed), unit.session)
            return len(changed)

        return await self._outbox.run(work)


def imported(before: Record | None, row: Accepted, now: datetime) -> Record:
    """The record after a row was imported. Its publication is later than everything known of it, whatever the clocks say."""
    new = {
        "subject_id": row.subject.subject_id,
        "facts": row.facts,
        "display": row.display,
        "content_hash": row.content_hash,
        "status": "published",
    }
    if before is None:
        return Record.model_validate(
            {"record_id": row.facts.record_id, "published_at": now, "revision": 1, **new}
        )
    published_at = max(now, before.changed_at + timedelta(milliseconds=1))
    return before.model_copy(update={"published_at": published_at, "revision": before.revision + 1, **new})


def _next_batch(rows: Iterator[RawRow], checker: RowChecker) -> list[Accepted | Rejected]:
    return [checker.check(raw) for raw in itertools.islice(rows, BATCH_ROWS)]


def _reject_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _note_rejects(file: IO[str], rows: Sequence[Rejected], *, first: bool) -> None:
    for index, row in enumerate(rows):
        body = {"line": row.line, "reasons": row.reasons, "document_number": row.document_number}
        file.write(("" if first and index == 0 else ", ") + json.dumps(body, ensure_ascii=False))


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    again = "已导入的行不受影响，请稍后重新上传同一文件，已有的行会自动跳过。"
    if is_unavailable(error):
        log.warning("database unavailable during an import", error=str(error))
        return Problem(ProblemCode.UNAVAILABLE, f"数据库暂时不可用。{again}")
    log.error("import failed", exc_info=error)
    return Problem(ProblemCode.INTERNAL, f"导入中断。{again}")
