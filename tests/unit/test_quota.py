"""A target's quota: whoever asks, in whatever order, no more is granted than the target may be asked."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sync.quota import NOTHING, Grant, Limits, Quota, give_back, take

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
LEASE = timedelta(seconds=15)
LIMITS = Limits(rate_per_second=100, burst=300, concurrency=4, batch_size=50)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two", "three"]),
            st.integers(0, 400),
            st.floats(-0.5, 3),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_replicas_together_stay_within_rate_and_concurrency(
    steps: list[tuple[str, int, float, bool]],
) -> None:
    quota: Quota | None = None
    latest, clock, first = START, START, None
    sent = 0
    open_: dict[str, Grant] = {}
    for replica, wanted, pause, ends in steps:
        clock += timedelta(seconds=pause)  # clocks of replicas differ: it may go back
        latest = max(latest, clock)
        if ends and quota is not None and replica in open_:
            unused = open_.pop(replica).rows // 2
            sent -= unused
            quota = give_back(quota, LIMITS, replica, unused, clock)
            continue
        first = first or clock  # from when on the bucket fills
        quota, grant = take(quota, LIMITS, replica, wanted, clock, LEASE)
        sent += grant.rows
        if grant.rows:
            open_[replica] = grant
            assert grant.rows <= min(wanted, grant.batches * LIMITS.batch_size)
            assert grant.rows >= min(wanted, LIMITS.batch_size), "no tiny calls"
        else:
            open_.pop(replica, None)
        alive = sum(held.batches for held in quota.holdings.values() if held.until > latest)
        assert alive <= LIMITS.concurrency
        assert sent <= LIMITS.burst + LIMITS.rate_per_second * (latest - first).total_seconds() + 1e-6


def test_what_a_dead_replica_held_is_free_again() -> None:
    quota, grant = take(None, LIMITS, "dead", 200, START, LEASE)
    assert grant == Grant(200, 4)
    quota, grant = take(quota, LIMITS, "other", 50, START + timedelta(seconds=5), LEASE)
    assert grant == NOTHING
    quota, grant = take(quota, LIMITS, "other", 50, START + LEASE, LEASE)
    assert grant == Grant(50, 1)
    assert set(quota.holdings) == {"other"}


def test_a_slow_target_is_asked_in_whole_bursts() -> None:
    slow = Limits(rate_per_second=1, burst=10, concurrency=1, batch_size=50)
    quota, grant = take(None, slow, "one", 400, START, LEASE)
    assert grant == Grant(10, 1)
    quota, grant = take(quota, slow, "one", 390, START + timedelta(seconds=9), LEASE)
    assert grant == NOTHING
    _, grant = take(quota, slow, "one", 390, START + timedelta(seconds=10), LEASE)
    assert grant == Grant(10, 1)
