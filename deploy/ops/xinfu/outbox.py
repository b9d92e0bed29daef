"""`xinfu outbox`: what waits to be published, and publishing it all again (the bus has lost its data)."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.clock import CHINA_STANDARD_TIME
from contracts.http.operations import COUNTED_AT_MOST, OutboxStatus, Replay, Replayed
from xinfu.durations import duration
from xinfu.operators import Reason, Services, chosen, everyone, operate, show_failures
from xinfu.terminal import DataDir, age, clock_time, console, fail
from xinfu_local import DEFAULT_DATA_DIR

outbox_app = typer.Typer(no_args_is_help=True, help="发件箱：查看、重放。")
_POLL_SECONDS = 0.5
_STALLED_SECONDS = 15

Service = Annotated[str | None, typer.Option(help="只看这个服务")]


def moment(text: str) -> datetime:
    """``2026-11-23T10:00`` (China time unless it has an offset), or ``2h``: so long ago. Raises typer.BadParameter."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=CHINA_STANDARD_TIME)
    try:
        return datetime.now(UTC) - duration(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error}；或写成时刻 2026-11-23T10:00") from None


def counted(number: int) -> str:
    """A bounded count."""
    return f"≥ {number}" if number >= COUNTED_AT_MOST else str(number)


async def _status(services: Services, name: str) -> OutboxStatus:
    return await services.ask(OutboxStatus, name, "outbox")


@outbox_app.command()
def status(service: Service = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """各服务、各主题待发布和可重放的事件。"""

    async def work(services: Services) -> bool:
        answers, failures = await everyone(chosen(services, service), lambda name: _status(services, name))
        table = Table("服务", "主题", "待发布", "最久已等", "可重放")
        for name, outbox in answers.items():
            for topic in outbox.topics:
                table.add_row(
                    name,
                    topic.topic,
                    f"[red]{counted(topic.pending)}[/red]" if topic.pending else "0",
                    age(topic.oldest_pending_at),
                    counted(topic.published),
                )
            last = clock_time(outbox.last_published_at) if outbox.last_published_at else "从未"
            table.add_row(
                f"{name} 合计", f"最近一次发布 {last}", counted(outbox.pending), "", "", end_section=True
            )
        console.print(table)
        show_failures(failures)
        return not failures

    operate(data_dir, work)


@outbox_app.command()
def replay(
    reason: Reason,
    service: Annotated[str | None, typer.Option(help="只重放这个服务的；默认全部服务")] = None,
    topic: Annotated[str | None, typer.Option(help="只重放这个主题的；默认全部主题")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="时间", help="只重放此后产生的：2026-11-23T10:00，或 2h、3d（之前）"
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """把已发布的事件按原次序再发一遍；已生效的由收件箱丢弃，重复执行无害。

    每步标记至多 1,000 条，标记只用数据库：总线不通时也可先标记，恢复后自动发布。中断后重来即可。
    """

    async def work(services: Services) -> bool:
        answers, failures = await everyone(chosen(services, service), lambda name: _status(services, name))
        if topic is not None:
            known = {each.topic for outbox in answers.values() for each in outbox.topics}
            answers = {n: o for n, o in answers.items() if topic in {each.topic for each in o.topics}}
            if not answers and not failures:
                fail(f"没有主题 {topic} 的事件；有的是：{'、'.join(sorted(known))}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            tasks = {name: progress.add_task(name, total=None, note="标记") for name in answers}
            body = Replay(reason=reason, topic=topic, since=since)
            done, broken = await everyone(
                tasks, lambda name: _replay(services, name, body, progress, tasks[name])
            )
        for name, marked in done.items():
            console.print(f"[green]✓[/green] {name}：{marked} 条已全部重新发布", highlight=False)
        console.print(f"合计 {sum(done.values())} 条", highlight=False)
        show_failures(failures | broken)
        return not failures and not broken

    operate(data_dir, work)


async def _replay(services: Services, name: str, body: Replay, progress: Progress, task: TaskID) -> int:
    """Mark all in steps, then wait until they are published; returns how many."""
    marked = 0
    after: str | None = None
    while True:
        step = await services.post(Replayed, name, "outbox/replay", body.model_copy(update={"after": after}))
        marked += step.marked
        progress.update(task, total=marked, note="标记")
        after = step.next
        if after is None:
            break
    until = datetime.now(UTC)
    least, stalled = marked, 0.0
    while True:
        outbox = await _status(services, name)
        # what is emitted meanwhile waits too, behind what is replayed
        oldest = outbox.oldest_pending_at
        left = 0 if oldest is None or oldest > until else min(outbox.pending, marked)
        stalled = 0.0 if left < least else stalled + _POLL_SECONDS
        least = min(left, least)
        note = "发布" if stalled < _STALLED_SECONDS else "发不出去：总线恢复后会自动发布，可以 Ctrl-C"
        progress.update(task, completed=marked - left, note=note if left else "完成")
        if not left:
            return marked
        await asyncio.sleep(_POLL_SECONDS)
