"""`xinfu letters`: letters to vendors: see them, release them or not, note that they were taken there, answered, and what was seen."""

from collections.abc import AsyncIterator
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.clock import CHINA_STANDARD_TIME
from xinfu.client import RefusedError
from xinfu.operators import Reason, Services, operate
from xinfu.terminal import DataDir, age, clock_time, console, plain
from xinfu_local import DEFAULT_DATA_DIR

letters_app = typer.Typer(no_args_is_help=True, help="函告第三方：仍在展示已修复记录的，和只能以函告知的。")
LetterId = Annotated[str, typer.Argument(help="编号 vlt_…")]
At = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%dT%H:%M"], help="何时（北京时间），如 2026-11-25T15:30；默认现在"),
]
STATES = {"draft": "待签发", "released": "已签发", "discarded": "不采用", "lapsed": "已失效"}


def _url(services: Services, rest: str = "") -> str:
    return f"{services.urls['sync']}/v1/vendor-letters{rest}"


async def _letters(services: Services, state: str | None) -> AsyncIterator[dict[str, Any]]:
    after = ""
    while True:
        query = f"?limit=200{f'&state={state}' if state else ''}{f'&after={after}' if after else ''}"
        page = await services.client.call("GET", _url(services, query))
        for each in page["letters"]:
            yield each
        if not (after := page["next"] or ""):
            return


@letters_app.command("list")
def list_letters(
    state: Annotated[
        str | None, typer.Option(help="draft 待签发、released 已签发、discarded、lapsed；默认全部")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """列出函告。"""

    async def work(services: Services) -> bool:
        table = Table("编号", "平台", "哪一步", "状态", "文号", "不一致已", "送出", "答复", "了结")
        async for each in _letters(services, state):
            _row(table, each)
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
        "；抄送".join(_dispatch(each) for each in (letter["dispatch"], letter["copy_dispatch"]) if each)
        or "—",
        plain(answer["text"]) if answer else "—",
        "是" if letter["closed_at"] else "否",
    )


def _dispatch(dispatch: dict[str, Any]) -> str:
    if dispatch["sent_at"]:
        return clock_time(datetime.fromisoformat(dispatch["sent_at"]))
    if dispatch["problem"]:
        return f"[red]邮件未能送出，请人送达：{plain(dispatch['problem'])}[/red]"
    return "邮件发送中" if dispatch["channel"] == "email" else "[yellow]待人送达[/yellow]"


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


@letters_app.command("release-notices")
def release_notices(
    target: Annotated[str, typer.Argument(help="平台标识：只能函告的平台")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """签发给一个平台的全部告知函草稿，一条决定一份；不能签发的逐份说明原因，退出状态为 1。"""

    async def work(services: Services) -> bool:
        released, refused = 0, 0
        async for each in _letters(services, "draft"):
            if each["target_id"] != target or not each["notice"]:
                continue
            try:
                await services.client.call("POST", _url(services, f"/{each['id']}/release"))
                released += 1
            except RefusedError as error:
                refused += 1
                console.print(f"{each['id']} 未签发：{plain(str(error))}", soft_wrap=True)
        console.print(f"已签发 {released} 份，未签发 {refused} 份")
        return not refused

    operate(data_dir, work)


@letters_app.command("discard")
def discard(letter: LetterId, reason: Reason, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """不采用一份草稿，写明原因；同一发现不再起草，除非 letters restore。"""

    async def work(services: Services) -> bool:
        await services.client.call("POST", _url(services, f"/{letter}/discard"), {"reason": reason})
        console.print("已记下：不采用")
        return True

    operate(data_dir, work)


@letters_app.command("restore")
def restore(letter: LetterId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """恢复一份不采用的草稿；其所涉不一致已了结的，不能恢复。"""

    async def work(services: Services) -> bool:
        await services.client.call("POST", _url(services, f"/{letter}/restore"))
        console.print("已恢复为草稿，等待签发")
        return True

    operate(data_dir, work)


@letters_app.command("sent")
def sent(
    letter: LetterId,
    reference: Annotated[str, typer.Option(help="凭什么可查：快递单号、签收单等")],
    at: At = None,
    copy: Annotated[bool, typer.Option("--copy", help="送出的是抄送主管单位的一份")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """登记一份函已由人送出：没有电子邮箱的，或邮件送不出去的。"""

    async def work(services: Services) -> bool:
        body = {"sent_at": _moment(at), "reference": reference, "to_supervisor": copy}
        await services.client.call("POST", _url(services, f"/{letter}/sent"), body)
        console.print("已登记")
        return True

    operate(data_dir, work)


@letters_app.command("answer")
def answer(
    letter: LetterId,
    text: Annotated[str, typer.Option(help="对方答复的要点")],
    done: Annotated[
        bool,
        typer.Option("--done", help="对方答复已按决定展示：只能函告的平台即为确认，其他平台仍以所见为准"),
    ] = False,
    reference: Annotated[str | None, typer.Option(help="对方复函的文号等")] = None,
    received: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="哪一天收到；默认今天（中国时间）")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """登记对方的答复。答复不等于改正：只有再看到展示一致，这件事才算了结；只能函告的平台以答复为准。"""
    day: date = (received or datetime.now(CHINA_STANDARD_TIME)).date()

    async def work(services: Services) -> bool:
        body = {"text": text, "received_on": day.isoformat(), "done": done, "reference": reference}
        letter_ = await services.client.call("POST", _url(services, f"/{letter}/answer"), body)
        console.print("已登记，这件事已了结" if letter_["closed_at"] else "已登记")
        return True

    operate(data_dir, work)


@letters_app.command("seen")
def seen(
    record: Annotated[str, typer.Argument(help="记录编号 rec_…")],
    target: Annotated[str, typer.Argument(help="平台标识")],
    reference: Annotated[str, typer.Option(help="凭什么可查：网址、截图编号等")],
    shown: Annotated[
        str,
        typer.Option(
            help="所见：none 查无此记录、published 仍在公示、shielded 临时屏蔽、publication_ended 已终止公示"
        ),
    ] = "none",
    content_right: Annotated[
        bool | None,
        typer.Option(
            "--content-right/--content-old",
            help="内容更正过、仍在公示的记录：所见是更正后的内容，还是更正前的",
        ),
    ] = None,
    at: At = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """登记在不能自动查看的平台亲眼所见：与决定一致即为见到，不一致的重新告知。"""

    async def work(services: Services) -> bool:
        body = {
            "shown": None if shown == "none" else shown,
            "looked_at": _moment(at),
            "reference": reference,
            "content_right": content_right,
        }
        url = f"{services.urls['sync']}/v1/records/{record}/targets/{target}/visits"
        found = await services.client.call("POST", url, body)
        console.print("已登记，与决定一致" if found["settled"] else "已登记，与决定不一致")
        return True

    operate(data_dir, work)


def _moment(at: datetime | None) -> str | None:
    return at.replace(tzinfo=CHINA_STANDARD_TIME).isoformat() if at else None
