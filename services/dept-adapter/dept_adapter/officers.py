"""What officers do to reviews, the same by page and by API: whose it is, four eyes, what was seen, numbers, spot checks."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, TypeVar

from chassis.db import Database, Document, Session
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import FalseMaterial
from contracts.records import IN_PERSON
from contracts.tokens import Claims, Role
from contracts.working_days import WorkCalendar
from dept_adapter.decisions import apply, attempt
from dept_adapter.domain import Command, Proposal, Review, decision_number
from dept_adapter.states import ACTION_TEXT, Act, Action, changed_by
from dept_adapter.store import Reviews, StoredReview
from dept_adapter.verification import all_pass, finding_of
from dept_adapter.verifier import spot_check

T = TypeVar("T")
NUMBERED = frozenset({Action.GRANT, Action.REFUSE, Action.REVOKE})
"""Decisions with a number of their own."""
BULK = frozenset({Action.ACCEPT, Action.GRANT})
"""What may be done to many items at once, where every check has passed."""
_NOT_PEOPLE = frozenset({"clock", "calendar", "push", "letters"})


@dataclass(frozen=True)
class Order:
    """What an officer wants done. ``number`` None: the next of the department and year. ``text``: own words in the letter.

    ``false_material``: the finding that a refusal or revocation makes.
    """

    action: Action
    number: str | None = None
    reason: str | None = None
    missing: tuple[str, ...] = ()
    text: str | None = None
    false_material: FalseMaterial | None = None


class Effect(StrEnum):
    """What came of an order. ``repeated``: it had been done before; nothing has changed."""

    DONE = "done"
    REPEATED = "repeated"
    PROPOSED = "proposed"


class StaleError(Exception):
    """Others have done something since the officer looked: ``steps`` of the history. Nothing was changed."""

    def __init__(self, steps: Sequence[Document]) -> None:
        super().__init__(f"{len(steps)} steps were not seen")
        self.steps = steps


def version(stored: StoredReview) -> int:
    """What an officer who looks at the review has seen: so many steps of its history."""
    return len(stored.history)


def all_passed(stored: StoredReview) -> bool:
    """Whether the verification is over and has left nothing to look at."""
    kept = stored.verification or {}
    findings = [finding_of(each) for each in kept.get("findings") or []]
    return bool(kept.get("completed_at")) and all_pass(findings)


class Officers:
    """Everything that an officer may do to a review. ``departments``: those served here, by code."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        reviews: Reviews,
        departments: Mapping[str, Department],
        supplement_working_days: int,
        calendar: WorkCalendar,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._reviews = reviews
        self._departments = departments
        self._supplement_working_days = supplement_working_days
        self._calendar = calendar

    async def find(self, officer: Claims, item_id: str, session: Session | None = None) -> StoredReview:
        """A review of the officer's own departments. Raises Problem: UNKNOWN_ITEM, WRONG_DEPARTMENT."""
        stored = await self._reviews.get(item_id, session)
        if stored is None or stored.review.department.code not in self._departments:
            raise Problem(ProblemCode.UNKNOWN_ITEM, f"没有事项 {item_id}，请核对后重试。")
        own(officer, stored.review.department.code)
        return stored

    def needs_two(self, review: Review, action: Action) -> bool:
        """Whether the department has this action confirmed by a second officer."""
        return action.value in self._departments[review.department.code].four_eyes

    async def act(
        self, officer: Claims, item_id: str, order: Order, *, seen: int | None = None, bulk: bool = False
    ) -> Effect:
        """Do it, or propose it where the department asks for four eyes.

        ``seen``: ``version`` of what the officer looked at, None for callers that keep none. ``bulk``: only where all checks
        have passed. Raises Problem (FORBIDDEN, INVALID_TRANSITION, DECISION_CONFLICT and those of ``find``) and StaleError.
        """
        holds(officer, Role.OFFICER)

        async def work(unit: UnitOfWork, stored: StoredReview) -> Effect:
            review = stored.review
            said = (order.reason, order.text, order.number, *order.missing)
            only_outcome(review, *(words for words in said if words is not None))
            if review.record.in_person and order.false_material:
                raise Problem(ProblemCode.VALIDATION, _ONLY_OUTCOME)
            command = self.command(officer.sub, order)
            changes = review.state in changed_by(order.action)
            if stored.proposal and changes:
                if stored.proposal.same(command):
                    return Effect.REPEATED
                words = ACTION_TEXT[stored.proposal.action]
                raise Problem(
                    ProblemCode.INVALID_TRANSITION,
                    f"该事项已提请复核“{words}”，请先由复核人员确认或者退回，再作其他处理。",
                )
            fresh(stored.history, seen, officer.sub, repeats=not changes)
            if bulk and not all_passed(stored):
                raise Problem(ProblemCode.INVALID_TRANSITION, "核验没有全部通过，不能批量办理，请逐件审核。")
            if changes and self.needs_two(review, order.action):
                # what would not be allowed is not proposed
                attempt(
                    review, self.command(officer.sub, order, order.number or "-"), unit.now, self._calendar
                )
                proposal = Proposal(
                    order.action,
                    officer.sub,
                    unit.now,
                    order.number,
                    order.reason,
                    order.text,
                    order.false_material,
                )
                words = ACTION_TEXT[order.action] + (f"：{order.reason}" if order.reason else "")
                await self._reviews.note(
                    item_id,
                    review.state,
                    Act.PROPOSE,
                    officer.sub,
                    words,
                    unit.now,
                    unit.session,
                    proposal=proposal,
                )
                return Effect.PROPOSED
            return await self._apply(unit, stored, command)

        return await self._run(officer, item_id, work)

    async def confirm(self, officer: Claims, item_id: str, *, seen: int | None = None) -> Effect:
        """Make the decision that another officer proposed. Raises Problem (also FORBIDDEN) and StaleError."""
        holds(officer, Role.APPROVER)

        async def work(unit: UnitOfWork, stored: StoredReview) -> Effect:
            last = stored.history[-1]
            if stored.proposal is None:
                if last.get("act") == Act.CONFIRM and last["by"] == officer.sub:
                    return Effect.REPEATED
                fresh(stored.history, seen, officer.sub)
                raise Problem(ProblemCode.INVALID_TRANSITION, "该事项没有待复核的决定，请刷新后查看。")
            fresh(stored.history, seen, officer.sub)
            if stored.proposal.by == officer.sub:
                raise Problem(
                    ProblemCode.FORBIDDEN, "提请的人不能复核自己提请的决定，请由另一名复核人员办理。"
                )
            proposed = stored.proposal
            order = Order(
                proposed.action,
                proposed.number,
                proposed.reason,
                text=proposed.text,
                false_material=proposed.false_material,
            )
            return await self._apply(unit, stored, self.command(officer.sub, order), Act.CONFIRM)

        return await self._run(officer, item_id, work)

    async def send_back(self, officer: Claims, item_id: str, reason: str, *, seen: int | None = None) -> None:
        """Give a proposal back with a reason; its own officer may take it back. Raises Problem (also FORBIDDEN) and StaleError."""

        async def work(unit: UnitOfWork, stored: StoredReview) -> None:
            if stored.proposal is None or stored.proposal.by != officer.sub:
                holds(officer, Role.APPROVER)
            fresh(stored.history, seen, officer.sub)
            if stored.proposal is None:
                raise Problem(ProblemCode.INVALID_TRANSITION, "该事项没有待复核的决定，请刷新后查看。")
            only_outcome(stored.review, reason)
            state = stored.review.state
            await self._reviews.note(
                item_id, state, Act.SEND_BACK, officer.sub, reason, unit.now, unit.session
            )

        await self._run(officer, item_id, work)

    async def spot_check(
        self,
        officer: Claims,
        item_id: str,
        finding: Literal["confirmed", "wrong"],
        note: str,
        *,
        seen: int | None = None,
    ) -> None:
        """Keep what was found of an automatic decision that was drawn, once. Raises Problem and StaleError."""
        holds(officer, Role.OFFICER)

        async def work(unit: UnitOfWork, stored: StoredReview) -> None:
            fresh(stored.history, seen, officer.sub, repeats=True)
            kept = {"finding": finding, "note": note, "by": officer.sub, "at": datetime.now(UTC)}
            if not await spot_check(self._database, item_id, kept, unit.session):
                raise Problem(
                    ProblemCode.INVALID_TRANSITION, "该事项没有被抽中，或者已经抽查过，请刷新抽查列表。"
                )
            words = f"{'核验结果无误' if finding == 'confirmed' else '核验结果有误'}：{note}"
            state = stored.review.state
            await self._reviews.note(
                item_id, state, Act.SPOT_CHECK, officer.sub, words, unit.now, unit.session
            )

        await self._run(officer, item_id, work)

    def command(self, by: str, order: Order, number: str | None = None) -> Command:
        """What the order means for a review."""
        return Command(
            order.action,
            by=by,
            from_desk=True,
            number=number or order.number,
            reason=order.reason,
            missing=order.missing,
            supplement_working_days=self._supplement_working_days,
            text=order.text,
            false_material=order.false_material,
        )

    async def _apply(
        self, unit: UnitOfWork, stored: StoredReview, command: Command, act: Act | None = None
    ) -> Effect:
        review, action = stored.review, command.action
        if action in NUMBERED and command.number is None and review.state in changed_by(action):
            code, year = review.department.code, china_date(unit.now).year
            serial = await self._reviews.next_serial(code, year, unit.session)
            number = decision_number(self._departments[code].short_name, action, year, serial)
            command = replace(command, number=number)
        # what is reopened may be decided alike again: that is another event
        again = f":{review.round}" if review.round else ""
        cause = f"desk:{action.value}:{review.item_id}{again}"
        transition = await apply(unit, self._reviews, stored, command, self._calendar, cause=cause, act=act)
        return Effect.DONE if transition.events else Effect.REPEATED

    async def _run(
        self, officer: Claims, item_id: str, work: Callable[[UnitOfWork, StoredReview], Awaitable[T]]
    ) -> T:
        async def attempt_once(unit: UnitOfWork) -> T:
            return await work(unit, await self.find(officer, item_id, unit.session))

        return await self._outbox.run(attempt_once)


def own(officer: Claims, department_code: str) -> None:
    """Raises Problem WRONG_DEPARTMENT unless the department is one of the officer's."""
    if department_code not in officer.departments:
        raise Problem(
            ProblemCode.WRONG_DEPARTMENT, "您的账号不办理该部门的事项；如需办理，请联系管理员授权。"
        )


_ONLY_OUTCOME = (
    f"该事项不经平台办理，这里只登记结果：文字一律填“{IN_PERSON}”，不填文号，不写内容；"
    "理由写在当面送达的文书里。"
)


def only_outcome(review: Review, *words: str) -> None:
    """Raises Problem VALIDATION for words about what is handed over in person, other than the agreed ones."""
    if review.record.in_person and any(each != IN_PERSON for each in words):
        raise Problem(ProblemCode.VALIDATION, _ONLY_OUTCOME)


ROLE_TEXT = {
    Role.OFFICER: "经办",
    Role.APPROVER: "复核",
    Role.EXPERT: "专家",
    Role.SUPERVISOR: "信用中心督办",
}


def holds(officer: Claims, role: Role) -> None:
    """Raises Problem FORBIDDEN unless the officer has this role."""
    if not officer.holds(role):
        raise Problem(
            ProblemCode.FORBIDDEN,
            f"您的账号没有“{ROLE_TEXT[role]}”角色，本次没有生效；如需办理，请联系管理员授权。",
            role=role.value,
        )


def fresh(history: Sequence[Document], seen: int | None, sub: str, *, repeats: bool = False) -> None:
    """Raises StaleError when others have acted since ``seen`` steps. ``repeats``: what the officer did himself is no news."""
    if seen is None:
        return
    news = [step for step in history[seen:] if step["by"] not in _NOT_PEOPLE]
    if repeats:
        news = news if any(step["by"] != sub for step in news) else []
    if news:
        raise StaleError(news)
