"""Departments with an HTTP interface: take reviews, and tell their decisions by callback or when asked (contracts.http.department)."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from contracts.decisions import Outcome
from contracts.errors import ProblemCode
from contracts.http.department import (
    DecisionCallback,
    PolledDecisions,
    ReviewCancellation,
    ReviewReceipt,
    ReviewSubmission,
)
from sandbox.callbacks import Callbacks
from sandbox.cases import Asked, Cases
from sandbox.catalogue import Department
from sandbox.db import Database
from sandbox.faults import Faults, Mode
from sandbox.problems import Problem
from sandbox.requests import parse, verified_body


class OfficerDecision(BaseModel):
    """Body of POST /departments/{slug}/sandbox/decisions: what an officer decides by hand."""

    item_id: str
    outcome: Outcome
    reason: str | None = Field(default=None, max_length=2000)


def router(
    db: Database,
    faults: Faults,
    departments: Mapping[str, Department],
    callbacks: Callbacks,
    book: Cases,
) -> APIRouter:
    """Endpoints under /departments/{slug}."""
    api = APIRouter(prefix="/departments/{slug}", tags=["departments"])

    def find(slug: str) -> Department:
        if slug not in departments:
            raise Problem(
                404,
                ProblemCode.NOT_FOUND,
                f"department {slug} is not served: see SANDBOX_DEPARTMENT_SECRETS",
            )
        return departments[slug]

    def served(slug: str) -> Department:
        department = find(slug)
        if department.mode != "api":
            raise Problem(
                404, ProblemCode.NOT_FOUND, f"{slug} has no HTTP interface: its mode is {department.mode}"
            )
        return department

    async def signed(department: Department, request: Request) -> bytes:
        if faults.take(department.slug, frozenset({Mode.IGNORE_SIGNATURE})):
            return await request.body()
        return await verified_body(request, department.webhook)

    @api.post("/reviews/{item_id}/cancellation", status_code=202)
    async def cancellation(slug: str, item_id: str, request: Request) -> dict[str, bool]:
        department = served(slug)
        body = await signed(department, request)
        await faults.outage(slug, request)
        cancelled = parse(ReviewCancellation, body)
        if cancelled.item_id != item_id:
            raise Problem(422, ProblemCode.VALIDATION, "item_id of the body has to be that of the path")
        return {"known": book.cancel(slug, item_id)}

    @api.post("/reviews", status_code=202)
    async def reviews(slug: str, request: Request) -> ReviewReceipt:
        department = served(slug)
        body = await signed(department, request)
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
        fault = faults.take(slug, frozenset({Mode.APPLY_THEN_FAIL}))
        # Nothing is awaited here: two pushes of one item cannot both be the first.
        number = book.receive(department, Asked.of(review, review.callback_url))
        if fault:
            raise fault.failure()
        return ReviewReceipt(item_id=review.item_id, receipt_number=number)

    @api.get("/decisions")
    async def decisions(
        slug: str, request: Request, after: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 200
    ) -> Response:
        department = served(slug)
        if department.callbacks:
            raise Problem(404, ProblemCode.NOT_FOUND, f"{slug} calls back: it is not asked")
        await signed(department, request)
        await faults.outage(slug, request)
        if request.headers.get("webhook-id") != f"decisions:{after}" or not (after or "0").isdigit():
            raise Problem(422, ProblemCode.VALIDATION, "webhook-id has to be decisions: and the cursor")
        rows = callbacks.told(slug, int(after or 0), limit)
        page = PolledDecisions(
            decisions=tuple({**json.loads(row["body"]), "webhook_id": row["webhook_id"]} for row in rows),
            next=str(rows[-1]["position"]) if rows else after,
        )
        body, now = page.model_dump_json(), datetime.now(UTC)
        message_id = f"decisions:{after}"
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": department.webhook.sign(message_id, now, body),
        }
        return Response(body, media_type="application/json", headers=headers)

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
        case = book.find(slug, decision.item_id)
        if case is None:
            raise Problem(404, ProblemCode.UNKNOWN_ITEM, f"no case {decision.item_id} here; see GET cases")
        return book.decide(department, case, decision.outcome, decision.reason)

    return api
