"""The house keeps its rules. Every check is shown to fail on a bad example and to let a good one pass, then applied to all our code."""

import ast
from importlib.util import find_spec

import pytest
from contract.architecture import (
    OURS,
    REPOSITORY,
    SERVICES,
    Module,
    foreign_imports,
    impurities,
    lossy_subscribers,
    motor_imports,
    package_modules,
    threaded_calls,
    undeclared_topics,
)

PACKAGES = {
    path.parent.name: package_modules(path.parent)
    for pattern in ("contracts/*/__init__.py", "services/*/*/__init__.py", "deploy/*/*/__init__.py")
    for path in REPOSITORY.glob(pattern)
}
BUILDING_BLOCKS = {"contracts", "chassis", *SERVICES}
CHECKED = [module for name in sorted(BUILDING_BLOCKS) for module in PACKAGES[name].values()]
EVERYTHING = [module for modules in PACKAGES.values() for module in modules.values()]
IN_SERVICES = [module for module in CHECKED if module.root != "contracts"]


def _name(module: Module) -> str:
    return module.name


def test_all_packages_are_known_to_the_checks() -> None:
    assert set(PACKAGES) == OURS


# --- imports


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("routing.handlers", "import intake"),
        ("routing.handlers", "import intake.store as other"),
        ("routing.handlers", "from dept_adapter.store import Items"),
        ("routing.handlers", "def f():\n    from sync import domain"),
        ("routing.handlers", "import importlib\nimportlib.import_module('notify.store')"),
        ("routing.handlers", "from importlib import import_module\nimport_module(name)"),
        ("routing.handlers", "__import__('intake')"),
        ("routing.handlers", "import sandbox"),
        ("chassis.consumer", "from routing.domain import route"),
        ("chassis.consumer", "import xinfu_local"),
        ("contracts.events", "from chassis.db import Document"),
        ("contracts.events", "import routing"),
    ],
)
def test_a_foreign_import_is_found(module: str, code: str) -> None:
    assert foreign_imports(Module.parse(module, code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("routing.handlers", "import json, contracts.events\nfrom chassis.inbox import Received"),
        ("routing.handlers", "from . import store\nfrom .domain import route\nfrom routing import settings"),
        ("chassis.consumer", "from contracts.events import Event\nimport notify_py, intake_client"),
        ("contracts.events", "from contracts import records"),
    ],
)
def test_a_proper_import_passes(module: str, code: str) -> None:
    assert foreign_imports(Module.parse(module, code)) == []


@pytest.mark.parametrize("module", CHECKED, ids=_name)
def test_imports(module: Module) -> None:
    assert foreign_imports(module) == []


# --- pure domains


@pytest.mark.parametrize(
    "code",
    [
        "import aiohttp",
        "import asyncio",
        "import motor.motor_asyncio",
        "from pymongo import UpdateOne",
        "import socket",
        "import os.path",
        "from pathlib import Path",
        "import random",
        "from secrets import token_hex",
        "import time",
        "import yaml",
        "from chassis.db import Document",
        "from chassis import inbox",
        "import importlib",
        "open('x')",
        "__import__('os')",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as dt\ndt.datetime.now(tz)",
        "from datetime import date\ndate.today()",
        "from datetime import date as d\nx = d.today()",
        "from datetime import datetime\nclock = datetime.now",
        "import datetime\nclock = datetime.datetime.utcnow",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4 as new_id",
        "from contracts.catalogue import load_catalogue\nrules = load_catalogue()",
        "async def decide():\n    return 1",
    ],
)
def test_an_impure_domain_is_found(code: str) -> None:
    direct = {"sync.domain": Module.parse("sync.domain", code)}
    assert impurities(direct, "sync.domain")
    for way in (
        "from sync import helpers",
        "from sync.helpers import help",
        "import sync.helpers",
        "from . import helpers",
        "from .helpers import help",
    ):
        indirect = {
            "sync": Module.parse("sync", ""),
            "sync.domain": Module.parse("sync.domain", "from sync.between import x"),
            "sync.between": Module.parse("sync.between", way),
            "sync.helpers": Module.parse("sync.helpers", code),
        }
        assert [p for p in impurities(indirect, "sync.domain") if p.startswith("sync.helpers:")], way


def test_a_pure_domain_passes() -> None:
    code = """
from datetime import date, datetime
import re, uuid, chinese_calendar
from contracts.catalogue import Catalogue
from contracts.events import Event
PATTERN = re.compile("x")
def decide(state, event: Event, now: datetime, today: date):
    if state.now < now and state.open and today.isoformat():
        return uuid.uuid5(uuid.NAMESPACE_URL, event.key), datetime.fromisoformat("2026-01-01"), now.date()
"""
    modules = {
        "sync.domain": Module.parse("sync.domain", code),
        "sync.store": Module.parse("sync.store", "import motor"),
    }
    assert impurities(modules, "sync.domain") == []


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_domains_are_pure(service: str) -> None:
    modules = PACKAGES[service]
    domain = f"{service}.domain"
    assert domain in modules, "a service keeps its decisions in domain.py, or in a package of this name"
    for module in modules:
        if module == domain or module.startswith(f"{domain}."):
            assert impurities(modules, module) == []


# --- the event loop


def test_no_process_can_run_on_uvloop() -> None:
    """uvicorn takes it when it is there; aiokafka's tasks end at its errors and nothing goes on (docs/decisions/0031)."""
    assert find_spec("uvloop") is None


# --- the driver


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("chassis.outbox", "import motor"),
        ("routing.store", "from motor.motor_asyncio import AsyncIOMotorClient"),
        ("xinfu.sample", "def f():\n    import motor.core"),
    ],
)
def test_motor_elsewhere_is_found(module: str, code: str) -> None:
    assert motor_imports(Module.parse(module, code))


def test_motor_at_home_passes() -> None:
    assert motor_imports(Module.parse("chassis.db", "import motor.motor_asyncio")) == []
    assert (
        motor_imports(Module.parse("routing.store", "from pymongo import IndexModel\nimport motorway")) == []
    )


@pytest.mark.parametrize("module", EVERYTHING, ids=_name)
def test_motor_stays_in_one_module(module: Module) -> None:
    assert motor_imports(module) == []


# --- subscribers


@pytest.mark.parametrize(
    "code",
    [
        "@broker.subscriber('a')\nasync def f(m): ...",
        "broker.subscriber(*topics, batch=True, group_id='g')",
        "subscriber('a', **options)",
        "broker.subscriber('a', ack_policy=AckPolicy.ACK_FIRST)",
        "broker.subscriber('a', ack_policy=AckPolicy.ACK)",
        "broker.subscriber('a', ack_policy=faststream.AckPolicy.REJECT_ON_ERROR)",
    ],
)
def test_a_lossy_subscriber_is_found(code: str) -> None:
    assert lossy_subscribers(Module.parse("notify.handlers", code))


def test_a_careful_subscriber_passes() -> None:
    code = "broker.subscriber('a', ack_policy=AckPolicy.NACK_ON_ERROR)\nbroker.subscriber('b', ack_policy=chosen)"
    assert lossy_subscribers(Module.parse("notify.handlers", code)) == []


@pytest.mark.parametrize("module", EVERYTHING, ids=_name)
def test_no_subscriber_loses_messages(module: Module) -> None:
    assert lossy_subscribers(module) == []


def test_there_is_a_subscriber_to_check() -> None:
    assert any("attr='subscriber'" in ast.dump(module.tree) for module in IN_SERVICES)


# --- topics


@pytest.mark.parametrize(
    "code",
    [
        "TOPIC = 'xinfu.decisions'",
        "topics = ['xinfu.applications']",
        "f(f'xinfu.reviews.{slug}')",
        "name = 'xinfu.reviews.' + slug",
        "broker.subscriber('xinfu.new-topic', ack_policy=p)",
        "producer.send_and_wait('xinfu.mine', b'')",
        "ConsumerSpec('notify', ['xinfu.anything'], handler)",
        "ConsumerSpec('notify', topics=[f'xinfu.{name}'], handler=handler)",
        "Topic('xinfu.other', partitions=1)",
    ],
)
def test_an_undeclared_topic_is_found(code: str) -> None:
    assert undeclared_topics(Module.parse("notify.app", code))


@pytest.mark.parametrize(
    "code",
    [
        '"""xinfu.decisions"""',
        "def f():\n    'xinfu.reviews.<department> is read here.'",
        "span.set_attribute('xinfu.application_id', x)",
        "facts[f'xinfu.{name}'] = value",
        "trace.get_tracer('xinfu.routing')",
        "ConsumerSpec(NAME, [APPLICATIONS.name, review_topic(slug)], handler)",
        "database = 'xinfu_routing'",
    ],
)
def test_other_names_pass(code: str) -> None:
    assert undeclared_topics(Module.parse("notify.app", code)) == []


@pytest.mark.parametrize("module", IN_SERVICES, ids=_name)
def test_topics_are_named_in_the_registry_alone(module: Module) -> None:
    assert undeclared_topics(module) == []


# --- threads


@pytest.mark.parametrize(
    "code",
    [
        "def desk(request): ...\nDesk = Annotated[str, Depends(desk)]",
        "def f():\n    def inner(): ...\n    return Depends(inner)",
        "@router.get('/x')\ndef show(): ...",
    ],
)
def test_what_goes_through_a_thread_is_found(code: str) -> None:
    assert threaded_calls(Module.parse("notify.api", code))


@pytest.mark.parametrize(
    "code",
    [
        "async def desk(request): ...\nDesk = Annotated[str, Depends(desk)]",
        "Officer = Annotated[Claims, Depends(require(Scope.DESK))]",
        "@router.get('/x')\nasync def show(): ...",
        "@app.command('x')\ndef run(): ...",
    ],
)
def test_what_does_not_passes(code: str) -> None:
    assert threaded_calls(Module.parse("notify.api", code)) == []


@pytest.mark.parametrize("module", IN_SERVICES, ids=_name)
def test_no_request_goes_through_a_thread(module: Module) -> None:
    assert threaded_calls(module) == []
