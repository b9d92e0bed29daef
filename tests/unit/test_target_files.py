"""The target that takes files, against a folder: what is written can be read back row by row, and what comes back is believed row by row."""

import hashlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.test_sync_http_target import push

from chassis.file_store import open_files
from contracts.batch_files import Manifest
from contracts.http.target import RepairPush, RepairResult, RepairStatus
from contracts.records import RecordContent
from contracts.target_files import read_pushes, read_results, write_pushes, write_results
from sync.files_target import FilesTarget
from sync.target import UnavailableError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1, max_size=30)


CONTENT = st.builds(RecordContent, decided_on=st.dates(), penalty_kinds=st.just("") | TEXT)


@given(st.lists(st.tuples(TEXT, TEXT, st.none() | CONTENT, st.none() | TEXT), max_size=5))
def test_pushes_come_out_as_they_went_in(
    texts: list[tuple[str, str, RecordContent | None, str | None]],
) -> None:
    pushes = [
        push(n).model_copy(
            update={"subject_name": name, "decision_number": number, "content": content, "agent": agent}
        )
        for n, (name, number, content, agent) in enumerate(texts)
    ]
    assert list(read_pushes(write_pushes(pushes))) == pushes


def test_results_are_two_files_and_a_bad_row_spoils_no_other() -> None:
    applied = RepairResult(idempotency_key="a:1:1", status=RepairStatus.APPLIED)
    rejected = RepairResult(idempotency_key="a:2:1", status=RepairStatus.REJECTED, reason="查无此记录")
    acks, errors = write_results([applied, rejected])
    assert list(read_results("b.ack.csv", acks + b"a:3:1,nonsense\r\n")) == [applied]
    assert list(read_results("b.errors.csv", errors)) == [rejected]
    assert write_results([applied])[1] == b""
    for name, content in (
        ("b.txt", acks),
        ("b.ack.csv", b"\xff\xfe"),
        ("b.ack.csv", b"status\r\napplied\r\n"),
    ):
        with pytest.raises(ValueError, match=r"文件|缺少列"):
            list(read_results(name, content))


def store(folder: Path) -> FilesTarget:
    return FilesTarget("vendor", partial(open_files, folder.as_uri()))


async def test_a_batch_is_a_file_and_its_manifest_and_a_repetition_the_same_ones(tmp_path: Path) -> None:
    target = store(tmp_path)
    batch: list[RepairPush] = [push(1), push(2)]
    told = await target.push(batch)
    assert {result.status for result in told.values()} == {RepairStatus.RECEIVED}
    await target.push(batch[::-1])
    (path,) = (tmp_path / "repairs").glob("*.manifest.json")
    manifest = Manifest.model_validate_json(path.read_bytes())
    (entry,) = manifest.files
    content = (tmp_path / "repairs" / entry.name).read_bytes()
    assert (entry.rows, entry.size, entry.sha256) == (2, len(content), hashlib.sha256(content).hexdigest())
    assert manifest.created_at <= datetime.now(UTC)
    assert len(list((tmp_path / "repairs").iterdir())) == 2


async def test_receipt_files_are_moved_once_taken_and_unreadable_ones_stop_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "receipts"
    folder.mkdir()
    (folder / "a.ack.csv").write_bytes(b"\xff")
    (folder / "b.ack.csv").write_bytes(b"idempotency_key,status\r\nvendor:1:1,applied\r\n")
    (folder / "c.ack.csv.part").write_bytes(b"idempotency")
    seen = [(name, len(results)) async for name, results in store(tmp_path).receipts()]
    assert seen == [("a.ack.csv", 0), ("b.ack.csv", 1)]
    assert sorted(p.name for p in (folder / "taken").iterdir()) == ["a.ack.csv", "b.ack.csv"]
    # taken in and killed before it is moved: it comes again
    (folder / "d.ack.csv").write_bytes(b"idempotency_key,status\r\nvendor:2:1,applied\r\n")
    async for _ in store(tmp_path).receipts():
        break
    assert [name async for name, _ in store(tmp_path).receipts()] == ["d.ack.csv"]


async def test_a_store_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "repairs").write_text("a file where the folder should be")
    with pytest.raises(UnavailableError, match="files:"):
        await store(tmp_path).push([push(1)])
