"""Who applies in a chaos run, for which records, and what the people at the departments will do about each: all from one seed."""

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from e2e.people import STATEMENT, TELLS_NO_CONTENT, World, csv_bytes, uscc
from rich.console import Console

from contracts.catalogue import Catalogue
from contracts.identifiers import normalise_document_number, record_id
from contracts.records import RecordContent, SubjectType
from contracts.tokens import Scope
from xinfu.client import Citizenry
from xinfu.records import import_records

API = ("hz-samr", "hz-sthj")
DESKS = ("hz-jyj", "hz-kjj", "hz-fgw", "hz-jxj")
NO_DUTIES = "我公司希望尽快恢复信用，请予支持。"
"""A statement that says nothing of duties done: departments with systems of their own refuse it."""

_UNKNOWN_AUTHORITY, _UNKNOWN_CODE = "杭州市示例无此机关", uscc(9_999_999)
TOKEN_SECONDS = 86_400
CORRECTED_KINDS = "罚款"
"""What the kinds of penalty of a record are corrected to."""
_SEED_ROWS = 5_000
_SIGN_INS_AT_ONCE = 16


class Objecting(StrEnum):
    """What becomes of an objection to a record, as far as people have a say in it."""

    UPHELD = "upheld"
    DISMISSED = "dismissed"
    RETRACTED = "retracted"


@dataclass(frozen=True)
class Record:
    """A record, and what people will decide. ``slug`` None: of an authority nobody knows, ``assigned_to`` by an operator or left
    waiting. ``granted``: the word of a desk; a department with a system of its own looks at the statement. ``revoked``: later.
    """

    record_id: str
    document_number: str
    authority_name: str
    authority_code: str
    slug: str | None
    assigned_to: str | None
    granted: bool
    revoked: bool
    supplemented: bool
    withdrawn: bool

    @property
    def department(self) -> str | None:
        """Slug of the department that decides; None when nobody will."""
        return self.slug or self.assigned_to


@dataclass(frozen=True)
class Company:
    """A subject that files one application for all its records. ``token``: of its citizen, once signed in."""

    name: str
    code: str
    email: str
    statement: str
    records: tuple[Record, ...]
    token: str = ""

    @property
    def duties_done(self) -> bool:
        """Whether the statement says so."""
        return self.statement != NO_DUTIES


class Population:
    """The companies of a run."""

    def __init__(self, companies: Sequence[Company]) -> None:
        self.companies = list(companies)
        self.records = {record.record_id: record for company in companies for record in company.records}
        self.owners = {record.record_id: company for company in companies for record in company.records}
        self.corrected: set[str] = set()
        self.objections: dict[str, Objecting] = {}
        """Record id -> what becomes of the objection to it."""
        self.rows: dict[str, dict[str, str]] = {}
        """Record id -> its row of the file, once published."""

    @classmethod
    def draw(cls, seed: int, size: int, catalogue: Catalogue) -> "Population":
        """The same seed and size give the same companies. At most 900,000 of them.

        Seven in ten records belong to departments with systems of their own, two in a hundred to an authority nobody knows; one
        company in ten has three records, one in twenty has not done its duties. Of what comes to a desk by itself, a sixth is asked to
        be supplemented and a tenth is to be withdrawn. Of all records a tenth is corrected by its department meanwhile; of the others
        that have one, a tenth is objected to.
        """
        rng = random.Random(seed)
        drawn = cls([_company(rng, number, catalogue) for number in range(1, size + 1)])
        corrections = random.Random(f"corrections {seed}")
        drawn.corrected = {each for each in drawn.records if corrections.random() < 0.1}
        objections = random.Random(f"objections {seed}")
        drawn.objections = {
            each.record_id: objections.choice(list(Objecting))
            for each in drawn.records.values()
            if each.slug and each.record_id not in drawn.corrected and objections.random() < 0.1
        }
        return drawn

    async def publish(self, world: World, directory: Path) -> None:
        """Make all records known to intake, by one import, and public at every target; sign everybody in."""
        self.rows = {
            record.record_id: world.row(
                record.slug,
                CF_XDR_MC=company.name,
                CF_XDR_SHXYM=company.code,
                CF_WSH=record.document_number,
                CF_CFJG=record.authority_name,
                CF_CFJGDM=record.authority_code,
            )
            for company in self.companies
            for record in company.records
        }
        path = directory / "records.csv"
        path.write_bytes(csv_bytes(list(self.rows.values())))
        people = Citizenry(world.http, world.endpoints)
        report = await import_records(
            await people.ops(), world.endpoints.services["intake"], path, Console(quiet=True)
        )
        if report["rejected"]:
            raise ValueError(f"intake refuses records of the population: {report['rejected'][:3]}")
        for target in world.catalogue.targets:
            url = world.url("sandbox", f"/targets/{target.id}/sandbox/records")
            untold = {"content": None} if target.id == TELLS_NO_CONTENT else {}
            published = [{**row, **untold} for row in self._published(world.catalogue)]
            for part in _parts(published, _SEED_ROWS):
                (await world.ask("POST", url, json={"records": part})).ok()
        await self._sign_in(world)

    def _published(self, catalogue: Catalogue) -> Iterator[dict[str, Any]]:
        for record in self.records.values():
            company = self.owners[record.record_id]
            yield {
                "record": {
                    "subject_code": company.code,
                    "document_number": record.document_number,
                    "authority_name": record.authority_name,
                },
                "subject_name": company.name,
                "category": catalogue.penalty_category(record.authority_code, record.authority_name),
                "content": {
                    "decided_on": self.rows[record.record_id]["CF_JDRQ"],
                    "penalty_kinds": self.rows[record.record_id]["CF_CFLB"],
                },
            }

    def objecting(self) -> list[Company]:
        """Companies that object to a record."""
        return [c for c in self.companies if any(r.record_id in self.objections for r in c.records)]

    def as_corrected(self, ids: Iterable[str]) -> Mapping[str, RecordContent]:
        """Record id -> what has to be read of it once it was corrected."""
        return {
            each: RecordContent.model_validate(
                {"decided_on": self.rows[each]["CF_JDRQ"], "penalty_kinds": CORRECTED_KINDS}
            )
            for each in ids
        }

    async def _sign_in(self, world: World) -> None:
        slots = asyncio.Semaphore(_SIGN_INS_AT_ONCE)

        async def sign_in(company: Company) -> Company:
            async with slots:
                token = await world.sign_in(
                    Scope.APPLICANT,
                    subject_type=SubjectType.LEGAL_PERSON.value,
                    subject_code=company.code,
                    subject_name=company.name,
                    email=company.email,
                    expires_in_seconds=TOKEN_SECONDS,
                )
            return replace(company, token=token)

        self.companies = list(await asyncio.gather(*map(sign_in, self.companies)))
        self.owners = {record.record_id: c for c in self.companies for record in c.records}


def _company(rng: random.Random, number: int, catalogue: Catalogue) -> Company:
    code, name = uscc(100_000 + number), f"杭州示例混沌{number:06d}科技有限公司"
    count = 3 if rng.random() < 0.1 else 1
    records = tuple(_record(rng, code, f"{number}{position}", catalogue) for position in range(count))
    statement = NO_DUTIES if rng.random() < 0.05 else STATEMENT
    return Company(name, code, f"c{number}@example.com", statement, records)


def _record(rng: random.Random, code: str, number: str, catalogue: Catalogue) -> Record:
    draw = rng.random()
    slug = rng.choice(API) if draw < 0.7 else rng.choice(DESKS) if draw < 0.98 else None
    assigned_to = rng.choice(DESKS) if slug is None and rng.random() < 0.5 else None
    granted, revoked = rng.random() < 0.85, rng.random() < 0.1
    supplemented, withdrawn = (slug in DESKS and rng.random() < share for share in (1 / 6, 1 / 10))
    department = catalogue.by_slug(slug) if slug else None
    authority = department.name if department else _UNKNOWN_AUTHORITY
    authority_code = department.code if department else _UNKNOWN_CODE
    mark = f"{department.short_name if department else '示例'}罚"
    document_number = normalise_document_number(f"{mark}〔2025〕{number}号")
    return Record(
        record_id(authority_code, document_number, code),
        document_number,
        authority,
        authority_code,
        slug,
        assigned_to,
        granted,
        revoked,
        supplemented,
        withdrawn,
    )


def _parts(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
