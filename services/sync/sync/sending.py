"""What became of letters that were released: mailed, taken there by a person, or not to be mailed. Events of notify, and a person's word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from chassis.inbox import Received
from chassis.logs import get_logger
from chassis.unit_of_work import UnitOfWork
from contracts.events import Event, VendorLetterSent, VendorLetterUndelivered
from sync.desired import Record
from sync.domain import Delivery, after_sending, delivery_id
from sync.facts import letter_fact
from sync.history import Fact
from sync.letter_store import LetterStore
from sync.policy import Policy
from sync.store import Store
from sync.vendor_letters import Dispatch, LetterPolicy, VendorLetter, again_at

log = get_logger(__name__)
MAILER = "notify"


@dataclass(frozen=True)
class Word:
    """What became of one letter, or of its copy for the supervisor. ``sent_at`` None: it could not be mailed, for this ``problem``."""

    letter_id: str
    to_supervisor: bool
    by: str
    sent_at: datetime | None = None
    reference: str | None = None
    problem: str | None = None


class Sending:
    """Takes in such words: a letter leaves once, whoever says so."""

    EVENTS: ClassVar[frozenset[type[Event]]] = frozenset({VendorLetterSent, VendorLetterUndelivered})

    def __init__(
        self, letters: LetterStore, store: Store, policies: Mapping[str, Policy], policy: LetterPolicy
    ) -> None:
        self._letters = letters
        self._store = store
        self._policies = policies
        self._policy = policy

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Events about mails with letters; others tell nothing."""
        words = []
        for received in batch:
            match received.event:
                case VendorLetterSent() as event:
                    words.append(Word(event.letter_id, event.to_supervisor, MAILER, sent_at=event.sent_at))
                case VendorLetterUndelivered() as event:
                    words.append(Word(event.letter_id, event.to_supervisor, MAILER, problem=event.reason))
        if words:
            await self.take(unit, words)

    async def take(self, unit: UnitOfWork, words: Sequence[Word]) -> dict[str, VendorLetter]:
        """Store them, in the caller's transaction; the letters as they are then, by id."""
        letters = await self._letters.many({word.letter_id for word in words}, unit.session)
        before = dict(letters)
        facts: list[Fact] = []
        for word in words:
            letter = letters.get(word.letter_id)
            if letter is None:
                continue
            dispatch = letter.copy if word.to_supervisor else letter.dispatch
            if dispatch is None or dispatch.sent_at is not None:
                continue
            told = replace(
                dispatch,
                sent_at=word.sent_at,
                sent_by=word.by if word.sent_at else None,
                reference=word.reference,
                problem=word.problem,
            )
            letters[letter.id] = _with(letter, told, to_supervisor=word.to_supervisor)
            what = ("copy " if word.to_supervisor else "") + ("sent" if word.sent_at else "unsent")
            facts.append(
                letter_fact(letters[letter.id], what, words=word.reference or word.problem, sent_by=word.by)
            )
            if word.problem:
                log.warning("letter not mailed: a person has to take it there", letter=letter.id)
        changed = [letter for id_, letter in letters.items() if letter is not before[id_]]
        if changed:
            await self._letters.save_many(changed, unit.session)
            await self._store.history.append(facts, unit.now, unit.session)
            await self._start_clocks(unit, changed)
        return letters

    async def _start_clocks(self, unit: UnitOfWork, letters: Sequence[VendorLetter]) -> None:
        """The time limit of a target that is told by letter runs from the day on which the letter left."""
        notices = [
            letter for letter in letters if letter.notice and letter.dispatch and letter.dispatch.sent_at
        ]
        records = await self._store.records({letter.record_id for letter in notices}, unit.session)
        deliveries = await self._store.deliveries(records.values(), unit.session)
        changed: list[Delivery] = []
        for letter in notices:
            record: Record | None = records.get(letter.record_id)
            delivery = deliveries.get(delivery_id(letter.target_id, letter.record_id))
            policy = self._policies.get(letter.target_id)
            if record is None or delivery is None or policy is None or letter.version != record.version:
                continue
            assert letter.dispatch is not None  # noqa: S101 (chosen by it)
            assert letter.dispatch.sent_at is not None  # noqa: S101
            again = again_at(letter, self._policy)
            after = after_sending(delivery, record, policy, letter.dispatch.sent_at, again)
            if after != delivery:
                changed.append(after)
        if changed:
            await self._store.save(changed, unit.session)


def _with(letter: VendorLetter, dispatch: Dispatch, *, to_supervisor: bool) -> VendorLetter:
    return replace(letter, copy=dispatch) if to_supervisor else replace(letter, dispatch=dispatch)
