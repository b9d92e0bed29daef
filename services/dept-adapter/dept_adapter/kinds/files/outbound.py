"""Batch files for a department: reviews, supplements and cancellations that are due, numbered without gaps.

A batch is first kept, then written: the file under a name of its own, renamed, its manifest last. Whatever is cut off, the same batch
is written again; once its manifest is there, it is never touched again.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from aiohttp import ClientError
from opentelemetry.trace import SpanKind

from chassis.file_store import Files
from chassis.logs import get_logger
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from chassis.telemetry import links, remote_context, span_context, tracer
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department, FileForm
from contracts.department_files import MANIFEST, REVIEW_COLUMNS, REVIEWS_FOLDER, manifest_of
from contracts.http.intake import Case
from dept_adapter.kinds.files import tables
from dept_adapter.kinds.files.ledger import Batch, FileLedger, Line
from dept_adapter.kinds.files.rows import review_row
from dept_adapter.kinds.port import Parts
from dept_adapter.states import State
from dept_adapter.store import Claim, PushResult, StoredReview
from dept_adapter.tellings import cancellation, submission

log = get_logger(__name__)
_INTAKE_AWAY = "受理端暂未应答，恢复后自动送部门。"
_NO_CASE = "受理端查无该申请，无法送部门；请在工作台核实后办理。"


class Outbound:
    """Writes the batches of one department."""

    def __init__(self, department: Department, parts: Parts, ledger: FileLedger, rows: Rows) -> None:
        self._department = department
        self._form = department.files or FileForm()
        self._parts = parts
        self._ledger = ledger
        settings = parts.settings
        self._rows = rows
        self._limit = settings.files_batch_rows
        self._lease = timedelta(seconds=settings.files_lease_seconds)
        self._policy = RetryPolicy(
            settings.push_backoff_base_seconds, settings.push_backoff_max_seconds, max_attempts=0
        )
        self._intake_failures = 0

    async def step(self, files: Files) -> bool:
        """Finish the batch that was begun, or write a new one; returns whether there may be more. Raises FilesUnavailableError."""
        batch = await self._ledger.open_batch(self._department.slug)
        if batch is not None:
            stored = await self._parts.reviews.where({"_id": {"$in": [line.item_id for line in batch.lines]}})
            cases = await self._cases(stored)
            if cases is None:
                return False
            await self._write(files, batch, {each.review.item_id: each for each in stored}, cases)
            return True
        now = datetime.now(UTC)
        claim = await self._parts.reviews.claim(
            self._department.slug, self._limit, now, self._lease, self._rows
        )
        if not claim.reviews:
            return False
        cases = await self._cases(claim.reviews)
        if cases is None:
            wait = now + self._policy.delay(self._intake_failures)
            released = [
                _result(each, "released", problem=_INTAKE_AWAY, next_attempt_at=wait)
                for each in claim.reviews
            ]
            await self._parts.reviews.settle(claim.token, released)
            return False
        unknown = [each for each in claim.reviews if each.review.application_id not in cases]
        await self._parts.reviews.settle(
            claim.token, [_result(each, "undeliverable", problem=_NO_CASE) for each in unknown]
        )
        known = [each for each in claim.reviews if each.review.application_id in cases]
        if known:
            batch = await self._keep(claim, sorted(known, key=lambda each: each.review.item_id))
            await self._write(files, batch, {each.review.item_id: each for each in known}, cases)
        return True

    async def _cases(self, reviews: Sequence[StoredReview]) -> dict[str, Case] | None:
        try:
            cases = await self._parts.cases.cases(each.review.application_id for each in reviews)
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            self._intake_failures += 1
            log.warning(
                "intake does not answer; batches wait",
                department=self._department.slug,
                error=f"{type(error).__name__}: {error}"[:300],
            )
            return None
        self._intake_failures = 0
        return cases

    async def _keep(self, claim: Claim, reviews: list[StoredReview]) -> Batch:
        slug = self._department.slug
        lines = [
            Line(
                each.review.item_id,
                _round(each),
                each.review.state is not State.RECEIVED,
                each.review.accept_due_on.isoformat(),
                each.review.decide_due_on.isoformat(),
            )
            for each in reviews
        ]

        async def work(unit: UnitOfWork) -> Batch:
            sequence = await self._parts.channels.next_sequence(slug, unit.session)
            batch = Batch(slug, sequence, unit.now.replace(microsecond=0), lines)
            await self._ledger.add_batch(batch, claim, unit.session)
            return batch

        kept: Batch = await self._parts.runtime.outbox.run(work)
        return kept

    async def _write(
        self, files: Files, batch: Batch, reviews: Mapping[str, StoredReview], cases: Mapping[str, Case]
    ) -> None:
        slug = batch.slug
        name = f"reviews-{batch.sequence:06}.{self._form.format}"
        traces = {line.item_id: reviews[line.item_id].trace for line in batch.lines}
        with tracer.start_as_current_span(
            f"write batch {slug}",
            links=links([span_context(trace) for trace in traces.values()]),
            attributes={"messaging.batch.message_count": len(batch.lines), "xinfu.file": name},
        ):
            if name + MANIFEST not in await files.entries(REVIEWS_FOLDER):
                await self._write_files(files, batch, name, reviews, cases)
        results = []
        for row, line in enumerate(batch.lines, start=1):
            with tracer.start_as_current_span(
                f"write review {slug}",
                remote_context(traces[line.item_id]),
                kind=SpanKind.INTERNAL,
                attributes={
                    "xinfu.item_id": line.item_id,
                    "xinfu.application_id": reviews[line.item_id].review.application_id,
                    "xinfu.department": slug,
                    "xinfu.file": name,
                },
            ):
                results.append(
                    PushResult(line.item_id, line.round, "delivered", datetime.now(UTC), f"{name} 第{row}行")
                )
        await self._parts.reviews.settle("", results)
        await self._ledger.batch_is_written(batch, datetime.now(UTC))
        log.info("batch written", department=slug, file=name, rows=len(batch.lines))

    async def _write_files(
        self,
        files: Files,
        batch: Batch,
        name: str,
        reviews: Mapping[str, StoredReview],
        cases: Mapping[str, Case],
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name
            rows = (self._row(line, reviews[line.item_id], cases) for line in batch.lines)
            tables.write(path, self._form, list(REVIEW_COLUMNS.values()), rows)
            content = path.read_bytes()
        manifest = manifest_of(name, content, len(batch.lines), batch.created_at, batch.sequence)
        await files.write(f"{REVIEWS_FOLDER}/{name}", content)
        await files.write(
            f"{REVIEWS_FOLDER}/{name}{MANIFEST}", manifest.model_dump_json(indent=2).encode() + b"\n"
        )

    def _row(self, line: Line, stored: StoredReview, cases: Mapping[str, Case]) -> list[str]:
        review = replace(
            stored.review,
            accept_due_on=date.fromisoformat(line.accept_due_on),
            decide_due_on=date.fromisoformat(line.decide_due_on),
        )
        if line.cancelled:
            return review_row(cancellation(review))
        case = cases[review.application_id]
        if line.round == 0:
            # what was provided since belongs to the next telling
            case = case.model_copy(update={"supplements": {}})
        return review_row(submission(review, case, self._parts.settings.callback_url(self._department)))


def _round(stored: StoredReview) -> int:
    return int((stored.push or {}).get("round", 0))


def _result(
    stored: StoredReview,
    result: Literal["undeliverable", "released"],
    *,
    problem: str,
    next_attempt_at: datetime | None = None,
) -> PushResult:
    return PushResult(
        stored.review.item_id,
        _round(stored),
        result,
        datetime.now(UTC),
        problem=problem,
        next_attempt_at=next_attempt_at,
    )
