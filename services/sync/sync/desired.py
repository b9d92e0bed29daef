"""What has to be shown of a record, by whose word, and what a target is told of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time

from contracts.clock import CHINA_STANDARD_TIME
from contracts.events import (
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    RepairGranted,
    RepairRecognised,
    RepairRevoked,
)
from contracts.http.intake import Subject
from contracts.http.target import RecordKey, RecordView, RepairPush
from contracts.records import DisplayState, RecordContent, RecordFacts
from sync.policy import Policy

_MAX_NUMBER_LENGTH = 128


@dataclass(frozen=True)
class Ruling:
    """Whose word it is that a record is to be shown so: a decision on a repair, or without an item what was told of the record
    itself (``contracts.events.PublicationChanged``, in order of its ``revision``), or the passing of its period.
    """

    state: DisplayState
    decided_at: datetime
    decision_number: str
    application_id: str | None = None
    item_id: str | None = None
    revision: int = 0
    change: PublicationChange | None = None
    content: RecordContent | None = None


@dataclass(frozen=True)
class Record:
    """What has to be shown of one record, and by whose word. ``version`` rises by one whenever that changes; ``source``: the target
    that told it (互认): nothing is pushed there unless it shows something else; ``trace``: trace headers.
    Where nobody decided it belongs to no item, so no event tells of it. ``expired``: its publication period has passed, and of the
    targets that can be looked at only those that still show it are told (``look_first``).
    ``word``: what was last told of the record itself; ``decision``: the last decision on a repair or the passing of the period,
    kept beside it (``decision_on``), whichever of the two prevails.
    ``only_corrected``: nobody was told anything but its corrected content: where it is shown, that has to be read; targets that can be
    looked at are looked at first.
    """

    record_id: str
    version: int
    state: DisplayState
    facts: RecordFacts
    application_id: str | None
    item_id: str | None
    subject_id: str
    decided_at: datetime
    decision_number: str
    targets: tuple[str, ...]
    completed_version: int = 0
    source: str | None = None
    expired: bool = False
    look_first: tuple[str, ...] = ()
    trace: Mapping[str, str] = field(default_factory=dict)
    word: Ruling | None = None
    decision: Ruling | None = None
    only_corrected: bool = False

    @property
    def content(self) -> RecordContent | None:
        """What has to be read of it where it is shown, as it was corrected; None: it never was."""
        return self.word.content if self.word else None


def idempotency_key(target_id: str, record_id: str, version: int) -> str:
    """Of one push: the same for every repetition (architecture, section 4)."""
    return f"{target_id}:{record_id}:{version}"


def parse_idempotency_key(key: str) -> tuple[str, str, int]:
    """(target, record, version). Raises ValueError for what is no key of ours."""
    target_id, record_id, version = key.rsplit(":", 2)
    if not version.isdecimal() or not version.isascii():
        raise ValueError(f"no idempotency key: {key[:200]}")
    return target_id, record_id, int(version)


def key_of(record: Record, subject: Subject) -> RecordKey:
    """How a record is recognised outside."""
    return RecordKey(
        subject_code=subject.code,
        document_number=record.facts.document_number,
        authority_name=record.facts.authority_name,
    )


def push_of(record: Record, subject: Subject, target_id: str, agent: str | None) -> RepairPush:
    """What a target is told. ``agent``: the department that acts for the applicant there (代办)."""
    return RepairPush(
        idempotency_key=idempotency_key(target_id, record.record_id, record.version),
        record=key_of(record, subject),
        subject_name=subject.name,
        state=record.state,
        version=record.version,
        decision_number=record.decision_number,
        decided_at=record.decided_at,
        content=record.content,
        agent=agent,
    )


def decision_on(record: Record | None) -> Ruling | None:
    """The last decision on a repair of a record, or the passing of its period; None: there is none."""
    if record is None:
        return None
    return record.decision if record.word is not None else _ruling(record)


def prevails(decision: Ruling | None, word: Ruling | None) -> Ruling | None:
    """By whose word a record is shown. What is repaired, or has expired, stays so, whatever is told of the record; what is not, or is
    revoked, follows the record: withdrawn it is not published again, shielded it stays hidden.
    """
    if decision is None or word is None:
        return decision or word
    ended = decision.state is DisplayState.PUBLICATION_ENDED
    return decision if ended or word.state is DisplayState.PUBLISHED else word


def on_decision(
    record: Record | None,
    event: RepairGranted | RepairRecognised | RepairRevoked,
    targets: Sequence[str],
    policies: Mapping[str, Policy],
    trace: Mapping[str, str],
) -> Record | None:
    """The record after a decision, or None when an equal or newer one is known.

    ``targets``: ids of those that show such records; ``policies``: of all targets of the catalogue.
    Decisions are ordered by the time they were made, then by item, and a revocation comes after the grant it revokes, so
    their order of arrival does not matter.
    The version stays the same where the decision changes nothing that is shown (``prevails``).
    """
    revokes = isinstance(event, RepairRevoked)
    known = decision_on(record)
    # what a department decides stands over the mere passing of time
    if (
        known is not None
        and known.item_id is not None
        and (event.decided_at, event.item_id, revokes)
        <= (known.decided_at, known.item_id, known.state is DisplayState.PUBLISHED)
    ):
        return None
    made = Ruling(
        state=DisplayState.PUBLISHED if revokes else DisplayState.PUBLICATION_ENDED,
        decided_at=event.decided_at,
        decision_number=event.decision_number,
        application_id=event.application_id,
        item_id=event.item_id,
    )
    word = record.word if record else None
    decided = _follow(record, made, word, event.record, targets, policies, trace)
    if decided is None or (record is not None and decided.version == record.version):
        return decided
    return replace(decided, source=_source(event, policies)) if decided.item_id == event.item_id else decided


def on_expiry(
    record: Record | None,
    event: PublicationExpired,
    targets: Sequence[str],
    policies: Mapping[str, Policy],
    trace: Mapping[str, str],
) -> Record | None:
    """The record when its publication has ended by itself; None when something was decided about it, or this is known."""
    # whoever counts the period by the record itself needs no letter about its end
    targets = [target for target in targets if not policies[target].by_letter]
    if decision_on(record) is not None or (record is None and not targets):
        return None
    passed = Ruling(
        state=DisplayState.PUBLICATION_ENDED,
        decided_at=datetime.combine(event.ended_on, time(), CHINA_STANDARD_TIME),
        decision_number=f"公示期满：{event.source}"[:_MAX_NUMBER_LENGTH],
    )
    word = record.word if record else None
    after = _follow(record, passed, word, event.record, targets, policies, trace)
    return after and replace(after, expired=True, look_first=_readable(after, policies))


def on_change(
    record: Record | None,
    event: PublicationChanged,
    targets: Sequence[str],
    policies: Mapping[str, Policy],
    trace: Mapping[str, str],
) -> Record | None:
    """The record after something was told of it that is no decision; None when that is known, or nobody has to do anything.

    The version stays the same where nothing that is shown changes: it is remembered for the day a repair is revoked.
    """
    known = record.word if record else None
    if known is not None and event.revision <= known.revision:
        return None
    # nobody was ever told to show anything else, and it never said anything else
    as_ever = event.state is DisplayState.PUBLISHED and event.content is None
    if record is None and (as_ever or not targets):
        return None
    word = Ruling(
        event.state,
        event.changed_at,
        event.number,
        revision=event.revision,
        change=event.change,
        content=event.content,
    )
    decision = decision_on(record)
    after = _follow(record, decision, word, event.record, targets, policies, trace)
    told_nothing_else = decision is None and (record is None or record.only_corrected)
    if after is None or not told_nothing_else or word.state is not DisplayState.PUBLISHED:
        return after
    return replace(after, only_corrected=True, look_first=_readable(after, policies))


def _follow(
    record: Record | None,
    decision: Ruling | None,
    word: Ruling | None,
    facts: RecordFacts,
    targets: Sequence[str],
    policies: Mapping[str, Policy],
    trace: Mapping[str, str],
) -> Record | None:
    """The record by whichever of both prevails: in a new version unless that is what is shown already."""
    ruling = prevails(decision, word)
    if ruling is None:
        return None
    if record is not None:
        same = ruling == replace(
            _ruling(record), revision=ruling.revision, change=ruling.change, content=ruling.content
        )
        # what is not shown is corrected once it is shown again
        reads = ruling.state is not DisplayState.PUBLISHED or record.content == (word and word.content)
        if same and reads:
            return replace(record, word=word, decision=decision)
    told = record.targets if record else ()
    return Record(
        record_id=facts.record_id,
        version=record.version + 1 if record else 1,
        state=ruling.state,
        facts=facts,
        application_id=ruling.application_id,
        item_id=ruling.item_id,
        subject_id=facts.subject_id,
        decided_at=ruling.decided_at,
        decision_number=ruling.decision_number,
        # a target that was told an earlier decision has to be told this one, even if the record's category was corrected
        targets=tuple(dict.fromkeys([*targets, *(t for t in told if t in policies)])),
        trace=trace,
        word=word,
        decision=decision,
    )


def _ruling(record: Record) -> Ruling:
    """By whose word a record is shown now."""
    return Ruling(
        record.state, record.decided_at, record.decision_number, record.application_id, record.item_id
    )


def _readable(record: Record, policies: Mapping[str, Policy]) -> tuple[str, ...]:
    """Its targets that can be looked at."""
    return tuple(target for target in record.targets if policies[target].reads_back)


def withdrawn(record: Record) -> bool:
    """It is not shown because its source withdrew it: nothing was repaired."""
    own = record.item_id is None and not record.expired
    return own and record.word is not None and record.word.change is PublicationChange.WITHDRAWN


def _source(
    event: RepairGranted | RepairRecognised | RepairRevoked, policies: Mapping[str, Policy]
) -> str | None:
    """The target a repair comes from, if one can look whether it shows it; else it is told like all others."""
    if not isinstance(event, RepairRecognised):
        return None
    policy = policies.get(event.platform_id)
    return policy.target_id if policy and policy.reads_back else None


def shows(seen: DisplayState | None, record: Record, *, outdated: bool) -> bool:
    """Whether the public sees what was decided. A record that is not shown at all is not published either.

    So it is right where publication has ended or is suspended, and a difference where the record has to be shown (again). Shown
    with its content as it was before a correction (``outdated``) it is wrong; where only its content was corrected, nothing else is.
    """
    if seen is DisplayState.PUBLISHED:
        return record.state is DisplayState.PUBLISHED and not outdated
    if record.state is DisplayState.PUBLISHED:
        return record.only_corrected
    return seen in (None, record.state)


def is_outdated(view: RecordView, record: Record) -> bool:
    """Whether the record is rightly shown, but with its content as it was before a correction. Where a target does not tell what is to
    be read, its word that it applied the push with the correction has to do.
    """
    if record.content is None or not view.state is record.state is DisplayState.PUBLISHED:
        return False
    return (view.version or 0) < record.version if view.content is None else view.content != record.content


def is_right(view: RecordView, record: Record) -> bool:
    """Whether a target that was looked at shows what was decided, as it was corrected."""
    return shows(view.state, record, outdated=is_outdated(view, record))
