"""Who changed what by hand, when and why. Written in the transaction of the change."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.db import CollectionSpec, Database, Document, Session

# sorted by _id: it begins with the time
AUDIT_COLLECTIONS = [CollectionSpec("operations_audit")]


def audit_id() -> str:
    """An id for an entry; later ones sort after earlier ones."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


class Audit:
    """The audit of one service; entries are kept for ever."""

    def __init__(self, database: Database) -> None:
        self._entries = database.collection("operations_audit")

    async def add(
        self,
        *,
        by: str,
        action: str,
        reason: str,
        subject: str,
        result: str,
        session: Session | None = None,
        identity: str | None = None,
    ) -> None:
        """Note a change. ``identity``: of an entry that may be there already; its result is then replaced."""
        entry = {
            "at": datetime.now(UTC),
            "by": by,
            "action": action,
            "reason": reason,
            "subject": subject,
        }
        await self._entries.update_one(
            {"_id": identity or audit_id()},
            {"$setOnInsert": entry, "$set": {"result": result}},
            upsert=True,
            session=session,
        )

    async def page(self, after: str | None, limit: int) -> Sequence[Document]:
        """Entries, the newest first, that are older than the entry ``after``."""
        older = {"_id": {"$lt": after}} if after else {}
        return await self._entries.find(older).sort("_id", -1).limit(limit).to_list(limit)
