"""SMTP: one connection for a batch of mails.

SMTP cannot deliver exactly once: between a server's 250 and our mark in the database there is a moment in which a crash leaves a
mail that was taken and not marked (RFC 5321, 4.5.4.1; RFC 1047 is about nothing else). The mail is then sent again, with the same
Message-ID made of the fact, by which a receiver that compares ids drops the second one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime

import aiosmtplib

from notify.domain import Failure, refused
from notify.settings import NotifySettings, StartTls
from notify.store import Mail

_START_TLS = {StartTls.AUTO: None, StartTls.ALWAYS: True, StartTls.NEVER: False}
BAD_ADDRESS = Failure("电子邮箱地址有误", permanent=True)


def compose(
    mail: Mail, sender: Address, address: str, now: datetime, letter: bytes | None = None
) -> EmailMessage:
    """The message as it is sent; ``letter``: a PDF to attach. Raises ValueError when ``address`` is not one mailbox or a header would hold a line break."""
    mailbox, at, domain = address.rpartition("@")
    if not (mailbox and at and domain) or len(address) > 254:
        raise ValueError("not an address")
    if any(c.isspace() or not c.isprintable() or c in '<>()[],:;"\\' for c in address):
        raise ValueError("not a plain address")
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = sender
    message["To"] = Address(username=mailbox, domain=domain)
    message["Subject"] = mail.subject_line
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{mail.fact}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    message["Content-Language"] = "zh-CN"
    message.set_content(mail.text, cte="base64")  # goes through servers without 8BITMIME
    if letter is not None:
        message.add_attachment(letter, maintype="application", subtype="pdf", filename="letter.pdf")
    return message


class Connection:
    """An open connection to the mail server."""

    def __init__(self, client: aiosmtplib.SMTP, timeout_seconds: float) -> None:
        self._client = client
        self._timeout = timeout_seconds

    @property
    def usable(self) -> bool:
        """Whether another mail can be sent."""
        return self._client.is_connected

    async def send(self, message: EmailMessage) -> Failure | None:
        """Send one message; None when the server took it. Never raises for what a server or a network does."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            return refused(error.recipients[0].code, error.recipients[0].message)
        except aiosmtplib.SMTPDataError as error:
            return refused(error.code, error.message)
        except aiosmtplib.SMTPResponseException as error:
            # about the sender or the session: not this recipient's fault, whatever the code
            return Failure(refused(error.code, error.message).reason, permanent=False)
        except aiosmtplib.SMTPNotSupported:
            return Failure("邮件服务器不支持该电子邮箱地址（SMTPUTF8）", permanent=True)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            # where the dialogue stands is unknown: nothing else may be sent over this connection
            self._client.close()
            return Failure(f"邮件服务器连接中断（{type(error).__name__}）", permanent=False)
        except ValueError:
            return BAD_ADDRESS
        return None


class MailServer:
    """Opens connections as the settings say."""

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A connection, authenticated and encrypted as configured. Raises aiosmtplib.SMTPException, OSError or TimeoutError."""
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            use_tls=settings.smtp_implicit_tls,
            start_tls=False if settings.smtp_implicit_tls else _START_TLS[settings.smtp_starttls],
            cert_bundle=str(settings.smtp_ca_file) if settings.smtp_ca_file else None,
            username=settings.smtp_username,
            password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
            local_hostname=settings.sender.domain,
            timeout=settings.smtp_timeout_seconds,
        )
        async with asyncio.timeout(settings.smtp_timeout_seconds):
            await client.connect()
        try:
            yield Connection(client, settings.smtp_timeout_seconds)
            if client.is_connected:
                with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                    await client.quit()
        finally:
            client.close()
