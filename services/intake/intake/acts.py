"""What an applicant does after filing: provide what was missing, withdraw, or object to what a window filed for it."""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.unit_of_work import UnitOfWork
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import SupplementProvided, WithdrawalRequested
from contracts.http.mandate import MandateAct
from contracts.records import MaterialId
from intake import in_person, texts
from intake.domain.item import Item, ItemStatus
from intake.mandates import Mandates
from intake.materials import Materials
from intake.progress import Progress
from intake.store import Store
from intake.submission import MAX_MATERIALS, Applicant, valid_material_ids


class NewSupplement(BaseModel):
    """补正的内容：逐项答复认定单位要求补正的内容。"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000)]
    material_ids: Annotated[list[MaterialId], AfterValidator(valid_material_ids)] = Field(
        default=[],
        description="补充的材料，先上传取得编号",
        json_schema_extra={"maxItems": MAX_MATERIALS, "uniqueItems": True},
    )


_WITHDRAWABLE = frozenset(
    {
        ItemStatus.QUEUED,
        ItemStatus.REFERRED,
        ItemStatus.ROUTED,
        ItemStatus.SUPPLEMENT,
        ItemStatus.ACCEPTED,
        ItemStatus.EXTENDED,
    }
)


class Acts:
    """Each in one transaction. Whoever has the item hears of it by an event, and answers by one."""

    def __init__(self, store: Store, materials: Materials, outbox: Outbox) -> None:
        self._store = store
        self._materials = materials
        self._outbox = outbox

    async def supplement(self, applicant: Applicant, item_id: str, new: NewSupplement) -> None:
        """Provide what was missing. Repeating the same text and materials changes nothing.

        Raises Problem: NOT_FOUND, INVALID_TRANSITION, MANDATE_NOT_VALID, UNKNOWN_MATERIAL.
        """
        applicant.may(MandateAct.SUPPLEMENT, china_date(datetime.now(UTC)))
        materials = tuple(await self._materials.own(applicant.subject.subject_id, new.material_ids))

        async def act(unit: UnitOfWork, progress: Progress, item: Item) -> None:
            if item.supplement_text is not None:
                if (item.supplement_text, item.supplement_materials) == (new.text, materials):
                    return
                raise _refused("补正已经提交，不能更改；如有补充请与认定单位联系。")
            in_person.check([item.facts], new.text, new.material_ids)
            asked = item.supplement
            if item.status is not ItemStatus.SUPPLEMENT or asked is None or item.holder is None:
                raise _refused(f"该事项现为“{texts.ITEM_STATUS[item.status]}”，不需要补正。")
            if china_date(unit.now) > asked.due_on and not asked.due_provisional:
                raise _refused(f"补正期限已于{asked.due_on.isoformat()}届满，该事项视为撤回，可以重新申请。")
            changed = {
                "supplement_text": new.text,
                "supplement_materials": materials,
                "supplemented_at": unit.now,
            }
            line = texts.supplemented(item.facts.document_number, applicant.assistance)
            progress.change(item.model_copy(update=changed), "supplemented", line, unit.now)
            event = SupplementProvided(
                application_id=item.application_id,
                item_id=item.item_id,
                record_id=item.record_id,
                subject_id=applicant.subject.subject_id,
                department=item.holder,
                provided_at=unit.now,
            )
            unit.emit(event, cause=f"supplement:{item.item_id}")

        await self._act(applicant.subject.subject_id, item_id, act)

    async def withdraw(self, applicant: Applicant, item_id: str) -> None:
        """Ask for an item to be withdrawn: at once while it is queued, else whoever has it answers. Repeating changes nothing.

        Raises Problem: NOT_FOUND, INVALID_TRANSITION, MANDATE_NOT_VALID.
        """
        applicant.may(MandateAct.WITHDRAW, china_date(datetime.now(UTC)))

        async def act(unit: UnitOfWork, progress: Progress, item: Item) -> None:
            if item.withdrawal_requested_at is not None:
                return
            if item.status is ItemStatus.SUBMITTED:
                raise _refused("该事项正在分派认定单位，一般只要几秒钟：请稍后再撤回。")
            if item.status not in _WITHDRAWABLE:
                raise _refused(f"该事项现为“{texts.ITEM_STATUS[item.status]}”，不能撤回。")
            number = item.facts.document_number
            changed = {"withdrawal_requested_at": unit.now}
            if item.status is ItemStatus.QUEUED:
                changed |= {"unassigned_withdrawn_at": unit.now}
                line = texts.withdrawn(number, applicant.assistance)
                progress.change(item.model_copy(update=changed), "withdrawn", line, unit.now)
                return
            line = texts.withdrawal_requested(number, applicant.assistance)
            progress.change(item.model_copy(update=changed), "withdrawal_requested", line, unit.now)
            event = WithdrawalRequested(
                application_id=item.application_id,
                item_id=item.item_id,
                record_id=item.record_id,
                subject_id=applicant.subject.subject_id,
                department=item.holder,
                requested_at=unit.now,
            )
            again = f":{item.round}" if item.round else ""
            unit.emit(event, cause=f"withdraw:{item.item_id}{again}")

        await self._act(applicant.subject.subject_id, item_id, act)

    async def object_to(self, applicant: Applicant, application_id: str, mandates: Mandates) -> None:
        """The subject objects to what a window filed for it: the mandate ends, and what is not decided is withdrawn.

        Repeating it changes nothing. Raises Problem: NOT_FOUND, INVALID_TRANSITION (nobody filed it for the subject).
        """
        application = await self._store.application(application_id)
        if application is None or application.subject_id != applicant.subject.subject_id:
            raise Problem(ProblemCode.NOT_FOUND, "没有这份申请，请在“我的申请”中查看。")
        if application.assistance is None:
            raise _refused("该申请由本主体自行提交；不再需要的事项可以撤回。")
        await mandates.revoke(application.subject_id, application.assistance.mandate_id)
        for item in await self._store.items_of([application_id]):
            if item.status in _WITHDRAWABLE:
                # between reading and withdrawing it may have been decided: then the decision stands
                with contextlib.suppress(Problem):
                    await self.withdraw(applicant, item.item_id)

    async def _act(
        self,
        subject_id: str,
        item_id: str,
        act: Callable[[UnitOfWork, Progress, Item], Awaitable[None]],
    ) -> None:
        async def work(unit: UnitOfWork) -> None:
            progress = await Progress.load(self._store, unit, [item_id])
            item = progress.items.get(item_id)
            # the same answer for an item of somebody else: nobody learns which ids exist
            if item is None or not progress.is_of(item, subject_id):
                raise Problem(ProblemCode.NOT_FOUND, "没有这个事项，请在“我的申请”中查看。")
            await act(unit, progress, item)
            await progress.save()

        await self._outbox.run(work)


def _refused(detail: str) -> Problem:
    return Problem(ProblemCode.INVALID_TRANSITION, detail)
