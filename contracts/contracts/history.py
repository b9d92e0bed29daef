"""The history of a case: what was decided, pushed, answered and seen, so that no line of it can be changed in silence.

A chain belongs to a record (its decisions, certificates and letters; its name is the record id) or to a record at a target (pushes,
answers and readings; ``<target>|<record>``). An entry is a canonical JSON object (``contracts.canonical``)

    {"at", "chain", "facts", "format", "kind", "previous", "seq"}

whose digest the next entry of the chain names as ``previous`` ("" in the first); ``seq`` counts from 1. A head is a canonical object

    {"at", "format", "leaves", "number", "previous", "root"}

over the last entries of the chains that grew since the head before: ``root`` is the Merkle root (RFC 9162, 2.1, with the
function the text names) over the leaves ``{"chain", "hash", "seq"}`` in order of chain, ``previous`` the digest of the head before. It is
signed (``contracts.signatures``). Whoever keeps a head can tell later whether what it covers is still what it was.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from contracts.canonical import Digest, canonical, matches
from contracts.records import Shape
from contracts.signatures import KeySet, Signature, UnverifiedError, verify

ENTRY_FORMAT = "xinfu-history/1"
HEAD_FORMAT = "xinfu-history-head/1"
_ID = re.compile(r"(?P<chain>[^#]+)#(?P<seq>[0-9]{10})")


class Kind(StrEnum):
    """What an entry tells."""

    DECISION = "decision"
    PUSH = "push"
    READING = "reading"
    CERTIFICATE = "certificate"
    LETTER = "letter"


class HistoryEntry(Shape):
    """An entry as it is kept: ``id`` is ``<chain>#<seq, 10 digits>``, ``text`` the canonical JSON, ``hash`` its digest."""

    id: str
    text: str
    hash: str


class HistoryTip(Shape):
    """The last entry of a chain, and the number of the last head that covers the chain (None: none yet)."""

    chain: str
    seq: int
    hash: str
    head: int | None = None


class Leaf(Shape):
    """What a head says of one chain: its last entry was this."""

    chain: str
    seq: int
    hash: str


class HistoryHead(Shape):
    """A signed head as it is kept, with its leaves. ``hash``: the digest of ``text``."""

    number: int
    text: str
    hash: str
    signature: Signature
    leaves: tuple[Leaf, ...]

    @property
    def at(self) -> datetime:
        """When it was signed. Raises ValueError or KeyError for a text that is no head's."""
        return datetime.fromisoformat(json.loads(self.text)["at"])


class EntryPage(Shape):
    """Entries in order of their ids; ask again with ``after`` = ``next`` while it is not null."""

    entries: list[HistoryEntry]
    next: str | None


class TipPage(Shape):
    """Tips in order of their chains; ask again with ``after`` = ``next`` while it is not null."""

    tips: list[HistoryTip]
    next: str | None


class HeadPage(Shape):
    """Heads in order of their numbers; ask again with ``after`` = ``next`` while it is not null."""

    heads: list[HistoryHead]
    next: int | None


class EntryQuestion(Shape):
    """Ids of entries, at most 1,000."""

    ids: list[Annotated[str, Field(max_length=200)]] = Field(max_length=1000)


def entry_id(chain: str, seq: int) -> str:
    """``<chain>#<seq, 10 digits>``: ids of a chain sort as its entries do."""
    return f"{chain}#{seq:010d}"


def entry_text(chain: str, seq: int, previous: str, kind: Kind, at: str, facts: dict[str, Any]) -> bytes:
    """The canonical form of an entry. ``at``: RFC 3339, UTC."""
    return canonical(
        {
            "at": at,
            "chain": chain,
            "facts": facts,
            "format": ENTRY_FORMAT,
            "kind": kind.value,
            "previous": previous,
            "seq": seq,
        }
    )


def head_text(number: int, previous: str, at: str, leaves: Sequence[Leaf], digest: Digest) -> bytes:
    """The canonical form of a head."""
    return canonical(
        {
            "at": at,
            "format": HEAD_FORMAT,
            "leaves": len(leaves),
            "number": number,
            "previous": previous,
            "root": merkle_root(leaves, digest),
        }
    )


def merkle_root(leaves: Sequence[Leaf], digest: Digest) -> str:
    """The Merkle root over at least one leaf (RFC 9162, 2.1.1): an odd node goes up as it is."""
    level = [_raw(digest, b"\0" + canonical(leaf.model_dump())) for leaf in leaves]
    while len(level) > 1:
        paired = [_raw(digest, b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = [*paired, *level[len(paired) * 2 :]]
    return f"{digest}:{level[0].hex()}"


def _raw(digest: Digest, data: bytes) -> bytes:
    return bytes.fromhex(digest.of(data).partition(":")[2])


# --- checking


@dataclass(frozen=True)
class Finding:
    """What is wrong, and at which entry (or ``head <n>``); ``problem`` in zh-CN."""

    id: str
    problem: str


class ChainCheck:
    """Checks the entries of one chain, given in order of their ids."""

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.seq = 0
        self.hash = ""
        self._digests: frozenset[str] = frozenset({""})
        self._sound = True

    def take(self, entry: HistoryEntry) -> Iterator[Finding]:
        """What is wrong with the next entry; one that is wrong is not held against those that follow."""
        place = _ID.fullmatch(entry.id)
        if place is None or place["chain"] != self.chain:
            yield Finding(entry.id, "编号不合格式：这一条是插入的")
            return
        seq = int(place["seq"])
        gap = seq != self.seq + 1
        if gap:
            first, last = entry_id(self.chain, self.seq + 1), entry_id(self.chain, seq - 1)
            yield Finding(first, "这一条被删除了" if first == last else f"这一条至 {last} 被删除了")
        text = entry.text.encode(errors="surrogatepass")
        body, problem = _read(entry, text, self.chain, seq)
        before = self._sound and not gap
        if problem:
            yield Finding(entry.id, problem)
        elif before and body["previous"] not in self._digests:
            yield Finding(
                entry_id(self.chain, seq - 1) if seq > 1 else entry.id,
                f"与下一条（{entry.id}）所记的摘要不符：这一条被改动或插入",
            )
        self.seq, self.hash, self._sound = seq, entry.hash, problem is None
        self._digests = frozenset({entry.hash})

    def end(self, tip: HistoryTip | None) -> Iterator[Finding]:
        """What is wrong with the chain as a whole, whose tip is this one."""
        if tip is None:
            yield Finding(
                entry_id(self.chain, max(self.seq, 1)), "这条链没有末端记录：末端被删除，或整条链是插入的"
            )
        elif tip.seq > self.seq:
            yield Finding(entry_id(self.chain, self.seq + 1), "链的末端被删除：这一条及其后的都不在")
        elif tip.seq < self.seq:
            yield Finding(entry_id(self.chain, tip.seq + 1), "在链的末端之后：这一条是插入的")
        elif tip.hash != self.hash:
            yield Finding(entry_id(self.chain, self.seq), "与末端记录的摘要不符：这一条被改动")


def _read(entry: HistoryEntry, text: bytes, chain: str, seq: int) -> tuple[dict[str, Any], str | None]:
    if not matches(entry.hash, text):
        return {}, "内容与摘要不符：这一条被改动"
    try:
        body = json.loads(text)
        good = isinstance(body, dict) and canonical(body) == text and isinstance(body["previous"], str)
        if not good:
            return {}, "不是规范格式：这一条被改动"
        if (body["chain"], body["seq"]) != (chain, seq):
            return {}, f"放在这里的是 {entry_id(body['chain'], body['seq'])}：被调换或插入"
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}, "不是规范格式：这一条被改动"
    return body, None


class HeadCheck:
    """Checks heads, given in order of their numbers, against published keys."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys
        self._number = 0
        self._hash = ""

    def take(self, head: HistoryHead, *, alone: bool = False) -> Iterator[Finding]:
        """What is wrong with the next head; ``alone``: the one before it was not read."""
        name = f"head {head.number}"
        text = head.text.encode(errors="surrogatepass")
        if not alone and head.number != self._number + 1:
            yield Finding(f"head {self._number + 1}", f"签名头缺失：下一个是 {head.number}")
        try:
            body = json.loads(text)
            digest = Digest(body["root"].partition(":")[0])
            rebuilt = head_text(head.number, body["previous"], body["at"], head.leaves, digest)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            yield Finding(name, "不是签名头的格式：被改动")
        else:
            if rebuilt != text or not matches(head.hash, text):
                yield Finding(name, "内容、叶子或摘要被改动")
            elif not alone and head.number == self._number + 1 and body["previous"] != self._hash:
                yield Finding(name, "与前一个签名头的摘要不符：前一个被改动或调换")
            else:
                try:
                    verify(text, head.signature, self._keys)
                except UnverifiedError as error:
                    yield Finding(name, str(error))
        self._number, self._hash = head.number, head.hash


def check_leaves(head: HistoryHead, found: Iterable[HistoryEntry]) -> Iterator[Finding]:
    """Whether the entries a head covers (``found``: those that are there) are still what it covered."""
    there = {entry.id: entry.hash for entry in found}
    for leaf in head.leaves:
        id_ = entry_id(leaf.chain, leaf.seq)
        if id_ not in there:
            yield Finding(id_, f"签名头 {head.number} 记有这一条，现已不在：被删除")
        elif there[id_] != leaf.hash:
            yield Finding(id_, f"与签名头 {head.number} 所记的摘要不符：这一条或它之前的被改写")
