"""Median time from submission to decision at departments of every kind, while one department answers and while it is stopped.

    PYTHONPATH=tests python tests/bench/isolation.py

The local stack, the sandbox's departments (decision a second after the acceptance, that a second after the receipt). Rounds take turns: one
with hz-sthj working, one with it silent (every request waits until it is given up), so that both see the same machine. hz-sthj gets as many
applications as each of the others. The time ends when the grant is in the outbox of dept-adapter.
"""

import asyncio
import statistics
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from e2e.people import OTHER_API, World, open_world

from contracts.events import RepairGranted
from support import eventually
from xinfu.compose import compose
from xinfu_local import Broker, Stack

STOPPED = "hz-sthj"
OTHERS = {OTHER_API: "api，回调", "hz-ycj": "api，查询", "hz-gjjzx": "files", "hz-yzj": "events"}
ROUNDS, EACH = 3, 10
# intake takes so many files at once
_importing = asyncio.Semaphore(2)


async def seconds_of(world: World, slug: str) -> float:
    """From submission until the grant of one application has taken effect."""
    async with _importing:
        company = await world.company(world.row(slug))
    application = (await world.submit(company)).ok()
    granted = {"key": application["items"][0]["item_id"], "headers.ce_type": RepairGranted.TYPE}
    outbox = world.database("dept-adapter")["outbox"]

    async def decided() -> bool:
        return outbox.find_one(granted) is not None

    await eventually(decided, 180)
    found = outbox.find_one(granted) or {}
    submitted = datetime.fromisoformat(application["submitted_at"])
    return float((found["created_at"].replace(tzinfo=UTC) - submitted).total_seconds())


async def burden(world: World) -> None:
    """Applications at the department that may be stopped; nobody waits for them."""
    company = await world.company(*(world.row(STOPPED) for _ in range(EACH)))
    (await world.submit(company)).ok()


async def measure(world: World) -> dict[bool, dict[str, list[float]]]:
    """Stopped or not -> department -> seconds."""
    found: dict[bool, dict[str, list[float]]] = {False: defaultdict(list), True: defaultdict(list)}
    for number in range(ROUNDS + 1):
        for stopped in (False, True):
            if stopped:
                await world.fault(STOPPED, mode="timeout", seconds=600)
            else:
                await world.ask("DELETE", world.url("sandbox", f"/sandbox/faults/{STOPPED}"))
            await burden(world)
            slugs = [slug for slug in OTHERS for _ in range(EACH)]
            times = await asyncio.gather(*(seconds_of(world, slug) for slug in slugs))
            if number:  # the first round warms up
                for slug, seconds in zip(slugs, times, strict=True):
                    found[stopped][slug].append(seconds)
    return found


async def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        processes, endpoints = compose(Path(directory), Broker.EMBEDDED)
        with Stack(
            processes,
            Broker.EMBEDDED,
            Path(directory),
            prepare=lambda _: endpoints.write(Path(directory)),
            ready_timeout_seconds=300,
        ) as stack:
            async with open_world(stack, endpoints) as world:
                found = await measure(world)
    print(f"| 部门 | 方式 | {STOPPED} 正常 | {STOPPED} 停 |\n|---|---|---|---|")
    for slug, kind in OTHERS.items():
        medians = [statistics.median(found[stopped][slug]) for stopped in (False, True)]
        print(f"| {slug} | {kind} | {medians[0]:.1f} 秒 | {medians[1]:.1f} 秒 |")


if __name__ == "__main__":
    asyncio.run(main())
