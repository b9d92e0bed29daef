"""Background loops: how long they pause."""

import asyncio

import pytest

from chassis.background import Loop
from support import eventually

LONG = 3600.0


class Steps:
    """A loop whose steps ask for these pauses, one after the other, and then for none."""

    def __init__(self, interval_seconds: float, *pauses: float, fail: bool = False) -> None:
        self.done = 0
        self._pauses, self._fail = iter(pauses), fail
        self.loop = Loop("steps", self._step, interval_seconds)

    async def _step(self) -> bool:
        self.done += 1
        if (seconds := next(self._pauses, None)) is not None:
            self.loop.again_within(seconds)
        if self._fail:
            raise OSError("no")
        return False

    async def reach(self, steps: int) -> None:
        async def reached() -> bool:
            return self.done >= steps

        await eventually(reached)


@pytest.mark.parametrize(
    ("interval", "pauses", "steps"),
    [(LONG, (0.0, 0.01, -1.0), 4), (0.01, (LONG, LONG), 4)],
    ids=["shorter", "never longer"],
)
async def test_a_step_shortens_the_pause_after_it_alone(
    interval: float, pauses: tuple[float, ...], steps: int
) -> None:
    loop = Steps(interval, *pauses)
    loop.loop.start()
    try:
        await loop.reach(steps)
        if interval == LONG:
            await asyncio.sleep(0.1)
            assert loop.done == steps, "the interval holds again"
    finally:
        await loop.loop.stop()


async def test_a_step_that_fails_is_not_hurried() -> None:
    loop = Steps(LONG, 0.0, fail=True)
    loop.loop.start()
    await loop.reach(1)
    loop.loop.wake()
    await asyncio.sleep(0.1)
    await loop.loop.stop()
    assert loop.done == 1
    assert [step.error for step in loop.loop.failed] == ["OSError"]
