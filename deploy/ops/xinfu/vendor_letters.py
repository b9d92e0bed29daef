"""`xinfu letters`: letters to vendors that keep showing what was repaired: see them, release them, or not."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.clock import CHINA_STANDARD_TIME
from xinfu.operators import Reason, Services, operate
from xinfu.terminal import DataDir, age, console, plain
from xinfu_local import DEFAULT_DATA_DIR

letters_app = typer.Typer(no_args_is_help=True, help="函告仍在展示已修复记录的第三方。")
LetterId = Annotated[str, typer.Argument(help="编号 vlt_…")]
STATES = {"draft": "待签发", "released": "已签发", "discarded": "不采用", "lapsed": "已失效"}


def _url(services: Services, rest: str = "") -> str:
    return f"{services.urls['sync']}/v1/vendor-letters{rest}"


@letters_app.command("list")
def list_letters(
    state: Annotated[
        str | None, typer.Option(help="draft 待签发、released 已签发、discarded、lapsed；默认全部")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """列出函告。"""

    async def work(services: Services) -> bool:
        table = Table("编号", "平台", "哪一步", "状态", "文号", "仍在展示", "答复", "了结")
        after = ""
        while True:
            query = f"?limit=200{f'&state={state}' if state else ''}{f'&after={after}' if after else ''}"
            page = await services.client.call("GET", _url(services, query))
            for each in page["letters"]:
                _row(table, each)
            if not (after := page["next"] or ""):
                break
        console.print(table)
        return True

    operate(data_dir, work)


def _row(table: Table, letter: dict[str, Any]) -> None:
    answer = letter["answer"]
    table.add_row(
        letter["id"],
        letter["target_id"],
        letter["step_text"],
        STATES[letter["state"]],
        letter["number"] or "—",
        age(datetime.fromisoformat(letter["since"])),
        plain(answer["text"]) if answer else "—",
        "是" if letter["closed_at"] else "否",
    )


@letters_app.command("save")
def save(
    letter: LetterId,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="写到这个 PDF 文件")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """把一份函（草稿也可以）存成 PDF，签发之前先看。"""

    async def work(services: Services) -> bool:
        file.write_bytes(await services.client.content(_url(services, f"/{letter}/pdf")))
        console.print(f"已写入 {file}")
        return True

    operate(data_dir, work)


@letters_app.command("release")
def release(letter: LetterId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """签发：再看一次对方的展示，仍在公示才编号并送出。暂停共享建议报告只编号，不送出。"""

    async def work(services: Services) -> bool:
        done = await services.client.call("POST", _url(services, f"/{letter}/release"))
        console.print(f"已签发 {plain(done['number'])}，请对方于 {done['due_on']} 前答复")
        return True

    operate(data_dir, work)


@letters_app.command("discard")
def discard(letter: LetterId, reason: Reason, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """不采用一份草稿，写明原因；同一发现不再起草。"""

    async def work(services: Services) -> bool:
        await services.client.call("POST", _url(services, f"/{letter}/discard"), {"reason": reason})
        console.print("已记下：不采用")
        return True

    operate(data_dir, work)


@letters_app.command("answer")
def answer(
    letter: LetterId,
    text: Annotated[str, typer.Option(help="对方答复的要点")],
    received: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="哪一天收到；默认今天（中国时间）")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """登记对方的答复。答复不等于改正：只有再看到展示一致，这件事才算了结。"""
    day: date = (received or datetime.now(CHINA_STANDARD_TIME)).date()

    async def work(services: Services) -> bool:
        body = {"text": text, "received_on": day.isoformat()}
        await services.client.call("POST", _url(services, f"/{letter}/answer"), body)
        console.print("已登记")
        return True

    operate(data_dir, work)
