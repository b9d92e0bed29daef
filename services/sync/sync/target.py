"""The port to a target: all that sync asks of one, whatever it speaks."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from contracts.http.target import RecordKey, RecordView, RepairPush, RepairResult


class UnavailableError(Exception):
    """The call had no usable answer and its outcome is unknown. ``retry_after_seconds``: the target's wish, clamped.

    ``answer``: what it said, cut short; it may quote personal data.
    """

    def __init__(self, reason: str, retry_after_seconds: float = 0.0, answer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.answer = answer


class RefusedError(Exception):
    """The target is there but refuses the call for what it holds: a smaller one may pass. ``answer``: as above."""

    def __init__(self, reason: str, answer: str = "") -> None:
        super().__init__(reason)
        self.answer = answer


class Target(Protocol):
    """How a target is told, and how one looks at what it shows. Both calls raise UnavailableError or RefusedError. What the target
    did not answer, or not clearly, is missing in the result.
    """

    async def push(self, batch: Sequence[RepairPush]) -> Mapping[str, RepairResult]:
        """Tell desired states; answers by idempotency key. ``received``: what becomes of it is told later (sync.receipts)."""
        ...

    async def read_back(self, batch: Sequence[RecordKey]) -> Mapping[RecordKey, RecordView]:
        """What the public sees of some records."""
        ...
