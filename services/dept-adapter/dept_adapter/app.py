"""Puts dept-adapter together: one deployable for some or all departments, each with a system of its own by its kind."""

from collections.abc import Sequence
from datetime import timedelta

from fastapi import FastAPI

from chassis.auth import ServiceToken
from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.consumer import ConsumerSpec
from chassis.letter import LetterPress
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.tokens import Scope
from contracts.topics import review_topic, topics_of
from dept_adapter import (
    api,
    callbacks,
    figures_api,
    letters_api,
    objections,
    objections_api,
    panels,
    reminders_api,
)
from dept_adapter import invariants as checks
from dept_adapter.clock import Clock, Reminding
from dept_adapter.desk import (
    door_routes,
    expert_routes,
    item_routes,
    objection_routes,
    oversight_routes,
    queue_routes,
    sessions,
)
from dept_adapter.desk.signin import Issuer
from dept_adapter.figures import ReviewFigures
from dept_adapter.handlers import ReviewHandler
from dept_adapter.issuing import LetterIssuer, Letters
from dept_adapter.kinds.by_mode import kind_of
from dept_adapter.kinds.channels import Channels
from dept_adapter.kinds.channels import collections as channel_collections
from dept_adapter.kinds.files.ledger import COLLECTIONS as FILE_COLLECTIONS
from dept_adapter.kinds.port import Kind, Parts
from dept_adapter.officers import Officers
from dept_adapter.rulings import Rulings
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.store import Callbacks, Reviews, collections
from dept_adapter.verifier import Verifier
from dept_adapter.words import Listener

NAME = "dept-adapter"
FETCH_MAX_WAIT_MS = 500
"""Longer than usual: a fetch names every partition of every department, so an idle one is not free."""


def build(settings: DeptAdapterSettings) -> FastAPI:
    """The application, ready to be served."""
    served = settings.served
    topics = topics_of(NAME, (d.slug for d in served), (d.slug for d in served if d.mode == "events"))

    def consumers(runtime: Runtime) -> Sequence[ConsumerSpec]:
        desk_codes = {d.code for d in settings.catalogue.departments if d.mode == "desk"}
        reviews = Reviews(runtime.database, desk_codes, settings.schedule)
        token = ServiceToken(
            runtime.http, settings.oidc_issuer, settings.client_id, settings.client_secret, Scope.CASES_READ
        )
        cases = CaseDirectory(runtime.http, str(settings.intake_url), token)
        listener = Listener(
            reviews,
            Callbacks(runtime.database),
            settings.supplement_working_days,
            settings.catalogue.calendar,
        )
        channels = Channels(runtime.database)
        parts = Parts(settings, runtime, reviews, cases, listener, channels)
        kinds = {d.code: kind for d in served if (kind := kind_of(d, parts)) is not None}
        app.state.settings = settings
        calendar = settings.catalogue.calendar
        app.state.objections = objections.Objections(runtime.database, settings.schedule)
        app.state.clock = Clock(
            runtime.outbox,
            reviews,
            app.state.objections,
            [d.code for d in served],
            settings.deadline_poll_seconds,
            calendar,
        )
        app.state.reminding = Reminding(
            runtime.outbox,
            reviews,
            app.state.objections,
            [d.code for d in served],
            settings.schedule,
            hour=settings.remind_hour,
            calendar=calendar,
            poll_seconds=settings.deadline_poll_seconds,
        )
        app.state.verifier = Verifier(
            settings, runtime.database, runtime.outbox, reviews, cases, runtime.http
        )
        app.state.letter_issuer = LetterIssuer(
            settings, runtime.database, runtime.outbox, reviews, cases, [d.code for d in served]
        )
        app.state.letters = Letters(runtime.database)
        app.state.letter_press = LetterPress(settings.max_letters_at_work)
        app.state.departments = {d.code: d for d in served}
        app.state.secrets = {
            d.code: settings.department_secrets[d.slug] for d in served if d.mode in ("api", "events")
        }
        app.state.reviews = reviews
        app.state.officers = Officers(
            runtime.database,
            runtime.outbox,
            reviews,
            app.state.departments,
            settings.supplement_working_days,
            calendar,
        )
        app.state.rulings = Rulings(
            runtime.outbox, app.state.objections, reviews, app.state.departments, settings.catalogue
        )
        app.state.desk_url = str(settings.desk_url or settings.public_url).rstrip("/")
        app.state.desk_issuer = app.state.desk_sessions = None
        if settings.desk_client_secret is not None:
            issuer = Issuer(
                settings,
                runtime.http,
                settings.desk_client_id,
                settings.desk_client_secret,
                f"{app.state.desk_url}/desk/callback",
            )
            app.state.desk_issuer = issuer
            app.state.desk_sessions = sessions.Sessions(
                runtime.database,
                issuer,
                idle=timedelta(minutes=settings.desk_idle_minutes),
                whole=timedelta(hours=settings.desk_session_hours),
            )
        app.state.figures = ReviewFigures(runtime.database)
        app.state.panels = panels.Panels(runtime.database, calendar)
        app.state.listener = listener
        app.state.channels = channels
        app.state.cases = cases
        app.state.kinds = kinds
        handler = ReviewHandler(
            {d.slug: d for d in served},
            reviews,
            app.state.objections,
            {kind.department.slug: kind.wake for kind in kinds.values()},
            app.state.verifier.loop.wake,
            calendar,
        )
        # One consumer reads the topics of all: one for each department costs a fifth of a core and 170 connections when idle.
        # Departments stay apart: by key where an event fails, and by pusher where a department is slow or broken.
        return [
            ConsumerSpec(
                NAME, [review_topic(d.slug) for d in served], handler, fetch_max_wait_ms=FETCH_MAX_WAIT_MS
            ),
            *(consumer for kind in kinds.values() for consumer in kind.consumers),
        ]

    def loops(_runtime: Runtime) -> Sequence[Loop]:
        kinds: dict[str, Kind] = app.state.kinds
        own = [
            app.state.clock.loop,
            app.state.reminding.loop,
            app.state.verifier.loop,
            app.state.letter_issuer.loop,
        ]
        return [*own, *(loop for kind in kinds.values() for loop in kind.loops)]

    spec = ServiceSpec(
        NAME,
        "信复 · 部门审核",
        [
            *collections(settings.callback_retention_days),
            *channel_collections(settings.callback_retention_days),
            *FILE_COLLECTIONS,
            *panels.COLLECTIONS,
            *sessions.COLLECTIONS,
            *objections.COLLECTIONS,
        ],
        topics,
        routers=[
            callbacks.router,
            api.router,
            letters_api.router,
            figures_api.router,
            reminders_api.router,
            objections_api.router,
            panels.router,
            checks.router,
            door_routes.router,
            queue_routes.router,
            item_routes.router,
            objection_routes.router,
            expert_routes.router,
            oversight_routes.router,
        ],
        consumers=consumers,
        loops=loops,
        invariants=lambda runtime: checks.invariants(runtime.database),
        calendar=settings.catalogue.calendar,
    )
    app = create_app(spec, settings, settings.mongodb_database)
    return app


def main() -> None:
    """Run the service."""
    settings = load_settings(DeptAdapterSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
