"""Departments with an HTTP interface: reviews are pushed (``push``); decisions are called back (``callbacks``) or polled (``poll``)."""

from collections.abc import Sequence

from chassis.background import Loop
from chassis.consumer import ConsumerSpec
from contracts.catalogue import Department
from dept_adapter.kinds.poll import Poller
from dept_adapter.kinds.port import Health, Parts
from dept_adapter.push import Pusher


class ApiKind:
    """One department of mode api."""

    def __init__(self, department: Department, parts: Parts) -> None:
        self.department = department
        runtime = parts.runtime
        self._pusher = Pusher(
            department, parts.settings, parts.reviews, parts.cases, runtime.http, runtime.outbox
        )
        self._poller = None if department.callbacks else Poller(department, parts)
        self.consumers: Sequence[ConsumerSpec] = ()

    @property
    def loops(self) -> Sequence[Loop]:
        """Of pushing, and of polling where the department cannot call back."""
        return [self._pusher.loop, *([self._poller.loop] if self._poller else [])]

    def wake(self) -> None:
        """Push now."""
        self._pusher.loop.wake()

    def health(self) -> Health:
        """Of pushing; of polling where that is worse."""
        state, problem = self._pusher.breaker_state(), self._pusher.problem
        if self._poller is not None:
            polled = self._poller.health()
            problem = problem or polled.problem
            if polled.breaker is not None and polled.breaker.gauge > state.gauge:
                state = polled.breaker
        told = (
            f"部门系统未正常应答（{problem}），将自动重试；请核对地址、密钥并联系该部门。"
            if problem
            else None
        )
        return Health(state, told)
