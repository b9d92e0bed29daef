"""Puts intake together."""

from fastapi import FastAPI

from chassis.audit import Audit
from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.consumer import ConsumerSpec
from chassis.letter import LetterPress
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import load_catalogue
from contracts.tokens import Scope
from contracts.topics import consumed_by, topics_of
from intake import (
    api,
    certificate_api,
    commitment_api,
    feed_api,
    findings,
    follow_ups,
    follow_ups_api,
    guide_api,
    letters_api,
    mandates,
    mandates_api,
    materials,
    materials_api,
    notice_api,
    objections,
    objections_api,
    rules_api,
    shields_api,
)
from intake import invariants as checks
from intake.acts import Acts
from intake.certificates import CertificateClient
from intake.expiry import Expiry
from intake.findings import Findings
from intake.follow_ups import FollowUps
from intake.guide_picture import Painter
from intake.handlers import ProgressHandler
from intake.importing import Importer
from intake.letters import LetterFetcher
from intake.mandates import Mandates
from intake.materials import Materials
from intake.notices import Notices
from intake.objections import Objections
from intake.parts import Intake
from intake.pressure import Gate
from intake.settings import IntakeSettings
from intake.shields import Shields
from intake.store import COLLECTIONS, Store
from intake.streaming import TimelineWakeups
from intake.submission import Submission

NAME = "intake"


def build(settings: IntakeSettings) -> FastAPI:
    """The application, ready to be served."""
    catalogue = load_catalogue(settings.catalogue_dir)

    def consumers(runtime: Runtime) -> list[ConsumerSpec]:
        store = Store(runtime.database)
        files = Materials(runtime.database, settings, runtime.http)
        asked_later = FollowUps(
            runtime.database,
            store,
            runtime.outbox,
            settings.follow_up_days,
            settings.follow_up_poll_seconds,
        )
        found = Findings(runtime.database, store)
        objected = Objections(
            runtime.database,
            store,
            files,
            found,
            runtime.outbox,
            catalogue,
            settings.idempotency_retention_days,
        )
        notices = Notices(store, catalogue, settings.transition, within_days=settings.notice_within_days)
        gate = Gate(settings, store, runtime.outbox)
        app.state.expiry = Expiry(
            runtime.database,
            store,
            runtime.outbox,
            catalogue,
            settings.transition,
            settings.expiry_poll_seconds,
        )
        app.state.intake = Intake(
            settings,
            catalogue,
            store,
            Submission(store, files, found, runtime.outbox, catalogue, settings),
            Acts(store, files, runtime.outbox),
            files,
            Mandates(runtime.database),
            asked_later,
            found,
            objected,
            Shields(store, runtime.outbox, catalogue, Audit(runtime.database)),
            Importer(store, runtime.outbox, gate.room, notices),
            TimelineWakeups(store.settled_timeline, settings.max_event_streams),
            gate,
            Painter(settings.max_pictures_at_work),
            CertificateClient(
                runtime.http, str(settings.sync_url), _token(runtime, settings, Scope.PROPAGATION_READ)
            ),
            LetterFetcher(
                runtime.http, str(settings.dept_adapter_url), _token(runtime, settings, Scope.LETTERS_READ)
            ),
            LetterPress(settings.max_pictures_at_work),
        )
        return [
            ConsumerSpec(
                NAME,
                consumed_by(NAME),
                ProgressHandler(store, asked_later, found, objected, notices, catalogue),
            )
        ]

    def loops(_runtime: Runtime) -> list[Loop]:
        # asked after consumers, which made the parts
        made: Intake = app.state.intake
        return [made.wakeups.loop, made.follow_ups.loop, app.state.expiry.loop, *made.gate.loops]

    spec = ServiceSpec(
        NAME,
        "信复 · 申请受理",
        [
            *COLLECTIONS,
            *mandates.COLLECTIONS,
            *materials.COLLECTIONS,
            *follow_ups.COLLECTIONS,
            *findings.COLLECTIONS,
            *objections.COLLECTIONS,
        ],
        topics_of(NAME),
        routers=[
            api.router,
            commitment_api.router,
            materials_api.router,
            letters_api.router,
            notice_api.router,
            mandates_api.router,
            rules_api.router,
            guide_api.router,
            certificate_api.router,
            follow_ups_api.router,
            objections_api.router,
            shields_api.router,
            feed_api.router,
            checks.router,
        ],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: checks.invariants(
            runtime.database, catalogue, settings.outbox_retention_days
        ),
        calendar=catalogue.calendar,
    )
    app = create_app(
        spec,
        settings,
        settings.mongodb_database,
        unlimited_body_paths=frozenset({feed_api.IMPORT_PATH, materials_api.UPLOAD_PATH}),
    )
    return app


def _token(runtime: Runtime, settings: IntakeSettings, scope: Scope) -> ServiceToken:
    return ServiceToken(runtime.http, settings.oidc_issuer, settings.client_id, settings.client_secret, scope)


def main() -> None:
    """Run the service."""
    settings = load_settings(IntakeSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
