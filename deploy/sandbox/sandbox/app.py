"""Puts the sandbox together; the only place that builds its parts."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from standardwebhooks import Webhook

from sandbox import (
    catalogue,
    departments,
    exchange,
    faults,
    mail,
    officers,
    oidc,
    scanner,
    sources,
    targets,
    telemetry,
)
from sandbox.batch import BatchSystem, folder, serve
from sandbox.bus import BusSystem
from sandbox.callbacks import Callbacks
from sandbox.cases import Cases
from sandbox.db import Database
from sandbox.problems import add_problem_handlers
from sandbox.receipts import ReceiptDesk
from sandbox.requests import MAX_BODY_BYTES
from sandbox.settings import Settings

log = logging.getLogger(__name__)


def _index(served: dict[str, catalogue.Target], offices: dict[str, catalogue.Department]) -> str:
    groups = {
        "公示平台与数据服务商": [(f"/targets/{target.id}/", target.name) for target in served.values()],
        "推送记录": [(f"/targets/{target.id}/sandbox/log", target.name) for target in served.values()],
        "认定单位": [(f"/departments/{office.slug}/cases", office.name) for office in offices.values()],
        "统一身份认证": [("/oidc/.well-known/openid-configuration", "发现文档"), ("/oidc/jwks", "公钥")],
        "其他": [
            ("/mail", "收到的邮件"),
            ("/sandbox/faults", "故障开关"),
            ("/openapi.json", "接口描述（OpenAPI）"),
        ],
    }
    body = "".join(
        f"<h2>{title}</h2><ul>"
        + "".join(f'<li><a href="{link}">{name}</a></li>' for link, name in links)
        + "</ul>"
        for title, links in groups.items()
    )
    return (
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>信复沙箱</title><h1>信复沙箱</h1>'
        f"<p>外部系统的替身，数据均为测试数据。</p>{body}</html>"
    )


def _stop_when_dead(worker: asyncio.Task[None]) -> None:
    """A sandbox that takes reviews but never calls back would look like a silent department: stop instead. So with targets."""
    if not worker.cancelled() and (error := worker.exception()):
        log.critical("worker died", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def create_app(settings: Settings) -> FastAPI:
    """The whole sandbox. Raises CatalogueError when the settings do not fit the catalogue."""
    served = catalogue.targets(settings)
    offices = catalogue.departments(settings)
    db = Database(settings.data_dir / "sandbox.sqlite3")
    switches = faults.Faults(
        db,
        dict.fromkeys(served, faults.TARGET)
        | {slug: faults.DEPARTMENTS[office.mode] for slug, office in offices.items()}
        | dict.fromkeys(settings.source_secrets, faults.SOURCE)
        | {scanner.PART: faults.SOURCE, mail.PART: faults.SMTP, oidc.PART: faults.OIDC},
    )
    callers = {slug: o for slug, o in offices.items() if o.mode == "api" and o.callbacks}
    exchanging = {slug: o for slug, o in offices.items() if o.mode == "files"}
    callbacks = Callbacks(db, callers)
    book = Cases(db, switches, callbacks, settings.decision_delay_seconds)
    batches = [
        BatchSystem(office, settings.data_dir, db, switches, callbacks, book)
        for office in exchanging.values()
    ]
    on_the_bus = [
        BusSystem(office, settings, switches, callbacks, book)
        for office in offices.values()
        if office.mode == "events" and settings.reaches_bus(office.slug)
    ]
    receipts = ReceiptDesk(db, served)
    others = exchange.Exchange(db, switches, settings.exchange_seconds)
    folders = settings.exchange_dir or settings.data_dir / "exchange"
    smtp = mail.controller(db, switches, settings.host, settings.smtp_port)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(smtp.start)
        sftp = None
        passwords = {slug: o.password for slug, o in exchanging.items()} | settings.target_sftp_passwords
        if passwords:
            sftp = await serve(
                passwords,
                settings.data_dir,
                switches,
                settings.host,
                settings.sftp_port,
                settings.sftp_host_key,
            )
        running = [callbacks.run(slug) for slug in callers]
        running += [batch.run() for batch in batches]
        running += [system.run() for system in on_the_bus]
        running.append(receipts.run())
        for target in served.values():
            if target.protocol == "files":
                over_sftp = target.id in settings.target_sftp_passwords
                own = folder(settings.data_dir, target.id) if over_sftp else folders / target.id
                running.append(others.take_files(target, own))
            elif target.protocol == "pull" and target.id in settings.list_urls:
                running.append(others.fetch_lists(target, settings.list_urls[target.id]))
        workers = [asyncio.create_task(each) for each in running]
        for worker in workers:
            worker.add_done_callback(_stop_when_dead)
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if sftp is not None:
                sftp.close()
            await asyncio.to_thread(smtp.stop)
            db.close()

    # FastAPI's documentation pages load scripts from a public CDN: only openapi.json is served.
    app = FastAPI(
        title="信复沙箱", lifespan=lifespan, max_body_size=MAX_BODY_BYTES, docs_url=None, redoc_url=None
    )
    add_problem_handlers(app)
    app.include_router(faults.router(switches))
    app.include_router(targets.router(db, switches, served, settings.target_delay_seconds, receipts))
    app.include_router(departments.router(db, switches, offices, callbacks, book))
    webhooks = {source: Webhook(secret) for source, secret in settings.source_secrets.items()}
    app.include_router(sources.router(db, switches, webhooks))
    app.include_router(scanner.router(switches))
    people = officers.OfficerSignIn(db, catalogue.department_codes(settings))
    app.include_router(oidc.router(db, switches, settings.oidc_clients, settings.issuer, people))
    app.include_router(officers.router(people, settings.oidc_clients))
    app.include_router(mail.router(db))
    app.include_router(telemetry.router(db))

    @app.get("/", response_class=HTMLResponse)
    def index() -> str:
        return _index(served, offices)

    @app.get("/livez")
    def livez() -> dict[str, str]:
        return {"status": "ok"}

    return app
