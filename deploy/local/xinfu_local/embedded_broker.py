"""Starts the embedded broker: as ``python -m xinfu_local.embedded_broker SOCKET CLIENTS TANSU ARGUMENT...``.

SOCKET: supervisord's. CLIENTS: names of processes that use the bus, separated by commas. TANSU: the program.

A client that lives on from the broker before knows topics that this one has not. Tansu takes what it publishes to them, and when they
are created then, their ends begin at 0 again over what lies there (docs/brokers.md). So no client lives on: supervisord starts
them again.
"""

import os
import signal
import sys
import time
from pathlib import Path
from uuid import uuid4

from xinfu_local import proc
from xinfu_local.supervision import Supervisor


def main(socket: str, clients: str, *command: str) -> None:
    """Kill what runs of these clients, and become the broker."""
    supervisor = Supervisor(Path(socket))
    processes = supervisor.processes()
    running = {name: pid for name in clients.split(",") if name and (pid := processes[name]["pid"])}
    for pid in running.values():
        proc.send_signal(pid, signal.SIGKILL)
    # until supervisord has reaped them: before that, threads of theirs may live on
    while running:
        processes = supervisor.processes()
        running = {name: pid for name, pid in running.items() if processes[name]["pid"] == pid}
        time.sleep(0.005)
    # another cluster each time it is started, for it has lost all it had: clients are to see that
    os.execv(command[0], [*command, "--cluster-id", str(uuid4())])  # noqa: S606 (the pid that supervisord knows)


if __name__ == "__main__":
    main(*sys.argv[1:])
