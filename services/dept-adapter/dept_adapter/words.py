"""What departments' systems say, however it comes: callback, answer to a question, row of a file, event. One way for all of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.decisions import NUMBERED, REASONED, Outcome, ReportedDecision
from contracts.errors import ProblemCode
from contracts.working_days import WorkCalendar
from dept_adapter.decisions import decide_in_trace
from dept_adapter.domain import Command
from dept_adapter.states import Action
from dept_adapter.store import Callbacks, Change, Reviews

ACTIONS = {
    Outcome.ACCEPTED: Action.ACCEPT,
    Outcome.NOT_ACCEPTED: Action.NOT_ACCEPT,
    Outcome.SUPPLEMENT_REQUESTED: Action.REQUEST_SUPPLEMENT,
    Outcome.EXTENDED: Action.EXTEND,
    Outcome.GRANTED: Action.GRANT,
    Outcome.REFUSED: Action.REFUSE,
    Outcome.REVOKED: Action.REVOKE,
}


@dataclass(frozen=True)
class Word:
    """One thing a department's system says. ``cause``: of the events it leads to.

    ``message_id``: the same when it is said again, its own within the department; None when the caller recognises repetitions itself
    (an inbox). ``trace``: trace headers it came with.
    """

    said: ReportedDecision
    cause: str
    message_id: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """It took effect, or had done so before (``duplicate``). ``state``: of the review now."""

    item_id: str
    state: str
    duplicate: bool


@dataclass(frozen=True)
class Refused:
    """It cannot take effect. ``reason`` (zh-CN) says why and what to do."""

    item_id: str
    code: ProblemCode
    reason: str


class Listener:
    """Takes the words of departments' systems."""

    def __init__(
        self,
        reviews: Reviews,
        callbacks: Callbacks,
        supplement_working_days: int,
        calendar: WorkCalendar,
    ) -> None:
        self._reviews = reviews
        self._callbacks = callbacks
        self._supplement_working_days = supplement_working_days
        self._calendar = calendar

    async def take(
        self, unit: UnitOfWork, department_code: str, words: Sequence[Word]
    ) -> list[Taken | Refused]:
        """What comes of each, in order, all in this transaction: one look-up and one write for all of them.

        A department speaks of its own items only. One that cannot take effect leaves nothing behind and holds up no other.
        """
        reviews = await self._reviews.load(list({word.said.item_id for word in words}), unit.session)
        ids = [word.message_id for word in words if word.message_id is not None]
        seen = await self._callbacks.digests(department_code, ids, unit.session)
        new: dict[str, str] = {}
        changes: list[Change] = []
        results: list[Taken | Refused] = []
        for word in words:
            item_id = word.said.item_id
            stored = reviews.get(item_id)
            if stored is None:
                text = f"没有事项 {item_id}，请核对 item_id。"
                results.append(Refused(item_id, ProblemCode.UNKNOWN_ITEM, text))
                continue
            if stored.review.department.code != department_code:
                text = f"事项 {item_id} 不是送该部门办理的。"
                results.append(Refused(item_id, ProblemCode.WRONG_DEPARTMENT, text))
                continue
            if stored.review.record.in_person:
                text = f"事项 {item_id} 不经系统办理：请凭编号当面或经机要渠道交接，由经办人员在审核工作台登记结果。"
                results.append(Refused(item_id, ProblemCode.INVALID_TRANSITION, text))
                continue
            digest = digest_of(word.said)
            if word.message_id is not None and word.message_id in seen:
                if seen[word.message_id] == digest:
                    results.append(Taken(item_id, stored.review.state, duplicate=True))
                else:
                    text = (
                        f"webhook-id {word.message_id} 已用于另一次回调；"
                        "每次回调请用新的 webhook-id，重发时才沿用。"
                    )
                    results.append(Refused(item_id, ProblemCode.IDEMPOTENCY_CONFLICT, text))
                continue
            try:
                transition = decide_in_trace(
                    unit,
                    stored,
                    self._command(word.said),
                    self._calendar,
                    cause=word.cause,
                    trace=word.trace,
                )
            except Problem as problem:
                results.append(Refused(item_id, problem.code, problem.detail))
                continue
            if transition.events:
                changes.append(Change(stored, transition.review, "callback"))
                reviews[item_id] = replace(stored, review=transition.review)
            if word.message_id is not None:
                new[word.message_id] = seen[word.message_id] = digest
            results.append(Taken(item_id, transition.review.state, duplicate=not transition.events))
        await self._reviews.save(changes, unit.now, unit.session)
        await self._callbacks.add(department_code, new, unit.now, unit.session)
        return results

    def _command(self, said: ReportedDecision) -> Command:
        return Command(
            ACTIONS[said.outcome],
            by="callback",
            from_desk=False,
            number=said.decision_number if said.outcome in NUMBERED else None,
            reason=said.reason if said.outcome in REASONED else None,
            occurred_at=said.occurred_at,
            missing=said.missing if said.outcome is Outcome.SUPPLEMENT_REQUESTED else (),
            supplement_working_days=self._supplement_working_days,
        )


def digest_of(said: ReportedDecision) -> str:
    """Hex digits that tell two different words apart."""
    return hashlib.sha256(said.model_dump_json().encode()).hexdigest()


def faults_of(error: ValidationError) -> list[dict[str, str]]:
    """What is wrong with a word, field by field."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [{"field": ".".join(map(str, fault["loc"])), "reason": fault["msg"]} for fault in faults]
