"""What a chaos run changes inside a service process, from outside its code: Python runs this file at start-up of every process that
has its folder on PYTHONPATH.

XINFU_CHAOS_CLOCK: a file that holds by how many seconds the clock is wrong; without the file it is right.
XINFU_CHAOS_SABOTAGE: a guarantee to take out: inbox, offset or version.
"""

import datetime
import importlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

_LOOK_SECONDS = 0.2


def _follow(control: Path) -> None:
    """Let the clock be wrong by what the file says, for ever. Waits do not change: the monotonic clock stays."""
    import time_machine

    jump: time_machine.travel | None = None
    wrong_by = 0.0
    while True:
        try:
            wanted = float(control.read_text())
        except (OSError, ValueError):
            wanted = 0.0
        if wanted != wrong_by:
            if jump is not None:
                jump.stop()
                jump = None
            if wanted:
                now = datetime.datetime.now(datetime.UTC)
                jump = time_machine.travel(now + datetime.timedelta(seconds=wanted), tick=True)
                jump.start()
            wrong_by = wanted
        time.sleep(_LOOK_SECONDS)


def _without_inbox() -> None:
    """Every delivery takes effect, the first or not."""
    from pymongo import UpdateOne

    from chassis.inbox import Inbox

    async def fresh(self: Any, received: Sequence[Any], session: Any) -> list[Any]:
        return list(received)

    async def add(self: Any, received: Sequence[Any], session: Any, now: Any) -> None:
        notes = [
            UpdateOne({"_id": self._prefix + r.identity}, {"$setOnInsert": {"at": now}}, upsert=True)
            for r in received
        ]
        await self._inbox.bulk_write(notes, session=session, ordered=False)

    Inbox.fresh, Inbox.add = fresh, add  # type: ignore[method-assign]


def _offset_first() -> None:
    """The offset is committed before the transaction: what is in hand when the process dies does not come again."""
    from faststream.kafka import KafkaMessage

    from chassis.consumer import BatchConsumer

    original = BatchConsumer._on_message

    # the annotation is what FastStream hands the message over by
    async def on_message(self: Any, message: KafkaMessage) -> None:
        await message.ack()
        await original(self, message)

    BatchConsumer._on_message = on_message  # type: ignore[method-assign]


def _without_versions() -> None:
    """Sync takes an answer about an older decision for one about the newest, and any decision for newer than the last."""
    desired: Any = importlib.import_module("sync.desired")
    domain: Any = importlib.import_module("sync.domain")
    on_decision, after_push, after_read_back = desired.on_decision, domain.after_push, domain.after_read_back
    long_ago = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

    def any_decision(record: Any, *rest: Any) -> Any:
        return on_decision(record and replace(record, decided_at=long_ago), *rest)

    def any_push(delivery: Any, record: Any, *rest: Any) -> Any:
        return after_push(delivery, replace(record, version=delivery.desired_version), *rest)

    def any_read_back(delivery: Any, record: Any, *rest: Any) -> Any:
        return after_read_back(delivery, replace(record, version=delivery.desired_version), *rest)

    desired.on_decision, domain.after_push, domain.after_read_back = any_decision, any_push, any_read_back


SABOTAGE = {"inbox": _without_inbox, "offset": _offset_first, "version": _without_versions}

if sabotage := os.environ.get("XINFU_CHAOS_SABOTAGE"):
    SABOTAGE[sabotage]()
if clock := os.environ.get("XINFU_CHAOS_CLOCK"):
    threading.Thread(target=_follow, args=(Path(clock),), daemon=True, name="chaos-clock").start()
