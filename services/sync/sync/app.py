"""Puts sync together."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar
from fastapi import FastAPI

from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.consumer import ConsumerSpec
from chassis.file_store import open_files
from chassis.outbound import guarded_connect, guarded_connector
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import Catalogue, Protocol, load_catalogue
from contracts.catalogue import Target as CatalogueTarget
from contracts.tokens import Scope
from contracts.topics import consumed_by, topics_of
from sync import (
    catch_up,
    certificates,
    certificates_api,
    letter_store,
    letters_api,
    page_sessions,
    pages_api,
    proof_api,
    visits,
)
from sync import invariants as checks
from sync.api import router
from sync.catch_up import CatchUp
from sync.certificates import Certificates, Issuer
from sync.driver import Driver
from sync.exchange import Counterpart
from sync.exchange import router as exchange
from sync.files_target import FilesTarget
from sync.handlers import DecisionHandler, in_turn
from sync.history import head_loop
from sync.http_target import HttpTarget
from sync.letter_desk import LetterDesk
from sync.letter_store import LetterStore
from sync.list_target import ListTarget
from sync.lists import TargetList
from sync.metrics import HEAD_AGE, OLDEST_DIFFERENCE, UNCOVERED
from sync.page_sessions import PageSessions
from sync.policy import Policy
from sync.receipts import Receipts, receipt_files_loop
from sync.sending import Sending
from sync.settings import SyncSettings, check_targets
from sync.settlement import Settlement
from sync.store import Store, collections
from sync.target import Target
from sync.time_limits import TimeLimits
from sync.visits import Visits

NAME = "sync"
_GAUGE_SECONDS = 5.0
_SWEEP_SECONDS = 5.0


def build(settings: SyncSettings) -> FastAPI:
    """The application, ready to be served. Exits with status 78 when a target of the catalogue has no URL or secret."""
    catalogue = load_catalogue(settings.catalogue_dir)
    check_targets(settings, catalogue.targets)
    policies = {target.id: settings.policy(target, catalogue.calendar) for target in catalogue.targets}
    wakes: dict[str, Callable[[], None]] = {}

    def consumers(runtime: Runtime) -> list[ConsumerSpec]:
        app.state.policies = policies
        app.state.store = store = Store(runtime.database, settings.history_digest)
        app.state.catalogue, app.state.keys = catalogue, settings.keys()
        app.state.public_url = str(settings.public_url).rstrip("/")
        app.state.page_sessions = PageSessions(runtime.database)
        decisions = DecisionHandler(catalogue, policies, store, wakes)
        app.state.sending = sending = Sending(
            LetterStore(runtime.database), store, policies, settings.letter_policy(catalogue.calendar)
        )
        concerned = DecisionHandler.EVENTS | Sending.EVENTS
        return [ConsumerSpec(NAME, consumed_by(NAME), in_turn(decisions, sending), concerned)]

    def loops(runtime: Runtime) -> list[Loop]:
        store: Store = app.state.store
        directory = _directory(runtime, settings)
        targets = _Targets(runtime, settings, catalogue, policies, store, directory, wakes)
        app.state.drivers = {driver.target.id: driver for driver in targets.drivers}
        app.state.counterparts = targets.counterparts
        app.state.certificates = Certificates(
            runtime.database,
            store,
            runtime.outbox,
            directory,
            catalogue,
            policies,
            Issuer(
                settings.issuer_name,
                app.state.public_url,
                settings.signing(),
                settings.keys(),
            ),
        )
        app.state.letters = letters = LetterDesk(
            LetterStore(runtime.database),
            store,
            runtime.outbox,
            directory,
            catalogue,
            policies,
            targets.drivers,
            targets.settlement,
            app.state.sending,
            settings.letter_policy(catalogue.calendar),
            automatic=settings.vendor_letter_automatic,
            poll_seconds=settings.vendor_letter_poll_seconds,
        )
        app.state.visits = Visits(
            runtime.database, letters.letters, store, runtime.outbox, policies, targets.settlement
        )
        app.state.time_limits = limits = TimeLimits(
            store, runtime.outbox, policies, settings.time_limit_poll_seconds
        )
        app.state.head_seconds = settings.head_seconds
        heads = head_loop(store.history, settings.signing(), settings.head_seconds)
        joining = CatchUp(
            runtime.database, store, runtime.outbox, catalogue, policies, settings.catch_up_seconds
        )
        return [
            *targets.loops,
            joining.loop,
            heads,
            letters.loop,
            limits.loop,
            _gauges(store, list(policies)),
        ]

    spec = ServiceSpec(
        NAME,
        "信复 · 公示同步",
        [
            *collections(settings.attempt_retention_days, settings.receipt_retention_days),
            *certificates.COLLECTIONS,
            *letter_store.COLLECTIONS,
            *page_sessions.COLLECTIONS,
            *visits.COLLECTIONS,
            *catch_up.COLLECTIONS,
        ],
        topics_of(NAME),
        routers=[
            router,
            exchange,
            proof_api.router,
            certificates_api.router,
            letters_api.router,
            pages_api.router,
            checks.router,
        ],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: checks.invariants(runtime.database),
        calendar=catalogue.calendar,
    )
    app = create_app(spec, settings, settings.mongodb_database)
    return app


def _directory(runtime: Runtime, settings: SyncSettings) -> CaseDirectory:
    token = ServiceToken(
        runtime.http, settings.oidc_issuer, settings.client_id, settings.client_secret, Scope.CASES_READ
    )
    return CaseDirectory(runtime.http, str(settings.intake_url), token)


class _Targets:
    """What serves the targets of the catalogue: a driver for each that is told or looked at, and what it may say to us."""

    def __init__(
        self,
        runtime: Runtime,
        settings: SyncSettings,
        catalogue: Catalogue,
        policies: Mapping[str, Policy],
        store: Store,
        directory: CaseDirectory,
        wakes: dict[str, Callable[[], None]],
    ) -> None:
        self._wakes = wakes
        self._runtime = runtime
        self._settings = settings
        self._store = store
        self._policies = policies
        self._directory = directory
        self.settlement = Settlement(policies, store, runtime.outbox, wakes)
        # a client of its own: what it may connect to is nobody else's business
        self._http = ClientSession(
            timeout=ClientTimeout(total=30, connect=5),
            cookie_jar=DummyCookieJar(),
            connector=guarded_connector(settings.allowed_private_hosts, limit=200),
        )
        runtime.exits.push_async_callback(self._http.close)
        self.drivers: list[Driver] = []
        self.loops: list[Loop] = [Loop("completion", self.settlement.sweep, _SWEEP_SECONDS)]
        self.counterparts: dict[str, Counterpart] = {}
        for target in catalogue.targets:
            if target.protocol is not Protocol.LETTER:
                department = catalogue.by_slug(target.agency) if target.agency else None
                self._serve(target, department.name if department else None)

    def _serve(self, target: CatalogueTarget, agent: str | None) -> None:
        settings, store, outbox = self._settings, self._store, self._runtime.outbox
        receipts = Receipts(self._policies[target.id], self.settlement, store, outbox)
        port: Target
        if target.protocol is Protocol.FILES:
            files = FilesTarget(
                target.id,
                partial(
                    open_files,
                    str(settings.target_urls[target.id]),
                    settings.sftp_access(target.id),
                    timeout_seconds=target.timeout_seconds,
                    connect=partial(guarded_connect, allowed=settings.allowed_private_hosts),
                ),
            )
            self.loops.append(receipt_files_loop(files, receipts, settings.files_poll_seconds))
            port = files
        elif target.protocol is Protocol.PULL:
            window = self._over_http(target) if target.read_back else None
            port = ListTarget(target.id, self._runtime.database, store, window)
            self.counterparts[target.id] = Counterpart(
                settings.target_secrets[target.id],
                list=TargetList(receipts, store, outbox, self._directory, target.batch_size, agent),
            )
        else:
            port = self._over_http(target)
            self.counterparts[target.id] = Counterpart(settings.target_secrets[target.id], receipts=receipts)
        driver = Driver(
            target, port, self._policies, self.settlement, store, outbox, self._directory, settings, agent
        )
        self.drivers.append(driver)
        self.loops.append(driver.loop)
        self._wakes[target.id] = driver.loop.wake

    def _over_http(self, target: CatalogueTarget) -> HttpTarget:
        settings = self._settings
        later = target.protocol is Protocol.PUSH_RECEIPT
        receipts_url = f"{str(settings.public_url).rstrip('/')}/v1/targets/{target.id}/receipts"
        return HttpTarget(
            self._http,
            str(settings.target_urls[target.id]),
            settings.target_secrets[target.id].get_secret_value(),
            timeout_seconds=target.timeout_seconds,
            retry_after_max_seconds=settings.retry_after_max_seconds,
            receipts_url=receipts_url if later else None,
        )


def _gauges(store: Store, target_ids: list[str]) -> Loop:
    async def step() -> bool:
        for target_id in target_ids:
            oldest = await store.oldest(target_id)
            since = oldest and oldest.differs_since
            age = (datetime.now(UTC) - since).total_seconds() if since else 0.0
            OLDEST_DIFFERENCE.labels(target_id).set(age)
        uncovered = await store.history.uncovered_since()
        UNCOVERED.set((datetime.now(UTC) - uncovered).total_seconds() if uncovered else 0.0)
        if head := await store.history.last_head():
            HEAD_AGE.set((datetime.now(UTC) - head.at).total_seconds())
        return False

    return Loop("oldest differences", step, interval_seconds=_GAUGE_SECONDS)


def main() -> None:
    """Run the service."""
    settings = load_settings(SyncSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
