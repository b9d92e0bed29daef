"""`xinfu guide`: the guide of a category, or of all, from the running stack into a file."""

import asyncio
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout

from xinfu.client import RefusedError
from xinfu.compose import Endpoints
from xinfu.terminal import DataDir, console, fail
from xinfu_local import DEFAULT_DATA_DIR, StackError


class Form(StrEnum):
    """What intake answers the guide as."""

    HTML = "html"
    SVG = "svg"
    PDF = "pdf"
    JSON = "json"


def guide_command(
    category: Annotated[
        str | None, typer.Argument(help="记录类别，如 administrative_penalty；不填为全部类别一览")
    ] = None,
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="按这一天有效的规则；默认今天（中国时间）")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="网页、一张图（svg、pdf）或数据")] = Form.PDF,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="写到这个文件；默认当前目录下 guide-类别.形式")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """办事指南“一张图”：条件、材料、流程、时限、找谁办，由规则目录生成。"""

    async def fetch() -> bytes:
        query = {"format": form.value, **({"on": on.date().isoformat()} if on else {})}
        path = "/v1/guide" + (f"/{quote(category, safe='')}" if category else "")
        url = f"{Endpoints.read(data_dir).services['intake']}{path}?{urlencode(query)}"
        async with (
            ClientSession(timeout=ClientTimeout(total=30)) as session,
            session.get(url) as response,
        ):
            if response.status >= 400:
                raise RefusedError("GET", url, response.status, await response.text())
            return await response.read()

    file = out or Path(f"guide-{category or 'all'}.{form}")
    try:
        content = asyncio.run(fetch())
        file.write_bytes(content)
    except (StackError, RefusedError, ClientError, TimeoutError, OSError) as error:
        fail(error or type(error).__name__)
    console.print(f"已写入 {file}（{len(content) / 1000:.0f} KB）", soft_wrap=True)
