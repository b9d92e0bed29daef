"""``xinfu conformance``: whether a counterpart's TEST system keeps to the protocol, checked against the real thing before it goes live."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from aiohttp import ClientError
from aiokafka.errors import KafkaError

from chassis.file_store import FilesUnavailableError, SftpAccess, open_files
from contracts.catalogue import Department, load_catalogue
from xinfu import conformance_api, conformance_files, conformance_kafka
from xinfu.conformance_cases import Result
from xinfu.conformance_target import target
from xinfu.terminal import console, fail

conformance_app = typer.Typer(no_args_is_help=True, help="对接联调：对方系统是否符合协议。")
conformance_app.command("target")(target)


@conformance_app.callback()
def _group() -> None:
    """Keeps each a command of its own name."""


@conformance_app.command("department")
def department_command(
    department: Annotated[str, typer.Option("--department", help="部门目录中的 slug，如 hz-samr")],
    url: Annotated[str | None, typer.Option(help="测试系统的地址（mode: api）")] = None,
    kafka: Annotated[str | None, typer.Option(help="测试总线的引导地址 host:port（mode: events）")] = None,
    sftp: Annotated[
        str | None, typer.Option(help="sftp://user@host:port/folder 或 file:///folder（mode: files）")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="XINFU_CONFORMANCE_SECRET", help="whsec_…，SFTP 为密码")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="SFTP 私钥文件，代替密码")] = None,
    host_key: Annotated[str, typer.Option(help="SFTP 服务器公钥，如 ssh-ed25519 AAAA…")] = "",
    poll: Annotated[bool, typer.Option("--poll", help="测试系统不能回调，由我们查询")] = False,
    callback_host: Annotated[str, typer.Option(help="我们的回调服务监听的地址")] = "127.0.0.1",
    callback_url: Annotated[str | None, typer.Option(help="测试系统看到的回调地址，默认为监听地址")] = None,
    serve_port: Annotated[
        int | None, typer.Option(help="在此端口提供事项查询（代替 dept-adapter，mode: events）")
    ] = None,
    patience_seconds: Annotated[float, typer.Option(help="最多等多久一个决定，秒")] = 30,
    settle_seconds: Annotated[float, typer.Option(help="决定之后再看多久，秒")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="以 JSON 输出")] = False,
) -> None:
    """令部门的测试系统走遍每一种情形，逐项打印 ✓ 或 ✗。全部通过为 0，有未通过的为 1。

    测试系统按“决定文书号”开头的字办理：联调准予、联调不予、联调补正。
    """
    found = load_catalogue().by_slug(department)
    if found is None:
        fail(f"部门目录中没有 {department}")
    if [url, kafka, sftp].count(None) != 2:
        fail("请给出 --url、--kafka、--sftp 之一")
    patience = (patience_seconds, settle_seconds)

    async def work() -> Sequence[Result]:
        if url is not None:
            if secret is None:
                fail("--url 需要 --secret")
            async with conformance_api.api_side(
                found, url, secret, polls=poll, patience_seconds=patience[0], settle_seconds=patience[1]
            ) as api:
                return await conformance_api.conform(api, callback_host, callback_url)
        if kafka is not None:
            async with conformance_kafka.kafka_side(
                found,
                kafka,
                secret=secret,
                serve_port=serve_port,
                patience_seconds=patience[0],
                settle_seconds=patience[1],
            ) as bus:
                return await conformance_kafka.conform(bus)
        access = _access(sftp or "", secret, key_file, host_key)
        async with (
            open_files(sftp or "", access) as store,
            conformance_files.files_side(
                found, store, patience_seconds=patience[0], settle_seconds=patience[1]
            ) as files,
        ):
            return await conformance_files.conform(files)

    try:
        results = asyncio.run(work())
    except (ClientError, KafkaError, FilesUnavailableError, OSError, ValueError) as error:
        fail(error)
    _show(found, results, as_json=as_json)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _access(address: str, secret: str | None, key_file: Path | None, host_key: str) -> SftpAccess | None:
    parts = urlsplit(address)
    if parts.scheme != "sftp":
        return None
    host = parts.hostname if parts.port in (None, 22) else f"[{parts.hostname}]:{parts.port}"
    private_key = key_file.read_text(encoding="utf-8") if key_file else None
    return SftpAccess(f"{host} {host_key}", private_key, secret)


def _show(department: Department, results: Sequence[Result], *, as_json: bool) -> None:
    failed = sum(not result.passed for result in results)
    if as_json:
        report = {
            "department": department.slug,
            "passed": failed == 0,
            "cases": [asdict(result) for result in results],
        }
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for result in results:
        mark = "[green]✓[/green]" if result.passed else "[red]✗[/red]"
        console.print(f"{mark} [bold]{result.title}[/bold] [dim]{result.name}[/dim]", highlight=False)
        console.print(f"    应当：{result.expected}", highlight=False)
        console.print(f"    看到：{result.seen}", highlight=False, markup=False, soft_wrap=True)
    verdict = "全部通过" if not failed else f"{failed} 项未通过"
    console.print(f"{department.name}：{len(results)} 项，{verdict}")
