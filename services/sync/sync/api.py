"""HTTP for operators: how far every target is. Scope ``operations``."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field
from starlette.datastructures import State

from chassis.auth import require
from chassis.breaker import BreakerState
from chassis.problems import Problem
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.records import DisplayState, RecordId
from contracts.tokens import Claims, Scope
from contracts.working_days import working_days_after
from sync.domain import Policy, delivery_id, settled
from sync.driver import Driver
from sync.letter_desk import LetterDesk
from sync.store import Store
from sync.vendor_letters import LetterState

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
    time_limit_working_days: int
    due_on: date | None
    overdue: bool
    letters_draft: int
    letters_released: int
    oldest_difference: OldestDifference | None
    breaker: BreakerView


class Convergence(BaseModel):
    """Every target of the catalogue."""

    targets: list[TargetConvergence]


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
    next_action_at: datetime | None
    attempts: int
    drifts: int
    differs_since: datetime | None
    last_error: str | None


class RecordView(BaseModel):
    """One record at all its targets. ``completed``: all of them were seen right for the current version."""

    record_id: str
    application_id: str
    item_id: str
    version: int
    state: DisplayState
    decision_number: str
    decided_at: datetime
    completed: bool
    targets: list[DeliveryView]


async def _convergence(driver: Driver, store: Store, letters: Mapping[LetterState, int]) -> TargetConvergence:
    difference = await store.difference(driver.target.id)
    now = time.monotonic()
    oldest = difference.oldest
    since = oldest and oldest.differs_since
    limit = driver.target.time_limit_working_days
    due_on = working_days_after(china_date(since), limit).on if since else None
    return TargetConvergence(
        target_id=driver.target.id,
        target_name=driver.target.name,
        desired=difference.desired,
        acknowledged=difference.acknowledged,
        seen=difference.seen,
        drifting=difference.drifting,
        time_limit_working_days=limit,
        due_on=due_on,
        overdue=due_on is not None and china_date(datetime.now(UTC)) > due_on,
        letters_draft=letters.get(LetterState.DRAFT, 0),
        letters_released=letters.get(LetterState.RELEASED, 0),
        oldest_difference=None
        if oldest is None or oldest.differs_since is None
        else OldestDifference(
            record_id=oldest.record_id,
            since=oldest.differs_since,
            seconds=(datetime.now(UTC) - oldest.differs_since).total_seconds(),
            attempts=oldest.attempts,
            last_error=oldest.last_error,
        ),
        breaker=BreakerView(
            state=driver.breaker.state(now),
            retry_in_seconds=max(driver.breaker.open_until - now, 0),
            last_error=driver.breaker.last_error,
        ),
    )


@router.get("/convergence", summary="各公示平台的收敛情况")
async def convergence(request: Request, _operator: Operator) -> Convergence:
    """How far every target of the catalogue is from what was decided."""
    return Convergence(targets=await convergence_of(request.app.state))


async def convergence_of(state: State) -> list[TargetConvergence]:
    """Of every target of the catalogue. ``state``: of the application."""
    drivers: Sequence[Driver] = state.drivers
    desk: LetterDesk = state.letters
    letters = await desk.letters.counts(driver.target.id for driver in drivers)
    return [await _convergence(driver, state.store, letters.get(driver.target.id, {})) for driver in drivers]


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
    deliveries = await store.deliveries([found])
    views = []
    for target_id in found.targets:
        delivery, policy = deliveries[delivery_id(target_id, record_id)], policies.get(target_id)
        views.append(
            DeliveryView.model_validate(
                {
                    **vars(delivery),
                    "target_name": policy and policy.target_name,
                    "settled": policy is not None and settled(delivery, policy),
                }
            )
        )
    return RecordView(
        record_id=record_id,
        application_id=found.application_id,
        item_id=found.item_id,
        version=found.version,
        state=found.state,
        decision_number=found.decision_number,
        decided_at=found.decided_at,
        completed=found.completed_version == found.version,
        targets=views,
    )
