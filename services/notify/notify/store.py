"""Notify's documents: ``messages`` (in the app) and ``emails``. ``_id`` is fact and channel, so there is one of each."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from chassis.db import Collection, CollectionSpec, Database, Document, Session
from contracts.events import VendorLetterIssued
from notify.domain import MailState, Notice
from notify.texts import Text

COLLECTIONS = [
    CollectionSpec(
        "messages", [IndexModel([("subject_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)])]
    ),
    CollectionSpec("emails", [IndexModel([("state", ASCENDING), ("next_attempt_at", ASCENDING)])]),
]


async def _known(collection: Collection, ids: Iterable[str], session: Session) -> set[str]:
    cursor = collection.find({"_id": {"$in": list(ids)}}, {"_id": 1}, session=session)
    return {document["_id"] async for document in cursor}


@dataclass(frozen=True, slots=True)
class Draft:
    """A notice with its text, and the trace context it belongs to."""

    notice: Notice
    text: Text
    trace: Mapping[str, str]

    @property
    def vendor_letter(self) -> Document | None:
        """What is attached and to whom it goes, when it does not go to the applicant."""
        event = self.notice.event
        if not isinstance(event, VendorLetterIssued):
            return None
        return {"letter_id": event.letter_id, "target_id": event.target_id}

    def _common(self, now: datetime) -> Document:
        return {
            "_id": self.notice.id,
            "fact": self.notice.fact,
            "subject_id": self.notice.event.subject_id,
            "application_id": self.notice.event.application_id,
            "created_at": now,
        }


class Messages:
    """What a subject reads in the app: {_id, subject_id, application_id, channel, fact, title, text, created_at, read_at}."""

    def __init__(self, database: Database) -> None:
        self._messages = database.collection("messages")

    async def known(self, ids: Iterable[str], session: Session) -> set[str]:
        """Those of the ids that are there."""
        return await _known(self._messages, ids, session)

    async def add(self, drafts: Sequence[Draft], session: Session, now: datetime) -> None:
        """Store several; none may be there yet."""
        documents = [
            {
                **draft._common(now),
                "channel": draft.notice.channel.value,
                "title": draft.text.title,
                "text": draft.text.text,
                "read_at": None,
            }
            for draft in drafts
        ]
        await self._messages.insert_many(documents, session=session, ordered=False)

    async def get(self, subject_id: str, message_id: str) -> Document | None:
        """A subject's message."""
        found: Document | None = await self._messages.find_one({"_id": message_id, "subject_id": subject_id})
        return found

    async def page(
        self, subject_id: str, *, unread: bool, after: Document | None, limit: int
    ) -> list[Document]:
        """A subject's messages, newest first, ``limit`` at most, after the given one."""
        query: dict[str, Any] = {"subject_id": subject_id}
        if unread:
            query["read_at"] = None
        if after is not None:
            moment = after["created_at"]
            query["created_at"] = {"$lte": moment}
            query["$or"] = [{"created_at": {"$lt": moment}}, {"_id": {"$lt": after["_id"]}}]
        order = [("created_at", DESCENDING), ("_id", DESCENDING)]
        return await self._messages.find(query).sort(order).limit(limit).to_list(limit)

    async def mark_read(self, subject_id: str, message_id: str, now: datetime) -> Document | None:
        """Note when a message was read first; the message, or None when the subject has no such message."""
        await self._messages.update_one(
            {"_id": message_id, "subject_id": subject_id, "read_at": None}, {"$set": {"read_at": now}}
        )
        return await self.get(subject_id, message_id)


@dataclass(frozen=True, slots=True)
class VendorLetterRef:
    """A letter to a vendor (sync's id) and the vendor it goes to."""

    letter_id: str
    target_id: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail claimed by a worker. ``attempts`` counts this one; ``vendor_letter``: it goes to a vendor, with the letter attached."""

    id: str
    fact: str
    subject_id: str
    application_id: str
    subject_line: str
    text: str
    attempts: int
    lease: str
    trace: Mapping[str, str]
    vendor_letter: VendorLetterRef | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mail becomes. ``next_attempt_at`` for a pending one; ``attempts`` as they are to be stored."""

    mail: Mail
    state: MailState
    attempts: int
    next_attempt_at: datetime | None = None
    last_error: str | None = None


class Emails:
    """The mails: {_id, fact, subject_id, application_id, subject_line, text, state, attempts, next_attempt_at, lease, last_error,
    vendor_letter, trace, created_at, sent_at}.

    A claim moves ``next_attempt_at`` to the end of the lease: a mail whose worker died is simply due again.
    """

    def __init__(self, database: Database) -> None:
        self._emails = database.collection("emails")

    async def known(self, ids: Iterable[str], session: Session) -> set[str]:
        """Those of the ids that are there."""
        return await _known(self._emails, ids, session)

    async def add(self, drafts: Sequence[Draft], session: Session, now: datetime) -> None:
        """Queue several; none may be there yet."""
        documents = [
            {
                **draft._common(now),
                "subject_line": draft.text.title,
                "vendor_letter": draft.vendor_letter,
                "text": draft.text.text,
                "state": MailState.PENDING.value,
                "attempts": 0,
                "next_attempt_at": now,
                "lease": None,
                "last_error": None,
                "trace": dict(draft.trace),
            }
            for draft in drafts
        ]
        await self._emails.insert_many(documents, session=session, ordered=False)

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> list[Mail]:
        """Take up to ``limit`` due mails, longest due first; nobody else takes them before ``lease`` is over.

        The attempt is counted here: a mail that kills its worker does not come for ever.
        """
        due = {
            "state": {"$in": [MailState.PENDING.value, MailState.SENDING.value]},
            "next_attempt_at": {"$lte": now},
        }
        ids = [
            document["_id"]
            async for document in self._emails.find(due, {"_id": 1}).sort("next_attempt_at").limit(limit)
        ]
        if not ids:
            return []
        token = secrets.token_hex(8)
        await self._emails.update_many(
            {"_id": {"$in": ids}, **due},
            {
                "$set": {"state": MailState.SENDING.value, "lease": token, "next_attempt_at": now + lease},
                "$inc": {"attempts": 1},
            },
        )
        return [
            Mail(
                document["_id"],
                document["fact"],
                document["subject_id"],
                document["application_id"],
                document["subject_line"],
                document["text"],
                document["attempts"],
                token,
                document["trace"],
                VendorLetterRef(**letter) if (letter := document.get("vendor_letter")) else None,
            )
            async for document in self._emails.find({"_id": {"$in": ids}, "lease": token})
        ]

    async def still_held(self, mails: Sequence[Mail], session: Session) -> set[str]:
        """Ids of the mails that nobody else has claimed since."""
        leases = {mail.id: mail.lease for mail in mails}
        cursor = self._emails.find({"_id": {"$in": list(leases)}}, {"lease": 1}, session=session)
        return {document["_id"] async for document in cursor if document["lease"] == leases[document["_id"]]}

    async def mark(self, marks: Sequence[Mark], session: Session, now: datetime) -> None:
        """Write what became of mails that are still held."""
        updates = []
        for mark in marks:
            fields: Document = {
                "state": mark.state.value,
                "attempts": mark.attempts,
                "next_attempt_at": mark.next_attempt_at,
                "last_error": mark.last_error,
                "lease": None,
            }
            if mark.state is MailState.SENT:
                fields["sent_at"] = now
            updates.append(UpdateOne({"_id": mark.mail.id}, {"$set": fields}))
        await self._emails.bulk_write(updates, session=session, ordered=False)
