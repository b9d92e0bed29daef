"""The main job end to end on the real stack, its trace without a gap, and the same while every service is killed once."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from rich.console import Console

from contracts.catalogue import load_catalogue
from contracts.clock import CHINA_STANDARD_TIME
from support import eventually
from xinfu.client import Client
from xinfu.compose import SERVICES, Endpoints, compose
from xinfu.demo import EMAIL, Demo
from xinfu.trace import forest, spans_of, submission
from xinfu_local import Broker, Stack

TARGETS = {t.id for t in load_catalogue().targets if t.read_back and t.id != "gsxt"}
"""Those that can be looked at and show all three records; gsxt shows the one of market supervision."""


async def main_job(endpoints: Endpoints, data_dir: Path) -> str:
    """What `make demo` does on a stack that is up; returns the application id."""
    async with ClientSession(timeout=ClientTimeout(total=30)) as session:
        today = datetime.now(CHINA_STANDARD_TIME).date()
        return await Demo(session, endpoints, Console(quiet=True)).run(data_dir, today, timeout_seconds=120)


def verified(spans: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(record, target) that intake has heard of as seen right."""
    return {
        (span["attributes"]["xinfu.record_id"], span["attributes"]["xinfu.target_id"])
        for span in spans
        if span["name"] == "process cn.xinfu.target.verified.v1" and span["service_name"] == "intake"
    }


async def test_main_job_and_its_trace(full_stack: tuple[Stack, Endpoints], tmp_path: Path) -> None:
    _, endpoints = full_stack
    application_id = await main_job(endpoints, tmp_path)
    spans: list[dict[str, Any]] = []
    async with ClientSession() as session:

        async def exported() -> bool:
            # every process sends its spans when its own timer fires: wait for the leaves, then look at the whole
            nonlocal spans
            spans = submission(await spans_of(Client(session), endpoints.sandbox, application_id))
            names = [span["name"] for span in spans]
            return (
                len(verified(spans)) == 3 * len(TARGETS) + 1
                and "process cn.xinfu.application.completed.v1" in names
                and names.count("send email") == 2
                and len(forest(spans)) == 1
            )

        await eventually(exported, seconds=30)

    # one tree: everything hangs below the POST, whatever outbox, bus and HTTP lie between
    (root,) = forest(spans)
    assert root.span["name"] == "POST /v1/applications"
    assert {span["service_name"] for span in spans} == set(SERVICES)
    records = {record for record, _ in verified(spans)}
    assert verified(spans) - {(record, "gsxt") for record in records} == set(
        itertools.product(records, TARGETS)
    )
    # every hop over the bus is a send of the producer with the consumer's span below it
    children = {span["span_id"] for span in spans}
    for span in spans:
        if span["name"].startswith("process "):
            assert span["parent_span_id"] in children
    assert not [span for span in spans if span["status"] == "error"]


@pytest.fixture
def own_stack(broker_kind: Broker, tmp_path: Path) -> Iterator[tuple[Stack, Endpoints]]:
    """A stack that may be broken."""
    processes, endpoints = compose(tmp_path, broker_kind)
    with Stack(processes, broker_kind, tmp_path, ready_timeout_seconds=300) as stack:
        yield stack, endpoints


async def test_main_job_while_each_service_is_killed(
    own_stack: tuple[Stack, Endpoints], tmp_path: Path
) -> None:
    stack, endpoints = own_stack
    job = asyncio.create_task(main_job(endpoints, tmp_path))
    async with ClientSession() as session:
        client = Client(session)

        async def filed() -> bool:
            cases = await client.call("GET", f"{endpoints.sandbox}/departments/hz-samr/cases")
            return bool(cases) or job.done()

        await eventually(filed, seconds=60)
        for service in SERVICES:
            assert not job.done(), "over before everything was killed: this run proves nothing"
            await asyncio.to_thread(stack.kill, service)
            await asyncio.sleep(0.7)
        await job
        # killed in the middle of everything, and yet nothing happened twice
        for target in TARGETS:
            log = await client.call("GET", f"{endpoints.sandbox}/targets/{target}/sandbox/log?limit=1000")
            assert log["summary"]["first_effect"] == 3
        mails: list[dict[str, Any]] = []

        async def mailed() -> bool:
            # a mail that the killed worker had in hand goes out when its lease is over
            nonlocal mails
            mails = await client.call("GET", f"{endpoints.sandbox}/mail?to={EMAIL}")
            return len(mails) >= 2

        await eventually(mailed, seconds=30)
        assert len({mail["message_id"] for mail in mails}) == len(mails) == 2
