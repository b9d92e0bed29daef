"""Sources of facts (contracts.http.source): what each knows is set here; of what nothing was set it knows that all is well."""

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from standardwebhooks import Webhook

from contracts.errors import ProblemCode
from contracts.http.source import CheckAnswer, CheckAnswers, CheckBatch, CheckQuestion, Fact
from sandbox.db import Database
from sandbox.faults import Faults
from sandbox.problems import Problem
from sandbox.requests import parse, verified_body

SCHEMA = """
CREATE TABLE IF NOT EXISTS source_fact (
  source TEXT NOT NULL, subject_code TEXT NOT NULL, document_number TEXT NOT NULL, "check" TEXT NOT NULL,
  fact TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (source, subject_code, document_number, "check")
);
CREATE TABLE IF NOT EXISTS source_question (
  source TEXT NOT NULL, item_id TEXT NOT NULL, "check" TEXT NOT NULL, asked_at TEXT NOT NULL
);
"""


class KnownFact(BaseModel):
    """Body of POST /sources/{source}/sandbox/facts: what the source knows from now on."""

    subject_code: str
    document_number: str
    check: str
    fact: Fact
    detail: str = Field(default="", max_length=500)


def router(db: Database, faults: Faults, sources: Mapping[str, Webhook]) -> APIRouter:
    """Endpoints under /sources/{source}."""
    db.create(SCHEMA)
    api = APIRouter(prefix="/sources/{source}", tags=["sources"])

    def find(source: str) -> Webhook:
        if source not in sources:
            raise Problem(
                404, ProblemCode.NOT_FOUND, f"source {source} is not served: see SANDBOX_SOURCE_SECRETS"
            )
        return sources[source]

    def answer(source: str, question: CheckQuestion, now: datetime) -> CheckAnswer:
        known = db.one(
            'SELECT * FROM source_fact WHERE source = ? AND subject_code = ? AND document_number = ? AND "check" = ?',
            (source, question.subject_code, question.document_number, question.check),
        )
        fact, detail = (known["fact"], known["detail"]) if known else (Fact.PASS, "经查询，符合（示例数据）")
        return CheckAnswer(
            item_id=question.item_id, check=question.check, fact=fact, detail=detail, as_of=now
        )

    @api.post("/v1/checks")
    async def checks(source: str, request: Request) -> CheckAnswers:
        body = await verified_body(request, find(source))
        await faults.outage(source, request)
        batch = parse(CheckBatch, body)
        now = datetime.now(UTC)
        with db.transaction() as connection:
            connection.executemany(
                "INSERT INTO source_question VALUES (?, ?, ?, ?)",
                [(source, q.item_id, q.check, now.isoformat()) for q in batch.questions],
            )
        return CheckAnswers(answers=[answer(source, question, now) for question in batch.questions])

    @api.post("/sandbox/facts", status_code=201)
    def learn(source: str, known: KnownFact) -> KnownFact:
        find(source)
        with db.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO source_fact VALUES (?, ?, ?, ?, ?, ?)",
                (source, known.subject_code, known.document_number, known.check, known.fact, known.detail),
            )
        return known

    @api.get("/sandbox/questions")
    def questions(source: str, item_id: str) -> dict[str, int]:
        find(source)
        asked = db.rows(
            'SELECT "check", count(*) AS times FROM source_question WHERE source = ? AND item_id = ? GROUP BY "check"',
            (source, item_id),
        )
        return {row["check"]: row["times"] for row in asked}

    return api
