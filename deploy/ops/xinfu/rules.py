"""`xinfu rules explain`: why a record may or may not be repaired on a day, check by check."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from contracts.http.eligibility import CheckResult, Explanation, RegimeAnswer, Repair
from xinfu.operators import Services, operate
from xinfu.terminal import DataDir, console, plain
from xinfu_local import DEFAULT_DATA_DIR

rules_app = typer.Typer(no_args_is_help=True, help="修复规则。")

_COLOUR = {CheckResult.PASSED: "green", CheckResult.FAILED: "red", CheckResult.PERSON: "yellow"}
_LIMITS = (
    ("受理", "accept_working_days"),
    ("决定", "decide_working_days"),
    ("延长", "extend_working_days"),
    ("合计", "total_working_days"),
)


@rules_app.callback()
def _group() -> None:
    """Keeps ``explain`` a command of its own while it is the only one."""


@rules_app.command()
def explain(
    record: Annotated[str, typer.Argument(help="记录编号 rec_…")],
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="假定在这一天申请；默认今天（中国时间）")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """一条记录在某一天能否修复、自哪天起、由谁、要什么材料、多少时间；逐项条件及其依据；规则变更前后的两种适用都列出。"""

    async def work(services: Services) -> bool:
        day = on.date().isoformat() if on else None
        show(await services.ask(Explanation, "intake", f"records/{record}/repair", on=day))
        return True

    operate(data_dir, work)


def show(answer: Explanation) -> None:
    """The whole answer as people read it."""
    console.print(
        f"[bold]{plain(answer.document_number)}[/bold]  {plain(answer.category_name)}，"
        f"{answer.decided_on} 作出；假定 {answer.on} 申请（适用规则的设置：{answer.transition}）",
        soft_wrap=True,
    )
    _repair("本平台的答复", answer.repair)
    if answer.first:
        console.print(f"  应先办理：{'、'.join(answer.first)}", soft_wrap=True)
    for regime in answer.regimes:
        _regime(regime)


def _repair(title: str, repair: Repair) -> None:
    first = f"，{repair.from_} 起" if repair.from_ else ""
    console.print(
        f"{title}：[bold]{repair.status_text}[/bold]{first}。{plain(repair.advice)}", soft_wrap=True
    )


def _regime(regime: RegimeAnswer) -> None:
    console.print()
    _repair(f"{regime.regime_text}（第 {regime.rule} 行）", regime.repair)
    limits = [(name, getattr(regime, field)) for name, field in _LIMITS]
    days = "，".join(f"{name} {number} 个工作日" for name, number in limits if number is not None)
    console.print(f"  决定：{plain(regime.decided_by)}；时限：{days or '未读到'}", soft_wrap=True)
    console.print(
        f"  材料：{plain('、'.join(regime.materials) or '无')}；同步：{'、'.join(regime.targets) or '无'}",
        soft_wrap=True,
    )
    table = Table("条件", "结果", "说明", "依据", "等级")
    for check in regime.checks:
        result = f"[{_COLOUR[check.result]}]{check.result_text}[/]"
        table.add_row(plain(check.name), result, plain(check.detail), plain(check.source), check.evidence)
    console.print(table)
