"""The local stack: MongoDB, a Kafka broker and the services, each a process under supervisord."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from xinfu_local import kafka, mongodb, proc
from xinfu_local.apache_kafka import CACHE_DIR, Listener
from xinfu_local.errors import StackError
from xinfu_local.kafka import Broker
from xinfu_local.lock import DirectoryLock
from xinfu_local.ports import HOST, free_port
from xinfu_local.process import Process
from xinfu_local.running import Description, RunningStack
from xinfu_local.supervision import SupervisorError, socket_path, write_configuration

DEFAULT_DATA_DIR = CACHE_DIR / "run"

# Every process of a stack inherits this with the stack's data directory as its value, whoever restarted it since:
# so the processes of a stack that was killed are found again, whatever their pids.
_MARKER = "XINFU_STACK"
_OWN_SERVER_TIMEOUT_SECONDS = 15
_SUPERVISORD_TIMEOUT_SECONDS = 15


class Stack(RunningStack):
    """Starts, drives and stops the stack of one data directory. A context manager:

        with Stack(processes=[...], broker=Broker.EMBEDDED) as stack:
            stack.kill("routing")

    Entering it also turns SIGTERM into SystemExit (in the main thread), so that SIGTERM and SIGINT both lead to
    a clean stop. Not to be shared between threads.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        broker: Broker = Broker.EMBEDDED,
        data_dir: Path = DEFAULT_DATA_DIR,
        *,
        kafka_port: int | None = None,
        mongodb_port: int | None = None,
        mongodb_nodes: int = 1,
        kafka_listeners: Mapping[str, Listener] | None = None,
        kafka_settings: Mapping[str, str] | None = None,
        prepare: Callable[["Stack"], None] | None = None,
        ready_timeout_seconds: float = 60,
    ) -> None:
        """Choose ports; start nothing and write nothing.

        KAFKA_BOOTSTRAP_SERVERS and MONGODB_URI in the environment replace the stack's own broker and mongod. Every
        process gets both variables, with what the stack really uses, unless its own environment sets them.

        :param processes: the services, in the order they are started; all are started before any is waited for.
        :param kafka_port: taken when it is free, else any other; the same for mongodb_port (the first node's).
        :param mongodb_nodes: members of the replica set, each a process: mongodb, mongodb-2, mongodb-3.
        :param kafka_listeners: more addresses of Apache Kafka, by name; a process comes that way when its own
            environment sets KAFKA_BOOTSTRAP_SERVERS to the advertised port.
        :param kafka_settings: of Apache Kafka's server.properties, on top of those made here.
        :param prepare: called when the bus and the database answer, before the services start.
        :param ready_timeout_seconds: for the database, the bus and the services, each.
        :raises StackError: two processes have the same name.
        """
        self.data_dir = data_dir.resolve()
        self._services = list(processes)
        self._broker = broker
        self._prepare = prepare
        self._ready_timeout_seconds = ready_timeout_seconds
        self._kafka_port = None
        self._kafka_listeners, self._kafka_settings = kafka_listeners or {}, kafka_settings or {}
        self._mongodb_ports: list[int] = []
        bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
        uri = os.environ.get("MONGODB_URI", "").strip()
        if not bootstrap:
            self._kafka_port = free_port(kafka_port)
            bootstrap = f"{HOST}:{self._kafka_port}"
        if not uri:
            self._mongodb_ports = [free_port(mongodb_port), *(free_port() for _ in range(mongodb_nodes - 1))]
            uri = mongodb.mongodb_uri(self._mongodb_ports)
        self._server_names = [*mongodb.node_names(mongodb_nodes), kafka.NAME]
        names = [process.name for process in self._services]
        if len({*names, *self._server_names}) != len(names) + len(self._server_names):
            raise StackError(
                f"process names must differ from each other and from {', '.join(self._server_names)}: {names}"
            )
        self.kafka_bootstrap = bootstrap
        self.mongodb_uri = uri
        self._lock = DirectoryLock(self.data_dir)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._owned = False
        self._signals = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every process gets."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap, "MONGODB_URI": self.mongodb_uri}

    def __enter__(self) -> Self:
        """Start the stack; see start."""
        with ExitStack() as signals:
            signals.enter_context(_sigterm_raises())
            self.start()
            self._signals = signals.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the stack; see stop."""
        with self._signals:
            self.stop()

    def start(self) -> None:
        """Start everything and wait until it is ready. Stops what it had started when that fails.

        :raises StackError: the data directory is in use, something is missing on this machine, or a process does
            not become ready; the message names it and shows the end of its log.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StackError(f"cannot use {self.data_dir} as the data directory: {error}") from error
        self._lock.acquire()
        self._owned = True
        try:
            self._end_leftovers()
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the services, then the broker and mongod, then supervisord; safe to repeat.

        Takes no longer than the longest stop_wait_seconds of each of the two groups and some seconds more: what is
        left then is killed. SIGINT and SIGTERM wait meanwhile.
        """
        if not self._owned:
            return
        with _signals_held_back():
            if self._daemon is not None and self._daemon.poll() is None:
                self._stop_processes()
                self._daemon.terminate()
                try:
                    self._daemon.wait(_SUPERVISORD_TIMEOUT_SECONDS)
                except subprocess.TimeoutExpired:
                    self._daemon.kill()
            if self._daemon is not None:
                self._daemon.wait()
                self._daemon = None
            self._end_leftovers()
            if self._socket is not None and self._socket.parent != self.data_dir:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
            (self.data_dir / "stack.json").unlink(missing_ok=True)
            self._lock.release()
            self._owned = False

    def _start(self) -> None:
        servers = self._servers()
        services = [
            replace(process, environment={**self.environment, **process.environment})
            for process in self._services
        ]
        self._socket = socket_path(self.data_dir)
        configuration = write_configuration(self.data_dir, self._socket, [*servers, *services])
        super().__init__(
            Description(
                kafka_bootstrap=self.kafka_bootstrap,
                mongodb_uri=self.mongodb_uri,
                broker=self._broker.value if self._kafka_port else "own",
                health_urls={process.name: process.health_url for process in [*servers, *services]},
                pid=os.getpid(),
                supervisord_socket=str(self._socket),
                supervisord_pid_file=str(self.data_dir / "supervisord.pid"),
                log_dir=str(self.data_dir / "logs"),
            )
        )
        self._daemon = self._start_supervisord(configuration)
        self._wait_for_supervisord()
        self.description.write(self.data_dir / "stack.json")
        for process in servers:
            self._supervisor.start(process.name)
        self._wait_for_servers([process.name for process in servers])
        if self._prepare is not None:
            self._prepare(self)
        for process in services:
            self._supervisor.start(process.name)
        self.wait_ready([process.name for process in services], self._ready_timeout_seconds)

    def _servers(self) -> list[Process]:
        servers = []
        if self._mongodb_ports:
            servers += mongodb.mongodb_processes(self.data_dir, self._mongodb_ports)
        if self._kafka_port is not None:
            servers.append(
                kafka.kafka_process(
                    self._broker,
                    self.data_dir,
                    self._kafka_port,
                    CACHE_DIR,
                    self._kafka_listeners,
                    self._kafka_settings,
                    [process.name for process in self._services if process.uses_bus],
                )
            )
        return servers

    def _start_supervisord(self, configuration: Path) -> subprocess.Popen[bytes]:
        with (self.data_dir / "logs" / "supervisord.out").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(configuration)],
                cwd=self.data_dir,
                env={**os.environ, "PYTHONUNBUFFERED": "1", _MARKER: str(self.data_dir)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Out of the terminal's reach: Ctrl-C is for the caller, who then stops things in order.
                start_new_session=True,
            )

    def _wait_for_supervisord(self) -> None:
        deadline = time.monotonic() + _SUPERVISORD_TIMEOUT_SECONDS
        while True:
            try:
                self._supervisor.processes()
            except SupervisorError as error:
                if self._daemon is None or self._daemon.poll() is not None or time.monotonic() > deadline:
                    output = (self.data_dir / "logs" / "supervisord.out").read_text(errors="replace")
                    raise StackError(f"supervisord does not start: {error}\n{output}") from error
                time.sleep(0.01)
            else:
                return

    def _wait_for_servers(self, names: Sequence[str]) -> None:
        timeout_seconds = self._ready_timeout_seconds
        # A server of one's own that is not there is known first: it takes no waiting for the others.
        if not self._mongodb_ports:
            mongodb.check_own_mongodb(self.mongodb_uri, _OWN_SERVER_TIMEOUT_SECONDS)
        if self._kafka_port is None:
            kafka.wait_for_bootstrap(self.kafka_bootstrap, _OWN_SERVER_TIMEOUT_SECONDS)
        self.wait_ready(names, timeout_seconds)
        if self._mongodb_ports:
            mongodb.ensure_replica_set(self._mongodb_ports, timeout_seconds)
        if self._kafka_port is not None:
            kafka.wait_for_kafka(self.kafka_bootstrap, timeout_seconds)

    def _stop_processes(self) -> None:
        """Services first, then what they need. What does not stop in time is left to _end_leftovers."""
        try:
            known = self._supervisor.processes()
            servers = [name for name in self._server_names if name in known]
            services = [process for process in self._services if process.name in known]
            longest = max((process.stop_wait_seconds for process in services), default=0)
            self._stop_all([process.name for process in services], longest + 5)
            self._stop_all(servers, 20)
        except StackError:
            return

    def _end_leftovers(self) -> None:
        """End every process that an earlier stack, or this one, left behind in this data directory."""
        left = proc.pids_with_environment(_MARKER, str(self.data_dir))
        daemons = [pid for pid in left if "supervisor.supervisord" in proc.command_line(pid)]
        for pid in daemons:  # first, and at once: it would start the others again
            proc.send_signal(pid, signal.SIGKILL)
        proc.end(left, grace_seconds=10)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM end the process the way SIGINT does: by an exception that `with` blocks see."""
    with _handling([signal.SIGTERM], _exit):
        yield


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form is the signal module's
    raise SystemExit(128 + number)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait, so that a second Ctrl-C does not leave half a stack behind."""
    came: list[int] = []
    with _handling([signal.SIGINT, signal.SIGTERM], lambda number, _: came.append(number)):
        yield
    for number in dict.fromkeys(came):
        signal.raise_signal(number)


@contextmanager
def _handling(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)
