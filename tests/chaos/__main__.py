"""python -m chaos: load, faults, drain, judgement. Exit status 0 only when nothing was lost, nothing took effect twice, every target
shows what was decided, and no invariant is broken.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from dataclasses import asdict

from chaos.hooks.sitecustomize import SABOTAGE
from chaos.report import COLUMNS, Result
from chaos.run import Run, console
from chaos.topology import build
from e2e.people import open_world

from xinfu_local import CACHE_DIR, RunningStack, StackError

RESULTS = CACHE_DIR / "chaos"
_RUN = RESULTS / "run"
_REST_SECONDS = 2400
"""Longest time of all that is not the window of faults."""


def main() -> int:
    """Run once; returns the exit status."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8, help="of faults; 0: none, everything at once")
    parser.add_argument("--applications", type=int, default=3000)
    parser.add_argument(
        "--sabotage", choices=sorted(SABOTAGE), help="take out a guarantee: the run has to fail"
    )
    parser.add_argument("--servers-only", action="store_true", help="only Kafka and MongoDB fail")
    arguments = parser.parse_args()
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "MONGODB_URI"):
        if os.environ.get(name):
            parser.error(f"unset {name}: a chaos run breaks servers of its own, not yours")
    result = Result(
        arguments.seed,
        arguments.minutes,
        arguments.applications,
        arguments.sabotage,
        arguments.servers_only,
    )
    try:
        _clear()
        topology = build(_RUN, arguments.sabotage, direct=arguments.servers_only)

        async def run() -> None:
            async with (
                asyncio.timeout(arguments.minutes * 60 + _REST_SECONDS),
                open_world(topology.stack, topology.endpoints) as world,
            ):
                await Run(topology, world, result).go()

        with topology.stack:
            asyncio.run(run())
    except (StackError, TimeoutError) as error:
        console.print(f"FAILED {type(error).__name__} {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped", style="red")
        return 130
    _report(result)
    return 0 if result.holds else 1


def _clear() -> None:
    """Start afresh. Raises StackError when a run is under way."""
    try:
        running = RunningStack.find(_RUN)
    except StackError:
        shutil.rmtree(_RUN, ignore_errors=True)
    else:
        raise StackError(f"a chaos run is under way in {_RUN} (process {running.description.pid})")


def _report(result: Result) -> None:
    for name, value in asdict(result).items():
        console.print(f"{name:14} {value}", markup=False)
    suffix = f"-{result.sabotage}" if result.sabotage else ""
    suffix += "-servers" if result.servers_only else ""
    path = RESULTS / f"{result.seed}{suffix}.json"
    path.write_text(
        json.dumps({**asdict(result), "holds": result.holds}, ensure_ascii=False, indent=2) + "\n"
    )
    console.print(f"\n{path}\n| {' | '.join(COLUMNS)} |\n{result.row()}", markup=False, soft_wrap=True)
    console.print(
        "every invariant holds" if result.holds else "BROKEN", style="green" if result.holds else "red"
    )


if __name__ == "__main__":
    sys.exit(main())
