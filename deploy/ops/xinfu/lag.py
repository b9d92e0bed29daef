"""`xinfu lag`: how far every consumer group is behind, by topic."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from contracts.http.operations import ConsumerStatus, ServiceStatus
from xinfu.operators import Services, chosen, everyone, operate, show_failures
from xinfu.outbox import counted
from xinfu.terminal import DataDir, age, console, lasting
from xinfu_local import DEFAULT_DATA_DIR, Broker, RunningStack, StackError

_STALLED_SECONDS = 10
_WHY = "总线不通，或它的位点互相矛盾（丢过数据）。"
_EMBEDDED = "嵌入式总线报的末尾位点偏小，不采用。"


def lag(
    service: Annotated[str | None, typer.Option(help="只看这个服务")] = None,
    every_topic: Annotated[bool, typer.Option("--all", help="没有积压的主题也列出")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """各消费组的积压（取自总线：末尾位点减已提交位点）、最久等待的事件、停放的键。"""

    async def work(services: Services) -> bool:
        answers, failures = await everyone(
            chosen(services, service), lambda name: services.ask(ServiceStatus, name, "status")
        )
        trusted = _ends_are_right(data_dir)
        table = Table("消费组", "主题", "积压", "最久已等", "停放", "停顿")
        untold = []
        for answer in answers.values():
            for consumer in answer.consumers:
                if not trusted:
                    consumer = consumer.model_copy(update={"bus_lag": None})
                _rows(table, consumer, every_topic)
                if consumer.bus_lag is None:
                    untold.append(consumer.name)
        console.print(table)
        if untold:
            console.print(
                f"[yellow]* {'、'.join(untold)}：{_WHY if trusted else _EMBEDDED}"
                "积压是回答的那个副本自报的，只含它读过的分区。[/yellow]",
                soft_wrap=True,
            )
        show_failures(failures)
        return not failures

    operate(data_dir, work)


def _ends_are_right(data_dir: Path) -> bool:
    """Not so on the embedded broker: it tells the beginning of the last batch for the end of a partition (measured)."""
    try:
        return RunningStack.find(data_dir).description.broker != Broker.EMBEDDED.value
    except StackError:
        return True


def _rows(table: Table, consumer: ConsumerStatus, every_topic: bool) -> None:
    topics = consumer.bus_lag
    total = f"{consumer.lag} *" if topics is None else str(sum(topic.lag for topic in topics))
    waiting = [t.oldest_waiting_at for t in topics or () if t.oldest_waiting_at]
    stalled = consumer.stalled_seconds
    table.add_row(
        consumer.name,
        f"合计（{len(consumer.topics)}）",
        total,
        age(min(waiting, default=None)),
        _parked(consumer),
        f"[red]{lasting(stalled)}[/red]" if stalled > _STALLED_SECONDS else "—",
    )
    for topic in topics or ():
        if topic.lag or every_topic:
            table.add_row("", topic.topic, str(topic.lag), age(topic.oldest_waiting_at), "", "")
    table.add_section()


def _parked(consumer: ConsumerStatus) -> str:
    if not consumer.parked_events:
        return "—"
    dead = f"，[red]等人处理 {counted(consumer.dead_keys)} 键[/red]" if consumer.dead_keys else ""
    keys = f"重试中 {counted(consumer.parked_keys)} 键{dead}"
    return f"{keys}，共 {counted(consumer.parked_events)} 个事件"
