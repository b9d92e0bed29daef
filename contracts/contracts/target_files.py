"""Files exchanged with a target that takes files (docs/targets.md), batches as in contracts.batch_files; CSV by RFC 4180, UTF-8.

We put ``<batch>.csv`` (COLUMNS, one RepairPush each) and ``<batch>.manifest.json`` into the folder ``repairs/``. The target puts
``<batch>.ack.csv`` (ACK_COLUMNS) and, for rows it cannot take, ``<batch>.errors.csv`` (ERROR_COLUMNS) into ``receipts/``, in any
order and as often as it likes; we move what we have taken in to ``receipts/taken/``.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from contracts.http.target import RecordKey, RepairPush, RepairResult, RepairStatus
from contracts.records import RecordContent

REPAIRS, RECEIPTS, TAKEN = "repairs", "receipts", "receipts/taken"
DATA_SUFFIX, ACK_SUFFIX, ERROR_SUFFIX = ".csv", ".ack.csv", ".errors.csv"
COLUMNS = (
    "idempotency_key",
    "subject_code",
    "subject_name",
    "document_number",
    "authority_name",
    "state",
    "version",
    "decision_number",
    "decided_at",
    "content_decided_on",
    "content_penalty_kinds",
    "agent",
)
"""``content_…``: RepairPush.content, both empty where it is null."""
ACK_COLUMNS = ("idempotency_key", "status")
ERROR_COLUMNS = ("idempotency_key", "reason")


def write_pushes(pushes: Iterable[RepairPush]) -> bytes:
    """A data file."""
    rows = []
    for push in pushes:
        fields = push.model_dump(mode="json")
        fields |= fields.pop("record")
        content = fields.pop("content") or dict.fromkeys(RecordContent.model_fields)
        fields |= {f"content_{name}": value for name, value in content.items()}
        rows.append({column: fields[column] if fields[column] is not None else "" for column in COLUMNS})
    return _write(COLUMNS, rows)


def read_pushes(content: bytes) -> Iterator[RepairPush]:
    """What a data file says. Raises ValueError for a file that is not one."""
    for row in _read(COLUMNS, content):
        key = RecordKey(**{name: row[name] for name in RecordKey.model_fields})
        said = {name: row[f"content_{name}"] for name in RecordContent.model_fields}
        corrected = said if said["decided_on"] else None
        yield RepairPush.model_validate(
            {**row, "record": key, "content": corrected, "agent": row["agent"] or None}
        )


def write_results(results: Iterable[RepairResult]) -> tuple[bytes, bytes]:
    """An acknowledgement file and an error file; b"" for one that would have no rows."""
    acks, errors = [], []
    for result in results:
        if result.status is RepairStatus.REJECTED:
            errors.append({"idempotency_key": result.idempotency_key, "reason": result.reason or ""})
        else:
            acks.append({"idempotency_key": result.idempotency_key, "status": result.status.value})
    return (
        _write(ACK_COLUMNS, acks) if acks else b"",
        _write(ERROR_COLUMNS, errors) if errors else b"",
    )


def read_results(name: str, content: bytes) -> Iterator[RepairResult]:
    """What a file of this name says, row by row; a row that cannot be read is left out. Raises ValueError for another kind of file."""
    if name.endswith(ERROR_SUFFIX):
        columns, status = ERROR_COLUMNS, RepairStatus.REJECTED.value
    elif name.endswith(ACK_SUFFIX):
        columns, status = ACK_COLUMNS, None
    else:
        raise ValueError("文件名既不是回执（.ack.csv），也不是错误文件（.errors.csv）")
    for row in _read(columns, content):
        try:
            yield RepairResult.model_validate({**row, "status": status or row["status"]})
        except ValidationError:
            continue


def _write(columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _read(columns: tuple[str, ...], content: bytes) -> Iterator[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"缺少列：{'、'.join(sorted(missing))}")
        for row in reader:
            yield {name: row[name] or "" for name in columns}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"不是 UTF-8 的 CSV 文件：{error}") from None
