"""`xinfu records import`: sends a CSV to intake and shows its progress and what it rejected."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xinfu.client import Client

_SHOWN = 20


class ImportFailedError(Exception):
    """The import ended before its report; the text says why. Rows already taken stay: send the file again."""


async def import_records(client: Client, intake_url: str, path: Path, console: Console) -> dict[str, Any]:
    """Import one file and return intake's report. Raises RefusedError or ImportFailedError."""
    columns = (TextColumn("导入 {task.fields[name]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with path.open("rb") as file, Progress(*columns, console=console) as progress:
        task = progress.add_task("import", total=None, name=path.name)
        async with client.upload(f"{intake_url}/v1/records/imports", file, "text/csv") as response:
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    answer = json.loads(line)
                    if "error" in answer:
                        raise ImportFailedError(answer["error"].get("detail", str(answer["error"])))
                    if "report" in answer:
                        report: dict[str, Any] = answer["report"]
                        return report
                    progress.update(task, completed=answer["progress"], total=answer["total"])
    raise ImportFailedError("连接在报告之前中断，请重新导入；已入库的行不会重复。")


def show_report(report: dict[str, Any], console: Console) -> None:
    """The report as people read it; at most 20 rejected rows."""
    rejected = report["rejected"]
    console.print(
        f"共 {report['rows']} 行（{report['encoding']}）：入库 {report['accepted']}，"
        f"无变化 {report['unchanged']}，[bold]退回 {len(rejected)}[/bold]"
    )
    if not rejected:
        return
    table = Table("行", "文号", "退回原因")
    for row in rejected[:_SHOWN]:
        table.add_row(str(row["line"]), row.get("document_number") or "—", "；".join(row["reasons"]))
    console.print(table)
    if len(rejected) > _SHOWN:
        console.print(f"……另有 {len(rejected) - _SHOWN} 行，见 --report 文件")
