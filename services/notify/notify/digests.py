"""Puts what offices have to be told into mails: one for each office and level, with all that waits there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from chassis.background import Loop
from chassis.outbox import Outbox
from chassis.rows import Rows
from chassis.unit_of_work import UnitOfWork
from contracts.events import ReminderLevel
from notify.offices import MAX_ITEMS, Offices, mail_fact
from notify.store import Emails, OfficeNotices
from notify.texts import Texts


class Digests:
    """Writes the mails. A notice waits for others for ``wait_seconds``, so that an office gets few mails."""

    def __init__(
        self,
        outbox: Outbox,
        offices: Offices,
        notices: OfficeNotices,
        emails: Emails,
        texts: Texts,
        *,
        wait_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._offices = offices
        self._notices = notices
        self._emails = emails
        self._texts = texts
        self._wait = timedelta(seconds=wait_seconds)
        self.loop = Loop("digests", self.step, poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Write a mail for everybody of whom something has waited long enough; returns whether one was full."""
        waiting = await self._notices.waiting(datetime.now(UTC) - self._wait)
        boxes = {f"{office_id}~{level}": (office_id, level) for office_id, level in waiting}
        full = False
        for box in self._rows.ready(boxes):
            full |= await self._write(box, *boxes[box])
        return full

    async def _write(self, box: str, office_id: str, level: ReminderLevel) -> bool:
        async def work(unit: UnitOfWork, _box: Sequence[str]) -> bool:
            # marking them in the transaction lets only one of several replicas write this mail
            notices = await self._notices.of(office_id, level, MAX_ITEMS, unit.session)
            if not notices:
                return False
            mail = self._offices.mail(office_id, level, notices)
            text = self._texts.office(mail, [notice.line for notice in notices])
            fact = mail_fact(office_id, level, notices)
            email_id = await self._emails.add_office_mail(fact, mail, text, unit.session, unit.now)
            await self._notices.mark(notices, email_id, unit.session)
            return len(notices) == MAX_ITEMS

        return any(await self._rows.run([box], work))
