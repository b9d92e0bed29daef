"""Departments with systems of their own: take reviews and decide on them (contracts.http.department)."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from contracts.errors import ProblemCode
from contracts.http.department import (
    NUMBERED,
    DecisionCallback,
    Outcome,
    ReviewCancellation,
    ReviewReceipt,
    ReviewSubmission,
)
from sandbox.callbacks import Callback, Callbacks
from sandbox.catalogue import Department
from sandbox.db import Database, Row
from sandbox.faults import Fault, Faults, Mode
from sandbox.problems import Problem
from sandbox.requests import parse, verified_body

SCHEMA = """
CREATE TABLE IF NOT EXISTS department_case (
  number INTEGER NOT NULL, slug TEXT NOT NULL, item_id TEXT NOT NULL, application_id TEXT NOT NULL,
  record_id TEXT NOT NULL, receipt_number TEXT NOT NULL, received_at TEXT NOT NULL, submission TEXT NOT NULL,
  cancelled INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (slug, item_id), UNIQUE (slug, number)
);
"""

_CHINA = timezone(timedelta(hours=8), "CST")
_DUTIES_DONE = re.compile("履行|整改|缴纳")
_MISSING = ("罚款缴纳凭证", "整改完成情况的说明")
_NO_DUTIES = "申请材料未说明行政处罚决定确定的义务已经履行，请补充履行、整改或者缴纳罚款的情况后重新申请"
_REASONS = {
    Outcome.REFUSED: "经核查，不符合信用修复条件",
    Outcome.REVOKED: "经核查，申请信用修复时提供的材料虚假",
    Outcome.NOT_ACCEPTED: "申请事项不属于本机关职权范围",
    Outcome.EXTENDED: "案情复杂，需要进一步核查",
}

# 机关代字 of decision letters: ours, for the sandbox; the catalogue has none.
_PREFIXES = {"hz-samr": "杭市监", "hz-sthj": "杭环"}


class OfficerDecision(BaseModel):
    """Body of POST /departments/{slug}/sandbox/decisions: what an officer decides by hand."""

    item_id: str
    outcome: Outcome
    reason: str | None = Field(default=None, max_length=2000)


def _callback(
    department: Department, case: Row, outcome: Outcome, reason: str | None, at: datetime
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


def router(
    db: Database,
    faults: Faults,
    departments: Mapping[str, Department],
    callbacks: Callbacks,
    decision_delay_seconds: float,
) -> APIRouter:
    """Endpoints under /departments/{slug}."""
    db.create(SCHEMA)
    api = APIRouter(prefix="/departments/{slug}", tags=["departments"])
    delay = timedelta(seconds=decision_delay_seconds)

    def find(slug: str) -> Department:
        if slug not in departments:
            raise Problem(
                404,
                ProblemCode.NOT_FOUND,
                f"department {slug} is not served: see SANDBOX_DEPARTMENT_SECRETS",
            )
        return departments[slug]

    def known(department: Department, review: ReviewSubmission) -> ReviewReceipt | None:
        case = db.one(
            "SELECT * FROM department_case WHERE slug = ? AND item_id = ?", (department.slug, review.item_id)
        )
        if case is None:
            return None
        if (case["application_id"], case["record_id"]) != (review.application_id, review.record.record_id):
            raise Problem(
                409,
                ProblemCode.IDEMPOTENCY_CONFLICT,
                f"item {review.item_id} was submitted before for another application or record",
            )
        return ReviewReceipt(item_id=case["item_id"], receipt_number=case["receipt_number"])

    def store(department: Department, review: ReviewSubmission, fault: Fault | None) -> ReviewReceipt:
        """Keep the case and plan its callbacks, in one transaction: a restart in between loses neither."""
        now = datetime.now(UTC)
        mode = fault.mode if fault else Mode.OK
        with db.transaction() as connection:
            number = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 AS next FROM department_case WHERE slug = ?",
                (department.slug,),
            ).fetchone()["next"]
            prefix = _PREFIXES.get(department.slug, department.name)
            case = {
                "number": number,
                "slug": department.slug,
                "item_id": review.item_id,
                "application_id": review.application_id,
                "record_id": review.record.record_id,
                "receipt_number": f"{prefix}信修受〔{now.astimezone(_CHINA).year}〕{number}号",
                "received_at": now.isoformat(),
                "submission": review.model_dump_json(),
            }
            connection.execute(
                "INSERT INTO department_case VALUES (:number, :slug, :item_id, :application_id, :record_id,"
                " :receipt_number, :received_at, :submission, 0)",
                case,
            )
            if mode is not Mode.SILENT:
                outcome, reason = Outcome.GRANTED, None
                if mode is Mode.REFUSE:
                    outcome, reason = Outcome.REFUSED, _REASONS[Outcome.REFUSED]
                elif not _DUTIES_DONE.search(review.statement):
                    outcome, reason = Outcome.REFUSED, _NO_DUTIES
                words = [(Outcome.ACCEPTED, None), (outcome, reason)]
                if mode is Mode.SUPPLEMENT:
                    words = [(Outcome.SUPPLEMENT_REQUESTED, None)]
                bodies = [
                    _callback(department, case, what, why, now + step * delay)
                    for step, (what, why) in enumerate(words, start=1)
                ]
                for callback in _planned(department, review.callback_url, bodies, fault):
                    callbacks.plan(connection, callback)
        callbacks.wake(department.slug)
        return ReviewReceipt(item_id=review.item_id, receipt_number=str(case["receipt_number"]))

    def supplemented(department: Department, review: ReviewSubmission) -> None:
        """What was missing has come: accept and grant, once."""
        now = datetime.now(UTC)
        with db.transaction() as connection:
            fresh = connection.execute(
                "UPDATE department_case SET submission = ? WHERE slug = ? AND item_id = ? AND submission <> ?"
                " RETURNING *",
                (review.model_dump_json(), department.slug, review.item_id, review.model_dump_json()),
            ).fetchone()
            if fresh is None:
                return
            steps = ((Outcome.ACCEPTED, None), (Outcome.GRANTED, None))
            for step, (what, why) in enumerate(steps, start=1):
                body = _callback(department, fresh, what, why, now + step * delay)
                due = body.occurred_at.timestamp()
                callbacks.plan(connection, Callback(department.slug, review.callback_url, body, due))
        callbacks.wake(department.slug)

    @api.post("/reviews/{item_id}/cancellation", status_code=202)
    async def cancellation(slug: str, item_id: str, request: Request) -> dict[str, bool]:
        department = find(slug)
        body = await verified_body(request, department.webhook)
        await faults.outage(slug, request)
        cancelled = parse(ReviewCancellation, body)
        if cancelled.item_id != item_id:
            raise Problem(422, ProblemCode.VALIDATION, "item_id of the body has to be that of the path")
        with db.transaction() as connection:
            found = connection.execute(
                "UPDATE department_case SET cancelled = 1 WHERE slug = ? AND item_id = ? RETURNING item_id",
                (department.slug, item_id),
            ).fetchone()
        return {"known": found is not None}

    @api.post("/reviews", status_code=202)
    async def reviews(slug: str, request: Request) -> ReviewReceipt:
        department = find(slug)
        body = await verified_body(request, department.webhook)
        await faults.outage(slug, request)
        review = parse(ReviewSubmission, body)
        if review.department_code != department.code:
            raise Problem(
                422,
                ProblemCode.WRONG_DEPARTMENT,
                f"department_code {review.department_code} is not ours: {department.name} is {department.code}",
            )
        if request.headers["webhook-id"].partition(":")[0] != review.item_id:
            raise Problem(422, ProblemCode.VALIDATION, "webhook-id has to begin with the item_id of the body")
        if not review.callback_url.startswith(("http://", "https://")):
            raise Problem(422, ProblemCode.VALIDATION, "callback_url has to start with http:// or https://")
        receipt = known(department, review)
        fault = faults.take(slug, frozenset({Mode.APPLY_THEN_FAIL}))
        if receipt is None:
            plan = faults.take(
                slug,
                frozenset({Mode.REFUSE, Mode.SILENT, Mode.ANSWER_TWICE, Mode.REORDER, Mode.SUPPLEMENT}),
            )
            # Nothing was awaited since known(): two pushes of one item cannot both come here.
            receipt = store(department, review, plan)
        elif review.supplement is not None:
            supplemented(department, review)
        if fault:
            raise fault.failure()
        return receipt

    @api.get("/cases")
    def cases(
        slug: str,
        item_id: str | None = None,
        after: int = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> list[dict[str, Any]]:
        find(slug)
        found = db.rows(
            "SELECT * FROM department_case WHERE slug = ? AND item_id = coalesce(?, item_id) AND number > ?"
            " ORDER BY number LIMIT ?",
            (slug, item_id, after, limit),
        )
        return [
            {
                **case,
                "submission": json.loads(case["submission"]),
                "callbacks": callbacks.of(slug, case["item_id"]),
            }
            for case in found
        ]

    @api.get("/sandbox/unsettled-callbacks")
    def unsettled_callbacks(slug: str) -> dict[str, int]:
        find(slug)
        return {"unsettled": callbacks.unsettled(slug)}

    @api.post("/sandbox/decisions", status_code=202)
    async def decide(slug: str, decision: OfficerDecision) -> DecisionCallback:
        department = find(slug)
        case = db.one(
            "SELECT * FROM department_case WHERE slug = ? AND item_id = ?", (slug, decision.item_id)
        )
        if case is None:
            raise Problem(404, ProblemCode.UNKNOWN_ITEM, f"no case {decision.item_id} here; see GET cases")
        reason = decision.reason or _REASONS.get(decision.outcome)
        body = _callback(department, case, decision.outcome, reason, datetime.now(UTC))
        url = ReviewSubmission.model_validate_json(case["submission"]).callback_url
        with db.transaction() as connection:
            callbacks.plan(connection, Callback(slug, url, body, body.occurred_at.timestamp()))
        callbacks.wake(slug)
        return body

    return api
