"""The cases of departments with systems of their own: taken, decided on, once; whichever way they come and the words go."""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from contracts.decisions import NUMBERED, Outcome
from contracts.errors import ProblemCode
from contracts.http.department import DecisionCallback, ReviewSubmission
from sandbox.callbacks import Callback, Callbacks
from sandbox.catalogue import Department
from sandbox.db import Database, Row
from sandbox.faults import Fault, Faults, Mode
from sandbox.problems import Problem

SCHEMA = """
CREATE TABLE IF NOT EXISTS department_case (
  number INTEGER NOT NULL, slug TEXT NOT NULL, item_id TEXT NOT NULL, application_id TEXT NOT NULL,
  record_id TEXT NOT NULL, receipt_number TEXT NOT NULL, received_at TEXT NOT NULL, submission TEXT NOT NULL,
  cancelled INTEGER NOT NULL DEFAULT 0, callback_url TEXT NOT NULL, supplemented INTEGER NOT NULL DEFAULT 0,
  traceparent TEXT,
  PRIMARY KEY (slug, item_id), UNIQUE (slug, number)
);
"""

_CHINA = timezone(timedelta(hours=8), "CST")
_DUTIES_DONE = re.compile("履行|整改|缴纳")
_MISSING = ("罚款缴纳凭证", "整改完成情况的说明")
_NO_DUTIES = "申请材料未说明行政处罚决定确定的义务已经履行，请补充履行、整改或者缴纳罚款的情况后重新申请"
REASONS = {
    Outcome.REFUSED: "经核查，不符合信用修复条件",
    Outcome.REVOKED: "经核查，申请信用修复时提供的材料虚假",
    Outcome.NOT_ACCEPTED: "申请事项不属于本机关职权范围",
    Outcome.EXTENDED: "案情复杂，需要进一步核查",
}
# 机关代字 of decision letters: ours, for the sandbox; the catalogue has none.
_PREFIXES = {
    "hz-samr": "杭市监",
    "hz-sthj": "杭环",
    "hz-ycj": "杭烟",
    "hz-gjjzx": "杭公积金",
    "hz-yzj": "杭邮",
}
_PLANS = frozenset({Mode.REFUSE, Mode.SILENT, Mode.ANSWER_TWICE, Mode.REORDER, Mode.SUPPLEMENT, Mode.LATE})


@dataclass(frozen=True)
class Asked:
    """A review as it came. ``content``: JSON of all of it; ``callback_url``: empty where the word goes another way."""

    item_id: str
    application_id: str
    record_id: str
    document_number: str
    statement: str
    supplement: str | None
    content: str
    callback_url: str = ""
    traceparent: str | None = None

    @classmethod
    def of(cls, review: ReviewSubmission, callback_url: str = "", traceparent: str | None = None) -> "Asked":
        """From what is sent as JSON."""
        return cls(
            review.item_id,
            review.application_id,
            review.record.record_id,
            review.record.document_number,
            review.statement,
            review.supplement,
            review.model_dump_json(),
            callback_url,
            traceparent,
        )


class Cases:
    """The case books of all departments."""

    def __init__(self, db: Database, faults: Faults, callbacks: Callbacks, delay_seconds: float) -> None:
        db.create(SCHEMA)
        self._db = db
        self._faults = faults
        self._callbacks = callbacks
        self._delay = timedelta(seconds=delay_seconds)

    def find(self, slug: str, item_id: str) -> Row | None:
        """One case."""
        return self._db.one("SELECT * FROM department_case WHERE slug = ? AND item_id = ?", (slug, item_id))

    def receive(self, department: Department, asked: Asked) -> str:
        """The receipt number; a review that comes again has no second effect. Raises a 409 problem."""
        case = self.find(department.slug, asked.item_id)
        if case is None:
            return self._open(department, asked, self._faults.take(department.slug, _PLANS))
        if (case["application_id"], case["record_id"]) != (asked.application_id, asked.record_id):
            raise Problem(
                409,
                ProblemCode.IDEMPOTENCY_CONFLICT,
                f"item {asked.item_id} was submitted before for another application or record",
            )
        if asked.supplement is not None:
            self._supplemented(department, asked)
        elif self._faults.take(department.slug, frozenset({Mode.CHANGE_MIND})):
            return self._change_mind(department, case)
        return str(case["receipt_number"])

    def cancel(self, slug: str, item_id: str) -> bool:
        """The case is no longer wanted; whether it is known."""
        with self._db.transaction() as connection:
            found = connection.execute(
                "UPDATE department_case SET cancelled = 1 WHERE slug = ? AND item_id = ? RETURNING item_id",
                (slug, item_id),
            ).fetchone()
        return found is not None

    def decide(
        self, department: Department, case: Row, outcome: Outcome, reason: str | None
    ) -> DecisionCallback:
        """An officer decides by hand."""
        body = _callback(department, case, outcome, reason or REASONS.get(outcome), datetime.now(UTC))
        with self._db.transaction() as connection:
            self._plan(connection, department, case, body)
        self._callbacks.wake(department.slug)
        return body

    def _plan(
        self, connection: sqlite3.Connection, department: Department, case: Row, body: DecisionCallback
    ) -> None:
        due = body.occurred_at.timestamp()
        self._callbacks.plan(connection, Callback(department.slug, case["callback_url"], body, due))

    def _open(self, department: Department, asked: Asked, fault: Fault | None) -> str:
        """Keep the case and plan its callbacks, in one transaction: a restart in between loses neither."""
        now = datetime.now(UTC)
        with self._db.transaction() as connection:
            number = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 AS next FROM department_case WHERE slug = ?",
                (department.slug,),
            ).fetchone()["next"]
            prefix = _PREFIXES.get(department.slug, department.name)
            case = {
                "number": number,
                "slug": department.slug,
                "item_id": asked.item_id,
                "application_id": asked.application_id,
                "record_id": asked.record_id,
                "receipt_number": f"{prefix}信修受〔{now.astimezone(_CHINA).year}〕{number}号",
                "received_at": now.isoformat(),
                "submission": asked.content,
                "callback_url": asked.callback_url,
                "traceparent": asked.traceparent,
            }
            connection.execute(
                "INSERT INTO department_case VALUES (:number, :slug, :item_id, :application_id, :record_id,"
                " :receipt_number, :received_at, :submission, 0, :callback_url, 0, :traceparent)",
                case,
            )
            late = (
                timedelta(seconds=fault.wait_seconds) if fault and fault.mode is Mode.LATE else timedelta(0)
            )
            bodies = [
                _callback(department, case, what, why, now + late + step * self._delay)
                for step, (what, why) in enumerate(_words(asked, fault), start=1)
            ]
            for callback in _planned(department, asked.callback_url, bodies, fault):
                self._callbacks.plan(connection, callback)
        self._callbacks.wake(department.slug)
        return str(case["receipt_number"])

    def _supplemented(self, department: Department, asked: Asked) -> None:
        """What was missing has come: accept and grant, once."""
        now = datetime.now(UTC)
        with self._db.transaction() as connection:
            fresh = connection.execute(
                "UPDATE department_case SET submission = ?, supplemented = 1"
                " WHERE slug = ? AND item_id = ? AND NOT supplemented RETURNING *",
                (asked.content, department.slug, asked.item_id),
            ).fetchone()
            if fresh is None:
                return
            for step, what in enumerate((Outcome.ACCEPTED, Outcome.GRANTED), start=1):
                body = _callback(department, fresh, what, None, now + step * self._delay)
                self._plan(connection, department, fresh, body)
        self._callbacks.wake(department.slug)

    def _change_mind(self, department: Department, case: Row) -> str:
        """What no department should do: another receipt, and the contrary of what it has said."""
        said = [
            DecisionCallback.model_validate_json(row["body"]).outcome
            for row in self._callbacks.of(department.slug, case["item_id"])
        ]
        contrary = Outcome.REFUSED if Outcome.GRANTED in said else Outcome.GRANTED
        self.decide(department, case, contrary, None)
        return f"{case['receipt_number']}之二"


def _words(asked: Asked, fault: Fault | None) -> list[tuple[Outcome, str | None]]:
    """What the department will say. 联调… in the 文号 asks for it by name (docs/departments.md); else the statement decides."""
    mode = fault.mode if fault else Mode.OK
    if mode is Mode.SILENT:
        return []
    if mode is Mode.SUPPLEMENT or "联调补正" in asked.document_number:
        return [(Outcome.SUPPLEMENT_REQUESTED, None)]
    outcome: tuple[Outcome, str | None] = (Outcome.GRANTED, None)
    if mode is Mode.REFUSE or "联调不予" in asked.document_number:
        outcome = (Outcome.REFUSED, REASONS[Outcome.REFUSED])
    elif "联调准予" not in asked.document_number and not _DUTIES_DONE.search(asked.statement):
        outcome = (Outcome.REFUSED, _NO_DUTIES)
    return [(Outcome.ACCEPTED, None), outcome]


def _callback(
    department: Department, case: Mapping[str, Any], outcome: Outcome, reason: str | None, at: datetime
) -> DecisionCallback:
    number = None
    if outcome in NUMBERED:
        kind = {Outcome.GRANTED: "信修", Outcome.REFUSED: "不予信修", Outcome.REVOKED: "撤销信修"}[outcome]
        prefix = _PREFIXES.get(department.slug, department.name)
        number = f"{prefix}{kind}〔{at.astimezone(_CHINA).year}〕{case['number']}号"
    return DecisionCallback(
        item_id=case["item_id"],
        outcome=outcome,
        decision_number=number,
        reason=reason,
        missing=_MISSING if outcome is Outcome.SUPPLEMENT_REQUESTED else (),
        occurred_at=at,
    )


def _planned(
    department: Department, url: str, bodies: list[DecisionCallback], fault: Fault | None
) -> list[Callback]:
    """When and how often the callbacks of a case are sent; without a fault, each when it says it happened, and once."""
    mode = fault.mode if fault else Mode.OK
    times = [body.occurred_at.timestamp() for body in bodies]
    if fault is None or mode not in (Mode.REORDER, Mode.ANSWER_TWICE):
        return [Callback(department.slug, url, body, due) for body, due in zip(bodies, times, strict=True)]
    if mode is Mode.ANSWER_TWICE and fault.seconds is None:
        return [
            Callback(department.slug, url, body, due, copies=2)
            for body, due in zip(bodies, times, strict=True)
        ]
    # Not security: the draws have to be repeatable.
    random = Random(f"{fault.seed}/{bodies[0].item_id}")  # noqa: S311

    def after(time: float) -> float:
        return time + random.uniform(0, fault.wait_seconds)

    reorder = mode is Mode.REORDER
    planned = []
    for body, time in zip(bodies, times, strict=True):
        # when the last of them is due all are, so that any may be the first
        due = after(max(times)) if reorder else time
        again = after(due) if fault.twice or not reorder else None
        planned.append(Callback(department.slug, url, body, due, ordered=not reorder, again=again))
    return planned
