"""The main job, shown live: one application for three records at three departments, until every target shows what was decided."""

import asyncio
import csv
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from contracts.catalogue import Catalogue, Protocol, Target, load_catalogue
from contracts.identifiers import normalise_document_number
from contracts.records import SubjectType
from contracts.tokens import Role, Scope
from xinfu.client import Citizenry, Client
from xinfu.compose import Endpoints
from xinfu.records import import_records, show_report
from xinfu.sample import DEMO_SUBJECT, Sample, write_sample

EMAIL = "zhang@example.com"
STATEMENT = (
    "本公司已按处罚决定全额缴纳罚款，停业整顿期间完成整改并经复查合格；"
    "已建立合规审查与员工培训制度，防止再次发生。"
)
_REFRESH_SECONDS = 0.5


class DemoFailedError(Exception):
    """The main job did not come to its end; the text says what is missing."""


@dataclass
class Picture:
    """What is known of the application and of what each target really shows."""

    targets: list[Target]
    """Those that have to follow, told by something faster than a letter."""
    application: dict[str, Any] = field(default_factory=dict)
    shown: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(target, 文号) -> whether a visitor sees it; only what was once seen there is in it."""
    lines: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    messages: int = 0

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items of the application, as intake tells them."""
        return list(self.application.get("items", []))

    def of(self, item: dict[str, Any]) -> list[Target]:
        """The targets that show such a record."""
        return [target for target in self.targets if item["category"] in target.categories]

    def missing(self) -> str:
        """What is still to come (zh-CN); empty when the main job is done."""
        for item in self.items:
            if item["status"] != "repaired":
                return f"事项 {item['document_number']} 仍为“{item['status_text']}”"
            for target in self.of(item):
                if self.shown.get((target.id, item["document_number"])) is not False:
                    return f"{target.name} 仍未按决定展示 {item['document_number']}"
        if not self.items:
            return "申请尚未提交"
        if self.application["status"] != "completed":
            return "申请尚未办结"
        if not any("办结" in subject for subject in self.mails):
            return "申请人尚未收到办结邮件"
        return "" if self.messages else "申请人尚未收到站内消息"

    def __rich__(self) -> Group:
        items = Table(title="事项", expand=True)
        for heading in ("文号", "认定单位", "状态", "各平台实际展示"):
            items.add_column(heading)
        for item in self.items:
            document = item["document_number"]
            items.add_row(
                document,
                (item["department"] or {}).get("name", item["authority_name"]),
                f"[bold]{item['status_text']}[/bold]",
                self._shown(item),
            )
        return Group(items, *self.lines[-8:])

    def _shown(self, item: dict[str, Any]) -> str:
        targets = self.of(item)
        still = [t.name for t in targets if self.shown.get((t.id, item["document_number"])) is not False]
        if still:
            return f"[yellow]公示中：{'、'.join(still)}[/yellow]"
        return f"[green]{len(targets)} 个平台均已不展示[/green]"


class Demo:
    """Acts the people: an operator, a citizen, an officer at the desk, and a visitor of every target."""

    def __init__(self, session: ClientSession, endpoints: Endpoints, console: Console) -> None:
        self._people = Citizenry(session, endpoints)
        self._anybody = Client(session)
        self._endpoints = endpoints
        self._services = endpoints.services
        self._console = console
        self._catalogue: Catalogue = load_catalogue()

    async def run(self, data_dir: Path, today: date, timeout_seconds: float) -> str:
        """Do the main job; returns the application id. Raises DemoFailedError saying what is missing."""
        sample = await asyncio.to_thread(write_sample, data_dir / "sample.csv", today=today)
        await self._publish_at_targets(sample)
        ops = await self._people.ops()
        report = await import_records(ops, self._services["intake"], sample.path, self._console)
        show_report(report, self._console)
        if len(report["rejected"]) != sample.rejected_rows:
            raise DemoFailedError(
                f"样例应退回 {sample.rejected_rows} 行，实际退回 {len(report['rejected'])} 行"
            )
        citizen = await self._people.sign_in(
            "demo-citizen",
            Scope.APPLICANT,
            subject_type=SubjectType.LEGAL_PERSON,
            subject_code=DEMO_SUBJECT.code,
            subject_name=DEMO_SUBJECT.name,
            email=EMAIL,
        )
        records = await self._own_records(citizen, 3)
        self._show_records(records)
        picture = Picture(self._targets(records))
        await self._look(picture)
        record_ids = [record["record_id"] for record in records]
        commitment = await citizen.call(
            "POST",
            f"{self._services['intake']}/v1/applications/commitment-preview",
            {"record_ids": record_ids},
        )
        self._console.print(
            f"《{commitment['letter']['title']}》已阅读并确认，SHA-256 {commitment['commitment_hash'][:16]}…"
        )
        application = await citizen.call(
            "POST",
            f"{self._services['intake']}/v1/applications",
            {
                "contact_name": "张三",
                "contact_phone": "13812345678",
                "record_ids": record_ids,
                "statement": STATEMENT,
                "commitment_hash": commitment["commitment_hash"],
            },
            {"idempotency-key": f"demo-{records[0]['record_id']}"},
        )
        application_id: str = application["application_id"]
        self._console.print(f"已提交申请 [bold]{application_id}[/bold]，{len(records)} 条记录，一次申请\n")
        picture.application = application
        await self._watch(citizen, picture, timeout_seconds)
        return application_id

    async def _publish_at_targets(self, sample: Sample) -> None:
        """Departments publish their records at the targets, outside of xinfu. Natural persons' are not public."""
        bad = {row.line for row in sample.bad_rows}
        with sample.path.open(encoding="utf-8", newline="") as file:
            rows = [row for line, row in enumerate(csv.DictReader(file), start=2) if line not in bad]
        records = [
            {
                "record": {
                    "subject_code": row["CF_XDR_SHXYM"],
                    "document_number": normalise_document_number(row["CF_WSH"]),
                    "authority_name": row["CF_CFJG"],
                },
                "subject_name": row["CF_XDR_MC"],
                "category": self._catalogue.penalty_category(row["CF_CFJGDM"], row["CF_CFJG"]),
                "content": {"decided_on": row["CF_JDRQ"], "penalty_kinds": row["CF_CFLB"]},
            }
            for row in rows
            if row["CF_XDR_SHXYM"]
        ]
        for target in self._catalogue.targets:
            url = f"{self._endpoints.sandbox}/targets/{target.id}/sandbox/records"
            await self._anybody.call("POST", url, {"records": records})

    async def _own_records(self, citizen: Client, expected: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 60
        while True:
            answer = await citizen.call("GET", f"{self._services['intake']}/v1/subjects/me/records")
            if len(answer["records"]) >= expected:
                return list(answer["records"])
            if time.monotonic() > deadline:
                raise DemoFailedError(
                    f"本人应有 {expected} 条记录，一分钟后仍只有 {len(answer['records'])} 条"
                )
            await asyncio.sleep(0.1)

    def _show_records(self, records: list[dict[str, Any]]) -> None:
        table = Table(
            "文号", "认定单位", "类别", "决定日期", "能否修复", title=f"{DEMO_SUBJECT.name} 的失信记录"
        )
        for record in records:
            facts, repair = record["facts"], record["repair"]
            table.add_row(
                facts["document_number"],
                facts["authority_name"],
                record["category_name"],
                facts["decided_on"],
                f"{repair['status_text']}（{repair.get('from') or '—'} 起）",
            )
        self._console.print(table)

    def _targets(self, records: list[dict[str, Any]]) -> list[Target]:
        """The targets that have to follow: of the catalogue, not of sync."""
        categories = {record["facts"]["category"] for record in records}
        return [
            target
            for target in self._catalogue.targets
            if categories & set(target.categories) and target.protocol is not Protocol.LETTER
        ]

    async def _watch(self, citizen: Client, picture: Picture, timeout_seconds: float) -> None:
        application_id = picture.application["application_id"]
        observers: list[Coroutine[Any, Any, None]] = [
            self._follow(citizen, application_id, picture),
            self._visit(picture),
            self._listen(citizen, application_id, picture),
            *(self._decide_at_desk(item) for item in picture.items),
        ]
        tasks = [asyncio.create_task(observer) for observer in observers]
        deadline = time.monotonic() + timeout_seconds
        try:
            with Live(picture, console=self._console, refresh_per_second=5):
                while missing := picture.missing():
                    for task in tasks:
                        if task.done() and (error := task.exception()):
                            raise DemoFailedError(f"{missing}；{error}") from error
                    if time.monotonic() > deadline:
                        raise DemoFailedError(f"{timeout_seconds:.0f} 秒后{missing}")
                    await asyncio.sleep(0.1)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, citizen: Client, application_id: str, picture: Picture) -> None:
        """The applicant's view: the event stream says when, a GET says what."""
        url = f"{self._services['intake']}/v1/applications/{application_id}"
        async for kind, data in citizen.events(f"{url}/events"):
            picture.application = await citizen.call("GET", url)
            if kind == "timeline":
                picture.lines.append(f"[dim]{data['at'][11:23]}[/dim] {data['text']}")
            else:
                return

    async def _visit(self, picture: Picture) -> None:
        while True:
            await self._look(picture)
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _look(self, picture: Picture) -> None:
        """A visitor: what the targets really show, asked of them and not of xinfu."""
        for target in picture.targets:
            url = f"{self._endpoints.sandbox}/targets/{target.id}/public?subject_code={DEMO_SUBJECT.code}"
            page = await self._anybody.call("GET", url)
            visible = {record["document_number"] for record in page["records"]}
            known = {document for where, document in picture.shown if where == target.id} | visible
            picture.shown |= {(target.id, document): document in visible for document in known}

    async def _listen(self, citizen: Client, application_id: str, picture: Picture) -> None:
        """The applicant's mailbox and in-app messages."""
        while True:
            mails = await self._anybody.call("GET", f"{self._endpoints.sandbox}/mail?to={EMAIL}")
            picture.mails = [mail["subject"] for mail in mails]
            answer = await citizen.call(
                "GET", f"{self._services['notify']}/v1/subjects/me/messages?limit=100"
            )
            picture.messages = sum(m["application_id"] == application_id for m in answer["messages"])
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _decide_at_desk(self, item: dict[str, Any]) -> None:
        """An officer of the department, where it works at the review desk: accept, look, grant."""
        department = self._catalogue.resolve_department(
            None,
            item["authority_name"],
            item["category"],
            date.today(),  # noqa: DTZ011 (a day of the demo)
        ).department
        if department is None or department.mode != "desk":
            return
        officer = await self._people.sign_in(
            f"officer-{department.slug}", Scope.DESK, departments=[department.code], roles=[Role.OFFICER]
        )
        base = f"{self._services['dept-adapter']}/v1"
        while True:
            page = await officer.call("GET", f"{base}/departments/{department.code}/reviews?state=received")
            if any(review["item_id"] == item["item_id"] for review in page["reviews"]):
                break
            await asyncio.sleep(0.2)
        await officer.call("POST", f"{base}/reviews/{item['item_id']}/accept")
        await asyncio.sleep(1)
        await officer.call("POST", f"{base}/reviews/{item['item_id']}/grant", {})
