"""Puts routing together."""

from fastapi import FastAPI

from chassis.background import Loop
from chassis.consumer import ConsumerSpec
from chassis.service import Runtime, ServiceSpec, create_app, run
from chassis.settings import load_settings
from contracts.catalogue import load_catalogue
from contracts.topics import consumed_by, topics_of
from routing.api import router
from routing.clock import Clock
from routing.confirming import Confirming
from routing.handlers import ApplicationHandler
from routing.settings import RoutingSettings
from routing.store import COLLECTIONS, Referrals

NAME = "routing"


def build(settings: RoutingSettings) -> FastAPI:
    """The application, ready to be served."""
    catalogue = load_catalogue(settings.catalogue_dir)

    def consumers(runtime: Runtime) -> list[ConsumerSpec]:
        app.state.catalogue = catalogue
        app.state.referrals = referrals = Referrals(runtime.database)
        handler = ApplicationHandler(catalogue, referrals, settings.referral_working_days)
        return [ConsumerSpec(NAME, consumed_by(NAME), handler)]

    def loops(runtime: Runtime) -> list[Loop]:
        return [
            Clock(runtime.outbox, Referrals(runtime.database), settings.deadline_poll_seconds).loop,
            Confirming(runtime.outbox, app.state.referrals, catalogue.calendar).loop,
        ]

    spec = ServiceSpec(
        NAME,
        "信复 · 事项分派",
        COLLECTIONS,
        topics_of(NAME, (department.slug for department in catalogue.departments)),
        routers=[router],
        consumers=consumers,
        loops=loops,
        calendar=catalogue.calendar,
    )
    app = create_app(spec, settings, settings.mongodb_database)
    return app


def main() -> None:
    """Run the service."""
    settings = load_settings(RoutingSettings)
    run(NAME, settings, lambda: build(settings), port=settings.http_port)
