"""Drafts letters to vendors that keep showing what was repaired, and carries out what a person makes of them.

Before anything is drafted or released the vendor's page is looked at once more: a letter tells what was seen, not what is supposed.
Letters to vendors that are told by letter alone are drafted by ``sync.notices``; what becomes of a released one: ``sync.sending``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from aiohttp import ClientError

from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.letter import Letter, LetterPress
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.rows import Rows
from chassis.typesetting import TypesetterBusyError
from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import Catalogue, LetterOffice, Target
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import IssuedLetter, RecordLetterIssued, VendorLetterIssued
from contracts.history import HistoryEntry
from contracts.http.intake import Subject
from contracts.http.target import RecordView
from sync.desired import Record, is_outdated
from sync.domain import Action, Delivery, after_letter, delivery_id, settled
from sync.driver import Driver
from sync.facts import answer_fact, answered_fact, letter_fact
from sync.letter_store import LetterStore, WaitsFor
from sync.metrics import LETTER_AGE, LETTERS
from sync.notices import PAGE, Notices, close
from sync.policy import Policy
from sync.sending import Sending, Word
from sync.settlement import Change, Settlement
from sync.store import Store
from sync.vendor_letters import (
    Answer,
    LetterPolicy,
    LetterState,
    LetterStep,
    Sighting,
    VendorLetter,
    answer_by,
    change_of,
    closed,
    compose,
    dispatches,
    ended,
    finding_id,
    letter_id,
    next_step,
    still_wrong,
)

log = get_logger(__name__)
_PAGE = 50
_CLOSED_AT_ONCE = 200
_BY_ITSELF = "自动签发"
_UNDECIDED = frozenset({LetterState.DRAFT, LetterState.DISCARDED})


class LetterDesk:
    """Letters to the vendors of the catalogue that have an office for them. ``automatic``: released without a person."""

    def __init__(
        self,
        letters: LetterStore,
        store: Store,
        outbox: Outbox,
        directory: CaseDirectory,
        catalogue: Catalogue,
        policies: Mapping[str, Policy],
        drivers: Sequence[Driver],
        settlement: Settlement,
        sending: Sending,
        policy: LetterPolicy,
        *,
        automatic: bool,
        poll_seconds: float,
    ) -> None:
        self.letters = letters
        self._store = store
        self._outbox = outbox
        self._directory = directory
        self._catalogue = catalogue
        self._policies = policies
        self._drivers = {driver.target.id: driver for driver in drivers}
        self._settlement = settlement
        self._sending = sending
        self._policy = policy
        self._automatic = automatic
        self._press = LetterPress()
        self.loop = Loop("vendor letters", self.step, poll_seconds)
        self._notices = Notices(letters, store, Rows(self.loop, outbox), policies, policy)

    # --- finding

    async def step(self) -> bool:
        """Close what is over, draft what is due. Whether there is more to do at once: never, it is a matter of days.

        A letter tells what was seen, or a decision alone: of a vendor that is pushed to and cannot be looked at, none is drafted.
        """
        await self._close_ended()
        for target in self._catalogue.targets:
            if self._policies[target.id].by_letter:
                await self._draft_notices(target)
            elif target.letters is not None and target.read_back:
                await self._draft_due(target)
        await self._measure()
        return False

    async def _measure(self) -> None:
        now = datetime.now(UTC)
        waiting = {
            (each.target_id, each.waits_for): each for each in await self.letters.waiting(china_date(now))
        }
        for target in self._catalogue.targets:
            for waits_for in WaitsFor if target.letters else ():
                each = waiting.get((target.id, waits_for))
                LETTERS.labels(target.id, waits_for.value).set(each.count if each else 0)
                age = (now - each.since).total_seconds() if each else 0.0
                LETTER_AGE.labels(target.id, waits_for.value).set(age)

    async def _draft_notices(self, target: Target) -> None:
        more = True
        while more and not self.loop.stopping:
            rows, drafted = await self._notices.draft(target)
            more = rows == PAGE
            for letter in drafted if self._automatic else ():
                try:
                    await self.release(letter.id, _BY_ITSELF)
                except Problem as problem:
                    # intake does not answer: it waits for a person, as any draft
                    log.warning("letter not released by itself", letter=letter.id, problem=problem.detail)

    async def _close_ended(self) -> None:
        after = ""
        while page := await self.letters.open_findings(after, _CLOSED_AT_ONCE):
            after = page[-1].id
            records = await self._store.records(letter.record_id for letter in page)
            found = await self._store.by_id(
                (delivery_id(letter.target_id, letter.record_id) for letter in page), None
            )
            rows = {row.id: row for row in found}
            over = [
                letter.id
                for letter in page
                if ended(
                    letter,
                    rows.get(delivery_id(letter.target_id, letter.record_id)),
                    records.get(letter.record_id),
                )
            ]
            if over:
                await self._outbox.run(lambda unit, ids=over: self._close(unit, ids))  # type: ignore[misc]

    async def _close(self, unit: UnitOfWork, ids: Sequence[str]) -> None:
        over = []
        for letter in (await self.letters.many(ids, unit.session)).values():
            record, delivery = await self._current(letter, unit)
            if letter.closed_at is None and ended(letter, delivery, record):
                over.append(letter)
        await close(unit, self.letters, self._store, over)

    async def _draft_due(self, target: Target) -> None:
        today = china_date(datetime.now(UTC))
        before = datetime.now(UTC) - timedelta(days=target.time_limit_working_days)
        after: tuple[datetime, str] | None = None
        while page := await self._store.differing(target.id, before, after, _PAGE):
            last = page[-1]
            assert last.differs_since is not None  # noqa: S101 (it was searched by)
            after = (last.differs_since, last.id)
            records = await self._store.records(delivery.record_id for delivery in page)
            pairs = [(d, records[d.record_id]) for d in page if d.record_id in records]
            known = await self.letters.of_findings(
                finding_id(d, r) for d, r in pairs if d.differs_since is not None
            )
            due = [
                (delivery, record)
                for delivery, record in pairs
                if next_step(
                    delivery,
                    record,
                    target,
                    known.get(finding_id(delivery, record), {}),
                    self._policy,
                    today,
                )
            ]
            if due:
                await self._look_and_draft(target, due, today)

    async def _look_and_draft(
        self, target: Target, due: Sequence[tuple[Delivery, Record]], today: date
    ) -> None:
        views = await self._drivers[target.id].look(due)
        for delivery, record in due:
            view = views.get(delivery.id)
            if not isinstance(view, RecordView):
                log.warning("no letter without having looked", delivery=delivery.id, answer=str(view)[:200])
                continue
            drafted = await self._draft(target, delivery, record, view, today)
            if drafted is not None and self._automatic and drafted.step is not LetterStep.REPORT:
                await self.release(drafted.id, _BY_ITSELF)

    async def _draft(
        self, target: Target, delivery: Delivery, record: Record, view: RecordView, today: date
    ) -> VendorLetter | None:
        async def work(unit: UnitOfWork) -> VendorLetter | None:
            current = (await self._store.records([record.record_id], unit.session)).get(record.record_id)
            if current is None or current.version != record.version:
                return None
            deliveries = await self._store.deliveries([current], unit.session)
            now_at = deliveries[delivery.id]
            if now_at.differs_since is None:
                return None
            seen = await self._sighting(unit, now_at, current, view)
            finding = finding_id(now_at, current)
            letters = (await self.letters.of_findings([finding], unit.session)).get(finding, {})
            step = next_step(now_at, current, target, letters, self._policy, today)
            official = await self._official(current, deliveries)
            if step is None or official is None or not still_wrong(view, current):
                return None
            letter = VendorLetter(
                id=letter_id(finding, step),
                finding=finding,
                step=step,
                state=LetterState.DRAFT,
                target_id=target.id,
                record_id=current.record_id,
                version=current.version,
                application_id=current.application_id,
                item_id=current.item_id,
                subject_id=current.subject_id,
                since=now_at.differs_since,
                seen=seen,
                official=official,
                drafted_at=unit.now,
            )
            await self.letters.save(letter, unit.session)
            await self._tell(unit, letter, "drafted")
            return letter

        return await self._outbox.run(work)

    async def _sighting(
        self, unit: UnitOfWork, delivery: Delivery, record: Record, view: RecordView
    ) -> Sighting:
        fact = answer_fact(Action.READ_BACK, delivery, record, view)
        assert fact is not None  # noqa: S101 (only a failure may tell nothing)
        (entry,) = await self._store.history.append([fact], unit.now, unit.session)
        return Sighting(view.state, unit.now, entry.hash, is_outdated(view, record))

    async def _official(self, record: Record, deliveries: Mapping[str, Delivery]) -> Sighting | None:
        """What the national site was last seen showing, if that is what was decided: vendors have to agree with it."""
        for target in self._catalogue.targets:
            delivery = deliveries.get(delivery_id(target.id, record.record_id))
            if target.kind != "national" or delivery is None or delivery.seen_at is None:
                continue
            reading: HistoryEntry | None = await self._store.history.last_reading(delivery.id)
            if reading is not None and settled(delivery, self._policies[target.id]):
                return Sighting(delivery.seen_state, delivery.seen_at, reading.hash)
        return None

    async def _current(self, letter: VendorLetter, unit: UnitOfWork) -> tuple[Record | None, Delivery | None]:
        record = (await self._store.records([letter.record_id], unit.session)).get(letter.record_id)
        if record is None:
            return None, None
        deliveries = await self._store.deliveries([record], unit.session)
        return record, deliveries.get(delivery_id(letter.target_id, letter.record_id))

    # --- what a person decides

    async def get(self, id_: str) -> VendorLetter:
        """Raises Problem NOT_FOUND."""
        letter = await self.letters.get(id_)
        if letter is None:
            raise Problem(ProblemCode.NOT_FOUND, "没有这份函告，请在 GET /v1/vendor-letters 中核对编号。")
        return letter

    async def release(self, id_: str, by: str) -> VendorLetter:
        """Number and issue a draft, after one more look. Repeated, it changes nothing. Raises Problem."""
        letter = await self.get(id_)
        if letter.state is LetterState.RELEASED:
            return letter
        record, target, office, subject = await self._parts(letter)
        view = None if letter.notice else await self._look(target, record)

        async def work(unit: UnitOfWork) -> VendorLetter | None:
            current = await self.letters.get(id_, unit.session)
            if current is None or current.state is not LetterState.DRAFT:
                return current
            latest, at = await self._current(current, unit)
            if latest is None or at is None or ended(current, at, latest):
                return None
            seen = await self._sighting(unit, at, latest, view) if view else None
            if view and not still_wrong(view, latest):
                return None
            day = china_date(unit.now)
            number = await self.letters.next_number(day.year, unit.session)
            dispatch, copy = dispatches(current.step, office)
            released = replace(
                current,
                state=LetterState.RELEASED,
                seen=seen,
                number=f"{self._policy.series}〔{day.year}〕{number}号",
                released_at=unit.now,
                due_on=answer_by(current.step, self._policy, day),
                decided_by=by,
                dispatch=dispatch,
                copy=copy,
            )
            before = (await self.letters.of_findings([current.finding], unit.session))[current.finding]
            printed = self._compose(released, latest, target, office, subject, before, day)
            released = replace(released, printed=printed.model_dump_json())
            await self.letters.save(released, unit.session)
            await self._tell(unit, released, "released", document=f"sha256:{printed.content_hash}")
            if dispatch is not None:
                unit.emit(_issued(released, latest, target, unit.now), cause=released.id, trace=latest.trace)
            return released

        done = await self._outbox.run(work)
        if done is None:
            raise Problem(
                ProblemCode.INVALID_TRANSITION,
                f"{target.name}现已与决定一致，或另有决定，不必发函；草稿会自动失效。",
            )
        if done.state is not LetterState.RELEASED:
            raise Problem(ProblemCode.INVALID_TRANSITION, "这份草稿已不采用或已失效，不能签发。")
        return done

    async def _look(self, target: Target, record: Record) -> RecordView:
        """What the vendor shows now. Raises Problem UNAVAILABLE when nobody can tell."""
        delivery = (await self._store.deliveries([record])).get(delivery_id(target.id, record.record_id))
        driver = self._drivers.get(target.id)
        view = (await driver.look([(delivery, record)])).get(delivery.id) if delivery and driver else None
        if not isinstance(view, RecordView):
            raise Problem(
                ProblemCode.UNAVAILABLE,
                f"现在看不到{target.name}的展示，签发前须再看一次：请稍后再签发。",
                headers={"Retry-After": "30"},
            )
        return view

    async def discard(self, id_: str, by: str, reason: str) -> VendorLetter:
        """Not to be written, with the reason; nothing more is drafted for this finding. Raises Problem."""
        discarded = {"state": LetterState.DISCARDED, "decided_by": by, "reason": reason}
        otherwise = "只有草稿可以不采用：这份函已签发或已失效。"
        return await self._turn(id_, discarded, otherwise, "discarded", words=reason)

    async def restore(self, id_: str, by: str) -> VendorLetter:
        """A discarded draft is a draft again. Raises Problem."""
        draft = {"state": LetterState.DRAFT, "decided_by": None, "reason": None}
        otherwise = (
            "只有不采用的草稿可以恢复，且其所涉不一致仍在：这份函已签发、已失效，或对方现已与决定一致。"
        )
        return await self._turn(id_, draft, otherwise, "restored", restored_by=by)

    async def _turn(
        self,
        id_: str,
        into: Mapping[str, Any],
        otherwise: str,
        what: str,
        words: str | None = None,
        **more: str,
    ) -> VendorLetter:
        """Draft or discarded becomes the other while its finding lasts; repeated, it changes nothing. Raises Problem."""

        async def work(unit: UnitOfWork) -> VendorLetter | None:
            letter = await self.letters.get(id_, unit.session)
            if letter is None or letter.state not in _UNDECIDED or letter.state is into["state"]:
                return letter
            record, delivery = await self._current(letter, unit)
            if ended(letter, delivery, record):
                return None
            turned = replace(letter, **into)
            await self.letters.save(turned, unit.session)
            await self._tell(unit, turned, what, words, **more)
            return turned

        await self.get(id_)
        done = await self._outbox.run(work)
        if done is None or done.state is not into["state"]:
            raise Problem(ProblemCode.INVALID_TRANSITION, otherwise)
        return done

    async def sent(
        self, id_: str, by: str, sent_at: datetime, reference: str, *, to_supervisor: bool
    ) -> VendorLetter:
        """Note that a person has taken a letter, or its copy, there; repeated, it changes nothing. Raises Problem."""
        letter = await self.get(id_)
        dispatch = letter.copy if to_supervisor else letter.dispatch
        if dispatch is None:
            what = "没有抄送件" if letter.dispatch else "还没有签发，或是不送出的报告"
            raise Problem(ProblemCode.INVALID_TRANSITION, f"这份函{what}，没有可登记的送出。")
        if letter.released_at and not letter.released_at <= sent_at <= datetime.now(UTC):
            raise Problem(ProblemCode.VALIDATION, "送出的时间应在签发之后，且不晚于现在：请核对。")
        word = Word(id_, to_supervisor, by, sent_at=sent_at, reference=reference)
        return (await self._outbox.run(lambda unit: self._sending.take(unit, [word])))[id_]

    async def answer(self, id_: str, by: str, said: Answer) -> VendorLetter:
        """Note what the vendor answered; the last note counts. Raises Problem.

        It does not end the finding, what is seen does; but of a target that is told by letter alone its answer that it is done does.
        """

        async def work(unit: UnitOfWork) -> VendorLetter | None:
            letter = await self.letters.get(id_, unit.session)
            if letter is None or letter.state is not LetterState.RELEASED:
                return None
            answered = replace(letter, answer=said)
            await self._tell(unit, answered, "answered", words=said.text)
            record, delivery = await self._current(letter, unit)
            policy = self._policies.get(letter.target_id)
            if said.done and record and delivery and policy and letter.version == record.version:
                after, events = after_letter(delivery, record, policy, unit.now)
                if after != delivery:
                    fact = answered_fact(delivery, record, answered, by)
                    change = Change(delivery, after, events, record, record.trace, fact)
                    await self._settlement.settle(
                        unit, [change], lambda changed: self._store.save(changed, unit.session)
                    )
                    await self.letters.save(answered, unit.session)
                    over = await self.letters.open_at(letter.target_id, [letter.record_id], unit.session)
                    await close(unit, self.letters, self._store, over)
                    return closed(answered, unit.now)
            await self.letters.save(answered, unit.session)
            return answered

        await self.get(id_)
        done = await self._outbox.run(work)
        if done is None:
            raise Problem(ProblemCode.INVALID_TRANSITION, "这份函还没有签发，没有可登记的答复。")
        return done

    async def shown(self, id_: str) -> Letter:
        """A released letter as it was issued, a draft as it would be. Raises Problem."""
        letter = await self.get(id_)
        if letter.printed is not None:
            return Letter.model_validate_json(letter.printed)
        record, target, office, subject = await self._parts(letter)
        before = (await self.letters.of_findings([letter.finding])).get(letter.finding, {})
        return self._compose(letter, record, target, office, subject, before, china_date(datetime.now(UTC)))

    async def print(self, id_: str) -> bytes:
        """The letter as PDF. Raises Problem."""
        try:
            return await self._press.print(await self.shown(id_))
        except TypesetterBusyError:
            raise Problem(
                ProblemCode.BUSY, "正在排版的函太多，请稍后再试。", headers={"Retry-After": "5"}
            ) from None

    async def _parts(self, letter: VendorLetter) -> tuple[Record, Target, LetterOffice, Subject]:
        target = self._catalogue.target(letter.target_id)
        record = (await self._store.records([letter.record_id])).get(letter.record_id)
        if target is None or target.letters is None or record is None:
            raise Problem(ProblemCode.INVALID_TRANSITION, "平台目录中已没有该平台的函告联系方式，请先补上。")
        try:
            subject = (await self._directory.subjects([letter.subject_id])).get(letter.subject_id)
        except (ClientError, TimeoutError, OSError, ValueError):
            subject = None
        if subject is None:
            raise Problem(
                ProblemCode.UNAVAILABLE, "暂时查不到主体信息，请稍后再试。", headers={"Retry-After": "5"}
            )
        return record, target, target.letters, subject

    def _compose(
        self,
        letter: VendorLetter,
        record: Record,
        target: Target,
        office: LetterOffice,
        subject: Subject,
        before: Mapping[LetterStep, VendorLetter],
        day: date,
    ) -> Letter:
        national = next((t.name for t in self._catalogue.targets if t.kind == "national"), None)
        return compose(letter, record, target, office, subject, national, before, self._policy, day)

    async def _tell(
        self, unit: UnitOfWork, letter: VendorLetter, what: str, words: str | None = None, **more: str
    ) -> None:
        """Into the history of the record."""
        fact = letter_fact(letter, what, words=words, **more)
        await self._store.history.append([fact], unit.now, unit.session)


def _issued(letter: VendorLetter, record: Record, target: Target, now: datetime) -> IssuedLetter:
    assert letter.dispatch is not None  # noqa: S101 (a report is not issued)
    told = {
        "record_id": letter.record_id,
        "subject_id": letter.subject_id,
        "letter_id": letter.id,
        "number": letter.number,
        "step": letter.step.value,
        "target_id": target.id,
        "target_name": target.name,
        "channel": letter.dispatch.channel,
        "notice": letter.notice,
        "state": record.state,
        "copy_channel": letter.copy and letter.copy.channel,
        "issued_at": now,
    }
    if letter.item_id is None:
        return RecordLetterIssued(**told, record=record.facts, change=change_of(record))
    return VendorLetterIssued(**told, application_id=letter.application_id, item_id=letter.item_id)
