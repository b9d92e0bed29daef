"""The port of adapter kinds: how one department with a system of its own takes part.

dept-adapter asks two things of a kind: to hand over what is due at its department (``Reviews.claim``, ``settle``), and to bring what the
department says to the ``Listener``. Both happen in the kind's own loops or consumers, so that a department that is slow, silent or
wrong holds up no other. What every kind has to keep is tried by tests/e2e/test_kinds.py against each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.background import Loop
from chassis.breaker import BreakerState
from chassis.cases import CaseDirectory
from chassis.consumer import ConsumerSpec
from chassis.service import Runtime
from contracts.catalogue import Department
from dept_adapter.kinds.channels import Channels
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.store import Reviews
from dept_adapter.words import Listener


@dataclass(frozen=True)
class Parts:
    """What a kind is built of."""

    settings: DeptAdapterSettings
    runtime: Runtime
    reviews: Reviews
    cases: CaseDirectory
    listener: Listener
    channels: Channels


@dataclass(frozen=True)
class Health:
    """Whether the department's system is tried now (None: we call nobody), and why it could not be reached the last time (zh-CN)."""

    breaker: BreakerState | None = None
    problem: str | None = None


class Kind(Protocol):
    """One department, reached in its way."""

    department: Department

    @property
    def loops(self) -> Sequence[Loop]:
        """What it does by itself; the service starts and stops them."""
        ...

    @property
    def consumers(self) -> Sequence[ConsumerSpec]:
        """What it reads from the bus beside the reviews."""
        ...

    def wake(self) -> None:
        """Something new is due to be handed over; called after the commit. A hint, never needed."""
        ...

    def health(self) -> Health:
        """How its system does."""
        ...
