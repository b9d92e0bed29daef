"""The conformance kit towards a system with an HTTP interface: pushes, and takes callbacks or asks."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from aiohttp import ClientSession, ClientTimeout, web
from pydantic import ValidationError
from standardwebhooks import Webhook

from chassis.webhooks import verify
from contracts.catalogue import Department
from contracts.http.department import (
    CallbackReceipt,
    DecisionCallback,
    PolledDecision,
    PolledDecisions,
    ReviewCancellation,
    ReviewReceipt,
    ReviewSubmission,
)
from xinfu.conformance_cases import DECIDED, Ear, Heard, Result, UnfitError, check, common, review, run, until

_WRONG_SECRET = "whsec_" + "d3Jvbmcgc2VjcmV0IGZvciB0ZXN0cyE="


@dataclass
class Attempt:
    """One attempt of a callback that we did not take. ``timestamp``: what it was signed for; ``at``: when it came; Unix seconds."""

    body: bytes
    timestamp: int
    at: float


@dataclass
class ApiSide:
    """Our side. ``down``: items whose callbacks we do not take at first, and how often yet."""

    department: Department
    url: str
    secret: str
    polls: bool
    http: ClientSession
    patience_seconds: float
    settle_seconds: float
    callback_url: str = ""
    ear: Ear = field(default_factory=Ear)
    down: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)

    async def post(
        self, path: str, body: str, message_id: str, *, secret: str | None = None, at: datetime | None = None
    ) -> tuple[int, bytes]:
        """A signed request and its answer. By default signed rightly and now."""
        at = at or datetime.now(UTC)
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret or self.secret).sign(message_id, at, body),
            "content-type": "application/json",
        }
        async with self.http.post(f"{self.url}{path}", data=body.encode(), headers=headers) as answer:
            return answer.status, await answer.content.read(64_000)

    async def tell(self, review: ReviewSubmission, round_: int = 0) -> str:
        """See Side."""
        message_id = f"{review.item_id}:{round_}" if round_ else review.item_id
        status, answer = await self.post("/reviews", review.model_dump_json(), message_id)
        if not 200 <= status < 300:
            raise UnfitError(f"送达的事项答复 HTTP {status}，应为 202")
        try:
            receipt = ReviewReceipt.model_validate_json(answer)
        except ValidationError:
            raise UnfitError("答复不是 ReviewReceipt（item_id、receipt_number）") from None
        if receipt.item_id != review.item_id:
            raise UnfitError("答复的 item_id 不是所送的")
        return receipt.receipt_number

    async def cancel(self, review: ReviewSubmission) -> str | None:
        """See Side."""
        message = ReviewCancellation(
            item_id=review.item_id,
            application_id=review.application_id,
            department_code=review.department_code,
        )
        path = f"/reviews/{review.item_id}/cancellation"
        status, _ = await self.post(path, message.model_dump_json(), f"{review.item_id}:1")
        return None if 200 <= status < 300 else f"撤回答复 HTTP {status}，应为 2xx"

    # --- callbacks

    async def take(self, request: web.Request) -> web.Response:
        """A callback, as dept-adapter answers it."""
        body = await request.read()
        try:
            message_id = verify(self.secret, request.headers, body)
            said = DecisionCallback.model_validate_json(body)
        except ValidationError as error:
            return web.json_response({"detail": str(error)[:500]}, status=422)
        except ValueError as error:
            return web.json_response({"detail": str(error)}, status=401)
        if self.down.get(said.item_id, 0) > 0:
            self.down[said.item_id] -= 1
            attempt = Attempt(body, int(request.headers["webhook-timestamp"]), time.time())
            self.attempts.setdefault(message_id, []).append(attempt)
            return web.json_response({"detail": "temporarily unavailable"}, status=503)
        known = {heard.message_id for heard in self.ear.heard.get(said.item_id, [])}
        self.ear.hear(said.item_id, Heard(said, message_id))
        receipt = CallbackReceipt(item_id=said.item_id, state=said.outcome, duplicate=message_id in known)
        return web.Response(text=receipt.model_dump_json(), content_type="application/json")

    async def poll(self) -> None:
        """Ask for decisions for ever."""
        cursor = ""
        while True:
            at, message_id = datetime.now(UTC), f"decisions:{cursor}"
            headers = {
                "webhook-id": message_id,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Webhook(self.secret).sign(message_id, at, ""),
            }
            query = urlencode({"after": cursor, "limit": 100})
            async with self.http.get(f"{self.url}/decisions?{query}", headers=headers) as answer:
                body = await answer.read()
                if answer.status == 200:
                    problem = None
                    try:
                        verify(self.secret, answer.headers, body)
                    except ValueError as error:
                        problem = f"GET decisions 的答复没有正确签名：{error}"
                    page = PolledDecisions.model_validate_json(body)
                    for raw in page.decisions:
                        polled = PolledDecision.model_validate(raw)
                        said = DecisionCallback.model_validate(polled.model_dump())
                        self.ear.hear(polled.item_id, Heard(said, polled.webhook_id, problem))
                    cursor = page.next
            await asyncio.sleep(0.3)


async def conform(side: ApiSide, callback_host: str, callback_url: str | None) -> Sequence[Result]:
    """All cases of a system with an HTTP interface."""
    async with _listening(side, callback_host, callback_url):
        shared, own = await asyncio.gather(common(side, side.callback_url), _own(side))
    return [*shared, *own]


async def _own(side: ApiSide) -> Sequence[Result]:
    async def refuses(**wrong: object) -> str:
        asked = review(side, "准予", callback_url=side.callback_url)
        status, _ = await side.post("/reviews", asked.model_dump_json(), asked.item_id, **wrong)  # type: ignore[arg-type]
        if status not in (400, 401, 403):
            raise UnfitError(f"答复 HTTP {status}，应为 401")
        await asyncio.sleep(side.settle_seconds)
        if side.ear.heard.get(asked.item_id):
            raise UnfitError(f"答复 HTTP {status}，却办理了该事项")
        return f"HTTP {status}，没有办理"

    async def retries() -> str:
        asked = review(side, "准予", callback_url=side.callback_url)
        side.down[asked.item_id] = 2
        await side.tell(asked)
        await until(side, asked.item_id, DECIDED)
        check(side, asked.item_id, None)
        mine = {
            message_id: tried
            for message_id, tried in side.attempts.items()
            if asked.item_id.encode() in tried[0].body
        }
        taken = {heard.message_id for heard in side.ear.heard[asked.item_id]}
        if lost := sorted(set(mine) - taken):
            raise UnfitError(f"我们未应答的回调 {lost[0]} 没有以同一 webhook-id 重发")
        if any(len({attempt.body for attempt in tried}) > 1 for tried in mine.values()):
            raise UnfitError("重发的回调正文变了")
        return f"未应答 2 次，{len(mine)} 个回调以同一 webhook-id 重发，最终送到"

    async def signs_again() -> str:
        asked = review(side, "准予", callback_url=side.callback_url)
        side.down[asked.item_id] = 2
        await side.tell(asked)
        await until(side, asked.item_id, DECIDED)
        for tried in side.attempts.values():
            for attempt in tried:
                if abs(attempt.at - attempt.timestamp) > 60:
                    raise UnfitError(f"时间戳与发送时间相差 {abs(attempt.at - attempt.timestamp):.0f} 秒")
            if (
                len(tried) > 1
                and tried[-1].at - tried[0].at > 2
                and tried[0].timestamp == tried[-1].timestamp
            ):
                raise UnfitError("重发的回调用了第一次的时间戳，5 分钟后将被拒收；每次发送都要重新签名")
        return "每次发送都以当时的时间签名"

    old = datetime.now(UTC) - timedelta(minutes=10)
    cases = [
        run("bad-signature", "签名错误", "拒收（401），不办理", lambda: refuses(secret=_WRONG_SECRET)),
        run("old-timestamp", "时间戳过期", "10 分钟前签名的请求拒收（401），不办理", lambda: refuses(at=old)),
    ]
    if not side.polls:
        cases += [
            run("restart", "我们重启，回调未应答", "以同一 webhook-id、同一正文重发直到送达", retries),
            run("late-callback", "迟到的回调", "每次发送都以当时的时间重新签名", signs_again),
        ]
    return await asyncio.gather(*cases)


@asynccontextmanager
async def _listening(side: ApiSide, host: str, public_url: str | None) -> AsyncIterator[None]:
    """Our callback server, or our polling."""
    if side.polls:
        side.callback_url = "https://unused.example/decisions"
        polling = asyncio.create_task(side.poll())
        try:
            yield
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        return
    app = web.Application()
    path = f"/v1/departments/{side.department.code}/decisions"
    app.router.add_post(path, side.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = runner.addresses[0][1]
    side.callback_url = (public_url or f"http://{host}:{port}").rstrip("/") + path
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def api_side(
    department: Department,
    url: str,
    secret: str,
    *,
    polls: bool,
    patience_seconds: float,
    settle_seconds: float,
) -> AsyncIterator[ApiSide]:
    """Our side towards the system at ``url``."""
    async with ClientSession(timeout=ClientTimeout(total=10)) as http:
        yield ApiSide(department, url.rstrip("/"), secret, polls, http, patience_seconds, settle_seconds)
