"""The bus loses everything: in the middle of the flow Kafka is stopped, wiped and started, and the outboxes are replayed.

    make lost-bus APPLICATIONS=300

What is judged is what citizens, targets, departments and mailboxes hold at the end, as after a chaos run.
"""

import argparse
import asyncio
import sys
from collections import Counter

from chaos.drills import (
    DrillFailedError,
    Promises,
    console,
    drill_world,
    ended,
    main,
    open_objections,
    population,
    table,
    total,
    until,
    until_ended,
    until_quiet,
)
from chaos.hostile import consumers_of
from chaos.judge import Judge, gather_evidence
from chaos.load import Citizens, Officers
from chaos.objections import Objections
from e2e.people import World

from xinfu.compose import SERVICES
from xinfu_local import Broker

_COMMAND_SECONDS = 600
_FROZEN = ("routing", "sync")
_FROZEN_SECONDS = 3.0
"""Consumers that stand still before the bus is lost, so that it certainly holds what nobody has taken."""


async def xinfu(world: World, *arguments: str) -> None:
    """Run the real command against the stack and show what it prints. Raises DrillFailedError when it fails."""
    console.print(f"$ xinfu {' '.join(arguments)}", markup=False)
    command = [sys.executable, "-m", "xinfu", *arguments, "--data-dir", str(world.stack.data_dir)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _COMMAND_SECONDS)
    except TimeoutError:
        process.kill()
        raise DrillFailedError(f"xinfu {arguments[0]} takes longer than {_COMMAND_SECONDS} s") from None
    console.print(output.decode().rstrip(), markup=False)
    if process.returncode:
        raise DrillFailedError(f"xinfu {' '.join(arguments)} ended with {process.returncode}")


def lost(world: World) -> tuple[int, int]:
    """Events published so far, and deliveries of them that no consumer has taken: what only the bus had."""
    published, missing = 0, 0
    for owner in SERVICES:
        for event in world.database(owner)["outbox"].find({"published_at": {"$exists": True}}, {"value": 0}):
            published += 1
            identity = f"{event['headers']['ce_source']}#{event['_id']}"
            for consumer in consumers_of(event["topic"]):
                inbox = world.database(consumer)["inbox"]
                missing += inbox.find_one({"_id": f"{consumer}:{identity}"}) is None
    return published, missing


async def drill(applications: int, seed: int, broker: Broker) -> None:
    """Run it. Raises DrillFailedError when a promise did not hold."""
    promises = Promises()
    async with drill_world(broker) as world:
        stack = world.stack
        everybody = population(seed, applications, revoked=True, objecting=True)
        await everybody.publish(world, stack.data_dir)
        citizens = Citizens(world, everybody, seed)
        officers = Officers(world, everybody, citizens, seed)
        objections = Objections(world, everybody, citizens, seed)
        async with officers.working(), objections.working():
            applying = asyncio.create_task(citizens.apply_all(applications / 40))
            await until(lambda: ended(world), lambda n: n >= applications // 4, "a quarter ended")
            before = ended(world)
            for name in _FROZEN:
                stack.suspend(name)
            await asyncio.sleep(_FROZEN_SECONDS)
            await asyncio.to_thread(stack.wipe_kafka)
            for name in _FROZEN:
                stack.resume(name)
            # what a restarted service does: it makes its topics, and reads them from the beginning
            await asyncio.to_thread(stack.stop_process, *SERVICES)
            published, missing = await asyncio.to_thread(lost, world)
            await asyncio.to_thread(stack.start_process, *SERVICES, timeout_seconds=180)
            await xinfu(world, "outbox", "replay", "--reason", "drill: the bus has lost its data")
            await applying
            await until_ended(world, applications)
            await until(lambda: len(officers.works), lambda busy: not busy, "officers at rest")
            await until(lambda: open_objections(world, everybody), lambda n: not n, "all objections ended")
        await until_quiet(world)
        evidence = await gather_evidence(world, citizens, everybody)
        findings = Judge(everybody, citizens, officers, objections, evidence).findings()
        statuses = Counter(view["status"] for view in evidence.applications.values())
        rows = [
            ("applications acknowledged", len(citizens.acknowledged)),
            ("ended when Kafka was wiped", before),
            ("events on the bus then, all lost", published),
            ("deliveries of them still to be taken", missing),
            ("duplicates suppressed afterwards", await total(world, "xinfu_events_duplicate")),
            *((f"applications {status} at the end", number) for status, number in statuses.items()),
        ]
        console.print(table(f"lost bus, seed {seed}", ("what", "number"), rows))
        promises.check(missing > 0, "something was lost that only the outboxes still had")
        for finding in findings:
            promises.check(not finding.broken, str(finding).split(maxsplit=1)[1])
        await xinfu(world, "verify")
    promises.settle()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--applications", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20260401)
    parser.add_argument("--broker", type=Broker, default=Broker.APACHE)
    arguments = parser.parse_args()
    main(drill(arguments.applications, arguments.seed, arguments.broker))
