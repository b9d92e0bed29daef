"""A running stack: what every command can ask of it, from whichever process it is called."""

import http.client
import json
import resource
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from xinfu_local import apache_kafka, kafka, mongodb, proc
from xinfu_local.errors import StackError
from xinfu_local.kafka import Broker
from xinfu_local.ports import accepts_connections
from xinfu_local.supervision import Supervisor, SupervisorError

_STARTS_BEFORE_GIVING_UP = 3
_LOG_LINES_IN_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Description:
    """What <data_dir>/stack.json holds while the stack runs.

    kafka_bootstrap, mongodb_uri: what the services use. broker: embedded, apache or own.
    health_urls: every process of the stack in the order they are started -> its health URL or None.
    pid: the process that started the stack.
    supervisord_socket, supervisord_pid_file, log_dir: absolute paths. The pids of the processes change whenever one
    is restarted: ask for them with RunningStack.pids().
    """

    kafka_bootstrap: str
    mongodb_uri: str
    broker: str
    health_urls: dict[str, str | None]
    pid: int
    supervisord_socket: str
    supervisord_pid_file: str
    log_dir: str

    def write(self, path: Path) -> None:
        """Write the file in one step: a reader sees all of it or none."""
        partial = path.with_suffix(".partial")
        partial.touch(mode=0o600)  # a connection string of one's own may hold a password
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n")
        partial.replace(path)


class RunningStack:
    """Looks at and drives the processes of a stack that has been started."""

    def __init__(self, description: Description) -> None:
        """Use RunningStack.find, or start a Stack."""
        self.description = description
        self._supervisor = Supervisor(Path(description.supervisord_socket))

    @classmethod
    def find(cls, data_dir: Path) -> Self:
        """Find the stack that runs in a data directory.

        :raises StackError: none does.
        """
        none_there = f"no local stack runs in {data_dir}: start one, or name the data directory it uses"
        try:
            description = Description(**json.loads((data_dir / "stack.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            raise StackError(none_there) from None
        except (TypeError, ValueError) as error:
            raise StackError(
                f"{data_dir / 'stack.json'} is not of this version ({error}): delete it"
            ) from error
        found = cls(description)
        try:
            found._supervisor.processes()
        except SupervisorError as error:
            raise StackError(f"{none_there} (the last one there ended without cleaning up)") from error
        return found

    def pids(self) -> dict[str, int]:
        """The pid of every process that runs at this moment, mongodb and kafka included."""
        return {name: info["pid"] for name, info in self._supervisor.processes().items() if info["pid"]}

    def memory(self) -> dict[str, int]:
        """Resident memory in bytes of every process that runs, its child processes included."""
        pids = self.pids()
        # supervisord makes each process the leader of a group.
        by_group = proc.memory_of_groups(pids.values())
        return {name: by_group[pid] for name, pid in pids.items()}

    def log_path(self, name: str) -> Path:
        """The log of a process: its standard output and error."""
        return Path(self.description.log_dir) / f"{name}.log"

    def logs(self, name: str, lines: int | None = None) -> str:
        """The current log file of a process (10 MB at most), or its last lines.

        :raises StackError: there is no process of this name.
        """
        self._known(name)
        try:
            text = self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def kill(self, name: str) -> int:
        """SIGKILL the process, wait until it is dead, and give the pid it had; supervisord starts it again.

        :raises StackError: no process of this name runs.
        """
        pid = self._pid(name)
        proc.send_signal(pid, signal.SIGKILL)
        # Until supervisord has reaped it: before that, threads of it may live on and accept connections.
        while self.pids().get(name) == pid:
            time.sleep(0.005)
        return pid

    def suspend(self, name: str) -> int:
        """SIGSTOP the process and its children, and give its pid: its connections stay open, and nobody answers.

        :raises StackError: no process of this name runs.
        """
        return self._signal_group(name, signal.SIGSTOP)

    def resume(self, name: str) -> int:
        """SIGCONT what was suspended; harmless otherwise.

        :raises StackError: no process of this name runs.
        """
        return self._signal_group(name, signal.SIGCONT)

    def limit_file_size(self, name: str, size_bytes: int) -> int:
        """Let the process and its children write no file beyond this size, and give its pid: a full disk for it alone.

        A write beyond fails with EFBIG, where a full disk gives ENOSPC. Lasts until the process ends.

        :raises StackError: no process of this name runs.
        """
        pid = self._pid(name)
        for member in proc.pids_of_group(pid):
            _, hard = resource.prlimit(member, resource.RLIMIT_FSIZE)
            resource.prlimit(member, resource.RLIMIT_FSIZE, (size_bytes, hard))
        return pid

    def restart(self, name: str, timeout_seconds: float = 60) -> None:
        """Stop the process as a shutdown would, start it again, wait until it is ready.

        :raises StackError: it is unknown, does not stop or does not become ready.
        """
        self.stop_process(name, timeout_seconds=timeout_seconds)
        self.start_process(name, timeout_seconds=timeout_seconds)

    def stop_process(self, *names: str, timeout_seconds: float = 60) -> None:
        """Stop processes as a shutdown would; they stay down until start_process.

        :raises StackError: one is unknown or does not stop.
        """
        for name in names:
            self._known(name)
        self._stop_all(names, timeout_seconds)

    def start_process(self, *names: str, timeout_seconds: float = 60) -> None:
        """Start stopped processes and wait until they are ready.

        :raises StackError: one is unknown, already runs or does not become ready.
        """
        for name in names:
            self._known(name)
            self._supervisor.start(name)
        self.wait_ready(names, timeout_seconds)

    def primary(self, timeout_seconds: float = 30) -> str:
        """The name of the process that is MongoDB's primary; waits for an election to end.

        :raises StackError: there is none within `timeout_seconds`, or MongoDB is not this stack's own.
        """
        address = mongodb.primary_address(self.description.mongodb_uri, timeout_seconds)
        for name, url in self.description.health_urls.items():
            if url == f"tcp://{address}":
                return name
        raise StackError(f"the primary on {address} is no process of this stack")

    def step_down(self, seconds: int = 10) -> str:
        """Let MongoDB's primary step down, to be none for so long, and give its name; needs more than one node.

        :raises StackError: there is no primary, or no other node could follow it.
        """
        name = self.primary()
        mongodb.step_down((self.description.health_urls[name] or "").removeprefix("tcp://"), seconds)
        return name

    def wipe_kafka(self, timeout_seconds: float = 60) -> None:
        """Stop the broker, delete all it has stored, start it again with nothing: topics and offsets are gone.

        :raises StackError: the broker is not this stack's own, does not stop or does not become ready.
        """
        self.stop_process(kafka.NAME, timeout_seconds=timeout_seconds)
        if self.description.broker == Broker.APACHE:
            apache_kafka.wipe(Path(self.description.log_dir).parent / kafka.NAME, apache_kafka.CACHE_DIR)
        self.start_process(kafka.NAME, timeout_seconds=timeout_seconds)

    def wait_ready(self, names: Iterable[str] | None = None, timeout_seconds: float = 60) -> None:
        """Wait until the processes (all of them by default) run and their health URLs are content.

        Gives up early on a process that has ended three times.

        :raises StackError: one did not become ready; names it and shows the end of its log.
        """
        waiting = list(self.description.health_urls if names is None else names)
        for name in waiting:
            self._known(name)
        deadline = time.monotonic() + timeout_seconds
        starts: dict[str, set[int]] = {name: set() for name in waiting}
        while True:
            processes = self._supervisor.processes()
            for name in waiting.copy():
                info = processes[name]
                state = info["statename"]
                if _is_ready(state, self.description.health_urls[name]):
                    waiting.remove(name)
                    continue
                starts[name].add(info["start"])
                if state == "FATAL" or (
                    state in ("BACKOFF", "EXITED") and len(starts[name]) >= _STARTS_BEFORE_GIVING_UP
                ):
                    reason = (
                        f"keeps ending right after it is started ({info['spawnerr'] or info['description']})"
                    )
                    raise self._failure(name, reason)
            if not waiting:
                return
            if time.monotonic() > deadline:
                name = waiting[0]
                state = processes[name]["statename"]
                raise self._failure(
                    name,
                    f"is not ready after {timeout_seconds:g} s ({state}; {self._health(name)})",
                )
            time.sleep(0.05)

    def _health(self, name: str) -> str:
        """What its health URL says."""
        url = self.description.health_urls[name]
        if url is None or not url.startswith("http"):
            return url or "its process"
        try:
            return f"{url}: {_ask(url)[1][:2000].decode(errors='replace')}"
        except (OSError, http.client.HTTPException) as error:
            return f"{url}: {error}"

    def _failure(self, name: str, reason: str) -> StackError:
        return StackError(
            f"{name} {reason}. The end of {self.log_path(name)}:\n{self.logs(name, _LOG_LINES_IN_ERRORS)}"
        )

    def _pid(self, name: str) -> int:
        self._known(name)
        pid = self.pids().get(name)
        if pid is None:
            raise StackError(f"{name} does not run")
        return pid

    def _signal_group(self, name: str, number: signal.Signals) -> int:
        pid = self._pid(name)  # supervisord makes each process the leader of a group
        for member in proc.pids_of_group(pid):
            proc.send_signal(member, number)
        return pid

    def _known(self, name: str) -> None:
        if name not in self.description.health_urls:
            raise StackError(
                f"no process {name!r} in this stack: it has {', '.join(self.description.health_urls)}"
            )

    def _stop_all(self, names: Iterable[str], timeout_seconds: float) -> None:
        waiting = set(names)
        deadline = time.monotonic() + timeout_seconds
        while True:
            processes = self._supervisor.processes()
            for name in waiting.copy():
                state = processes[name]["statename"]
                if state in ("STOPPED", "FATAL"):
                    waiting.remove(name)
                elif state in ("STARTING", "RUNNING", "BACKOFF"):
                    self._supervisor.stop(name)
                # EXITED is no end: supervisord is about to start it again, and only then can it be stopped.
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"still running {timeout_seconds:g} s after the request to stop: {sorted(waiting)}"
                )
            time.sleep(0.02)


def _is_ready(state: str, health_url: str | None) -> bool:
    if health_url is None:
        return state == "RUNNING"
    # Alive as well as content: another program may be answering on a port that ours failed to get.
    return state in ("STARTING", "RUNNING") and _is_healthy(health_url)


def _is_healthy(health_url: str) -> bool:
    url = urlsplit(health_url)
    if url.scheme == "tcp":
        return accepts_connections(url.hostname or "", url.port or 0)
    try:
        return _ask(health_url)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _ask(health_url: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError, HTTPException."""
    url = urlsplit(health_url)
    # http.client, unlike urllib, never goes through a proxy. A health check may itself take some seconds (chassis: 3).
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 0, timeout=5)
    try:
        connection.request("GET", f"{url.path or '/'}{'?' if url.query else ''}{url.query}")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
