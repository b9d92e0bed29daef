"""The local stack's topology in one typed place: which processes, with which settings."""

import base64
import json
import secrets
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient

from contracts.catalogue import load_catalogue
from contracts.tokens import Scope
from xinfu_local import Broker, Process, StackError, free_port

SERVICES = ("intake", "routing", "dept-adapter", "sync", "notify")
_PREFERRED_PORTS = {
    "sandbox": 8090,
    "smtp": 8025,
    "intake": 8101,
    "routing": 8102,
    "dept-adapter": 8103,
    "sync": 8104,
    "notify": 8105,
}
KAFKA_PORT, MONGODB_PORT = 19092, 27117
_CLIENT_SCOPES = {
    "dept-adapter": [Scope.CASES_READ],
    "sync": [Scope.CASES_READ],
    "notify": [Scope.CASES_READ],
    "ops": [Scope.RECORDS_WRITE, Scope.OPERATIONS, Scope.ROUTING_ASSIGN],
}


@dataclass(frozen=True)
class Endpoints:
    """Base URLs of a stack, and the secret of the client ``ops``; kept in ``endpoints.json`` while it runs."""

    services: dict[str, str]
    sandbox: str
    ops_secret: str

    @property
    def oidc(self) -> str:
        """The issuer."""
        return f"{self.sandbox}/oidc"

    def write(self, data_dir: Path) -> None:
        """Leave them for other commands."""
        path = data_dir / "endpoints.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, data_dir: Path) -> Self:
        """Those of the stack in this directory. Raises StackError when there is none."""
        try:
            return cls(**json.loads((data_dir / "endpoints.json").read_text()))
        except (OSError, TypeError, ValueError):
            raise StackError(f"no local stack runs in {data_dir}: start one with `make run`") from None


def _kept_secrets(data_dir: Path) -> dict[str, str]:
    """Secrets of this stack: made once, so that a restart still understands its own data."""
    path = data_dir / "secrets.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    catalogue = load_catalogue()
    targets = [f"target:{target.id}" for target in catalogue.targets]
    departments = [f"department:{d.slug}" for d in catalogue.departments if d.mode == "api"]
    for name in [*targets, *departments]:
        kept.setdefault(name, "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    for name in ["subject-key", *(f"client:{client}" for client in _CLIENT_SCOPES)]:
        kept.setdefault(name, secrets.token_hex(32))
    data_dir.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(kept, indent=2))
    return kept


def _named(kept: dict[str, str], kind: str) -> dict[str, str]:
    return {
        name.removeprefix(f"{kind}:"): value for name, value in kept.items() if name.startswith(f"{kind}:")
    }


def compose(data_dir: Path, broker: Broker) -> tuple[list[Process], Endpoints]:
    """The processes of the local stack and where they answer. Ports are the usual ones when free, else any."""
    kept = _kept_secrets(data_dir)
    ports = {name: free_port(port) for name, port in _PREFERRED_PORTS.items()}
    urls = {name: f"http://127.0.0.1:{ports[name]}" for name in (*SERVICES, "sandbox")}
    sandbox = urls.pop("sandbox")
    targets, departments, clients = (_named(kept, kind) for kind in ("target", "department", "client"))
    common = {
        "KAFKA_ENABLE_IDEMPOTENCE": str(broker.supports_idempotence).lower(),
        "XINFU_OIDC_ISSUER": f"{sandbox}/oidc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{sandbox}/otlp",
        "OTEL_BSP_SCHEDULE_DELAY": "300",
        "KAFKA_SESSION_TIMEOUT_MS": "6000",
    }

    def client(service: str) -> dict[str, str]:
        prefix = service.upper().replace("-", "_")
        return {
            f"{prefix}_INTAKE_URL": urls["intake"],
            f"{prefix}_CLIENT_ID": service,
            f"{prefix}_CLIENT_SECRET": clients[service],
        }

    own: dict[str, dict[str, str]] = {
        "intake": {"INTAKE_SUBJECT_KEY": kept["subject-key"]},
        "routing": {},
        "dept-adapter": {
            **client("dept-adapter"),
            "DEPT_ADAPTER_PUBLIC_URL": urls["dept-adapter"],
            "DEPT_ADAPTER_DEPARTMENT_URLS": json.dumps(
                {s: f"{sandbox}/departments/{s}" for s in departments}
            ),
            "DEPT_ADAPTER_DEPARTMENT_SECRETS": json.dumps(departments),
        },
        "sync": {
            **client("sync"),
            "SYNC_TARGET_URLS": json.dumps({t: f"{sandbox}/targets/{t}" for t in targets}),
            "SYNC_TARGET_SECRETS": json.dumps(targets),
            "SYNC_LEASE_SECONDS": "15",
            # sooner than the default at first: here somebody waits to see that a target which forgets is repaired
            "SYNC_RECHECK_SCHEDULE_SECONDS": json.dumps([5, 60, 600, 3600, 86_400]),
        },
        "notify": {
            **client("notify"),
            "NOTIFY_SMTP_HOST": "127.0.0.1",
            "NOTIFY_SMTP_PORT": str(ports["smtp"]),
            "NOTIFY_SMTP_FROM": "信复 <no-reply@xinfu.example>",
            # everything is near: what a killed worker had in hand need not wait for minutes
            "NOTIFY_SMTP_TIMEOUT_SECONDS": "2",
            "NOTIFY_EMAIL_LEASE_SECONDS": "8",
            "NOTIFY_EMAIL_RETRY_BASE_SECONDS": "2",
        },
    }
    outside = Process(
        "sandbox",
        [sys.executable, "-m", "sandbox"],
        {
            "SANDBOX_HTTP_PORT": str(ports["sandbox"]),
            "SANDBOX_SMTP_PORT": str(ports["smtp"]),
            "SANDBOX_DATA_DIR": str(data_dir / "sandbox"),
            "SANDBOX_TARGET_SECRETS": json.dumps(targets),
            "SANDBOX_DEPARTMENT_SECRETS": json.dumps(departments),
            "SANDBOX_OIDC_CLIENTS": json.dumps(
                {
                    name: {"secret": secret, "scope": " ".join(_CLIENT_SCOPES[name])}
                    for name, secret in clients.items()
                }
            ),
            "SANDBOX_ISSUER_URL": f"{sandbox}/oidc",
        },
        f"{sandbox}/livez",
    )
    processes = [
        Process(
            name,
            [sys.executable, "-m", name.replace("-", "_")],
            {**common, **own[name], f"{name.upper().replace('-', '_')}_HTTP_PORT": str(ports[name])},
            f"{urls[name]}/readyz",
            stop_wait_seconds=20,
        )
        for name in SERVICES
    ]
    return [outside, *processes], Endpoints(urls, sandbox, clients["ops"])


def replay_outboxes(mongodb_uri: str) -> None:
    """Let every service publish its whole outbox again (guarantee G7): the bus has lost its data."""
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        for service in SERVICES:
            outbox = client[f"xinfu_{service.replace('-', '_')}"]["outbox"]
            outbox.update_many({"published_at": {"$exists": True}}, {"$set": {"pending": True}})
