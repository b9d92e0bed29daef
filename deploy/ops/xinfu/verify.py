"""`xinfu verify`: the invariants of every service, and those that only show when services are compared."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.http.verification import (
    MAX_IDS,
    InvariantReport,
    InvariantReports,
    ItemPage,
    ItemQuestion,
    ItemStanding,
    ItemStandings,
    RecordQuestion,
    RecordStanding,
    RecordStandings,
    Violation,
)
from contracts.records import DisplayState
from xinfu.durations import duration
from xinfu.operators import UNANSWERED, Services, operate
from xinfu.parity import Report, Since, compare
from xinfu.terminal import DataDir, console
from xinfu_local import DEFAULT_DATA_DIR

ACROSS = "跨服务"
BOOKS_AGREE = "inbox-and-outbox-agree"
SERVICES_AGREE = "services-agree"
_EXAMPLES = 100
_SUSPECTS_AT_MOST = 10_000
_LOOK_AGAIN_SECONDS = 2.0
_TIMEOUT_SECONDS = 600.0


@dataclass
class Verification:
    """What a verification found. ``reports``: (service, report); ``failures``: service -> why it could not be checked."""

    reports: list[tuple[str, InvariantReport]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def violated(self) -> dict[str, int]:
        """Invariants that do not hold, with the number of violations."""
        found: dict[str, int] = {}
        for _, report in self.reports:
            if report.violations:
                found[report.name] = found.get(report.name, 0) + report.violations
        return found

    @property
    def holds(self) -> bool:
        """Everything could be checked, and nothing is violated."""
        return not self.violated and not self.failures

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "holds": self.holds,
            "seconds": round(self.seconds, 2),
            "failures": self.failures,
            "invariants": [{"service": s, **report.model_dump(mode="json")} for s, report in self.reports],
        }


# --- across services


def item_fault(item: ItemStanding, review: ItemStanding | None, record: RecordStanding | None) -> str | None:
    """How intake, dept-adapter and sync disagree about an item (zh-CN); None: they do not. Pure."""
    if item.department is None:
        return None if review is None else "认定单位已收到，受理方却不知道分派给了谁"
    if review is None:
        return f"已分派给 {item.department}，部门审核中却没有这一事项"
    if item.department != review.department:
        return f"受理方记为分派给 {item.department}，部门审核记为 {review.department}"
    ours, theirs = (item.decision, item.decision_number), (review.decision, review.decision_number)
    if ours != theirs:
        return f"受理方记录的决定是 {_decision(*ours)}，部门审核的是 {_decision(*theirs)}"
    if item.decision not in ("granted", "recognised", "revoked"):
        return None
    if record is None or record.version < 1:
        return f"决定为 {_decision(*ours)}，公示同步却没有这条记录"
    if record.item_id != item.item_id:
        return None  # a later application for the same record
    state = DisplayState.PUBLISHED if item.decision == "revoked" else DisplayState.PUBLICATION_ENDED
    if (record.state, record.decision_number) != (state.value, item.decision_number):
        return f"决定为 {_decision(*ours)}，公示同步依据的却是 {record.decision_number}（{record.state}）"
    return None


def _decision(decision: str | None, number: str | None) -> str:
    return f"{decision}（{number}）" if decision else "尚未决定"


class _Across:
    """Compares item by item, a thousand at a time. What disagrees is looked at again until it has had time to settle."""

    def __init__(self, services: Services, settle_seconds: float) -> None:
        self._services = services
        self._settle_seconds = settle_seconds

    async def report(self) -> InvariantReport:
        checked = 0
        suspects: dict[str, str] = {}
        after: str | None = None
        while len(suspects) < _SUSPECTS_AT_MOST:
            page = await self._services.ask(ItemPage, "intake", "items", after=after)
            checked += len(page.items)
            suspects |= await self._faults(page.items)
            after = page.next
            if after is None:
                break
        deadline = time.monotonic() + self._settle_seconds
        while suspects and (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK_AGAIN_SECONDS))
            suspects = await self._again(list(suspects))
        return InvariantReport(
            name=SERVICES_AGREE,
            title="受理、部门审核、公示同步对每个事项的决定一致，准予的都已交付同步",
            checked=checked,
            violations=len(suspects),
            examples=[Violation(id=i, problem=p) for i, p in islice(suspects.items(), _EXAMPLES)],
            counts={},
        )

    async def _again(self, item_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(item_ids), MAX_IDS):
            question = ItemQuestion(item_ids=list(item_ids[start : start + MAX_IDS]))
            answer = await self._services.post(ItemStandings, "intake", "items/lookup", question)
            found |= await self._faults(answer.items)
        return found

    async def _faults(self, items: Sequence[ItemStanding]) -> dict[str, str]:
        """Item id -> fault. Intake was asked first: the others are at least as far, unless something is wrong."""
        if not items:
            return {}
        reviews, records = await asyncio.gather(
            self._services.post(
                ItemStandings,
                "dept-adapter",
                "items/lookup",
                ItemQuestion(item_ids=[item.item_id for item in items]),
            ),
            self._services.post(
                RecordStandings,
                "sync",
                "records/lookup",
                RecordQuestion(record_ids=list({item.record_id for item in items})),
            ),
        )
        by_item = {review.item_id: review for review in reviews.items}
        by_record = {record.record_id: record for record in records.records}
        return {
            item.item_id: fault
            for item in items
            if (fault := item_fault(item, by_item.get(item.item_id), by_record.get(item.record_id)))
        }


def _books(report: Report) -> InvariantReport:
    """The report of a comparison as that of an invariant."""
    examples = [
        *(
            (id_, f"{d.consumer} 没有收到（主题 {d.topic}）")
            for d in report.differences
            for id_ in d.examples
        ),
        *((id_, f"发件箱中的行无法读取：{problem}") for id_, problem in report.unreadable.items()),
        *((id_, "收到并生效，但没有服务发出过") for id_ in report.unexplained),
    ]
    return InvariantReport(
        name=BOOKS_AGREE,
        title="发件箱与收件箱一致：已提交的都已发布，已发布的都已收到，收到的都确有其事",
        checked=report.total("emitted"),
        violations=report.total("missing") + len(report.unreadable) + len(report.unexplained),
        examples=[Violation(id=id_, problem=problem) for id_, problem in examples[:_EXAMPLES]],
        counts={"pending": sum(report.pending.values())},
    )


async def verify(
    services: Services, *, settle_seconds: float = 60.0, since: timedelta = timedelta(hours=24)
) -> Verification:
    """Check every invariant now. The session behind ``services`` should allow some minutes for a call.

    What changed less than ``settle_seconds`` ago may still be on its way; 0 after everything has been drained. Events are
    compared from ``since`` ago on, documents all.
    """
    started = time.monotonic()
    found = Verification()

    async def own(service: str) -> None:
        try:
            answer = await services.ask(
                InvariantReports, service, "invariants", settle_seconds=settle_seconds
            )
            found.reports += [(service, report) for report in answer.invariants]
        except UNANSWERED as error:
            found.failures[service] = f"{type(error).__name__}: {error}"[:300]

    async def across() -> None:
        try:
            found.reports.append((ACROSS, await _Across(services, settle_seconds).report()))
        except UNANSWERED as error:
            found.failures[ACROSS] = f"{type(error).__name__}: {error}"[:300]

    async def books() -> None:
        now = datetime.now(UTC)
        report = await compare(
            services,
            since=now - since,
            until=now - timedelta(seconds=settle_seconds) if settle_seconds else None,
            backwards=now - since,
        )
        found.reports.append((ACROSS, _books(report)))
        found.failures |= report.failures

    await asyncio.gather(*(own(service) for service in services.urls), across(), books())
    found.reports.sort(key=lambda each: (each[1].name, each[0]))
    found.seconds = time.monotonic() - started
    return found


def show(verification: Verification, console: Console) -> None:
    """As people read it; a few examples of each violation."""
    table = Table("不变量", "服务", "核对", "违反", "另计")
    for service, report in verification.reports:
        counts = "  ".join(f"{name} {number}" for name, number in report.counts.items() if number)
        colour = "red" if report.violations else "green"
        table.add_row(
            f"{report.title}\n[dim]{report.name}[/dim]",
            service,
            str(report.checked),
            f"[{colour}]{report.violations}[/{colour}]",
            counts,
        )
    console.print(table)
    for service, report in verification.reports:
        for example in report.examples[:5]:
            console.print(
                f"[red]{report.name}[/red] {service} {example.id} {example.problem}", highlight=False
            )
    for service, reason in verification.failures.items():
        console.print(f"[red]{service} 无法核对[/red]：{reason}", highlight=False)
    verdict = "[green]全部成立[/green]" if verification.holds else "[red]有不变量被违反或无法核对[/red]"
    console.print(f"{verdict}，用时 {verification.seconds:.1f} 秒")


def verify_command(
    settle_seconds: Annotated[
        float, typer.Option(min=0, help="这么多秒之内的变化可能还在路上，不算违反")
    ] = 60,
    since: Since = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="以 JSON 打印全部结果")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """核对不变量：各服务的和跨服务的。全部成立时退出状态为 0，否则为 1。"""
    window = duration(since)

    async def work(services: Services) -> bool:
        found = await verify(services, settle_seconds=settle_seconds, since=window)
        if as_json:
            print(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
        else:
            show(found, console)
        return found.holds

    operate(data_dir, work, _TIMEOUT_SECONDS)
