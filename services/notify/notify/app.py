"""Puts notify together."""

from fastapi import FastAPI

from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.consumer import ConsumerSpec
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import load_catalogue
from contracts.tokens import Scope
from contracts.topics import consumed_by, topics_of
from notify.api import router
from notify.digests import Digests
from notify.handlers import FactHandler
from notify.identities import Identities
from notify.invariants import invariants
from notify.mailer import Mailer
from notify.offices import Offices
from notify.settings import NotifySettings
from notify.smtp import MailServer
from notify.store import COLLECTIONS, Emails, Messages, OfficeNotices
from notify.texts import Texts
from notify.vendor_letters import VendorLetters

NAME = "notify"


def build(settings: NotifySettings) -> FastAPI:
    """The application, ready to be served."""
    catalogue = load_catalogue(settings.catalogue_dir)
    texts = Texts({target.id: target.name for target in catalogue.targets})
    offices = Offices(catalogue)
    vendors = {target.id: target.letters for target in catalogue.targets if target.letters}

    def consumers(runtime: Runtime) -> list[ConsumerSpec]:
        app.state.messages = messages = Messages(runtime.database)
        app.state.identities = Identities(
            directory(runtime), seconds=settings.identity_cache_seconds, size=settings.identity_cache_size
        )
        handler = FactHandler(
            texts, messages, Emails(runtime.database), offices, OfficeNotices(runtime.database)
        )
        return [ConsumerSpec(NAME, consumed_by(NAME), handler, FactHandler.EVENTS)]

    def loops(runtime: Runtime) -> list[Loop]:
        emails = Emails(runtime.database)
        letters = VendorLetters(
            runtime.http, settings.sync_url, token(runtime, Scope.PROPAGATION_READ), vendors
        )
        mailer = Mailer(
            emails, runtime.outbox, directory(runtime), offices, MailServer(settings), settings, letters
        )
        digests = Digests(
            runtime.outbox,
            offices,
            OfficeNotices(runtime.database),
            emails,
            texts,
            wait_seconds=settings.digest_wait_seconds,
            poll_seconds=settings.email_poll_seconds,
        )
        return [mailer.loop, digests.loop]

    def token(runtime: Runtime, scope: Scope) -> ServiceToken:
        return ServiceToken(
            runtime.http, settings.oidc_issuer, settings.client_id, settings.client_secret, scope
        )

    def directory(runtime: Runtime) -> CaseDirectory:
        return CaseDirectory(runtime.http, settings.intake_url, token(runtime, Scope.CASES_READ))

    spec = ServiceSpec(
        NAME,
        "信复 · 告知",
        COLLECTIONS,
        topics_of(NAME),
        routers=[router],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: invariants(runtime.database),
    )
    app = create_app(spec, settings, settings.mongodb_database)
    return app


def main() -> None:
    """Run the service."""
    settings = load_settings(NotifySettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
