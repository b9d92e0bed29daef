"""What officers do with objections (异议), the same by page and by API: whose it is, what was seen, what follows for the review."""

from collections.abc import Mapping
from dataclasses import replace

from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, Department
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import Event, ObjectionKind, ObjectionRemedy
from contracts.records import IN_PERSON
from contracts.tokens import Claims, Role
from dept_adapter.decisions import apply
from dept_adapter.domain import Command, DecisionConflictError, NotAllowedError, Review, decision_number
from dept_adapter.objection import Correction, Objection, ObjectionProposal, Ruling, Said, rule_on
from dept_adapter.objections import Objections, StoredObjection, objection_entry
from dept_adapter.officers import Effect, fresh, holds, own
from dept_adapter.reminders import Acknowledgement, acknowledge
from dept_adapter.states import (
    OBJECTION_ACTION_TEXT,
    OBJECTION_CHANGES,
    OBJECTIONABLE,
    Act,
    Action,
    ObjectionAction,
    State,
)
from dept_adapter.store import Reviews

_NOTHING_PROPOSED = "该异议没有待复核的决定，请刷新后查看。"


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
        """Do it, with what follows for the review, or propose it where the department asks for four eyes. ``seen``: so many steps of its history; None for callers that keep none.

        Raises Problem (FORBIDDEN, VALIDATION, INVALID_TRANSITION, DECISION_CONFLICT and those of ``find``) and StaleError.
        """
        holds(officer, Role.OFFICER)

        async def work(unit: UnitOfWork) -> Effect:
            stored = await self.find(officer, objection_id, unit)
            proposed, changes = stored.proposal, stored.objection.state in OBJECTION_CHANGES[said.action]
            if proposed and changes:
                if (proposed.said, proposed.by) == (said, officer.sub):
                    return Effect.REPEATED
                words = OBJECTION_ACTION_TEXT[proposed.said.action]
                raise Problem(
                    ProblemCode.INVALID_TRANSITION,
                    f"该异议已提请复核“{words}”，请先由复核人员确认或者退回，再作其他处理。",
                )
            fresh(stored.history, seen, officer.sub, repeats=True)
            _only_outcome(stored.objection, said)
            if changes and self.needs_two(stored.objection, said.action):
                # what would not be allowed is not proposed
                await self._ruled(unit, officer.sub, stored.objection, said)
                words = OBJECTION_ACTION_TEXT[said.action] + (f"：{said.reason}" if said.reason else "")
                proposal = ObjectionProposal(said, officer.sub, unit.now)
                await self._note(unit, stored, officer.sub, Act.PROPOSE, words, proposal)
                return Effect.PROPOSED
            return await self._apply(unit, stored, officer.sub, said)

        return await self._outbox.run(work)

    def needs_two(self, objection: Objection, action: ObjectionAction) -> bool:
        """Whether the department has this decision confirmed by a second officer."""
        return action.value in self._departments[objection.department.code].four_eyes

    async def confirm(self, officer: Claims, objection_id: str, *, seen: int | None = None) -> Effect:
        """Make the decision that another officer proposed. Raises Problem (also FORBIDDEN) and StaleError."""
        holds(officer, Role.APPROVER)

        async def work(unit: UnitOfWork) -> Effect:
            stored = await self.find(officer, objection_id, unit)
            proposed, last = stored.proposal, stored.history[-1]
            if proposed is None and last.get("act") == Act.CONFIRM and last["by"] == officer.sub:
                return Effect.REPEATED
            fresh(stored.history, seen, officer.sub)
            if proposed is None:
                raise Problem(ProblemCode.INVALID_TRANSITION, _NOTHING_PROPOSED)
            if proposed.by == officer.sub:
                raise Problem(
                    ProblemCode.FORBIDDEN, "提请的人不能复核自己提请的决定，请由另一名复核人员办理。"
                )
            return await self._apply(unit, stored, officer.sub, proposed.said, Act.CONFIRM)

        return await self._outbox.run(work)

    async def send_back(
        self, officer: Claims, objection_id: str, reason: str, *, seen: int | None = None
    ) -> None:
        """Give a proposal back with a reason; its own officer may take it back. Raises Problem (also FORBIDDEN) and StaleError."""

        async def work(unit: UnitOfWork) -> None:
            stored = await self.find(officer, objection_id, unit)
            if stored.proposal is None or stored.proposal.by != officer.sub:
                holds(officer, Role.APPROVER)
            fresh(stored.history, seen, officer.sub)
            if stored.proposal is None:
                raise Problem(ProblemCode.INVALID_TRANSITION, _NOTHING_PROPOSED)
            _only_outcome(stored.objection, Said(ObjectionAction.ACCEPT, text=reason))
            await self._note(unit, stored, officer.sub, Act.SEND_BACK, reason)

        await self._outbox.run(work)

    async def _ruled(
        self, unit: UnitOfWork, by: str, objection: Objection, said: Said
    ) -> tuple[Objection, tuple[Event, ...]]:
        ruling = self.ruling(by, objection, said, await self.review(objection, unit))
        try:
            return rule_on(objection, ruling, unit.now)
        except DecisionConflictError as error:
            raise Problem(ProblemCode.DECISION_CONFLICT, str(error)) from None

    async def _apply(
        self, unit: UnitOfWork, stored: StoredObjection, by: str, said: Said, act: Act | None = None
    ) -> Effect:
        objection = stored.objection
        changed, events = await self._ruled(unit, by, objection, said)
        if not events:
            return Effect.REPEATED
        await self._objections.save([(stored, changed)], by, unit.now, unit.session, said.text, act)
        cause = f"objection:{said.action.value}:{objection.objection_id}"
        for event in events:
            unit.emit(event, cause=cause, trace=stored.trace)
        if objection.kind is ObjectionKind.RESULT and said.action is ObjectionAction.UPHOLD:
            await self._overturn(unit, by, objection)
        return Effect.DONE

    async def _note(
        self,
        unit: UnitOfWork,
        stored: StoredObjection,
        by: str,
        act: Act,
        words: str,
        proposal: ObjectionProposal | None = None,
    ) -> None:
        line = objection_entry(unit.now, stored.objection.state, by, words, act)
        await self._objections.propose(stored.objection.objection_id, proposal, line, unit.session)

    async def acknowledge(self, officer: Claims, objection_id: str, reason: str) -> None:
        """Say why it is not done yet: its level is reminded no more. Raises Problem (INVALID_TRANSITION and those of ``find``)."""
        holds(officer, Role.OFFICER)

        async def work(unit: UnitOfWork) -> None:
            stored = await self.find(officer, objection_id, unit)
            _only_outcome(stored.objection, Said(ObjectionAction.ACCEPT, text=reason))
            by = Acknowledgement(officer.sub, reason, unit.now)
            try:
                reminders = acknowledge(stored.objection, stored.reminders, by)
            except NotAllowedError as error:
                raise Problem(ProblemCode.INVALID_TRANSITION, str(error)) from None
            if reminders != stored.reminders:
                state, words = stored.objection.state, f"已知悉催办：{reason}"
                noted = objection_entry(unit.now, state, officer.sub, words, Act.ACKNOWLEDGE)
                changes = {objection_id: (stored.objection, reminders)}
                await self._objections.owed.save_reminders(changes, unit.session, noted)

        await self._outbox.run(work)

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
