"""What officers do with objections (异议), the same by page and by API: whose it is, what was seen, what follows for the review."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ObjectionKind, ObjectionRemedy
from contracts.records import IN_PERSON
from contracts.tokens import Claims, Role
from dept_adapter.decisions import apply
from dept_adapter.domain import Command, DecisionConflictError, Review, decision_number
from dept_adapter.objection import Objection, Ruling, rule_on
from dept_adapter.objections import Objections, StoredObjection
from dept_adapter.officers import Effect, fresh, holds, own
from dept_adapter.states import OBJECTIONABLE, Action, ObjectionAction, State
from dept_adapter.store import Reviews


@dataclass(frozen=True)
class Correction:
    """What an upheld objection to a record leads to: it is withdrawn, or corrected in these."""

    remedy: Literal["withdrawn", "corrected"]
    decided_on: date | None = None
    penalty_kinds: str | None = None


@dataclass(frozen=True)
class Said:
    """What an officer says of an objection. ``reason``: not of accepting; ``text``: own words in the letter, of accepting only.

    ``correction``: of an upheld objection to a record; objections to results have none.
    """

    action: ObjectionAction
    reason: str | None = None
    text: str | None = None
    correction: Correction | None = None


class Rulings:
    """Everything that an officer may do to an objection. ``departments``: those served here, by code."""

    def __init__(
        self,
        outbox: Outbox,
        objections: Objections,
        reviews: Reviews,
        departments: Mapping[str, Department],
        catalogue: Catalogue,
    ) -> None:
        self._outbox = outbox
        self._objections = objections
        self._reviews = reviews
        self._departments = departments
        self._catalogue = catalogue

    async def find(
        self, officer: Claims, objection_id: str, unit: UnitOfWork | None = None
    ) -> StoredObjection:
        """An objection at one of the officer's departments. Raises Problem: NOT_FOUND, WRONG_DEPARTMENT."""
        found = await self._objections.load([objection_id], unit.session if unit else None)
        stored = found.get(objection_id)
        if stored is None or stored.objection.department.code not in self._departments:
            raise Problem(ProblemCode.NOT_FOUND, f"没有异议 {objection_id}，请核对后重试。")
        own(officer, stored.objection.department.code)
        return stored

    async def rule(
        self, officer: Claims, objection_id: str, said: Said, *, seen: int | None = None
    ) -> Effect:
        """Do it, with what follows for the review. ``seen``: so many steps of its history; None for callers that keep none.

        Raises Problem (FORBIDDEN, VALIDATION, INVALID_TRANSITION, DECISION_CONFLICT and those of ``find``) and StaleError.
        """
        holds(officer, Role.OFFICER)

        async def work(unit: UnitOfWork) -> Effect:
            stored = await self.find(officer, objection_id, unit)
            fresh(stored.history, seen, officer.sub, repeats=True)
            objection = stored.objection
            _only_outcome(objection, said)
            review = await self.review(objection, unit)
            ruling = self.ruling(officer.sub, objection, said, review)
            try:
                changed, events = rule_on(objection, ruling, unit.now)
            except DecisionConflictError as error:
                raise Problem(ProblemCode.DECISION_CONFLICT, str(error)) from None
            if not events:
                return Effect.REPEATED
            await self._objections.save([(stored, changed)], officer.sub, unit.now, unit.session, said.text)
            for event in events:
                unit.emit(event, cause=f"objection:{said.action.value}:{objection_id}", trace=stored.trace)
            if objection.kind is ObjectionKind.RESULT and said.action is ObjectionAction.UPHOLD:
                await self._overturn(unit, officer.sub, objection)
            return Effect.DONE

        return await self._outbox.run(work)

    async def review(self, objection: Objection, unit: UnitOfWork | None = None) -> Review | None:
        """The review whose result is objected to; None: the objection is to a record."""
        if objection.kind is ObjectionKind.RECORD:
            return None
        stored = await self._reviews.get(objection.item_id, unit.session if unit else None)
        return stored.review if stored else None

    def ruling(self, by: str, objection: Objection, said: Said, review: Review | None) -> Ruling:
        """What an officer says, as the objection takes it. Raises Problem: VALIDATION, INVALID_TRANSITION."""
        ruling = Ruling(said.action, by, said.reason)
        if said.action is not ObjectionAction.UPHOLD:
            return ruling
        if objection.kind is ObjectionKind.RECORD:
            return self._about_record(ruling, objection, said.correction)
        if said.correction is not None:
            raise Problem(
                ProblemCode.VALIDATION, "这是对结果的异议：成立后重新办理或恢复修复，请去掉 remedy。"
            )
        if objection.remedy is not None:
            return ruling
        if review is None or review.state not in OBJECTIONABLE:
            raise Problem(ProblemCode.INVALID_TRANSITION, "该事项现在没有可以推翻的结果，请刷新后核对。")
        revoked = review.state is State.REVOKED
        return replace(ruling, remedy=ObjectionRemedy.RESTORED if revoked else ObjectionRemedy.REOPENED)

    def _about_record(self, ruling: Ruling, objection: Objection, correction: Correction | None) -> Ruling:
        if correction is None:
            raise Problem(
                ProblemCode.VALIDATION,
                "这是对记录的异议：请在 remedy 中写明撤回（withdrawn）还是更正（corrected）。",
            )
        given: dict[str, object] = {}
        if correction.decided_on is not None:
            given["decided_on"] = correction.decided_on
        if correction.penalty_kinds is not None:
            found = self._catalogue.tier_of(correction.penalty_kinds)
            given |= {
                "penalty_kinds": correction.penalty_kinds,
                "tier": found[0].value if found else None,
            }
        record = objection.record.model_copy(update=given)
        remedy = ObjectionRemedy(correction.remedy)
        # what was corrected before is not corrected again: the ruling is a repetition
        if remedy is ObjectionRemedy.CORRECTED and record == objection.record and objection.remedy is None:
            raise Problem(ProblemCode.VALIDATION, "更正后的内容与现在的相同，请核对后填写应有的内容。")
        return replace(ruling, remedy=remedy, record=record)

    async def _overturn(self, unit: UnitOfWork, by: str, objection: Objection) -> None:
        """What happens to the review: reopened within the time limits of its rule, or granted again."""
        stored = await self._reviews.get(objection.item_id, unit.session)
        if stored is None:
            raise LookupError(f"{objection.item_id} has no review")
        review, today = stored.review, china_date(unit.now)
        limits = self._catalogue.time_limits(review.record.category, review.record.tier, today)
        action, number = Action.REOPEN, None
        if review.state is State.REVOKED:
            code, action = review.department.code, Action.RESTORE
            serial = await self._reviews.next_serial(code, today.year, unit.session)
            number = decision_number(self._departments[code].short_name, action, today.year, serial)
        command = Command(
            action,
            by=by,
            from_desk=False,
            number=number,
            accept_working_days=limits.accept,
            decide_working_days=limits.decide,
        )
        cause = f"objection:{objection.objection_id}"
        await apply(unit, self._reviews, stored, command, self._catalogue.calendar, cause=cause)


def _only_outcome(objection: Objection, said: Said) -> None:
    if not objection.record.in_person:
        return
    corrects = said.correction is not None and said.correction.remedy == "corrected"
    if corrects or any(words not in (None, IN_PERSON) for words in (said.reason, said.text)):
        raise Problem(
            ProblemCode.VALIDATION,
            f"该记录不经平台办理，这里只登记结果：文字只填“{IN_PERSON}”，更正的内容不在平台上填写。",
        )
