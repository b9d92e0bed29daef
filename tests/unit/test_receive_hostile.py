"""Whatever comes from the bus is read without an exception, and without a surprise either."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from bson import encode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chassis.dead_letters import as_received, malformed_letter
from chassis.inbox import Malformed, Received, Unknown, receive
from contracts.envelope import MalformedEventError
from contracts.errors import DeadLetterReason
from contracts.events import EVENTS
from contracts.topics import RECORDS
from support import message, published

KEY, HEADERS, VALUE = message(published("1"), "event-1")
GOOD = [(name, value.encode()) for name, value in HEADERS.items()]
DATA = json.loads(VALUE)
MAX_BYTES = 100_000

Headers = Sequence[tuple[str, Any]]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=30)
    | st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "\ud800", "\x00", "1e999"])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*DATA, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
# a good event with parts replaced gets further than noise
spoilt = st.dictionaries(st.sampled_from([*DATA]), documents, max_size=2).map(lambda parts: {**DATA, **parts})
texts = st.one_of(
    st.builds(lambda data: json.dumps(data).encode("utf-8", "surrogatepass"), documents | spoilt),
    st.integers(1, 20_000).map(lambda depth: b'{"record": ' + b"[" * depth),
    st.just(VALUE.replace(b'"', b'"\\ud800', 1)),
)
values = st.none() | st.binary(max_size=200) | texts | st.just(VALUE)
names = (
    st.sampled_from([name for name, _ in GOOD])
    | st.sampled_from(["", "a\x00b", "$set", "a.b"])
    | st.text(max_size=20)
)
header_values = st.none() | st.binary(max_size=300) | st.text(max_size=300).map(str.encode)
noise = st.lists(st.tuples(names, header_values), max_size=6)
types = st.sampled_from([*EVENTS, "cn.xinfu.record.published.v9"]).map(
    lambda name: [("ce_type", name.encode())]
)


def record(headers: Headers, value: Any, key: Any = KEY.encode()) -> ConsumerRecord:
    return ConsumerRecord(RECORDS.name, 3, 7, 0, 0, key, value, None, 0, 0, tuple(headers))


@given(
    headers=st.tuples(st.sampled_from([GOOD, []]), types | st.just([]), noise).map(
        lambda parts: [*parts[0], *parts[1], *parts[2]]
    ),
    value=values,
    key=st.none() | st.binary(max_size=30) | st.just(KEY.encode()),
)
@example(headers=[*GOOD, ("a\x00b", b"x")], value=VALUE, key=KEY.encode())
@settings(max_examples=500)
def test_hostile_messages_are_read_without_a_surprise(headers: Headers, value: bytes, key: bytes) -> None:
    read = receive(record(headers, value, key), MAX_BYTES)
    match read:
        case Malformed():
            assert not read.detail.startswith("unreadable"), read.detail
            # what is kept of it can be stored, and gives the same answer again
            letter = malformed_letter("test", read)
            encode(letter)
            with pytest.raises(MalformedEventError) as again:
                as_received(letter)
            assert (again.value.reason, again.value.detail) == (read.reason, read.detail)
        case Received():
            # and what is parked can be stored, and is the same event again
            encode(read.to_document())
            encode({name: part for name, part in read.event if isinstance(part, datetime)})
            assert Received.from_document(read.to_document()) == read
            assert (read.partition, read.offset) == (3, 7)
        case Unknown():
            assert read.type not in EVENTS


@pytest.mark.parametrize(
    "headers",
    [
        [*GOOD, ("x", "text")],
        [*GOOD, ("x", 5)],
        [*GOOD, ("x", [b"a"])],
        [*GOOD, (None, b"x")],
        [*GOOD, ("x",)],
        [*GOOD, None],
        None,
    ],
)
def test_headers_of_wrong_types_are_a_dead_letter(headers: Any) -> None:
    broken = ConsumerRecord(RECORDS.name, 3, 7, 0, 0, KEY.encode(), VALUE, None, 0, 0, headers)
    read = receive(broken, MAX_BYTES)
    assert isinstance(read, Malformed)
    assert read.reason is DeadLetterReason.BAD_HEADERS


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        ([*GOOD, ("x", b" " * MAX_BYTES)], VALUE, DeadLetterReason.TOO_LARGE),
        ([*GOOD, ("ce_id", b"x" * 201)], VALUE, DeadLetterReason.BAD_HEADERS),
        ([*GOOD, ("ce_source", b"x" * 201)], VALUE, DeadLetterReason.BAD_HEADERS),
        ([*GOOD, ("ce_id", b"event-2")], VALUE, DeadLetterReason.BAD_HEADERS),
        (
            GOOD,
            VALUE.replace(b"2026-01-06T00:00:00Z", b"0001-01-01T00:00:00+14:00"),
            DeadLetterReason.SCHEMA_MISMATCH,
        ),
    ],
)
def test_what_must_not_get_through(headers: Headers, value: bytes, reason: DeadLetterReason) -> None:
    read = receive(record(headers, value), MAX_BYTES)
    assert isinstance(read, Malformed), read
    assert read.reason is reason
