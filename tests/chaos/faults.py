"""Faults: a schedule drawn from a seed, and what makes each of them happen and end."""

import asyncio
import contextlib
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import ClientError
from chaos.population import API
from chaos.proxy import State
from chaos.topology import MONGODS, Topology
from e2e.people import World
from pymongo.errors import PyMongoError

from xinfu_local import StackError


class Kind(StrEnum):
    """What goes wrong."""

    KILL = "kill -9"
    FREEZE = "freeze"
    KILL_KAFKA = "kill -9 kafka"
    KILL_MONGOD = "kill -9 mongod"
    STEP_DOWN = "step-down"
    CUT_BUS = "bus cut"
    FULL_DISK = "full disk"
    CLOCK = "clock jump"
    TARGET = "target"
    DEPARTMENT = "department"
    MAIL = "mail"
    SIGN_IN = "sign-in"


@dataclass(frozen=True)
class Habit:
    """How often a kind of fault comes, and how long it stays (seconds). At most one of a kind at a time."""

    pause: tuple[float, float]
    lasts: tuple[float, float]


HABITS: Mapping[Kind, Habit] = {
    Kind.KILL: Habit((3, 9), (0, 0)),
    Kind.FREEZE: Habit((8, 20), (5, 15)),
    Kind.KILL_KAFKA: Habit((40, 80), (0, 0)),
    Kind.KILL_MONGOD: Habit((25, 50), (0, 0)),
    Kind.STEP_DOWN: Habit((25, 50), (0, 0)),
    Kind.CUT_BUS: Habit((10, 25), (5, 15)),
    Kind.FULL_DISK: Habit((40, 80), (5, 10)),
    Kind.CLOCK: Habit((15, 40), (10, 20)),
    Kind.TARGET: Habit((3, 10), (5, 15)),
    Kind.DEPARTMENT: Habit((5, 15), (5, 15)),
    Kind.MAIL: Habit((15, 40), (5, 15)),
    Kind.SIGN_IN: Habit((20, 50), (5, 15)),
}

SERVERS: Mapping[Kind, Habit] = {
    Kind.KILL_KAFKA: Habit((10, 25), (0, 0)),
    Kind.KILL_MONGOD: Habit((25, 50), (0, 0)),
    Kind.STEP_DOWN: Habit((25, 50), (0, 0)),
}
"""Kafka and MongoDB alone. No process of ours is killed, so what hangs is not healed by the next fault."""

_FULL_DISK_BYTES = 1_000_000
_TARGET_MODES: Sequence[dict[str, Any]] = (
    {"mode": "timeout"},
    {"mode": "fail", "status": 500},
    {"mode": "apply_then_fail", "status": 500, "rate": 0.5},
    {"mode": "answer_twice"},
    {"mode": "partial"},
    {"mode": "slow", "seconds": 3},
    {"mode": "forget", "rate": 0.3},
    {"mode": "out_of_order", "seconds": 8, "rate": 0.5},
)
_DEPARTMENT_MODES: Sequence[dict[str, Any]] = (
    {"mode": "slow", "seconds": 2},
    {"mode": "fail", "status": 500},
    {"mode": "timeout"},
    {"mode": "apply_then_fail", "status": 500, "rate": 0.5},
    {"mode": "answer_twice", "seconds": 5},
    {"mode": "reorder", "seconds": 5, "twice": True},
)
_MAIL_MODES: Sequence[dict[str, Any]] = (
    {"mode": "fail"},
    {"mode": "timeout", "seconds": 3},
    {"mode": "apply_then_fail", "rate": 0.5},
)
_SIGN_IN_MODES: Sequence[dict[str, Any]] = (
    {"mode": "fail"},
    {"mode": "timeout"},
    {"mode": "slow", "seconds": 2},
)


@dataclass(frozen=True)
class Fault:
    """One fault: seconds from the start of the window, how long, of what, and how."""

    start: float
    seconds: float
    kind: Kind
    victim: str
    how: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.0f} s" if self.seconds else ""
        how = " ".join(f"{name}={value}" for name, value in self.how.items())
        return f"{self.kind} {self.victim} {how}".rstrip() + lasts


def schedule(
    seed: int,
    seconds: float,
    services: Sequence[str],
    targets: Sequence[str],
    habits: Mapping[Kind, Habit] = HABITS,
) -> list[Fault]:
    """The faults of a window of so many seconds, in order. Every kind comes at least once. The same arguments give the same faults."""
    faults: list[Fault] = []
    for kind, habit in habits.items():
        rng = random.Random(f"{kind} {seed}")
        # the first one early enough for the kind to be in a short window too
        start = rng.uniform(0, min(habit.pause[1], seconds * 0.7))
        while start < seconds:
            lasts = min(rng.uniform(*habit.lasts), seconds - start)
            victim, how = _draw(rng, kind, services, targets)
            faults.append(Fault(start, lasts, kind, victim, how))
            start += lasts + rng.uniform(*habit.pause)
    return sorted(faults, key=lambda fault: fault.start)


def _draw(
    rng: random.Random, kind: Kind, services: Sequence[str], targets: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    match kind:
        case Kind.KILL | Kind.FREEZE:
            return rng.choice(services), {}
        case Kind.KILL_KAFKA:
            return "kafka", {}
        case Kind.KILL_MONGOD:
            return rng.choice(MONGODS), {}
        case Kind.STEP_DOWN:
            return "primary", {}
        case Kind.CUT_BUS:
            return rng.choice(services), {"state": rng.choice([State.BLACK_HOLE, State.REFUSE])}
        case Kind.FULL_DISK:
            return rng.choice(["kafka", *MONGODS]), {}
        case Kind.CLOCK:
            return rng.choice(services), {"by": rng.choice([-120, 120])}
        case Kind.TARGET:
            return rng.choice(targets), dict(rng.choice(_TARGET_MODES))
        case Kind.DEPARTMENT:
            return rng.choice(API), dict(rng.choice(_DEPARTMENT_MODES))
        case Kind.MAIL:
            return "smtp", dict(rng.choice(_MAIL_MODES))
        case Kind.SIGN_IN:
            return "oidc", dict(rng.choice(_SIGN_IN_MODES))


class Saboteur:
    """Makes faults happen, and ends them."""

    def __init__(self, topology: Topology, world: World, say: Callable[[str], None]) -> None:
        self.done: Counter[Kind] = Counter()
        self._topology = topology
        self._stack = topology.stack
        self._world = world
        self._say = say

    async def run(self, faults: Sequence[Fault]) -> None:
        """Let the schedule happen, then heal everything, also when stopped."""
        started = time.monotonic()

        async def happen(fault: Fault) -> None:
            await asyncio.sleep(fault.start - (time.monotonic() - started))
            at = f"{time.monotonic() - started:6.1f} s"
            try:
                await self._begin(fault)
            except (StackError, PyMongoError, ClientError, OSError) as error:
                self._say(f"{at}  {fault}: not possible now: {str(error).splitlines()[0]}")
                return
            self._say(f"{at}  {fault}")
            self.done[fault.kind] += 1
            await asyncio.sleep(fault.seconds)
            with contextlib.suppress(StackError, ClientError, OSError):  # it may have died meanwhile
                await self._end(fault)

        try:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(happen(fault))
        finally:
            await self.heal()

    async def heal(self) -> None:
        """End every fault there may be."""
        for name in self._topology.services:
            with contextlib.suppress(StackError):
                await asyncio.to_thread(self._stack.resume, name)
            self._topology.set_clock(name, 0)
            await self._topology.links.heal(name)
        for name in ("kafka", *MONGODS):
            with contextlib.suppress(StackError):
                await asyncio.to_thread(self._stack.limit_file_size, name, resource.RLIM_INFINITY)
        (await self._world.ask("DELETE", self._world.url("sandbox", "/sandbox/faults"))).ok()

    async def _begin(self, fault: Fault) -> None:
        victim = fault.victim
        match fault.kind:
            case Kind.KILL | Kind.KILL_KAFKA | Kind.KILL_MONGOD:
                await asyncio.to_thread(self._stack.kill, victim)
            case Kind.FREEZE:
                await asyncio.to_thread(self._stack.suspend, victim)
            case Kind.STEP_DOWN:
                await asyncio.to_thread(self._stack.step_down)
            case Kind.CUT_BUS:
                await self._topology.links.cut(victim, fault.how["state"])
            case Kind.FULL_DISK:
                await asyncio.to_thread(self._stack.limit_file_size, victim, _FULL_DISK_BYTES)
            case Kind.CLOCK:
                self._topology.set_clock(victim, fault.how["by"])
            case Kind.TARGET | Kind.DEPARTMENT | Kind.MAIL | Kind.SIGN_IN:
                await self._world.fault(victim, **fault.how)

    async def _end(self, fault: Fault) -> None:
        victim = fault.victim
        match fault.kind:
            case Kind.FREEZE:
                await asyncio.to_thread(self._stack.resume, victim)
            case Kind.CUT_BUS:
                await self._topology.links.heal(victim)
            case Kind.FULL_DISK:
                await asyncio.to_thread(self._stack.limit_file_size, victim, resource.RLIM_INFINITY)
            case Kind.CLOCK:
                self._topology.set_clock(victim, 0)
            case Kind.TARGET | Kind.DEPARTMENT | Kind.MAIL | Kind.SIGN_IN:
                url = self._world.url("sandbox", f"/sandbox/faults/{victim}")
                (await self._world.ask("DELETE", url)).ok()
