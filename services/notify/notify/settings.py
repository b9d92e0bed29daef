"""Settings of notify (environment prefix ``NOTIFY_``)."""

from email.headerregistry import Address
from email.utils import parseaddr
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ChassisSettings


class StartTls(StrEnum):
    """STARTTLS (RFC 3207). ``auto``: when the server offers it."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class NotifySettings(ChassisSettings):
    """What notify needs beyond the chassis."""

    model_config = SettingsConfigDict(env_prefix="NOTIFY_")

    http_port: int = Field(8105, ge=1, le=65535)
    mongodb_database: str = "xinfu_notify"
    catalogue_dir: Path | None = Field(None, validation_alias=AliasChoices("XINFU_CATALOGUE_DIR"))

    # --- intake: pseudonyms of callers, addresses of applicants
    intake_url: str = Field(pattern=r"^https?://", description="Base URL of intake")
    client_id: str = "notify"
    client_secret: SecretStr = Field(description="Secret of notify's client at the issuer; scope cases.read")
    identity_cache_seconds: float = Field(3600.0, ge=0)
    identity_cache_size: int = Field(10_000, ge=1, description="subjects kept in memory")

    # --- SMTP
    smtp_host: str = Field(min_length=1)
    smtp_port: int = Field(587, ge=1, le=65535)
    smtp_starttls: StartTls = StartTls.AUTO
    smtp_implicit_tls: bool = Field(False, description="TLS from the first byte (RFC 8314), usually port 465")
    smtp_ca_file: Path | None = Field(None, description="CA certificates to trust instead of the system's")
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str = Field(description="Sender, for example: 信复 <no-reply@example.org>")
    smtp_timeout_seconds: float = Field(30.0, gt=0, description="for connecting, and for each mail")

    # --- e-mail worker
    email_poll_seconds: float = Field(1.0, gt=0)
    email_batch: int = Field(100, ge=1, le=500, description="mails claimed at once")
    email_lease_seconds: float = Field(
        300.0, gt=0, description="Mails claimed by a worker that died are claimed again after this"
    )
    email_retry_base_seconds: float = Field(30.0, gt=0)
    email_retry_max_seconds: float = Field(3600.0, gt=0)
    digest_wait_seconds: float = Field(
        300.0, ge=0, description="What an office has to be told waits this long for more, to be in one mail"
    )
    email_max_attempts: int = Field(
        125, ge=1, description="With the defaults about 4 days (RFC 5321, 4.5.4.1 asks for 4 to 5)"
    )

    @field_validator("smtp_from")
    @classmethod
    def _one_address(cls, value: str) -> str:
        name, address = parseaddr(value)
        try:
            if not Address(name, addr_spec=address).domain:
                raise ValueError
        except (ValueError, IndexError):
            raise ValueError("write one address: 名称 <mailbox@domain>") from None
        return value

    @property
    def sender(self) -> Address:
        """``smtp_from``, parsed."""
        name, address = parseaddr(self.smtp_from)
        return Address(name, addr_spec=address)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.smtp_implicit_tls and self.smtp_starttls is StartTls.ALWAYS:
            raise ValueError(
                "set either NOTIFY_SMTP_IMPLICIT_TLS=true or NOTIFY_SMTP_STARTTLS=always, not both"
            )
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("set both NOTIFY_SMTP_USERNAME and NOTIFY_SMTP_PASSWORD, or neither")
        encrypted = self.smtp_implicit_tls or self.smtp_starttls is StartTls.ALWAYS
        if self.smtp_username and not encrypted:
            raise ValueError(
                "a password must not travel in clear: set NOTIFY_SMTP_STARTTLS=always or NOTIFY_SMTP_IMPLICIT_TLS=true"
            )
        if self.email_lease_seconds < 4 * self.smtp_timeout_seconds:
            raise ValueError(
                "NOTIFY_EMAIL_LEASE_SECONDS must be at least 4 times NOTIFY_SMTP_TIMEOUT_SECONDS"
            )
        return self
