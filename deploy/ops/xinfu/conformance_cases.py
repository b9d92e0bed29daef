"""The cases of the conformance kit: what a department's system must do, whichever way it is reached.

A case tells the system of reviews of its own and watches what it says about them. What the test system is to decide stands in the 文号:
联调准予, 联调不予 or 联调补正 (docs/departments.md).
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from contracts.catalogue import Department
from contracts.clock import china_date
from contracts.decisions import Outcome, ReportedDecision
from contracts.http.department import ReviewSubmission
from contracts.http.intake import Contact, Subject
from contracts.records import RecordFacts, SubjectType

DECIDED = frozenset({Outcome.GRANTED, Outcome.REFUSED})
_WORDS = {
    Outcome.ACCEPTED: "受理",
    Outcome.NOT_ACCEPTED: "不予受理",
    Outcome.SUPPLEMENT_REQUESTED: "补正",
    Outcome.EXTENDED: "延期",
    Outcome.GRANTED: "准予",
    Outcome.REFUSED: "不予",
    Outcome.REVOKED: "撤销",
}


@dataclass(frozen=True)
class Heard:
    """What the system said about an item. ``message_id``: how a repetition is recognised; ``problem`` (zh-CN): what was wrong with it."""

    said: ReportedDecision
    message_id: str
    problem: str | None = None


@dataclass(frozen=True)
class Result:
    """What came of a case, in zh-CN."""

    name: str
    title: str
    passed: bool
    expected: str
    seen: str


@dataclass
class Ear:
    """Everything that was heard, by item."""

    heard: dict[str, list[Heard]] = field(default_factory=dict)

    def hear(self, item_id: str, heard: Heard) -> None:
        """Note a word."""
        self.heard.setdefault(item_id, []).append(heard)


class Side(Protocol):
    """Our side, towards a system of one kind."""

    department: Department
    patience_seconds: float
    settle_seconds: float
    ear: Ear

    async def tell(self, review: ReviewSubmission, round_: int = 0) -> str:
        """Hand a review over, under the number of its telling; what the system answered to it, as text that stays the same over repetitions."""
        ...

    async def cancel(self, review: ReviewSubmission) -> str | None:
        """Tell that a review is no longer wanted; what was wrong with the answer."""
        ...


class UnfitError(Exception):
    """The system does not do as it should; the text (zh-CN) says what was seen."""


Case = Callable[[], Awaitable[str]]


async def run(name: str, title: str, expected: str, case: Case) -> Result:
    """One case; it passes when it returns what was seen."""
    try:
        return Result(name, title, True, expected, await case())
    except UnfitError as error:
        return Result(name, title, False, expected, str(error))
    except Exception as error:
        return Result(name, title, False, expected, f"没有应答：{type(error).__name__}: {error}"[:300])


def review(side: Side, wish: str, *, callback_url: str = "") -> ReviewSubmission:
    """A review of its own for a case. ``wish``: 准予, 不予 or 补正."""
    today = china_date(datetime.now(UTC))
    department, number = side.department, secrets.randbelow(10**9)
    subject_id = f"sub_{secrets.token_hex(16)}"
    return ReviewSubmission(
        item_id=f"itm_{secrets.token_hex(16)}",
        application_id=f"app_{secrets.token_hex(16)}",
        department_code=department.code,
        subject=Subject(
            subject_id=subject_id,
            subject_type=SubjectType.LEGAL_PERSON,
            code="91330100XD0000001G",
            name="杭州示例联调科技有限公司",
        ),
        contact=Contact(name="示例联系人", phone="13800000000", email=None),
        record=RecordFacts(
            record_id=f"rec_{secrets.token_hex(16)}",
            subject_id=subject_id,
            subject_type=SubjectType.LEGAL_PERSON,
            category=department.categories[0],
            document_number=f"联调{wish}〔{today.year}〕{number}号",
            authority_code=department.code,
            authority_name=department.name,
            decided_on=date(today.year - 1, 1, 5),
            penalty_kinds="罚款",
        ),
        statement="联调：已足额缴纳罚款并完成整改。" if wish != "不予" else "联调。",
        accept_due_on=today + timedelta(days=3),
        decide_due_on=today + timedelta(days=10),
        callback_url=callback_url,
    )


async def until(side: Side, item_id: str, outcomes: frozenset[Outcome]) -> Heard:
    """The first word of one of these outcomes. Raises UnfitError."""
    until_ = time.monotonic() + side.patience_seconds
    while time.monotonic() < until_:
        for heard in side.ear.heard.get(item_id, []):
            if heard.said.outcome in outcomes:
                return heard
        await asyncio.sleep(0.1)
    raise UnfitError(f"{side.patience_seconds:g} 秒内没有告知{_named(outcomes)}；{_said(side, item_id)}")


def check(side: Side, item_id: str, decided: Outcome | None) -> str:
    """All that was said about an item: well-formed, under ids that tell words apart, of one decision. Raises UnfitError."""
    words = side.ear.heard.get(item_id, [])
    for heard in words:
        if heard.problem:
            raise UnfitError(heard.problem)
    by_id: dict[str, ReportedDecision] = {}
    for heard in words:
        if by_id.setdefault(heard.message_id, heard.said) != heard.said:
            raise UnfitError(f"编号 {heard.message_id} 用于两次不同的告知；{_said(side, item_id)}")
    made = {(h.said.outcome, h.said.decision_number) for h in words if h.said.outcome in DECIDED}
    if len(made) > 1:
        raise UnfitError(f"同一事项有两个不同的决定；{_said(side, item_id)}")
    if decided is not None and {outcome for outcome, _ in made} != {decided}:
        raise UnfitError(f"应为{_WORDS[decided]}；{_said(side, item_id)}")
    return _said(side, item_id)


def _said(side: Side, item_id: str) -> str:
    words = side.ear.heard.get(item_id, [])
    if not words:
        return "什么也没有告知"
    return "告知了" + "、".join(
        _WORDS[heard.said.outcome]
        + (f"（{heard.said.decision_number}）" if heard.said.decision_number else "")
        for heard in words
    )


def _named(outcomes: frozenset[Outcome]) -> str:
    return "或".join(_WORDS[outcome] for outcome in sorted(outcomes))


async def common(side: Side, callback_url: str = "") -> Sequence[Result]:
    """What every kind must do."""

    async def decides(wish: str, outcome: Outcome) -> str:
        asked = review(side, wish, callback_url=callback_url)
        await side.tell(asked)
        await until(side, asked.item_id, DECIDED)
        return check(side, asked.item_id, outcome)

    async def supplements() -> str:
        asked = review(side, "补正", callback_url=callback_url)
        await side.tell(asked)
        heard = await until(side, asked.item_id, frozenset({Outcome.SUPPLEMENT_REQUESTED, *DECIDED}))
        if heard.said.outcome is not Outcome.SUPPLEMENT_REQUESTED:
            raise UnfitError(f"没有先告知补正；{_said(side, asked.item_id)}")
        provided = {"supplement": "联调：补充罚款缴纳凭证，已完成整改。"}
        await side.tell(asked.model_copy(update=provided), 1)
        await until(side, asked.item_id, DECIDED)
        return check(side, asked.item_id, None)

    async def repeats() -> str:
        asked = review(side, "准予", callback_url=callback_url)
        first = await side.tell(asked)
        again = await side.tell(asked)
        if first != again:
            raise UnfitError(f"同一事项两次送达，答复不同：{first}；{again}")
        await until(side, asked.item_id, DECIDED)
        # our process died after it had handed over, and does it again
        late = await side.tell(asked)
        if first != late:
            raise UnfitError(f"决定之后再次送达，答复不同：{first}；{late}")
        await asyncio.sleep(side.settle_seconds)
        return check(side, asked.item_id, Outcome.GRANTED)

    async def stops() -> str:
        asked = review(side, "准予", callback_url=callback_url)
        if problem := await side.cancel(asked):
            raise UnfitError(f"撤回一个没有送达过的事项：{problem}")
        await side.tell(asked)
        if problem := await side.cancel(asked):
            raise UnfitError(problem)
        other = review(side, "准予", callback_url=callback_url)
        await side.tell(other)
        await until(side, other.item_id, DECIDED)
        return "撤回之后照常办理其他事项"

    return await asyncio.gather(
        run("grant", "准予", "告知准予及文号，字段齐全", lambda: decides("准予", Outcome.GRANTED)),
        run("refuse", "不予", "告知不予、文号和理由", lambda: decides("不予", Outcome.REFUSED)),
        run("supplement", "补正", "先一次告知补正内容，收到补正后作出决定", supplements),
        run("redelivery", "重复送达", "答复相同，决定只有一个，前后不变", repeats),
        run("cancellation", "撤回", "接受撤回，没有送达过的也接受，其他事项不受影响", stops),
    )
