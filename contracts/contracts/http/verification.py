"""What every service tells an operator's checks about its events and its promises (token with scope ``operations``).

Parity, asked of the service that emits (``outbox``) and of those that consume (``inbox``):

1. ``GET /v1/operations/outbox/events``: OutboxPage, the events of one topic that were published.
2. ``GET /v1/operations/consumers``: Consumers, what this service consumes and how far it is.
3. ``POST /v1/operations/inbox/missing`` with InboxQuestion: IdList, what has not arrived at a consumer.
4. ``GET /v1/operations/inbox/ids``: IdPage, what a consumer has taken from one source.
5. ``POST /v1/operations/outbox/unknown`` with IdQuestion: IdList, what this service never emitted.

Invariants: ``GET /v1/operations/invariants``: InvariantReports. Across services: ``GET /v1/operations/items`` (intake),
``POST /v1/operations/items/lookup`` (intake, dept-adapter) and ``POST /v1/operations/records/lookup`` (sync).
"""

from typing import Annotated

from pydantic import Field

from contracts.records import ApplicationId, ItemId, RecordId, Shape, Timestamp

MAX_IDS = 1000
"""Ids in one page or question."""

EventId = Annotated[str, Field(max_length=200)]


class OutboxEvent(Shape):
    """An event that was published. ``replays``: how often it was published again because it was asked for by id."""

    id: EventId
    source: str
    type: str
    key: str
    created_at: Timestamp
    published_at: Timestamp
    replays: int = 0


class UnreadableRow(Shape):
    """A row of the outbox that is none: ``id`` as text, and what is wrong with it."""

    id: str
    problem: str


class OutboxPage(Shape):
    """Published events in order of creation; ask again with ``after`` = ``next`` while it is not null.

    ``pending``: events of the topic created until ``until`` that are still to be published, counted up to 10,000; on the first
    page only.
    """

    events: list[OutboxEvent]
    unreadable: list[UnreadableRow]
    pending: int | None
    next: str | None


class IdQuestion(Shape):
    """Ids of events, without their source."""

    ids: Annotated[list[EventId], Field(max_length=MAX_IDS)]


class InboxQuestion(IdQuestion):
    """Which of these events of one source have not arrived at this consumer?"""

    consumer: str
    source: str


class IdList(Shape):
    """Some of the ids that were asked for, in their order."""

    ids: list[str]


class IdPage(Shape):
    """Ids in order; ask again with ``after`` = ``next`` while it is not null."""

    ids: list[str]
    next: str | None


class Consumer(Shape):
    """A consumer. It skips every type that is not among ``types``.

    ``taken_until``: everything published before was taken from the bus; null while that is not known. Of the process that
    answers: with several replicas each knows its own partitions.
    """

    name: str
    topics: list[str]
    types: list[str]
    taken_until: Timestamp | None


class Consumers(Shape):
    """What a service consumes; ``source`` is the CloudEvents source of what it emits."""

    source: str
    consumers: list[Consumer]


class Violation(Shape):
    """One thing that breaks an invariant: its id, and what is wrong (zh-CN)."""

    id: str
    problem: str


class InvariantReport(Shape):
    """What the check of one invariant found.

    ``checked``: things looked at. ``violations``: all of them; ``examples``: the first 100. ``counts``: what is no violation
    but good to know, such as what waits for a person.
    """

    name: str
    title: str
    checked: int
    violations: int
    examples: Annotated[list[Violation], Field(max_length=100)]
    counts: dict[str, int]


class InvariantReports(Shape):
    """All invariants of one service."""

    invariants: list[InvariantReport]


class ItemQuestion(Shape):
    """Items to look up."""

    item_ids: Annotated[list[ItemId], Field(max_length=MAX_IDS)]


class ItemStanding(Shape):
    """Where an item stands for one service. ``department``: code. ``decision``: how it ended there: granted, refused, revoked, not_accepted
    or withdrawn.
    """

    item_id: ItemId
    application_id: ApplicationId
    record_id: RecordId
    status: str
    department: str | None
    decision: str | None
    decision_number: str | None


class ItemStandings(Shape):
    """Known items only; an unknown id is left out."""

    items: list[ItemStanding]


class ItemPage(ItemStandings):
    """Items in order of their id; ask again with ``after`` = ``next`` while it is not null."""

    next: str | None


class RecordQuestion(Shape):
    """Records to look up."""

    record_ids: Annotated[list[RecordId], Field(max_length=MAX_IDS)]


class RecordStanding(Shape):
    """The last decision about a record that sync knows: of which item, and the version it made of it.

    ``item_id`` null: nobody decided, its publication period has passed.
    """

    record_id: RecordId
    item_id: ItemId | None
    decision_number: str
    state: str
    version: int


class RecordStandings(Shape):
    """Known records only; an unknown id is left out."""

    records: list[RecordStanding]
