"""Chains and heads: whatever is changed, removed, inserted or swapped is found and named."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.canonical import Digest
from contracts.history import (
    ChainCheck,
    Finding,
    HeadCheck,
    HistoryEntry,
    HistoryHead,
    HistoryTip,
    Kind,
    Leaf,
    check_leaves,
    entry_id,
    entry_text,
    head_text,
    merkle_root,
)
from contracts.signatures import SigningKey, key_set, new_secret

CHAIN = "credit-china|rec_" + "0" * 32
KEY = SigningKey.read(new_secret("ed25519"))
KEYS = key_set(KEY)


def chain(length: int, name: str = CHAIN, switch: int = 3) -> list[HistoryEntry]:
    """A chain; from entry ``switch`` on with SM3."""
    made: list[HistoryEntry] = []
    for seq in range(1, length + 1):
        digest = Digest.SM3 if seq >= switch else Digest.SHA256
        previous = made[-1].hash if made else ""
        text = entry_text(name, seq, previous, Kind.READING, f"2026-01-01T00:00:{seq:02d}Z", {"n": seq})
        made.append(HistoryEntry(id=entry_id(name, seq), text=text.decode(), hash=digest.of(text)))
    return made


def tip(entries: Sequence[HistoryEntry]) -> HistoryTip:
    return HistoryTip(chain=CHAIN, seq=len(entries), hash=entries[-1].hash)


def check(entries: Sequence[HistoryEntry], end: HistoryTip | None) -> list[Finding]:
    checker = ChainCheck(CHAIN)
    found = [finding for entry in sorted(entries, key=lambda e: e.id) for finding in checker.take(entry)]
    return found + list(checker.end(end))


LENGTHS = st.integers(2, 8)


@given(LENGTHS)
def test_an_untouched_chain_holds(length: int) -> None:
    entries = chain(length)
    assert check(entries, tip(entries)) == []


@given(LENGTHS, st.data())
def test_a_changed_byte_names_its_entry_alone(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    end = tip(entries)
    at = data.draw(st.integers(0, length - 1))
    raw = bytearray(entries[at].text.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 127).filter(lambda byte: byte != raw[place]))
    entries[at] = entries[at].model_copy(update={"text": raw.decode()})
    assert [finding.id for finding in check(entries, end)] == [entry_id(CHAIN, at + 1)]


@given(LENGTHS, st.data())
def test_an_entry_rewritten_with_its_digest_is_given_away_by_the_next(
    length: int, data: st.DataObject
) -> None:
    entries = chain(length)
    end = tip(entries)
    at = data.draw(st.integers(0, length - 1))
    previous = entries[at - 1].hash if at else ""
    text = entry_text(CHAIN, at + 1, previous, Kind.READING, "2026-01-01T00:00:00Z", {"forged": 1})
    entries[at] = HistoryEntry(id=entries[at].id, text=text.decode(), hash=Digest.SHA256.of(text))
    assert [finding.id for finding in check(entries, end)] == [entry_id(CHAIN, at + 1)]


@given(LENGTHS, st.data())
def test_a_removed_entry_is_named(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    end = tip(entries)
    at = data.draw(st.integers(0, length - 1))
    del entries[at]
    assert [finding.id for finding in check(entries, end)] == [entry_id(CHAIN, at + 1)]


@given(LENGTHS, st.data())
def test_two_swapped_entries_are_both_named(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    end = tip(entries)
    one, other = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    swapped = list(entries)
    swapped[one] = entries[other].model_copy(update={"id": entries[one].id})
    swapped[other] = entries[one].model_copy(update={"id": entries[other].id})
    found = {finding.id for finding in check(swapped, end)}
    assert {entries[one].id, entries[other].id} <= found


@given(LENGTHS, st.data())
def test_an_inserted_entry_is_named(length: int, data: st.DataObject) -> None:
    """However well it is made: behind the end, between two, or in the place of one with all that follow moved up."""
    entries = chain(length)
    end = tip(entries)
    at = data.draw(st.integers(0, length))
    previous = entries[at - 1].hash if at else ""
    text = entry_text(CHAIN, at + 1, previous, Kind.READING, "2026-01-01T00:00:00Z", {"forged": 1})
    forged = HistoryEntry(id=entry_id(CHAIN, at + 1), text=text.decode(), hash=Digest.SHA256.of(text))
    later = [e.model_copy(update={"id": entry_id(CHAIN, at + 2 + i)}) for i, e in enumerate(entries[at:])]
    found = [finding.id for finding in check([*entries[:at], forged, *later], end)]
    assert forged.id in found or (at < length and entry_id(CHAIN, at + 2) == found[0])
    between = forged.model_copy(update={"id": f"{entry_id(CHAIN, max(at, 1))}a"})
    assert between.id in [finding.id for finding in check([*entries, between], end)]


def test_a_chain_without_its_end_and_an_end_without_its_chain() -> None:
    entries = chain(3)
    assert [f.id for f in check(entries, None)] == [entry_id(CHAIN, 3)]
    assert [f.id for f in check([], tip(entries))] == [entry_id(CHAIN, 1)]


# --- heads


def heads(count: int, key: SigningKey = KEY) -> list[HistoryHead]:
    made: list[HistoryHead] = []
    for number in range(1, count + 1):
        entries = chain(number)
        leaves = (Leaf(chain=CHAIN, seq=number, hash=entries[-1].hash),)
        text = head_text(number, made[-1].hash if made else "", "2026-01-01T00:00:00Z", leaves, Digest.SHA256)
        made.append(
            HistoryHead(
                number=number,
                text=text.decode(),
                hash=Digest.SHA256.of(text),
                signature=key.sign(text),
                leaves=leaves,
            )
        )
    return made


def check_heads(given_heads: Sequence[HistoryHead]) -> list[str]:
    checker = HeadCheck(KEYS)
    return [finding.id for head in given_heads for finding in checker.take(head)]


def test_heads_hold_and_each_meddling_with_them_is_named() -> None:
    one, two, three = heads(3)
    assert check_heads([one, two, three]) == []
    assert check_heads([one, three]) == ["head 2"]
    forged = heads(2, SigningKey.read(new_secret("ed25519")))[1]
    assert check_heads([one, forged, three]) == ["head 2"]
    other_leaf = two.model_copy(update={"leaves": three.leaves})
    assert check_heads([one, other_leaf, three]) == ["head 2"]
    assert check_heads([one, two.model_copy(update={"number": 3}), three])[0] == "head 2"


def test_a_chain_rewritten_from_an_entry_on_differs_from_what_was_signed() -> None:
    """Every digest, the tip too, was made anew: only a head can tell."""
    entries = chain(4)
    head = heads(4)[3]
    text = entry_text(CHAIN, 4, entries[2].hash, Kind.READING, "2026-01-01T00:00:04Z", {"n": 99})
    rewritten = HistoryEntry(id=entries[3].id, text=text.decode(), hash=Digest.SM3.of(text))
    assert check([*entries[:3], rewritten], HistoryTip(chain=CHAIN, seq=4, hash=rewritten.hash)) == []
    assert [f.id for f in check_leaves(head, [*entries[:3], rewritten])] == [rewritten.id]
    assert [f.id for f in check_leaves(head, entries[:3])] == [rewritten.id]
    assert list(check_leaves(head, entries)) == []


@given(st.integers(1, 40), st.data())
def test_a_merkle_root_tells_any_two_lists_apart(count: int, data: st.DataObject) -> None:
    leaves = [Leaf(chain=f"c{n}", seq=1, hash="sha256:" + "0" * 64) for n in range(count)]
    at = data.draw(st.integers(0, count - 1))
    changed = [*leaves[:at], leaves[at].model_copy(update={"seq": 2}), *leaves[at + 1 :]]
    roots = {merkle_root(each, Digest.SHA256) for each in (leaves, changed, [*leaves, leaves[-1]])}
    assert len(roots) == 3


def test_the_merkle_root_is_that_of_rfc_9162() -> None:
    leaves = [Leaf(chain=f"c{n}", seq=1, hash="x") for n in range(3)]
    nodes = [merkle_root([leaf], Digest.SHA256) for leaf in leaves]
    raw = [bytes.fromhex(node[7:]) for node in nodes]
    left = bytes.fromhex(Digest.SHA256.of(b"\1" + raw[0] + raw[1])[7:])
    assert merkle_root(leaves, Digest.SHA256) == Digest.SHA256.of(b"\1" + left + raw[2])


def test_no_leaves_have_no_root() -> None:
    with pytest.raises(IndexError):
        merkle_root([], Digest.SHA256)
