"""The stack of a chaos run: Apache Kafka behind a link for each service process, three mongods, two replicas of every service, and
hooks in every service process.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.proxy import BusLinks

from xinfu.compose import SERVICES, Endpoints, compose
from xinfu_local import Broker, Process, Stack

REPLICAS = dict.fromkeys(SERVICES, 2)
MONGODS = ("mongodb", "mongodb-2", "mongodb-3")
_HOOKS = Path(__file__).resolve().parent / "hooks"
_LESS_URGENT = ("nice", "-n", "5")
_TARGET_DELAY_SECONDS = 1
"""So that some decisions come while an older one is being told."""
_SETTINGS = {
    # what is tried again or looked at again comes back within a run
    "XINFU_PARK_BASE_SECONDS": "2",
    "XINFU_PARK_MAX_SECONDS": "20",
    "DEPT_ADAPTER_PUSH_BACKOFF_MAX_SECONDS": "15",
    "DEPT_ADAPTER_BREAKER_SECONDS": "5",
    "SYNC_BACKOFF_MAX_SECONDS": "15",
    "SYNC_BREAKER_SECONDS": "5",
    # one more look while faults go on; the last one comes when they have ended (Run), as if so much time had passed
    "SYNC_RECHECK_SCHEDULE_SECONDS": "[10, 3600]",
    "NOTIFY_EMAIL_RETRY_MAX_SECONDS": "15",
    # the processor is for the work
    "DEPT_ADAPTER_FILES_POLL_SECONDS": "5",
    "SYNC_FILES_POLL_SECONDS": "5",
    "XINFU_OUTBOX_POLL_MS": "500",
    "KAFKA_FETCH_MAX_WAIT_MS": "500",
    "SYNC_LINGER_MS": "2000",
    "SYNC_POLL_MS": "2000",
    "OTEL_SDK_DISABLED": "true",
}


@dataclass(frozen=True)
class Topology:
    """The stack, not started yet, and what breaks it. ``services``: names of all service processes; ``replicas``: where those of a
    service answer, by the address of its first.
    """

    stack: Stack
    endpoints: Endpoints
    links: BusLinks
    services: tuple[str, ...]
    replicas: Mapping[str, Sequence[str]]
    clocks: Path

    def set_clock(self, name: str, wrong_by_seconds: float) -> None:
        """Let a process's clock be wrong by so much; 0: right."""
        path = self.clocks / name
        partial = path.with_suffix(".partial")
        partial.write_text(str(wrong_by_seconds))
        partial.replace(path)


def build(data_dir: Path, sabotage: str | None = None, *, direct: bool = False) -> Topology:
    """Choose ports and write the settings; start nothing.

    ``direct``: the services reach the bus without their links, so that a broker that is down refuses them itself.
    """
    services = tuple(
        service if number == 1 else f"{service}-{number}"
        for service in SERVICES
        for number in range(1, REPLICAS.get(service, 1) + 1)
    )
    links = BusLinks(services)
    clocks = data_dir / "clocks"
    clocks.mkdir(parents=True)
    path = os.pathsep.join(filter(None, [str(_HOOKS), os.environ.get("PYTHONPATH")]))
    common = {**_SETTINGS, "PYTHONPATH": path, **({"XINFU_CHAOS_SABOTAGE": sabotage} if sabotage else {})}
    environment = {
        name: {
            **common,
            **({} if direct else links.environment(name)),
            "XINFU_CHAOS_CLOCK": str(clocks / name),
        }
        for name in services
    } | {"sandbox": {"SANDBOX_TARGET_DELAY_SECONDS": str(_TARGET_DELAY_SECONDS)}}
    processes, endpoints = compose(
        data_dir, Broker.APACHE, replicas=REPLICAS, environment=environment, parity=False
    )
    replicas = _replicas(processes, endpoints)
    asked = replicas[endpoints.services["intake"]]
    stack = Stack(
        [links.process, *(_as_deployed(process, asked) for process in processes)],
        Broker.APACHE,
        data_dir,
        mongodb_nodes=len(MONGODS),
        kafka_listeners=links.listeners,
        prepare=lambda _: endpoints.write(data_dir),
        ready_timeout_seconds=180,
    )
    return Topology(stack, endpoints, links, services, replicas, clocks)


def _replicas(processes: Sequence[Process], endpoints: Endpoints) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for process in processes:
        for service in SERVICES:
            port = process.environment.get(f"{_prefix(service)}_HTTP_PORT")
            if port is not None:
                found[endpoints.services[service]].append(f"http://127.0.0.1:{port}")
    return found


def _as_deployed(process: Process, intakes: Sequence[str]) -> Process:
    """The second replica of a service asks the second of intake, as behind a load balancer; and services leave the processor to Kafka
    and MongoDB, which have machines of their own elsewhere.
    """
    own = {
        f"{_prefix(service)}_INTAKE_URL": intakes[-1]
        for service in SERVICES
        if process.name == f"{service}-{len(intakes)}"
    }
    command = [*_LESS_URGENT, *process.command]
    return replace(process, command=command, environment={**process.environment, **own})


def _prefix(service: str) -> str:
    return service.upper().replace("-", "_")
