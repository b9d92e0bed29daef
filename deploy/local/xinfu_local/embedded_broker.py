"""Starts the embedded broker: as ``python -m xinfu_local.embedded_broker DATA_DIR CLIENTS TANSU ARGUMENT...``.

DATA_DIR: of the running stack. CLIENTS: names of processes that use the bus, separated by commas. TANSU: the program.

A client that lives on from the broker before knows topics that this one has not. Tansu takes what it publishes to them, and when they
are created then, their ends begin at 0 again over what lies there (docs/brokers.md). So no client lives on: supervisord starts
them again.
"""

import os
import sys
from pathlib import Path
from uuid import uuid4

from xinfu_local.running import RunningStack


def main(data_dir: str, clients: str, *command: str) -> None:
    """Kill what runs of these clients, and become the broker."""
    stack = RunningStack.find(Path(data_dir))
    for name in stack.pids().keys() & set(clients.split(",")):
        stack.kill(name)
    # another cluster each time it is started, for it has lost all it had: clients are to see that
    os.execv(command[0], [*command, "--cluster-id", str(uuid4())])  # noqa: S606 (the pid that supervisord knows)


if __name__ == "__main__":
    main(*sys.argv[1:])
