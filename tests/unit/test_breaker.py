"""The circuit breaker shared by dept-adapter and sync."""

from chassis.breaker import Breaker, BreakerState


def test_opens_after_failures_in_a_row_and_lets_one_probe_decide() -> None:
    breaker = Breaker(max_failures=3, open_seconds=10)
    breaker.failed(0, "x")
    breaker.failed(0, "x")
    breaker.succeeded()  # not in a row
    for _ in range(3):
        assert breaker.state(1) is BreakerState.CLOSED
        breaker.failed(1, "x")
    breaker.failed(9, "x")  # was under way: does not keep it open longer
    assert (breaker.state(10.9), breaker.state(11)) == (BreakerState.OPEN, BreakerState.HALF_OPEN)
    breaker.failed(12, "x")  # the probe
    assert (breaker.state(21.9), breaker.state(22)) == (BreakerState.OPEN, BreakerState.HALF_OPEN)
    breaker.succeeded()
    assert breaker.state(22) is BreakerState.CLOSED
    breaker.failed(22, "x")
    assert breaker.state(22) is BreakerState.CLOSED


def test_leaves_the_other_side_alone_for_as_long_as_it_asks() -> None:
    breaker = Breaker(max_failures=5, open_seconds=10)
    breaker.failed(0, "HTTP 429", retry_after_seconds=60)
    breaker.succeeded()  # another call that was under way
    assert breaker.state(59) is BreakerState.OPEN
    assert breaker.remaining_seconds(59) == 1
    assert breaker.state(60) is BreakerState.CLOSED
