"""HTTP for operators: how far every target is. Scope ``operations``."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.datastructures import State

from chassis.auth import require
from chassis.breaker import BreakerState
from chassis.problems import Problem
from contracts.catalogue import Target
from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.errors import ProblemCode
from contracts.records import DisplayState, RecordContent, RecordId, Timestamp
from contracts.tokens import Claims, Scope
from sync.domain import Delivery, due, is_overdue, settled
from sync.driver import Driver
from sync.letter_desk import LetterDesk
from sync.letter_store import Waiting, WaitsFor
from sync.policy import Policy
from sync.store import Store
from sync.time_limits import TimeLimits
from sync.vendor_letters import LetterState
from sync.visits import Visits

router = APIRouter(prefix="/v1", tags=["收敛情况"])
Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]


class OldestDifference(BaseModel):
    """The record that has not shown what was decided for longest."""

    record_id: str
    since: datetime
    seconds: float
    attempts: int
    last_error: str | None


class BreakerView(BaseModel):
    """The circuit breaker of the replica that answers; other replicas have their own."""

    state: BreakerState
    retry_in_seconds: float
    last_error: str | None


class WaitingLetters(BaseModel):
    """Letters that wait for a person to release them, to be sent, or for an answer that is overdue; since when the oldest has."""

    waits_for: WaitsFor
    count: int
    since: datetime


class TargetConvergence(BaseModel):
    """``desired`` records have to be shown; of these so many are acknowledged, and seen, in the desired version.

    ``drifting``: differ after they had been right. ``due_on``: the last day of the time limit for the oldest difference (None: no
    difference). ``letters_draft``, ``letters_released``: of findings that are not over.
    """

    target_id: str
    target_name: str
    desired: int
    acknowledged: int
    seen: int
    drifting: int
    due_on: date | None
    letters_draft: int
    letters_released: int
    letters_waiting: list[WaitingLetters]
    oldest_difference: OldestDifference | None
    time_limit_working_days: int
    overdue: int = Field(description="Of the others, those beyond the time limit; counted up to 1000")
    breaker: BreakerView | None = Field(description="null: the target is told by letter alone")


class DepartedTarget(BaseModel):
    """A target that has left the catalogue with work undone: nothing is sent there, and it goes on if it comes back."""

    target_id: str
    differing: int


class HeadStanding(BaseModel):
    """The signed heads of the history. ``uncovered_since``: since when a chain has grown beyond its last head; null: all are covered."""

    last_number: int | None
    last_at: datetime | None
    uncovered_since: datetime | None
    interval_seconds: float


class Convergence(BaseModel):
    """Every target of the catalogue, those that have left it with work undone, and whether the history of it all is signed."""

    targets: list[TargetConvergence]
    departed: list[DepartedTarget]
    history: HeadStanding


class DeliveryView(BaseModel):
    """One record at one target."""

    target_id: str
    target_name: str | None = Field(
        description="null: the target has left the catalogue, nothing is sent to it"
    )
    settled: bool
    desired_version: int
    acknowledged_version: int
    seen_version: int
    seen_state: DisplayState | None
    seen_at: datetime | None
    seen_outdated: bool = Field(description="Shown with its content as it was before a correction")
    next_action_at: datetime | None
    attempts: int
    drifts: int
    differs_since: datetime | None
    due_on: date | None = Field(description="Last day to show it; null while it is right")
    due_provisional: bool = Field(description="The working days on the way are not published yet")
    overdue: bool
    last_error: str | None
    sent_version: int = Field(description="Version handed over; what became of it has yet to be told")
    waits_for: list[str] = Field(
        description="Targets that are told before this one and have not acknowledged"
    )
    note: str | None = Field(description="What it waits for, in words (zh-CN)")


class VisitBody(BaseModel):
    """What a person saw there, when, and where that can be looked up (a page, a screenshot, a call)."""

    shown: DisplayState | None = Field(description="null: the record is not shown at all")
    looked_at: Timestamp | None = Field(None, description="null: now")
    reference: str = Field(min_length=1, max_length=500)
    content_right: bool | None = Field(
        None, description="Of a record whose content was corrected, and that is shown: whether it reads so"
    )


class AttemptView(BaseModel):
    """One call to a target about the record, or one word of the target about it."""

    target_id: str
    action: str
    at: datetime
    seconds: float
    version: int
    result: str
    reason: str | None
    error: str | None
    answer: str | None = Field(description="What a failing target said, cut short, without personal data")


class Attempts(BaseModel):
    """Newest first. ``next``: hand it in as ``before`` for the page after this one."""

    attempts: list[AttemptView]
    next: datetime | None


class RecordView(BaseModel):
    """One record at all its targets. ``completed``: all of them were seen right for the current version."""

    record_id: str
    application_id: str | None = Field(
        description="null: no application, its publication changed without a decision"
    )
    item_id: str | None
    version: int
    state: DisplayState
    decision_number: str
    decided_at: datetime
    content: RecordContent | None = Field(
        description="What has to be read where it is shown, as corrected; null: it never was"
    )
    only_corrected: bool = Field(
        description="Nothing but its content was corrected: a target that does not show it is right"
    )
    completed: bool
    targets: list[DeliveryView]


async def _convergence(
    target: Target,
    driver: Driver | None,
    store: Store,
    policy: Policy,
    limits: TimeLimits,
    letters: Mapping[LetterState, int],
    waiting: Sequence[Waiting],
) -> TargetConvergence:
    difference = await store.difference(target.id)
    now = time.monotonic()
    oldest = difference.oldest
    last = due(oldest, policy) if oldest else None
    return TargetConvergence(
        target_id=target.id,
        target_name=target.name,
        desired=difference.desired,
        acknowledged=difference.acknowledged,
        seen=difference.seen,
        drifting=difference.drifting,
        due_on=last and last.on,
        letters_draft=letters.get(LetterState.DRAFT, 0),
        letters_released=letters.get(LetterState.RELEASED, 0),
        letters_waiting=[
            WaitingLetters(waits_for=each.waits_for, count=each.count, since=each.since)
            for each in waiting
            if each.target_id == target.id
        ],
        oldest_difference=None
        if oldest is None or oldest.differs_since is None
        else OldestDifference(
            record_id=oldest.record_id,
            since=oldest.differs_since,
            seconds=(datetime.now(UTC) - oldest.differs_since).total_seconds(),
            attempts=oldest.attempts,
            last_error=oldest.last_error,
        ),
        time_limit_working_days=target.time_limit_working_days,
        overdue=await limits.overdue(target.id) if oldest else 0,
        breaker=None
        if driver is None
        else BreakerView(
            state=driver.breaker.state(now),
            retry_in_seconds=max(driver.breaker.open_until - now, 0),
            last_error=driver.breaker.last_error,
        ),
    )


def _due(delivery: Delivery, policy: Policy | None) -> dict[str, Any]:
    last = due(delivery, policy) if policy else None
    return {
        "due_on": last and last.on,
        "due_provisional": last is not None and last.provisional,
        "overdue": policy is not None and is_overdue(delivery, policy, datetime.now(UTC)),
    }


def _note(delivery: Delivery, policies: Mapping[str, Policy]) -> str | None:
    """Why nothing is sent, or why it was sent before its turn."""
    policy = policies.get(delivery.target_id)
    if policy is None:
        return "该平台已不在目录中：不再推送；恢复后继续。"
    if settled(delivery, policy):
        return None
    if policy.by_letter:
        if delivery.sent_version == delivery.desired_version:
            return "已函告，等待该平台答复；由经办人登记答复，或登记查看所见。"
        return "该平台只能函告：函由经办人签发、送出。"
    if delivery.waits_for:
        names = "、".join(policies[t].target_name for t in delivery.waits_for if t in policies)
        if delivery.attempts or delivery.sent_version or delivery.acknowledged_version:
            return f"{names}在时限内未确认，已先行告知：决定已生效，不因一家平台延误。"
        until = delivery.next_action_at and delivery.next_action_at.astimezone(CHINA_STANDARD_TIME)
        return f"等待{names}确认后告知" + (f"，最迟到 {until:%Y-%m-%d %H:%M}。" if until else "。")
    if delivery.sent_version == delivery.desired_version > delivery.acknowledged_version:
        return "已列入清单，等待平台领取。" if policy.fetches else "已送达，等待平台回执。"
    return None


@router.get("/convergence", summary="各公示平台的收敛情况")
async def convergence(request: Request, _operator: Operator) -> Convergence:
    """How far every target of the catalogue is from what was decided."""
    return await convergence_of(request.app.state)


async def convergence_of(state: State) -> Convergence:
    """Of all targets. ``state``: of the application."""
    targets: Sequence[Target] = state.catalogue.targets
    drivers: Mapping[str, Driver] = state.drivers
    store: Store = state.store
    desk: LetterDesk = state.letters
    policies: Mapping[str, Policy] = state.policies
    letters = await desk.letters.counts(target.id for target in targets)
    head = await store.history.last_head()
    waiting = await desk.letters.waiting(china_date(datetime.now(UTC)))
    departed = await store.departed(target.id for target in targets)
    return Convergence(
        targets=[
            await _convergence(
                target,
                drivers.get(target.id),
                store,
                policies[target.id],
                state.time_limits,
                letters.get(target.id, {}),
                waiting,
            )
            for target in targets
        ],
        departed=[DepartedTarget(target_id=id_, differing=n) for id_, n in departed.items()],
        history=HeadStanding(
            last_number=head and head.number,
            last_at=head and head.at,
            uncovered_since=await store.history.uncovered_since(),
            interval_seconds=state.head_seconds,
        ),
    )


@router.get("/records/{record_id}", summary="一条记录在各公示平台的状态")
async def record(request: Request, record_id: Annotated[RecordId, Path()], _operator: Operator) -> RecordView:
    """The whole matrix of one record: desired, acknowledged and seen at every target."""
    return await record_view(request.app.state, record_id)


async def record_view(state: State, record_id: str) -> RecordView:
    """One record at all its targets. Raises Problem NOT_FOUND. ``state``: of the application."""
    store: Store = state.store
    policies: dict[str, Policy] = state.policies
    found = (await store.records([record_id])).get(record_id)
    if found is None:
        raise Problem(
            ProblemCode.NOT_FOUND, f"没有记录 {record_id} 的修复决定：请核对编号，或等待认定单位作出决定。"
        )
    deliveries = await store.deliveries_of(record_id, found.targets)
    return RecordView(
        record_id=record_id,
        application_id=found.application_id,
        item_id=found.item_id,
        version=found.version,
        state=found.state,
        decision_number=found.decision_number,
        decided_at=found.decided_at,
        content=found.content,
        only_corrected=found.only_corrected,
        completed=found.completed_version == found.version,
        targets=[_delivery_view(delivery, policies) for delivery in deliveries.values()],
    )


def _delivery_view(delivery: Delivery, policies: Mapping[str, Policy]) -> DeliveryView:
    policy = policies.get(delivery.target_id)
    return DeliveryView.model_validate(
        {
            **vars(delivery),
            "target_name": policy and policy.target_name,
            "settled": policy is not None and settled(delivery, policy),
            **_due(delivery, policy),
            "note": _note(delivery, policies),
        }
    )


@router.post("/records/{record_id}/targets/{target_id}/visits", summary="登记在不能自动查看的平台所见")
async def visit(
    request: Request,
    record_id: Annotated[RecordId, Path()],
    target_id: Annotated[str, Path(max_length=50)],
    operator: Operator,
    body: VisitBody,
) -> DeliveryView:
    """由人查看公开页面后登记：谁、何时、凭什么可查，写入历史。与决定一致的，即为确认并见到；不一致的，重新告知。"""
    visits: Visits = request.app.state.visits
    after = await visits.note(
        target_id,
        record_id,
        body.shown,
        body.looked_at or datetime.now(UTC),
        operator.sub,
        body.reference,
        body.content_right,
    )
    return _delivery_view(after, request.app.state.policies)


@router.get("/records/{record_id}/attempts", summary="一条记录的推送与核验经过")
async def attempts(
    request: Request,
    record_id: Annotated[RecordId, Path()],
    _operator: Operator,
    before: Annotated[Timestamp | None, Query(description="只列此刻之前的")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Attempts:
    """Every call that held the record, with what was said about it; kept for SYNC_ATTEMPT_RETENTION_DAYS."""
    store: Store = request.app.state.store
    until = before or datetime.now(UTC) + timedelta(days=1)
    found = await store.attempts(record_id, until, limit)
    shown = [
        AttemptView.model_validate({**vars(attempt), **vars(row)})
        for attempt in found
        for row in attempt.rows
    ]
    return Attempts(attempts=shown, next=found[-1].at if len(found) == limit else None)
