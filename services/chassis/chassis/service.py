"""Puts a service together: clients, consumers, relay, background loops, HTTP with health and metrics; starts and stops them in order."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import uvicorn
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiokafka.errors import KafkaError
from fastapi import APIRouter, FastAPI
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pymongo.errors import PyMongoError

from chassis.admission import BodyLimit, RequestLimit
from chassis.audit import AUDIT_COLLECTIONS
from chassis.auth import TokenVerifier
from chassis.background import Loop
from chassis.bus import BusWatch, end_to_be_started_again, make_broker, make_producer
from chassis.calendar_watch import announce
from chassis.consumer import BatchConsumer, ConsumerSpec
from chassis.db import CollectionSpec, Database, describe, is_unavailable
from chassis.dead_letters import DeadLetters, dead_letter_collections
from chassis.health import health_router
from chassis.inbox import inbox_collections
from chassis.invariants import Invariant, invariants_router
from chassis.ledger import ledger_router
from chassis.logs import configure_logs, get_logger
from chassis.operations import operations_router
from chassis.outbox import Outbox, outbox_collections
from chassis.parking import PARKING_COLLECTIONS
from chassis.problems import add_problem_handlers
from chassis.relay import Relay
from chassis.settings import ChassisSettings
from chassis.telemetry import configure_telemetry, shutdown_telemetry
from contracts.catalogue import CatalogueError
from contracts.envelope import source_of
from contracts.topics import Topic
from contracts.working_days import WorkCalendar

log = get_logger(__name__)
_KEEP_ALIVE_SECONDS = 75
"""An idle connection is kept longer than clients keep theirs (aiohttp: 15 s): the one who closes first never loses a request to it."""


@dataclass
class Runtime:
    """What a running service has; handlers and routes take what they need from it (``request.app.state.runtime``)."""

    name: str
    database: Database
    outbox: Outbox
    http: ClientSession
    tokens: TokenVerifier
    relay: Relay
    topics: Collection[str]
    dead_letters: DeadLetters
    exits: contextlib.AsyncExitStack
    """What a service opens for itself and has closed at the end, after its loops have stopped."""
    consumers: list[BatchConsumer] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)


@dataclass(frozen=True)
class ServiceSpec:
    """What makes a service: its name (also Kafka client id and service.name), its collections, what it consumes, does and serves.

    ``consumers`` and ``loops`` are called once with the running parts, ``invariants`` each time they are checked.
    ``topics``: real names it owns or consumes, created when missing. ``calendar``: of a service that counts working days.
    """

    name: str
    title: str
    collections: Sequence[CollectionSpec]
    topics: dict[str, Topic]
    routers: Sequence[APIRouter] = ()
    consumers: Callable[[Runtime], Sequence[ConsumerSpec]] = lambda _: ()
    loops: Callable[[Runtime], Sequence[Loop]] = lambda _: ()
    invariants: Callable[[Runtime], Sequence[Invariant]] = lambda _: ()
    calendar: WorkCalendar | None = None


async def _until_available(what: str, attempt: Callable[[], Awaitable[object]]) -> None:
    delay = 0.2
    while True:
        try:
            await attempt()
            return
        except (PyMongoError, KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, PyMongoError) and not is_unavailable(error):
                raise
            log.warning("waiting for a dependency", dependency=what, error=str(error)[:300])
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 5.0)


@contextlib.asynccontextmanager
async def _running(
    spec: ServiceSpec, settings: ChassisSettings, database_name: str
) -> AsyncIterator[Runtime]:
    database = Database(
        settings.mongodb_uri.get_secret_value(),
        database_name,
        pool_size=settings.mongodb_pool_size,
        timeout_ms=settings.mongodb_timeout_ms,
    )
    outbox = Outbox(
        database,
        source=source_of(spec.name),
        buckets=settings.outbox_buckets,
        max_event_bytes=settings.max_event_bytes,
    )
    http = ClientSession(
        timeout=ClientTimeout(total=30, connect=5),
        cookie_jar=DummyCookieJar(),
        connector=TCPConnector(limit=200),
    )
    relay = Relay(database, make_producer(settings, spec.name), settings, spec.name)
    broker = make_broker(settings, spec.name)
    dead_letters = DeadLetters(database, settings.dead_letter_quota_mb * 1_000_000)
    tokens = TokenVerifier(settings, http)
    stack = contextlib.AsyncExitStack()
    runtime = Runtime(spec.name, database, outbox, http, tokens, relay, spec.topics, dead_letters, stack)
    own = [
        *inbox_collections(settings.inbox_retention_days),
        *dead_letter_collections(settings.dead_letter_retention_days),
        *outbox_collections(settings.outbox_retention_days),
        *PARKING_COLLECTIONS,
        *AUDIT_COLLECTIONS,
        *spec.collections,
    ]
    if spec.calendar is not None:
        announce(spec.calendar)
    async with stack:
        stack.callback(database.close)
        stack.push_async_callback(http.close)
        await _until_available("mongodb", lambda: database.ensure(own))
        bus_watch = BusWatch(settings, spec.topics, outbox.has_published)
        stack.push_async_callback(relay.close)
        outbox.wake = relay.loop.wake
        runtime.consumers += [
            BatchConsumer(consumer, broker, database, outbox, dead_letters, settings)
            for consumer in spec.consumers(runtime)
        ]

        async def watch_clients() -> bool:
            failures = {"outbox-relay": relay.failure()}
            failures |= {consumer.spec.name: consumer.failure() for consumer in runtime.consumers}
            for client, error in failures.items():
                if error is not None:
                    log.critical(
                        "a client of the bus has failed for good. Ending, to be started again",
                        client=client,
                        error=describe(error),
                    )
                    end_to_be_started_again()
            return False

        client_watch = Loop("client-watch", watch_clients, settings.bus_watch_seconds)
        consuming = [loop for c in runtime.consumers for loop in (c.retry_loop, c.offset_loop)]
        loops = [*spec.loops(runtime), dead_letters.loop, client_watch, *consuming]
        runtime.loops += [*loops, bus_watch.loop, relay.loop]
        # stopping goes backwards: first no new work comes in, then work in hand ends, then the outbox is emptied
        stack.push_async_callback(relay.stop)
        for loop in loops:
            loop.start()

        async def stop_loops() -> None:
            await asyncio.gather(*(loop.stop() for loop in [*loops, bus_watch.loop]))

        stack.push_async_callback(stop_loops)

        # HTTP waits neither for the bus, whose events the outbox keeps meanwhile, nor until a group has noticed the death of a
        # killed member
        async def join() -> None:
            try:
                await _until_available("kafka", bus_watch.begin)
                await _until_available("kafka", relay.producer.start)
                relay.loop.start()
                bus_watch.loop.start()
                await broker.connect()
                # each by itself: one that cannot join keeps no other from its work, and is tried again alone
                await asyncio.gather(
                    *(_until_available(f"consumer group {c.spec.name}", c.start) for c in runtime.consumers)
                )
            except Exception:
                log.exception("the bus cannot be joined; /readyz will say so")

        joining = asyncio.create_task(join())

        async def stop_consuming() -> None:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            await broker.stop()

        stack.push_async_callback(stop_consuming)
        log.info("serving", topics=sorted({t for c in runtime.consumers for t in c.spec.topics}))
        yield runtime
        log.info("stopping")


def create_app(
    spec: ServiceSpec,
    settings: ChassisSettings,
    database_name: str,
    *,
    unlimited_body_paths: frozenset[str] = frozenset(),
) -> FastAPI:
    """The service's HTTP application; its lifespan runs everything else the service does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(spec, settings, database_name) as runtime:
            app.state.runtime = runtime
            yield
        shutdown_telemetry()

    app = FastAPI(
        title=spec.title,
        version="1.0.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, unlimited_paths=unlimited_body_paths)
    app.add_middleware(RequestLimit, max_requests=settings.max_concurrent_requests)
    add_problem_handlers(app)
    app.include_router(health_router(settings.stalled_after_seconds))
    app.include_router(operations_router(settings, spec.topics, spec.calendar))
    app.include_router(ledger_router(settings.outbox_retention_days))
    app.include_router(invariants_router(spec.invariants))
    for router in spec.routers:
        app.include_router(router)
    FastAPIInstrumentor.instrument_app(
        app, excluded_urls="livez,readyz,metrics", exclude_spans=["send", "receive"]
    )
    return app


def run(name: str, settings: ChassisSettings, build: Callable[[], FastAPI], *, port: int) -> None:
    """Run the service until SIGTERM or SIGINT: the batch in hand is finished, then everything is closed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again after its clean stop; the exit status shall not tell of a kill
        signal.signal(number, lambda *_: sys.exit(0))
    configure_logs(name, settings.log_level)
    configure_telemetry(name)
    AioHttpClientInstrumentor().instrument()
    try:
        app = build()
    except CatalogueError as error:
        sys.stderr.write(f"bad catalogue: {error}\n")
        raise SystemExit(78) from None
    uvicorn.run(
        app,
        host=settings.http_host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.graceful_timeout_seconds),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        loop="asyncio",  # not uvloop: docs/decisions/0031
        # on that loop the next request of a connection may begin in the context, and so in the trace, of the one before
        reset_contextvars=True,
        http="httptools",
    )
