"""Loopback ports for the processes of the local stack."""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 15_000
_handed_out: set[int] = set()


def free_port(preferred: int | None = None) -> int:
    """Give `preferred` when nothing listens on it, else any free TCP port of the loopback interface.

    A port chosen here lies below the kernel's range for outgoing connections. Inside that range a client that
    keeps reconnecting to a killed server can be given the server's own port as its source port, connect to
    itself, and keep the server from ever binding again.

    One process is never given the same port twice, unless it asks for it by `preferred`.
    """
    if preferred is not None and _is_free(preferred):
        return preferred
    for _ in range(200):
        port = _LOWEST + secrets.randbelow(_first_outgoing_port() - _LOWEST)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
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
