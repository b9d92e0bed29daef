"""Batch files on a real database, in a shared folder and over real SFTP: cut off anywhere, half-written, wrong, twice, gone."""

import csv
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest
from unit.review_samples import REQUESTED

from chassis.cases import CaseDirectory
from chassis.db import Database
from chassis.file_store import Files, open_files
from chassis.outbox import Outbox, outbox_collections
from contracts.batch_files import Manifest
from contracts.catalogue import Department
from contracts.department_files import (
    ACKNOWLEDGEMENT,
    DECISION_COLUMNS,
    DECISIONS_FOLDER,
    ERRORS,
    FOLDERS,
    MANIFEST,
    RECEIPTS_FOLDER,
    REVIEWS_FOLDER,
    Acknowledgement,
    manifest_of,
)
from contracts.http.intake import Case, Contact, Subject
from contracts.records import DepartmentRef
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.domain import Command, Review, decide, receive
from dept_adapter.kinds.channels import Channels
from dept_adapter.kinds.channels import collections as channel_collections
from dept_adapter.kinds.files.kind import FilesKind
from dept_adapter.kinds.files.ledger import COLLECTIONS
from dept_adapter.kinds.files.tables import reading
from dept_adapter.kinds.port import Parts
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.states import Action, State
from dept_adapter.store import Callbacks, Change, NewReview, Reviews, collections
from dept_adapter.words import Listener
from support import eventually
from xinfu_local import Stack

SLUG = "hz-gjjzx"
HEADER = list(DECISION_COLUMNS.values())


class KilledError(BaseException):
    """The process ends here."""


class Office:
    """A department of mode files and dept-adapter's side of it; ``started`` anew, only database and folder are left."""

    def __init__(self, infra: Stack, root: Path, url: str, **settings: Any) -> None:
        self.root = root
        self.settings = DeptAdapterSettings.model_validate(
            {
                "kafka_bootstrap_servers": "unused:1",
                "mongodb_uri": infra.mongodb_uri,
                "oidc_issuer": "http://127.0.0.1:1/oidc",
                "departments": [SLUG],
                "department_urls": {SLUG: url},
                "public_url": "http://127.0.0.1:1",
                "intake_url": "http://127.0.0.1:1",
                "client_secret": "unused",
                "push_backoff_base_seconds": 0.01,
                "push_backoff_max_seconds": 0.01,
                **settings,
            }
        )
        found = self.settings.catalogue.by_slug(SLUG)
        assert found is not None
        self.department: Department = found
        self.database = Database(
            infra.mongodb_uri, f"test_{secrets.token_hex(6)}", pool_size=5, timeout_ms=10_000
        )
        self.outbox = Outbox(self.database, source="/test", buckets=16, max_event_bytes=900_000)
        self.reviews = Reviews(self.database, set())

    async def prepare(self) -> None:
        await self.database.ensure(
            [*outbox_collections(30), *collections(60), *channel_collections(60), *COLLECTIONS]
        )

    def started(self) -> FilesKind:
        runtime = SimpleNamespace(database=self.database, outbox=self.outbox)
        listener = Listener(self.reviews, Callbacks(self.database), 15, LIBRARY_CALENDAR)
        parts = Parts(
            self.settings, cast(Any, runtime), self.reviews, KnownCases(), listener, Channels(self.database)
        )
        return FilesKind(self.department, parts)

    async def ask(self, numbers: Iterable[int], department: Department | None = None) -> list[str]:
        """Reviews that are due at a department, this one by default."""
        of = department or self.department
        ref = DepartmentRef(code=of.code, slug=of.slug, name=of.name)
        reviews = [replace(_review(number), department=ref) for number in numbers]

        async def work(unit: Any) -> None:
            new = [NewReview(review, of.mode, {}) for review in reviews]
            await self.reviews.add(new, unit.now, unit.session)

        await self.outbox.run(work)
        return [review.item_id for review in reviews]

    async def apply(self, item_id: str, action: Action) -> None:
        """What the applicant does."""

        async def work(unit: Any) -> None:
            stored = await self.reviews.get(item_id, unit.session)
            assert stored is not None
            done = decide(stored.review, Command(action, "applicant", from_desk=False), unit.now)
            await self.reviews.save([Change(stored, done.review, "applicant")], unit.now, unit.session)

        await self.outbox.run(work)

    async def states(self) -> list[str]:
        found = self.database.collection("reviews").find({}, {"state": 1}).sort("_id", 1)
        return [doc["state"] async for doc in found]

    async def emitted(self) -> int:
        return await self.database.collection("outbox").count_documents({})

    # --- the department's side

    def write(self, file_name: str, table: Sequence[Sequence[str]], *, cut: int = 0, **changes: Any) -> None:
        """A decision file with its manifest; ``changes`` of the manifest, ``cut``: bytes left out at the end."""
        path = self.root / DECISIONS_FOLDER / file_name
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="gb18030", newline="") as file:
            csv.writer(file).writerows([HEADER, *table])
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - cut])
        manifest = manifest_of(file_name, content, len(table), datetime(2026, 11, 24, tzinfo=UTC))
        entry = manifest.files[0].model_copy(update=changes)
        manifest = manifest.model_copy(update={"files": [entry]})
        path.with_name(file_name + MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")

    def receipt(self, name: str) -> Acknowledgement | None:
        path = self.root / RECEIPTS_FOLDER / (name + ACKNOWLEDGEMENT)
        return Acknowledgement.model_validate_json(path.read_bytes()) if path.exists() else None

    def errors(self, name: str) -> list[dict[str, str]]:
        path = self.root / RECEIPTS_FOLDER / (name + ERRORS)
        if not path.exists():
            return []
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def batches(self) -> list[tuple[Manifest, list[list[str]]]]:
        """Every batch with a manifest, checked against it."""
        found = []
        for path in sorted((self.root / REVIEWS_FOLDER).glob(f"*{MANIFEST}")):
            manifest = Manifest.model_validate_json(path.read_bytes())
            (entry,) = manifest.files
            table = path.with_name(entry.name)
            assert entry.fault(table.read_bytes()) == ""
            with reading(table, 10_000_000) as (_, rows):
                read = list(rows)
            assert len(read) == entry.rows
            found.append((manifest, read))
        return found


class KnownCases(CaseDirectory):
    """Intake, which knows every application."""

    def __init__(self) -> None:
        """Nobody is asked."""

    async def cases(self, application_ids: Iterable[str]) -> dict[str, Case]:
        return {
            each: Case(
                application_id=each,
                subject=Subject(
                    subject_id=REQUESTED.subject_id,
                    subject_type="legal_person",
                    code="9133",
                    name="=示例公司",
                ),
                contact=Contact(name="李四", phone="13812345678", email=None),
                statement="已履行",
            )
            for each in application_ids
        }


def _review(number: int) -> Review:
    review = receive(REQUESTED, at_desk=False)
    return replace(
        review,
        item_id=f"itm_{number:032x}",
        application_id=f"app_{number:032x}",
        record_id=f"rec_{number:032x}",
    )


@pytest.fixture
async def office(infra: Stack, tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(infra, tmp_path, tmp_path.as_uri(), files_manifest_patience_seconds=0)
    await office.prepare()
    yield office
    office.database.close()


class Cut:
    """A store at whose nth step of writing the process ends: before the write, or after it."""

    def __init__(self, files: Files, steps: int) -> None:
        self._files = files
        self._left = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    async def write(self, path: str, content: bytes) -> None:
        self._step()
        await self._files.write(path, content)
        self._step()

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise KilledError


async def test_a_batch_that_is_cut_off_anywhere_is_written_again_the_same(office: Office) -> None:
    await office.ask(range(3))
    for operations in range(1, 5):
        await office.ask([10 * operations])
        async with open_files(office.root.as_uri()) as files:
            with pytest.raises(KilledError):
                await office.started()._outbound.step(cast(Files, Cut(files, operations)))
        before = office.batches()
        if operations == 1:
            # a new telling while the batch is not finished: it belongs to the next one
            await office.apply(f"itm_{1:032x}", Action.WITHDRAW)
        kind = office.started()
        while await kind.step():
            pass
        assert office.batches()[: len(before)] == before
    batches = office.batches()
    assert [manifest.sequence for manifest, _ in batches] == list(range(1, len(batches) + 1))
    told = [(row[1], row[0]) for _, rows in batches for row in rows]
    assert sorted(told) == sorted(set(told))
    assert (f"itm_{1:032x}", "送审") in told
    assert (f"itm_{1:032x}", "撤回") in told
    assert {row[4] for _, rows in batches for row in rows if row[0] == "送审"} == {"'=示例公司"}
    delivered = office.database.collection("reviews").find({"state": State.DELIVERED.value})
    assert all(["reviews-00000" in doc["push"]["receipt_number"] async for doc in delivered])
    assert set(await office.states()) == {State.DELIVERED.value, State.WITHDRAWN.value}


async def test_of_ten_thousand_rows_seven_are_bad(office: Office, infra: Stack) -> None:
    items: list[str] = []
    for start in range(0, 9_996, 1_666):
        items += await office.ask(range(start, start + 1_666))
    other = office.settings.catalogue.by_slug("hz-sthj")
    assert other is not None
    (foreign,) = await office.ask([99_999], other)
    await office.database.collection("reviews").update_many({}, {"$unset": {"push.next_attempt_at": ""}})
    rows = [[item, "准予", f"杭公积金信修〔2026〕{n}号"] for n, item in enumerate(items[:9_993])]
    bad = {
        17: ["", "准予", "1号"],
        1_000: [items[9_993], "同意", "1号"],
        2_500: [items[9_994], "不予", "1号", ""],
        5_001: [foreign, "准予", "1号"],
        7_777: ["itm_" + "f" * 32, "准予", "1号"],
        9_000: [items[0], "不予", "2号", "=cmd|' /C calc'!A0"],
        9_999: [items[9_995], "准予", ""],
    }
    for at, row in bad.items():
        rows.insert(at, row)
    assert len(rows) == 10_000
    office.write("a.csv", rows)
    kind = office.started()
    # cut off in the middle: what was taken is not taken again
    move, chunks = kind._inbound._ledger.move, 0

    async def killed(*arguments: Any) -> bool:
        nonlocal chunks
        chunks += 1
        if chunks == 8:
            raise KilledError
        return await move(*arguments)

    kind._inbound._ledger.move = killed  # type: ignore[method-assign,assignment]
    with pytest.raises(KilledError):
        await kind.step()
    assert office.receipt("a.csv") is None
    await office.started().step()
    receipt = office.receipt("a.csv")
    assert receipt is not None
    assert (receipt.rows, receipt.taken, receipt.repeated, receipt.refused) == (10_000, 9_993, 0, 7)
    errors = office.errors("a.csv")
    assert [int(line["行号"]) for line in errors] == [at + 2 for at in bad]
    reasons = ["编号为空", "不认识", "填写理由", "不是送该部门", "没有事项", "未生效", "决定文号"]
    for line, words in zip(errors, reasons, strict=True):
        assert words in line["原因"]
    states = await office.states()
    assert (states.count("granted"), len(states)) == (9_993, 9_997)
    emitted = await office.emitted()
    assert emitted == 2 * 9_993

    # the same file twice, under its name and another, changes nothing
    office.write("a.csv", rows)
    office.write("b.csv", rows)
    await office.started().step()
    again = office.receipt("b.csv")
    assert again is not None
    assert (again.taken, again.repeated, again.refused) == (0, 9_993, 7)
    assert await office.emitted() == emitted


async def test_a_file_is_read_when_it_is_whole_and_not_before(office: Office) -> None:
    (first, second) = await office.ask([1, 2])
    rows = [[first, "准予", "杭公积金信修〔2026〕1号"], [second, "受理"]]
    kind = office.started()
    while await kind.step():
        pass

    async def refused(words: str) -> None:
        """Told once, with nothing taken."""
        await office.started().step()
        await office.started().step()
        (line,) = office.errors("a.csv")
        assert words in line["原因"]
        assert office.receipt("a.csv") is None
        assert await office.emitted() == 0

    office.write("a.csv", rows)
    manifest = office.root / DECISIONS_FOLDER / ("a.csv" + MANIFEST)
    manifest.unlink()
    await refused("没有清单")
    office.write("a.csv", rows, cut=5)
    await refused("SHA-256 与清单不符")
    office.write("a.csv", rows, rows=3)
    await refused("清单写有 3 行，文件中有 2 行")
    office.write("a.csv", rows, name="b.csv")
    await refused("只写“a.csv”这一个文件")
    manifest.write_text("{")
    await refused("清单无法读取")
    office.write("a.csv", rows, rows=1_000_000)
    await refused("最多 100000 行")
    (office.root / DECISIONS_FOLDER / "half.csv.part").write_text("x")
    office.write("a.csv", rows)
    await office.started().step()
    receipt = office.receipt("a.csv")
    assert receipt is not None
    assert (receipt.taken, receipt.refused, receipt.errors) == (2, 0, None)
    assert office.errors("a.csv") == []
    assert await office.states() == ["granted", "accepted"]


# --- SFTP


class _Server(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("office", "right")


class _Breaking(asyncssh.SFTPServer):
    """Goes away in the middle of a file, as often as it is told."""

    breaks = 0

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        if offset > 0 and _Breaking.breaks > 0:
            _Breaking.breaks -= 1
            self.connection.abort()
        return cast(bytes, super().read(file_obj, offset, size))


async def closed(kind: FilesKind) -> bool:
    """The breaker lets a try through."""
    return kind.health().breaker != "open"


async def test_over_sftp_with_the_right_host_only_and_gone_in_mid_file(infra: Stack, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    root = tmp_path / "office"
    root.mkdir()
    server = await asyncssh.create_server(
        _Server,
        "127.0.0.1",
        0,
        server_host_keys=[key],
        sftp_factory=lambda channel: _Breaking(channel, chroot=str(root).encode()),
    )
    url = f"sftp://office@127.0.0.1:{server.get_port()}/"
    public = key.export_public_key().decode()
    right = {"department_secrets": {SLUG: "right"}, "department_host_keys": {SLUG: public}}
    office = Office(infra, root, url, **right, breaker_failures=2, breaker_seconds=0.05)
    await office.prepare()
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    try:
        for wrong in ({"department_secrets": {SLUG: "wrong"}}, {"department_host_keys": {SLUG: stranger}}):
            other = Office(infra, root, url, **{**right, **wrong})
            kind = other.started()
            await kind.step()
            assert kind.health().problem is not None
            assert list(root.iterdir()) == []
            other.database.close()
        items = await office.ask(range(4_000))
        kind = office.started()
        while await kind.step():
            pass
        assert {path.name for path in root.iterdir()} <= set(FOLDERS)
        assert [manifest.files[0].rows for manifest, _ in office.batches()] == [1000] * 4
        office.write("a.csv", [[item, "准予", f"杭公积金信修〔2026〕{n}号"] for n, item in enumerate(items)])
        _Breaking.breaks = 2
        for _ in range(2):
            await kind.step()
            assert (kind.health().breaker, await office.emitted()) == ("open", 0)
            assert "无法访问" in (kind.health().problem or "")
            await eventually(lambda: closed(kind))
        await kind.step()
        receipt = office.receipt("a.csv")
        assert receipt is not None
        assert (receipt.taken, receipt.refused) == (4_000, 0)
        assert kind.health().problem is None
    finally:
        office.database.close()
        server.close()
