"""The local stack for real: mongod, a broker, supervisord and a small HTTP service, started, killed and stopped.

BROKER=apache runs the same tests with Apache Kafka.
"""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from chaos.proxy import BusLinks, State
from pymongo import MongoClient

from support import PATIENCE
from xinfu.compose import compose
from xinfu_local import Broker, Process, RunningStack, Stack, StackError, broker_from_environment, free_port
from xinfu_local.apache_kafka import apache_process
from xinfu_local.mongodb import check_mongod, ensure_replica_set, mongod_path

BROKER = broker_from_environment(os.environ)

# Answers with its pid and its environment; started with an argument, it does not care for SIGTERM.
ECHO = textwrap.dedent(
    """
    import http.server, json, os, signal, sys
    if len(sys.argv) > 2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"pid": os.getpid(), **os.environ}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)
    print("listening on", sys.argv[1])
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)
HARD_VALUE = """双引号 " 单引号 ' 百分号 %(here)s %d ; 井号 # $HOME `id` \\ 换行\n逗号, ["a"]"""


def echo(name: str = "echo", *more: str, stop_wait_seconds: int = 5, **environment: str) -> Process:
    port = free_port()
    command = [sys.executable, "-c", ECHO, str(port), *more]
    return Process(name, command, environment, f"http://127.0.0.1:{port}/healthz?deep=1", stop_wait_seconds)


def ask(process: Process) -> dict[str, Any]:
    assert process.health_url is not None
    connection = http.client.HTTPConnection(process.health_url.split("/")[2], timeout=5)
    connection.request("GET", "/")
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Whatever lives and names the data directory in its environment, found without the code under test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("XINFU_STACK") == str(
                data_dir
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module", autouse=True)
def _no_servers_of_ones_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        patch.delenv("MONGODB_URI", raising=False)
        yield


def _new_data_dir(parent: Path) -> Iterator[Path]:
    # Longer than a unix socket's path may be, and with all that configuration files trip over.
    path = parent / f"数据 100% it's, {'x' * 80}" / "run"
    yield path
    left = processes_of(path)
    for process in left:
        process.kill()
    shutil.rmtree(path, ignore_errors=True)  # mongod takes 300 MB, and pytest keeps the last runs
    assert left == [], "processes were left behind"


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield from _new_data_dir(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Process]]:
    """One stack for the tests that leave it as it was."""
    service = echo(HARD=HARD_VALUE)
    for path in _new_data_dir(tmp_path_factory.mktemp("shared")):
        with Stack([service], BROKER, path) as stack:
            yield stack, service


async def produce_and_consume(bootstrap: str, topic: str, group_id: str | None = None) -> bytes:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=BROKER.supports_idempotence
    )
    await producer.start()
    await producer.send_and_wait(topic, value=os.urandom(8).hex().encode(), key=b"record-1")
    await producer.stop()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group_id, auto_offset_reset="earliest"
    )
    await consumer.start()
    message = await consumer.getone()
    await consumer.stop()
    assert message.key == b"record-1"
    value: bytes = message.value
    return value


async def test_the_bus_carries_a_message(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    assert len(await produce_and_consume(stack.kafka_bootstrap, "test.bus", "group")) == 16


def test_mongodb_does_transactions(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    with MongoClient[dict[str, Any]](stack.mongodb_uri) as client:
        kept, undone = client.test.kept, client.test.undone
        with client.start_session() as session:
            with session.start_transaction():
                kept.insert_one({"_id": 1}, session=session)
                undone.insert_one({"_id": 1}, session=session)
            with pytest.raises(ZeroDivisionError), session.start_transaction():  # noqa: PT012
                undone.insert_one({"_id": 2}, session=session)
                _ = 1 / 0
        assert [found["_id"] for found in kept.find()] == [1]
        assert [found["_id"] for found in undone.find()] == [1]


def test_a_service_gets_its_environment_unchanged(shared: tuple[Stack, Process]) -> None:
    stack, service = shared
    environment = ask(service)
    assert environment["HARD"] == HARD_VALUE
    assert environment["KAFKA_BOOTSTRAP_SERVERS"] == stack.kafka_bootstrap
    assert environment["MONGODB_URI"] == stack.mongodb_uri
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert "listening on" in stack.logs("echo")


def test_a_killed_process_comes_back_with_another_pid(shared: tuple[Stack, Process]) -> None:
    stack, service = shared
    before = stack.pids()
    killed = stack.kill("echo")
    assert killed == before["echo"]
    stack.wait_ready(["echo"])
    after = stack.pids()
    assert after["echo"] == ask(service)["pid"] != killed
    stack.restart("echo")
    assert ask(service)["pid"] not in (killed, after["echo"])
    assert {name: pid for name, pid in stack.pids().items() if name != "echo"} == {
        name: pid for name, pid in before.items() if name != "echo"
    }


async def test_servers_come_back_after_kill_9(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    with MongoClient[dict[str, Any]](stack.mongodb_uri, retryWrites=True) as client:
        client.test.acknowledged.insert_one({"_id": 1})
        stack.kill("mongodb")
        stack.kill("kafka")
        stack.wait_ready()
        assert client.test.acknowledged.find_one() == {"_id": 1}
    assert len(await produce_and_consume(stack.kafka_bootstrap, "test.after-kill")) == 16


def test_the_embedded_broker_finds_no_client_of_the_one_before(data_dir: Path) -> None:
    sleeping = ["sleep", "1000"]
    processes = [Process("client", sleeping, uses_bus=True), Process("other", sleeping)]
    with Stack(processes, BROKER, data_dir) as stack:
        before = stack.pids()
        stack.kill("kafka")
        stack.wait_ready()
        after = stack.pids()
        anew = {name for name, pid in after.items() if pid != before[name]}
        assert anew == ({"kafka"} if BROKER.survives_restart else {"kafka", "client"})


def test_other_processes_find_the_running_stack(shared: tuple[Stack, Process]) -> None:
    stack, service = shared
    found = RunningStack.find(stack.data_dir)
    assert found.description.mongodb_uri == stack.mongodb_uri
    assert found.description.health_urls["echo"] == service.health_url
    assert found.pids() == stack.pids()
    memory = found.memory()
    for name, pid in found.pids().items():
        # The service is one process; its memory is that of the pid, give or take what it took meanwhile.
        assert memory[name] == pytest.approx(psutil.Process(pid).memory_info().rss, rel=0.2)
    with pytest.raises(StackError, match=r"no process 'intake'.*mongodb, kafka, echo"):
        found.logs("intake")


def test_two_stacks_never_share_a_data_directory(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    with pytest.raises(StackError, match=rf"process {os.getpid()} \(.*data directory"):
        Stack([], BROKER, stack.data_dir).start()
    stack.wait_ready()  # the one that was refused has touched nothing


def test_servers_of_ones_own_replace_those_of_the_stack(
    shared: tuple[Stack, Process], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = shared
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    service = echo()
    with Stack([service], BROKER, data_dir) as stack:
        assert set(stack.pids()) == {"echo"}
        assert ask(service)["MONGODB_URI"] == own.mongodb_uri
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("xinfu_local.stack._OWN_SERVER_TIMEOUT_SECONDS", 1)
    with pytest.raises(StackError, match="no Kafka broker accepts connections"):
        Stack([], BROKER, data_dir).start()


def test_a_replica_set_of_three_outlives_a_step_down_a_kill_a_pause_and_a_full_disk(data_dir: Path) -> None:
    for run in range(2):  # the second time on other ports than its files say
        with (
            Stack([], BROKER, data_dir, mongodb_nodes=3, ready_timeout_seconds=300) as stack,
            MongoClient[dict[str, Any]](stack.mongodb_uri, w="majority") as client,
        ):
            written = client.test.written
            assert written.count_documents({}) == 5 * run
            written.insert_one({})
            first = stack.step_down()
            written.insert_one({})
            second = stack.primary()
            assert second != first
            stack.kill(second)
            written.insert_one({})
            third = stack.primary()
            assert third != second
            stack.wait_ready()
            aside = ({"mongodb", "mongodb-2", "mongodb-3"} - {third}).pop()
            stack.suspend(aside)
            written.insert_one({})
            assert psutil.Process(stack.pids()[aside]).status() == psutil.STATUS_STOPPED
            stack.resume(aside)
            third = stack.primary()
            full = stack.limit_file_size(third, 100_000)
            client.test.large.insert_many([{"data": os.urandom(100_000)} for _ in range(30)])
            written.insert_one({})
            deadline = time.monotonic() + 60 * PATIENCE
            while stack.pids().get(third) in (None, full):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            stack.wait_ready()


async def test_the_broker_is_wiped(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    await produce_and_consume(stack.kafka_bootstrap, "test.wiped")
    stack.wipe_kafka(120)
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    topics = await admin.list_topics()
    await admin.close()
    assert "test.wiped" not in topics


@pytest.mark.skipif(BROKER != "apache", reason="the embedded broker has one listener")
async def test_a_link_to_the_bus_is_cut_and_healed(data_dir: Path) -> None:
    links = BusLinks(["one", "other"])
    with Stack([links.process], BROKER, data_dir, kafka_listeners=links.listeners, ready_timeout_seconds=300):
        servers = {name: links.environment(name)["KAFKA_BOOTSTRAP_SERVERS"] for name in ("one", "other")}
        await produce_and_consume(servers["one"], "test.links")
        one, other = (AIOKafkaProducer(bootstrap_servers=server) for server in servers.values())
        async with one, other:
            await one.send_and_wait("test.links", b"1")
            for state in (State.BLACK_HOLE, State.REFUSE):
                await links.cut("one", state)
                held = asyncio.create_task(one.send_and_wait("test.links", b"2"))
                await other.send_and_wait("test.links", b"3")
                await asyncio.sleep(1)
                assert not held.done()
                await links.heal("one")
                await asyncio.wait_for(held, 60)
            await links.delay("one", 0.3)
            started = time.monotonic()
            await one.send_and_wait("test.links", b"4")
            assert time.monotonic() - started >= 0.6  # there and back
            with pytest.raises(ValueError, match="nobody"):
                await links.cut("nobody")


def test_replicas_are_processes_with_ports_and_settings_of_their_own(tmp_path: Path) -> None:
    processes, endpoints = compose(
        tmp_path, Broker.EMBEDDED, replicas={"sync": 2}, environment={"sync-2": {"SYNC_POLL_MS": "7"}}
    )
    first, second = (next(p for p in processes if p.name == name) for name in ("sync", "sync-2"))
    assert first.health_url == f"{endpoints.services['sync']}/readyz" != second.health_url
    assert first.environment["SYNC_HTTP_PORT"] != second.environment["SYNC_HTTP_PORT"]
    assert {key for key in second.environment if second.environment[key] != first.environment.get(key)} == {
        "SYNC_HTTP_PORT",
        "SYNC_POLL_MS",
    }
    with pytest.raises(StackError, match="sink"):
        compose(tmp_path, Broker.EMBEDDED, environment={"sink": {}})


async def test_a_data_directory_is_used_again_and_nothing_is_left_behind(data_dir: Path) -> None:
    seen: list[str] = []

    def prepare(stack: Stack) -> None:
        assert "stubborn" not in stack.pids(), "prepare comes before the services"
        with MongoClient[dict[str, Any]](stack.mongodb_uri) as client:
            seen.extend(found["_id"] for found in client.test.runs.find())
            client.test.runs.insert_one({"_id": f"run {len(seen)}"})

    stubborn = echo("stubborn", "ignores SIGTERM", stop_wait_seconds=1)
    # Leaves a grandchild outside its process group, which no signal to the group reaches.
    parent = Process("parent", ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])
    for _ in range(2):  # the second time mongod has another port than its files say
        with Stack([stubborn, parent], BROKER, data_dir, prepare=prepare) as stack:
            assert len(processes_of(data_dir)) >= 6
            await produce_and_consume(stack.kafka_bootstrap, "test.again")
        assert processes_of(data_dir) == []
        with pytest.raises(StackError, match="no local stack runs"):
            RunningStack.find(data_dir)
    assert seen == ["run 0"]


def test_a_failed_start_names_the_process_shows_its_log_and_ends_the_rest(data_dir: Path) -> None:
    broken = Process(
        "broken",
        [sys.executable, "-c", "print('\\n' * 30); raise SystemExit('数据库口令不对')"],
        health_url=f"http://127.0.0.1:{free_port()}/",
    )
    with pytest.raises(StackError) as caught:
        Stack([echo(), broken], BROKER, data_dir).start()
    assert str(caught.value).startswith("broken keeps ending")
    assert "数据库口令不对" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 21
    assert processes_of(data_dir) == []


def test_a_start_waits_no_longer_than_it_is_told_and_names_who_is_not_ready(
    shared: tuple[Stack, Process], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shared[0].environment.items():  # servers that are up: only the service is waited for
        monkeypatch.setenv(name, value)
    silent = Process("silent", ["sleep", "1000"], health_url=f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(StackError, match="silent is not ready after 1 s"):
        Stack([silent], BROKER, data_dir, ready_timeout_seconds=1).start()
    assert processes_of(data_dir) == []


CALLER = """
import signal, sys, time
from pathlib import Path
from xinfu_local import Broker, Process, Stack
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background with SIGINT ignored
with Stack([Process("sleeper", ["sleep", "1000"])], Broker(sys.argv[1]), Path(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def caller(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a stack running."""
    command = [sys.executable, "-c", CALLER, BROKER, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "returned"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_to_the_caller_ends_in_a_clean_stop(
    data_dir: Path, caller: subprocess.Popen[str], number: signal.Signals, returned: int
) -> None:
    caller.send_signal(number)
    time.sleep(0.1)
    caller.send_signal(number)  # impatience must not leave half a stack behind
    assert caller.wait(30) == returned
    assert processes_of(data_dir) == []


@pytest.mark.parametrize("also_supervisord", [False, True])
def test_what_a_killed_stack_left_behind_is_ended_first(
    data_dir: Path, caller: subprocess.Popen[str], also_supervisord: bool
) -> None:
    old = processes_of(data_dir)
    assert {"mongod", "sleep"} <= {process.name() for process in old}
    if also_supervisord:
        psutil.Process(int((data_dir / "supervisord.pid").read_text())).kill()
    caller.kill()
    caller.wait()
    with Stack([], BROKER, data_dir) as stack:
        assert set(stack.pids()) == {"mongodb", "kafka"}
        assert not set(old) & set(processes_of(data_dir))


def test_a_missing_library_of_mongod_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcurl.so.4").touch()  # found first, and no library
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(StackError, match="apt-get install libcurl4"):
        check_mongod(mongod_path())


def test_missing_java_is_named_with_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="openjdk-17-jre-headless and maven") as caught:
        apache_process("kafka", tmp_path, 9092, tmp_path)
    assert "\n" not in str(caught.value)


def test_ensure_replica_set_says_why_it_gave_up() -> None:
    port = free_port()
    with pytest.raises(StackError, match=f"{port} has not become primary within 0.2 s.*refused"):
        ensure_replica_set([port], 0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Process("Intake Service", ["true"]), "lower-case"),
        (lambda: Process("intake", "sleep 1"), "must be a list"),
        (lambda: Process("intake", ["true"], health_url="localhost:80"), "http://host:port"),
        (lambda: Process("intake", ["true"], {"A=B; rm": "x"}), "environment variable"),
        (lambda: Stack([Process("kafka", ["true"])]), "must differ"),
        (lambda: broker_from_environment({"BROKER": "rabbit"}), "choose one of embedded, apache"),
    ],
)
def test_bad_input_is_refused_with_advice(make: Callable[[], object], message: str) -> None:
    with pytest.raises(StackError, match=message):
        make()


def test_a_taken_port_is_replaced_by_a_free_one(shared: tuple[Stack, Process]) -> None:
    stack, _ = shared
    taken = int(stack.kafka_bootstrap.rpartition(":")[2])
    other = free_port(taken)
    assert other != taken
    assert free_port(other) == other
