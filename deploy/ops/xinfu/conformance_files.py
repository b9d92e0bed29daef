"""The conformance kit towards a system that exchanges batch files, over SFTP or in a shared folder. In a TEST folder."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from chassis.file_store import Files, FilesUnavailableError
from contracts.batch_files import Manifest
from contracts.catalogue import Department, FileForm
from contracts.department_files import (
    ACKNOWLEDGEMENT,
    DECISIONS_FOLDER,
    MANIFEST,
    RECEIPTS_FOLDER,
    REVIEW_COLUMNS,
    REVIEWS_FOLDER,
    Acknowledgement,
    manifest_of,
)
from contracts.http.department import ReviewCancellation, ReviewSubmission
from dept_adapter.kinds.files import tables
from dept_adapter.kinds.files.rows import columns_of, read_row, review_row
from xinfu.conformance_cases import DECIDED, Ear, Heard, Result, UnfitError, check, common, review, run, until

_MAX_BYTES = 50_000_000


@dataclass
class FilesSide:
    """Our side. ``wrong``: what was wrong with the system's files, by name."""

    department: Department
    store: Files
    patience_seconds: float
    settle_seconds: float
    number: int
    ear: Ear = field(default_factory=Ear)
    wrong: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell(self, review: ReviewSubmission, round_: int = 0) -> str:  # noqa: ARG002
        """See Side. A batch of one row; files answer nothing."""
        await self.write([review_row(review)])
        return ""

    async def cancel(self, review: ReviewSubmission) -> str | None:
        """See Side."""
        message = ReviewCancellation(
            item_id=review.item_id,
            application_id=review.application_id,
            department_code=review.department_code,
        )
        await self.write([review_row(message)])
        return None

    async def write(self, rows: Sequence[Sequence[str]], *, manifest: bool = True) -> None:
        """A batch, numbered; without its manifest it must not be read."""
        form = self.department.files or FileForm()
        async with self._busy:
            if manifest:
                self.number += 1
            name = f"reviews-{self.number + (not manifest):06}.{form.format}"
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / name
                tables.write(path, form, list(REVIEW_COLUMNS.values()), rows)
                content = path.read_bytes()
            await self.store.write(f"{REVIEWS_FOLDER}/{name}", content)
            if manifest:
                said = manifest_of(name, content, len(rows), datetime.now(UTC), self.number)
                described = f"{REVIEWS_FOLDER}/{name}{MANIFEST}"
                await self.store.write(described, said.model_dump_json().encode())

    async def look(self) -> None:
        """Read the system's files for ever."""
        while True:
            async with self._busy:
                entries = await self.store.entries(DECISIONS_FOLDER)
                for name in sorted(entries):
                    if name.endswith(MANIFEST) or name in self.taken or name + MANIFEST not in entries:
                        continue
                    with suppress(FilesUnavailableError):
                        await self._read(name)
            await asyncio.sleep(0.3)

    async def _read(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"decisions{Path(name).suffix}"
            described = await self.store.read(f"{DECISIONS_FOLDER}/{name}{MANIFEST}", 64_000)
            await self.store.fetch(f"{DECISIONS_FOLDER}/{name}", path, _MAX_BYTES)
            try:
                (entry,) = (manifest := Manifest.model_validate_json(described)).files
                if entry.name != name or entry.fault(path.read_bytes()):
                    raise ValueError(entry.fault(path.read_bytes()) or "清单写的是别的文件")
                with tables.reading(path, _MAX_BYTES * 4) as (header, rows):
                    columns = columns_of(header)
                    read = list(rows)
                if len(read) != entry.rows:
                    raise ValueError(f"清单写有 {entry.rows} 行，文件中有 {len(read)} 行")
                said = [read_row(row, columns, manifest.created_at) for row in read]
            except ValueError as error:
                self.wrong[name] = str(error)[:300]
                return
            for row, word in enumerate(said):
                self.ear.hear(word.item_id, Heard(word, f"{name}:{entry.sha256}:{row}"))
            self.taken.add(name)
            receipt = Acknowledgement(
                name=name,
                sha256=entry.sha256,
                rows=len(said),
                taken=len(said),
                repeated=0,
                refused=0,
                taken_at=datetime.now(UTC),
            )
            told = f"{RECEIPTS_FOLDER}/{name}{ACKNOWLEDGEMENT}"
            await self.store.write(told, receipt.model_dump_json().encode())


async def conform(side: FilesSide) -> Sequence[Result]:
    """All cases of a system that exchanges files."""

    async def waits() -> str:
        half = review(side, "准予")
        await side.write([review_row(half)], manifest=False)
        whole = review(side, "准予")
        await side.tell(whole)
        await until(side, whole.item_id, DECIDED)
        await asyncio.sleep(side.settle_seconds)
        if side.ear.heard.get(half.item_id):
            raise UnfitError("读取了没有清单的文件")
        return check(side, whole.item_id, None)

    waited = await run("half-written", "没有清单的文件", "不读取，也不影响后面的批次", waits)
    shared = await common(side)

    async def whole() -> str:
        if side.wrong:
            name, reason = next(iter(side.wrong.items()))
            raise UnfitError(f"{name}：{reason}")
        if not side.taken:
            raise UnfitError("没有写来一个完整的文件")
        return f"{len(side.taken)} 个文件，清单都相符"

    return [*shared, waited, await run("manifest", "清单", "文件写完才写清单，行数与 SHA-256 相符", whole)]


@asynccontextmanager
async def files_side(
    department: Department, store: Files, *, patience_seconds: float, settle_seconds: float
) -> AsyncIterator[FilesSide]:
    """Our side at a store, going on after the batches and decision files that are there."""
    names = [name for name in await store.entries(REVIEWS_FOLDER) if name.endswith(MANIFEST)]
    number = max((int(name[8:14]) for name in names if name[8:14].isdigit()), default=0)
    side = FilesSide(department, store, patience_seconds, settle_seconds, number)
    side.taken |= set(await store.entries(DECISIONS_FOLDER))
    looking = asyncio.create_task(side.look())
    try:
        yield side
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
