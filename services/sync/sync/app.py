"""Puts sync together."""

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import FastAPI

from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.consumer import ConsumerSpec
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import Catalogue, load_catalogue
from contracts.tokens import Scope
from contracts.topics import DECISIONS, PROPAGATION
from sync import (
    certificates,
    certificates_api,
    letter_store,
    letters_api,
    page_sessions,
    pages_api,
    proof_api,
)
from sync import invariants as checks
from sync.api import router
from sync.certificates import Certificates, Issuer
from sync.domain import Policy
from sync.driver import Driver
from sync.handlers import DecisionHandler
from sync.history import head_loop
from sync.http_target import HttpTarget
from sync.letter_desk import LetterDesk
from sync.letter_store import LetterStore
from sync.metrics import OLDEST_DIFFERENCE
from sync.page_sessions import PageSessions
from sync.settings import SyncSettings, check_targets
from sync.store import COLLECTIONS, Store

NAME = "sync"
_GAUGE_SECONDS = 5.0


def build(settings: SyncSettings) -> FastAPI:
    """The application, ready to be served. Exits with status 78 when a target of the catalogue has no URL or secret."""
    catalogue = load_catalogue(settings.catalogue_dir)
    check_targets(settings, catalogue.targets)
    policies = {target.id: settings.policy(target) for target in catalogue.targets}

    def consumers(runtime: Runtime) -> list[ConsumerSpec]:
        app.state.policies = policies
        app.state.store = store = Store(runtime.database, settings.history_digest)
        app.state.catalogue, app.state.keys = catalogue, settings.keys()
        app.state.public_url = str(settings.public_url).rstrip("/")
        app.state.page_sessions = PageSessions(runtime.database)
        return [ConsumerSpec(NAME, [DECISIONS.name], DecisionHandler(catalogue, policies, store))]

    def loops(runtime: Runtime) -> list[Loop]:
        store: Store = app.state.store
        directory = _directory(runtime, settings)
        app.state.drivers = drivers = _drivers(runtime, settings, catalogue, policies, store, directory)
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
            drivers,
            settings.letter_policy(),
            automatic=settings.vendor_letter_automatic,
            poll_seconds=settings.vendor_letter_poll_seconds,
        )
        heads = head_loop(store.history, settings.signing(), settings.head_seconds)
        return [*(driver.loop for driver in drivers), heads, letters.loop, _gauges(store, list(policies))]

    spec = ServiceSpec(
        NAME,
        "信复 · 公示同步",
        [*COLLECTIONS, *certificates.COLLECTIONS, *letter_store.COLLECTIONS, *page_sessions.COLLECTIONS],
        {topic.name: topic for topic in (DECISIONS, PROPAGATION)},
        routers=[
            router,
            proof_api.router,
            certificates_api.router,
            letters_api.router,
            pages_api.router,
            checks.router,
        ],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: checks.invariants(runtime.database),
    )
    app = create_app(spec, settings, settings.mongodb_database)
    return app


def _directory(runtime: Runtime, settings: SyncSettings) -> CaseDirectory:
    token = ServiceToken(
        runtime.http, settings.oidc_issuer, settings.client_id, settings.client_secret, Scope.CASES_READ
    )
    return CaseDirectory(runtime.http, str(settings.intake_url), token)


def _drivers(
    runtime: Runtime,
    settings: SyncSettings,
    catalogue: Catalogue,
    policies: Mapping[str, Policy],
    store: Store,
    directory: CaseDirectory,
) -> list[Driver]:
    return [
        Driver(
            target,
            HttpTarget(
                runtime.http,
                str(settings.target_urls[target.id]),
                settings.target_secrets[target.id].get_secret_value(),
                timeout_seconds=target.timeout_seconds,
                retry_after_max_seconds=settings.retry_after_max_seconds,
            ),
            policies,
            store,
            runtime.outbox,
            directory,
            settings,
        )
        for target in catalogue.targets
    ]


def _gauges(store: Store, target_ids: list[str]) -> Loop:
    async def step() -> bool:
        for target_id in target_ids:
            oldest = await store.oldest(target_id)
            since = oldest and oldest.differs_since
            age = (datetime.now(UTC) - since).total_seconds() if since else 0.0
            OLDEST_DIFFERENCE.labels(target_id).set(age)
        return False

    return Loop("oldest differences", step, interval_seconds=_GAUGE_SECONDS)


def main() -> None:
    """Run the service."""
    settings = load_settings(SyncSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
