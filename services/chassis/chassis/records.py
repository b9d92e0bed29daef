"""Reading records whose header names are not UTF-8.

Kafka checks nothing of headers, and aiokafka (0.14) decodes their names while it unpacks a fetch: one bad name raises out of the
consumer, and the records unpacked before it are skipped. Here such a batch is unpacked once more with bad names replaced, so
that a hostile record neither stops a consumer nor costs others.
"""

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_BATCH_START = struct.Struct(">qi")  # base offset, length of what follows


class _LenientBuffer(bytearray):
    """Slices of it decode without an error."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientBuffer(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "replace")


class _Batch:
    """A batch as aiokafka's fetcher uses it."""

    def __init__(self, batch: Any, raw: bytes) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        last = -1
        try:
            for record in self._batch:
                last = record.offset
                yield record
        except UnicodeDecodeError:
            yield from (record for record in self._lenient() if record.offset > last)

    def _lenient(self) -> Any:
        place = 0
        while True:
            base_offset, length = _BATCH_START.unpack_from(self._raw, place)
            end = place + _BATCH_START.size + length
            if base_offset == self._batch.base_offset:
                break
            place = end
        again = _DefaultRecordBatchPy(self._raw[place:end])
        iter(again)  # decompresses
        again._buffer = _LenientBuffer(again._buffer)
        return again


class _Records:
    """The batches of one fetch."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._records = MemoryRecords(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> _Batch:
        return _Batch(self._records.next_batch(), self._raw)


def read_leniently() -> None:
    """Let all consumers of this process read such records."""
    fetcher.MemoryRecords = _Records
