"""chassis: ids of events, their order in the outbox, and the waits of parked keys."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from unit.interleavings import Consumer, received

from chassis.inbox import Received
from chassis.parking import RetryPolicy
from chassis.unit_of_work import UnitOfWork
from contracts.envelope import event_id
from contracts.events import EVENTS, RecordWithdrawn
from support import published

causes = st.tuples(
    st.text(max_size=8) | st.sampled_from(["callback:a", "callback:a/b", "callback:a/b/0"]),
    st.sampled_from(sorted(EVENTS)),
    st.sampled_from(["rec_" + "0" * 32, "rec_" + "1" * 32]),
    st.integers(0, 12),
)


@given(st.lists(causes, unique=True))
def test_ids_of_events_are_the_same_for_the_same_cause_and_no_other(
    parts: list[tuple[str, str, str, int]],
) -> None:
    ids = [event_id(*part) for part in parts]
    assert ids == [event_id(*part) for part in parts]
    assert len(set(ids)) == len(parts)


def test_ids_of_events_never_change() -> None:
    """They are in the inboxes of others: a new way to make them would repeat every effect on a replay."""
    known = event_id("submit:app_1", "cn.xinfu.application.submitted.v1", "app_1", 0)
    assert known == "773ba355-0a7d-5db4-b901-daa3d885e808"


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=6), max_size=5))
def test_the_outbox_keeps_the_order_of_transactions_and_within_them(
    work: list[list[tuple[int, int]]],
) -> None:
    """Each event received leads to some events about its record."""

    async def handler(unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for one in batch:
            for n in range(repeats[one.identity]):
                unit.emit(
                    RecordWithdrawn(record_id=one.key, reason=f"{one.id} {n}", withdrawn_at=unit.now),
                    cause=one.id,
                )

    repeats: Counter[str] = Counter()
    consumer, expected, ids = Consumer(handler), [], []
    for b, transaction in enumerate(work):
        batch = [received(published(str(record)), f"{b} {n}") for n, (record, _) in enumerate(transaction)]
        for one, (_, times) in zip(batch, transaction, strict=True):
            repeats[one.identity] = times
            expected += [f"{one.id} {n}" for n in range(times)]
            ids += [event_id(one.id, RecordWithdrawn.TYPE, one.key, n) for n in range(times)]
        consumer.take(batch)
    told = [event.reason for event in consumer.told if isinstance(event, RecordWithdrawn)]
    assert told == expected
    assert [document["_id"] for document in sorted(consumer.outbox, key=lambda d: d["seq"])] == ids
    assert len({document["seq"] for document in consumer.outbox}) == len(expected)
    buckets = {(document["key"], document["bucket"]) for document in consumer.outbox}
    assert len(buckets) == len({key for key, _ in buckets}), "the events of a key are in one bucket"


@given(
    base=st.floats(0.001, 3_600),
    longest=st.floats(0.001, 7 * 86_400),
    attempts=st.integers(1, 100) | st.integers(1, 10**9),
)
def test_waits_double_up_to_the_longest_and_half_of_each_is_jitter(
    base: float, longest: float, attempts: int
) -> None:
    policy = RetryPolicy(base, longest, max_attempts=1)
    full = timedelta(seconds=min(base * 2.0 ** min(attempts - 1, 100), longest))
    tick = timedelta(microseconds=1)
    assert full / 2 - tick <= policy.delay(attempts) <= full + tick
