"""What the local stack runs: one operating system process each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from xinfu_local.errors import StackError


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the stack.

    name: lower-case letters, digits and hyphens; it names the log file too.
    command: program and arguments, handed on as they are (no shell reads them).
    environment: added to that of the caller; None removes a variable.
    health_url: http://… answers 200, or tcp://host:port accepts a connection, once the process is ready;
        None means ready when it has stayed alive for a second.
    stop_wait_seconds: how long it may take to end after SIGTERM before SIGKILL.
    directory: working directory; None means that of the caller.
    uses_bus: a client of the bus, which the embedded broker must not find running when it starts: it is killed, and started again.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    health_url: str | None = None
    stop_wait_seconds: int = 10
    directory: Path | None = None
    uses_bus: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be started.

        :raises StackError: a name, command or health URL of the wrong form.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", self.name):
            raise StackError(
                f"process name {self.name!r}: use lower-case letters, digits and hyphens, at most 63 of them"
            )
        if isinstance(self.command, str) or not self.command:
            raise StackError(f"process {self.name}: command must be a list: program, then arguments")
        if self.health_url is not None:
            url = urlsplit(self.health_url)
            if url.scheme not in ("http", "tcp") or not url.hostname or not url.port:
                raise StackError(
                    f"process {self.name}: health_url {self.health_url!r} must be http://host:port/path "
                    "or tcp://host:port"
                )
        for key in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise StackError(
                    f"process {self.name}: {key!r} cannot be the name of an environment variable"
                )
