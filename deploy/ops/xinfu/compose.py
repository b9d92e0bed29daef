"""The local stack's topology in one typed place: which processes, with which settings."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import asyncssh
from pymongo import MongoClient

from contracts.catalogue import Protocol, load_catalogue
from contracts.signatures import new_secret
from contracts.tokens import Scope
from xinfu_local import Broker, Process, StackError, free_port

SERVICES = ("intake", "routing", "dept-adapter", "sync", "notify")
_PREFERRED_PORTS = {
    "sandbox": 8090,
    "smtp": 8025,
    "sftp": 8022,
    "intake": 8101,
    "routing": 8102,
    "dept-adapter": 8103,
    "sync": 8104,
    "notify": 8105,
}
KAFKA_PORT, MONGODB_PORT = 19092, 27117
_CLIENT_SCOPES = {
    "intake": [Scope.LETTERS_READ, Scope.PROPAGATION_READ],
    "dept-adapter": [Scope.CASES_READ],
    "review-desk": [],
    "sync": [Scope.CASES_READ],
    "notify": [Scope.CASES_READ, Scope.PROPAGATION_READ],
    "ops": [Scope.RECORDS_WRITE, Scope.OPERATIONS, Scope.ROUTING_ASSIGN],
}


@dataclass(frozen=True)
class Endpoints:
    """Base URLs of a stack, and the client that operates it; kept in ``endpoints.json`` while it runs.

    ``issuer``: None for the sandbox's own. An installation without sandbox is named by environment variables (``read``).
    """

    services: dict[str, str]
    sandbox: str
    ops_secret: str
    ops_client: str = "ops"
    issuer: str | None = None

    @property
    def oidc(self) -> str:
        """The issuer."""
        return self.issuer or f"{self.sandbox}/oidc"

    def write(self, data_dir: Path) -> None:
        """Leave them for other commands."""
        path = data_dir / "endpoints.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, data_dir: Path) -> Self:
        """Those of the installation XINFU_OPERATIONS_URLS names, else of the stack in this directory.

        Raises StackError when there is none.
        """
        if os.environ.get("XINFU_OPERATIONS_URLS"):
            return cls._named_by(os.environ)
        try:
            return cls(**json.loads((data_dir / "endpoints.json").read_text()))
        except (OSError, TypeError, ValueError):
            raise StackError(f"no local stack runs in {data_dir}: start one with `make run`") from None

    @classmethod
    def _named_by(cls, environment: Mapping[str, str]) -> Self:
        try:
            urls = json.loads(environment["XINFU_OPERATIONS_URLS"])
            services = {name: str(url).rstrip("/") for name, url in urls.items()}
        except (AttributeError, ValueError):
            raise StackError('XINFU_OPERATIONS_URLS must be JSON like {"intake": "https://…"}') from None
        names = ("XINFU_OIDC_ISSUER", "XINFU_OPERATIONS_CLIENT_ID", "XINFU_OPERATIONS_CLIENT_SECRET")
        if missing := [name for name in names if not environment.get(name)]:
            raise StackError(f"XINFU_OPERATIONS_URLS is set: {', '.join(missing)} must be too")
        issuer, client, secret = (environment[name] for name in names)
        return cls(services, "", secret, client, issuer.rstrip("/"))


def _kept_secrets(data_dir: Path) -> dict[str, str]:
    """Secrets of this stack: made once, so that a restart still understands its own data."""
    path = data_dir / "secrets.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    catalogue = load_catalogue()
    targets = [f"target:{target.id}" for target in catalogue.targets]
    departments = [f"department:{d.slug}" for d in catalogue.departments if d.mode in ("api", "events")]
    exchanging = [f"sftp:{d.slug}" for d in catalogue.departments if d.mode == "files"]
    exchanging += [f"target-sftp:{t.id}" for t in catalogue.targets if t.protocol is Protocol.FILES]
    sources = [f"source:{source.id}" for source in catalogue.sources]
    for name in [*targets, *departments, *sources]:
        kept.setdefault(name, "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    for name in ["subject-key", *(f"client:{client}" for client in _CLIENT_SCOPES)]:
        kept.setdefault(name, secrets.token_hex(32))
    for name in exchanging:
        kept.setdefault(name, secrets.token_hex(16))
    if "sftp-host-key" not in kept:
        kept["sftp-host-key"] = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    kept.setdefault("signing-key", new_secret("ed25519"))
    data_dir.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(kept, indent=2))
    return kept


def _named(kept: dict[str, str], kind: str) -> dict[str, str]:
    return {
        name.removeprefix(f"{kind}:"): value for name, value in kept.items() if name.startswith(f"{kind}:")
    }


def compose(
    data_dir: Path,
    broker: Broker,
    *,
    replicas: Mapping[str, int] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    parity: bool = True,
) -> tuple[list[Process], Endpoints]:
    """The processes of the local stack and where they answer. Ports are the usual ones when free, else any.

    :param replicas: by service, one when it is not named. Their processes are ``sync``, ``sync-2``, …; the endpoints name the first.
    :param environment: by process (``sync-2``), settings on top of those made here.
    :param parity: with the process that publishes again what the bus has lost.
    """
    replicas, environment = replicas or {}, environment or {}
    kept = _kept_secrets(data_dir)
    ports = {name: free_port(port) for name, port in _PREFERRED_PORTS.items()}
    urls = {name: f"http://127.0.0.1:{ports[name]}" for name in (*SERVICES, "sandbox")}
    sandbox = urls.pop("sandbox")
    targets, departments, passwords, by_files, sources, clients = (
        _named(kept, kind) for kind in ("target", "department", "sftp", "target-sftp", "source", "client")
    )
    host_key = asyncssh.import_private_key(kept["sftp-host-key"]).export_public_key().decode().strip()
    interfaces = {d.slug for d in load_catalogue().departments if d.mode == "api"}
    addresses = {slug: f"{sandbox}/departments/{slug}" for slug in departments if slug in interfaces}
    addresses |= {slug: f"sftp://{slug}@127.0.0.1:{ports['sftp']}/" for slug in passwords}
    known_hosts = f"[127.0.0.1]:{ports['sftp']} {host_key}"
    fetching = [target.id for target in load_catalogue().targets if target.protocol is Protocol.PULL]
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
        "intake": {
            "INTAKE_SUBJECT_KEY": kept["subject-key"],
            "INTAKE_SYNC_URL": urls["sync"],
            # the sample records are old enough to be repaired; here they are published today
            "INTAKE_NOTICE_WITHIN_DAYS": "36500",
            "INTAKE_FOLLOW_UP_POLL_SECONDS": "2",
            "INTAKE_EXPIRY_POLL_SECONDS": "2",
            "INTAKE_SCANNER_URL": f"{sandbox}/scanner",
            "INTAKE_DEPT_ADAPTER_URL": urls["dept-adapter"],
            "INTAKE_CLIENT_SECRET": clients["intake"],
        },
        "routing": {"ROUTING_DEADLINE_POLL_SECONDS": "2"},
        "dept-adapter": {
            **client("dept-adapter"),
            "DEPT_ADAPTER_DEPARTMENT_URLS": json.dumps(addresses),
            "DEPT_ADAPTER_DEPARTMENT_SECRETS": json.dumps({**departments, **passwords}),
            "DEPT_ADAPTER_DEPARTMENT_HOST_KEYS": json.dumps(dict.fromkeys(passwords, host_key)),
            "DEPT_ADAPTER_SOURCE_URLS": json.dumps({s: f"{sandbox}/sources/{s}" for s in sources}),
            "DEPT_ADAPTER_SOURCE_SECRETS": json.dumps(sources),
            "DEPT_ADAPTER_AUTO_GRANT": json.dumps({"hz-mzhj": {"tiers": ["minor"], "sample_percent": 50}}),
            "DEPT_ADAPTER_DESK_CLIENT_SECRET": clients["review-desk"],
            # sooner than the default: here somebody waits to see it
            "DEPT_ADAPTER_DEADLINE_POLL_SECONDS": "2",
            "DEPT_ADAPTER_DECISION_POLL_SECONDS": "1",
            "DEPT_ADAPTER_FILES_POLL_SECONDS": "1",
            "DEPT_ADAPTER_FILES_LEASE_SECONDS": "15",
            "DEPT_ADAPTER_FILES_TIMEOUT_SECONDS": "10",
            "DEPT_ADAPTER_REMIND_HOUR": "0",
        },
        "sync": {
            **client("sync"),
            "SYNC_TARGET_URLS": json.dumps(
                {
                    target: f"sftp://{target}@127.0.0.1:{ports['sftp']}/"
                    if target in by_files
                    else f"{sandbox}/targets/{target}"
                    for target in targets
                }
            ),
            "SYNC_ALLOWED_PRIVATE_HOSTS": json.dumps(["127.0.0.1"]),
            "SYNC_TARGET_SFTP": json.dumps(
                {id_: {"known_hosts": known_hosts, "password": each} for id_, each in by_files.items()}
            ),
            "SYNC_FILES_POLL_SECONDS": "1",
            "SYNC_TARGET_SECRETS": json.dumps(targets),
            "SYNC_PUBLIC_URL": urls["sync"],
            "SYNC_SIGNING_KEY": kept["signing-key"],
            "SYNC_HEAD_SECONDS": "2",
            "SYNC_VENDOR_LETTER_POLL_SECONDS": "2",
            "SYNC_VENDOR_LETTER_CONTACT": "杭州市信用修复“一件事”平台 0571-00000000（示例）",
            "SYNC_LEASE_SECONDS": "15",
            # sooner than the default at first: here somebody waits to see that a target which forgets is repaired
            "SYNC_TIME_LIMIT_POLL_SECONDS": "2",
            "SYNC_RECHECK_SCHEDULE_SECONDS": json.dumps([5, 60, 600, 3600, 86_400]),
        },
        "notify": {
            **client("notify"),
            "NOTIFY_SYNC_URL": urls["sync"],
            "NOTIFY_SMTP_HOST": "127.0.0.1",
            "NOTIFY_SMTP_PORT": str(ports["smtp"]),
            "NOTIFY_SMTP_FROM": "信复 <no-reply@xinfu.example>",
            # everything is near: what a killed worker had in hand need not wait for minutes
            "NOTIFY_SMTP_TIMEOUT_SECONDS": "2",
            "NOTIFY_EMAIL_LEASE_SECONDS": "8",
            "NOTIFY_EMAIL_RETRY_BASE_SECONDS": "2",
            "NOTIFY_DIGEST_WAIT_SECONDS": "3",
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
            "SANDBOX_LIST_URLS": json.dumps(dict.fromkeys(fetching, urls["sync"])),
            "SANDBOX_DEPARTMENT_SECRETS": json.dumps(departments),
            "SANDBOX_SFTP_PORT": str(ports["sftp"]),
            "SANDBOX_SFTP_PASSWORDS": json.dumps(passwords),
            "SANDBOX_TARGET_SFTP_PASSWORDS": json.dumps(by_files),
            "SANDBOX_SFTP_HOST_KEY": kept["sftp-host-key"],
            "SANDBOX_DEPT_ADAPTER_URL": urls["dept-adapter"],
            "SANDBOX_SOURCE_SECRETS": json.dumps(sources),
            "SANDBOX_OIDC_CLIENTS": json.dumps(
                {
                    name: {
                        "secret": secret,
                        "scope": " ".join(_CLIENT_SCOPES[name]),
                        "redirect_uris": [f"{urls['dept-adapter']}/desk/callback"]
                        if name == "review-desk"
                        else [],
                    }
                    for name, secret in clients.items()
                }
            ),
            "SANDBOX_ISSUER_URL": f"{sandbox}/oidc",
        },
        f"{sandbox}/livez",
    )
    processes = [outside]
    for service in SERVICES:
        prefix = service.upper().replace("-", "_")
        for number in range(1, replicas.get(service, 1) + 1):
            port = ports[service] if number == 1 else free_port()
            url = f"http://127.0.0.1:{port}"
            settings = {**common, **own[service], f"{prefix}_HTTP_PORT": str(port)}
            if service == "dept-adapter":  # departments call back the replica that pushed
                settings["DEPT_ADAPTER_PUBLIC_URL"] = url
                settings["DEPT_ADAPTER_DESK_URL"] = urls[service]
            processes.append(
                Process(
                    service if number == 1 else f"{service}-{number}",
                    [sys.executable, "-m", prefix.lower()],
                    settings,
                    f"{url}/readyz",
                    stop_wait_seconds=20,
                    uses_bus=True,
                )
            )
    if parity:
        # the embedded broker keeps nothing when it is restarted; this makes up for it
        schedule = ("--repair", "--every-seconds", "15", "--grace-seconds", "10")
        command = [sys.executable, "-m", "xinfu", "parity", *schedule]
        processes.append(Process("parity", command, {"XINFU_DATA_DIR": str(data_dir)}))
    if unknown := {*environment, *replicas} - {process.name for process in processes}:
        raise StackError(f"no such process in the local stack: {', '.join(sorted(unknown))}")
    processes = [
        replace(process, environment={**process.environment, **environment.get(process.name, {})})
        for process in processes
    ]
    return processes, Endpoints(urls, sandbox, clients["ops"])


def replay_outboxes(mongodb_uri: str) -> None:
    """Let every service publish its whole outbox again (guarantee G7): the bus has lost its data."""
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        for service in SERVICES:
            outbox = client[f"xinfu_{service.replace('-', '_')}"]["outbox"]
            outbox.update_many({"published_at": {"$exists": True}}, {"$set": {"pending": True}})
