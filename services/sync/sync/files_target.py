"""A target that takes files: contracts.target_files in a folder or on an SFTP server."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from chassis.file_store import Files, FilesUnavailableError, FileTooLargeError
from chassis.logs import get_logger
from contracts.batch_files import MANIFEST_SUFFIX, Manifest, ManifestEntry
from contracts.http.target import RecordKey, RecordView, RepairPush, RepairResult
from contracts.target_files import DATA_SUFFIX, RECEIPTS, REPAIRS, TAKEN, read_results, write_pushes
from sync.http_target import batch_digest, received
from sync.target import UnavailableError

log = get_logger(__name__)

_MAX_BYTES = 10_000_000
_MOST_FILES = 100


class FilesTarget:
    """The adapter. ``files`` opens the store, once for each call."""

    def __init__(self, target_id: str, files: Callable[[], AbstractAsyncContextManager[Files]]) -> None:
        self._target_id = target_id
        self._files = files

    async def push(self, batch: Sequence[RepairPush]) -> Mapping[str, RepairResult]:
        """One data file, then its manifest. The same pushes are the same files: a repetition replaces them."""
        batch_id = f"{self._target_id}-{batch_digest(batch)[:32]}"
        name, content = f"{batch_id}{DATA_SUFFIX}", write_pushes(batch)
        entry = ManifestEntry.of(name, content, len(batch))
        manifest = Manifest(batch_id=batch_id, created_at=datetime.now(UTC), files=[entry])
        try:
            async with self._files() as files:
                await files.write(f"{REPAIRS}/{name}", content)
                await files.write(
                    f"{REPAIRS}/{batch_id}{MANIFEST_SUFFIX}", manifest.model_dump_json(indent=2).encode()
                )
        except FilesUnavailableError as error:
            raise UnavailableError(f"files: {error}") from None
        return received(batch)

    async def read_back(self, _batch: Sequence[RecordKey]) -> Mapping[RecordKey, RecordView]:
        """Nothing: nobody can look (the catalogue sees to that)."""
        return {}

    async def receipts(self) -> AsyncIterator[tuple[str, list[RepairResult]]]:
        """Files the target has put there, by name, with what they say. One is moved away once the caller comes back for the next.

        Raises UnavailableError. A file that cannot be read is moved away too: the target repeats it, or is told again.
        """
        try:
            async with self._files() as files:
                for name in (await files.names(RECEIPTS))[:_MOST_FILES]:
                    try:
                        results = list(read_results(name, await files.read(f"{RECEIPTS}/{name}", _MAX_BYTES)))
                    except (ValueError, FileTooLargeError) as error:
                        log.warning(
                            "unreadable receipt file", target=self._target_id, file=name, error=str(error)
                        )
                        results = []
                    yield name, results
                    await files.move(f"{RECEIPTS}/{name}", f"{TAKEN}/{name}")
        except FilesUnavailableError as error:
            raise UnavailableError(f"files: {error}") from None
