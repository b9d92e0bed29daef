"""`xinfu dlq`: what was put aside, in all services: messages that cannot take effect, and keys whose events keep failing."""

import asyncio
from collections import Counter
from typing import Annotated

import typer
from rich.table import Table

from contracts.http.operations import (
    DeadLetter,
    DeadLetterPage,
    DeadLetterState,
    DeadLetterWhole,
    Discard,
    EventOutcome,
    Why,
)
from contracts.records import Shape
from xinfu.client import RefusedError
from xinfu.operators import Reason, Services, chosen, everyone, operate, show_failures
from xinfu.terminal import DataDir, age, clock_time, console, fail, plain
from xinfu_local import DEFAULT_DATA_DIR

dlq_app = typer.Typer(no_args_is_help=True, help="死信与停放的键：查看、试运行、重新处理、放弃。")

Identity = Annotated[str, typer.Argument(metavar="编号", help="xinfu dlq list 打印的“服务/…”")]

_STATES = {
    DeadLetterState.OPEN: "[red]死信[/red]",
    DeadLetterState.DEAD: "[red]键·等人处理[/red]",
    DeadLetterState.PARKED: "[yellow]键·自动重试中[/yellow]",
    DeadLetterState.REDRIVEN: "[green]死信·已重新处理[/green]",
    DeadLetterState.DISCARDED: "死信·已放弃",
}
_OUTCOMES = {
    "would_succeed": "[green]会成功[/green]",
    "would_fail": "[red]还会失败[/red]",
    "would_be_rejected": "[red]还会被拒收[/red]",
    "already_succeeded": "[green]该事件已经生效[/green]，不会再处理",
    "succeeded": "[green]已生效[/green]",
    "failed": "[red]又失败了，什么都没有改变[/red]",
    "rejected": "[red]又被拒收，什么都没有改变[/red]",
    "queued": "已放行，服务正在按次序重试这个键的事件",
    "discarded": "已放弃",
}
_WATCH_SECONDS = 10


@dlq_app.command("list")
def list_(
    service: Annotated[str | None, typer.Option(help="只看这个服务")] = None,
    state: Annotated[
        DeadLetterState | None, typer.Option(help="默认：open、dead、parked，即还没有人处理的")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="原因里含有这些字，如 not_json")] = None,
    limit: Annotated[int, typer.Option(min=1, help="每个服务最多列出多少条")] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """列出死信和停放的键，先是等人处理的。"""

    async def work(services: Services) -> bool:
        async def ask(name: str) -> tuple[list[DeadLetter], bool]:
            found: list[DeadLetter] = []
            after: str | None = None
            while len(found) < limit:
                page = await services.ask(
                    DeadLetterPage,
                    name,
                    "dead-letters",
                    state=state and state.value,
                    reason=reason,
                    after=after,
                    limit=min(limit - len(found), 200),
                )
                found += page.dead_letters
                after = page.next
                if after is None:
                    break
            return found, after is not None

        answers, failures = await everyone(chosen(services, service), ask)
        _show_summary({name: found for name, (found, _) in answers.items()})
        for name, (found, more) in answers.items():
            for each in found:
                _show_line(name, each)
            if more:
                console.print(f"{name} 还有更多：用 --limit、--state、--reason 缩小范围")
        show_failures(failures)
        return not failures

    operate(data_dir, work)


def _show_summary(answers: dict[str, list[DeadLetter]]) -> None:
    table = Table("服务", "状态", "原因", "主题", "条数")
    counts = Counter(
        (name, each.state, each.reason, each.topic) for name, found in answers.items() for each in found
    )
    for (name, state, reason, topic), number in counts.items():
        table.add_row(name, _STATES[state], plain(reason), topic, str(number))
    console.print(table if counts else "没有死信，也没有停放的键" if answers else "")


def _show_line(service: str, each: DeadLetter) -> None:
    facts = [
        _STATES[each.state],
        service,
        each.topic,
        f"键 {plain(each.key[:80])}",
        f"{clock_time(each.at)}（{age(each.at)}前）",
    ]
    if each.attempts is not None:
        facts.append(f"已试 {each.attempts} 次")
    if each.next_attempt_at is not None:
        facts.append(f"下次 {clock_time(each.next_attempt_at)}")
    console.print(" · ".join(facts), highlight=False, soft_wrap=True)
    console.print(f"  {plain(each.reason)}：{plain(each.detail[:300])}", highlight=False, soft_wrap=True)
    # one unbroken line, to be copied
    console.print(f"  xinfu dlq show {service}/{each.id}", style="cyan", highlight=False, soft_wrap=True)


@dlq_app.command()
def show(identity: Identity, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """一条死信或一个键的全部内容：原因、消息头、消息体。"""

    async def work(services: Services) -> bool:
        service, path = _path(services, identity)
        whole = await services.ask(DeadLetterWhole, service, path)
        _show_line(service, whole.dead_letter)
        if whole.message is not None:
            message = whole.message
            console.print(
                f"  原始位置 {message.topic} 分区 {message.partition} 位点 {message.offset}", highlight=False
            )
            for name, value in message.headers:
                console.print(f"  {plain(name)}: {plain(value)}", highlight=False, soft_wrap=True)
            body = "（超过配额，没有保存；请按上面的位置到总线上取）" if message.value_dropped else "（空）"
            shown = body if message.value is None else message.value
            console.print(f"  消息体（{message.encoding}）", highlight=False)
            console.print(plain(shown, keep="\n\t"), highlight=False, soft_wrap=True)
            if message.truncated:
                console.print("  …（只显示开头）")
        if whole.events:
            table = Table(
                "次序", "事件", "类型", "停放于", "字节", title=f"这个键的事件（共 {whole.queued}）"
            )
            for number, event in enumerate(whole.events, 1):
                table.add_row(
                    str(number),
                    event.event_id,
                    event.type,
                    clock_time(event.parked_at),
                    str(event.size_bytes),
                )
            console.print(table)
        return True

    operate(data_dir, work)


@dlq_app.command("dry-run")
def dry_run(identity: Identity, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """试运行：重新处理会怎样。什么都不改变。会成功时退出状态为 0。"""

    async def work(services: Services) -> bool:
        service, path = _path(services, identity)
        outcome = await services.post(EventOutcome, service, f"{path}/dry-run", Shape())
        _show_outcome(outcome)
        return outcome.outcome in ("would_succeed", "already_succeeded")

    operate(data_dir, work)


@dlq_app.command()
def redrive(identity: Identity, reason: Reason, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """重新处理。已经生效的会被拒绝；失败则什么都不改变。"""

    async def work(services: Services) -> bool:
        service, path = _path(services, identity)
        outcome = await services.post(EventOutcome, service, f"{path}/redrive", Why(reason=reason))
        _show_outcome(outcome)
        if outcome.outcome == "queued":
            return await _watch(services, service, path)
        return outcome.outcome == "succeeded"

    operate(data_dir, work)


async def _watch(services: Services, service: str, path: str) -> bool:
    """Wait a little for what becomes of a key that is tried again."""
    for _ in range(_WATCH_SECONDS):
        await asyncio.sleep(1)
        try:
            key = (await services.ask(DeadLetterWhole, service, path)).dead_letter
        except RefusedError as error:
            if error.status != 404:
                raise
            console.print("[green]这个键的事件已全部生效[/green]")
            return True
        if key.attempts:
            console.print(f"[red]又失败了[/red]：{plain(key.reason)}：{plain(key.detail)}", soft_wrap=True)
            console.print("先修好原因，再放行；确定不要这个事件时用 xinfu dlq discard")
            return False
    console.print("还没有结果，稍后用 xinfu dlq list 再看")
    return True


@dlq_app.command()
def discard(
    identity: Identity,
    reason: Reason,
    whole_key: Annotated[
        bool, typer.Option("--whole-key", help="键的全部事件，而不只是出错的第一个")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """放弃：它永远不会生效。对一个键只放弃出错的第一个事件，后面的接着处理，除非 --whole-key。"""

    async def work(services: Services) -> bool:
        service, path = _path(services, identity)
        body = Discard(reason=reason, whole_key=whole_key)
        _show_outcome(await services.post(EventOutcome, service, f"{path}/discard", body))
        return True

    operate(data_dir, work)


def _path(services: Services, identity: str) -> tuple[str, str]:
    service, slash, own = identity.partition("/")
    if not slash or not own or service not in services.urls:
        fail(
            f"编号 {identity} 有误：请照抄 xinfu dlq list 打印的“服务/…”；服务有：{'、'.join(services.urls)}"
        )
    return service, f"dead-letters/{own}"


def _show_outcome(outcome: EventOutcome) -> None:
    why = " ".join(plain(text) for text in (outcome.reason, outcome.detail) if text)
    shown = _OUTCOMES.get(outcome.outcome, outcome.outcome)
    console.print(f"{shown}{'：' if why else ''}{why}", highlight=False, soft_wrap=True)
    for event in outcome.emits:
        console.print(
            f"  发出 {event.type}（{event.topic}，键 {plain(event.key)}）", highlight=False, soft_wrap=True
        )
