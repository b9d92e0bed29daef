"""Apache Kafka for the local stack: jars from Maven Central, one KRaft node that is broker and controller."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xinfu_local.errors import StackError
from xinfu_local.ports import HOST, free_port
from xinfu_local.process import Process

CACHE_DIR = Path(__file__).resolve().parents[3] / ".xinfu"
_POM = Path(__file__).resolve().parents[1] / "kafka" / "pom.xml"
_DOWNLOAD_TIMEOUT_SECONDS = 900
_JAVA_OPTIONS = (
    "-Xmx512m",
    # a broker that lives for minutes on few processors: the optimizing compiler and a concurrent collector cost more than they bring
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
# Java takes file names from the locale: in a C locale a data directory with a Chinese name would not be found.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Listener:
    """One more address of the broker, on loopback.

    port: where the broker listens. advertised_port: what it tells those who come that way; a proxy that listens there
    and forwards to `port` then carries all their traffic. security_protocol: as Kafka names it; what it needs beyond
    its name (certificates, SASL mechanisms, authorizer) are settings of the broker.
    """

    port: int
    advertised_port: int
    security_protocol: str = "PLAINTEXT"


def apache_process(
    name: str,
    directory: Path,
    port: int,
    cache_dir: Path,
    listeners: Mapping[str, Listener] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Process:
    """Fetch the jars when they are missing, write the configuration, format the storage when it is new.

    :param directory: server.properties and the log segments; kept between runs.
    :param listeners: by name: lower-case letters, digits and hyphens.
    :param settings: of server.properties, on top of those made here.
    :raises StackError: Java or Maven is missing, the download or the formatting failed.
    """
    command = _java_command(cache_dir)
    directory.mkdir(parents=True, exist_ok=True)
    properties = {**_server_properties(port, free_port(), listeners or {}), **(settings or {})}
    (directory / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
    if not (directory / "log" / "meta.properties").exists():
        _format(command, directory)
    return Process(
        name,
        [*command, "kafka.Kafka", "server.properties"],
        _ENVIRONMENT,
        health_url=f"tcp://{HOST}:{port}",
        stop_wait_seconds=15,
        directory=directory,
    )


def wipe(directory: Path, cache_dir: Path) -> None:
    """Delete all that a broker, now stopped, has stored, and format the storage again: a new, empty cluster.

    :raises StackError: Java is missing or the formatting failed.
    """
    shutil.rmtree(directory / "log")
    _format(_java_command(cache_dir), directory)


def kafka_tool(cache_dir: Path, main_class: str) -> list[str]:
    """The command of one of Kafka's own tools, for example ``org.apache.kafka.tools.AclCommand`` (kafka-acls.sh).

    :raises StackError: as kafka_jars.
    """
    return [*_java_command(cache_dir), main_class]


def kafka_version() -> str:
    """The version that deploy/local/kafka/pom.xml names."""
    found = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", _POM.read_text())
    if found is None:
        raise StackError(f"{_POM} names no kafka.version")
    return found[1]


def kafka_jars(cache_dir: Path) -> Path:
    """The folder with Kafka's jars, named by version and pom.xml; filled by Maven the first time (44 MB).

    A download that is cut off leaves nothing behind under that name.

    :raises StackError: Maven is missing or could not fetch them.
    """
    wanted = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    jars = cache_dir / f"kafka-{kafka_version()}-{wanted}"
    if jars.is_dir():
        return jars
    maven = _tool("mvn", "maven")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="kafka-download-") as download:
        # fmt: off
        command = [
            maven, "--quiet", "--batch-mode", "--file", str(_POM),
            "dependency:copy-dependencies", f"-DoutputDirectory={download}/jars",
        ]
        # fmt: on
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise StackError(
                f"Maven has not fetched Apache Kafka within {_DOWNLOAD_TIMEOUT_SECONDS} s: "
                "look at the network, or use the embedded broker (BROKER=embedded)"
            ) from None
        if done.returncode != 0:
            raise StackError(
                f"Maven could not fetch Apache Kafka {kafka_version()}; use the embedded broker "
                f"(BROKER=embedded) or repair this:\n{_tail(done.stdout + done.stderr)}"
            )
        try:
            (Path(download) / "jars").rename(jars)
        except OSError:
            if not jars.is_dir():  # otherwise another process was faster, and its jars are as good
                raise
    return jars


def _java_command(cache_dir: Path) -> list[str]:
    java = _tool("java", "openjdk-17-jre-headless")
    return [java, *_JAVA_OPTIONS, "-cp", f"{kafka_jars(cache_dir)}/*"]


def _format(java: list[str], directory: Path) -> None:
    tool = [*java, "kafka.tools.StorageTool", "format"]
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    done = subprocess.run(
        [*tool, f"--cluster-id={cluster_id}", "--config=server.properties"],
        cwd=directory,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(
            f"Kafka's StorageTool could not format {directory}:\n{_tail(done.stdout + done.stderr)}"
        )


def _tool(program: str, debian_package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise StackError(
            f"Apache Kafka needs {program}: install the Debian packages openjdk-17-jre-headless and maven "
            f"({debian_package} is missing), or use the embedded broker (BROKER=embedded)"
        )
    return path


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _server_properties(
    port: int, controller_port: int, listeners: Mapping[str, Listener]
) -> dict[str, object]:
    more = {name.upper().replace("-", "_"): listener for name, listener in listeners.items()}
    listening = {"PLAINTEXT": port, **{name: listener.port for name, listener in more.items()}}
    advertised = {"PLAINTEXT": port, **{name: listener.advertised_port for name, listener in more.items()}}
    protocols = {name: listener.security_protocol for name, listener in more.items()}
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        # The static form: the dynamic one keeps the controller's port in its log, and ports change between runs.
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": _addresses(listening | {"CONTROLLER": controller_port}),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(
            f"{name}:{protocols.get(name, 'PLAINTEXT')}" for name in (*listening, "CONTROLLER")
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        # Relative to the working directory, for this value is a list: a comma in a path would cut it in two.
        "log.dirs": "log",
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 3,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 3,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After kill -9 the node waits for the session of its own former life to run out: 9 s by default.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        # 128 MiB by default, a third of what the whole broker takes here.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
