"""What notify promises: nobody is told anything twice, and every mail ends, or waits for its next attempt with what kept it."""

import json
import zlib
from collections.abc import Sequence

from chassis.db import Collection, Database, Document
from chassis.invariants import Findings, Invariant, pages
from contracts.events import Channel, NotificationSent
from contracts.topics import NOTIFICATIONS
from notify.domain import MailState, notice_id

_SENT_IN_MEMORY = 200_000
_UNKNOWN_ATTEMPTS = 5
"""A worker that is killed leaves one; so many in a row are no accident."""


class _Checks:
    def __init__(self, database: Database) -> None:
        self._outbox = database.collection("outbox")
        self._stores = {
            Channel.IN_APP: database.collection("messages"),
            Channel.EMAIL: database.collection("emails"),
        }

    async def notified_once(self, findings: Findings) -> None:
        for channel, store in self._stores.items():
            await self._one_of_each(findings, channel, store)
        await self._told_once(findings)

    async def _one_of_each(self, findings: Findings, channel: Channel, store: Collection) -> None:
        """The id is made of fact and channel and is unique: where every document has its own, no two tell the same."""
        async for page in pages(store, {}, {"fact": 1}):
            for row in page:
                findings.checked += 1
                if row["_id"] != notice_id(str(row.get("fact")), channel):
                    findings.violated(
                        str(row["_id"]), f"编号与所告知的事实（{row.get('fact')}）不符，或重复告知"
                    )

    async def _told_once(self, findings: Findings) -> None:
        """Ids of a slice at a time, so that any number of events fits into memory."""
        sent = {"topic": NOTIFICATIONS.name, "headers.ce_type": NotificationSent.TYPE}
        number = await self._outbox.count_documents(sent)
        slices = number // _SENT_IN_MEMORY + 1
        findings.counts["sent"] = number
        for part in range(slices):
            seen: set[str] = set()
            async for row in self._outbox.find(sent, {"value": 1}):
                id_ = _notification_id(row)
                if zlib.crc32(id_.encode()) % slices != part:
                    continue
                if id_ in seen:
                    findings.violated(id_, "告知结果发出了不止一次")
                seen.add(id_)

    async def mails_end(self, findings: Findings) -> None:
        """Of an attempt something is known: it ended, or why it did not. One that nobody marks leaves again with every lease."""
        findings.checked = await self._stores[Channel.EMAIL].estimated_document_count()
        taken = {
            "state": {"$in": [MailState.PENDING.value, MailState.SENDING.value]},
            "attempts": {"$gte": _UNKNOWN_ATTEMPTS},
            "last_error": None,
        }
        async for row in self._stores[Channel.EMAIL].find(taken, {"attempts": 1}):
            findings.violated(
                str(row["_id"]), f"发送了 {row['attempts']} 次，结果都没有记下：可能在反复发出同一封邮件"
            )


def _notification_id(row: Document) -> str:
    try:
        return str(json.loads(bytes(row["value"]))["notification_id"])
    except (KeyError, TypeError, ValueError):
        return str(row["_id"])


def invariants(database: Database) -> Sequence[Invariant]:
    """Those of notify."""
    checks = _Checks(database)
    return [
        Invariant("notified-once", "同一事实、同一渠道至多告知一次", checks.notified_once),
        Invariant("mail-ends-or-waits", "每封邮件有结果，或在等下一次发送", checks.mails_end),
    ]
