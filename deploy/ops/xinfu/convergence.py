"""`xinfu convergence`: how far every target is from what was decided, against its time limit; the matrix of one record; the page."""

import webbrowser
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from xinfu.operators import Services, operate
from xinfu.terminal import DataDir, age, clock_time, console, plain
from xinfu_local import DEFAULT_DATA_DIR


def convergence_command(
    record: Annotated[str | None, typer.Option(help="只看这一条记录（rec_…）在各平台的情况")] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="给出运维页面的一次性链接（一分钟内有效），有浏览器就打开")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """各平台应展示、已确认、已见到、不一致各多少，最久的不一致与时限相比，函告；或一条记录的全部平台。"""

    async def work(services: Services) -> bool:
        sync = services.urls["sync"]
        if open_page:
            link = await services.client.call("POST", f"{sync}/v1/pages/links")
            console.print(link["url"], soft_wrap=True, highlight=False)
            console.print("只能打开一次，一分钟内有效；此后这个浏览器可看八小时。", style="dim")
            webbrowser.open(link["url"])
        elif record:
            _record(await services.client.call("GET", f"{sync}/v1/records/{record}"))
        else:
            found = await services.client.call("GET", f"{sync}/v1/convergence")
            _targets(found["targets"])
            for each in found["departed"]:
                console.print(
                    f"已不在目录中的平台 {plain(each['target_id'])} 还有 {each['differing']} 条不一致：不再推送，恢复后继续。"
                )
        return True

    operate(data_dir, work)


def _targets(targets: list[dict[str, Any]]) -> None:
    table = Table(
        "平台", "应展示", "已确认", "已见到", "不一致", "变回去", "最久的不一致", "时限", "函告", "连接"
    )
    for each in targets:
        oldest = each["oldest_difference"]
        differing = each["desired"] - each["seen"]
        letters = f"待签发 {each['letters_draft']}、已签发未了 {each['letters_released']}"
        for waits in each["letters_waiting"]:
            if waits["waits_for"] != "release":
                letters += f"，{WAITS_FOR[waits['waits_for']]} {waits['count']}"
        limit = f"{each['time_limit_working_days']} 个工作日"
        if each["due_on"]:
            limit += f"，{'[red]已逾期[/red]，' if each['overdue'] else ''}应于 {each['due_on']}"
        table.add_row(
            plain(each["target_name"]),
            str(each["desired"]),
            str(each["acknowledged"]),
            str(each["seen"]),
            f"[{'yellow' if differing else 'green'}]{differing}[/]",
            str(each["drifting"]),
            f"{age(_moment(oldest['since']))} {oldest['record_id']}" if oldest else "—",
            limit,
            letters if each["letters_draft"] or each["letters_released"] else "—",
            _connection(each["breaker"]),
        )
    console.print(table)


WAITS_FOR = {"release": "待签发", "sending": "待送出", "answer": "逾期未答复"}


def _connection(breaker: dict[str, Any] | None) -> str:
    if breaker is None:
        return "只能函告"
    return "正常" if breaker["state"] == "closed" else f"[red]{breaker['state']}[/red]"


def _record(record: dict[str, Any]) -> None:
    console.print(
        f"[bold]{record['record_id']}[/bold]  {plain(record['decision_number'])}，"
        f"应展示 {record['state']}（第 {record['version']} 版），"
        f"{'各平台均已见到一致' if record['completed'] else '还有平台没有见到一致'}",
        soft_wrap=True,
    )
    table = Table("平台", "应为", "已确认", "已见到", "见到的", "何时", "不一致自", "失败", "变回去", "说明")
    for each in record["targets"]:
        table.add_row(
            plain(each["target_name"] or f"{each['target_id']}（已不在目录）"),
            *(str(each[f"{what}_version"]) for what in ("desired", "acknowledged", "seen")),
            f"{each['seen_state'] or '—'}{'（内容未更正）' if each['seen_outdated'] else ''}",
            _clock(each["seen_at"]),
            _clock(each["differs_since"]),
            str(each["attempts"]),
            str(each["drifts"]),
            plain(each["note"] or each["last_error"] or "—"),
        )
    console.print(table)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _clock(text: str | None) -> str:
    return clock_time(_moment(text)) if text else "—"
