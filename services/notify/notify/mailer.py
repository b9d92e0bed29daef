"""The e-mail worker: claims due mails by lease, looks their addresses up, sends them over one connection, marks them together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosmtplib
from aiohttp import ClientError
from opentelemetry.trace import SpanKind, Status, StatusCode
from pydantic import ValidationError

from chassis.background import Loop
from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.outbox import Outbox
from chassis.parking import RetryPolicy
from chassis.rows import Rows
from chassis.telemetry import remote_context, trace_headers, tracer
from chassis.unit_of_work import UnitOfWork
from contracts.events import (
    Channel,
    Event,
    NotificationFailed,
    NotificationSent,
    OfficeNotificationFailed,
    OfficeNotified,
    VendorLetterSent,
    VendorLetterUndelivered,
)
from notify.domain import Failure, MailState, is_objection, state_after
from notify.offices import Offices
from notify.settings import NotifySettings
from notify.smtp import BAD_ADDRESS, Connection, MailServer, compose
from notify.store import Emails, Mail, Mark
from notify.vendor_letters import VendorLetters

log = get_logger(__name__)

NO_CASE = Failure("未找到该申请的联系信息", permanent=True)
NO_ADDRESS = Failure("申请人未留电子邮箱", permanent=True)
NO_OFFICE_ADDRESS = Failure("目录中没有该单位的催办邮箱", permanent=True)
INTERRUPTED = Failure("多次发送中断，结果不明", permanent=True)


@dataclass
class Deliveries:
    """What became of a batch: a Failure, or None for a mail the server took. A mail in neither was not tried."""

    results: dict[str, Failure | None] = field(default_factory=dict)
    traces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    blocked: bool = False
    """Intake or the mail server could not be reached at all."""

    def block(self, mails: Sequence[Mail], reason: str) -> None:
        """Every mail that has no result yet has to wait."""
        self.blocked = True
        for mail in mails:
            self.results.setdefault(mail.id, Failure(reason, permanent=False))
        log.warning("mails have to wait", mails=len(mails), reason=reason)


class Mailer:
    """Sends the queued mails."""

    def __init__(
        self,
        emails: Emails,
        outbox: Outbox,
        directory: CaseDirectory,
        offices: Offices,
        server: MailServer,
        settings: NotifySettings,
        letters: VendorLetters,
    ) -> None:
        self._emails = emails
        self._outbox = outbox
        self._directory = directory
        self._offices = offices
        self._server = server
        self._letters = letters
        self._sender = settings.sender
        self._batch = settings.email_batch
        self._lease_seconds = settings.email_lease_seconds
        self._timeout_seconds = settings.smtp_timeout_seconds
        self._retry = RetryPolicy(
            settings.email_retry_base_seconds, settings.email_retry_max_seconds, settings.email_max_attempts
        )
        self.loop = Loop("mailer", self.step, settings.email_poll_seconds)
        self._rows = Rows(self.loop, outbox)

    async def step(self) -> bool:
        """Send one batch; returns whether more may be due."""
        # one time-out is kept for the mail in hand, one for marking
        deadline = time.monotonic() + self._lease_seconds - 2 * self._timeout_seconds
        lease = timedelta(seconds=self._lease_seconds)
        mails = await self._emails.claim(datetime.now(UTC), lease, self._batch, self._rows)
        if not mails:
            return False
        deliveries = Deliveries()
        await self._deliver(mails, deliveries, deadline)

        async def work(unit: UnitOfWork) -> None:
            await self._record(unit, mails, deliveries)

        await self._outbox.run(work)
        return not deliveries.blocked

    async def _deliver(self, mails: Sequence[Mail], deliveries: Deliveries, deadline: float) -> None:
        exhausted = [mail for mail in mails if mail.attempts > self._retry.max_attempts]
        deliveries.results |= dict.fromkeys((mail.id for mail in exhausted), INTERRUPTED)
        asked = {mail.application_id for mail in mails if mail.application_id and not mail.vendor_letter}
        objections = {id_ for id_ in asked if is_objection(id_)}
        subjects = {
            mail.subject_id
            for mail in mails
            if mail.subject_id and mail.application_id is None and not mail.vendor_letter
        }
        contacts: dict[str, str | None] = {}
        try:
            if applications := asked - objections:
                cases = await self._directory.cases(applications)
                contacts |= {id_: case.contact.email for id_, case in cases.items()}
            if objections:
                objected = await self._directory.objections(objections)
                contacts |= {id_: each.email for id_, each in objected.items()}
            if subjects:
                contacts |= await self._directory.emails(subjects)
        except (ClientError, TimeoutError) as error:
            waiting = [mail for mail in mails if mail.office is None and mail.vendor_letter is None]
            deliveries.block(waiting, f"联系信息暂时无法查询（{type(error).__name__}）")
        ready: list[tuple[Mail, str]] = []
        for mail in mails:
            if mail.id in deliveries.results:
                continue
            address = self._address(mail, contacts)
            if isinstance(address, Failure):
                deliveries.results[mail.id] = address
            else:
                ready.append((mail, address))
        if not ready:
            return
        try:
            async with self._server.connect() as connection:
                for mail, address in ready:
                    if time.monotonic() > deadline or not connection.usable:
                        return
                    await self._send(connection, mail, address, deliveries)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            deliveries.block([mail for mail, _ in ready], f"邮件服务器暂时无法连接（{type(error).__name__}）")

    async def _send(self, connection: Connection, mail: Mail, address: str, deliveries: Deliveries) -> None:
        with tracer.start_as_current_span(
            "send email",
            remote_context(mail.trace),
            kind=SpanKind.CLIENT,
            attributes={"xinfu.application_id": mail.application_id or "", "xinfu.fact": mail.fact},
        ) as span:
            try:
                letter = await self._letters.pdf(mail.vendor_letter) if mail.vendor_letter else None
                message = compose(mail, self._sender, address, datetime.now(UTC), letter)
            except (ClientError, TimeoutError) as error:
                failure: Failure | None = Failure(
                    f"函的正文暂时取不到（{type(error).__name__}）", permanent=False
                )
            except ValueError:
                failure = BAD_ADDRESS
            else:
                failure = await connection.send(message)
            if failure is not None:
                span.set_status(Status(StatusCode.ERROR, failure.reason))
            deliveries.results[mail.id] = failure
            deliveries.traces[mail.id] = trace_headers() or mail.trace

    async def _record(self, unit: UnitOfWork, mails: Sequence[Mail], deliveries: Deliveries) -> None:
        """Mark the mails and tell everybody. One whose lease ran out meanwhile belongs to another worker now."""
        held = await self._emails.still_held(mails, unit.session)
        marks = []
        for mail in mails:
            if mail.id not in held:
                continue
            mark = self._mark(mail, deliveries, unit.now)
            marks.append(mark)
            event = _told(mark, unit.now)
            if event is not None:
                trace = deliveries.traces.get(mail.id, mail.trace)
                unit.emit(event, cause=f"email:{mail.id}", trace=trace)
        if marks:
            await self._emails.mark(marks, unit.session, unit.now)

    def _address(self, mail: Mail, contacts: Mapping[str, str | None]) -> str | Failure:
        if mail.office is not None:
            return self._offices.address(mail.office) or NO_OFFICE_ADDRESS
        if mail.vendor_letter is not None:
            return self._letters.address(mail.vendor_letter)
        if mail.application_id is None:
            return contacts.get(mail.subject_id or "") or NO_ADDRESS
        return (contacts[mail.application_id] or NO_ADDRESS) if mail.application_id in contacts else NO_CASE

    def _mark(self, mail: Mail, deliveries: Deliveries, now: datetime) -> Mark:
        if mail.id not in deliveries.results:
            return Mark(mail, MailState.PENDING, mail.attempts - 1, next_attempt_at=now)
        failure = deliveries.results[mail.id]
        if failure is None:
            return Mark(mail, MailState.SENT, mail.attempts)
        state = state_after(failure, mail.attempts, self._retry.max_attempts)
        again = now + self._retry.delay(mail.attempts) if state is MailState.PENDING else None
        return Mark(mail, state, mail.attempts, next_attempt_at=again, last_error=failure.reason)


def _told(mark: Mark, now: datetime) -> Event | None:
    try:
        return _result(mark, now)
    except ValidationError:
        # unmarked, the whole batch would leave again and again: a fault in what is told of one mail costs its event alone
        log.exception("what became of a mail cannot be told", mail=mark.mail.id, state=mark.state.value)
        return None


def _result(mark: Mark, now: datetime) -> Event | None:
    """What everybody is told of a mail that has come to its end."""
    mail = mark.mail
    if mark.state not in (MailState.SENT, MailState.FAILED):
        return None
    ended: dict[str, Any] = {"notification_id": mail.id}
    if mark.state is MailState.SENT:
        ended["sent_at"] = now
    else:
        ended |= {"reason": mark.last_error or "", "failed_at": now}
    sent = mark.state is MailState.SENT
    if mail.office is not None:
        office = {**mail.office.document(), **ended}
        return (
            OfficeNotified.model_validate(office) if sent else OfficeNotificationFailed.model_validate(office)
        )
    if (letter := mail.vendor_letter) is not None:
        about = {
            "office_id": letter.target_id,
            "letter_id": letter.letter_id,
            "to_supervisor": letter.to_supervisor,
            **ended,
        }
        about.pop("notification_id")
        return (
            VendorLetterSent.model_validate(about) if sent else VendorLetterUndelivered.model_validate(about)
        )
    if mail.application_id is None or is_objection(mail.application_id):
        return None  # the event names an application
    told = {
        **ended,
        "subject_id": mail.subject_id,
        "application_id": mail.application_id,
        "channel": Channel.EMAIL,
        "fact": mail.fact,
    }
    return NotificationSent.model_validate(told) if sent else NotificationFailed.model_validate(told)
