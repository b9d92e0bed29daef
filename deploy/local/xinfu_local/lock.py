"""One stack per data directory."""

import fcntl
import os
from pathlib import Path

from xinfu_local.errors import StackError
from xinfu_local.proc import command_line


class DirectoryLock:
    """An advisory lock of the kernel on <directory>/lock: it ends with the process, even by kill -9."""

    def __init__(self, directory: Path) -> None:
        """Take no lock yet."""
        self._path = directory / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or fail at once.

        :raises StackError: another stack holds it; the message names its pid.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            command = command_line(int(holder)) if holder.isdigit() else ""
            raise StackError(
                f"another local stack runs in {self._path.parent}: process {holder or 'unknown'} ({command}). "
                "Stop that one, or give this one another data directory."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; safe to repeat. The file stays, for removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
