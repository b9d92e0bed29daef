"""Objections (异议) at their departments: the documents.

Departments with a system of their own decide objections here too: there is no push protocol for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from pydantic import TypeAdapter
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne

from chassis.db import CollectionSpec, Database, Document, Session
from contracts.events import ReminderLevel
from dept_adapter.letters import letter_id, objection_kind
from dept_adapter.objection import Objection, ObjectionProposal
from dept_adapter.owed import Owed
from dept_adapter.reminder_fields import next_fields, reminders_of, told_fields
from dept_adapter.reminders import NO_REMINDERS, Reminder, Schedule
from dept_adapter.states import OBJECTION_ENDED, Act, ObjectionState

_BY_DUE = [("decide_due_on", ASCENDING), ("_id", ASCENDING)]
COLLECTIONS = [
    CollectionSpec(
        "objections",
        [
            IndexModel([("department.code", ASCENDING), *_BY_DUE]),
            IndexModel([("department.code", ASCENDING), ("state", ASCENDING), *_BY_DUE]),
            IndexModel(
                [("department.code", ASCENDING), ("due_on", ASCENDING), ("_id", ASCENDING)],
                name="awaited",
                partialFilterExpression={"due_on": {"$type": "string"}},
            ),
            IndexModel(
                [("missing_year", ASCENDING)],
                name="provisional",
                partialFilterExpression={"missing_year": {"$gt": 0}},
            ),
            IndexModel(
                [("deadline_on", ASCENDING)],
                name="deadlines",
                partialFilterExpression={"deadline_on": {"$type": "string"}},
            ),
            IndexModel(
                [("department.code", ASCENDING), *_BY_DUE],
                name="proposed",
                partialFilterExpression={"proposal.by": {"$exists": True}},
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
    )
]
_OBJECTION: TypeAdapter[Objection] = TypeAdapter(Objection)
_PROPOSAL: TypeAdapter[ObjectionProposal] = TypeAdapter(ObjectionProposal)


@dataclass(frozen=True)
class StoredObjection:
    """An objection as it is stored. ``trace``: trace headers of the event that brought it."""

    objection: Objection
    trace: Mapping[str, str]
    history: Sequence[Document]
    reminders: tuple[Reminder, ...] = ()
    proposal: ObjectionProposal | None = None

    @property
    def owing(self) -> Objection:
        """What its department may owe a step of."""
        return self.objection


class ObjectionView(StrEnum):
    """What an officer lists. ``todo``: an officer has to act; ``confirm``: a second officer has."""

    TODO = "todo"
    OVERDUE = "overdue"
    CONFIRM = "confirm"
    ENDED = "ended"
    ALL = "all"


def position(view: ObjectionView, objection: Objection) -> tuple[str, str]:
    """Where an objection stands in a view: (day in China, objection id)."""
    day = objection.due_on if _ordered_by(view) == "due_on" and objection.due_on else objection.decide_due_on
    return day.isoformat(), objection.objection_id


def _ordered_by(view: ObjectionView) -> str:
    return "due_on" if view in (ObjectionView.TODO, ObjectionView.OVERDUE) else "decide_due_on"


class Objections:
    """All objections; ``_id`` is the objection id. Times are text, as in the events. ``schedule``: of reminders."""

    def __init__(self, database: Database, schedule: Schedule = NO_REMINDERS) -> None:
        self._schedule = schedule
        self._objections = database.collection("objections")
        self.owed = Owed(self._objections, schedule)
        self._letters = database.collection("letters")

    async def add(
        self, new: Mapping[str, tuple[Objection, Mapping[str, str]]], now: datetime, session: Session
    ) -> None:
        """Store those that are not here yet: objection id -> (objection, trace)."""
        cursor = self._objections.find({"_id": {"$in": list(new)}}, {"_id": 1}, session=session)
        known = {row["_id"] async for row in cursor}
        writes = [
            InsertOne(
                {
                    **_document(objection),
                    **told_fields(objection, (), self._schedule),
                    "trace": dict(trace),
                    "history": [objection_entry(now, ObjectionState.RECEIVED, "routing")],
                }
            )
            for id_, (objection, trace) in new.items()
            if id_ not in known
        ]
        if writes:
            await self._objections.bulk_write(writes, session=session, ordered=False)

    async def load(self, ids: Sequence[str], session: Session | None = None) -> dict[str, StoredObjection]:
        """Those of these objections that are here."""
        cursor = self._objections.find({"_id": {"$in": list(ids)}}, session=session)
        return {row["_id"]: _stored(row) async for row in cursor}

    async def save(
        self,
        changed: Sequence[tuple[StoredObjection, Objection]],
        by: str,
        now: datetime,
        session: Session,
        text: str | None = None,
        act: Act | None = None,
    ) -> None:
        """Store what objections became, with a line in the history of each whose state changed or whose day passed.

        The letter a step leads to is due from now on. ``text``: the officer's words in it, where the step keeps none. ``act``: what
        was done, where the state does not tell it. A step ends what was proposed.
        """
        if not changed:
            return
        writes = [
            UpdateOne(
                {"_id": each.objection_id},
                {
                    "$set": {
                        **{k: v for k, v in _document(each).items() if k != "_id"},
                        **next_fields(each, before.reminders, self._schedule),
                    },
                    "$push": {"history": objection_entry(now, each.state, by, each.reason, act)},
                    **({"$unset": {"proposal": ""}} if each.state is not before.objection.state else {}),
                },
            )
            for before, each in changed
        ]
        await self._objections.bulk_write(writes, session=session, ordered=False)
        due = [_letter_due(before, each, text, now) for before, each in changed]
        if letters := [write for write in due if write is not None]:
            await self._letters.bulk_write(letters, session=session, ordered=False)

    async def propose(
        self, objection_id: str, proposal: ObjectionProposal | None, noted: Document, session: Session
    ) -> None:
        """Keep what an officer proposed, or, with None, that it was sent back; ``noted``: its line in the history."""
        kept = (
            {"$unset": {"proposal": ""}}
            if proposal is None
            else {"$set": {"proposal": _PROPOSAL.dump_python(proposal, mode="json")}}
        )
        await self._objections.update_one(
            {"_id": objection_id}, {**kept, "$push": {"history": noted}}, session=session
        )

    async def overdue_page(
        self,
        department_codes: Sequence[str],
        level: ReminderLevel | None,
        after: tuple[date, str] | None,
        limit: int,
    ) -> list[StoredObjection]:
        """Objections at these departments whose last day has passed, by (that day, id). ``level``: how far up reminders have got."""
        return [_stored(row) for row in await self.owed.overdue_rows(department_codes, level, after, limit)]

    async def queue(
        self,
        department_codes: Sequence[str],
        view: ObjectionView,
        today: date,
        *,
        after: tuple[str, str] | None = None,
        backwards: bool = False,
        limit: int = 50,
    ) -> list[StoredObjection]:
        """Objections of a view, the first day first, after the given position; ``backwards``: those before it, nearest first."""
        day, query = _ordered_by(view), _of_view(department_codes, view, today)
        if after is not None:
            beyond = "$lt" if backwards else "$gt"
            ahead = [{day: {beyond: after[0]}}, {day: after[0], "_id": {beyond: after[1]}}]
            query = {"$and": [query, {"$or": ahead}]}
        way = DESCENDING if backwards else ASCENDING
        rows = await self._objections.find(query).sort([(day, way), ("_id", way)]).limit(limit).to_list(limit)
        return [_stored(row) for row in rows]

    async def views(self, department_codes: Sequence[str], today: date) -> dict[ObjectionView, int]:
        """How many objections are in each view that an officer works through."""
        return {
            view: await self._objections.count_documents(_of_view(department_codes, view, today))
            for view in (ObjectionView.TODO, ObjectionView.OVERDUE, ObjectionView.CONFIRM)
        }

    async def page(
        self, code: str, state: ObjectionState | None, after: tuple[date, str] | None, limit: int
    ) -> list[StoredObjection]:
        """Of a department, in order of (decide_due_on, objection id), after the given position."""
        query: Document = {"department.code": code}
        if state is not None:
            query["state"] = state.value
        if after is not None:
            due, last = after[0].isoformat(), after[1]
            query["$or"] = [{"decide_due_on": {"$gt": due}}, {"decide_due_on": due, "_id": {"$gt": last}}]
        rows = await self._objections.find(query).sort(_BY_DUE).limit(limit).to_list(limit)
        return [_stored(row) for row in rows]


def _of_view(department_codes: Sequence[str], view: ObjectionView, today: date) -> Document:
    query: Document = {"department.code": {"$in": list(department_codes)}}
    match view:
        case ObjectionView.TODO:
            return {**query, "due_on": {"$type": "string"}, "proposal": None}
        case ObjectionView.OVERDUE:
            late = {"$type": "string", "$lt": today.isoformat()}
            return {**query, "due_on": late, "proposal": None}
        case ObjectionView.CONFIRM:
            return {**query, "proposal.by": {"$exists": True}}
        case ObjectionView.ENDED:
            return {**query, "state": {"$in": [state.value for state in OBJECTION_ENDED]}}
    return query


def _letter_due(
    stored: StoredObjection, objection: Objection, text: str | None, now: datetime
) -> UpdateOne | None:
    """The letter of a step; repeating the step changes nothing. What is handed over in person has its letters there too."""
    kind = objection_kind(stored.objection.state, objection.state)
    if kind is None or objection.record.in_person:
        return None
    due: Document = {
        "item_id": objection.objection_id,
        "department_code": objection.department.code,
        "kind": kind.value,
        "at": now,
        "text": text,
        "trace": dict(stored.trace),
        "objection": _document(objection),
        "attempts": 0,
        "next_attempt_at": now,
    }
    key = {"_id": letter_id(objection.objection_id, kind, None)}
    return UpdateOne(key, {"$setOnInsert": due}, upsert=True)


def _document(objection: Objection) -> Document:
    document: Document = _OBJECTION.dump_python(objection, mode="json")
    due_on = objection.due_on
    waits = due_on is not None and due_on != objection.overdue_told and not objection.is_provisional
    deadline = due_on.isoformat() if waits and due_on else None
    waited = {
        "due_on": due_on.isoformat() if due_on else None,
        "deadline_on": deadline,
        "missing_year": objection.missing_year,
    }
    return {"_id": document.pop("objection_id"), **document, **waited}


def objection_of(row: Document) -> Objection:
    """The objection of a document."""
    return _OBJECTION.validate_python({**row, "objection_id": row["_id"]})


def _stored(row: Document) -> StoredObjection:
    proposed = row.get("proposal")
    proposal = _PROPOSAL.validate_python(proposed) if proposed else None
    return StoredObjection(objection_of(row), row["trace"], row["history"], reminders_of(row), proposal)


def objection_entry(
    at: datetime, state: ObjectionState, by: str, detail: str | None = None, act: Act | None = None
) -> Document:
    """A line of an objection's history. ``act``: what was done, where the state does not tell it."""
    return {"at": at, "state": state.value, "by": by, "detail": detail, **({"act": act.value} if act else {})}
