"""What is known of batch files.

``outbound_batches``: by department and number; which reviews a batch tells of, in which telling. It holds no personal data: the content is
made again from the reviews and intake until the batch is written.
``inbound_files``: by department and name; how the file looked, how far its rows were taken, what came of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from pymongo import ASCENDING, IndexModel, UpdateOne

from chassis.db import CollectionSpec, Database, Document, Session
from dept_adapter.store import Claim

COLLECTIONS = [
    CollectionSpec(
        "outbound_batches",
        [
            IndexModel(
                [("slug", ASCENDING), ("sequence", ASCENDING)],
                name="not_written",
                partialFilterExpression={"written_at": None},
            )
        ],
    ),
    CollectionSpec("inbound_files"),
]


@dataclass(frozen=True)
class Line:
    """One row of a batch: a telling of a review, with the days it had when the batch was made."""

    item_id: str
    round: int
    cancelled: bool
    accept_due_on: str
    decide_due_on: str


@dataclass(frozen=True)
class Batch:
    """A batch of ours, numbered without gaps in its department."""

    slug: str
    sequence: int
    created_at: datetime
    lines: Sequence[Line]

    @property
    def id(self) -> str:
        """Its document's id."""
        return f"{self.slug}:{self.sequence}"


class FileState(StrEnum):
    """Where a department's file stands."""

    LONELY = "lonely"
    WRONG = "wrong"
    TAKING = "taking"
    TAKEN = "taken"


@dataclass
class InboundFile:
    """A department's file by name, in the version that was looked at last.

    ``look``: of the file and its manifest. ``done``: rows dealt with. ``acknowledged``: the receipts are written. ``seen_at``: when it
    was seen without its manifest, or found wrong, for the first time.
    """

    slug: str
    name: str
    look: str
    state: FileState
    sha256: str = ""
    rows: int = 0
    done: int = 0
    taken: int = 0
    repeated: int = 0
    refused: int = 0
    reason: str | None = None
    seen_at: datetime | None = None
    looked_at: datetime | None = None
    taken_at: datetime | None = None
    acknowledged: bool = False

    @property
    def id(self) -> str:
        """Its document's id."""
        return f"{self.slug}:{self.name}"

    @property
    def version(self) -> str:
        """Tells the contents apart that came under one name."""
        return f"{self.slug}:{self.name}:{self.sha256}"


class FileLedger:
    """The batch files of all departments."""

    def __init__(self, database: Database) -> None:
        self._batches = database.collection("outbound_batches")
        self._files = database.collection("inbound_files")
        self._reviews = database.collection("reviews")

    # --- ours

    async def open_batch(self, slug: str) -> Batch | None:
        """The batch that is not wholly written yet."""
        found = await self._batches.find_one(
            {"slug": slug, "written_at": None}, sort=[("sequence", ASCENDING)]
        )
        if found is None:
            return None
        lines = [Line(**line) for line in found["lines"]]
        return Batch(slug, int(found["sequence"]), found["created_at"], lines)

    async def add_batch(self, batch: Batch, claim: Claim, session: Session) -> None:
        """Keep a new batch; its reviews are no longer due, unless something new is to be told of them."""
        await self._batches.insert_one(
            {
                "_id": batch.id,
                "slug": batch.slug,
                "sequence": batch.sequence,
                "created_at": batch.created_at,
                "lines": [asdict(line) for line in batch.lines],
                "written_at": None,
            },
            session=session,
        )
        await self._reviews.bulk_write(
            [
                UpdateOne(
                    {"_id": line.item_id, "push.lease": claim.token, "push.round": line.round},
                    {
                        "$set": {"push.batch": batch.sequence},
                        "$unset": {"push.lease": "", "push.next_attempt_at": ""},
                    },
                )
                for line in batch.lines
            ],
            session=session,
            ordered=False,
        )

    async def batch_is_written(self, batch: Batch, now: datetime) -> None:
        """Nothing is left to write of it."""
        await self._batches.update_one({"_id": batch.id}, {"$set": {"written_at": now}})

    # --- theirs

    async def files(self, slug: str, names: Sequence[str]) -> dict[str, InboundFile]:
        """What is known of these files, by name."""
        ids = [f"{slug}:{name}" for name in names]
        cursor = self._files.find({"_id": {"$in": ids}}, {"_id": 0})
        return {doc["name"]: InboundFile(**{**doc, "state": FileState(doc["state"])}) async for doc in cursor}

    async def save(self, file: InboundFile) -> None:
        """Keep what is known of a file, outside of its rows."""
        await self._files.replace_one({"_id": file.id}, _document(file), upsert=True)

    async def move(self, file: InboundFile, before: int, session: Session) -> bool:
        """Keep how far a file's rows are taken, in the transaction of their effects; False when another process was faster."""
        expected = {
            "_id": file.id,
            "sha256": file.sha256,
            "state": FileState.TAKING.value,
            "done": before,
        }
        moved = await self._files.replace_one(expected, _document(file), session=session)
        return moved.matched_count == 1


def _document(file: InboundFile) -> Document:
    return {"_id": file.id, **asdict(file), "state": file.state.value}
