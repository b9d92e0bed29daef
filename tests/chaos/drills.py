"""What the drills share: a full stack of its own, applications that all end, waiting with patience, memory, printed tables."""

import asyncio
import inspect
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chaos.population import API, Population
from e2e.people import World, open_world
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from contracts.catalogue import Protocol, load_catalogue
from contracts.http.operations import ServiceStatus
from xinfu.compose import SERVICES, compose
from xinfu.operators import Services, as_operator
from xinfu_local import Broker, Stack

STALL_SECONDS = 180.0
"""A drill that makes no progress for so long has failed."""
LONGEST_SECONDS = 7_200
_LOOK_SECONDS = 0.5
_STATUS_SECONDS = 180
_PATIENCE_SECONDS = 30

console = Console(width=int(os.environ.get("COLUMNS", "150")), highlight=False)


class DrillFailedError(Exception):
    """A promise did not hold; the text says which."""


class Promises:
    """What was promised, and whether it held: said at once, raised at the end, so that one failure hides no other."""

    def __init__(self) -> None:
        self._broken: list[str] = []

    def check(self, holds: bool, promise: str) -> None:
        """Say whether a promise held."""
        console.print(f"{'[green]ok     [/green]' if holds else '[red]BROKEN [/red]'} {promise}")
        if not holds:
            self._broken.append(promise)

    def settle(self) -> None:
        """Raise DrillFailedError when one did not hold."""
        if self._broken:
            raise DrillFailedError("; ".join(self._broken))


@asynccontextmanager
async def drill_world(
    broker: Broker, settings: Mapping[str, Mapping[str, str]] | None = None
) -> AsyncIterator[World]:
    """All services, without tracing, on a stack in a directory that vanishes. ``settings``: by process, on top of the stack's."""
    environment = {name: {"OTEL_SDK_DISABLED": "true", **(settings or {}).get(name, {})} for name in SERVICES}
    with TemporaryDirectory(prefix="xinfu-drill-") as directory:
        data_dir = Path(directory)
        processes, endpoints = compose(data_dir, broker, environment=environment, parity=False)
        with Stack(
            processes,
            broker,
            data_dir,
            prepare=lambda _: endpoints.write(data_dir),
            ready_timeout_seconds=180,
        ) as stack:
            async with open_world(stack, endpoints) as world:
                yield world


def population(
    seed: int, size: int, *, people: bool = True, revoked: bool = False, objecting: bool = False
) -> Population:
    """Companies whose applications all end. ``people``: some are decided at desks, which takes Officers; else all by
    departments with systems of their own. ``revoked``: some repairs are taken back later. ``objecting``: some object, which takes Objections.
    """

    def fits(slugs: Iterable[str | None]) -> bool:
        return all(slug is not None if people else slug in API for slug in slugs)

    # seven in ten records are of departments with systems of their own
    drawn = Population.draw(seed, 2 * size + 20, load_catalogue())
    chosen = [c for c in drawn.companies if fits(r.slug for r in c.records)][:size]
    if not revoked:
        chosen = [
            replace(company, records=tuple(replace(record, revoked=False) for record in company.records))
            for company in chosen
        ]
    everybody = Population(chosen)
    if objecting:
        everybody.objections = {k: v for k, v in drawn.objections.items() if k in everybody.records}
    return everybody


# --- waiting


def ended(world: World) -> int:
    """Applications that have ended."""
    return int(world.database("intake")["applications"].count_documents({"status": "completed"}))


def open_objections(world: World, population: Population) -> int:
    """Objections that somebody still has to file or to end."""
    over = {"status": {"$in": ["upheld", "dismissed", "withdrawn"]}}
    return len(population.objections) - int(world.database("intake")["objections"].count_documents(over))


async def until(
    measure: Callable[[], Any], done: Callable[[Any], bool], what: str, stall_seconds: float = STALL_SECONDS
) -> list[tuple[float, Any]]:
    """Measure (in a thread, unless it is a coroutine function) until it is done; returns (monotonic seconds, value) of each change.
    Raises DrillFailedError without progress.
    """
    changes: list[tuple[float, Any]] = []
    while True:
        waits = inspect.iscoroutinefunction(measure)
        value, now = await (measure() if waits else asyncio.to_thread(measure)), time.monotonic()
        if not changes or changes[-1][1] != value:
            changes.append((now, value))
        if done(value):
            return changes
        if now - changes[-1][0] > stall_seconds:
            raise DrillFailedError(f"{what}: no progress for {stall_seconds:.0f} s, at {value}")
        await asyncio.sleep(_LOOK_SECONDS)


async def until_ended(world: World, number: int) -> list[tuple[float, int]]:
    """Wait until so many applications have ended."""
    return await until(lambda: ended(world), lambda n: n >= number, f"{number} applications ended")


def differing(world: World) -> dict[str, Any]:
    """The query for deliveries that differ; what is told by letter waits for a person."""
    by_letter = [t.id for t in world.catalogue.targets if t.protocol is Protocol.LETTER]
    return {"differs_since": {"$type": "date"}, "target_id": {"$nin": by_letter}}


def operators(world: World) -> AbstractAsyncContextManager[Services]:
    """The services as an operator asks them, with patience."""
    return as_operator(world.endpoints, _STATUS_SECONDS, _PATIENCE_SECONDS)


async def statuses(world: World) -> dict[str, ServiceStatus]:
    """Service -> its status."""
    async with operators(world) as services:
        return {name: await services.ask(ServiceStatus, name, "status") for name in SERVICES}


async def in_transit(world: World) -> dict[str, int]:
    """What is nobody's yet: events on the bus that their consumers have not taken, callbacks without an answer."""
    moving: Counter[str] = Counter()
    for name, status in (await statuses(world)).items():
        for consumer in status.consumers:
            # None: the bus does not answer
            moving[f"waiting for {name}"] += (
                1 if consumer.bus_lag is None else sum(topic.lag for topic in consumer.bus_lag)
            )
    for slug in API:
        url = world.url("sandbox", f"/departments/{slug}/sandbox/unsettled-callbacks")
        moving[f"callbacks of {slug}"] = (await world.ask("GET", url)).ok()["unsettled"]
    return {what: number for what, number in moving.items() if number}


def left(world: World) -> dict[str, int]:
    """What the services still have to do by themselves."""

    def count(service: str, collection: str, query: dict[str, Any]) -> int:
        return int(world.database(service)[collection].count_documents(query))

    work = {
        "differing deliveries": count("sync", "deliveries", differing(world)),
        "mails": count("notify", "emails", {"state": {"$in": ["pending", "sending"]}}),
    }
    for service in SERVICES:
        work[f"outbox of {service}"] = count(service, "outbox", {"bucket": {"$gte": 0}, "pending": True})
        work[f"parked at {service}"] = count(service, "parked_keys", {"state": "parked"})
    return {what: number for what, number in work.items() if number}


async def until_quiet(world: World) -> None:
    """Wait until the services have nothing left to do, and nothing is on its way to them. Twice in a row: what was on its way may have
    become work meanwhile.
    """
    quiet = 0

    async def work() -> dict[str, int]:
        nonlocal quiet
        # the second is dearer
        found = await asyncio.to_thread(left, world) or await in_transit(world)
        quiet = 0 if found else quiet + 1
        return found

    await until(work, lambda _: quiet > 1, "all work done")


# --- measuring


@dataclass
class Memory:
    """Resident memory in bytes, by process: at the beginning, at most, at the end."""

    before: dict[str, int]
    peak: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)

    def table(self, title: str) -> Table:
        """In MB."""
        rows = [
            (name, *(f"{at.get(name, 0) / 1e6:.0f}" for at in (self.before, self.peak, self.after)))
            for name in sorted(self.peak)
        ]
        return table(title, ("process", "before", "peak", "after"), rows)


@asynccontextmanager
async def memory(world: World) -> AsyncIterator[Memory]:
    """Looks every second until the block ends."""
    seen = Memory(world.stack.memory())

    async def watch() -> None:
        while True:
            seen.after = await asyncio.to_thread(world.stack.memory)
            for name, size in seen.after.items():
                seen.peak[name] = max(seen.peak.get(name, 0), size)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def metrics(world: World, service: str) -> list[Metric]:
    """All metrics of a service."""
    text = (await world.ask("GET", world.url(service, "/metrics"))).ok()
    return list(text_string_to_metric_families(str(text)))


async def total(world: World, name: str, services: Sequence[str] = SERVICES) -> int:
    """The sum of all samples of a counter (its name without ``_total``)."""
    return sum(
        [
            int(sample.value)
            for service in services
            for metric in await metrics(world, service)
            if metric.name == name
            for sample in metric.samples
            if sample.name.endswith("_total")
        ]
    )


# --- printing


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; all but the first column on the right."""
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    return made


def main(drill: Coroutine[Any, Any, None]) -> None:
    """Run a drill; exit with 1 and one line when it fails."""
    started = time.monotonic()
    try:
        asyncio.run(asyncio.wait_for(drill, LONGEST_SECONDS))
    except (DrillFailedError, TimeoutError) as error:
        console.print("FAILED", str(error) or f"after {LONGEST_SECONDS} s", style="red", markup=False)
        raise SystemExit(1) from None
    finally:
        console.print(f"{time.monotonic() - started:.0f} s in all")
