"""dept-adapter's documents.

``reviews``: one item at its department (``_id`` is the item id), and what was tried to hand it over (``push``).
``callbacks``: callbacks that took effect, by department and webhook-id, so that a repeated one has no second effect.
``decision_numbers``: the last serial of each department and year, and of each kind of letter that has a number of its own.
``letters``: what each step leads to: the review as the step left it until the letter is composed, then what the letter says.
"""

import secrets
from collections.abc import Collection as Bag
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, ReturnDocument, UpdateOne

from chassis.db import CollectionSpec, Database, Document, Session
from chassis.rows import Rows
from contracts.catalogue import DepartmentMode
from contracts.events import ReminderLevel
from dept_adapter.domain import Proposal, Review
from dept_adapter.letters import decided_at, kind_of, letter_id, own_number
from dept_adapter.owed import Owed
from dept_adapter.reminder_fields import next_fields, reminders_of
from dept_adapter.reminders import NO_REMINDERS, Reminder, Schedule
from dept_adapter.review_document import document_of, proposal_of, review_of
from dept_adapter.states import AWAITS_OFFICER, ENDED, Act, Action, State, changed_by
from dept_adapter.verification import asked_again

HANDED_OVER = frozenset({"api", "files"})
"""Modes of departments whose systems are told by us. One of mode events reads its topic itself."""


def collections(callback_retention_days: int) -> list[CollectionSpec]:
    """Collections with their indexes."""
    by_due = [("decide_due_on", ASCENDING), ("_id", ASCENDING)]
    return [
        CollectionSpec(
            "reviews",
            [
                IndexModel([("department.code", ASCENDING), *by_due]),
                IndexModel([("department.code", ASCENDING), ("state", ASCENDING), *by_due]),
                IndexModel([("department.code", ASCENDING), ("requested_at", ASCENDING)], name="received"),
                IndexModel(
                    [("department.code", ASCENDING), ("due_on", ASCENDING), ("_id", ASCENDING)],
                    name="awaited",
                    partialFilterExpression={"due_on": {"$type": "string"}},
                ),
                IndexModel(
                    [("department.code", ASCENDING), *by_due],
                    name="proposed",
                    partialFilterExpression={"proposal.by": {"$exists": True}},
                ),
                IndexModel([("department.code", ASCENDING), ("subject_id", ASCENDING)]),
                IndexModel([("department.code", ASCENDING), ("record.document_number", ASCENDING)]),
                IndexModel(
                    [("department.slug", ASCENDING), ("push.next_attempt_at", ASCENDING)],
                    name="pushes_due",
                    partialFilterExpression={"push.next_attempt_at": {"$exists": True}},
                ),
                IndexModel(
                    [("verification.next_attempt_at", ASCENDING)],
                    name="verifications_due",
                    partialFilterExpression={"verification.next_attempt_at": {"$exists": True}},
                ),
                IndexModel(
                    [("department.code", ASCENDING), *by_due],
                    name="sampled",
                    partialFilterExpression={"verification.sampled": True},
                ),
                IndexModel(
                    [("deadline_on", ASCENDING)],
                    name="deadlines",
                    partialFilterExpression={"deadline_on": {"$type": "string"}},
                ),
                IndexModel(
                    [("missing_year", ASCENDING)],
                    name="provisional",
                    partialFilterExpression={"missing_year": {"$gt": 0}},
                ),
                IndexModel(
                    [("reminder_on", ASCENDING)],
                    name="reminders",
                    partialFilterExpression={"reminder_on": {"$type": "string"}},
                ),
                IndexModel(
                    [("overdue_told", ASCENDING), ("_id", ASCENDING)],
                    name="overdue",
                    partialFilterExpression={"overdue_told": {"$type": "string"}},
                ),
            ],
        ),
        CollectionSpec(
            "callbacks", [IndexModel("at", name="ttl", expireAfterSeconds=callback_retention_days * 86_400)]
        ),
        CollectionSpec("decision_numbers"),
        CollectionSpec(
            "letters",
            [
                IndexModel([("item_id", ASCENDING), ("at", ASCENDING)]),
                IndexModel(
                    [("next_attempt_at", ASCENDING)],
                    name="letters_due",
                    partialFilterExpression={"next_attempt_at": {"$exists": True}},
                ),
                IndexModel(
                    [("verification_code", ASCENDING)],
                    name="by_verification_code",
                    unique=True,
                    partialFilterExpression={"verification_code": {"$exists": True}},
                ),
            ],
        ),
    ]


@dataclass(frozen=True)
class NewReview:
    """A review to store. ``trace``: trace headers of the event that asked for it."""

    review: Review
    mode: DepartmentMode
    trace: Mapping[str, str]


@dataclass(frozen=True)
class StoredReview:
    """A review as it is stored. ``push``: None where nothing is handed over; ``verification``: None elsewhere. ``proposal``: awaits a second officer."""

    review: Review
    mode: DepartmentMode
    trace: Mapping[str, str]
    push: Mapping[str, Any] | None
    history: Sequence[Document]
    verification: Mapping[str, Any] | None = None
    reminders: tuple[Reminder, ...] = ()
    proposal: Proposal | None = None

    @property
    def owing(self) -> Review:
        """What its department may owe a step of."""
        return self.review


@dataclass(frozen=True)
class Change:
    """A review as it was stored, and as it became; ``by`` whom.

    ``detail``: for its history, where its decision does not say it; ``text``: the officer's words in the letter, if any; ``act``:
    what was done, where the state does not tell it.
    """

    stored: StoredReview
    review: Review
    by: str
    detail: str | None = None
    text: str | None = None
    act: Act | None = None


@dataclass(frozen=True)
class PushResult:
    """What came of a claimed review. ``released``: nothing was sent. ``next_attempt_at``: retry and released only.

    ``round``: which telling of the review it was; a later one (a supplement, a withdrawal) is not settled by it.
    """

    item_id: str
    round: int
    result: Literal["delivered", "undeliverable", "retry", "released"]
    at: datetime
    receipt_number: str | None = None
    problem: str | None = None
    next_attempt_at: datetime | None = None


class View(StrEnum):
    """What an officer lists. ``todo``: an officer has to act; ``confirm``: a second officer has; ``waiting``: the applicant has."""

    TODO = "todo"
    OVERDUE = "overdue"
    CONFIRM = "confirm"
    WAITING = "waiting"
    SPOT_CHECK = "spot_check"
    ENDED = "ended"
    ALL = "all"


_ORDERED_BY = {
    view: "due_on" if view in (View.TODO, View.OVERDUE, View.WAITING) else "decide_due_on" for view in View
}


def position(view: View, review: Review) -> tuple[str, str]:
    """Where a review stands in a view: (day in China, item id)."""
    day = review.due_on if _ORDERED_BY[view] == "due_on" and review.due_on else review.decide_due_on
    return day.isoformat(), review.item_id


@dataclass(frozen=True)
class Claim:
    """Reviews leased to one pusher under a token."""

    token: str
    reviews: Sequence[StoredReview]


class Reviews:
    """All reviews. ``desk_codes``: departments that work at the desk now, whatever a stored review says. ``schedule``: of reminders."""

    def __init__(self, database: Database, desk_codes: Bag[str], schedule: Schedule = NO_REMINDERS) -> None:
        self._reviews = database.collection("reviews")
        self.owed = Owed(self._reviews, schedule)
        self._leasing = database.relaxed("reviews")
        self._numbers = database.collection("decision_numbers")
        self._letters = database.collection("letters")
        self._desk_codes = desk_codes
        self._schedule = schedule

    async def known(self, item_ids: Sequence[str], session: Session) -> set[str]:
        """Those of these items that are here already."""
        cursor = self._reviews.find({"_id": {"$in": list(item_ids)}}, {"_id": 1}, session=session)
        return {doc["_id"] async for doc in cursor}

    async def add(self, new: Sequence[NewReview], now: datetime, session: Session) -> None:
        """Store new reviews; those that are handed over are due at once."""
        await self._reviews.bulk_write(
            [
                InsertOne(
                    {
                        **document_of(added.review),
                        **next_fields(added.review, (), self._schedule),
                        "mode": added.mode,
                        "trace": dict(added.trace),
                        "push": {"attempts": 0, "round": 0, "next_attempt_at": now}
                        if added.mode in HANDED_OVER and not added.review.record.in_person
                        else None,
                        "verification": {"attempts": 0, "next_attempt_at": now}
                        if added.mode == "desk" and not added.review.record.in_person
                        else None,
                        "history": [entry(now, added.review.state, "routing")],
                    }
                )
                for added in new
            ],
            session=session,
            ordered=False,
        )

    async def get(self, item_id: str, session: Session | None = None) -> StoredReview | None:
        """One review."""
        document = await self._reviews.find_one({"_id": item_id}, session=session)
        return None if document is None else self._stored(document)

    async def where(self, query: Document, session: Session | None = None) -> list[StoredReview]:
        """All reviews that match, in no order: a query that names the items."""
        return [self._stored(document) async for document in self._reviews.find(query, session=session)]

    async def load(self, item_ids: Sequence[str], session: Session) -> dict[str, StoredReview]:
        """Those of these items that are here."""
        cursor = self._reviews.find({"_id": {"$in": list(item_ids)}}, session=session)
        return {document["_id"]: self._stored(document) async for document in cursor}

    async def save(self, changes: Sequence[Change], now: datetime, session: Session) -> None:
        """Store what commands changed. A department with a system is told again of a supplement and of a withdrawal.

        Whatever way a step came: the letter it leads to is due from now on.
        """
        if changes:
            reminding = [
                next_fields(change.review, change.stored.reminders, self._schedule) for change in changes
            ]
            await self._reviews.bulk_write(
                [_saving(change, now, more) for change, more in zip(changes, reminding, strict=True)],
                session=session,
                ordered=True,
            )
        if due := [letter for change in changes if (letter := _letter_due(change, now))]:
            await self._letters.bulk_write(due, session=session, ordered=False)

    async def note(
        self,
        item_id: str,
        state: State,
        act: Act,
        by: str,
        detail: str | None,
        now: datetime,
        session: Session,
        *,
        proposal: Proposal | None = None,
    ) -> None:
        """Put into the history what an officer did that left the state as it was; keep a proposal, or end it."""
        update: Document = {"$push": {"history": entry(now, state, by, detail, act)}}
        if proposal is not None:
            found = proposal.false_material
            update["$set"] = {
                "proposal": {
                    **asdict(proposal),
                    "false_material": found.model_dump(mode="json") if found else None,
                }
            }
        elif act is Act.SEND_BACK:
            update["$unset"] = {"proposal": ""}
        await self._reviews.update_one({"_id": item_id}, update, session=session)

    async def next_serial(
        self, department_code: str, year: int, session: Session, words: str | None = None, number: int = 1
    ) -> int:
        """The next serial of a department's decisions of a year, without gaps: it is taken only if the session commits.

        ``words``: of its letters of a kind that has numbers of its own. ``number``: so many are taken, of which this is the first.
        """
        series = f"{department_code}:{year}" + (f":{words}" if words else "")
        counter = await self._numbers.find_one_and_update(
            {"_id": series},
            {"$inc": {"value": number}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return int(counter["value"]) - number + 1

    # --- reading

    async def page(
        self,
        department_code: str,
        state: State | None,
        after: tuple[date, str] | None,
        limit: int,
        *,
        to_spot_check: bool = False,
    ) -> list[StoredReview]:
        """Reviews of a department in order of (decide_due_on, item id), after the given position.

        ``to_spot_check``: automatic decisions that were drawn and that nobody has looked at.
        """
        query: dict[str, Any] = {"department.code": department_code}
        if to_spot_check:
            query |= {"verification.sampled": True, "verification.spot_check": None}
        if state is not None:
            query["state"] = state.value
        if after is not None:
            due, item_id = after[0].isoformat(), after[1]
            query["$or"] = [
                {"decide_due_on": {"$gt": due}},
                {"decide_due_on": due, "_id": {"$gt": item_id}},
            ]
        cursor = (
            self._reviews.find(query).sort([("decide_due_on", ASCENDING), ("_id", ASCENDING)]).limit(limit)
        )
        return [self._stored(document) for document in await cursor.to_list(limit)]

    async def overdue_page(
        self,
        department_codes: Sequence[str],
        level: ReminderLevel | None,
        after: tuple[date, str] | None,
        limit: int,
    ) -> list[StoredReview]:
        """Reviews of these departments whose last day has passed, by (that day, item id). ``level``: how far up reminders have got."""
        rows = await self.owed.overdue_rows(department_codes, level, after, limit)
        return [self._stored(row) for row in rows]

    async def counts(self, department_codes: Sequence[str]) -> dict[tuple[str, State], int]:
        """(department code, state) -> number of reviews, of these departments."""
        pipeline: list[Document] = [
            {"$match": {"department.code": {"$in": list(department_codes)}}},
            {"$group": {"_id": {"code": "$department.code", "state": "$state"}, "number": {"$sum": 1}}},
        ]
        return {
            (doc["_id"]["code"], State(doc["_id"]["state"])): int(doc["number"])
            async for doc in self._reviews.aggregate(pipeline)
        }

    async def queue(
        self,
        department_codes: Sequence[str],
        view: View,
        today: date,
        *,
        narrowed: Document | None = None,
        after: tuple[str, str] | None = None,
        backwards: bool = False,
        limit: int = 50,
    ) -> list[StoredReview]:
        """Reviews of a view, the first day first, after the given position (``position``); ``backwards``: those before it, nearest first."""
        day = _ORDERED_BY[view]
        query: Document = {"$and": [self._of_view(department_codes, view, today), narrowed or {}]}
        if after is not None:
            beyond = "$lt" if backwards else "$gt"
            query["$and"].append(
                {"$or": [{day: {beyond: after[0]}}, {day: after[0], "_id": {beyond: after[1]}}]}
            )
        way = DESCENDING if backwards else ASCENDING
        cursor = self._reviews.find(query).sort([(day, way), ("_id", way)]).limit(limit)
        return [self._stored(document) for document in await cursor.to_list(limit)]

    async def views(self, department_codes: Sequence[str], today: date) -> dict[View, int]:
        """How many reviews are in each view that an officer works through."""
        return {
            view: await self._reviews.count_documents(self._of_view(department_codes, view, today))
            for view in (View.TODO, View.OVERDUE, View.CONFIRM, View.WAITING, View.SPOT_CHECK)
        }

    async def overdue_by_department(
        self, department_codes: Sequence[str], today: date
    ) -> dict[str, tuple[int, date]]:
        """Department code -> how many are overdue, and since when the oldest; only those with some."""
        pipeline: list[Document] = [
            {"$match": _overdue(department_codes, today)},
            {"$group": {"_id": "$department.code", "number": {"$sum": 1}, "oldest": {"$min": "$due_on"}}},
        ]
        return {
            doc["_id"]: (int(doc["number"]), date.fromisoformat(doc["oldest"]))
            async for doc in self._reviews.aggregate(pipeline)
        }

    async def subjects(self, department_codes: Sequence[str], limit: int) -> list[str]:
        """Pseudonyms of subjects with reviews at these departments, those of the latest deadlines first."""
        pipeline: list[Document] = [
            {"$match": {"department.code": {"$in": list(department_codes)}}},
            {"$group": {"_id": "$subject_id", "last": {"$max": "$decide_due_on"}}},
            {"$sort": {"last": DESCENDING}},
            {"$limit": limit},
        ]
        return [document["_id"] async for document in self._reviews.aggregate(pipeline)]

    def _of_view(self, department_codes: Sequence[str], view: View, today: date) -> Document:
        query: Document = {"department.code": {"$in": list(department_codes)}}
        at_desk = {"$or": [{"at_desk": True}, {"department.code": {"$in": list(self._desk_codes)}}]}
        todo = {
            **at_desk,
            "due_on": {"$type": "string"},
            "state": {"$in": [state.value for state in AWAITS_OFFICER]},
            "proposal": None,
        }
        match view:
            case View.TODO:
                return {**query, **todo}
            case View.OVERDUE:
                return {**query, **todo, "due_on": {"$type": "string", "$lt": today.isoformat()}}
            case View.CONFIRM:
                return {**query, "proposal.by": {"$exists": True}}
            case View.WAITING:
                return {**query, "due_on": {"$type": "string"}, "state": State.SUPPLEMENT.value}
            case View.SPOT_CHECK:
                return {**query, "verification.sampled": True, "verification.spot_check": None}
            case View.ENDED:
                return {**query, "state": {"$in": [state.value for state in ENDED]}}
        return query

    # --- pushing

    async def claim(self, slug: str, limit: int, now: datetime, lease: timedelta, rows: Rows) -> Claim:
        """Lease the reviews of a department that are due longest; nobody else takes them before the lease is over. Left to ``rows``:
        those that cannot be read.
        """
        token = secrets.token_hex(8)
        due = {
            "department.slug": slug,
            "state": {"$in": _TOLD_VALUES},
            "push.next_attempt_at": {"$lte": now},
        }
        cursor = self._reviews.find(due, {"_id": 1}).sort("push.next_attempt_at", ASCENDING).limit(limit)
        ids = [doc["_id"] for doc in await cursor.to_list(limit)]
        if not ids:
            return Claim(token, ())
        await self._leasing.update_many(
            {"_id": {"$in": ids}, **due}, {"$set": {"push.lease": token, "push.next_attempt_at": now + lease}}
        )
        mine = await rows.read(
            ids, lambda part: self.where({"_id": {"$in": list(part)}, "push.lease": token})
        )
        return Claim(token, mine)

    async def renew(self, token: str, item_ids: Sequence[str], until: datetime) -> None:
        """Keep the lease of these reviews."""
        held = {"_id": {"$in": list(item_ids)}, "push.lease": token, "state": {"$in": _TOLD_VALUES}}
        await self._leasing.update_many(held, {"$set": {"push.next_attempt_at": until}})

    async def settle(self, token: str, results: Sequence[PushResult]) -> None:
        """Store what came of claimed reviews. A state that a callback has changed meanwhile is left alone."""
        writes = [write for result in results for write in _settling(token, result)]
        if writes:
            await self._reviews.bulk_write(writes, ordered=False)

    def _stored(self, document: Document) -> StoredReview:
        return StoredReview(
            self.review_of(document),
            document["mode"],
            document["trace"],
            document["push"],
            document["history"],
            document.get("verification"),
            reminders_of(document),
            proposal_of(document.get("proposal")),
        )

    def review_of(self, document: Document) -> Review:
        """The review of a document."""
        return review_of(document, self._desk_codes)


class Callbacks:
    """Callbacks that took effect, and what was said in other ways, by department and id."""

    def __init__(self, database: Database) -> None:
        self._callbacks = database.collection("callbacks")

    async def digests(
        self, department_code: str, message_ids: Sequence[str], session: Session
    ) -> dict[str, str]:
        """Those of these ids under which something took effect -> the digest of its content."""
        if not message_ids:
            return {}
        by_key = {f"{department_code}:{message_id}": message_id for message_id in message_ids}
        cursor = self._callbacks.find({"_id": {"$in": list(by_key)}}, {"digest": 1}, session=session)
        return {by_key[doc["_id"]]: str(doc["digest"]) async for doc in cursor}

    async def add(
        self, department_code: str, digests: Mapping[str, str], now: datetime, session: Session
    ) -> None:
        """Remember, by id, the digests of what took effect."""
        if digests:
            await self._callbacks.insert_many(
                [
                    {"_id": f"{department_code}:{message_id}", "digest": digest, "at": now}
                    for message_id, digest in digests.items()
                ],
                session=session,
                ordered=False,
            )


_TOLD = (State.RECEIVED, State.WITHDRAWN, State.RECOGNISED, State.EXPIRED, State.CLOSED)
"""States of which the system of a department is told."""
_TOLD_VALUES = [state.value for state in _TOLD]
_SAVED = (
    "state",
    "at_desk",
    "accept_due_on",
    "decide_due_on",
    "accepted_at",
    "decision",
    "revocation",
    "supplement",
    "note",
    "overdue_told",
    "deadline_on",
    "accept_count",
    "decide_count",
    "missing_year",
    "due_on",
    "round",
    "reopened_at",
    "overturned",
    "disputes",
)


def _overdue(department_codes: Sequence[str], today: date) -> Document:
    return {
        "department.code": {"$in": list(department_codes)},
        "due_on": {"$type": "string", "$lt": today.isoformat()},
        "state": {"$in": [state.value for state in AWAITS_OFFICER]},
    }


def _saving(change: Change, now: datetime, reminding: Document) -> UpdateOne:
    stored, review = change.stored, change.review
    document = document_of(review)
    changed: Document = {**{name: document[name] for name in _SAVED}, **reminding}
    made = review.revocation or review.decision
    detail = change.detail or (made.reason if made else review.note)
    if review.state is State.SUPPLEMENT and review.supplement:
        detail = "；".join(review.supplement.missing)
    line = entry(now, review.state, change.by, detail, change.act)
    update: Document = {"$set": changed, "$push": {"history": line}}
    removed: Document = {}
    if review.state is not stored.review.state:
        removed["proposal"] = ""
    told_again = review.state is not stored.review.state and review.state in _TOLD
    if told_again and stored.mode in HANDED_OVER and not review.at_desk:
        changed |= {"push.next_attempt_at": now, "push.attempts": 0}
        update["$inc"] = {"push.round": 1}
        removed["push.lease"] = ""
    elif stored.push is not None and review.state not in _TOLD:
        # nothing is left to tell: it must not stay among those that are due
        removed["push.next_attempt_at"] = ""
    if stored.verification is not None and _supplemented(change):
        # a look that is under way knows nothing of the supplement: without its lease it is not kept
        removed |= {"verification.lease": "", "verification.completed_at": ""}
        changed |= {"verification.next_attempt_at": now, "verification.attempts": 0}
        if (findings := stored.verification.get("findings")) is not None:
            changed["verification.findings"] = asked_again(findings)
    return UpdateOne({"_id": review.item_id}, {**update, **({"$unset": removed} if removed else {})})


def _supplemented(change: Change) -> bool:
    return change.stored.review.state is State.SUPPLEMENT and change.review.state is State.RECEIVED


def _letter_due(change: Change, now: datetime) -> UpdateOne | None:
    """The letter of a step; repeating the step changes nothing. What is handed over in person has its letters there too."""
    review = change.review
    if review.record.in_person:
        return None
    kind = kind_of(change.stored.review.state, review.state, change.by)
    if kind is None:
        return None
    due: Document = {
        "item_id": review.item_id,
        "department_code": review.department.code,
        "kind": kind.value,
        "at": decided_at(kind, review, now),
        "text": change.text,
        "trace": dict(change.stored.trace),
        "review": document_of(review),
        "attempts": 0,
        "next_attempt_at": now,
    }
    # a step that comes again in a later round is another one
    number = own_number(kind, review) or (f"round {review.round}" if review.round else None)
    key = {"_id": letter_id(review.item_id, kind, number)}
    return UpdateOne(key, {"$setOnInsert": due}, upsert=True)


def entry(at: datetime, state: State, by: str, detail: str | None = None, act: Act | None = None) -> Document:
    """One line of a history."""
    line = {"at": at, "state": state.value, "by": by, "detail": detail}
    return {**line, "act": act.value} if act else line


def _settling(token: str, result: PushResult) -> list[UpdateOne]:
    """The writes of one result. The lease guards only what a later holder of it decides again."""
    mine = {"_id": result.item_id, "push.round": result.round}
    if result.result in ("retry", "released"):
        changed = {"push.next_attempt_at": result.next_attempt_at, "push.problem": result.problem}
        update: Document = {"$set": changed, "$unset": {"push.lease": ""}}
        if result.result == "retry":
            update["$inc"] = {"push.attempts": 1}
        still = {"state": {"$in": _TOLD_VALUES}, "push.lease": token}
        return [UpdateOne({**mine, **still}, update)]
    delivered = result.result == "delivered"
    action, state = (Action.DELIVER, State.DELIVERED) if delivered else (Action.GIVE_UP, State.UNDELIVERABLE)
    facts: Document = {"push.problem": result.problem}
    if delivered:
        facts |= {"push.delivered_at": result.at, "push.receipt_number": result.receipt_number}
    return [
        UpdateOne(
            mine,
            {
                "$set": facts,
                "$unset": {"push.lease": "", "push.next_attempt_at": ""},
                "$inc": {"push.attempts": 1},
            },
        ),
        UpdateOne(
            {**mine, "state": {"$in": [s.value for s in changed_by(action)]}},
            {
                "$set": {"state": state.value, **({} if delivered else {"at_desk": True})},
                "$push": {
                    "history": entry(result.at, state, "push", result.receipt_number or result.problem)
                },
            },
        ),
    ]
