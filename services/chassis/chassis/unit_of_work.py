"""The unit of work a handler gets: one transaction, with what it emits and what it rejects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chassis.db import Session
from chassis.inbox import Received
from chassis.telemetry import trace_headers
from contracts.errors import DeadLetterReason
from contracts.events import Event


@dataclass(frozen=True, slots=True)
class Emission:
    """An event to publish, the id of what caused it, and the trace context it belongs to."""

    event: Event
    cause: str
    trace: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that can never take effect here, and why."""

    received: Received
    reason: DeadLetterReason
    detail: str


@dataclass(slots=True)
class UnitOfWork:
    """One transaction: hand ``session`` to every database call; events emitted here are published after the commit.

    ``now`` is the one time of all that happens in it.
    """

    session: Session
    now: datetime
    emissions: list[Emission] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    wake_ups: list[Callable[[], None]] = field(default_factory=list)

    def emit(self, event: Event, *, cause: str, trace: Mapping[str, str] | None = None) -> None:
        """Publish ``event`` if the transaction commits. The same cause gives the same event ids."""
        self.emissions.append(Emission(event, cause, trace_headers() if trace is None else trace))

    def reject(self, received: Received, reason: DeadLetterReason, detail: str) -> None:
        """Put an event aside as a dead letter, in this transaction; the rest of the batch goes on."""
        self.rejections.append(Rejection(received, reason, detail))

    def after_commit(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once the transaction has committed: a hint for a background loop, lost when the process is killed."""
        self.wake_ups.append(wake)
