"""Server-sent events of an application's timeline (WHATWG HTML, server-sent events).

The database is the ledger: a stream reads the lines after the last one it sent. One change stream a process only wakes the
streams up; they also look by themselves every few seconds, so a lost wake-up costs seconds, never a line.
"""

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from chassis.background import Loop
from chassis.db import Collection
from chassis.problems import Problem, problem_response
from contracts.errors import ProblemCode
from intake import texts
from intake.store import Store
from intake.views import EntryView

_PAGE = 500
_WATCH_MILLISECONDS = 500


class TimelineWakeups:
    """Wakes up whoever waits for a line of an application's timeline."""

    def __init__(self, timeline: Collection, max_streams: int) -> None:
        self._timeline = timeline
        self._max_streams = max_streams
        self._open = 0
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._changes: Any = None  # motor's change stream has no public type
        self.loop = Loop("timeline-wakeups", self._step, interval_seconds=0.01)

    async def _step(self) -> bool:
        """Wait a moment for one change; returns whether there was one. A step ends soon, so that the loop stops soon."""
        if self._changes is None:
            self._changes = self._timeline.watch(
                [
                    {"$match": {"operationType": "insert"}},
                    {"$project": {"fullDocument.application_id": 1}},
                ],
                max_await_time_ms=_WATCH_MILLISECONDS,
            )
        try:
            change = await self._changes.try_next()
        except BaseException:
            changes, self._changes = self._changes, None
            with contextlib.suppress(Exception):
                await changes.close()
            self._wake(list(self._waiting))  # some wake-ups may be lost
            raise
        if change is None:
            return False
        self._wake([change["fullDocument"]["application_id"]])
        return True

    def _wake(self, application_ids: list[str]) -> None:
        for application_id in application_ids:
            for event in self._waiting.get(application_id, ()):
                event.set()

    @contextlib.contextmanager
    def listen(self, application_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the application may have a new line."""
        event = asyncio.Event()
        self._waiting[application_id].add(event)
        try:
            yield event
        finally:
            self._waiting[application_id].discard(event)
            if not self._waiting[application_id]:
                del self._waiting[application_id]

    @contextlib.contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether one more stream may be open for the time of the context."""
        free = self._open < self._max_streams
        self._open += free
        try:
            yield free
        finally:
            self._open -= free


class BoundedEventSourceResponse(EventSourceResponse):
    """An event stream, or 503 when too many are open."""

    def __init__(self, wakeups: TimelineWakeups, events: AsyncIterator[ServerSentEvent], ping: float) -> None:
        super().__init__(events, ping=ping, send_timeout=30)
        self._wakeups = wakeups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._wakeups.slot() as free:
            if free:
                await super().__call__(scope, receive, send)
                return
            problem = Problem(
                ProblemCode.UNAVAILABLE,
                "实时进度的连接数已达上限，请稍后重连，或直接查询申请。",
                headers={"Retry-After": "10"},
            )
            await problem_response(problem, scope["path"])(scope, receive, send)


async def timeline_events(
    store: Store,
    wakeups: TimelineWakeups,
    application_id: str,
    after: int,
    *,
    recheck_seconds: float,
    max_seconds: float,
) -> AsyncIterator[ServerSentEvent]:
    """Lines after ``after`` as events ``timeline`` with id = seq; at the end of the application one event ``completed``.

    Ends without ``completed`` after ``max_seconds``: the client comes again with Last-Event-ID. ``completed`` has no id.
    """
    deadline = time.monotonic() + max_seconds
    with wakeups.listen(application_id) as woken:
        while True:
            woken.clear()
            # the header first: the lines read after it are all those it counts
            application = await store.application(application_id, settled=True)
            entries = await store.entries(application_id, after=after, limit=_PAGE, settled=True)
            for entry in entries:
                after = entry.seq
                yield ServerSentEvent(
                    EntryView.of(entry).model_dump_json(), event="timeline", id=str(entry.seq), sep="\n"
                )
            if len(entries) == _PAGE:
                continue
            if application is not None and application.is_over and after >= application.timeline_seq:
                data = {
                    "application_id": application_id,
                    "status": "completed",
                    "status_text": texts.APPLICATION_STATUS["completed"],
                    "seq": after,
                }
                yield ServerSentEvent(json.dumps(data, ensure_ascii=False), event="completed", sep="\n")
                return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), min(recheck_seconds, left))
