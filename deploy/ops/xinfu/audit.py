"""`xinfu audit`: recompute the history of all cases, or of one record, from the running sync or from an export, and name what was touched."""

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from contracts.history import (
    ChainCheck,
    EntryPage,
    EntryQuestion,
    Finding,
    HeadCheck,
    HeadPage,
    HistoryEntry,
    HistoryHead,
    HistoryTip,
    TipPage,
    check_leaves,
    entry_id,
)
from contracts.signatures import KeySet
from xinfu.client import Client
from xinfu.operators import Services, operate
from xinfu.terminal import DataDir, console, fail, plain
from xinfu_local import DEFAULT_DATA_DIR

audit_app = typer.Typer(no_args_is_help=True, help="可验证的历史：哈希链与签名头。")

EXPORT_FORMAT = "xinfu-history-export/1"
_TIMEOUT_SECONDS = 300.0
_SHOWN = 50
_LOOK_AGAIN_SECONDS = 1.0

Record = Annotated[str | None, typer.Option(help="只看这一条记录（rec_…）")]


class History(Protocol):
    """Where the history is read from. Everything comes in order: entries by id, tips by chain, heads by number."""

    async def keys(self) -> KeySet:
        """The published keys."""
        ...

    def entries(self, record: str | None, after: str = "") -> AsyncIterator[HistoryEntry]:
        """Entries after an id."""
        ...

    def tips(self, record: str | None, after: str = "") -> AsyncIterator[HistoryTip]:
        """Tips after a chain."""
        ...

    def heads(self, after: int = 0) -> AsyncIterator[HistoryHead]:
        """Heads after a number."""
        ...

    async def lookup(self, ids: Sequence[str]) -> list[HistoryEntry]:
        """Those of the entries that are there, at most 1,000 asked for."""
        ...


class Running:
    """The history of the running sync."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def keys(self) -> KeySet:
        """GET /v1/keys."""
        return await published_keys(self._services.client, self._services.urls["sync"])

    async def entries(self, record: str | None, after: str = "") -> AsyncIterator[HistoryEntry]:
        """Page by page."""
        following: str | None = after
        while following is not None:
            page = await self._services.ask(
                EntryPage, "sync", "history/entries", record_id=record, after=following
            )
            for entry in page.entries:
                yield entry
            following = page.next

    async def tips(self, record: str | None, after: str = "") -> AsyncIterator[HistoryTip]:
        """Page by page."""
        following: str | None = after
        while following is not None:
            page = await self._services.ask(
                TipPage, "sync", "history/tips", record_id=record, after=following
            )
            for tip in page.tips:
                yield tip
            following = page.next

    async def heads(self, after: int = 0) -> AsyncIterator[HistoryHead]:
        """Page by page."""
        following: int | None = after
        while following is not None:
            page = await self._services.ask(HeadPage, "sync", "history/heads", after=following)
            for head in page.heads:
                yield head
            following = page.next

    async def lookup(self, ids: Sequence[str]) -> list[HistoryEntry]:
        """In one question."""
        question = EntryQuestion(ids=list(ids))
        return (await self._services.post(EntryPage, "sync", "history/lookup", question)).entries


async def published_keys(client: Client, sync_url: str) -> KeySet:
    """The keys that sync publishes."""
    return KeySet.model_validate(await client.call("GET", f"{sync_url}/v1/keys"))


class Exported:
    """The history in an export: JSON lines, put into a database on disk so that a large one can be looked into."""

    def __init__(self, connection: sqlite3.Connection, keys: KeySet) -> None:
        self._connection = connection
        self._keys = keys

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Exported"]:
        """Raises ValueError when the file is no export."""
        with tempfile.TemporaryDirectory() as directory:
            connection = sqlite3.connect(Path(directory) / "history.sqlite")
            try:
                connection.execute("CREATE TABLE line (kind TEXT, key, record TEXT, body TEXT)")
                keys = _load(connection, path)
                connection.execute("CREATE INDEX by_key ON line (kind, key)")
                yield cls(connection, keys)
            finally:
                connection.close()

    async def keys(self) -> KeySet:
        """Those in the file: of use only against accidents; give published keys with ``--keys``."""
        return self._keys

    def _rows(self, kind: str, record: str | None, after: str | int) -> Iterator[str]:
        cursor = self._connection.execute(
            "SELECT body FROM line WHERE kind = ? AND key > ? AND (? IS NULL OR record = ?) ORDER BY key",
            (kind, after, record, record),
        )
        return (body for (body,) in cursor)

    async def entries(self, record: str | None, after: str = "") -> AsyncIterator[HistoryEntry]:
        """In order of their ids."""
        for body in self._rows("entry", record, after):
            yield HistoryEntry.model_validate_json(body)

    async def tips(self, record: str | None, after: str = "") -> AsyncIterator[HistoryTip]:
        """In order of their chains."""
        for body in self._rows("tip", record, after):
            yield HistoryTip.model_validate_json(body)

    async def heads(self, after: int = 0) -> AsyncIterator[HistoryHead]:
        """In order of their numbers."""
        for body in self._rows("head", None, after):
            yield HistoryHead.model_validate_json(body)

    async def lookup(self, ids: Sequence[str]) -> list[HistoryEntry]:
        """By the index."""
        query = "SELECT body FROM line WHERE kind = 'entry' AND key IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(query, (json.dumps(list(ids)),))
        return [HistoryEntry.model_validate_json(body) for (body,) in rows]


def _load(connection: sqlite3.Connection, path: Path) -> KeySet:
    with path.open(encoding="utf-8") as lines, connection:
        first = json.loads(next(lines, "null"))
        if not isinstance(first, dict) or first.get("format") != EXPORT_FORMAT:
            raise ValueError(f"{path} 不是 xinfu audit export 写的文件")
        for line in lines:
            ((kind, body),) = json.loads(line).items()
            chain = str(body.get("chain") or str(body.get("id", "")).partition("#")[0])
            key = {"entry": "id", "tip": "chain", "head": "number"}[kind]
            row = (kind, body[key], chain.rpartition("|")[2], json.dumps(body))
            connection.execute("INSERT INTO line VALUES (?, ?, ?, ?)", row)
    return KeySet.model_validate(first["keys"])


@dataclass
class Audit:
    """What an audit found. ``findings`` by id, the first about each."""

    findings: dict[str, Finding] = field(default_factory=dict)
    entries: int = 0
    chains: int = 0
    heads: int = 0
    without_head: int = 0

    def note(self, findings: Iterator[Finding]) -> bool:
        """Take findings in; whether there were any."""
        fresh = list(findings)
        for finding in fresh:
            self.findings.setdefault(finding.id, finding)
        return bool(fresh)


async def audit(history: History, keys: KeySet, record: str | None = None) -> Audit:
    """Recompute everything, or what is about one record. Memory does not grow with the history."""
    found = Audit()
    heads = HeadCheck(keys)
    if record is None:
        async for head in history.heads():
            found.heads += 1
            found.note(heads.take(head))
            await _leaves(history, found, head)
    tips = history.tips(record)
    tip = await anext(tips, None)
    check: ChainCheck | None = None

    async def close(chain: ChainCheck) -> None:
        nonlocal tip
        while tip is not None and tip.chain < chain.chain:
            await _again(history, found, tip.chain, record)
            tip = await anext(tips, None)
        own = tip if tip is not None and tip.chain == chain.chain else None
        if own is not None:
            tip = await anext(tips, None)
            found.without_head += own.head is None
        found.chains += 1
        # between reading its entries and its tip the chain may have grown
        if list(chain.end(own)):
            await _again(history, found, chain.chain, record)
        if record is not None and own is not None and own.head is not None:
            async for head in history.heads(own.head - 1):
                found.heads += 1
                found.note(heads.take(head, alone=True))
                await _leaves(history, found, head, chain.chain)
                break

    async for entry in history.entries(record):
        chain = entry.id.rpartition("#")[0]
        if check is None or check.chain != chain:
            if check is not None:
                await close(check)
            check = ChainCheck(chain)
        found.entries += 1
        found.note(check.take(entry))
    if check is not None:
        await close(check)
    while tip is not None:
        await _again(history, found, tip.chain, record)
        tip = await anext(tips, None)
    return found


async def _leaves(history: History, found: Audit, head: HistoryHead, only: str | None = None) -> None:
    leaves = tuple(leaf for leaf in head.leaves if only in (None, leaf.chain))
    there = await history.lookup([entry_id(leaf.chain, leaf.seq) for leaf in leaves])
    found.note(check_leaves(head.model_copy(update={"leaves": leaves}), there))


async def _again(history: History, found: Audit, chain: str, record: str | None) -> None:
    """Look at one chain by itself until entries and tip are of one moment; what then is wrong is wrong."""
    last: list[Finding] = []
    for attempt in range(3):
        if attempt:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        check = ChainCheck(chain)
        last = []
        async for entry in history.entries(record, f"{chain}#"):
            if entry.id.rpartition("#")[0] != chain:
                break
            last += check.take(entry)
        own = [tip async for tip in _one(history, chain, record)]
        last += check.end(own[0] if own else None)
        if not last:
            return
    found.note(iter(last))


async def _one(history: History, chain: str, record: str | None) -> AsyncIterator[HistoryTip]:
    # the last character is one less than the chain's, so that the chain itself is what follows
    async for tip in history.tips(record, chain[:-1]):
        if tip.chain >= chain:
            if tip.chain == chain:
                yield tip
            return


def keys_from(path: Path | None) -> KeySet | None:
    """The keys in a file; None without one. Exits when it is none."""
    if path is None:
        return None
    try:
        return KeySet.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{path} 不是公钥文件（GET /v1/keys 的回答）：{error}")


Keys = Annotated[
    Path | None,
    typer.Option("--keys", exists=True, dir_okay=False, help="公钥文件：另外保存的 GET /v1/keys 的回答"),
]


@audit_app.command("verify")
def verify_command(
    record: Record = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="核验这个导出文件，不连接任何服务"),
    ] = None,
    keys: Keys = None,
    witness: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="从前保存的签名头（GET /v1/history/head）：它所记的须仍在"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="以 JSON 打印结果")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """核验历史：逐条重算哈希链和签名头。无误退出状态为 0；有被改动、删除、插入、调换的，指出是哪一条，退出状态为 1。"""
    given = keys_from(keys)
    kept = HistoryHead.model_validate_json(witness.read_bytes()) if witness else None

    async def run(history: History) -> bool:
        trusted = given or await history.keys()
        found = await audit(history, trusted, record)
        if kept is not None:
            await _witness(history, found, kept, trusted)
        _show(found, as_json=as_json)
        return not found.findings

    if file is not None:
        try:
            with Exported.open(file) as exported:
                good = asyncio.run(run(exported))
        except (ValueError, KeyError) as error:
            fail(error)
        if not good:
            raise typer.Exit(1)
        return

    async def work(services: Services) -> bool:
        return await run(Running(services))

    operate(data_dir, work, _TIMEOUT_SECONDS)


async def _witness(history: History, found: Audit, kept: HistoryHead, keys: KeySet) -> None:
    found.note(HeadCheck(keys).take(kept, alone=True))
    now = await anext(history.heads(kept.number - 1), None)
    if now is None or now.number != kept.number or now.text != kept.text:
        name = f"head {kept.number}"
        found.note(iter([Finding(name, "与从前保存的签名头不同或已不在：历史被重写")]))
    await _leaves(history, found, kept)


def _show(found: Audit, *, as_json: bool) -> None:
    findings = [vars(finding) for finding in found.findings.values()]
    if as_json:
        counts = {name: getattr(found, name) for name in ("entries", "chains", "heads", "without_head")}
        print(json.dumps({**counts, "findings": findings}, ensure_ascii=False, indent=2))
        return
    console.print(
        f"核验 {found.entries} 条、{found.chains} 条链、{found.heads} 个签名头"
        + (f"；{found.without_head} 条链还没有签名头" if found.without_head else "")
    )
    for finding in list(found.findings.values())[:_SHOWN]:
        console.print(f"[red]✗ {plain(finding.id)}[/red]  {plain(finding.problem)}", soft_wrap=True)
    if len(findings) > _SHOWN:
        console.print(f"……共 {len(findings)} 处，全部见 --json")
    console.print("[red]历史被动过[/red]" if findings else "[green]历史完好[/green]")


async def export(history: History, file: Path) -> dict[str, int]:
    """Write everything as JSON lines; how much of what."""
    counts = dict.fromkeys(("entry", "tip", "head"), 0)
    with file.open("w", encoding="utf-8") as out:

        def line(body: Any) -> None:
            out.write(json.dumps(body, ensure_ascii=False) + "\n")

        keys = await history.keys()
        line({"format": EXPORT_FORMAT, "keys": keys.model_dump(mode="json", exclude_none=True)})
        # heads and tips first: every entry they name is there already
        async for head in history.heads():
            counts["head"] += 1
            line({"head": head.model_dump(mode="json")})
        tips: dict[str, HistoryTip] = {}
        async for tip in history.tips(None):
            tips[tip.chain] = tip
            counts["tip"] += 1
            line({"tip": tip.model_dump(mode="json")})
        async for entry in history.entries(None):
            own = tips.get(entry.id.rpartition("#")[0])
            # what is behind a tip was written since: it is in the next export
            if own is None or entry.id <= entry_id(own.chain, own.seq):
                counts["entry"] += 1
                line({"entry": entry.model_dump(mode="json")})
    return counts


@audit_app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="写到这个文件（JSON 行）")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """导出历史（链、末端、签名头、公钥），可离线核验：xinfu audit verify --file FILE。"""

    async def work(services: Services) -> bool:
        counts = await export(Running(services), file)
        console.print(f"已写入 {file}：{counts['entry']} 条、{counts['tip']} 条链、{counts['head']} 个签名头")
        return True

    operate(data_dir, work, _TIMEOUT_SECONDS)
