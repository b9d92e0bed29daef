"""The xinfu command line."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout
from rich.console import Console
from rich.table import Table

from contracts.clock import CHINA_STANDARD_TIME
from xinfu.audit import audit_app
from xinfu.certificate import certificate_app
from xinfu.client import Citizenry, Client, RefusedError
from xinfu.compose import KAFKA_PORT, MONGODB_PORT, Endpoints, compose, replay_outboxes
from xinfu.conformance import conformance_app
from xinfu.convergence import convergence_command
from xinfu.demo import Demo, DemoFailedError
from xinfu.dlq import dlq_app
from xinfu.doctor import doctor
from xinfu.guide import guide_command
from xinfu.keys import keys_app
from xinfu.lag import lag
from xinfu.openapi import write as write_openapi
from xinfu.outbox import outbox_app
from xinfu.parity import parity
from xinfu.records import ImportFailedError, import_records, show_report
from xinfu.rules import rules_app
from xinfu.terminal import DataDir, console, fail
from xinfu.trace import render, spans_of, submission
from xinfu.vendor_letters import letters_app
from xinfu.verify import verify_command
from xinfu_local import DEFAULT_DATA_DIR, Broker, RunningStack, Stack, StackError, broker_from_environment

app = typer.Typer(no_args_is_help=True, add_completion=False, help="信复：信用修复“一件事”。")
records_app = typer.Typer(no_args_is_help=True, help="失信记录。")
app.add_typer(records_app, name="records")
app.add_typer(dlq_app, name="dlq")
app.add_typer(outbox_app, name="outbox")
app.add_typer(rules_app, name="rules")
app.add_typer(conformance_app, name="conformance")
app.add_typer(audit_app, name="audit")
app.add_typer(keys_app, name="keys")
app.add_typer(letters_app, name="letters")
app.add_typer(certificate_app, name="certificate")
app.command()(lag)
app.command()(parity)
app.command("verify")(verify_command)
app.command()(doctor)
app.command("convergence")(convergence_command)
app.command("guide")(guide_command)


def _with_session(work: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ClientSession(timeout=ClientTimeout(total=30)) as session:
            await work(session)

    try:
        asyncio.run(main())
    except (StackError, RefusedError, DemoFailedError, ImportFailedError, ClientError, OSError) as error:
        fail(error)


def _stack(data_dir: Path, broker: Broker) -> tuple[Stack, Endpoints]:
    processes, endpoints = compose(data_dir, broker)

    def prepare(stack: Stack) -> None:
        endpoints.write(data_dir)
        if stack.description.broker == broker.value and not broker.survives_restart:
            # it keeps nothing: what it had lost is published again, and every inbox drops what it knows
            replay_outboxes(stack.mongodb_uri)

    stack = Stack(
        processes,
        broker,
        data_dir,
        kafka_port=KAFKA_PORT,
        mongodb_port=MONGODB_PORT,
        prepare=prepare,
        ready_timeout_seconds=120,
    )
    return stack, endpoints


def _clear(data_dir: Path) -> None:
    """Start afresh. Raises StackError when a stack is running there."""
    try:
        running = RunningStack.find(data_dir)
    except StackError:
        shutil.rmtree(data_dir, ignore_errors=True)
    else:
        raise StackError(f"{data_dir} 中已有本地环境在运行（进程 {running.description.pid}），请先停止它")


def _run(data_dir: Path, timeout_seconds: float, *, keep: bool = False, stay: bool = False) -> None:
    """Start everything; unless ``keep``, from empty data and with the main job shown; ``stay`` until Ctrl-C."""
    started = time.monotonic()
    try:
        if not keep:
            _clear(data_dir)
        stack, endpoints = _stack(data_dir, broker_from_environment(os.environ))
        with stack:
            seconds = time.monotonic() - started
            console.print(f"全部进程就绪，用时 {seconds:.1f} 秒，日志在 {stack.log_path('intake').parent}")
            if not keep:
                application_id = _show_main_job(endpoints, data_dir, timeout_seconds, started)
                _show_trace(endpoints, application_id, data_dir / "trace.txt")
            _show_memory(stack)
            if stay:
                _show_urls(endpoints, stack)
                console.print("按 Ctrl-C 停止")
                signal.pause()
    except StackError as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("已停止")
    finally:
        (data_dir / "endpoints.json").unlink(missing_ok=True)


def _show_main_job(endpoints: Endpoints, data_dir: Path, timeout_seconds: float, started: float) -> str:
    application_id = ""

    async def job(session: ClientSession) -> None:
        nonlocal application_id
        today = datetime.now(CHINA_STANDARD_TIME).date()
        application_id = await Demo(session, endpoints, console).run(data_dir, today, timeout_seconds)
        seconds = time.monotonic() - started
        console.print(f"[green]办结[/green]：各平台展示与决定一致，申请人已告知；共用时 {seconds:.1f} 秒")

    _with_session(job)
    return application_id


def _show_trace(endpoints: Endpoints, application_id: str, path: Path) -> None:
    """Write the trace tree beside the data, and say how to see it again while the stack runs."""

    async def job(session: ClientSession) -> None:
        await asyncio.sleep(1)  # exporters send their spans a moment later
        spans = submission(await spans_of(Client(session), endpoints.sandbox, application_id))
        with path.open("w", encoding="utf-8") as file:
            Console(file=file, width=160).print(render(spans, application_id))
        console.print(
            f"追踪：{len(spans)} 个跨度，已写入 {path}；运行时也可看： xinfu trace {application_id}",
            soft_wrap=True,
        )

    _with_session(job)


def _show_memory(stack: Stack) -> None:
    memory = stack.memory()
    parts = "  ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(memory.items()))
    console.print(f"内存（MB）：{parts}  [bold]合计 {sum(memory.values()) / 1e6:.0f}[/bold]")


def _show_urls(endpoints: Endpoints, stack: Stack) -> None:
    table = Table("什么", "地址")
    for name, url in endpoints.services.items():
        table.add_row(f"{name} API 文档", f"{url}/docs")
    table.add_row("AsyncAPI（事件文档）", f"{endpoints.services['intake']}/asyncapi")
    table.add_row("外部系统沙箱", endpoints.sandbox)
    table.add_row("Kafka", stack.kafka_bootstrap)
    table.add_row("MongoDB", stack.mongodb_uri)
    console.print(table)


@app.command()
def run(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    timeout_seconds: float = 180,
    keep: Annotated[bool, typer.Option("--keep", help="沿用上次的数据，只启动，不演示")] = False,
) -> None:
    """启动全部服务，办一件事给你看，然后一直运行到 Ctrl-C。每次从空数据开始，除非 --keep。"""
    _run(data_dir, timeout_seconds, keep=keep, stay=True)


@app.command()
def demo(data_dir: DataDir = DEFAULT_DATA_DIR.parent / "demo", timeout_seconds: float = 180) -> None:
    """同 run，但最后一个平台展示决定结果后即退出：成功为 0，否则非 0 并说明原因。"""
    _run(data_dir, timeout_seconds)


@records_app.command("import")
def records_import(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    report: Annotated[Path | None, typer.Option(help="把完整报告（JSON）写到这个文件")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """导入双公示 CSV（UTF-8 或 GB18030）：合格的行入库，不合格的行逐条说明原因。"""

    async def work(session: ClientSession) -> None:
        endpoints = Endpoints.read(data_dir)
        ops = await Citizenry(session, endpoints).ops()
        result: dict[str, Any] = await import_records(ops, endpoints.services["intake"], file, console)
        show_report(result, console)
        if report:
            await asyncio.to_thread(
                report.write_text, json.dumps(result, ensure_ascii=False, indent=2), "utf-8"
            )

    _with_session(work)


@app.command()
def trace(application: str, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """打印一份申请从提交到最后一个平台、最后一条消息的追踪树和时间。"""

    async def work(session: ClientSession) -> None:
        endpoints = Endpoints.read(data_dir)
        spans = submission(await spans_of(Client(session), endpoints.sandbox, application))
        if not spans:
            raise StackError(f"没有找到申请 {application} 的追踪；跨度在产生后约一秒写入，请稍后再试")
        console.print(render(spans, application))

    _with_session(work)


@app.command()
def openapi() -> None:
    """由代码生成各服务的 OpenAPI 文档（contracts/openapi/）。"""
    write_openapi()
