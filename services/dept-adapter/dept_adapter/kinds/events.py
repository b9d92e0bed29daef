"""Departments that live on the bus: they read their reviews themselves and write their decisions to a topic of their own.

Each has a consumer group of its own, so that its events have an inbox of their own: nobody can use up the event ids of another.
"""

from collections.abc import Sequence

from chassis.background import Loop
from chassis.consumer import ConsumerSpec
from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.errors import DeadLetterReason, ProblemCode
from contracts.events import DecisionReported
from contracts.topics import inbound_topic
from dept_adapter.kinds.port import Health, Parts
from dept_adapter.words import Listener, Refused, Word

_NOT_THEIRS = frozenset({ProblemCode.UNKNOWN_ITEM, ProblemCode.WRONG_DEPARTMENT})


class EventsKind:
    """One department of mode events."""

    def __init__(self, department: Department, parts: Parts) -> None:
        self.department = department
        self._listener: Listener = parts.listener
        self.loops: Sequence[Loop] = ()
        self.consumers: Sequence[ConsumerSpec] = [
            ConsumerSpec(f"dept-adapter.{department.slug}", [inbound_topic(department.slug)], self._handle)
        ]

    def wake(self) -> None:
        """Nothing is handed over: the department reads its topic."""

    def health(self) -> Health:
        """Nobody is called; how far behind the consumer is tells `xinfu lag`."""
        return Health()

    async def _handle(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """What cannot take effect is a dead letter. The chassis has checked that the event's department is that of the topic."""
        words: list[Word] = []
        reports: list[Received] = []
        for received in batch:
            event = received.event
            if not isinstance(event, DecisionReported):
                continue
            if event.department.code != self.department.code:
                detail = f"department {event.department.code} is not {self.department.slug} ({self.department.code})"
                unit.reject(received, DeadLetterReason.SCHEMA_MISMATCH, detail)
                continue
            reports.append(received)
            words.append(Word(event, received.id, trace=received.trace))
        results = await self._listener.take(unit, self.department.code, words)
        for received, result in zip(reports, results, strict=True):
            if isinstance(result, Refused):
                strange = result.code in _NOT_THEIRS
                reason = DeadLetterReason.UNKNOWN_AGGREGATE if strange else DeadLetterReason.CONTRADICTION
                unit.reject(received, reason, result.reason)
