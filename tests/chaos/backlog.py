"""Recovery from a backlog: applications are taken while all consumers are down, then these start and drain it.

    make backlog APPLICATIONS=20000

Two rates of one run stand side by side: steady, with everything up and applications coming as fast as they are taken, and drain,
from the start of the consumers until the last application has ended. All records belong to departments with systems of their own,
so that no person is waited for; the departments of the sandbox decide a second after they accept.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence

from chaos.drills import (
    Memory,
    Promises,
    console,
    drill_world,
    ended,
    main,
    memory,
    population,
    table,
    total,
    until_ended,
)
from chaos.load import Citizens
from chaos.population import Population
from e2e.people import World

from xinfu.compose import SERVICES
from xinfu_local import Broker

CONSUMERS = ("routing", "dept-adapter", "sync", "notify")
_STEADY_SHARE = 10
_UNLIMITED = str(10**9)
_SETTINGS = {
    "intake": dict.fromkeys(
        ("INTAKE_MAX_OUTBOX_PENDING", "INTAKE_MAX_UNROUTED_ITEMS", "INTAKE_MAX_UNSHOWN_ITEMS"), _UNLIMITED
    )
}
"""Here intake shall take what nobody deals with."""


class Rate:
    """How fast a phase went. ``changes``: (monotonic seconds, applications ended)."""

    def __init__(self, changes: Sequence[tuple[float, int]], started: float, events: int) -> None:
        first, last = changes[0][1], changes[-1][1]
        self.applications = last - first
        self.seconds = changes[-1][0] - started
        self.events = events
        # the middle: neither the time until the first has ended nor the last few
        low, high = first + self.applications * 0.1, first + self.applications * 0.9
        inside = [(at, number) for at, number in changes if low <= number <= high]
        self.middle = (
            (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]) if len(inside) > 1 else 0.0
        )

    @property
    def per_second(self) -> float:
        """Applications ended per second, from the first moment to the last."""
        return self.applications / self.seconds

    @property
    def events_per_second(self) -> float:
        """Events that took effect at all consumers, per second."""
        return self.events / self.seconds


async def steady(world: World, citizens: Citizens, wanted: int) -> Rate:
    """Everything is up."""
    before = await total(world, "xinfu_events_processed")
    started = time.monotonic()
    applying = asyncio.create_task(citizens.apply_all(0))
    changes = await until_ended(world, wanted)
    await applying
    return Rate(changes, started, await total(world, "xinfu_events_processed") - before)


async def drain(world: World, wanted: int) -> Rate:
    """The consumers are down and start now."""
    before = await total(world, "xinfu_events_processed", ["intake"])
    started = time.monotonic()
    await asyncio.to_thread(world.stack.start_process, *CONSUMERS, timeout_seconds=180)
    changes = await until_ended(world, wanted)
    return Rate(changes, started, await total(world, "xinfu_events_processed") - before)


def report(applications: int, taken_seconds: float, rates: Sequence[tuple[str, Rate]], seen: Memory) -> None:
    """The tables."""
    (_, steadily), (_, drained) = rates
    rows: list[tuple[str | int, ...]] = [
        (
            name,
            rate.applications,
            f"{rate.seconds:.0f}",
            f"{rate.per_second:.1f}",
            f"{rate.middle:.1f}",
            f"{rate.events_per_second:,.0f}",
        )
        for name, rate in rates
    ]
    rows.append(
        (
            "drain / steady",
            "",
            "",
            f"{drained.per_second / steadily.per_second:.2f}",
            f"{drained.middle / steadily.middle:.2f}" if steadily.middle else "",
            f"{drained.events_per_second / steadily.events_per_second:.2f}",
        )
    )
    columns = ("phase", "applications", "seconds", "ended/s", "ended/s, middle 80 %", "events/s")
    console.print(table("rates", columns, rows))
    console.print(
        f"{applications:,} applications taken in {taken_seconds:.0f} s with the consumers down,"
        f" {applications / taken_seconds:.0f}/s"
    )
    console.print(seen.table("memory, MB"))


async def drill(applications: int, seed: int, broker: Broker) -> None:
    """Run it. Raises DrillFailedError when a promise did not hold."""
    promises = Promises()
    few = max(applications // _STEADY_SHARE, min(applications, 500))
    async with drill_world(broker, _SETTINGS) as world:
        everybody = population(seed, few + applications, people=False)
        await everybody.publish(world, world.stack.data_dir)
        now, later = Population(everybody.companies[:few]), Population(everybody.companies[few:])
        first, rest = Citizens(world, now, seed), Citizens(world, later, seed)
        async with memory(world) as seen:
            steadily = await steady(world, first, few)
            await asyncio.to_thread(world.stack.stop_process, *CONSUMERS)
            started = time.monotonic()
            await rest.apply_all(0)
            taken_seconds = time.monotonic() - started
            console.print(f"{len(rest.acknowledged):,} applications wait; the consumers start")
            drained = await drain(world, few + applications)
        report(applications, taken_seconds, [("steady", steadily), ("drain", drained)], seen)
        taken = len(first.acknowledged) + len(rest.acknowledged)
        promises.check(taken == few + applications, f"{taken:,} applications acknowledged, each once")
        promises.check(ended(world) == taken, "every acknowledged application has ended")
        dead = sum(
            int(world.database(service)[name].count_documents({}))
            for service in SERVICES
            for name in ("parked_keys", "dead_letters")
        )
        promises.check(not dead, f"nothing is parked or dead ({dead})")
    promises.settle()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--applications", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=20260401)
    parser.add_argument("--broker", type=Broker, default=Broker.APACHE)
    arguments = parser.parse_args()
    main(drill(arguments.applications, arguments.seed, arguments.broker))
