"""Settings of sync (environment prefix ``SYNC_``)."""

import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyHttpUrl,
    AnyUrl,
    BaseModel,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from chassis.file_store import SftpAccess, open_files
from chassis.outbound import AllowedNetwork
from chassis.settings import ChassisSettings
from chassis.webhooks import sign
from contracts.canonical import Digest
from contracts.catalogue import Protocol, Target
from contracts.signatures import KeySet, PublicKey, SigningKey, key_set
from contracts.working_days import WorkCalendar
from sync.policy import Policy
from sync.vendor_letters import LetterPolicy


def _webhook_secret(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if not value.startswith("whsec_"):
        raise ValueError("write the secret as whsec_ followed by base64 (Standard Webhooks)")
    try:
        sign(value, "check", b"")
    except Exception:
        raise ValueError("what follows whsec_ is not usable base64") from None
    return secret


def _signing_key(secret: SecretStr) -> SecretStr:
    SigningKey.read(secret.get_secret_value())
    return secret


WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_key)]
Pause = Annotated[float, Field(gt=0, le=31_536_000)]


class SftpSignIn(BaseModel):
    """How to sign in to a target's SFTP server: ``known_hosts`` as in OpenSSH's file, and a key or a password."""

    known_hosts: str = Field(min_length=1)
    private_key: SecretStr | None = None
    password: SecretStr | None = None

    def access(self) -> SftpAccess:
        """The same, for the file store."""
        key, password = (
            None if secret is None else secret.get_secret_value()
            for secret in (self.private_key, self.password)
        )
        return SftpAccess(self.known_hosts, key, password)


class SyncSettings(ChassisSettings):
    """What sync needs beyond the chassis."""

    model_config = SettingsConfigDict(env_prefix="SYNC_")

    http_port: int = Field(8104, ge=1, le=65535)
    mongodb_database: str = "xinfu_sync"
    catalogue_dir: Path | None = Field(None, validation_alias=AliasChoices("XINFU_CATALOGUE_DIR"))

    target_urls: dict[str, AnyUrl] = Field(
        default_factory=dict,
        description="JSON {target id: URL}: https:// of each target that is pushed to or read back, file:///… or"
        " sftp://user@host/… of one that takes files",
    )
    target_secrets: dict[str, WebhookSecret] = Field(
        default_factory=dict, description='JSON {target id: "whsec_…"} of all that speak HTTP, either way'
    )
    target_sftp: dict[str, SftpSignIn] = Field(
        default_factory=dict,
        description='JSON {target id: {"known_hosts": "…", "private_key": "…" or "password": "…"}}',
    )
    allowed_private_hosts: tuple[AllowedNetwork, ...] = Field(
        (),
        description="JSON list of addresses and networks that are not public and yet may be connected to for a target",
    )
    intake_url: AnyHttpUrl
    client_id: str = Field("sync", min_length=1, description="OAuth client with scope cases.read")
    client_secret: SecretStr

    read_back_delay_seconds: float = Field(
        0.5, ge=0, description="from an acknowledgement to the first look at what the public sees"
    )
    recheck_schedule_seconds: tuple[Pause, ...] = Field(
        (60.0, 600.0, 3600.0, 86_400.0),
        min_length=1,
        description="JSON list of pauses between looks at what is right; the last one repeats for ever",
    )
    time_limit_poll_seconds: float = Field(
        30.0, gt=0, description="pause between looking for targets that are beyond their time limit"
    )
    backoff_base_seconds: float = Field(1.0, gt=0, description="wait after the first failure; it doubles")
    backoff_max_seconds: float = Field(300.0, gt=0)
    retry_after_max_seconds: float = Field(
        3600.0,
        ge=0,
        description="a target that asks for a longer wait by Retry-After is asked again after this",
    )
    lease_seconds: float = Field(
        60.0, gt=0, description="rows taken by a replica that died are free after this; longer than any call"
    )
    breaker_failures: int = Field(5, ge=1, description="calls failed in a row before a target is left alone")
    breaker_seconds: float = Field(10.0, gt=0, description="before it is tried again with one batch")
    public_url: AnyHttpUrl = Field(
        description="Base URL at which everybody reaches sync: in QR codes and letters; where targets send receipts"
    )
    issuer_name: str = Field(
        "杭州市信用修复“一件事”平台", min_length=1, description="who issues certificates and vendor letters"
    )
    signing_key: SigningSecret = Field(
        description="of heads and certificates: ed25519:<hex>, sm2:<hex> (xinfu keys new) or an Ed25519 key as PEM"
    )
    retired_keys: tuple[PublicKey, ...] = Field(
        (), description="JSON list of public keys (JWK, as GET /v1/keys shows them) that have signed before"
    )
    history_digest: Digest = Field(Digest.SHA256, description="sha256 or sm3")
    head_seconds: float = Field(
        60.0, gt=0, description="between signed heads of the history; what is younger has no head yet"
    )
    vendor_letter_series: str = Field(
        "信复函", min_length=1, max_length=40, description="before 〔year〕number号"
    )
    vendor_letter_contact: str | None = Field(
        None, max_length=200, description="whom a vendor may ask, printed on letters"
    )
    vendor_letter_automatic: bool = Field(
        False, description="release letters without a person; the report on suspending never"
    )
    vendor_letter_again_working_days: int = Field(
        5, ge=1, le=250, description="working days from the first letter to the second"
    )
    vendor_letter_report_working_days: int = Field(
        5, ge=1, le=250, description="working days from the second letter to the report on suspending sharing"
    )
    vendor_letter_poll_seconds: float = Field(
        600.0, gt=0, description="pause between looking for vendors past their time limit"
    )
    catch_up_seconds: float = Field(
        5.0, gt=0, description="pause between pages of 200 earlier decisions told to a target that has joined"
    )
    files_poll_seconds: float = Field(
        10.0, gt=0, description="seconds between looks for receipts of targets that take files"
    )
    attempt_retention_days: int = Field(30, ge=1, description="how long the log of calls to targets is kept")
    receipt_retention_days: int = Field(
        30, ge=1, description="how long a receipt that comes again is recognised"
    )
    poll_ms: int = Field(
        1000,
        ge=10,
        description="milliseconds; at most so long a decision waits that another replica has taken in. One's own, and what is due"
        " at a time, need no look",
    )

    linger_ms: int = Field(
        200,
        ge=0,
        le=60_000,
        description="milliseconds; so long what is due waits for more, that one call and one transaction may deal with all of it. A"
        " full batch does not wait",
    )

    @model_validator(mode="after")
    def _backoff_in_order(self) -> "SyncSettings":
        if self.backoff_max_seconds < self.backoff_base_seconds:
            raise ValueError("SYNC_BACKOFF_MAX_SECONDS must not be smaller than SYNC_BACKOFF_BASE_SECONDS")
        return self

    def signing(self) -> SigningKey:
        """The key that signs."""
        return SigningKey.read(self.signing_key.get_secret_value())

    def keys(self) -> KeySet:
        """The keys to publish."""
        return key_set(self.signing(), self.retired_keys)

    def letter_policy(self, calendar: WorkCalendar) -> LetterPolicy:
        """How vendors are written to."""
        return LetterPolicy(
            self.issuer_name,
            self.vendor_letter_contact,
            self.vendor_letter_series,
            self.vendor_letter_again_working_days,
            self.vendor_letter_report_working_days,
            calendar,
        )

    def sftp_access(self, target_id: str) -> SftpAccess | None:
        """How to sign in to a target's SFTP server, when it has one."""
        signing_in = self.target_sftp.get(target_id)
        return None if signing_in is None else signing_in.access()

    def policy(self, target: Target, calendar: WorkCalendar) -> Policy:
        """How a target of the catalogue is treated."""
        return Policy(
            target_id=target.id,
            target_name=target.name,
            reads_back=target.read_back,
            read_back_delay=timedelta(seconds=self.read_back_delay_seconds),
            recheck=tuple(timedelta(seconds=pause) for pause in self.recheck_schedule_seconds),
            backoff_base=timedelta(seconds=self.backoff_base_seconds),
            backoff_max=timedelta(seconds=self.backoff_max_seconds),
            time_limit_working_days=target.time_limit_working_days,
            calendar=calendar,
            receipt_wait=timedelta(seconds=target.receipt_seconds) if target.receipt_seconds else None,
            fetches=target.protocol is Protocol.PULL,
            by_letter=target.protocol is Protocol.LETTER,
            after=target.after,
        )


def check_targets(settings: SyncSettings, targets: Iterable[Target]) -> None:
    """Exit with status 78 (EX_CONFIG) and one line when a target of the catalogue could not be served."""
    for target in targets:
        if problem := _problem(settings, target):
            sys.stderr.write(f"bad setting {problem}\n")
            raise SystemExit(78)


def _problem(settings: SyncSettings, target: Target) -> str | None:
    protocol, url = target.protocol, settings.target_urls.get(target.id)
    if protocol is Protocol.LETTER:
        return None
    of_target = f"target {target.id} of the catalogue"
    if url is None and (protocol is not Protocol.PULL or target.read_back):
        return f"SYNC_TARGET_URLS has no URL for {of_target}"
    if protocol is Protocol.FILES:
        try:
            open_files(str(url), settings.sftp_access(target.id))
        except ValueError as error:
            return f"SYNC_TARGET_URLS, SYNC_TARGET_SFTP of {of_target}: {error}"
    elif url is not None and url.scheme not in ("http", "https"):
        return f"SYNC_TARGET_URLS has no http(s) URL for {of_target}"
    elif target.id not in settings.target_secrets:
        return f"SYNC_TARGET_SECRETS has no secret for {of_target}"
    if settings.lease_seconds <= target.timeout_seconds:
        return (
            f"SYNC_LEASE_SECONDS={settings.lease_seconds:g} must be larger than"
            f" timeout_seconds={target.timeout_seconds:g} of target {target.id}"
        )
    return None
