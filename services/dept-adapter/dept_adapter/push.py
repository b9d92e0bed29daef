"""Hands reviews over to a department that has a system of its own; one Pusher for each, so that none waits for another."""

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from chassis.background import Loop
from chassis.breaker import Breaker, BreakerState
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from chassis.telemetry import links, remote_context, span_context, tracer
from chassis.webhooks import sign
from contracts.catalogue import Department
from contracts.http.department import ReviewCancellation, ReviewReceipt, ReviewSubmission
from contracts.http.intake import Case
from dept_adapter.settings import DeptAdapterSettings
from dept_adapter.states import State
from dept_adapter.store import Claim, PushResult, Reviews, StoredReview
from dept_adapter.tellings import cancellation, submission

log = get_logger(__name__)

PUSHES = Counter(
    "xinfu_department_pushes_total", "Reviews pushed to departments' systems", ["department", "result"]
)
BREAKER = Gauge("xinfu_department_breaker_state", "0 closed, 1 half-open, 2 open", ["department"])

# 401, 403 and 404 speak of our secret or URL, not of the review: a wrong setting must not empty a queue onto the desk
_RETRIED_4XX = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
_MAX_ANSWER_BYTES = 64_000
_SHOWN_CHARACTERS = 500


class Pusher:
    """Pushes the due reviews of one department of mode api."""

    def __init__(
        self,
        department: Department,
        settings: DeptAdapterSettings,
        reviews: Reviews,
        cases: CaseDirectory,
        http: ClientSession,
        outbox: Outbox,
    ) -> None:
        self.department = department
        self._reviews = reviews
        self._cases = cases
        self._http = http
        self._url = f"{str(settings.department_urls[department.slug]).rstrip('/')}/reviews"
        self._secret = settings.department_secrets[department.slug].get_secret_value()
        self._callback_url = settings.callback_url(department)
        self._batch = settings.push_batch
        self._slots = asyncio.Semaphore(settings.push_concurrency)
        self._timeout = ClientTimeout(total=settings.push_timeout_seconds)
        self._lease = timedelta(seconds=settings.push_lease_seconds)
        self._longest = timedelta(seconds=settings.push_backoff_max_seconds)
        self._policy = RetryPolicy(
            settings.push_backoff_base_seconds, settings.push_backoff_max_seconds, max_attempts=0
        )
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self._intake_failures = 0
        self.loop = Loop(
            f"push.{department.slug}",
            self.step,
            settings.push_poll_seconds,
            grace_seconds=settings.push_timeout_seconds + 5,
        )
        self._rows = Rows(self.loop, outbox)

    @property
    def problem(self) -> str | None:
        """Why the last push was not answered; None when it was."""
        return self._breaker.last_error

    def breaker_state(self) -> BreakerState:
        """Whether pushes are tried now; also refreshes the gauge."""
        state = self._breaker.state(time.monotonic())
        BREAKER.labels(self.department.slug).set(state.gauge)
        return state

    async def step(self) -> bool:
        """Push one batch of due reviews; returns whether more may be due."""
        state = self.breaker_state()
        if state is BreakerState.OPEN:
            return False
        limit = 1 if state is BreakerState.HALF_OPEN else self._batch
        now = datetime.now(UTC)
        claim = await self._reviews.claim(self.department.slug, limit, now, self._lease, self._rows)
        if not claim.reviews:
            return False
        results: list[PushResult] = []
        done = asyncio.Event()
        keeper = asyncio.create_task(self._keep(claim, results, done))
        try:
            await self._push_batch(claim, results)
        finally:
            done.set()
            await keeper
            self.breaker_state()
        return any(result.result != "released" for result in results)

    async def _keep(self, claim: Claim, results: list[PushResult], done: asyncio.Event) -> None:
        """Store results as they come and keep the lease of the rest, until all is done."""
        open_ids = {stored.review.item_id for stored in claim.reviews}
        stored_results = 0
        while open_ids:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), self._lease.total_seconds() / 3)
            finished = done.is_set()
            fresh = results[stored_results:]
            await self._reviews.settle(claim.token, fresh)
            stored_results += len(fresh)
            open_ids -= {result.item_id for result in fresh}
            if finished:
                return
            await self._reviews.renew(claim.token, list(open_ids), datetime.now(UTC) + self._lease)

    async def _push_batch(self, claim: Claim, results: list[PushResult]) -> None:
        traces = [span_context(stored.trace) for stored in claim.reviews]
        with tracer.start_as_current_span(
            f"push batch {self.department.slug}",
            links=links(traces),
            attributes={"messaging.batch.message_count": len(claim.reviews)},
        ):
            try:
                cases = await self._cases.cases(stored.review.application_id for stored in claim.reviews)
            except (ClientError, TimeoutError, OSError, ValueError) as error:
                self._intake_failures += 1
                log.warning(
                    "intake does not answer; pushes wait",
                    department=self.department.slug,
                    error=f"{type(error).__name__}: {error}"[:300],
                )
                wait = self._policy.delay(self._intake_failures)
                results += [
                    self._released(stored, wait, "受理端暂未应答，恢复后自动送部门系统。")
                    for stored in claim.reviews
                ]
                return
        self._intake_failures = 0

        async def push(stored: StoredReview) -> None:
            try:
                results.append(await self._push(stored, cases.get(stored.review.application_id)))
            except Exception as error:
                # one review that cannot be pushed must not lose the results of the others
                log.exception("push failed", item_id=stored.review.item_id)
                problem = f"系统内部错误（{type(error).__name__}），将自动重试。"
                results.append(self._retry(stored, problem, timedelta(0)))

        await asyncio.gather(*(push(stored) for stored in claim.reviews))

    def _released(self, stored: StoredReview, wait: timedelta, problem: str | None = None) -> PushResult:
        now = datetime.now(UTC)
        return self._result(stored, "released", now, problem=problem, next_attempt_at=now + wait)

    async def _push(self, stored: StoredReview, case: Case | None) -> PushResult:
        async with self._slots:
            if self.loop.stopping:
                return self._released(stored, timedelta(0))
            if self.breaker_state() is BreakerState.OPEN:
                wait = timedelta(seconds=self._breaker.remaining_seconds(time.monotonic()))
                return self._released(stored, wait, "部门系统连续未应答，已暂停推送，稍后自动重试。")
            review = stored.review
            with tracer.start_as_current_span(
                f"push review {self.department.slug}",
                remote_context(stored.trace),
                kind=SpanKind.INTERNAL,
                attributes={
                    "xinfu.item_id": review.item_id,
                    "xinfu.application_id": review.application_id,
                    "xinfu.department": self.department.slug,
                },
            ) as span:
                result = await self._attempt(stored, case)
                _describe(span, result)
        PUSHES.labels(self.department.slug, result.result).inc()
        return result

    @staticmethod
    def _result(
        stored: StoredReview,
        result: Literal["delivered", "undeliverable", "retry", "released"],
        at: datetime,
        *,
        receipt_number: str | None = None,
        problem: str | None = None,
        next_attempt_at: datetime | None = None,
    ) -> PushResult:
        round_ = int((stored.push or {}).get("round", 0))
        return PushResult(stored.review.item_id, round_, result, at, receipt_number, problem, next_attempt_at)

    async def _attempt(self, stored: StoredReview, case: Case | None) -> PushResult:
        item_id = stored.review.item_id
        if case is None:
            return self._result(
                stored,
                "undeliverable",
                datetime.now(UTC),
                problem="受理端查无该申请，无法送部门系统；请在工作台核实后办理。",
            )
        try:
            url, message = self._message(stored, case)
            body = message.model_dump_json().encode()
            round_ = int((stored.push or {}).get("round", 0))
            async with self._http.post(
                url,
                data=body,
                headers=sign(self._secret, f"{item_id}:{round_}" if round_ else item_id, body),
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                return await self._answered(stored, case, response)
        except (ClientError, TimeoutError, OSError) as error:
            self._breaker.failed(time.monotonic(), type(error).__name__)
            problem = f"部门系统未应答（{type(error).__name__}），将自动重试。"
            return self._retry(stored, problem, timedelta(0))

    def _message(self, stored: StoredReview, case: Case) -> tuple[str, ReviewSubmission | ReviewCancellation]:
        review = stored.review
        if review.state is not State.RECEIVED:
            return f"{self._url}/{review.item_id}/cancellation", cancellation(review)
        return self._url, submission(review, case, self._callback_url)

    async def _answered(self, stored: StoredReview, case: Case, response: ClientResponse) -> PushResult:
        status = response.status
        answer = await response.content.read(_MAX_ANSWER_BYTES)
        item_id, now = stored.review.item_id, datetime.now(UTC)
        if 200 <= status < 300:
            self._breaker.succeeded()
            receipt_number = _receipt_number(answer, item_id)
            return self._result(stored, "delivered", now, receipt_number=receipt_number)
        if 400 <= status < 500 and status not in _RETRIED_4XX:
            self._breaker.succeeded()
            return self._result(
                stored,
                "undeliverable",
                now,
                problem=f"部门系统拒收（HTTP {status}）：{_without(case, _told(answer))}",
            )
        asked = retry_after(response.headers.get("Retry-After"), now)
        self._breaker.failed(time.monotonic(), f"HTTP {status}")
        return self._retry(stored, f"部门系统暂不能受理（HTTP {status}），将自动重试。", asked)

    def _retry(self, stored: StoredReview, problem: str, asked: timedelta) -> PushResult:
        now = datetime.now(UTC)
        attempts = int((stored.push or {}).get("attempts", 0)) + 1
        wait = max(self._policy.delay(attempts), min(asked, self._longest))
        return self._result(stored, "retry", now, problem=problem, next_attempt_at=now + wait)


def retry_after(value: str | None, now: datetime) -> timedelta:
    """How long a Retry-After header asks to wait (RFC 9110, 10.2.3: seconds or a date); nothing when absent or unreadable."""
    if not value:
        return timedelta(0)
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value), 86_400))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return timedelta(0)
    return max(moment.replace(tzinfo=moment.tzinfo or UTC) - now, timedelta(0))


def _receipt_number(answer: bytes, item_id: str) -> str | None:
    """The receipt's number; the department has the review even when its receipt cannot be read."""
    try:
        return ReviewReceipt.model_validate_json(answer).receipt_number
    except ValidationError:
        log.warning("receipt cannot be read", item_id=item_id)
        return None


def _told(answer: bytes) -> str:
    """What a refusing answer says to people: the detail of an RFC 9457 problem, else its text."""
    text = answer.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, RecursionError):
        problem = json.loads(text)
        if isinstance(problem, dict):
            text = str(problem.get("detail") or problem.get("title") or text)
    return text[:_SHOWN_CHARACTERS] or "未说明原因"


def _without(case: Case, text: str) -> str:
    """A department may quote in its reason what must not be stored here."""
    for secret in (case.subject.code, case.subject.name, case.contact.name, case.contact.phone):
        text = text.replace(secret, "***")
    return text


def _describe(span: Span, result: PushResult) -> None:
    span.set_attribute("xinfu.push.result", result.result)
    if result.result != "delivered":
        span.set_status(Status(StatusCode.ERROR, result.problem or ""))
