"""``xinfu conformance target``: what a platform or vendor must do, tried on one published test record of theirs (docs/targets.md)."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import ValidationError
from rich.table import Table
from standardwebhooks import Webhook

from contracts.http.target import (
    RecordKey,
    RecordQuery,
    RecordQueryResult,
    RecordView,
    RepairBatch,
    RepairBatchResult,
    RepairPush,
    RepairResult,
    RepairStatus,
)
from contracts.records import DisplayState, RecordContent
from xinfu.terminal import console, fail, plain

PUBLISHED, SHIELDED, ENDED = DisplayState.PUBLISHED, DisplayState.SHIELDED, DisplayState.PUBLICATION_ENDED
_REFUSALS = frozenset({400, 413, 422})
_LOOK_SECONDS = 0.5


class NotConformingError(Exception):
    """A check failed; the text says what was expected and what came (zh-CN)."""


@dataclass(frozen=True)
class Reply:
    """A whole answer of the platform."""

    status: int
    body: bytes


@dataclass
class Kit:
    """One run against one platform. ``first_version``: pushes of this run start there."""

    http: ClientSession
    url: str
    webhook: Webhook
    record: RecordKey
    subject_name: str
    batch_size: int
    wait_seconds: float
    first_version: int = 1
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    # --- talking

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        signed: Webhook | None = None,
        at: datetime | None = None,
        key: str | None = None,
    ) -> Reply:
        """One signed request. ``at``: time of the signature."""
        moment, message_id = at or datetime.now(UTC), f"kit_{secrets.token_hex(8)}"
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": (signed or self.webhook).sign(message_id, moment, body.decode()),
        }
        if key:
            headers["Idempotency-Key"] = key
        try:
            async with self.http.post(
                self.url + path, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return Reply(answer.status, await answer.read())
        except (ClientError, TimeoutError, OSError) as error:
            raise NotConformingError(f"{path} 没有应答：{type(error).__name__} {error}") from None

    def push(
        self,
        version: int,
        state: DisplayState,
        record: RecordKey | None = None,
        row: int = 0,
        content: RecordContent | None = None,
    ) -> RepairPush:
        """A push of this run."""
        return RepairPush(
            idempotency_key=f"conformance:{self.run}.{row}:{version}",
            record=record or self.record,
            subject_name=self.subject_name,
            state=state,
            version=version,
            decision_number="对接自检",
            decided_at=datetime.now(UTC),
            content=content,
        )

    async def tell(self, *pushes: RepairPush) -> dict[str, RepairResult]:
        """Push; the answers by key, none when they come later (202)."""
        body = RepairBatch(pushes=list(pushes)).model_dump_json().encode()
        reply = await self.post("/v1/repairs", body, key=f"kit_{secrets.token_hex(8)}")
        if reply.status == 202:
            return {}
        if reply.status != 200:
            raise NotConformingError(f"推送应答 200 或 202，实为 {reply.status}")
        try:
            results = RepairBatchResult.model_validate_json(reply.body).results
        except ValidationError:
            raise NotConformingError('推送的应答不是 RepairBatchResult：应为 {"results": […]}') from None
        return {result.idempotency_key: result for result in results}

    async def expect(self, status: RepairStatus, *pushes: RepairPush) -> None:
        """Push, and have every push answered so, or later."""
        found = await self.tell(*pushes)
        for push in pushes:
            if found and (push.idempotency_key not in found or found[push.idempotency_key].status != status):
                shown = found.get(push.idempotency_key)
                raise NotConformingError(
                    f"版本 {push.version} 应答 {status.value}，实为 {shown.status.value if shown else '没有这一条'}"
                )

    async def look(self, record: RecordKey | None = None) -> RecordView:
        """What the public sees."""
        wanted = record or self.record
        reply = await self.post("/v1/records/query", RecordQuery(records=[wanted]).model_dump_json().encode())
        if reply.status != 200:
            raise NotConformingError(f"查询应答 200，实为 {reply.status}")
        try:
            views = RecordQueryResult.model_validate_json(reply.body).records
        except ValidationError:
            raise NotConformingError('查询的应答不是 RecordQueryResult：应为 {"records": […]}') from None
        for view in views:
            if view.record == wanted:
                return view
        raise NotConformingError("查询的应答中没有所问的记录：record 应与所问逐字相同")

    async def shows(self, state: DisplayState) -> None:
        """The public sees this, at once or a little later."""
        await self._until(lambda view: view.state, state, "应展示")

    async def reads(self, content: RecordContent) -> None:
        """This is read of the record, at once or a little later."""
        await self._until(lambda view: view.content, content, "content 应为")

    async def _until(self, part: Callable[[RecordView], object], wanted: object, what: str) -> None:
        deadline = time.monotonic() + self.wait_seconds
        while (seen := part(await self.look())) != wanted:
            if time.monotonic() > deadline:
                raise NotConformingError(
                    f"{self.wait_seconds:g} 秒后{what} {_said(wanted)}，实为 {_said(seen)}"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    # --- checks

    async def knows_the_record(self) -> None:
        """The test record is there; pushes start above the version it has."""
        view = await self.look()
        if view.state is None:
            raise NotConformingError("查不到测试记录：请先在平台公示这条记录，或核对主体代码、文号、认定单位")
        self.first_version = (view.version or 0) + 10

    async def refuses_bad_signatures(self) -> None:
        body = RecordQuery(records=[self.record]).model_dump_json().encode()
        other = Webhook("whsec_" + "A" * 32)
        push = RepairBatch(pushes=[self.push(self.first_version, ENDED)]).model_dump_json().encode()
        hour = timedelta(hours=1)
        tried = {
            "查询，另一密钥的签名": await self.post("/v1/records/query", body, signed=other),
            "推送，另一密钥的签名": await self.post("/v1/repairs", push, signed=other, key="kit"),
            "推送，一小时前的时间戳": await self.post(
                "/v1/repairs", push, at=datetime.now(UTC) - hour, key="kit"
            ),
        }
        for what, reply in tried.items():
            if reply.status != 401:
                raise NotConformingError(f"{what}：应答 401，实为 {reply.status}")

    async def ends_publication(self) -> None:
        await self.expect(RepairStatus.APPLIED, self.push(self.first_version, ENDED))
        await self.shows(ENDED)

    async def takes_a_repetition(self) -> None:
        push = self.push(self.first_version, ENDED)
        await self.expect(RepairStatus.APPLIED, push)
        await self.expect(RepairStatus.APPLIED, push)
        await self.shows(ENDED)

    async def supersedes_the_older(self) -> None:
        await self.expect(RepairStatus.SUPERSEDED, self.push(self.first_version - 1, PUBLISHED))
        await asyncio.sleep(_LOOK_SECONDS)
        await self.shows(ENDED)

    async def rejects_the_unknown(self) -> None:
        unknown = self.record.model_copy(update={"document_number": f"对接自检〔1999〕{self.run}号"})
        known, stranger = (
            self.push(self.first_version, ENDED),
            self.push(self.first_version, ENDED, unknown, row=1),
        )
        found = await self.tell(known, stranger)
        if not found:
            return
        answer = found.get(stranger.idempotency_key)
        if answer is None or answer.status is not RepairStatus.REJECTED:
            raise NotConformingError("不认识的记录应答 rejected 并说明原因")
        if not answer.reason:
            raise NotConformingError("rejected 应带 reason，说明原因")
        good = found.get(known.idempotency_key)
        if good is None or good.status is not RepairStatus.APPLIED:
            raise NotConformingError("同一批中有一条不能办的，其余各条应照办：逐条应答")

    async def does_not_show_the_unknown(self) -> None:
        unknown = self.record.model_copy(update={"document_number": f"对接自检〔1999〕{self.run}号"})
        if (await self.look(unknown)).state is not None:
            raise NotConformingError("不认识的记录，state 应为 null")

    async def refuses_too_many(self) -> None:
        pushes = [
            self.push(self.first_version, ENDED, row=n).model_dump(mode="json")
            for n in range(self.batch_size + 1)
        ]
        body = RepairBatch.model_construct(pushes=pushes).model_dump_json(warnings=False).encode()  # type: ignore[arg-type]
        reply = await self.post("/v1/repairs", body, key="kit-many")
        if reply.status not in _REFUSALS:
            raise NotConformingError(
                f"{self.batch_size + 1} 条的一批应答 413（或 400、422），实为 {reply.status}"
            )

    async def refuses_nonsense(self) -> None:
        for body in (b"{", b'{"pushes": []}', b'{"pushes": [{"idempotency_key": 1}]}'):
            reply = await self.post("/v1/repairs", body, key="kit-nonsense")
            if reply.status not in _REFUSALS:
                raise NotConformingError(f"读不懂的正文应答 400 或 422，实为 {reply.status}")

    async def shields(self) -> None:
        await self.expect(RepairStatus.APPLIED, self.push(self.first_version + 1, SHIELDED))
        await self.shows(SHIELDED)

    async def publishes_again(self) -> None:
        await self.expect(RepairStatus.APPLIED, self.push(self.first_version + 2, PUBLISHED))
        await self.shows(PUBLISHED)

    async def corrects(self) -> None:
        """What is read is corrected, and read as before at the end; of a target that does not tell it, its version has to do."""
        before = (await self.look()).content
        if before is None:
            return
        other = before.model_copy(update={"decided_on": before.decided_on + timedelta(days=1)})
        for version, content in ((3, other), (4, before)):
            push = self.push(self.first_version + version, PUBLISHED, content=content)
            await self.expect(RepairStatus.APPLIED, push)
            await self.reads(content)

    def checks(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        """In order: the record ends as it was found, published."""
        return (
            ("查得到测试记录", self.knows_the_record),
            ("拒绝错误的签名和过期的时间戳", self.refuses_bad_signatures),
            ("终止公示，查询与之一致", self.ends_publication),
            ("重复推送只生效一次，应答相同", self.takes_a_repetition),
            ("旧版本不生效（superseded）", self.supersedes_the_older),
            ("不认识的记录应答 rejected，其余照办", self.rejects_the_unknown),
            ("查询不认识的记录，state 为 null", self.does_not_show_the_unknown),
            ("拒绝超过上限的一批", self.refuses_too_many),
            ("拒绝读不懂的正文", self.refuses_nonsense),
            ("临时屏蔽，查询与之一致", self.shields),
            ("恢复公示，查询与之一致", self.publishes_again),
            ("更正内容，查询与之一致（查询中告知 content 的平台）", self.corrects),
        )


def _said(value: object) -> str:
    return value.model_dump_json() if isinstance(value, RecordContent) else str(value)


async def run_checks(kit: Kit) -> list[tuple[str, str]]:
    """(check, what is wrong or "") in order. Without the record nothing else is tried."""
    found: list[tuple[str, str]] = []
    for name, check in kit.checks():
        try:
            await check()
        except NotConformingError as error:
            found.append((name, str(error)))
            if check == kit.knows_the_record:
                break
        else:
            found.append((name, ""))
    return found


def target(
    url: Annotated[str, typer.Option(help="平台接口的地址，其下有 /v1/repairs 与 /v1/records/query")],
    secret: Annotated[str, typer.Option(envvar="XINFU_CONFORMANCE_SECRET", help="whsec_…")],
    subject_code: Annotated[str, typer.Option(help="测试记录的统一社会信用代码（须已在平台公示）")],
    document_number: Annotated[str, typer.Option(help="测试记录的文号")],
    authority_name: Annotated[str, typer.Option(help="测试记录的认定单位")],
    subject_name: Annotated[str, typer.Option(help="测试记录的主体名称")] = "对接自检主体",
    batch_size: Annotated[int, typer.Option(min=1, max=500, help="约定的一批上限（条）")] = 100,
    wait_seconds: Annotated[float, typer.Option(min=0, help="推送后多久应能查到（秒）")] = 5.0,
) -> None:
    """公示平台与数据厂商的对接自检：用一条已公示的测试记录逐项检查，结束时该记录恢复公示。有一项不符，退出状态为 1。"""

    async def main() -> list[tuple[str, str]]:
        async with ClientSession(timeout=ClientTimeout(total=30)) as http:
            record = RecordKey(
                subject_code=subject_code, document_number=document_number, authority_name=authority_name
            )
            webhook = Webhook(secret)
            return await run_checks(
                Kit(http, url.rstrip("/"), webhook, record, subject_name, batch_size, wait_seconds)
            )

    try:
        found = asyncio.run(main())
    except ValueError as error:  # the library's, of a secret that is not base64
        fail(f"密钥不可用：{error}")
    table = Table("", "检查", "不符之处", title=f"对接自检 {plain(url)}")
    for name, problem in found:
        table.add_row("[red]✗[/red]" if problem else "[green]✓[/green]", name, plain(problem))
    console.print(table)
    if any(problem for _, problem in found):
        raise typer.Exit(1)
