"""Loopback ports for the processes of the local stack."""

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 15_000
_handed_out: dict[int, int] = {}
"""Open lock files by port; the locks last as long as this process."""


def free_port(preferred: int | None = None) -> int:
    """Give `preferred` when nothing listens on it, else any free TCP port of the loopback interface.

    A port chosen here lies below the kernel's range for outgoing connections. Inside that range a client that
    keeps reconnecting to a killed server can be given the server's own port as its source port, connect to
    itself, and keep the server from ever binding again.

    One process is never given the same port twice, unless it asks for it by `preferred`, and two processes of one user are
    never given the same one: between the choice and the server that listens there pass seconds.
    """
    if preferred is not None and (preferred in _handed_out or _reserve(preferred)) and _is_free(preferred):
        return preferred
    for _ in range(200):
        port = _LOWEST + secrets.randbelow(_first_outgoing_port() - _LOWEST)
        if port not in _handed_out and _is_free(port) and _reserve(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts_connections(host: str, port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether something accepts a TCP connection there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def _reserve(port: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"xinfu-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _handed_out[port] = lock
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of an earlier server in TIME_WAIT do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _first_outgoing_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > _LOWEST + 1_000 else 32_768
