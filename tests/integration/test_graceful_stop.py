"""A service stops with status 0, and says in one line what is wrong with its settings. Mid-batch: test_bus_contract.py."""

import secrets
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from support import PATIENCE
from xinfu_local import Broker, Stack, free_port


def test_a_service_ends_with_status_0_after_sigterm_and_says_what_is_missing(
    infra: Stack, broker_kind: Broker
) -> None:
    port = free_port(None)
    environment = {
        **infra.environment,
        "PATH": "/usr/bin:/bin",
        "ROUTING_HTTP_PORT": str(port),
        "ROUTING_MONGODB_DATABASE": f"test_{secrets.token_hex(6)}",
        "XINFU_OIDC_ISSUER": "http://127.0.0.1:1/oidc",
        "KAFKA_ENABLE_IDEMPOTENCE": str(broker_kind.supports_idempotence).lower(),
    }
    process = subprocess.Popen([sys.executable, "-m", "routing"], env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_ready(f"http://127.0.0.1:{port}/readyz")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 40 * PATIENCE
    while True:
        try:
            with urlopen(url, timeout=2) as response:
                assert response.status == 200
                return
        except (URLError, OSError):
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("service", "environment", "named"),
    [
        ("intake", {}, "KAFKA_BOOTSTRAP_SERVERS"),
        (
            "intake",
            {"KAFKA_BOOTSTRAP_SERVERS": "x", "MONGODB_URI": "y", "XINFU_OIDC_ISSUER": "z"},
            "INTAKE_SUBJECT_KEY",
        ),
        (
            "routing",
            {
                "KAFKA_BOOTSTRAP_SERVERS": "x",
                "MONGODB_URI": "y",
                "XINFU_OIDC_ISSUER": "z",
                "ROUTING_HTTP_PORT": "x",
            },
            "ROUTING_HTTP_PORT",
        ),
        (
            "routing",
            {
                "KAFKA_BOOTSTRAP_SERVERS": "x",
                "MONGODB_URI": "y",
                "XINFU_OIDC_ISSUER": "z",
                "XINFU_INBOX_RETENTION_DAYS": "5",
            },
            "XINFU_INBOX_RETENTION_DAYS",
        ),
    ],
)
def test_a_bad_setting_is_named_in_one_line(service: str, environment: dict[str, str], named: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", service],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 78
    (line,) = ended.stderr.decode().strip().splitlines()
    assert named in line
