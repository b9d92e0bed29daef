"""Parity: what each owner has published, compared by event id with what each consumer has taken, and the reverse.

What is missing is published again by its owner, at most ``GIVE_UP_AFTER`` times: then a person has to look. Nothing that may
still be on its way is published again: a consumer tells up to when it has taken everything from the bus.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from aiohttp import ClientSession, ClientTimeout
from rich.console import Console
from rich.table import Table

from chassis.logs import configure_logs, get_logger
from contracts.http.operations import Replay, Replayed
from contracts.http.verification import (
    Consumer,
    Consumers,
    IdList,
    IdPage,
    IdQuestion,
    InboxQuestion,
    OutboxEvent,
    OutboxPage,
)
from contracts.topics import declaration
from xinfu.client import Citizenry
from xinfu.compose import Endpoints
from xinfu.durations import duration
from xinfu.operators import PATIENCE_SECONDS, UNANSWERED, Services, chosen, operate
from xinfu.terminal import DataDir, console
from xinfu_local import DEFAULT_DATA_DIR

log = get_logger(__name__)

GIVE_UP_AFTER = 5
"""Times an event is published again for a consumer that still misses it."""
_EXAMPLES = 20
_TOPICS_AT_ONCE = 4
_OVERLAP = timedelta(minutes=10)
"""How far a scheduled run looks back behind what it has found complete: a transaction is committed after its events' time."""
Since = Annotated[str, typer.Option(metavar="时长", help="核对多久以来的事件，如 24h、7d")]

# --- the comparison


@dataclass
class Difference:
    """One topic at one consumer. ``late``: missing ones that may still be on their way; ``repaired``: published again just now.

    ``given_up``: missing ones that were published again often enough.
    """

    topic: str
    owner: str
    consumer: str
    emitted: int = 0
    missing: int = 0
    late: int = 0
    given_up: int = 0
    repaired: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Events that arrived: done, parked or put aside for a person."""
        return self.emitted - self.missing


def take_in(
    difference: Difference,
    events: Sequence[OutboxEvent],
    missing: Collection[str],
    taken_until: datetime | None,
) -> list[str]:
    """Count a page of events of which the consumer misses some; returns the ids to publish again. Pure but for ``difference``."""
    difference.emitted += len(events)
    again: list[str] = []
    for event in events:
        if event.id not in missing:
            continue
        difference.missing += 1
        if len(difference.examples) < _EXAMPLES:
            difference.examples.append(event.id)
        if taken_until is None or event.published_at >= taken_until:
            difference.late += 1
        elif event.replays >= GIVE_UP_AFTER:
            difference.given_up += 1
        else:
            again.append(event.id)
    return again


@dataclass
class Report:
    """What a comparison found.

    ``unreadable``: rows of an outbox that are none, "<owner>/<id>" -> what is wrong. ``unexplained``: "<consumer>/<id>" taken
    but never emitted. ``failures``: service -> why it could not be asked. ``pending``: by topic, still to be published.
    ``complete``: topics of which every event has arrived everywhere, or was given up.
    """

    differences: list[Difference] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)

    def total(self, name: str) -> int:
        """The sum of a number over all differences."""
        return sum(getattr(difference, name) for difference in self.differences)

    @property
    def agrees(self) -> bool:
        """Everybody answered, nothing is missing that was not published again, nothing is unexplained or unreadable."""
        left = self.total("missing") - self.total("repaired")
        return not (left or self.unreadable or self.unexplained or self.failures)

    def failed(self, service: str, error: Exception) -> None:
        """Note that a service could not be asked."""
        self.failures.setdefault(service, f"{type(error).__name__}: {error}"[:300])

    def as_json(self) -> dict[str, Any]:
        """For logs and other programs."""
        return {
            **asdict(self),
            "complete": sorted(self.complete),
            **{name: self.total(name) for name in ("emitted", "missing", "late", "given_up", "repaired")},
        }


# --- asking


@dataclass(frozen=True)
class _Taker:
    service: str
    consumer: Consumer
    difference: Difference


class _Comparison:
    def __init__(self, services: Services, until: datetime | None, repair: bool) -> None:
        self.services = services
        self.report = Report()
        self._until = until.isoformat() if until else None
        self._repair = repair

    async def consumers(self) -> dict[str, Consumers]:
        async def ask(service: str) -> tuple[str, Consumers] | None:
            try:
                return service, await self.services.ask(Consumers, service, "consumers")
            except UNANSWERED as error:
                self.report.failed(service, error)
                return None

        answers = await asyncio.gather(*map(ask, self.services.urls))
        return dict(answer for answer in answers if answer)

    # forwards

    async def topic(self, topic: str, owner: str, takers: list[_Taker], since: datetime) -> None:
        self.report.differences += [taker.difference for taker in takers]
        asked = list(takers)
        after: str | None = None
        while asked:
            try:
                page = await self.services.ask(
                    OutboxPage,
                    owner,
                    "outbox/events",
                    topic=topic,
                    since=since.isoformat(),
                    until=self._until,
                    after=after,
                )
            except UNANSWERED as error:
                self.report.failed(owner, error)
                return
            self.report.unreadable |= {f"{owner}/{row.id}": row.problem for row in page.unreadable}
            if page.pending is not None:
                self.report.pending[topic] = page.pending
            again: dict[str, list[Difference]] = defaultdict(list)
            for taker in list(asked):
                try:
                    ids = await self._missing(taker, page.events)
                except UNANSWERED as error:
                    self.report.failed(taker.service, error)
                    asked.remove(taker)
                    continue
                for id_ in ids:
                    again[id_].append(taker.difference)
            if again and self._repair:
                await self._publish_again(owner, again)
            after = page.next
            if after is None:
                break
        if (
            len(asked) == len(takers)
            and not self.report.pending.get(topic)
            and all(taker.difference.missing == taker.difference.given_up for taker in takers)
        ):
            self.report.complete.add(topic)

    async def _missing(self, taker: _Taker, events: Sequence[OutboxEvent]) -> list[str]:
        """Ask a consumer; returns the ids to publish again."""
        by_source: dict[str, list[OutboxEvent]] = defaultdict(list)
        for event in events:
            if event.type in taker.consumer.types:
                by_source[event.source].append(event)
        again: list[str] = []
        for source, own in by_source.items():
            question = InboxQuestion(
                consumer=taker.consumer.name, source=source, ids=[event.id for event in own]
            )
            answer = await self.services.post(IdList, taker.service, "inbox/missing", question)
            again += take_in(taker.difference, own, set(answer.ids), taker.consumer.taken_until)
        return again

    async def _publish_again(self, owner: str, again: Mapping[str, Sequence[Difference]]) -> None:
        try:
            replay = Replay(reason="对账：补发缺失的事件", ids=list(again))
            await self.services.post(Replayed, owner, "outbox/replay", replay)
        except UNANSWERED as error:
            self.report.failed(owner, error)
            return
        for differences in again.values():
            for difference in differences:
                difference.repaired += 1

    # backwards

    async def backwards(self, service: str, consumer: str, owner: str, source: str, since: datetime) -> None:
        """Nothing was taken that its owner never emitted."""
        asked, after = service, None
        while True:
            try:
                asked = service
                page = await self.services.ask(
                    IdPage,
                    service,
                    "inbox/ids",
                    consumer=consumer,
                    source=source,
                    since=since.isoformat(),
                    after=after,
                )
                asked = owner
                answer = await self.services.post(IdList, owner, "outbox/unknown", IdQuestion(ids=page.ids))
            except UNANSWERED as error:
                self.report.failed(asked, error)
                return
            self.report.unexplained += [f"{consumer}/{id_}" for id_ in answer.ids]
            after = page.next
            if after is None:
                return


async def compare(
    services: Services,
    *,
    since: datetime,
    resume: Mapping[str, datetime] | None = None,
    until: datetime | None,
    repair: bool = False,
    owner: str | None = None,
    backwards: datetime | None = None,
) -> Report:
    """Compare the books of all services.

    Of events created from ``since`` on (of a topic in ``resume``: from then on) and published until ``until``. ``owner``: only what this one emits.
    ``backwards``: look for effects without a cause too, from this time on. A service that does not answer is reported; the
    others are compared all the same.
    """
    comparison = _Comparison(services, until, repair)
    report = comparison.report
    consumers = await comparison.consumers()
    takers: dict[tuple[str, str], list[_Taker]] = defaultdict(list)
    for service, answer in consumers.items():
        for consumer in answer.consumers:
            for topic in consumer.topics:
                declared = declaration(topic)
                if declared and declared.owner in services.urls and owner in (None, declared.owner):
                    difference = Difference(topic, declared.owner, consumer.name)
                    takers[topic, declared.owner].append(_Taker(service, consumer, difference))
    slots = asyncio.Semaphore(_TOPICS_AT_ONCE)

    async def one(work: Any) -> None:
        async with slots:
            await work

    work = [
        comparison.topic(topic, by, own, (resume or {}).get(topic, since))
        for (topic, by), own in takers.items()
    ]
    if backwards is not None:
        work += [
            comparison.backwards(service, consumer.name, by, consumers[by].source, backwards)
            for service, answer in consumers.items()
            for consumer in answer.consumers
            for by in sorted(consumers)
            if owner in (None, by)
        ]
    await asyncio.gather(*map(one, work))
    if report.failures:
        # whoever did not answer may consume any topic
        report.complete.clear()
    return report


# --- on a schedule


async def watch(
    data_dir: Path,
    every_seconds: float,
    window: timedelta,
    grace: timedelta,
    repair: bool,
    owner: str | None,
) -> NoReturn:
    """Compare for ever, one JSON line a run.

    The first run looks at ``window``; later ones at what was not complete the last time, and a little further back.
    """
    resume: dict[str, datetime] = {}
    while True:
        started = time.monotonic()
        try:
            until = datetime.now(UTC) - grace
            endpoints = Endpoints.read(data_dir)
            async with ClientSession(timeout=ClientTimeout(total=60)) as session:
                client = await Citizenry(session, endpoints).ops(PATIENCE_SECONDS)
                report = await compare(
                    Services(client, endpoints.services),
                    since=until - window,
                    resume=resume,
                    until=until,
                    repair=repair,
                    owner=owner,
                )
            resume |= dict.fromkeys(report.complete, until - _OVERLAP)
            _log(report, time.monotonic() - started)
        except Exception as error:
            # whatever it is, the next run may succeed
            log.warning("parity could not be checked", error=f"{type(error).__name__}: {error}"[:300])
        await asyncio.sleep(max(every_seconds - (time.monotonic() - started), 0.1))


def _log(report: Report, seconds: float) -> None:
    totals = {name: report.total(name) for name in ("emitted", "missing", "late", "given_up", "repaired")}
    facts: dict[str, Any] = {**totals, "seconds": round(seconds, 2)}
    if report.agrees and not report.total("missing"):
        log.info("parity", **facts)
        return
    facts["differences"] = [asdict(d) for d in report.differences if d.missing]
    facts |= {"unreadable": report.unreadable, "failures": report.failures}
    log.warning("parity", **facts)


# --- the command


def parity(
    repair: Annotated[bool, typer.Option("--repair", help="由发出者补发缺失的事件")] = False,
    since: Since = "24h",
    grace_seconds: Annotated[float, typer.Option(min=0, help="发布不到这么多秒的不算缺失")] = 30,
    every_seconds: Annotated[
        float | None, typer.Option(min=1, help="每隔这么多秒核对一次，一直运行，日志为 JSON")
    ] = None,
    service: Annotated[str | None, typer.Option(help="只核对这个服务发出的")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """对账：逐条比较各服务已发出的事件与各消费者已收到的。没有缺失，或缺失的都已补发，退出状态为 0，否则为 1。"""
    window = duration(since)
    if every_seconds is not None:
        configure_logs("parity", "INFO")
        asyncio.run(watch(data_dir, every_seconds, window, timedelta(seconds=grace_seconds), repair, service))

    async def work(services: Services) -> bool:
        if service:
            chosen(services, service)
        now = datetime.now(UTC)
        report = await compare(
            services,
            since=now - window,
            until=now - timedelta(seconds=grace_seconds),
            repair=repair,
            owner=service,
            backwards=now - window,
        )
        show(report, console)
        return report.agrees

    operate(data_dir, work)


def show(report: Report, console: Console) -> None:
    """As people read it: the differences, with some ids each."""
    table = Table("主题", "发出者", "消费者", "已发出", "已收到", "缺失", "或在路上", "已补发", "不再补发")
    for d in sorted(report.differences, key=lambda each: (each.topic, each.consumer)):
        if d.emitted:
            numbers = (d.emitted, d.done, d.missing, d.late, d.repaired, d.given_up)
            table.add_row(d.topic, d.owner, d.consumer, *map(str, numbers))
    console.print(table)
    for d in report.differences:
        for id_ in d.examples:
            console.print(f"[yellow]缺失[/yellow] {d.topic} → {d.consumer} {id_}", highlight=False)
    for id_, problem in report.unreadable.items():
        console.print(f"[red]发件箱中的行无法读取[/red] {id_} {problem}", highlight=False)
    for id_ in report.unexplained[:_EXAMPLES]:
        console.print(f"[red]收到过，但没有服务发出过[/red] {id_}", highlight=False)
    for service, reason in report.failures.items():
        console.print(f"[red]{service} 无法核对[/red]：{reason}", highlight=False)
    verdict = "[green]一致[/green]" if report.agrees else "[red]不一致[/red]"
    console.print(
        f"{verdict}：已发出 {report.total('emitted')}，缺失 {report.total('missing')}，补发 {report.total('repaired')}"
    )
