"""What every service tells an operator, and lets one do, under ``/v1/operations`` (token with scope ``operations``).

Times are RFC 3339 with offset, durations seconds, sizes bytes. Counts of what may be many are bounded: a count that is equal
to ``COUNTED_AT_MOST`` means "so many or more".
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from contracts.records import Shape, Timestamp

COUNTED_AT_MOST = 100_000
REPLAY_STEP = 1_000
"""Events one call of a replay marks at most."""


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("请写明原因，它会记入操作记录")
    return text.strip()


Reason = Annotated[
    str, AfterValidator(_words), Field(max_length=500, description="Why; kept in the audit with who and when")
]


# --- status


class TopicLag(Shape):
    """How far a consumer group is in one topic, as the bus tells it.

    ``committed``: the sum of its committed offsets, ``end``: of the partitions' ends. ``oldest_waiting_at``: when the oldest
    event that waits in the topic was published; null when none waits or it could not be read in a second or two.
    """

    topic: str
    partitions: int
    committed: int
    end: int
    lag: int
    oldest_waiting_at: Timestamp | None


class ConsumerStatus(Shape):
    """One consumer group of the service.

    ``lag`` and ``stalled_seconds`` are of the replica that answers: its own partitions, as far as it has read any. ``bus_lag`` is of
    the whole group, null when the bus does not answer.
    """

    name: str
    topics: list[str]
    event_types: list[str] = Field(description="Types of its topics that concern it in this version")
    lag: int
    stalled_seconds: float
    parked_keys: int = Field(description="Keys that are tried again by themselves")
    dead_keys: int = Field(description="Keys whose attempts are used up: they wait for a person")
    parked_events: int = Field(description="Events of both; bounded")
    bus_lag: list[TopicLag] | None


class LoopStatus(Shape):
    """A background loop of the replica that answers, steps of which have failed lately; they are tried again."""

    name: str
    failed: int = Field(description="Failed steps within the last 15 minutes, 20 at most are counted")
    last_failed_at: Timestamp
    last_error: str = Field(description="Type of the last error; the log has all of it")


class OutboxTopic(Shape):
    """Events of one topic in the outbox: ``published`` can be replayed, ``pending`` wait to be published. Both are bounded."""

    topic: str
    published: int
    pending: int
    oldest_pending_at: Timestamp | None


class OutboxStatus(Shape):
    """The outbox of a service."""

    pending: int
    oldest_pending_at: Timestamp | None
    last_published_at: Timestamp | None
    topics: list[OutboxTopic]


class DatabaseStatus(Shape):
    """The database as the service sees it. ``problem``: why it cannot work with it; the rest is then empty."""

    problem: str | None
    replica_set: str | None = None
    primary: str | None = None
    members: int = 0
    clock_ahead_seconds: float = Field(
        default=0.0, description="The primary's clock minus the service's; negative: it is behind"
    )
    transaction_lifetime_seconds: int | None = Field(
        default=None,
        description="transactionLifetimeLimitSeconds of the primary; null when the service's user may not read it",
    )
    snapshot_history_seconds: int | None = Field(
        default=None,
        description="minSnapshotHistoryWindowInSeconds of the primary; null when the service's user may not read it",
    )
    missing_indexes: list[str] = Field(
        default=[], description="collection.index, declared but absent or different"
    )


class BusTopic(Shape):
    """A topic the service owns or consumes; ``partitions`` is 0 when it does not exist."""

    topic: str
    partitions: int
    declared_partitions: int
    replicas: int = Field(description="Of the partition that has fewest")
    in_sync_replicas: int = Field(description="Of the partition that has fewest")


class BusStatus(Shape):
    """The bus as the service sees it."""

    problem: str | None
    brokers: int = 0
    wanted_replicas: int = Field(default=0, description="The service's setting KAFKA_REPLICATION_FACTOR")
    topics: list[BusTopic] = Field(default=[])


class CalendarStatus(Shape):
    """Which working days a service knows. ``needed``: a deadline that is set today may reach into the missing year."""

    version: str
    missing_year: int = Field(description="The first year that is not known")
    needed: bool


class ServiceStatus(Shape):
    """Everything about one service at a glance. What needs a database that does not answer is empty."""

    service: str
    at: Timestamp = Field(description="The service's clock")
    database: DatabaseStatus
    bus: BusStatus
    consumers: list[ConsumerStatus]
    failing_loops: list[LoopStatus] = Field(description="Background loops with failed steps")
    outbox: OutboxStatus | None
    open_dead_letters: dict[str, int] = Field(description="By reason")
    calendar: CalendarStatus | None = Field(
        default=None, description="null: the service counts no working days"
    )


# --- dead letters


class DeadLetterKind(StrEnum):
    """``letter``: a message that cannot take effect as it is. ``key``: a key whose events fail, with those events in order."""

    LETTER = "letter"
    KEY = "key"


class DeadLetterState(StrEnum):
    """Letters are open, redriven or discarded; keys are parked (tried again by themselves) or dead (wait for a person)."""

    OPEN = "open"
    DEAD = "dead"
    PARKED = "parked"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class DeadLetter(Shape):
    """A message or a key that was put aside. ``id`` may be put into a URL as it is."""

    id: str
    kind: DeadLetterKind
    state: DeadLetterState
    consumer: str
    topic: str
    key: str
    reason: str = Field(description="Of a letter: a DeadLetterReason; of a key: its last failure")
    detail: str
    at: Timestamp = Field(description="When it was put aside; of a key: its first failure")
    event_id: str | None = Field(
        description="<source>#<id>; of a key: of the event that fails; null: unreadable"
    )
    size_bytes: int | None = Field(description="Of a letter's value")
    attempts: int | None = Field(description="Of a key, as is next_attempt_at")
    next_attempt_at: Timestamp | None


class DeadLetterPage(Shape):
    """First what waits for a person. Ask again with ``after`` = ``next`` while it is not null, even when a page is empty."""

    dead_letters: list[DeadLetter]
    next: str | None


class Message(Shape):
    """A message as it came: headers and key as text, with \\xNN for what is not UTF-8. Values hold pseudonyms, no identities."""

    topic: str
    partition: int | None
    offset: int | None
    headers: list[tuple[str, str]]
    encoding: str = Field(description="Of ``value``: utf-8, or base64 when it is no UTF-8")
    value: str | None = Field(description="null: there is none, or ``value_dropped``")
    value_dropped: bool = Field(description="It was not kept, for want of room: the original is on the bus")
    truncated: bool = Field(description="``value`` is only its beginning")


class QueuedEvent(Shape):
    """An event of a parked key."""

    event_id: str
    type: str
    parked_at: Timestamp
    size_bytes: int


class DeadLetterWhole(Shape):
    """One of them whole. ``message``: of a key, that of its first event. ``queued``: events of a key, of which ``events`` are its first."""

    dead_letter: DeadLetter
    message: Message | None
    queued: int
    events: list[QueuedEvent]


class EmittedEvent(Shape):
    """An event that one event leads to."""

    type: str
    key: str
    topic: str


class EventOutcome(Shape):
    """What becomes, or in a dry run would become, of one event.

    ``outcome``: already_succeeded, would_succeed, would_fail, would_be_rejected; succeeded, failed, rejected (then nothing has
    changed); queued: the key is tried again now; discarded.
    """

    outcome: str
    reason: str | None
    detail: str | None
    emits: list[EmittedEvent]


class Why(Shape):
    """Body of a redrive."""

    reason: Reason


class Discard(Why):
    """Body of a discard. Of a key its first event goes, and those behind it are tried; with ``whole_key`` all of them go."""

    whole_key: bool = False


# --- outbox


class Replay(Shape):
    """Publish published events again, in their order.

    Either ``ids`` or all of a topic (null: of all topics), from ``since`` on (null: from the oldest). One call marks at most
    ``REPLAY_STEP``; call again with ``after`` = ``next`` and otherwise the same body. Harmless to repeat: inboxes drop duplicates.
    """

    reason: Reason
    topic: str | None = None
    since: Timestamp | None = None
    ids: Annotated[list[str], Field(max_length=REPLAY_STEP)] | None = None
    after: str | None = None


class Replayed(Shape):
    """So many were marked by this call; ``next`` is null when all are."""

    marked: int
    next: str | None


# --- audit


class AuditEntry(Shape):
    """A change somebody made: ``by`` is the token's subject, ``subject`` what it was made to, ``result`` what came of it."""

    id: str
    at: Timestamp
    by: str
    action: str
    reason: str
    subject: str
    result: str


class AuditPage(Shape):
    """Newest first; ask again with ``after`` = ``next`` while it is not null."""

    entries: list[AuditEntry]
    next: str | None
