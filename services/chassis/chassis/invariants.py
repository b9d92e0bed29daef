"""Invariants as code: promises of a service that are checked against its own database (scope ``operations``).

A service names its own (``ServiceSpec.invariants``); the chassis adds those of outbox and consumers. A check goes through the
documents page by page, in bounded memory; what belongs together it reads in one snapshot, so that work in progress is no violation.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request

from chassis.auth import require
from chassis.db import Collection, Document, describe, is_unavailable
from chassis.logs import get_logger
from contracts.http.verification import InvariantReport, InvariantReports, Violation
from contracts.tokens import Claims, Scope

if TYPE_CHECKING:
    from chassis.service import Runtime

log = get_logger(__name__)

PAGE = 500
_EXAMPLES = 100
_COUNTED_AT_MOST = 100_000

Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]


@dataclass
class Findings:
    """What a check has found so far. ``settled_before``: what is younger may still be on its way."""

    settled_before: datetime
    checked: int = 0
    violations: int = 0
    examples: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def violated(self, id_: str, problem: str) -> None:
        """Note a violation; ``problem`` is zh-CN."""
        self.violations += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(Violation(id=id_, problem=problem[:500]))


@dataclass(frozen=True)
class Invariant:
    """A promise: its name (kebab-case), its title (zh-CN), and how to check it."""

    name: str
    title: str
    check: Callable[[Findings], Awaitable[None]]

    async def report(self, settle_seconds: float) -> InvariantReport:
        """Check it now."""
        findings = Findings(datetime.now(UTC) - timedelta(seconds=settle_seconds))
        try:
            await self.check(findings)
        except Exception as error:
            if is_unavailable(error):
                raise
            log.exception("check failed", invariant=self.name)
            findings.violated(self.name, f"未能核对完：{describe(error)}")
        return InvariantReport(
            name=self.name,
            title=self.title,
            checked=findings.checked,
            violations=findings.violations,
            examples=findings.examples,
            counts=dict(findings.counts),
        )


async def pages(
    collection: Collection, query: Document, fields: Document, *, size: int = PAGE
) -> AsyncIterator[list[Document]]:
    """The documents in order of ``_id``. No cursor stays open between pages, so a step-down costs one page."""
    after: Document = {}
    while True:
        found = await collection.find({**query, **after}, fields).sort("_id", 1).limit(size).to_list(size)
        if found:
            yield found
        if len(found) < size:
            return
        after = {"_id": {"$gt": found[-1]["_id"]}}


BOOKS_AGREE = "inbox-and-outbox-agree"
BOOKS_AGREE_TITLE = "发件箱与收件箱一致：已提交的都已发布，已发布的都已收到，收到的都确有其事"


def common(runtime: "Runtime") -> Sequence[Invariant]:
    """Those of every service."""
    database = runtime.database
    outbox, keys, letters = (database.collection(n) for n in ("outbox", "parked_keys", "dead_letters"))

    async def check(findings: Findings) -> None:
        # an event that is published again keeps its published_at
        late = {
            "pending": True,
            "published_at": None,
            "created_at": {"$not": {"$gte": findings.settled_before}},
        }
        rows = outbox.find(late, {"topic": 1}).hint("pending_by_bucket")
        async for row in rows:
            findings.violated(str(row["_id"]), f"待发布的事件（主题 {row.get('topic')}）迟迟没有发布")
        findings.checked = await outbox.estimated_document_count()
        limit = _COUNTED_AT_MOST
        for state in ("parked", "dead"):
            findings.counts[f"{state}_keys"] = await keys.count_documents({"state": state}, limit=limit)
        # a letter without a state is of a version that knew only open ones
        open_letters = {"state": {"$in": ["open", None]}}
        findings.counts["open_dead_letters"] = await letters.count_documents(open_letters, limit=limit)

    return [Invariant(BOOKS_AGREE, BOOKS_AGREE_TITLE, check)]


def invariants_router(own: Callable[["Runtime"], Sequence[Invariant]]) -> APIRouter:
    """The route; ``own``: the service's own invariants."""
    router = APIRouter(prefix="/v1/operations", tags=["运维：不变量"])

    @router.get("/invariants", summary="核对本服务的不变量")
    async def invariants(
        request: Request,
        _operator: Operator,
        settle_seconds: Annotated[float, Query(ge=0, le=86_400)] = 60,
    ) -> InvariantReports:
        """Check all of them now. What changed less than ``settle_seconds`` ago may still be on its way."""
        runtime: Runtime = request.app.state.runtime
        every = [*own(runtime), *common(runtime)]
        return InvariantReports(invariants=[await each.report(settle_seconds) for each in every])

    return router
