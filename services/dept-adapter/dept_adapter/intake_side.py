"""What intake tells of a case, for those who can go on without it."""

from collections.abc import Awaitable, Mapping
from typing import TypeVar

from aiohttp import ClientError

from chassis.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)
AWAY = (ClientError, TimeoutError, OSError, ValueError)
"""What asking intake raises while it does not answer, or answers what cannot be read."""


async def looked_up(
    asking: Awaitable[Mapping[str, T]], id_: str, *, what: str, unknown: str
) -> tuple[T | None, str | None]:
    """What intake tells of an id, or why (zh-CN) it cannot be shown: intake does not answer (``what`` is missing), or knows nothing."""
    try:
        found = (await asking).get(id_)
    except AWAY as error:
        log.warning("intake does not answer", error=f"{type(error).__name__}: {error}"[:300])
        return None, f"{what}暂时无法读取（受理端未应答），请稍后刷新；不影响查看其他内容。"
    return found, None if found is not None else unknown
