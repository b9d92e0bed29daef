"""Events in, domain, messages and queued mails out."""

from collections.abc import Sequence
from typing import ClassVar

from chassis.inbox import Received
from chassis.unit_of_work import UnitOfWork
from contracts.events import Channel, Event, NotificationSent
from notify.domain import CHANNELS, application_of, distinct, is_objection
from notify.offices import Offices
from notify.store import Draft, Emails, Messages, OfficeNotices
from notify.texts import Texts


class FactHandler:
    """Tells the facts of a batch in the app, queues the mails, and keeps what offices have to be told."""

    EVENTS: ClassVar[frozenset[type[Event]]] = frozenset(CHANNELS) | Offices.EVENTS

    def __init__(
        self, texts: Texts, messages: Messages, emails: Emails, offices: Offices, notices: OfficeNotices
    ) -> None:
        self._texts = texts
        self._messages = messages
        self._emails = emails
        self._offices = offices
        self._notices = notices

    async def __call__(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Other events tell an applicant nothing. A fact told before is not told again."""
        wanted = distinct(received.event for received in batch)
        told: set[str] = set()
        for channel, store in ((Channel.IN_APP, self._messages), (Channel.EMAIL, self._emails)):
            ids = [notice.id for _, notice in wanted.values() if notice.channel is channel]
            if ids:
                told |= await store.known(ids, unit.session)
        fresh: dict[Channel, list[Draft]] = {Channel.IN_APP: [], Channel.EMAIL: []}
        for position, notice in wanted.values():
            if notice.id in told:
                continue
            received = batch[position]
            text = self._texts.render(notice.event, notice.channel, to_supervisor=notice.to_supervisor)
            fresh[notice.channel].append(Draft(notice, text, received.trace))
            # the event names an application: there is none for what is about a record alone
            application_id = application_of(notice.event)
            if notice.channel is Channel.IN_APP and application_id and not is_objection(application_id):
                sent = NotificationSent(
                    notification_id=notice.id,
                    subject_id=notice.event.subject_id,
                    application_id=application_id,
                    channel=notice.channel,
                    fact=notice.fact,
                    sent_at=unit.now,
                )
                unit.emit(sent, cause=received.id, trace=received.trace)
        if fresh[Channel.IN_APP]:
            await self._messages.add(fresh[Channel.IN_APP], unit.session, unit.now)
        if fresh[Channel.EMAIL]:
            await self._emails.add(fresh[Channel.EMAIL], unit.session, unit.now)
        found = [self._offices.notice(received.event) for received in batch]
        if notices := [notice for notice in found if notice is not None]:
            await self._notices.add(notices, unit.session, unit.now)
