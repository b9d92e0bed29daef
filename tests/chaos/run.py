"""One run: population, load and faults together, drain, judgement."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from chaos.drills import differing, in_transit, open_objections, operators
from chaos.faults import HABITS, SERVERS, Saboteur, schedule
from chaos.judge import Judge, gather_evidence
from chaos.load import Citizens, Officers
from chaos.objections import Objections
from chaos.population import Population
from chaos.report import Result
from chaos.sources import Sources
from chaos.topology import Topology
from e2e.people import World
from rich.console import Console

from xinfu.compose import SERVICES
from xinfu.verify import show, verify

_LOAD_SHARE = 0.9
"""Of the window of faults; the rest of it is for what was filed last."""
_LATE_SECONDS = 1200
"""For the applications that were not taken while faults went on: everybody is to be answered."""
_READY_SECONDS = 300
"""Until every process is ready once: with a thousand applications still at work, on a machine without a free moment."""
_DRAIN_SECONDS = 1200
_STALL_SECONDS = 200
"""Longer than any lease or pause, and than a clock was wrong."""
_LOOK_SECONDS = 2.0
_PROGRESS_SECONDS = 15
_HELD_BACK_SECONDS = 10
_UNSEEN = "deliveries not looked at"
_VERIFY_SECONDS = 180

console = Console(width=140, highlight=False)


class Run:
    """One chaos run on a stack that is up."""

    def __init__(self, topology: Topology, world: World, result: Result) -> None:
        self._topology = topology
        self._world = world
        self._result = result
        self.population = Population.draw(result.seed, result.applications, world.catalogue)
        self.citizens = Citizens(world, self.population, result.seed, topology.replicas)
        self.officers = Officers(world, self.population, self.citizens, result.seed, topology.replicas)
        self.objections = Objections(world, self.population, self.citizens, result.seed, topology.replicas)
        self.sources = Sources(world, self.population, topology.replicas)

    async def go(self) -> None:
        """All of it; fills in the result."""
        result = self._result
        await self.population.publish(self._world, self._topology.stack.data_dir)
        records = len(self.population.records)
        console.print(f"{result.applications:,} companies with {records:,} records; seed {result.seed}")
        window = result.minutes * 60
        # one that nobody can look at keeps what a fault has done to it
        targets = [target.id for target in self._world.catalogue.targets if target.read_back]
        habits = SERVERS if result.servers_only else HABITS
        faults = schedule(result.seed, window, self._topology.services, targets, habits)
        saboteur = Saboteur(self._topology, self._world, console.print)
        started = time.monotonic()
        async with self.officers.working(), self.objections.working(), _watching(self._progress):
            share = window * _LOAD_SHARE
            load = asyncio.gather(self.citizens.apply_all(share), self.sources.correct_all(share))
            try:
                await saboteur.run(faults)
                console.print(f"{time.monotonic() - started:6.1f} s  all faults ended")
                await asyncio.wait([load], timeout=_LATE_SECONDS)
            finally:
                load.cancel()
                (failure,) = await asyncio.gather(load, return_exceptions=True)
            if isinstance(failure, Exception):
                raise failure
            draining = time.monotonic()
            await asyncio.to_thread(self._topology.stack.wait_ready, None, _READY_SECONDS)
            result.drained = await self._drain()
            result.drain_seconds = time.monotonic() - draining
            await self.citizens.works.stop()
        result.faults = {kind.value: number for kind, number in saboteur.done.items()}
        await self._judge()
        result.wall_seconds = time.monotonic() - started

    def _documents(self, service: str, collection: str, query: dict[str, Any]) -> int:
        return int(self._world.database(service)[collection].count_documents(query))

    def _progress(self) -> str:
        count = self._documents
        filed, ended = (
            count("intake", "applications", {}),
            count("intake", "applications", {"status": "completed"}),
        )
        again = dict(self._asked_again().most_common(4))
        return (
            f"acknowledged {len(self.citizens.acknowledged):,}, filed {filed:,}, ended {ended:,},"
            f" in officers' hands {len(self.officers.works):,}, asked again {again}"
        )

    def _asked_again(self) -> Counter[str]:
        return self.citizens.http.again + self.officers.http.again + self.objections.http.again

    # --- drain

    async def _drain(self) -> bool:
        """Wait until nothing is left to do; False when something still is after a bounded time."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        # pushes a target holds back take effect when it is looked at
        await asyncio.sleep(_HELD_BACK_SECONDS)
        for target in self._world.catalogue.targets:
            await self._world.ask(
                "GET", self._world.url("sandbox", f"/targets/{target.id}/sandbox/records?limit=1")
            )
        since, moved_at = time.time(), time.monotonic()
        before: dict[str, int] = {}
        quiet = 0
        while True:
            left, now = await self._left(since), time.monotonic()
            quiet = 0 if left else quiet + 1
            # twice: what was on its way may have become work while we looked
            if quiet > 1:
                return True
            if left.get(_UNSEEN):
                await asyncio.to_thread(self._look_again, since)
            if left != before:
                moved_at, before = now, left
            if now > deadline or now - moved_at > _STALL_SECONDS:
                console.print(f"not done, and nothing moves for {now - moved_at:.0f} s: {left}", style="red")
                return False
            await asyncio.sleep(_LOOK_SECONDS)

    async def _left(self, since: float) -> dict[str, int]:
        """What is left to do. ``since``: epoch seconds after which sync has to have looked at every target once."""
        left = await asyncio.to_thread(self._left_at_services, since)
        # dear, so only when all else is done: what is on the way and nowhere yet
        if not any(left.values()):
            left |= await in_transit(self._world)
        return {what: number for what, number in left.items() if number}

    def _left_at_services(self, since: float) -> dict[str, int]:
        count = self._documents
        waiting = sum(
            any(r.department is None for r in c.records) for c in self.citizens.acknowledged.values()
        )
        moment = datetime.fromtimestamp(since, UTC)
        left = {
            "open applications": count("intake", "applications", {"status": "open"}) - waiting,
            "open objections": open_objections(self._world, self.population),
            "in officers' hands": len(self.officers.works),
            "in citizens' hands": len(self.citizens.works),
            "objections in hand": len(self.objections.works),
            "differing deliveries": count("sync", "deliveries", differing(self._world)),
            _UNSEEN: count("sync", "deliveries", {"seen_at": {"$lt": moment}}),
            "mails": count("notify", "emails", {"state": {"$in": ["pending", "sending"]}}),
        }
        for service in SERVICES:
            left[f"outbox of {service}"] = count(service, "outbox", {"pending": True, "bucket": {"$gte": 0}})
            left[f"parked at {service}"] = count(service, "parked_keys", {"state": "parked"})
        return left

    def _look_again(self, since: float) -> None:
        """As if the pause until the next look had passed, wherever the last one was before then."""
        now = datetime.now(UTC)
        self._world.database("sync")["deliveries"].update_many(
            {
                "seen_at": {"$lt": datetime.fromtimestamp(since, UTC)},
                "next_action_at": {"$gt": now},
                "differs_since": None,
                "lease_until": {"$lte": now},  # whoever holds it would write its own over this
            },
            {"$set": {"next_action_at": now}},
        )

    # --- judgement

    async def _judge(self) -> None:
        result = self._result
        evidence = await gather_evidence(self._world, self.citizens, self.population)
        judge = Judge(self.population, self.citizens, self.officers, self.objections, evidence)
        findings = judge.findings()
        for finding in findings:
            console.print(str(finding), style=None if not finding.broken else "red", markup=False)
        result.broken = {finding.name: len(finding.broken) for finding in findings if finding.broken}
        await self._verify()
        result.submitted = len(evidence.applications)
        result.terminal = sum(view["status"] == "completed" for view in evidence.applications.values())
        result.waiting = dict(judge.waiting())
        result.converged = judge.converged()
        pushes = [line for log in evidence.log.values() for line in log if line["cause"] == "push"]
        result.effects = sum(line["effect"] for line in pushes)
        result.duplicates = {
            "events": await self._duplicate_events(),
            "pushes": sum(
                line["status"] == "applied" and not line["effect"] and not line["held"] for line in pushes
            ),
            "mails": sum(mail["deliveries"] - 1 for mail in evidence.mails),
            "submissions": self.citizens.replayed,
        }
        result.parked = sum(
            self._topology.stack.logs(name).count('"key parked"') for name in self._topology.services
        )
        result.dead = sum(self._documents(s, "dead_letters", {}) for s in SERVICES)
        result.dead += sum(self._documents(s, "parked_keys", {"state": "dead"}) for s in SERVICES)
        if result.dead:
            result.broken["nothing-dead"] = result.dead
        result.again = dict(self._asked_again())

    async def _verify(self) -> None:
        """The services' own invariants."""
        async with operators(self._world) as services:
            verification = await verify(services, settle_seconds=0)
        show(verification, console)
        self._result.broken |= verification.violated
        self._result.unchecked = verification.failures

    async def _duplicate_events(self) -> int:
        """Of the lives that are left: what a killed process had counted is gone."""
        total = 0.0
        for name in self._topology.services:
            url = (self._topology.stack.description.health_urls[name] or "").replace("/readyz", "/metrics")
            text = str((await self._world.ask("GET", url)).ok())
            total += sum(
                float(line.rsplit(" ", 1)[1])
                for line in text.splitlines()
                if line.startswith("xinfu_events_duplicate_total{")
            )
        return int(total)


@asynccontextmanager
async def _watching(describe: Callable[[], str]) -> AsyncIterator[None]:
    async def watch() -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            try:
                text = await asyncio.to_thread(describe)
            except Exception as error:
                text = f"{type(error).__name__}"
            console.print(f"{time.monotonic() - started:6.1f} s  {text}", style="dim")

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
