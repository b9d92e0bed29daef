"""The conformance kit against the sandbox's departments of every kind: good ones pass every case, wrong ones fail where they are wrong."""

import asyncio
import json
import os
import secrets
import signal
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from aiohttp import ClientSession

from chassis.file_store import SftpAccess, open_files
from contracts.catalogue import Department, load_catalogue
from support import eventually
from xinfu import conformance_api, conformance_files, conformance_kafka
from xinfu.conformance_cases import Result
from xinfu_local import Stack, free_port

CALLED, POLLED, FILES, EVENTS = "hz-samr", "hz-ycj", "hz-gjjzx", "hz-yzj"
SECRET = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
TIMES = {"patience_seconds": 20.0, "settle_seconds": 1.5}


def department(slug: str) -> Department:
    found = load_catalogue().by_slug(slug)
    assert found is not None
    return found


class Systems:
    """The test systems of four departments, and our side towards each."""

    def __init__(self, infra: Stack, data_dir: Path) -> None:
        self.bus = infra.kafka_bootstrap
        self.http_port, self.sftp_port, self.adapter_port = (free_port() for _ in range(3))
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        settings = {
            "HTTP_PORT": self.http_port,
            "SMTP_PORT": free_port(),
            "SFTP_PORT": self.sftp_port,
            "SFTP_PASSWORDS": json.dumps({FILES: "password"}),
            "SFTP_HOST_KEY": self.key.export_private_key().decode(),
            "DATA_DIR": data_dir,
            "DECISION_DELAY_SECONDS": 0.2,
            "DEPARTMENT_SECRETS": json.dumps(dict.fromkeys((CALLED, POLLED, EVENTS), SECRET)),
            "DEPT_ADAPTER_URL": f"http://127.0.0.1:{self.adapter_port}",
        }
        self.environment = {f"SANDBOX_{name}": str(value) for name, value in settings.items()}
        self.environment["KAFKA_BOOTSTRAP_SERVERS"] = self.bus

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    async def called(self) -> Sequence[Result]:
        url = self.url(f"/departments/{CALLED}")
        async with conformance_api.api_side(department(CALLED), url, SECRET, polls=False, **TIMES) as side:
            return await conformance_api.conform(side, "127.0.0.1", None)

    async def polled(self) -> Sequence[Result]:
        url = self.url(f"/departments/{POLLED}")
        async with conformance_api.api_side(department(POLLED), url, SECRET, polls=True, **TIMES) as side:
            return await conformance_api.conform(side, "127.0.0.1", None)

    async def files(self) -> Sequence[Result]:
        host = f"[127.0.0.1]:{self.sftp_port}"
        access = SftpAccess(f"{host} {self.key.export_public_key().decode()}", password="password")
        async with (
            open_files(f"sftp://{FILES}@127.0.0.1:{self.sftp_port}/", access) as store,
            conformance_files.files_side(department(FILES), store, **TIMES) as side,
        ):
            return await conformance_files.conform(side)

    async def events(self) -> Sequence[Result]:
        async with conformance_kafka.kafka_side(
            department(EVENTS), self.bus, secret=SECRET, serve_port=self.adapter_port, **TIMES
        ) as side:
            return await conformance_kafka.conform(side)


@pytest.fixture
async def systems(infra: Stack, tmp_path: Path) -> AsyncIterator[Systems]:
    found = Systems(infra, tmp_path / "data")
    with (tmp_path / "sandbox.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandbox"), env=os.environ | found.environment, stdout=log, stderr=log
        )
    try:
        async with ClientSession() as http:

            async def ready() -> bool:
                assert process.returncode is None, (tmp_path / "sandbox.log").read_text()
                try:
                    async with http.get(found.url("/livez")) as answer:
                        return answer.status == 200
                except OSError:
                    return False

            await eventually(ready, 60)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def failed(results: Sequence[Result]) -> dict[str, str]:
    return {result.name: result.seen for result in results if not result.passed}


async def test_good_systems_pass_and_wrong_ones_fail_where_they_are_wrong(systems: Systems) -> None:
    every: tuple[Callable[[], Awaitable[Sequence[Result]]], ...] = (
        systems.called,
        systems.polled,
        systems.files,
        systems.events,
    )
    good = await asyncio.gather(*(kind() for kind in every))
    assert [failed(results) for results in good] == [{}, {}, {}, {}]
    assert [len(results) for results in good] == [9, 7, 7, 7]

    async with ClientSession() as http:
        wrong: dict[str, dict[str, Any]] = {
            CALLED: {"mode": "ignore_signature"},
            POLLED: {"mode": "change_mind"},
            FILES: {"mode": "wrong_count", "count": 1},
            EVENTS: {"mode": "change_mind"},
        }
        for slug, fault in wrong.items():
            async with http.post(systems.url(f"/sandbox/faults/{slug}"), json=fault) as answer:
                assert answer.status == 204
    called, polled, files, events = await asyncio.gather(*(kind() for kind in every))
    assert failed(called).keys() == {"bad-signature", "old-timestamp"}
    assert failed(polled).keys() == {"redelivery"}
    assert "清单写有" in failed(files)["manifest"]
    assert failed(events).keys() == {"redelivery"}
    assert "两个不同的决定" in failed(events)["redelivery"]

    # as the command: status 1, and what is wrong as JSON
    command = ("conformance", "department", "--department", CALLED, "--settle-seconds", "1", "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xinfu", *command, "--url", systems.url(f"/departments/{CALLED}")),
        env=os.environ | {"XINFU_CONFORMANCE_SECRET": SECRET},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    report = json.loads(output)
    assert (process.returncode, report["passed"], len(report["cases"])) == (1, False, 9)
