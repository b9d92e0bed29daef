"""Composes and issues the letters that are due: a stored fact with its number, hash and verification code, told once by an event.

Not in the transaction of the step: the addressee is asked of intake, which may be down. A letter is what it says (JSON), and is printed
when somebody reads it: the same text and template are the same PDF, byte for byte.
"""

import secrets
from collections import Counter
from collections.abc import Collection as Bag
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from aiohttp import ClientError
from pymongo import ASCENDING, UpdateOne

from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.db import Database, Document, Session
from chassis.letter import Letter, Verification
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue
from contracts.events import Event, LetterIssued, ObjectionLetterIssued
from contracts.http.intake import Subject
from contracts.letters import CODES, LetterKind, verification_code
from dept_adapter.domain import Review
from dept_adapter.letters import (
    draft,
    draft_objection,
    is_notice,
    letter_number,
    masked,
    own_number,
    template_of,
)
from dept_adapter.objection import Objection
from dept_adapter.objections import objection_of
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.store import Reviews

log = get_logger(__name__)
_LEASE = timedelta(seconds=30)
_BY = "letters"


@dataclass(frozen=True)
class IssuedLetter:
    """A letter as it was issued. ``content``: the JSON whose SHA-256 is ``content_hash``; ``addressee``: masked."""

    letter_id: str
    item_id: str
    department_code: str
    kind: LetterKind
    title: str
    number: str | None
    verification_code: str
    content: str
    content_hash: str
    addressee: str
    subject_id: str
    issued_at: datetime

    @property
    def letter(self) -> Letter:
        """What it says."""
        return Letter.model_validate_json(self.content)


class Letters:
    """The letters that were issued."""

    def __init__(self, database: Database) -> None:
        self._letters = database.collection("letters")

    async def of_item(self, item_id: str) -> list[IssuedLetter]:
        """All of an item, in the order of its steps."""
        cursor = self._letters.find({"item_id": item_id, "content": {"$exists": True}})
        return [_issued(document) async for document in cursor.sort("at", ASCENDING)]

    async def get(self, letter_id: str) -> IssuedLetter | None:
        """One letter."""
        return self._one(await self._letters.find_one({"_id": letter_id}))

    async def by_code(self, code: str) -> IssuedLetter | None:
        """The letter with this verification code, in its normal form."""
        return self._one(await self._letters.find_one({"verification_code": code}))

    @staticmethod
    def _one(document: Document | None) -> IssuedLetter | None:
        return _issued(document) if document and "content" in document else None


class LetterIssuer:
    """Issues the letters of the served departments: each once, in batches, in order of their steps."""

    def __init__(
        self,
        settings: DeptAdapterSettings,
        database: Database,
        outbox: Outbox,
        reviews: Reviews,
        cases: CaseDirectory,
        department_codes: Bag[str],
    ) -> None:
        self._letters = database.collection("letters")
        self._documents = database.collection("reviews")
        self._objections = database.collection("objections")
        self._reviews = reviews
        self._cases = cases
        self._catalogue: Catalogue = settings.catalogue
        self._codes = list(department_codes)
        self._url = str(settings.letters_url or settings.public_url).rstrip("/")
        self._batch = settings.letter_batch
        self._policy = RetryPolicy(1.0, settings.letter_backoff_max_seconds, max_attempts=0)
        self.loop = Loop("letters", self.step, settings.letter_poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Issue one batch; returns whether more may be due."""
        token = secrets.token_hex(8)
        claimed = await self._claim(token)
        if not claimed:
            return False
        try:
            subjects = await self._cases.subjects(_about(due)["subject_id"] for due in claimed)
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("intake does not answer; letters wait", error=type(error).__name__)
            subjects = {}

        drafts = {
            due["_id"]: self._draft(due, subject)
            for due in sorted(claimed, key=lambda due: due["at"])
            if (subject := subjects.get(_about(due)["subject_id"])) is not None
        }

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> None:
            mine = {"_id": {"$in": list(ids)}, "lease": token}
            held = {row["_id"] async for row in self._letters.find(mine, {"_id": 1}, session=unit.session)}
            ready = [each for id_, each in drafts.items() if each is not None and id_ in held]
            numbers = await self._numbers(unit.session, ready)
            writes: list[UpdateOne] = []
            told: dict[bool, list[UpdateOne]] = {False: [], True: []}
            for each in ready:
                issued = self._issue(unit, each, next(numbers[each.series]) if each.series else None)
                writes.append(
                    UpdateOne(
                        {"_id": each.id},
                        {
                            "$set": issued,
                            "$unset": {
                                "review": "",
                                "objection": "",
                                "next_attempt_at": "",
                                "lease": "",
                                "text": "",
                            },
                        },
                    )
                )
                line = {"$push": {"history": _step(each.due, issued)}}
                told["objection" in each.due].append(UpdateOne({"_id": each.due["item_id"]}, line))
            for due in claimed:
                if due["_id"] in held and drafts.get(due["_id"]) is None:
                    wait = self._policy.delay(int(due["attempts"]) + 1)
                    later = {"$set": {"next_attempt_at": unit.now + wait}, "$inc": {"attempts": 1}}
                    writes.append(UpdateOne({"_id": due["_id"]}, {**later, "$unset": {"lease": ""}}))
            if writes:
                await self._letters.bulk_write(writes, session=unit.session, ordered=False)
            for documents, lines in ((self._documents, told[False]), (self._objections, told[True])):
                if lines:
                    await documents.bulk_write(lines, session=unit.session)

        await self._rows.run([due["_id"] for due in claimed], work)
        return bool(subjects) and len(claimed) == self._batch

    async def _claim(self, token: str) -> Sequence[Document]:
        now = datetime.now(UTC)
        due = {"department_code": {"$in": self._codes}, "next_attempt_at": {"$lte": now}}
        cursor = self._letters.find(due, {"_id": 1}).sort("next_attempt_at", ASCENDING).limit(self._batch)
        ids = [document["_id"] for document in await cursor.to_list(self._batch)]
        if not ids:
            return []
        lease = {"lease": token, "next_attempt_at": now + _LEASE}
        await self._letters.update_many({"_id": {"$in": ids}, **due}, {"$set": lease})
        mine = self._letters.find({"_id": {"$in": ids}, "lease": token})
        return [document async for document in mine]

    def _draft(self, due: Mapping[str, Any], subject: Subject) -> "_Draft | None":
        """What a letter says, but for its number; None when it cannot be composed, which a person has to look into."""
        kind = LetterKind(due["kind"])
        objected = "objection" in due
        review = None if objected else self._reviews.review_of(due["review"])
        objection = objection_of(due["objection"]) if objected else None
        about = review or objection
        if about is None:
            raise ValueError(f"{due['_id']} is about nothing")
        code = verification_code(secrets.randbelow(CODES))
        verification = Verification(code=code, url=f"{self._url}/v1/letters/{code}")
        own = own_number(kind, review) if review else None
        try:
            write = (due["text"], own, due["at"], self._catalogue, verification)
            if objection is not None:
                letter = draft_objection(kind, objection, subject, *write)
            elif review is not None:
                letter = draft(kind, review, subject, *write)
            series = self._series(about, kind, letter.dated) if own is None else None
        except Exception:
            # one letter must not hold up the others, nor take a number
            log.exception("a letter cannot be composed", letter_id=due["_id"], kind=kind.value)
            return None
        return _Draft(due, about, kind, letter, code, masked(subject.name), series)

    def _series(self, about: Review | Objection, kind: LetterKind, day: date) -> "_Series | None":
        """Of the department, the year and the kind; None where such letters have no number, and of notices."""
        words = template_of(kind, about, self._catalogue, day).number_words
        department = self._catalogue.department(about.department.code)
        if words is None or department is None:
            return None
        if isinstance(about, Review) and is_notice(about, department):
            return None
        return _Series(department.code, department.short_name, words, day.year)

    async def _numbers(
        self, session: Session, ready: Sequence["_Draft"]
    ) -> Mapping["_Series", Iterator[str]]:
        """The next numbers of each series, as many as are needed: all at once, so that nobody waits for a series for long."""
        needed = Counter(each.series for each in ready if each.series)
        found: dict[_Series, Iterator[str]] = {}
        for series in sorted(needed):  # in one order, or two replicas might wait for each other
            first = await self._reviews.next_serial(
                series.department_code, series.year, session, series.words, needed[series]
            )
            found[series] = map(series.number, range(first, first + needed[series]))
        return found

    def _issue(self, unit: UnitOfWork, each: "_Draft", number: str | None) -> Document:
        """Tell of a letter; what is stored of it."""
        about = each.about
        letter = each.letter if number is None else each.letter.model_copy(update={"number": number})
        told = {
            "application_id": about.application_id,
            "item_id": about.item_id,
            "record_id": about.record_id,
            "subject_id": about.subject_id,
            "department": about.department,
            "letter_id": each.id,
            "letter_kind": each.kind.value,
            "title": letter.title,
            "number": letter.number,
            "content_hash": letter.content_hash,
            "verification_code": each.code,
            "dated": letter.dated,
            "issued_at": unit.now,
        }
        event: Event
        if isinstance(about, Objection):
            which = {"objection_id": about.objection_id, "kind": about.kind}
            event = ObjectionLetterIssued.model_validate({**told, **which})
        else:
            event = LetterIssued.model_validate(told)
        unit.emit(event, cause=f"letter:{each.id}", trace=each.due["trace"])
        return {
            "content": letter.model_dump_json(),
            "content_hash": letter.content_hash,
            "title": letter.title,
            "number": letter.number,
            "verification_code": each.code,
            "subject_id": about.subject_id,
            "addressee": each.addressee,
            "issued_at": unit.now,
        }


@dataclass(frozen=True, order=True)
class _Series:
    """What shares a row of numbers."""

    department_code: str
    short_name: str
    words: str
    year: int

    def number(self, serial: int) -> str:
        return letter_number(self.short_name, self.words, self.year, serial)


@dataclass(frozen=True)
class _Draft:
    """A letter that is due, and what it says but for its number. ``series``: where that comes from; None: it has its own, or none."""

    due: Mapping[str, Any]
    about: Review | Objection
    kind: LetterKind
    letter: Letter
    code: str
    addressee: str
    series: _Series | None

    @property
    def id(self) -> str:
        return str(self.due["_id"])


def _about(due: Mapping[str, Any]) -> Mapping[str, Any]:
    """The review or the objection as the step left it."""
    found: Mapping[str, Any] = due["objection"] if "objection" in due else due["review"]
    return found


def _issued(document: Document) -> IssuedLetter:
    names = IssuedLetter.__dataclass_fields__
    found = {**document, "letter_id": document["_id"], "kind": LetterKind(document["kind"])}
    return IssuedLetter(**{name: found[name] for name in names})


def _step(due: Mapping[str, Any], issued: Document) -> Document:
    """The line of the item's history."""
    named = "".join(part for part in (f"《{issued['title']}》", issued["number"]) if part)
    return {
        "at": issued["issued_at"],
        "state": _about(due)["state"],
        "by": _BY,
        "detail": named,
        "letter_id": due["_id"],
        "content_hash": issued["content_hash"],
    }
