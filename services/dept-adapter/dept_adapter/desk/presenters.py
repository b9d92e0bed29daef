"""What the pages show of reviews, in words: who has to act, until when, what verification found, what is possible now. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.events import ObjectionKind, ReminderLevel
from contracts.http.source import Fact
from contracts.tokens import Claims, Role
from contracts.working_days import LIBRARY_CALENDAR
from dept_adapter.desk.texts import DO_TEXT, Do
from dept_adapter.domain import AUTOMATIC, Review
from dept_adapter.objection import Objection
from dept_adapter.objections import StoredObjection
from dept_adapter.officers import BULK, all_passed, version
from dept_adapter.reminders import Reminder, last_of
from dept_adapter.states import (
    ACT_TEXT,
    ACTION_TEXT,
    AWAITS_OFFICER,
    ENDED,
    OBJECTION_ACTION_TEXT,
    OBJECTION_STATE_TEXT,
    STATE_TEXT,
    Act,
    Action,
    ObjectionState,
    State,
    changed_by,
)
from dept_adapter.store import StoredReview

_CHINA = ZoneInfo("Asia/Shanghai")
TIER_TEXT = {"minor": "轻微", "general": "一般", "serious": "严重"}
FACT_TEXT = {Fact.PASS: "通过", Fact.FAIL: "不通过", Fact.UNKNOWN: "未知", None: "核验中"}
_SOON_WORKING_DAYS = 2
_NOT_OFFICERS = {
    "routing": "平台分派",
    "push": "系统推送",
    "callback": "部门系统",
    "applicant": "申请人",
    "clock": "系统（期限）",
    "calendar": "系统（放假安排已公布）",
    "letters": "系统（文书）",
    AUTOMATIC: "系统（核验全部通过，自动准予）",
}


@dataclass(frozen=True)
class Due:
    """A last day in words. ``level``: overdue, today, soon or later; said in ``words`` too, never by colour alone."""

    on: date
    words: str
    level: str


@dataclass(frozen=True)
class Checks:
    """What verification found, counted. ``words``: the whole of it."""

    passed: int
    failed: int
    unknown: int
    open: int
    words: str


@dataclass(frozen=True)
class Row:
    """A review in a list."""

    item_id: str
    version: int
    subject_name: str | None
    subject_code: str | None
    document_number: str
    category: str
    tier: str | None
    department: str
    state: str
    acts: str
    due: Due | None
    checks: Checks
    may_bulk: bool
    reminder: Reminder | None
    stored: StoredReview


@dataclass(frozen=True)
class Step:
    """One line of a history."""

    at: datetime
    who: str
    what: str
    detail: str | None
    letter_id: str | None = None


@dataclass(frozen=True)
class Option:
    """What can be done now. ``key``: its shortcut; ``weight``: primary, danger or plain."""

    do: Do
    text: str
    key: str
    weight: str


def due(review: Review, today: date) -> Due | None:
    """The last day of whoever has to act."""
    return None if review.due_on is None else due_words(review.due_on, today)


def due_words(on: date, today: date) -> Due:
    """A last day seen from today."""
    if on < today:
        late = LIBRARY_CALENDAR.working_days_between(on, today)
        words = f"已逾期 {late} 个工作日" if late else "已逾期"
        return Due(on, words, "overdue")
    left = LIBRARY_CALENDAR.working_days_between(today, on)
    if on == today or left == 0:
        return Due(on, "今天到期" if on == today else "已无工作日，尽快办理", "today")
    return Due(on, f"还剩 {left} 个工作日", "soon" if left <= _SOON_WORKING_DAYS else "later")


def checks(stored: StoredReview) -> Checks:
    """What verification found."""
    if stored.review.record.in_person:
        return Checks(0, 0, 0, 0, "不经平台，不核验")
    facts = [found["fact"] for found in (stored.verification or {}).get("findings") or []]
    passed, failed, unknown = (facts.count(fact) for fact in (Fact.PASS, Fact.FAIL, Fact.UNKNOWN))
    waits = len(facts) - passed - failed - unknown
    parts = [
        f"{words} {number}"
        for words, number in (
            ("通过", passed),
            ("不通过", failed),
            ("未知", unknown),
            ("核验中", waits),
        )
        if number
    ]
    if not facts:
        over = (stored.verification or {}).get("completed_at")
        parts = ["没有可核验的条件" if over or stored.verification is None else "核验中"]
    elif passed == len(facts):
        parts = [f"全部通过（{passed}）"]
    return Checks(passed, failed, unknown, waits, "，".join(parts))


def acts(stored: StoredReview) -> str:
    """Who has to do what."""
    if stored.proposal:
        return f"待复核（{ACTION_TEXT[stored.proposal.action]}）"
    match stored.review.state:
        case State.RECEIVED | State.DELIVERED | State.UNDELIVERABLE:
            return "待受理"
        case State.ACCEPTED | State.EXTENDED:
            return "待决定"
        case State.SUPPLEMENT:
            return "待申请人补正"
    return STATE_TEXT[stored.review.state]


def row(stored: StoredReview, subjects: Mapping[str, Any], catalogue: Catalogue, today: date) -> Row:
    """A review in a list. ``subjects``: by pseudonym, as far as intake told."""
    review = stored.review
    subject = None if review.record.in_person else subjects.get(review.subject_id)
    category = catalogue.category(review.record.category)
    return Row(
        item_id=review.item_id,
        version=version(stored),
        subject_name=subject.name if subject else None,
        subject_code=subject.code if subject else None,
        document_number=review.record.document_number,
        category=category.name if category else review.record.category,
        tier=TIER_TEXT.get(review.record.tier or ""),
        department=review.department.name,
        state=STATE_TEXT[review.state],
        acts=acts(stored),
        due=due(review, today),
        checks=checks(stored),
        may_bulk=all_passed(stored)
        and review.at_desk
        and review.state in AWAITS_OFFICER
        and not stored.proposal,
        reminder=last_of(stored.review, stored.reminders),
        stored=stored,
    )


def history(stored: StoredReview, names: Mapping[str, str]) -> list[Step]:
    """Everything that was done, the latest first."""
    return [step(entry, names) for entry in reversed(stored.history)]


def step(entry: Mapping[str, Any], names: Mapping[str, str]) -> Step:
    """One line of a history."""
    act, by = entry.get("act"), entry["by"]
    what = STATE_TEXT[State(entry["state"])]
    if entry.get("letter_id"):
        what = "出具文书"
    elif act == Act.CONFIRM:
        what = f"{what}（复核通过）"
    elif act:
        what = ACT_TEXT[Act(act)]
    elif State(entry["state"]) is State.RECEIVED:
        what = "收到补正" if by == "applicant" else "收到申请"
    elif by == "clock" and State(entry["state"]) in AWAITS_OFFICER:
        what = "办理期限已过"
    who = names.get(by) or _NOT_OFFICERS.get(by) or by
    return Step(entry["at"], who, what, entry.get("detail"), entry.get("letter_id"))


def objection_step(entry: Mapping[str, Any], names: Mapping[str, str]) -> Step:
    """One line of an objection's history."""
    state, by = ObjectionState(entry["state"]), entry["by"]
    what = OBJECTION_STATE_TEXT[state]
    if entry.get("letter_id"):
        what = "出具文书"
    elif entry.get("act"):
        act = Act(entry["act"])
        what = f"{ACT_TEXT[act]}（{what}）" if act is Act.CONFIRM else ACT_TEXT[act]
    elif state is ObjectionState.RECEIVED and by == "routing":
        what = "收到异议"
    elif by == "clock":
        what = "办理期限已过"
    elif by == "calendar":
        what = "期限重新计算"
    elif state is ObjectionState.ACCEPTED:
        what = "受理异议"
    who = names.get(by) or _NOT_OFFICERS.get(by) or by
    return Step(entry["at"], who, what, entry.get("detail"), entry.get("letter_id"))


@dataclass(frozen=True)
class ObjectionRow:
    """An objection in a list. ``about``: what is objected to."""

    objection: Objection
    version: int
    subject_name: str | None
    subject_code: str | None
    about: str
    category: str
    acts: str
    due: Due | None
    reminder: Reminder | None


def objection_row(
    stored: StoredObjection, subjects: Mapping[str, Any], catalogue: Catalogue, today: date
) -> ObjectionRow:
    """An objection in a list. ``subjects``: by pseudonym, as far as intake told."""
    objection = stored.objection
    subject = None if objection.record.in_person else subjects.get(objection.subject_id)
    category = catalogue.category(objection.record.category)
    waits = {ObjectionState.RECEIVED: "待决定是否受理", ObjectionState.ACCEPTED: "待核查决定"}
    acts = waits.get(objection.state) or OBJECTION_STATE_TEXT[objection.state]
    if stored.proposal:
        acts = f"待复核（{OBJECTION_ACTION_TEXT[stored.proposal.said.action]}）"
    return ObjectionRow(
        objection,
        len(stored.history),
        subject.name if subject else None,
        subject.code if subject else None,
        "记录" if objection.kind is ObjectionKind.RECORD else "修复结果",
        category.name if category else objection.record.category,
        acts,
        due_words(objection.due_on, today) if objection.due_on else None,
        last_of(objection, stored.reminders),
    )


_KEYS = {
    Do.ACCEPT: "a",
    Do.GRANT: "g",
    Do.REFUSE: "r",
    Do.NOT_ACCEPT: "n",
    Do.REQUEST_SUPPLEMENT: "s",
    Do.EXTEND: "e",
    Do.REFER: "x",
    Do.REVOKE: "v",
    Do.SPOT_CHECK: "c",
    Do.CONFIRM: "c",
    Do.SEND_BACK: "b",
    Do.ACKNOWLEDGE: "t",
}
_WEIGHTS = {
    Do.ACCEPT: "primary",
    Do.GRANT: "primary",
    Do.CONFIRM: "primary",
    Do.REFUSE: "danger",
    Do.NOT_ACCEPT: "danger",
    Do.REVOKE: "danger",
}


def options(stored: StoredReview, officer: Claims, today: date, *, referred: bool) -> list[Option]:
    """What this officer can do now, in the order of the page."""
    return [
        Option(
            do,
            "取回提请" if do is Do.SEND_BACK and _own_proposal(stored, officer) else DO_TEXT[do],
            _KEYS[do],
            _WEIGHTS.get(do, "plain"),
        )
        for do in Do
        if _possible(do, stored, officer, today, referred=referred)
    ]


def _own_proposal(stored: StoredReview, officer: Claims) -> bool:
    return stored.proposal is not None and stored.proposal.by == officer.sub


def _possible(do: Do, stored: StoredReview, officer: Claims, today: date, *, referred: bool) -> bool:
    review = stored.review
    if do is Do.CONFIRM:
        return (
            officer.holds(Role.APPROVER)
            and stored.proposal is not None
            and not _own_proposal(stored, officer)
        )
    if do is Do.SEND_BACK:
        return stored.proposal is not None and (
            officer.holds(Role.APPROVER) or _own_proposal(stored, officer)
        )
    if not officer.holds(Role.OFFICER):
        return False
    if do is Do.ACKNOWLEDGE:
        told = last_of(stored.review, stored.reminders)
        return told is not None and told.acknowledged is None
    if not review.at_desk:
        return False
    kept = stored.verification or {}
    if do is Do.SPOT_CHECK:
        return bool(kept.get("sampled")) and not kept.get("spot_check")
    if do is Do.REFER:
        return review.state not in ENDED and not referred and not review.record.in_person
    action = Action(do.value)
    if stored.proposal or review.state not in changed_by(action):
        return False
    if do is Do.REQUEST_SUPPLEMENT:
        return review.supplement is None
    if do is Do.EXTEND:
        return review.extend_working_days is not None and today <= review.decide_due_on
    return True


LEVEL_TEXT = {
    ReminderLevel.OFFICER: "经办",
    ReminderLevel.APPROVER: "复核",
    ReminderLevel.SUPERVISOR: "信用中心督办",
}


def may_bulk(rows: Sequence[Row], action: Action) -> list[Row]:
    """Those of a list to which this can be done at once."""
    return [r for r in rows if r.may_bulk and action in BULK and r.stored.review.state in changed_by(action)]


def day_text(day: date | None) -> str:
    """``2026-11-25（周三）``; a dash for none."""
    return "—" if day is None else f"{day.isoformat()}（周{'一二三四五六日'[day.weekday()]}）"


def time_text(moment: datetime | None) -> str:
    """``11-25 10:31`` in China, with the year when it is another."""
    if moment is None:
        return "—"
    there = moment.astimezone(_CHINA)
    return there.strftime("%Y-%m-%d %H:%M")


def size_text(size: int) -> str:
    """``38.2 MB``."""
    if size >= 1_000_000:
        return f"{size / 1_000_000:.1f} MB"
    return f"{max(1, round(size / 1000))} KB"


def today_of(moment: datetime) -> date:
    """The day in China."""
    return china_date(moment)
