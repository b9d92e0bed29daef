"""Asks a department's system that cannot call back for its decisions (contracts.http.department, 3)."""

import time
from datetime import timedelta
from urllib.parse import urlencode

from aiohttp import ClientError, ClientTimeout
from pydantic import ValidationError

from chassis.background import Loop
from chassis.breaker import Breaker, BreakerState
from chassis.logs import get_logger
from chassis.parking import RetryPolicy
from chassis.unit_of_work import UnitOfWork
from chassis.webhooks import sign, verify
from contracts.catalogue import Department
from contracts.http.department import PolledDecision, PolledDecisions
from dept_adapter.kinds.channels import RefusedDecision
from dept_adapter.kinds.port import Health, Parts
from dept_adapter.words import Refused, Word, faults_of

log = get_logger(__name__)
_LIMIT = 200
_MAX_ANSWER_BYTES = 4_000_000


class MovedError(Exception):
    """Another process has taken these decisions meanwhile."""


class Poller:
    """Polls one department. At least once: what was asked for twice is recognised like a repeated callback."""

    def __init__(self, department: Department, parts: Parts) -> None:
        settings = parts.settings
        self._department = department
        self._parts = parts
        self._url = f"{str(settings.department_urls[department.slug]).rstrip('/')}/decisions"
        self._secret = settings.department_secrets[department.slug].get_secret_value()
        self._timeout = ClientTimeout(total=settings.push_timeout_seconds)
        self._lease = timedelta(seconds=settings.push_timeout_seconds + settings.push_lease_seconds)
        self._policy = RetryPolicy(
            settings.push_backoff_base_seconds, settings.push_backoff_max_seconds, max_attempts=0
        )
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self.loop = Loop(f"poll.{department.slug}", self.step, settings.decision_poll_seconds)

    def health(self) -> Health:
        """Of polling."""
        return Health(self._breaker.state(time.monotonic()), self._breaker.last_error)

    async def step(self) -> bool:
        """Take one page; returns whether there may be more."""
        slug = self._department.slug
        if self._breaker.state(time.monotonic()) is BreakerState.OPEN:
            return False
        if not await self._parts.channels.hold(slug, self._lease):
            return False
        try:
            return await self._page(slug)
        finally:
            await self._parts.channels.release(slug)

    async def _page(self, slug: str) -> bool:
        cursor = await self._parts.channels.cursor(slug)
        try:
            page = await self._ask(cursor)
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            wait = self._policy.delay(self._breaker.failures + 1)
            self._breaker.failed(time.monotonic(), reason, wait.total_seconds())
            log.warning("department cannot be asked for its decisions", department=slug, error=reason)
            return False
        self._breaker.succeeded()
        if page.next == cursor:
            return False
        try:
            await self._take(cursor, page)
        except MovedError:
            log.info("another process has taken these decisions", department=slug)
        return True

    async def _ask(self, cursor: str) -> PolledDecisions:
        query = urlencode({"after": cursor, "limit": _LIMIT})
        message_id = f"decisions:{cursor}"
        async with self._parts.runtime.http.get(
            f"{self._url}?{query}",
            headers=sign(self._secret, message_id, b""),
            allow_redirects=False,
            timeout=self._timeout,
        ) as response:
            body = await response.content.read(_MAX_ANSWER_BYTES)
            while piece := await response.content.read(_MAX_ANSWER_BYTES - len(body) + 1):
                body += piece
                if len(body) > _MAX_ANSWER_BYTES:
                    raise ValueError(f"the answer is larger than {_MAX_ANSWER_BYTES} bytes")
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            if verify(self._secret, response.headers, body) != message_id:
                raise ValueError("the answer is signed for another question")
        try:
            return PolledDecisions.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(f"unreadable answer: {faults_of(error)[0]}") from None

    async def _take(self, cursor: str, page: PolledDecisions) -> None:
        slug, code = self._department.slug, self._department.code
        words: list[Word] = []
        refused: list[RefusedDecision] = []
        for number, raw in enumerate(page.decisions):
            try:
                polled = PolledDecision.model_validate(raw)
            except ValidationError as error:
                fault = faults_of(error)[0]
                message_id = str(raw.get("webhook_id") or f"decisions:{cursor}:{number}")[:200]
                reason = f"内容不合要求：{fault['field'] or '整体'}，{fault['reason']}。请更正后用新的 webhook_id 再报。"
                refused.append(RefusedDecision(message_id, str(raw.get("item_id"))[:40], reason))
                continue
            words.append(Word(polled, f"callback:{polled.webhook_id}", polled.webhook_id))

        async def work(unit: UnitOfWork) -> int:
            if not await self._parts.channels.advance(slug, cursor, page.next, unit.session):
                raise MovedError
            results = await self._parts.listener.take(unit, code, words)
            said = [
                RefusedDecision(word.message_id or "", result.item_id, result.reason)
                for word, result in zip(words, results, strict=True)
                if isinstance(result, Refused)
            ]
            await self._parts.channels.refuse(slug, [*refused, *said], unit.now, unit.session)
            return len(refused) + len(said)

        if number := await self._parts.runtime.outbox.run(work):
            log.warning("decisions cannot take effect", department=slug, decisions=number)
