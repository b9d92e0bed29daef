"""Puts intake together."""

from fastapi import FastAPI

from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.consumer import ConsumerSpec
from chassis.letter import LetterPress
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import load_catalogue
from contracts.tokens import Scope
from contracts.topics import APPLICATIONS, DECISIONS, PROPAGATION, RECORDS, ROUTING
from intake import (
    api,
    commitment_api,
    feed_api,
    follow_ups,
    follow_ups_api,
    guide_api,
    letters_api,
    mandates,
    mandates_api,
    materials,
    materials_api,
    notice_api,
    rules_api,
)
from intake import invariants as checks
from intake.acts import Acts
from intake.follow_ups import FollowUps
from intake.guide_picture import Painter
from intake.handlers import ProgressHandler
from intake.importing import Importer
from intake.letters import LetterFetcher
from intake.mandates import Mandates
from intake.materials import Materials
from intake.parts import Intake
from intake.pressure import Gate
from intake.settings import IntakeSettings
from intake.store import COLLECTIONS, Store
from intake.streaming import TimelineWakeups
from intake.submission import Submission

NAME = "intake"
_CONSUMED = (RECORDS, ROUTING, DECISIONS, PROPAGATION)


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
        gate = Gate(settings, store, runtime.outbox)
        app.state.intake = Intake(
            settings,
            catalogue,
            store,
            Submission(store, files, runtime.outbox, catalogue, settings),
            Acts(store, files, runtime.outbox),
            files,
            Mandates(runtime.database),
            asked_later,
            Importer(store, runtime.outbox, gate.room),
            TimelineWakeups(store.settled_timeline, settings.max_event_streams),
            gate,
            Painter(settings.max_pictures_at_work),
            LetterFetcher(
                runtime.http,
                str(settings.dept_adapter_url),
                ServiceToken(
                    runtime.http,
                    settings.oidc_issuer,
                    settings.client_id,
                    settings.client_secret,
                    Scope.LETTERS_READ,
                ),
            ),
            LetterPress(settings.max_pictures_at_work),
        )
        return [ConsumerSpec(NAME, [topic.name for topic in _CONSUMED], ProgressHandler(store, asked_later))]

    def loops(_runtime: Runtime) -> list[Loop]:
        # asked after consumers, which made the parts
        return [app.state.intake.wakeups.loop, app.state.intake.follow_ups.loop, *app.state.intake.gate.loops]

    spec = ServiceSpec(
        NAME,
        "信复 · 申请受理",
        [*COLLECTIONS, *mandates.COLLECTIONS, *materials.COLLECTIONS, *follow_ups.COLLECTIONS],
        {topic.name: topic for topic in (APPLICATIONS, *_CONSUMED)},
        routers=[
            api.router,
            commitment_api.router,
            materials_api.router,
            letters_api.router,
            notice_api.router,
            mandates_api.router,
            rules_api.router,
            guide_api.router,
            follow_ups_api.router,
            feed_api.router,
            checks.router,
        ],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: checks.invariants(
            runtime.database, catalogue, settings.outbox_retention_days
        ),
    )
    app = create_app(
        spec,
        settings,
        settings.mongodb_database,
        unlimited_body_paths=frozenset({feed_api.IMPORT_PATH, materials_api.UPLOAD_PATH}),
    )
    return app


def main() -> None:
    """Run the service."""
    settings = load_settings(IntakeSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
