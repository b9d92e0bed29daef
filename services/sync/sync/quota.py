"""What may be sent to one target now, by all replicas together: a token bucket of records, and calls under way at once. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Limits:
    """Of one target (contracts.catalogue.Target): records a second, records at once after a pause, calls at once, records of a call."""

    rate_per_second: float
    burst: int
    concurrency: int
    batch_size: int


@dataclass(frozen=True)
class Holding:
    """Calls a replica may have under way; free again after ``until``, if it dies."""

    batches: int
    until: datetime


@dataclass(frozen=True)
class Quota:
    """What is left: ``tokens`` records at the time ``at``; ``holdings`` by replica."""

    tokens: float
    at: datetime
    holdings: Mapping[str, Holding] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """What a replica may do: so many records, in so many calls at once."""

    rows: int
    batches: int


NOTHING = Grant(0, 0)


def take(
    quota: Quota | None, limits: Limits, replica: str, wanted: int, now: datetime, lease: timedelta
) -> tuple[Quota, Grant]:
    """Take up to ``wanted`` records. Nothing rather than a fraction of a call: many tiny calls cost both sides more.

    A replica holds one grant at a time: the next one takes the place of what it held.
    """
    full = _refilled(quota, limits, now)
    others = {who: held for who, held in full.holdings.items() if who != replica and held.until > now}
    free = limits.concurrency - sum(held.batches for held in others.values())
    rows = min(wanted, int(full.tokens), max(free, 0) * limits.batch_size)
    if rows < min(wanted, limits.batch_size, limits.burst):
        return replace(full, holdings=others), NOTHING
    batches = min(free, -(-rows // limits.batch_size))
    held = {**others, replica: Holding(batches, now + lease)}
    return Quota(full.tokens - rows, full.at, held), Grant(rows, batches)


def give_back(quota: Quota, limits: Limits, replica: str, unused: int, now: datetime) -> Quota:
    """End what a replica holds; ``unused`` of its records were not sent."""
    full = _refilled(quota, limits, now)
    others = {who: held for who, held in full.holdings.items() if who != replica}
    return Quota(min(full.tokens + unused, limits.burst), full.at, others)


def _refilled(quota: Quota | None, limits: Limits, now: datetime) -> Quota:
    if quota is None:
        return Quota(limits.burst, now)
    # a replica whose clock is behind adds nothing and takes nothing back
    seconds = max((now - quota.at).total_seconds(), 0.0)
    tokens = min(quota.tokens + seconds * limits.rate_per_second, limits.burst)
    return Quota(tokens, max(quota.at, now), quota.holdings)
