"""Targets: 信用中国, 信用浙江 and two data vendors, as far as contracts.http.target sees them, and their public pages."""

import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from contracts.errors import ProblemCode
from contracts.http.target import (
    RecordKey,
    RecordQuery,
    RecordQueryResult,
    RecordView,
    RepairBatch,
    RepairBatchResult,
    RepairPush,
    RepairResult,
    RepairStatus,
)
from contracts.identifiers import normalise_document_number, normalise_uscc
from contracts.records import DisplayState
from sandbox.catalogue import Target
from sandbox.db import Database, Row
from sandbox.faults import Faults, Mode
from sandbox.problems import Problem
from sandbox.requests import parse, verified_body

SCHEMA = """
CREATE TABLE IF NOT EXISTS target_record (
  target_id TEXT NOT NULL, subject_code TEXT NOT NULL, document_key TEXT NOT NULL, authority_name TEXT NOT NULL,
  document_number TEXT NOT NULL, subject_name TEXT NOT NULL, category TEXT NOT NULL,
  state TEXT NOT NULL, version INTEGER, decision_number TEXT,
  PRIMARY KEY (target_id, subject_code, document_key, authority_name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS target_push (
  seq INTEGER PRIMARY KEY, target_id TEXT NOT NULL, received_at TEXT NOT NULL, idempotency_key TEXT NOT NULL,
  subject_code TEXT NOT NULL, document_number TEXT NOT NULL, authority_name TEXT NOT NULL,
  version INTEGER NOT NULL, state TEXT NOT NULL, status TEXT NOT NULL, reason TEXT, effect INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS target_push_key ON target_push (target_id, idempotency_key);
"""

_AT = "target_id = ? AND subject_code = ? AND document_key = ? AND authority_name = ?"

# Birth date at 7-14 (GB 11643). Wrong check digits count too: a mistyped ID number is still personal data.
_ID_NUMBER = re.compile(r"[1-9]\d{5}(18|19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d{3}[\dXx]")


class PublishedRecord(BaseModel):
    """A record as its department publishes it."""

    record: RecordKey
    subject_name: str
    category: str


class Seed(BaseModel):
    """Body of POST /targets/{id}/sandbox/records."""

    records: Annotated[list[PublishedRecord], Field(max_length=10_000)]


class SeedResult(BaseModel):
    """``skipped``: records the target does not show (category, or natural person), with the reason."""

    stored: int
    skipped: list[str]


class Forget(BaseModel):
    """Body of POST /targets/{id}/sandbox/forget; without ``subject_code`` everything is forgotten."""

    subject_code: str | None = None


def looks_like_id_number(code: str) -> bool:
    """Whether a subject code looks like a natural person's ID number. A USCC of digits alone does not."""
    if not _ID_NUMBER.fullmatch(code):
        return False
    try:
        normalise_uscc(code)
    except ValueError:
        return True
    return False


def _where(target: Target, key: RecordKey) -> tuple[str, str, str, str]:
    """Parameters of ``_AT``. Raises ValueError for an unusable 文号."""
    return target.id, key.subject_code, normalise_document_number(key.document_number), key.authority_name


def _apply(
    connection: sqlite3.Connection, target: Target, push: RepairPush
) -> tuple[RepairStatus, str | None, bool]:
    """Decide on one push and store its effect: (status, reason, whether it changed anything)."""
    if not target.natural_persons and looks_like_id_number(push.record.subject_code):
        return RepairStatus.REJECTED, f"{target.name}不接收自然人信息，请勿推送身份证件号码", False
    try:
        where = _where(target, push.record)
    except ValueError as error:
        return RepairStatus.REJECTED, str(error), False
    stored = connection.execute(f"SELECT * FROM target_record WHERE {_AT}", where).fetchone()  # noqa: S608
    if stored is None:
        return RepairStatus.REJECTED, "查无此记录：请核对主体代码、文号和处罚机关", False
    reused = connection.execute(
        "SELECT 1 FROM target_push WHERE target_id = ? AND idempotency_key = ? AND status = 'applied'"
        " AND (subject_code != ? OR version != ?)",
        (target.id, push.idempotency_key, push.record.subject_code, push.version),
    ).fetchone()
    if reused:
        return RepairStatus.REJECTED, "该幂等键已用于另一条推送", False
    if stored["version"] is not None and push.version < stored["version"]:
        return RepairStatus.SUPERSEDED, None, False
    if stored["version"] == push.version:
        if stored["state"] != push.state:
            return RepairStatus.REJECTED, f"版本{push.version}已以另一状态推送过，请提高版本号", False
        return RepairStatus.APPLIED, None, False
    connection.execute(
        f"UPDATE target_record SET state = ?, version = ?, decision_number = ? WHERE {_AT}",  # noqa: S608
        (push.state, push.version, push.decision_number, *where),
    )
    return RepairStatus.APPLIED, None, True


def _take(db: Database, target: Target, pushes: list[RepairPush]) -> list[RepairResult]:
    results = []
    now = datetime.now(UTC).isoformat()
    with db.transaction() as connection:
        for push in pushes:
            status, reason, effect = _apply(connection, target, push)
            connection.execute(
                "INSERT INTO target_push (target_id, received_at, idempotency_key, subject_code, document_number,"
                " authority_name, version, state, status, reason, effect) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    target.id,
                    now,
                    push.idempotency_key,
                    push.record.subject_code,
                    push.record.document_number,
                    push.record.authority_name,
                    push.version,
                    push.state,
                    status,
                    reason,
                    effect,
                ),
            )
            results.append(RepairResult(idempotency_key=push.idempotency_key, status=status, reason=reason))
    return results


def _view(db: Database, target: Target, key: RecordKey) -> RecordView:
    try:
        where = _where(target, key)
    except ValueError:
        return RecordView(record=key, state=None)
    stored = db.one(f"SELECT state, version FROM target_record WHERE {_AT}", where)  # noqa: S608
    if stored is None:
        return RecordView(record=key, state=None)
    return RecordView(record=key, state=stored["state"], version=stored["version"])


def _public(db: Database, target: Target, subject_code: str) -> list[Row]:
    return db.rows(
        "SELECT subject_name, document_number, authority_name, category FROM target_record"
        " WHERE target_id = ? AND subject_code = ? AND state = ? ORDER BY authority_name, document_key LIMIT 1000",
        (target.id, subject_code, DisplayState.PUBLISHED),
    )


def _page(target: Target, subject_code: str, records: list[Row]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in record.values()) + "</tr>"
        for record in records
    )
    if rows:
        found = f"<table><tr><th>主体名称<th>文号<th>认定单位<th>类别</tr>{rows}</table>"
    else:
        found = "<p>未查到公示中的失信记录。</p>" if subject_code else ""
    name = escape(target.name)
    return (
        f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>{name}（沙箱）</title>'
        f"<h1>{name}</h1><p>本页为沙箱，数据均为测试数据。</p>"
        f'<form><label>主体代码 <input name="subject_code" value="{escape(subject_code)}" size="24"></label>'
        f"<button>查询</button></form>{found}</html>"
    )


def router(db: Database, faults: Faults, targets: Mapping[str, Target]) -> APIRouter:
    """Endpoints under /targets/{target_id}."""
    db.create(SCHEMA)
    api = APIRouter(prefix="/targets/{target_id}", tags=["targets"])

    def find(target_id: str) -> Target:
        if target_id not in targets:
            raise Problem(
                404, ProblemCode.NOT_FOUND, f"target {target_id} is not served: see SANDBOX_TARGET_SECRETS"
            )
        return targets[target_id]

    @api.post("/v1/repairs")
    async def repairs(target_id: str, request: Request) -> RepairBatchResult:
        target = find(target_id)
        body = await verified_body(request, target.webhook)
        await faults.outage(target.id, request)
        if not request.headers.get("idempotency-key"):
            raise Problem(
                400, ProblemCode.IDEMPOTENCY_KEY_MISSING, "send the header Idempotency-Key with the batch"
            )
        pushes = parse(RepairBatch, body).pushes
        if len(pushes) > target.batch_size:
            raise Problem(
                413, ProblemCode.TOO_LARGE, f"{len(pushes)} pushes: send at most {target.batch_size} at once"
            )
        fault = faults.take(target.id, frozenset({Mode.APPLY_THEN_FAIL, Mode.PARTIAL, Mode.ANSWER_TWICE}))
        mode = fault.mode if fault else Mode.OK
        results = _take(db, target, pushes[: len(pushes) // 2] if mode is Mode.PARTIAL else pushes)
        if fault and mode is Mode.APPLY_THEN_FAIL:
            raise fault.failure()
        return RepairBatchResult(results=results * 2 if mode is Mode.ANSWER_TWICE else results)

    @api.post("/v1/records/query")
    async def query(target_id: str, request: Request) -> RecordQueryResult:
        target = find(target_id)
        body = await verified_body(request, target.webhook)
        await faults.outage(target.id, request)
        keys = parse(RecordQuery, body).records
        if not target.natural_persons and any(looks_like_id_number(key.subject_code) for key in keys):
            raise Problem(
                422, ProblemCode.VALIDATION, f"{target.name} takes no ID numbers of natural persons"
            )
        return RecordQueryResult(records=[_view(db, target, key) for key in keys])

    @api.post("/sandbox/records")
    def seed(target_id: str, body: Seed) -> SeedResult:
        target = find(target_id)
        skipped, stored = [], 0
        with db.transaction() as connection:
            for entry in body.records:
                key = entry.record
                if entry.category not in target.categories:
                    skipped.append(f"{key.document_number}: {target.id} does not show {entry.category}")
                elif not target.natural_persons and looks_like_id_number(key.subject_code):
                    skipped.append(f"{key.document_number}: {target.id} shows no natural persons")
                else:
                    try:
                        where = _where(target, key)
                    except ValueError as error:
                        raise Problem(422, ProblemCode.VALIDATION, str(error)) from None
                    connection.execute(
                        "INSERT INTO target_record (target_id, subject_code, document_key, authority_name,"
                        " document_number, subject_name, category, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET subject_name = excluded.subject_name, category = excluded.category",
                        (
                            *where,
                            key.document_number,
                            entry.subject_name,
                            entry.category,
                            DisplayState.PUBLISHED,
                        ),
                    )
                    stored += 1
        return SeedResult(stored=stored, skipped=skipped)

    @api.post("/sandbox/forget")
    def forget(target_id: str, body: Forget) -> dict[str, int]:
        target = find(target_id)
        with db.transaction() as connection:
            # The version goes too, so that the same push has its effect again.
            changed = connection.execute(
                "UPDATE target_record SET state = ?, version = NULL, decision_number = NULL"
                " WHERE target_id = ? AND subject_code = coalesce(?, subject_code) AND version IS NOT NULL",
                (DisplayState.PUBLISHED, target.id, body.subject_code),
            ).rowcount
        return {"forgotten": changed}

    @api.get("/sandbox/log")
    def log(
        target_id: str, after: int = 0, limit: Annotated[int, Query(ge=0, le=10_000)] = 1000
    ) -> dict[str, Any]:
        target = find(target_id)
        summary = db.one(
            "SELECT count(*) AS received, coalesce(sum(effect), 0) AS first_effect,"
            " coalesce(sum(status = 'applied' AND NOT effect), 0) AS repeated,"
            " coalesce(sum(status = 'superseded'), 0) AS superseded,"
            " coalesce(sum(status = 'rejected'), 0) AS rejected FROM target_push WHERE target_id = ?",
            (target.id,),
        )
        pushes = db.rows(
            "SELECT * FROM target_push WHERE target_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (target.id, after, limit),
        )
        return {"summary": summary, "pushes": [{**push, "effect": bool(push["effect"])} for push in pushes]}

    @api.get("/public")
    def public(target_id: str, subject_code: str) -> dict[str, Any]:
        return {"subject_code": subject_code, "records": _public(db, find(target_id), subject_code)}

    @api.get("/", response_class=HTMLResponse)
    def page(target_id: str, subject_code: str = "") -> str:
        target = find(target_id)
        return _page(target, subject_code, _public(db, target, subject_code) if subject_code else [])

    return api
