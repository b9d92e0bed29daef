"""Fixtures: a real broker and a real MongoDB for the whole test session, started only when a test asks for them.

BROKER=embedded (default) or apache chooses the broker; KAFKA_BOOTSTRAP_SERVERS and MONGODB_URI replace both.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from xinfu.compose import Endpoints, compose
from xinfu_local import Broker, Stack

# no example has a time limit: a busy machine is no fault of the code
settings.register_profile(
    "xinfu", parent=settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("xinfu")
# the default sets every traceback with the values of all its frames: with whole batches in them that takes seconds each
structlog.configure(
    processors=[
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

_FAILED_STEP = re.compile(r'"loop": "([^"]+)".*"background step failed"')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need the shared stack come last: once it is up it takes a third of a core though nobody asks anything of it.
    Among the others, and among these, those with the most tests come first.
    """
    files = Counter(item.path for item in items)
    shared = {item.path for item in items if "full_stack" in getattr(item, "fixturenames", ())}
    # sorting is stable: within a file the order stays
    items.sort(key=lambda item: (item.path in shared, -files[item.path], str(item.path)))


@pytest.fixture(scope="session")
def broker_kind() -> Broker:
    """The broker under test."""
    return Broker(os.environ.get("BROKER", "embedded"))


@pytest.fixture(scope="session")
def infra(broker_kind: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A broker and a mongod without any service."""
    with Stack([], broker_kind, tmp_path_factory.mktemp("infra")) as stack:
        yield stack


@pytest.fixture(scope="session")
def full_stack(
    broker_kind: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Endpoints]]:
    """All five services, the sandbox, a broker and a mongod, each a process, as `make run` starts them."""
    data_dir = tmp_path_factory.mktemp("stack")
    processes, endpoints = compose(data_dir, broker_kind)
    with Stack(
        processes,
        broker_kind,
        data_dir,
        prepare=lambda _: endpoints.write(data_dir),
        ready_timeout_seconds=300,
    ) as stack:
        yield stack, endpoints
        for log in (data_dir / "logs").glob("*.log"):
            stuck = [
                loop
                for loop, failed in Counter(_FAILED_STEP.findall(log.read_text(errors="replace"))).items()
                if failed >= 3
            ]
            assert not stuck, f"background loops that kept failing, see {log}: {stuck}"
