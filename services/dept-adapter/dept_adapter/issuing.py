"""Composes and issues the letters that are due: a stored fact with its number, hash and verification code, told once by an event.

Not in the transaction of the step: the addressee is asked of intake, which may be down. A letter is what it says (JSON), and is printed
when somebody reads it: the same text and template are the same PDF, byte for byte.
"""

import secrets
from collections.abc import Collection as Bag
from collections.abc import Mapping, Sequence
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
        self._outbox = outbox
        self._reviews = reviews
        self._cases = cases
        self._catalogue: Catalogue = settings.catalogue
        self._codes = list(department_codes)
        self._url = str(settings.letters_url or settings.public_url).rstrip("/")
        self._batch = settings.letter_batch
        self._policy = RetryPolicy(1.0, settings.letter_backoff_max_seconds, max_attempts=0)
        self.loop = Loop("letters", self.step, settings.letter_poll_seconds)

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

        async def work(unit: UnitOfWork) -> None:
            held = self._letters.find(
                {"_id": {"$in": [due["_id"] for due in claimed]}, "lease": token}, session=unit.session
            )
            writes: list[UpdateOne] = []
            told: dict[bool, list[UpdateOne]] = {False: [], True: []}
            async for due in held.sort("at", ASCENDING):
                subject = subjects.get(_about(due)["subject_id"])
                issued = await self._issue(unit, due, subject) if subject else None
                if issued is None:
                    wait = self._policy.delay(int(due["attempts"]) + 1)
                    later = {"$set": {"next_attempt_at": unit.now + wait}, "$inc": {"attempts": 1}}
                    writes.append(UpdateOne({"_id": due["_id"]}, {**later, "$unset": {"lease": ""}}))
                    continue
                writes.append(
                    UpdateOne(
                        {"_id": due["_id"]},
                        {
                            "$set": {name: issued[name] for name in issued if name != "_id"},
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
                line = {"$push": {"history": _step(due, issued)}}
                told["objection" in due].append(UpdateOne({"_id": due["item_id"]}, line))
            if writes:
                await self._letters.bulk_write(writes, session=unit.session, ordered=False)
            for documents, lines in ((self._documents, told[False]), (self._objections, told[True])):
                if lines:
                    await documents.bulk_write(lines, session=unit.session)

        await self._outbox.run(work)
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

    async def _issue(self, unit: UnitOfWork, due: Mapping[str, Any], subject: Subject) -> Document | None:
        """Compose a letter and tell of it; None when it cannot be composed, which a person has to look into."""
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
        except Exception:
            # one letter must not hold up the others, nor take a number
            log.exception("a letter cannot be composed", letter_id=due["_id"], kind=kind.value)
            return None
        if own is None:
            number = await self._next_number(unit.session, about, kind, letter.dated)
            letter = letter.model_copy(update={"number": number})
        told = {
            "application_id": about.application_id,
            "item_id": about.item_id,
            "record_id": about.record_id,
            "subject_id": about.subject_id,
            "department": about.department,
            "letter_id": due["_id"],
            "letter_kind": kind.value,
            "title": letter.title,
            "number": letter.number,
            "content_hash": letter.content_hash,
            "verification_code": code,
            "dated": letter.dated,
            "issued_at": unit.now,
        }
        event: Event
        if objection is not None:
            which = {"objection_id": objection.objection_id, "kind": objection.kind}
            event = ObjectionLetterIssued.model_validate({**told, **which})
        else:
            event = LetterIssued.model_validate(told)
        unit.emit(event, cause=f"letter:{due['_id']}", trace=due["trace"])
        return {
            "content": letter.model_dump_json(),
            "content_hash": letter.content_hash,
            "title": letter.title,
            "number": letter.number,
            "verification_code": code,
            "subject_id": about.subject_id,
            "addressee": masked(subject.name),
            "issued_at": unit.now,
        }

    async def _next_number(
        self, session: Session, about: Review | Objection, kind: LetterKind, day: date
    ) -> str | None:
        """The next of the department, the year and the kind; None where such letters have none, and of notices."""
        words = template_of(kind, about, self._catalogue, day).number_words
        department = self._catalogue.department(about.department.code)
        if words is None or department is None:
            return None
        if isinstance(about, Review) and is_notice(about, department):
            return None
        serial = await self._reviews.next_serial(department.code, day.year, session, words)
        return letter_number(department.short_name, words, day.year, serial)


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
