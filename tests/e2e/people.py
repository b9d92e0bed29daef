"""The people around a running stack: companies with records, officers, operators; what they do and see over HTTP."""

import csv
import io
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import ClientSession, ClientTimeout
from pymongo import MongoClient
from pymongo.database import Database

from contracts.catalogue import Catalogue, Department, Protocol, Target, add_months, load_catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode, problem_type
from contracts.identifiers import normalise_document_number, uscc_check_character
from contracts.penalty_feed import COLUMNS
from contracts.records import SubjectType
from contracts.tokens import Role, Scope
from support import PATIENCE, eventually
from xinfu.compose import Endpoints
from xinfu_local import Stack

STATEMENT = "已足额缴纳罚款并完成整改，经复查合格。"
DESK, OTHER_DESK, API, OTHER_API = "hz-jyj", "hz-kjj", "hz-sthj", "hz-samr"
"""Departments of the catalogue: two that decide at the desk, two with systems of their own."""
TELLS_NO_CONTENT = "tianyancha"
"""A target that does not say what is read of a record."""

# Not of the sample feed (numbers below 10,000 and 9,000,001), and different in every session of one database.
_numbers = itertools.count(1_000_000 + secrets.randbelow(7_000_000))

Document = dict[str, Any]


def uscc(number: int) -> str:
    """A synthetic 统一社会信用代码 with its right check character."""
    body = f"91330100XD{number:07d}"
    return body + uscc_check_character(body)


def wrong_check_character(code: str) -> str:
    """The same code with another check character."""
    return code[:-1] + ("1" if code[-1] == "0" else "0")


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer. ``body``: parsed JSON when it is some, else the text."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def ok(self) -> Any:
        """The body of a 2xx answer."""
        assert 200 <= self.status < 300, f"{self.status} {self.body}"
        return self.body

    def problem(self, code: ProblemCode, *words: str) -> Document:
        """The body of an RFC 9457 problem of this type, whose detail holds these words and says what to do."""
        assert isinstance(self.body, dict), f"{self.status} {self.body}"
        assert self.headers["content-type"] == "application/problem+json"
        assert self.body["type"] == problem_type(code), self.body
        assert self.body["status"] == self.status
        assert self.body["title"]
        assert any("一" <= char <= "鿿" for char in self.body["detail"]), self.body
        for word in words:
            assert word in self.body["detail"], self.body
        return self.body


@dataclass(frozen=True)
class Company:
    """A subject with a citizen who acts for it. ``rows``: its CSV rows; ``record_ids`` by normal 文号."""

    name: str
    code: str
    email: str
    token: str
    rows: Sequence[Mapping[str, str]]
    record_ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Record ids in the order of the rows."""
        return [self.record_ids[normalise_document_number(row["CF_WSH"])] for row in self.rows]


class World:
    """A running stack and how tests act on it."""

    def __init__(self, session: ClientSession, stack: Stack, endpoints: Endpoints) -> None:
        self.http = session
        self.stack = stack
        self.endpoints = endpoints
        self.catalogue: Catalogue = load_catalogue()
        self.secrets: dict[str, str] = json.loads((stack.data_dir / "secrets.json").read_text())
        self._mongo: MongoClient[Document] = MongoClient(stack.mongodb_uri)

    def close(self) -> None:
        """Let go of the database."""
        self._mongo.close()

    def url(self, service: str, path: str) -> str:
        """Address of a path at a service or at ``sandbox``."""
        base = self.endpoints.sandbox if service == "sandbox" else self.endpoints.services[service]
        return base + path

    def database(self, service: str) -> Database[Document]:
        """A service's own database."""
        return self._mongo[f"xinfu_{service.replace('-', '_')}"]

    def department(self, slug: str) -> Department:
        """A department of the catalogue."""
        department = self.catalogue.by_slug(slug)
        assert department is not None, slug
        return department

    # --- HTTP

    async def ask(
        self,
        method: str,
        url: str,
        token: str | None = None,
        *,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, as it is, and its answer."""
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        async with self.http.request(
            method, url, json=json, data=data, headers={**bearer, **(headers or {})}
        ) as response:
            text = await response.text()
            return Answer(response.status, response.headers, _parsed(text))

    async def sign_in(self, scope: Scope | str, **claims: Any) -> str:
        """An access token."""
        answer = await self.ask(
            "POST",
            self.url("sandbox", "/oidc/sandbox/sign-in"),
            json={"sub": "somebody", "scope": str(scope), **claims},
        )
        return str(answer.ok()["access_token"])

    async def officer(self, *slugs: str) -> str:
        """A token of an officer of these departments."""
        codes = [self.department(slug).code for slug in slugs]
        return await self.sign_in(Scope.DESK, sub="officer", departments=codes, roles=[Role.OFFICER])

    async def ops(self) -> str:
        """A token of the ops client (client credentials)."""
        form = {
            "grant_type": "client_credentials",
            "client_id": "ops",
            "client_secret": self.endpoints.ops_secret,
        }
        answer = await self.ask("POST", f"{self.endpoints.oidc}/token", data=form)
        return str(answer.ok()["access_token"])

    async def metric(self, service: str, name: str, **labels: str) -> float:
        """The sum of a service's samples of this name that have these labels."""
        text = str((await self.ask("GET", self.url(service, "/metrics"))).ok())
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(want in line for want in wanted))

    # --- records

    def row(self, slug: str | None = DESK, *, months: int = 13, **changes: str) -> dict[str, str]:
        """A CSV row without its subject: a 严重 record, ``months`` old. ``slug`` None: of an authority nobody knows."""
        day = china_date(datetime.now(UTC))
        decided = add_months(day, -months)
        department = self.department(slug) if slug else None
        name = department.name if department else "杭州市示例无此机关"
        code = department.code if department else ""
        mark = f"{department.short_name if department else '示例'}罚"
        return {
            **dict.fromkeys(COLUMNS, ""),
            "CF_XDR_LB": "法人及非法人组织",
            "CF_WSH": f"{mark}〔{decided.year}〕{next(_numbers)}号",
            "CF_WFXW": "未取得许可从事经营活动",
            "CF_SY": "经查，情况属实（示例数据）",
            "CF_YJ": "《无证无照经营查处办法》第十三条",
            "CF_CFLB": "责令停产停业;罚款",
            "CF_NR": "责令停产停业，罚款5万元",
            "CF_NR_FK": "5.000000",
            "CF_JDRQ": decided.isoformat(),
            "CF_YXQ": "2099-12-31",
            "CF_GSJZQ": add_months(decided, 36).isoformat(),
            "CF_CFJG": name,
            "CF_CFJGDM": code,
            "CF_SJLY": name,
            "CF_SJLYDM": code,
            "BZ": "示例数据",
            **changes,
        }

    async def company(self, *rows: Mapping[str, str]) -> Company:
        """A new company with these records (one at a desk by default), published at every target and known to intake."""
        number = next(_numbers)
        name, code, email = f"杭州示例{number}科技有限公司", uscc(number), f"c{number}@example.com"
        own = [{**row, "CF_XDR_MC": name, "CF_XDR_SHXYM": code} for row in rows or [self.row()]]
        token = await self.sign_in(
            Scope.APPLICANT,
            subject_type=SubjectType.LEGAL_PERSON.value,
            subject_code=code,
            subject_name=name,
            email=email,
        )
        published = [
            {
                "record": {
                    "subject_code": code,
                    "document_number": normalise_document_number(row["CF_WSH"]),
                    "authority_name": row["CF_CFJG"],
                },
                "subject_name": name,
                "category": self.catalogue.penalty_category(row["CF_CFJGDM"], row["CF_CFJG"]),
                "content": {"decided_on": row["CF_JDRQ"], "penalty_kinds": row["CF_CFLB"]},
            }
            for row in own
        ]
        for target in self.catalogue.targets:
            url = self.url("sandbox", f"/targets/{target.id}/sandbox/records")
            untold = {"content": None} if target.id == TELLS_NO_CONTENT else {}
            records = [{**record, **untold} for record in published]
            (await self.ask("POST", url, json={"records": records})).ok()
        report = await self.import_csv(csv_bytes(own))
        assert report["rejected"] == [], report
        company = Company(name, code, email, token, own)
        ids = {r["facts"]["document_number"]: r["record_id"] for r in await self.records(company)}
        return Company(name, code, email, token, own, ids)

    async def import_answer(self, data: bytes) -> Answer:
        """Send a file to intake."""
        return await self.ask(
            "POST",
            self.url("intake", "/v1/records/imports"),
            await self.ops(),
            data=data,
            headers={"content-type": "text/csv"},
        )

    async def import_csv(self, data: bytes) -> Document:
        """The report on a file that intake takes."""
        body = (await self.import_answer(data)).ok()
        lines = [body] if isinstance(body, dict) else [json.loads(line) for line in body.splitlines()]
        report: Document = lines[-1]["report"]
        return report

    async def records(self, company: Company) -> list[Document]:
        """What a company sees of its records."""
        answer = await self.ask("GET", self.url("intake", "/v1/subjects/me/records"), company.token)
        return list(answer.ok()["records"])

    async def public(self, target_id: str, company: Company) -> set[str]:
        """The 文号 a visitor of the target sees of a company."""
        return {record["document_number"] for record in await self.page(target_id, company)}

    async def page(self, target_id: str, company: Company) -> list[Document]:
        """The records of a company that a visitor of the target sees, with what is read of them."""
        url = self.url("sandbox", f"/targets/{target_id}/public?subject_code={company.code}")
        return list((await self.ask("GET", url)).ok()["records"])

    def told(self, company: Company) -> list[Target]:
        """The targets that are told of a company's records, and not by letter."""
        categories = {self.catalogue.penalty_category(r["CF_CFJGDM"], r["CF_CFJG"]) for r in company.rows}
        return [
            target
            for target in self.catalogue.targets
            if target.protocol is not Protocol.LETTER and categories <= set(target.categories)
        ]

    async def pushes(self, target_id: str, company: Company) -> list[Document]:
        """The pushes a target has received about a company."""
        url = self.url("sandbox", f"/targets/{target_id}/sandbox/log?limit=10000")
        found = (await self.ask("GET", url)).ok()["pushes"]
        return [push for push in found if push["subject_code"] == company.code]

    async def mails(self, company: Company) -> list[Document]:
        """The mails a company has received."""
        return list((await self.ask("GET", self.url("sandbox", f"/mail?to={company.email}"))).ok())

    async def fault(self, part: str, **fault: Any) -> None:
        """Let a part of the sandbox misbehave."""
        (await self.ask("POST", self.url("sandbox", f"/sandbox/faults/{part}"), json=fault)).ok()

    # --- applications

    def body(self, record_ids: Sequence[str], **changes: Any) -> Document:
        """Body of an application."""
        return {
            "contact_name": "李四",
            "contact_phone": "13812345678",
            "record_ids": list(record_ids),
            "statement": STATEMENT,
            **changes,
        }

    async def confirmed(self, token: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """The same body with the commitment its applicant was shown; as it is where there is none, or nothing can be shown."""
        if not isinstance(body, dict) or "commitment_hash" in body or not body.get("record_ids"):
            return body
        url = self.url("intake", "/v1/applications/commitment-preview")
        shown = await self.ask("POST", url, token, json={"record_ids": body["record_ids"]}, headers=headers)
        return {**body, "commitment_hash": shown.body["commitment_hash"]} if shown.status == 200 else body

    async def submit(self, company: Company, body: Any = None, key: str | None = None) -> Answer:
        """File an application, for all records by default, with its commitment. ``key``: by default a new one."""
        return await self.ask(
            "POST",
            self.url("intake", "/v1/applications"),
            company.token,
            json=await self.confirmed(company.token, self.body(company.ids) if body is None else body),
            headers={"idempotency-key": key or secrets.token_hex(16)},
        )

    async def application(self, company: Company, application_id: str) -> Document:
        """An application as its company sees it."""
        url = self.url("intake", f"/v1/applications/{application_id}")
        found: Document = (await self.ask("GET", url, company.token)).ok()
        return found

    async def review(self, item_id: str) -> Document:
        """An item once it is at its department: its document at dept-adapter."""
        reviews = self.database("dept-adapter")["reviews"]

        async def is_there() -> bool:
            return reviews.find_one({"_id": item_id}) is not None

        await eventually(is_there, 30)
        found = reviews.find_one({"_id": item_id})
        assert found is not None
        return found

    async def desk(self, item_id: str, action: str, body: Any = None, slug: str = DESK) -> Answer:
        """An officer acts on an item that is, or soon will be, at the desk."""
        await self.review(item_id)
        url = self.url("dept-adapter", f"/v1/reviews/{item_id}/{action}")
        return await self.ask("POST", url, await self.officer(slug), json=body)

    async def until_item(self, company: Company, application_id: str, status: str) -> None:
        """Wait until every item of an application has this status."""

        async def reached() -> bool:
            items = (await self.application(company, application_id))["items"]
            return all(item["status"] == status for item in items)

        await eventually(reached, 30)

    async def until_completed(self, company: Company, application_id: str, seconds: float = 40) -> Document:
        """The application once it is completed."""

        async def completed() -> bool:
            return bool((await self.application(company, application_id))["status"] == "completed")

        await eventually(completed, seconds)
        return await self.application(company, application_id)

    async def repaired(self, company: Company, slug: str = DESK) -> Document:
        """File for all records of a company, grant them at the desk, and wait until all targets show it."""
        application = (await self.submit(company)).ok()
        for item in application["items"]:
            (await self.desk(item["item_id"], "grant", slug=slug)).ok()
        return await self.until_completed(company, application["application_id"])

    async def works(self) -> None:
        """The pipeline still does its work: a new application ends at every target."""
        company = await self.company()
        application = await self.repaired(company)
        assert [item["status"] for item in application["items"]] == ["repaired"]
        for target in self.told(company):
            assert await self.public(target.id, company) == set()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def csv_bytes(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str] = COLUMNS, encoding: str = "utf-8"
) -> bytes:
    """A CSV file with a header."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode(encoding)


@asynccontextmanager
async def open_world(stack: Stack, endpoints: Endpoints) -> AsyncIterator[World]:
    """The world of a stack."""
    async with ClientSession(timeout=ClientTimeout(total=60 * PATIENCE)) as session:
        world = World(session, stack, endpoints)
        try:
            yield world
        finally:
            world.close()
