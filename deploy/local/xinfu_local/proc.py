"""Processes as /proc shows them: memory by process group, and what an old stack left behind."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def memory_of_groups(groups: Iterable[int]) -> dict[int, int]:
    """Resident memory in bytes of each process group, summed over its processes.

    Pages that several processes share count once for each of them.
    """
    totals = dict.fromkeys(groups, 0)
    for pid in _pids():
        group = _group(pid)
        if group in totals:
            totals[group] += _resident_bytes(pid)
    return totals


def pids_of_group(group: int) -> list[int]:
    """Every process of a process group."""
    return [pid for pid in _pids() if _group(pid) == group]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that only waits to be reaped."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in ("Z", "X")


def command_line(pid: int) -> str:
    """The command line with spaces between the arguments; empty when the process is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def pids_with_environment(key: str, value: str) -> list[int]:
    """Every living process, save the caller, that was started with this environment variable."""
    wanted = os.fsencode(f"{key}={value}")
    return [
        pid
        for pid in _pids()
        if pid != os.getpid() and is_alive(pid) and wanted in _read(pid, "environ").split(b"\0")
    ]


def end(pids: Iterable[int], grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL for those that are still there after `grace_seconds`."""
    alive = set(pids)
    for number, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for pid in alive:
            send_signal(pid, number)
        deadline = time.monotonic() + wait_seconds
        while alive and time.monotonic() < deadline:
            alive = {pid for pid in alive if is_alive(pid)}
            time.sleep(0.02)
        if not alive:
            return


def send_signal(pid: int, number: signal.Signals) -> None:
    """Like os.kill, but a process that is already gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""


def _stat(pid: int) -> list[str]:
    # pid (name) state parent group …; the name may itself hold spaces and brackets.
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _group(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[2]) if len(fields) > 2 else None


def _resident_bytes(pid: int) -> int:
    for line in _read(pid, "status").decode(errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
