"""Targets: platforms and data vendors, as far as contracts.http.target sees them, and their public pages."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
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
from contracts.records import DisplayState, RecordContent
from sandbox.catalogue import Target
from sandbox.db import Database, Row
from sandbox.faults import TARGET_OUTAGES, Fault, Faults, Mode
from sandbox.problems import Problem
from sandbox.receipts import ReceiptDesk
from sandbox.requests import parse, verified_body

SCHEMA = """
CREATE TABLE IF NOT EXISTS target_record (
  seq INTEGER PRIMARY KEY,
  target_id TEXT NOT NULL, subject_code TEXT NOT NULL, document_key TEXT NOT NULL, authority_name TEXT NOT NULL,
  document_number TEXT NOT NULL, subject_name TEXT NOT NULL, category TEXT NOT NULL,
  state TEXT NOT NULL, version INTEGER, decision_number TEXT, content TEXT, corrected TEXT,
  UNIQUE (target_id, subject_code, document_key, authority_name)
);
CREATE INDEX IF NOT EXISTS target_record_page ON target_record (target_id, seq);
CREATE TABLE IF NOT EXISTS target_push (
  seq INTEGER PRIMARY KEY, target_id TEXT NOT NULL, received_at TEXT NOT NULL, cause TEXT NOT NULL, idempotency_key TEXT,
  subject_code TEXT NOT NULL, document_number TEXT NOT NULL, authority_name TEXT NOT NULL,
  version INTEGER NOT NULL, state TEXT NOT NULL, status TEXT, reason TEXT, effect INTEGER NOT NULL, held INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS target_push_key ON target_push (target_id, idempotency_key);
CREATE INDEX IF NOT EXISTS target_push_page ON target_push (target_id, seq);
CREATE TABLE IF NOT EXISTS target_held (
  seq INTEGER PRIMARY KEY, target_id TEXT NOT NULL, record_seq INTEGER NOT NULL UNIQUE, push TEXT NOT NULL, due REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS target_stubborn (record_seq INTEGER PRIMARY KEY, manner TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS target_held_due ON target_held (target_id, due);
"""

_AT = "target_id = ? AND subject_code = ? AND document_key = ? AND authority_name = ?"

# Birth date at 7-14 (GB 11643). Wrong check digits count too: a mistyped ID number is still personal data.
_ID_NUMBER = re.compile(r"[1-9]\d{5}(18|19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d{3}[\dXx]")


PUSH_FAULTS = frozenset(
    {
        Mode.APPLY_THEN_FAIL,
        Mode.PARTIAL,
        Mode.ANSWER_TWICE,
        Mode.OUT_OF_ORDER,
        Mode.FORGET,
        Mode.IGNORE,
        Mode.SILENT,
        Mode.FOREIGN_RECEIPT,
    }
)


class Cause(StrEnum):
    """What a line of the push log tells of: a push that came, or what the target then did by itself."""

    PUSH = "push"
    HELD_BACK = "held_back"
    FORGOTTEN = "forgotten"


class PublishedRecord(BaseModel):
    """A record as its department publishes it. ``state``: what the target decided by itself, without a push of ours; ``content``: None:
    the target does not tell what is read of it, until a push says what that has to be.
    """

    record: RecordKey
    subject_name: str
    category: str
    state: DisplayState | None = None
    content: RecordContent | None = None


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


class Manner(StrEnum):
    """What a target that shows a record again does with pushes: does as told, refuses them, or says yes and changes nothing."""

    REPAIR = "repair"
    REFUSE = "refuse"
    IGNORE = "ignore"


class Republish(BaseModel):
    """Body of POST /targets/{id}/sandbox/republish: records of this subject are shown again."""

    subject_code: str
    then: Manner = Manner.REFUSE


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


def _decide(
    connection: sqlite3.Connection, target: Target, push: RepairPush
) -> tuple[RepairStatus, str | None, Row | None]:
    """The answer to a push: (status, reason, the record it changes). The record is None when nothing changes."""
    if not target.natural_persons and looks_like_id_number(push.record.subject_code):
        return RepairStatus.REJECTED, f"{target.name}不接收自然人信息，请勿推送身份证件号码", None
    try:
        where = _where(target, push.record)
    except ValueError as error:
        return RepairStatus.REJECTED, str(error), None
    stored = connection.execute(f"SELECT * FROM target_record WHERE {_AT}", where).fetchone()  # noqa: S608
    if stored is None:
        return RepairStatus.REJECTED, "查无此记录：请核对主体代码、文号和处罚机关", None
    stubborn = connection.execute(
        "SELECT manner FROM target_stubborn WHERE record_seq = ?", (stored["seq"],)
    ).fetchone()
    if stubborn:
        if stubborn["manner"] == Manner.IGNORE:
            return RepairStatus.APPLIED, None, None
        return RepairStatus.REJECTED, "数据来自其他渠道，暂不处理", None
    reused = connection.execute(
        "SELECT 1 FROM target_push WHERE target_id = ? AND idempotency_key = ? AND status = 'applied'"
        " AND (subject_code != ? OR version != ?)",
        (target.id, push.idempotency_key, push.record.subject_code, push.version),
    ).fetchone()
    if reused:
        return RepairStatus.REJECTED, "该幂等键已用于另一条推送", None
    if stored["version"] is not None and push.version < stored["version"]:
        return RepairStatus.SUPERSEDED, None, None
    if stored["version"] == push.version:
        if stored["state"] != push.state:
            return RepairStatus.REJECTED, f"版本{push.version}已以另一状态推送过，请提高版本号", None
        return RepairStatus.APPLIED, None, None
    return RepairStatus.APPLIED, None, stored


def _change(connection: sqlite3.Connection, record_seq: int, push: RepairPush) -> None:
    connection.execute(
        "UPDATE target_record SET state = ?, version = ?, decision_number = ?, corrected = coalesce(?, corrected)"
        " WHERE seq = ?",
        (push.state, push.version, push.decision_number, _text(push.content), record_seq),
    )


def _text(content: RecordContent | None) -> str | None:
    return None if content is None else content.model_dump_json()


def _log(
    connection: sqlite3.Connection,
    target_id: str,
    push: RepairPush,
    cause: Cause,
    answer: tuple[RepairStatus | None, str | None],
    *,
    effect: bool,
    held: bool = False,
) -> None:
    connection.execute(
        "INSERT INTO target_push (target_id, received_at, cause, idempotency_key, subject_code, document_number,"
        " authority_name, version, state, status, reason, effect, held)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            target_id,
            datetime.now(UTC).isoformat(),
            cause,
            push.idempotency_key,
            push.record.subject_code,
            push.record.document_number,
            push.record.authority_name,
            push.version,
            push.state,
            *answer,
            effect,
            held,
        ),
    )


def take(db: Database, target: Target, pushes: list[RepairPush], fault: Fault | None) -> list[RepairResult]:
    """Do what a batch asks, as far as the fault lets it; the answers, of the first half alone when it is ``partial``."""
    mode = fault.mode if fault else Mode.OK
    if mode is Mode.PARTIAL:
        pushes = pushes[: len(pushes) // 2]
    results = []
    changed: list[int] = []
    with db.transaction() as connection:
        for push in pushes:
            status, reason, record = _decide(connection, target, push)
            waiting = (
                record
                and connection.execute(
                    "SELECT * FROM target_held WHERE record_seq = ?", (record["seq"],)
                ).fetchone()
            )
            if mode is Mode.IGNORE:
                record = None
            hold = fault is not None and mode is Mode.OUT_OF_ORDER and record is not None and not waiting
            effect = record is not None and not hold
            _log(connection, target.id, push, Cause.PUSH, (status, reason), effect=effect, held=hold)
            if record is not None and fault is not None and hold:
                connection.execute(
                    "INSERT INTO target_held (target_id, record_seq, push, due) VALUES (?, ?, ?, ?)",
                    (
                        target.id,
                        record["seq"],
                        push.model_dump_json(),
                        datetime.now(UTC).timestamp() + fault.wait_seconds,
                    ),
                )
            elif record is not None:
                _change(connection, record["seq"], push)
                changed.append(record["seq"])
                if waiting:
                    _release(connection, [waiting])
            results.append(RepairResult(idempotency_key=push.idempotency_key, status=status, reason=reason))
        if mode is Mode.FORGET:
            _forget(connection, changed)
    return results


def _release(connection: sqlite3.Connection, held: Sequence[Row]) -> None:
    """Apply what was held back, whatever version is there by now."""
    for row in held:
        push = RepairPush.model_validate_json(row["push"])
        stored = connection.execute(
            "SELECT state, version FROM target_record WHERE seq = ?", (row["record_seq"],)
        ).fetchone()
        effect = (stored["state"], stored["version"]) != (push.state, push.version)
        _change(connection, row["record_seq"], push)
        _log(connection, row["target_id"], push, Cause.HELD_BACK, (None, None), effect=effect)
        connection.execute("DELETE FROM target_held WHERE seq = ?", (row["seq"],))


def release_due(db: Database, target: Target) -> None:
    """Let what was held back long enough take effect. Called before anybody looks: nobody can tell it from a clock."""
    query = "SELECT * FROM target_held WHERE target_id = ? AND due <= ? ORDER BY seq"
    parameters = (target.id, datetime.now(UTC).timestamp())
    if db.one(query, parameters):
        with db.transaction() as connection:
            _release(connection, connection.execute(query, parameters).fetchall())


def _forget(connection: sqlite3.Connection, record_seqs: Sequence[int]) -> int:
    """Drop what was pushed for these records, the version too, so that the same push has its effect again."""
    chosen = json.dumps(record_seqs)
    connection.execute(
        "INSERT INTO target_push (target_id, received_at, cause, subject_code, document_number, authority_name,"
        " version, state, effect, held) SELECT target_id, ?, ?, subject_code, document_number, authority_name,"
        " version, ?, 1, 0 FROM target_record WHERE version IS NOT NULL AND seq IN (SELECT value FROM json_each(?))",
        (datetime.now(UTC).isoformat(), Cause.FORGOTTEN, DisplayState.PUBLISHED, chosen),
    )
    return connection.execute(
        "UPDATE target_record SET state = ?, version = NULL, decision_number = NULL, corrected = NULL"
        " WHERE version IS NOT NULL AND seq IN (SELECT value FROM json_each(?))",
        (DisplayState.PUBLISHED, chosen),
    ).rowcount


def _view(db: Database, target: Target, key: RecordKey) -> RecordView:
    try:
        where = _where(target, key)
    except ValueError:
        return RecordView(record=key, state=None)
    stored = db.one(
        f"SELECT state, version, coalesce(corrected, content) AS content FROM target_record WHERE {_AT}",  # noqa: S608
        where,
    )
    if stored is None:
        return RecordView(record=key, state=None)
    content = stored["content"] and RecordContent.model_validate_json(stored["content"])
    return RecordView(record=key, state=stored["state"], version=stored["version"], content=content)


def _public(db: Database, target: Target, subject_code: str) -> list[Row]:
    return db.rows(
        "SELECT subject_name, document_number, authority_name, category,"
        " json_extract(coalesce(corrected, content), '$.decided_on') AS decided_on,"
        " json_extract(coalesce(corrected, content), '$.penalty_kinds') AS penalty_kinds FROM target_record"
        " WHERE target_id = ? AND subject_code = ? AND state = ? ORDER BY authority_name, document_key LIMIT 1000",
        (target.id, subject_code, DisplayState.PUBLISHED),
    )


def _page(target: Target, subject_code: str, records: list[Row]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value or '—'))}</td>" for value in record.values()) + "</tr>"
        for record in records
    )
    if rows:
        found = (
            f"<table><tr><th>主体名称<th>文号<th>认定单位<th>类别<th>认定日期<th>处罚类别</tr>{rows}</table>"
        )
    else:
        found = "<p>未查到公示中的失信记录。</p>" if subject_code else ""
    name = escape(target.name)
    return (
        f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>{name}（沙箱）</title>'
        f"<h1>{name}</h1><p>本页为沙箱，数据均为测试数据。</p>"
        f'<form><label>主体代码 <input name="subject_code" value="{escape(subject_code)}" size="24"></label>'
        f"<button>查询</button></form>{found}</html>"
    )


def router(
    db: Database, faults: Faults, targets: Mapping[str, Target], delay_seconds: float, receipts: ReceiptDesk
) -> APIRouter:
    """Endpoints under /targets/{target_id}."""
    db.create(SCHEMA)
    api = APIRouter(prefix="/targets/{target_id}", tags=["targets"])

    def find(target_id: str) -> Target:
        if target_id not in targets:
            raise Problem(
                404, ProblemCode.NOT_FOUND, f"target {target_id} is not served: see SANDBOX_TARGET_SECRETS"
            )
        return targets[target_id]

    @api.post(
        "/v1/repairs", response_model=RepairBatchResult, responses={202: {"description": "receipt follows"}}
    )
    async def repairs(target_id: str, request: Request) -> Response:
        target = find(target_id)
        body = await verified_body(request, target.webhook)
        await asyncio.sleep(delay_seconds)
        await faults.outage(target.id, request, TARGET_OUTAGES)
        if not request.headers.get("idempotency-key"):
            raise Problem(
                400, ProblemCode.IDEMPOTENCY_KEY_MISSING, "send the header Idempotency-Key with the batch"
            )
        batch = parse(RepairBatch, body)
        if len(batch.pushes) > target.batch_size:
            raise Problem(
                413,
                ProblemCode.TOO_LARGE,
                f"{len(batch.pushes)} pushes: send at most {target.batch_size} at once",
            )
        fault = faults.take(target.id, PUSH_FAULTS)
        mode = fault.mode if fault else Mode.OK
        release_due(db, target)
        results = take(db, target, batch.pushes, fault)
        if fault and mode is Mode.APPLY_THEN_FAIL:
            raise fault.failure()
        if target.protocol == "push_receipt" and batch.receipts_url:
            if mode is not Mode.SILENT:
                receipts.plan(target.id, batch.receipts_url, results, foreign=mode is Mode.FOREIGN_RECEIPT)
            return Response(status_code=202)
        answer = RepairBatchResult(results=results * 2 if mode is Mode.ANSWER_TWICE else results)
        return Response(answer.model_dump_json(), media_type="application/json")

    @api.post("/v1/records/query")
    async def query(target_id: str, request: Request) -> RecordQueryResult:
        target = find(target_id)
        body = await verified_body(request, target.webhook)
        await asyncio.sleep(delay_seconds)
        await faults.outage(target.id, request, TARGET_OUTAGES)
        keys = parse(RecordQuery, body).records
        if not target.natural_persons and any(looks_like_id_number(key.subject_code) for key in keys):
            raise Problem(
                422, ProblemCode.VALIDATION, f"{target.name} takes no ID numbers of natural persons"
            )
        release_due(db, target)
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
                        " document_number, subject_name, category, state, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET subject_name = excluded.subject_name, category = excluded.category,"
                        " content = coalesce(excluded.content, content), state = coalesce(?, state)",
                        (
                            *where,
                            key.document_number,
                            entry.subject_name,
                            entry.category,
                            entry.state or DisplayState.PUBLISHED,
                            _text(entry.content),
                            entry.state,
                        ),
                    )
                    stored += 1
        return SeedResult(stored=stored, skipped=skipped)

    @api.get("/sandbox/records")
    def records(
        target_id: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    ) -> dict[str, Any]:
        target = find(target_id)
        release_due(db, target)
        found = db.rows(
            "SELECT seq, subject_code, document_number, authority_name, category, state, version, decision_number,"
            " coalesce(corrected, content) AS content FROM target_record WHERE target_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (target.id, after, limit),
        )
        return {"records": found, "next": found[-1]["seq"] if len(found) == limit else None}

    @api.post("/sandbox/forget")
    def forget(target_id: str, body: Forget) -> dict[str, int]:
        target = find(target_id)
        with db.transaction() as connection:
            chosen = connection.execute(
                "SELECT seq FROM target_record WHERE target_id = ? AND subject_code = coalesce(?, subject_code)",
                (target.id, body.subject_code),
            ).fetchall()
            return {"forgotten": _forget(connection, [row["seq"] for row in chosen])}

    @api.post("/sandbox/republish")
    def republish(target_id: str, body: Republish) -> dict[str, int]:
        target = find(target_id)
        with db.transaction() as connection:
            chosen = connection.execute(
                "SELECT seq FROM target_record WHERE target_id = ? AND subject_code = ?",
                (target.id, body.subject_code),
            ).fetchall()
            seqs = [row["seq"] for row in chosen]
            connection.executemany("DELETE FROM target_stubborn WHERE record_seq = ?", [(s,) for s in seqs])
            if body.then is not Manner.REPAIR:
                connection.executemany(
                    "INSERT INTO target_stubborn VALUES (?, ?)", [(seq, body.then) for seq in seqs]
                )
                _forget(connection, seqs)
            return {"republished": len(seqs)}

    @api.get("/sandbox/log")
    def log(
        target_id: str, after: int = 0, limit: Annotated[int, Query(ge=0, le=10_000)] = 1000
    ) -> dict[str, Any]:
        target = find(target_id)
        release_due(db, target)
        summary = db.one(
            "SELECT count(status) AS received, coalesce(sum(cause = 'push' AND effect), 0) AS first_effect,"
            " coalesce(sum(status = 'applied' AND NOT effect AND NOT held), 0) AS repeated,"
            " coalesce(sum(status = 'superseded'), 0) AS superseded,"
            " coalesce(sum(status = 'rejected'), 0) AS rejected, coalesce(sum(held), 0) AS held,"
            " coalesce(sum(cause = 'held_back' AND effect), 0) AS held_back,"
            " coalesce(sum(cause = 'forgotten'), 0) AS forgotten FROM target_push WHERE target_id = ?",
            (target.id,),
        )
        pushes = db.rows(
            "SELECT * FROM target_push WHERE target_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (target.id, after, limit),
        )
        flags = ("effect", "held")
        return {
            "summary": summary,
            "pushes": [{**push, **{flag: bool(push[flag]) for flag in flags}} for push in pushes],
        }

    @api.get("/public")
    def public(target_id: str, subject_code: str) -> dict[str, Any]:
        target = find(target_id)
        release_due(db, target)
        return {"subject_code": subject_code, "records": _public(db, target, subject_code)}

    @api.get("/", response_class=HTMLResponse)
    def page(target_id: str, subject_code: str = "") -> str:
        target = find(target_id)
        release_due(db, target)
        return _page(target, subject_code, _public(db, target, subject_code) if subject_code else [])

    return api
