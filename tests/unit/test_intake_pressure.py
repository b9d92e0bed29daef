"""When intake says 429, and when it asks to come again."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from chassis.admission import RequestLimit
from intake.pressure import (
    Backlog,
    Cause,
    Limits,
    Pressure,
    Refusal,
    refuse_import,
    refuse_rows,
    refuse_submission,
)

LIMITS = Limits(
    submissions=100,
    imports=2,
    commit_seconds=2.0,
    backlogs={Cause.OUTBOX: 1000, Cause.ROUTING: 500, Cause.TARGETS: 500},
)


def drained(*counts: int) -> Backlog:
    """A backlog counted once a second."""
    backlog = Backlog()
    for second, count in enumerate(counts):
        backlog = backlog.measured(count, float(second))
    return backlog


@pytest.mark.parametrize(
    ("pressure", "expected"),
    [
        (Pressure(), None),
        (Pressure(submissions=99), None),
        (Pressure(submissions=100, commit_seconds=0.3), Refusal(Cause.SUBMISSIONS, 1)),
        (Pressure(submissions=100, commit_seconds=1.9), Refusal(Cause.SUBMISSIONS, 2)),
        # four times too slow: a quarter as many
        (Pressure(submissions=24, commit_seconds=8.0), None),
        (Pressure(submissions=25, commit_seconds=8.0), Refusal(Cause.DATABASE, 8)),
        # hopelessly slow: one at a time goes through and finds out when it is fast again
        (Pressure(submissions=0, commit_seconds=1e6), None),
        (Pressure(submissions=1, commit_seconds=1e6), Refusal(Cause.DATABASE, 60)),
        (Pressure(backlogs={Cause.OUTBOX: drained(999)}), None),
        # nothing drains: the longest wait
        (Pressure(backlogs={Cause.OUTBOX: drained(1000)}), Refusal(Cause.OUTBOX, 60)),
        (Pressure(backlogs={Cause.ROUTING: drained(500, 500)}), Refusal(Cause.ROUTING, 60)),
        # 10 a second of a moving average of 1: 51 above the limit take 51 seconds
        (Pressure(backlogs={Cause.TARGETS: drained(560, 550)}), Refusal(Cause.TARGETS, 51)),
    ],
)
def test_a_submission_is_refused_for_the_narrowest_place(
    pressure: Pressure, expected: Refusal | None
) -> None:
    assert refuse_submission(LIMITS, pressure) == expected


def test_targets_do_not_hold_up_imports() -> None:
    pressure = Pressure(imports=1, backlogs={Cause.TARGETS: drained(10_000)})
    assert refuse_import(LIMITS, pressure) is None
    pressure.imports = 2
    assert refuse_import(LIMITS, pressure) == Refusal(Cause.IMPORTS, 15)
    assert refuse_rows(LIMITS, pressure) is None
    pressure.backlogs[Cause.OUTBOX] = drained(1000)
    assert refuse_rows(LIMITS, pressure) == Refusal(Cause.OUTBOX, 60)


def test_a_backlog_that_grows_drains_at_no_rate() -> None:
    assert drained(0, 100, 300).drained_per_second == 0
    steady = drained(*range(10_000, 0, -100))
    assert steady.drained_per_second == pytest.approx(100, rel=0.01)
    # a clock that stands still divides by nothing
    assert steady.measured(0, 0.0).drained_per_second == steady.drained_per_second


class Server:
    """A RequestLimit of two before an application whose requests end when told."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.limit = RequestLimit(self.application, max_requests=2)

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = b"text/event-stream" if scope["path"].endswith("/events") else b"application/json"
        if scope["path"] == "/broken":
            raise RuntimeError("broken")
        if kind == b"application/json":
            await self.finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await self.finish.wait()

    async def status(self, path: str) -> tuple[int, dict[bytes, bytes]]:
        answers: list[Message] = []

        async def send(message: Message) -> None:
            answers.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        await self.limit({"type": "http", "path": path, "headers": []}, receive, send)
        return answers[0]["status"], dict(answers[0]["headers"])

    async def start(self, path: str) -> "asyncio.Task[tuple[int, dict[bytes, bytes]]]":
        task = asyncio.create_task(self.status(path))
        await asyncio.sleep(0)
        return task


async def test_one_request_too_many_is_refused_until_one_is_done() -> None:
    server = Server()
    streams = [await server.start("/v1/a/events") for _ in range(10)]
    with pytest.raises(RuntimeError):
        await server.status("/broken")
    taken = [await server.start("/v1/a") for _ in range(2)]
    status, headers = await server.status("/v1/a")
    assert status == 429
    assert 1 <= int(headers[b"retry-after"]) <= 3
    assert headers[b"content-type"] == b"application/problem+json"
    health = await server.start("/readyz")
    server.finish.set()
    for task in [*streams, *taken, health, await server.start("/v1/a")]:
        assert (await task)[0] == 200
