"""supervisord: its configuration from a list of processes, and its RPC interface over a unix socket."""

import hashlib
import os
import shlex
import stat
import tempfile
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from xinfu_local.errors import StackError
from xinfu_local.process import Process

# sun_path holds 108 bytes, and supervisord first binds to a name with "." and its pid at the end.
_LONGEST_SOCKET_PATH_BYTES = 108 - 1 - len(".4194304")
_LOG_BYTES = 10 * 1024 * 1024
_LOG_BACKUPS = 3


class SupervisorError(StackError):
    """supervisord does not answer, or refused a request."""


class Supervisor:
    """The calls of supervisord's XML-RPC interface that the stack needs. Holds no connection open."""

    def __init__(self, socket_path: Path) -> None:
        """Make no connection yet."""
        self._url = f"unix://{socket_path}"

    def processes(self) -> dict[str, dict[str, Any]]:
        """supervisord's view of each process: pid (0 when it does not run), start (epoch seconds), statename
        (see "Process States" in its documentation).

        :raises SupervisorError: no answer.
        """
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Start a process and return at once.

        :raises SupervisorError: it already runs or cannot be started.
        """
        self._call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Send SIGTERM and return at once; SIGKILL follows when it takes too long.

        :raises SupervisorError: it does not run.
        """
        self._call("stopProcess", name, False)

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, self._url)
        try:
            # The host is not looked at: the transport knows the socket.
            proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, xmlrpc.client.Error) as error:
            detail = error.faultString if isinstance(error, xmlrpc.client.Fault) else error
            raise SupervisorError(f"supervisord, {method}: {detail}") from error
        finally:
            transport.close()


def socket_path(data_dir: Path) -> Path:
    """Where supervisord listens: in the data directory, or in a temporary one of ours when that path is too long.

    :raises StackError: the temporary directory belongs to another user.
    """
    path = data_dir / "supervisor.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH_BYTES:
        return path
    # Always the same for a data directory, so that a stack that was killed leaves one directory, not one each time.
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"xinfu-{digest}"
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = directory.lstat()
    if owner.st_uid != os.getuid() or not stat.S_ISDIR(owner.st_mode) or owner.st_mode & 0o077:
        raise StackError(f"{directory} is not a private directory of this user: remove it, or set TMPDIR")
    return directory / "supervisor.sock"


def write_configuration(data_dir: Path, socket: Path, processes: Sequence[Process]) -> Path:
    """Write supervisord.conf and one start script per process; nothing in it starts by itself.

    Its paths are relative to the data directory, in which supervisord is to be started: it would take percent signs
    in a path for placeholders, and spaces for the end of it.

    The scripts carry command and environment because supervisord's own format cannot carry every value (quotes,
    line breaks, percent signs). They also let a person start one process by hand: sh .xinfu/run/commands/NAME.sh

    :return: the path of the configuration.
    """
    (data_dir / "logs").mkdir(exist_ok=True)
    commands = data_dir / "commands"
    commands.mkdir(exist_ok=True)
    for old in commands.glob("*.sh"):
        old.unlink()
    in_data_dir = socket.parent == data_dir
    sections = [
        f"""\
[unix_http_server]
file={"supervisor.sock" if in_data_dir else socket}
chmod=0600

[supervisord]
nodaemon=true
silent=true
logfile=logs/supervisord.log
logfile_maxbytes={_LOG_BYTES}
logfile_backups={_LOG_BACKUPS}
pidfile=supervisord.pid
childlogdir=logs

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    for process in processes:
        script = commands / f"{process.name}.sh"
        script.touch(mode=0o600)  # the environment may hold secrets
        script.write_text(_start_script(process))
        sections.append(
            f"""\
[program:{process.name}]
command=/bin/sh commands/{process.name}.sh
autostart=false
autorestart=true
startsecs=1
startretries=1000000
stopsignal=TERM
stopwaitsecs={process.stop_wait_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{process.name}.log
stdout_logfile_maxbytes={_LOG_BYTES}
stdout_logfile_backups={_LOG_BACKUPS}
"""
        )
    path = data_dir / "supervisord.conf"
    path.write_text("\n".join(sections))
    return path


def _start_script(process: Process) -> str:
    directory = process.directory or Path.cwd()
    lines = [f"cd {shlex.quote(str(directory))} || exit 1"]
    for key, value in sorted(process.environment.items()):
        lines.append(f"unset {key}" if value is None else f"export {key}={shlex.quote(value)}")
    # exec: the process itself has the pid that supervisord knows, and gets its signals.
    lines.append(f"exec {shlex.join(process.command)}")
    return "\n".join(lines) + "\n"
