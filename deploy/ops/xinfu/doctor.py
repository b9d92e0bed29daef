"""`xinfu doctor`: looks at everything an installation needs and says what to do, one line a check."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout

from contracts.clock import CHINA_STANDARD_TIME
from contracts.http.operations import ServiceStatus
from xinfu.client import Citizenry, RefusedError
from xinfu.compose import Endpoints
from xinfu.convergence import WAITS_FOR
from xinfu.operators import PATIENCE_SECONDS, Services, everyone
from xinfu.terminal import DataDir, clock_time, console, fail, lasting, plain
from xinfu_local import DEFAULT_DATA_DIR, StackError

_TIMEOUT_SECONDS = 30
_CLOCK_SECONDS = 2.0
_DATE_SECONDS = 1.0
"""An HTTP Date has whole seconds."""
_PENDING_SECONDS = 60.0
_STALLED_SECONDS = 60.0
_FAILED_STEPS = 3
_LONGEST_TRANSACTION_SECONDS = 30
_DIFFERENCE_SECONDS = 3600.0
_LETTER_SECONDS = 86_400.0
_HEADS_LATE = 10
"""Intervals between heads."""


class Grade(StrEnum):
    """How a check came out. A notice waits for a person, but nothing is broken."""

    GOOD = "[green]✓[/green]"
    NOTICE = "[yellow]![/yellow]"
    BAD = "[red]✗[/red]"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and what to do about it."""

    grade: Grade
    what: str
    found: str
    todo: str = ""


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """体检：设置、总线、数据库、索引、时钟、平台，逐项打印 ✓ 或 ✗ 和该做什么。有 ✗ 时退出状态为 1。"""
    try:
        endpoints = Endpoints.read(data_dir)
    except StackError as error:
        fail(error)
    bad = asyncio.run(_examine(endpoints))
    if bad:
        console.print(f"[red]{bad} 项不正常[/red]")
        raise typer.Exit(1)
    console.print("[green]一切正常[/green]")


async def _examine(endpoints: Endpoints) -> int:
    bad = 0

    def show(checks: list[Check] | Iterator[Check]) -> None:
        nonlocal bad
        for check in checks:
            bad += check.grade is Grade.BAD
            console.print(
                f"{check.grade.value} {check.what}：{plain(check.found)}", highlight=False, soft_wrap=True
            )
            if check.todo:
                console.print(f"    → {check.todo}", highlight=False, soft_wrap=True)

    async with ClientSession(timeout=ClientTimeout(total=_TIMEOUT_SECONDS)) as session:
        show([await _issuer(session, endpoints.oidc)])
        ready = await asyncio.gather(
            *(_ready(session, name, url) for name, url in endpoints.services.items())
        )
        show([*ready])
        try:
            ops = await Citizenry(session, endpoints).ops(PATIENCE_SECONDS)
        except (RefusedError, ClientError, TimeoutError, OSError) as error:
            todo = "核对客户端编号与密钥、身份服务是否在运行；没有令牌，以下各项无法检查"
            show([Check(Grade.BAD, "运维令牌", str(error) or type(error).__name__, todo)])
            return bad
        services = Services(ops, endpoints.services)
        answers, failures = await everyone(endpoints.services, lambda name: _status(services, name))
        for status, asked_at in answers.values():
            show(_database(status))
            show(_bus(status))
            show(_work(status))
            show(_clocks(status, asked_at))
            show(_calendar(status))
        show(
            Check(Grade.BAD, f"{name} 概况", why, "先让它就绪（见上），再运行一次 xinfu doctor")
            for name, why in failures.items()
        )
        if "sync" in answers:
            url = f"{endpoints.services['sync']}/v1/convergence"
            try:
                convergence = await ops.call("GET", url)
                show(_targets(convergence))
                show(_letters(convergence))
                show([_heads(convergence["history"])])
            except (RefusedError, ClientError, TimeoutError, OSError) as error:
                show([Check(Grade.BAD, "公示平台", str(error) or type(error).__name__, "看 sync 的日志")])
    return bad


async def _issuer(session: ClientSession, issuer: str) -> Check:
    url = f"{issuer}/.well-known/openid-configuration"
    try:
        began = time.time()
        async with session.get(url) as response:
            response.raise_for_status()
            date = response.headers.get("Date")
        middle = (began + time.time()) / 2
    except (ClientError, TimeoutError, OSError) as error:
        todo = f"恢复身份服务；核对 XINFU_OIDC_ISSUER（{issuer}）。已登录的人和服务在令牌过期前不受影响"
        return Check(Grade.BAD, "身份服务", str(error) or type(error).__name__, todo)
    if date is None:
        return Check(Grade.GOOD, "身份服务", "有回答（没有 Date 头，无法比较时钟）")
    # the Date is cut to whole seconds, and some servers keep it for a second
    off = parsedate_to_datetime(date).timestamp() + _DATE_SECONDS - middle
    if abs(off) > _CLOCK_SECONDS + _DATE_SECONDS:
        return Check(Grade.BAD, "身份服务", f"时钟与本机相差约 {off:+.0f} 秒", _NTP)
    return Check(Grade.GOOD, "身份服务", "有回答，时钟与本机一致")


_NTP = "校时（chrony 或 NTP）：偏差使令牌和签名被拒、期限算错"


async def _ready(session: ClientSession, name: str, url: str) -> Check:
    what = f"{name} 就绪"
    try:
        async with session.get(f"{url}/readyz") as response:
            body: Mapping[str, Any] = await response.json(content_type=None)
            checks = {str(k): str(v) for k, v in body["checks"].items()}
    except (ClientError, TimeoutError, OSError) as error:
        todo = f"{name} 没有在运行或连不上（{url}）：启动它；反复退出则看它日志的最后几行，状态 78 是设置有误"
        return Check(Grade.BAD, what, str(error) or type(error).__name__, todo)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Check(Grade.BAD, what, "回答的不是 /readyz 的内容", f"核对地址 {url}")
    wrong = {check: value for check, value in checks.items() if value != "ok"}
    if not wrong:
        return Check(Grade.GOOD, what, " ".join(f"{check} ok" for check in checks))
    found = "；".join(f"{check}：{value}" for check, value in wrong.items())
    return Check(Grade.BAD, what, found, "；".join(_READY_TODO.get(check, "看日志") for check in wrong))


_READY_TODO = {
    "database": "恢复 MongoDB 主节点；服务自己重连",
    "bus": "恢复 Kafka；缺主题说明它丢过数据：建好后 xinfu outbox replay",
    "progress": "看该服务日志里的 batch failed，再看 xinfu lag",
}


async def _status(services: Services, name: str) -> tuple[ServiceStatus, datetime]:
    """The answer, and the moment by this machine's clock at which it was made."""
    answer = await services.ask(ServiceStatus, name, "status")
    return answer, datetime.now(UTC)


def _database(status: ServiceStatus) -> Iterator[Check]:
    database, what = status.database, f"{status.service} 数据库"
    if database.problem:
        yield Check(Grade.BAD, what, database.problem, _READY_TODO["database"])
        return
    if database.replica_set is None:
        yield Check(Grade.BAD, what, "不是副本集", "事务需要副本集：以 --replSet 启动 mongod")
        return
    found = f"副本集 {database.replica_set}，主节点 {database.primary}，成员 {database.members}"
    if database.missing_indexes:
        missing = "、".join(database.missing_indexes)
        todo = f"重启 {status.service} 即按声明创建；仍缺则看日志（多为已有数据违反唯一性）"
        yield Check(Grade.BAD, what, f"缺少或与声明不同的索引 {missing}", todo)
    else:
        yield Check(Grade.GOOD, what, f"{found}，索引齐全")
    lifetime = database.transaction_lifetime_seconds
    if lifetime is not None and lifetime > _LONGEST_TRANSACTION_SECONDS:
        found = f"事务可以开着 {lifetime} 秒：进程在事务中途被杀，它写过的文档至多一倍半这么久写不了"
        todo = "以 --setParameter transactionLifetimeLimitSeconds=15 启动 mongod（大于 XINFU_HANDLER_TIMEOUT_SECONDS）"
        yield Check(Grade.NOTICE, what, found, todo)
    if window := database.snapshot_history_seconds:
        found = (
            f"为快照读保留 {window} 秒旧版本，没有用处：忙时发件箱的每次轮询都要走过它们（docs/brokers.md）"
        )
        todo = "以 --setParameter minSnapshotHistoryWindowInSeconds=0 启动 mongod"
        yield Check(Grade.NOTICE, what, found, todo)


def _bus(status: ServiceStatus) -> Iterator[Check]:
    bus, what = status.bus, f"{status.service} 总线"
    if bus.problem:
        yield Check(Grade.BAD, what, bus.problem, "恢复 Kafka；期间申请照收，事件留在发件箱")
        return
    missing = [t.topic for t in bus.topics if not t.partitions]
    differing = [
        f"{t.topic} 有 {t.partitions} 个、应有 {t.declared_partitions} 个"
        for t in bus.topics
        if t.partitions and t.partitions != t.declared_partitions
    ]
    scarce = [t.topic for t in bus.topics if t.partitions and t.replicas < bus.wanted_replicas]
    behind = [t.topic for t in bus.topics if t.partitions and t.in_sync_replicas < t.replicas]
    if missing:
        todo = "服务会重建（XINFU_CREATE_TOPICS，否则手工建）；总线丢过数据，再 xinfu outbox replay"
        yield Check(Grade.BAD, what, f"缺主题 {_some(missing)}", todo)
    if differing:
        todo = "不要给已有主题加分区（同键的次序会乱）：先停写、排空，再按声明重建"
        yield Check(Grade.BAD, what, f"分区数不符：{_some(differing)}", todo)
    if scarce:
        todo = f"用 kafka-reassign-partitions.sh 补足到 KAFKA_REPLICATION_FACTOR={bus.wanted_replicas}"
        yield Check(Grade.BAD, what, f"副本数不足：{_some(scarce)}", todo)
    if behind:
        todo = "有 broker 停了或跟不上：恢复它；此时再坏一个可能停写"
        yield Check(Grade.BAD, what, f"副本未全部同步：{_some(behind)}", todo)
    if not (missing or differing or scarce or behind):
        replicas = min((t.replicas for t in bus.topics), default=0)
        found = f"{bus.brokers} 个 broker，{len(bus.topics)} 个主题齐全，分区与声明一致，副本 {replicas}"
        yield Check(Grade.GOOD, what, found)


def _some(names: list[str]) -> str:
    return "、".join(names[:5]) + (f" 等 {len(names)} 个" if len(names) > 5 else "")


def _work(status: ServiceStatus) -> Iterator[Check]:
    what = f"{status.service} 处理"
    good = True
    for consumer in status.consumers:
        if consumer.stalled_seconds > _STALLED_SECONDS:
            good = False
            todo = "看日志里的 batch failed；数据库慢先治库"
            yield Check(Grade.BAD, what, f"消费者停顿 {lasting(consumer.stalled_seconds)}", todo)
        if consumer.dead_keys or consumer.parked_keys:
            good = False
            found = f"等人处理的键 {consumer.dead_keys}，自动重试中的键 {consumer.parked_keys}"
            todo = f"xinfu dlq list --service {status.service}"
            yield Check(Grade.NOTICE, what, found, todo)
    if status.open_dead_letters:
        good = False
        found = "、".join(f"{reason} {number}" for reason, number in status.open_dead_letters.items())
        yield Check(
            Grade.NOTICE, what, f"未处理的死信：{found}", f"xinfu dlq list --service {status.service}"
        )
    oldest = status.outbox and status.outbox.oldest_pending_at
    if oldest and (waited := (status.at - oldest).total_seconds()) > _PENDING_SECONDS:
        good = False
        todo = "看总线各项和日志里的 publish failed；恢复后自动发完"
        yield Check(Grade.BAD, what, f"发件箱有事件已等 {lasting(waited)} 未发布", todo)
    for loop in status.failing_loops:
        good = False
        # one that fails and recovers is nothing to act on; one that keeps failing does not do its work
        grade = Grade.BAD if loop.failed >= _FAILED_STEPS else Grade.NOTICE
        found = f"后台任务 {loop.name} 最近 15 分钟失败 {loop.failed} 次，最后一次 {loop.last_error}"
        todo = f"看 {status.service} 日志里 {clock_time(loop.last_failed_at)} 的 background step failed 或 a row is left alone"
        yield Check(grade, what, found, todo)
    if good:
        yield Check(Grade.GOOD, what, "消费者和后台任务有进展，没有死信和停放的键，发件箱已发完")


def _clocks(status: ServiceStatus, answered_at: datetime) -> Iterator[Check]:
    what = f"{status.service} 时钟"
    here = (status.at - answered_at).total_seconds()
    there = status.database.clock_ahead_seconds
    off = []
    if abs(here) > _CLOCK_SECONDS:
        off.append(f"与本机相差 {here:+.1f} 秒")
    if abs(there) > _CLOCK_SECONDS:
        off.append(f"数据库与它相差 {there:+.1f} 秒")
    if off:
        yield Check(Grade.BAD, what, "，".join(off), _NTP)
    else:
        yield Check(Grade.GOOD, what, f"与本机相差 {abs(here):.1f} 秒，与数据库相差 {abs(there):.1f} 秒")


def _calendar(status: ServiceStatus) -> Iterator[Check]:
    calendar = status.calendar
    if calendar is None:
        return
    what, year = f"{status.service} 工作日历", calendar.missing_year
    if not calendar.needed:
        yield Check(Grade.GOOD, what, f"已知到 {year - 1} 年（{calendar.version}）")
        return
    found = f"缺 {year} 年的放假安排：跨入该年的期限暂定，暂不催办、不视为逾期（{calendar.version}）"
    todo = f"国务院办公厅公布 {year} 年通知（一般在上年 11 月）后，录入目录的 calendar.yaml 并重启；期限随即自动重算"
    grade = Grade.BAD if year <= status.at.astimezone(CHINA_STANDARD_TIME).year else Grade.NOTICE
    yield Check(grade, what, found, todo)


def _targets(convergence: Mapping[str, Any]) -> Iterator[Check]:
    for target in convergence["targets"]:
        what = f"平台 {target['target_name']}"
        breaker, oldest = target["breaker"], target["oldest_difference"]
        # one that is told by letter alone has none
        if breaker and breaker["state"] != "closed":
            todo = "对方恢复后自动重试，无需操作；久不恢复请联系对方。401/403 核对密钥"
            found = f"熔断（{breaker['state']}）：{breaker['last_error'] or ''}"
            yield Check(Grade.BAD, what, found, todo)
        elif target["overdue"]:
            limit = target["time_limit_working_days"]
            todo = f"看 sync 的 GET /v1/records/{oldest['record_id']}，请该平台更新；第三方平台按规定函告"
            yield Check(Grade.BAD, what, f"{target['overdue']} 条超过 {limit} 个工作日未按决定展示", todo)
        elif breaker and oldest and oldest["seconds"] > _DIFFERENCE_SECONDS:
            todo = f"看 sync 的 GET /v1/records/{oldest['record_id']}，与平台核对这条记录"
            found = f"有记录 {lasting(oldest['seconds'])} 未按决定展示：{oldest['last_error'] or ''}"
            yield Check(Grade.BAD, what, found, todo)
        else:
            differing = f"，最久的差异 {lasting(oldest['seconds'])}" if oldest else ""
            yield Check(Grade.GOOD, what, f"应展示 {target['desired']}，已见 {target['seen']}{differing}")


def _letters(convergence: Mapping[str, Any]) -> Iterator[Check]:
    todo = {
        "release": "xinfu letters list --state draft：签发，或不采用",
        "sending": "xinfu letters list --state released：由人送达后 xinfu letters sent 登记",
        "answer": "联系该平台；有了答复 xinfu letters answer 登记，看过其展示 xinfu letters seen 登记",
    }
    for target in convergence["targets"]:
        for letters in target["letters_waiting"]:
            waited = (datetime.now(UTC) - datetime.fromisoformat(letters["since"])).total_seconds()
            if letters["waits_for"] == "answer" or waited > _LETTER_SECONDS:
                found = f"{letters['count']} 份{WAITS_FOR[letters['waits_for']]}，最久已 {lasting(waited)}"
                yield Check(Grade.NOTICE, f"函告{target['target_name']}", found, todo[letters["waits_for"]])


def _heads(history: Mapping[str, Any]) -> Check:
    what, since = "历史签名头", history["uncovered_since"]
    waited = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds() if since else 0.0
    last = (
        f"最近一个 {history['last_number']}（{history['last_at']}）" if history["last_number"] else "还没有"
    )
    if waited > _HEADS_LATE * history["interval_seconds"]:
        todo = "看 sync 日志里的 history heads；此间写下的历史若被整条删除，看不出来"
        return Check(Grade.BAD, what, f"{last}，此后有历史已 {lasting(waited)} 没有签名", todo)
    return Check(Grade.GOOD, what, f"{last}，没有迟迟未签名的历史")
