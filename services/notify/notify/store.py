"""Notify's documents: ``messages`` (in the app), ``emails``, and ``office_notices``, which wait to be put into one mail to their office.

``_id`` is fact and channel, of a notice the fact, so there is one of each.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from chassis.db import Collection, CollectionSpec, Database, Document, Session
from chassis.rows import Rows
from contracts.events import Channel, IssuedLetter, ReminderLevel
from notify.domain import MailState, Notice, application_of, notice_id
from notify.offices import OfficeMail, OfficeNotice
from notify.texts import Text

COLLECTIONS = [
    CollectionSpec(
        "messages", [IndexModel([("subject_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)])]
    ),
    CollectionSpec("emails", [IndexModel([("state", ASCENDING), ("next_attempt_at", ASCENDING)])]),
    CollectionSpec(
        "office_notices",
        [
            IndexModel(
                [("office_id", ASCENDING), ("level", ASCENDING), ("created_at", ASCENDING)],
                name="waiting",
                partialFilterExpression={"waiting": True},
            )
        ],
    ),
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
        if not isinstance(event, IssuedLetter):
            return None
        return {
            "letter_id": event.letter_id,
            "target_id": event.target_id,
            "to_supervisor": self.notice.to_supervisor,
        }

    def _common(self, now: datetime) -> Document:
        return {
            "_id": self.notice.id,
            "fact": self.notice.fact,
            "subject_id": self.notice.event.subject_id,
            "application_id": application_of(self.notice.event),
            "created_at": now,
        }


class Messages:
    """What a subject reads in the app (``application_id`` None: about a record alone): {_id, subject_id, application_id, channel, fact, title, text, created_at, read_at}."""

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
    """A letter to a vendor (sync's id) and the vendor it goes to; ``to_supervisor``: to its supervisor, as a copy."""

    letter_id: str
    target_id: str
    to_supervisor: bool = False


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail claimed by a worker. ``attempts`` counts this one.

    To an applicant: of a subject's application; to a subject: of none; to an ``office``: neither of them; ``vendor_letter``: to a vendor, with the letter
    attached.
    """

    id: str
    fact: str
    subject_id: str | None
    application_id: str | None
    subject_line: str
    text: str
    attempts: int
    lease: str
    trace: Mapping[str, str]
    office: OfficeMail | None = None
    vendor_letter: VendorLetterRef | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mail becomes. ``next_attempt_at`` for a pending one; ``attempts`` as they are to be stored."""

    mail: Mail
    state: MailState
    attempts: int
    next_attempt_at: datetime | None = None
    last_error: str | None = None


_QUEUED: Document = {"state": MailState.PENDING.value, "attempts": 0, "lease": None, "last_error": None}


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
                **_QUEUED,
                "next_attempt_at": now,
                "trace": dict(draft.trace),
            }
            for draft in drafts
        ]
        await self._emails.insert_many(documents, session=session, ordered=False)

    async def add_office_mail(
        self, fact: str, office: OfficeMail, text: Text, session: Session, now: datetime
    ) -> str:
        """Queue a mail to an office; its id."""
        id_ = notice_id(fact, Channel.EMAIL)
        await self._emails.insert_one(
            {
                "_id": id_,
                "fact": fact,
                "subject_id": None,
                "application_id": None,
                "office": office.document(),
                "created_at": now,
                "subject_line": text.title,
                "text": text.text,
                **_QUEUED,
                "next_attempt_at": now,
                "trace": {},
            },
            session=session,
        )
        return id_

    async def claim(self, now: datetime, lease: timedelta, limit: int, rows: Rows) -> list[Mail]:
        """Take up to ``limit`` due mails, longest due first; nobody else takes them before ``lease`` is over. Left to ``rows``: those
        that cannot be read.

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
        return await rows.read(ids, lambda part: self._leased(part, token))

    async def _leased(self, ids: Sequence[str], token: str) -> list[Mail]:
        found = self._emails.find({"_id": {"$in": list(ids)}, "lease": token})
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
                OfficeMail.read(document["office"]) if document.get("office") else None,
                VendorLetterRef(**letter) if (letter := document.get("vendor_letter")) else None,
            )
            async for document in found
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


class OfficeNotices:
    """What offices have to be told, until it is in a mail: {_id, office_id, level, item_id, line, created_at, waiting}; then
    {email_id} instead of waiting."""

    def __init__(self, database: Database) -> None:
        self._notices = database.collection("office_notices")

    async def add(self, notices: Sequence[OfficeNotice], session: Session, now: datetime) -> None:
        """Keep those that are not there yet."""
        known = await _known(self._notices, [notice.fact for notice in notices], session)
        fresh = {notice.fact: notice for notice in notices if notice.fact not in known}
        if fresh:
            documents = [
                {**notice.document(), "created_at": now, "waiting": True} for notice in fresh.values()
            ]
            await self._notices.insert_many(documents, session=session, ordered=False)

    async def waiting(self, before: datetime) -> list[tuple[str, ReminderLevel]]:
        """The (office, level) of which something has waited since before that moment."""
        pipeline: list[Document] = [
            {"$match": {"waiting": True, "office_id": {"$gte": ""}, "created_at": {"$lte": before}}},
            {"$group": {"_id": {"office_id": "$office_id", "level": "$level"}}},
        ]
        found = self._notices.aggregate(pipeline)
        return [(row["_id"]["office_id"], ReminderLevel(row["_id"]["level"])) async for row in found]

    async def of(
        self, office_id: str, level: ReminderLevel, limit: int, session: Session
    ) -> list[OfficeNotice]:
        """What waits for an office, the oldest first."""
        query = {"waiting": True, "office_id": office_id, "level": level.value}
        cursor = self._notices.find(query, session=session).sort("created_at", ASCENDING).limit(limit)
        return [OfficeNotice.read(document) async for document in cursor]

    async def mark(self, notices: Sequence[OfficeNotice], email_id: str, session: Session) -> None:
        """Note which mail they are in."""
        ids = [notice.fact for notice in notices]
        await self._notices.update_many(
            {"_id": {"$in": ids}},
            {"$set": {"email_id": email_id}, "$unset": {"waiting": ""}},
            session=session,
        )
