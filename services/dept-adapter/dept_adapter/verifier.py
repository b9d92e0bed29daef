"""Asks the sources what they know of the reviews at the desks, in batches, and lets through what a department has settled."""

import asyncio
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client import Counter
from pydantic import ValidationError
from pymongo import ASCENDING, UpdateOne

from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.db import Database, Document, Session
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from chassis.telemetry import links, span_context, tracer
from chassis.unit_of_work import UnitOfWork
from chassis.webhooks import sign
from contracts.clock import china_date
from contracts.http.intake import Case
from contracts.http.source import CheckAnswer, CheckAnswers, CheckBatch, CheckQuestion
from dept_adapter.decisions import apply
from dept_adapter.domain import AUTOMATIC, Command, decision_number
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.states import ENDED, Action
from dept_adapter.store import Reviews, StoredReview
from dept_adapter.verification import Finding, answered, finding_of, is_sampled, needs_nobody, questions

log = get_logger(__name__)
QUESTIONS = Counter("xinfu_verification_questions_total", "Questions to sources", ["source", "result"])
_MAX_ANSWER_BYTES = 1_000_000
_QUESTIONS_AT_ONCE = 500


@dataclass(frozen=True)
class _Asked:
    """A claimed review with what is known of it; ``attempts`` made before."""

    stored: StoredReview
    findings: Sequence[Finding]
    attempts: int


class Verifier:
    """Verifies the reviews of the served departments. A source that does not answer delays nobody: officers may decide meanwhile."""

    def __init__(
        self,
        settings: DeptAdapterSettings,
        database: Database,
        outbox: Outbox,
        reviews: Reviews,
        cases: CaseDirectory,
        http: ClientSession,
    ) -> None:
        self._settings = settings
        self._documents = database.collection("reviews")
        self._reviews = reviews
        self._cases = cases
        self._http = http
        self._departments = {d.code: d for d in settings.served}
        self._connected = frozenset(settings.source_urls)
        self._timeout = ClientTimeout(total=settings.verify_timeout_seconds)
        self._lease = timedelta(seconds=settings.verify_timeout_seconds * 2 + 15)
        self._policy = RetryPolicy(
            settings.verify_backoff_base_seconds, settings.verify_backoff_max_seconds, max_attempts=0
        )
        self.loop = Loop("verify", self.step, settings.verify_poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Verify one batch; returns whether more may be due."""
        token = secrets.token_hex(8)
        claimed = await self._claim(token)
        if not claimed:
            return False
        with tracer.start_as_current_span(
            "verify batch",
            links=links([span_context(stored.trace) for stored in claimed]),
            attributes={"messaging.batch.message_count": len(claimed)},
        ):
            asked = [self._asked(stored) for stored in claimed]
            try:
                cases = await self._cases.cases(stored.review.application_id for stored in claimed)
            except (ClientError, TimeoutError, OSError, ValueError) as error:
                log.warning("intake does not answer; verification waits", error=type(error).__name__)
                cases = None
            results = asked if cases is None else await self._ask_all(asked, cases)
            await self._settle(token, results, attempted=cases is not None)
        return len(claimed) == self._settings.verify_batch

    async def _claim(self, token: str) -> list[StoredReview]:
        now = datetime.now(UTC)
        due = {
            "department.code": {"$in": list(self._departments)},
            "verification.next_attempt_at": {"$lte": now},
        }
        cursor = self._documents.find(due, {"_id": 1}).sort("verification.next_attempt_at", ASCENDING)
        batch = self._settings.verify_batch
        ids = [document["_id"] for document in await cursor.limit(batch).to_list(batch)]
        if not ids:
            return []
        lease = {"verification.lease": token, "verification.next_attempt_at": now + self._lease}
        await self._documents.update_many({"_id": {"$in": ids}, **due}, {"$set": lease})
        held = {"verification.lease": token}
        return await self._rows.read(
            ids, lambda part: self._reviews.where({"_id": {"$in": list(part)}, **held})
        )

    def _asked(self, stored: StoredReview) -> _Asked:
        kept = stored.verification or {}
        attempts = int(kept.get("attempts", 0))
        if kept.get("findings") is not None:
            return _Asked(stored, [finding_of(each) for each in kept["findings"]], attempts)
        today = china_date(datetime.now(UTC))
        return _Asked(
            stored, questions(stored.review, self._settings.catalogue, self._connected, today), attempts
        )

    async def _ask_all(self, asked: Sequence[_Asked], cases: Mapping[str, Case]) -> list[_Asked]:
        """Every source at the same time, each with all its questions."""
        sources = sorted({f.source for a in asked for f in a.findings if f.is_open and f.source})
        told = await asyncio.gather(*(self._ask(source, asked, cases) for source in sources))
        found = {each.stored.review.item_id: each for each in asked}
        for source, answers in zip(sources, told, strict=True):
            for item_id, each in found.items():
                last = each.attempts + 1 >= self._settings.verify_max_attempts
                if answers is None and not last:
                    continue
                of_item = None if answers is None else answers.get(item_id, {})
                findings = answered(each.findings, source, of_item)
                found[item_id] = _Asked(each.stored, findings, each.attempts)
        return list(found.values())

    async def _ask(
        self, source: str, asked: Sequence[_Asked], cases: Mapping[str, Case]
    ) -> dict[str, dict[str, CheckAnswer]] | None:
        """Item id -> condition -> answer; None: the source does not answer now."""
        batch = [
            CheckQuestion(
                item_id=each.stored.review.item_id,
                check=finding.condition,
                subject_code=cases[each.stored.review.application_id].subject.code,
                document_number=each.stored.review.record.document_number,
                authority_name=each.stored.review.record.authority_name,
            )
            for each in asked
            if each.stored.review.application_id in cases and each.stored.review.state not in ENDED
            for finding in each.findings
            if finding.is_open and finding.source == source
        ]
        answers: dict[str, dict[str, CheckAnswer]] = {}
        for start in range(0, len(batch), _QUESTIONS_AT_ONCE):
            part = batch[start : start + _QUESTIONS_AT_ONCE]
            try:
                told = await self._post(source, CheckBatch(questions=part))
            except (ClientError, TimeoutError, OSError, ValidationError) as error:
                QUESTIONS.labels(source, "failed").inc(len(part))
                log.warning("source does not answer", source=source, error=f"{type(error).__name__}"[:300])
                return None
            QUESTIONS.labels(source, "answered").inc(len(part))
            asked_for = {(question.item_id, question.check) for question in part}
            for answer in told.answers:
                if (answer.item_id, answer.check) in asked_for:
                    answers.setdefault(answer.item_id, {})[answer.check] = answer
        return answers

    async def _post(self, source: str, batch: CheckBatch) -> CheckAnswers:
        body = batch.model_dump_json().encode()
        url = f"{str(self._settings.source_urls[source]).rstrip('/')}/v1/checks"
        secret = self._settings.source_secrets[source].get_secret_value()
        async with self._http.post(
            url,
            data=body,
            headers=sign(secret, uuid.uuid4().hex, body),
            allow_redirects=False,
            timeout=self._timeout,
        ) as response:
            response.raise_for_status()
            if response.status != 200:
                raise ClientError(f"HTTP {response.status}")
            return CheckAnswers.model_validate_json(await response.content.read(_MAX_ANSWER_BYTES))

    async def _settle(self, token: str, results: Sequence[_Asked], *, attempted: bool) -> None:
        """Keep what was found, and grant what needs nobody, in one transaction."""

        asked = {each.stored.review.item_id: each for each in results}

        async def work(unit: UnitOfWork, ids: Sequence[str]) -> None:
            held = {"_id": {"$in": list(ids)}, "verification.lease": token}
            writes: list[UpdateOne] = []
            for stored in await self._reviews.where(held, unit.session):
                each = asked[stored.review.item_id]
                over = stored.review.state in ENDED
                waits = not over and any(finding.is_open for finding in each.findings)
                changed: Document = {"verification.findings": [asdict(f) for f in each.findings]}
                removed: Document = {"verification.lease": ""}
                if attempted:
                    changed["verification.attempts"] = each.attempts + 1
                if waits:
                    wait = self._policy.delay(each.attempts + 1)
                    changed["verification.next_attempt_at"] = unit.now + wait
                else:
                    changed["verification.completed_at"] = unit.now
                    removed["verification.next_attempt_at"] = ""
                if not waits and not over:
                    changed |= await self._let_through(unit, stored, each.findings)
                writes.append(UpdateOne({"_id": stored.review.item_id}, {"$set": changed, "$unset": removed}))
            if writes:
                await self._documents.bulk_write(writes, session=unit.session, ordered=False)

        await self._rows.run(list(asked), work)

    async def _let_through(
        self, unit: UnitOfWork, stored: StoredReview, findings: Sequence[Finding]
    ) -> Document:
        """Grant without a person where the department has settled that; what is to be kept of it."""
        review = stored.review
        department = self._departments[review.department.code]
        settled = self._settings.auto_grant.get(department.slug)
        if settled is None or not needs_nobody(review, findings, frozenset(settled.tiers)):
            return {}
        year = china_date(unit.now).year
        serial = await self._reviews.next_serial(department.code, year, unit.session)
        number = decision_number(department.short_name, Action.GRANT, year, serial)
        command = Command(Action.GRANT, by=AUTOMATIC, from_desk=True, number=number)
        await apply(
            unit,
            self._reviews,
            stored,
            command,
            self._settings.catalogue.calendar,
            cause=f"verified:{review.item_id}",
        )
        sampled = is_sampled(review.item_id, settled.sample_percent)
        return {"verification.automatic": True, "verification.sampled": sampled}


async def spot_check(
    database: Database, item_id: str, finding: Document, session: Session | None = None
) -> bool:
    """Keep what an officer found of an automatic decision that was drawn; False when it was not drawn, or looked at already."""
    result = await database.collection("reviews").update_one(
        {"_id": item_id, "verification.sampled": True, "verification.spot_check": None},
        {"$set": {"verification.spot_check": finding}},
        session=session,
    )
    return bool(result.modified_count)
