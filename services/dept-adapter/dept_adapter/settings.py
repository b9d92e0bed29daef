"""Settings of dept-adapter (environment prefix ``DEPT_ADAPTER_``)."""

import json
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from asyncssh import KeyImportError, import_public_key
from pydantic import (
    AliasChoices,
    AnyHttpUrl,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from chassis.settings import ChassisSettings
from chassis.webhooks import sign
from contracts.catalogue import Catalogue, Department, Tier, load_catalogue
from contracts.events import ReminderLevel
from dept_adapter.reminders import DEFAULT_DAYS, IN_PERSON_DAYS, Schedule, faults


def _slugs(value: Any) -> Any:
    if not isinstance(value, str) or value == "all":
        return value
    if value.startswith("["):
        return json.loads(value)
    return [slug.strip() for slug in value.split(",") if slug.strip()]


class AutoGrant(BaseModel):
    """A department lets these tiers through when every condition was verified; ``sample_percent`` of them are looked at later."""

    model_config = ConfigDict(extra="forbid")

    tiers: list[Tier] = Field(min_length=1)
    sample_percent: int = Field(10, ge=0, le=100)


class DeptAdapterSettings(ChassisSettings):
    """What dept-adapter needs beyond the chassis."""

    model_config = SettingsConfigDict(env_prefix="DEPT_ADAPTER_", hide_input_in_errors=True)

    http_port: int = Field(8103, ge=1, le=65535)
    mongodb_database: str = "xinfu_dept_adapter"
    catalogue_dir: Path | None = Field(None, validation_alias=AliasChoices("XINFU_CATALOGUE_DIR"))
    departments: Annotated[Literal["all"] | list[str], NoDecode, BeforeValidator(_slugs)] = Field(
        "all",
        description="Slugs of the departments to serve, separated by commas; all: every one of the catalogue",
    )
    department_urls: dict[str, AnyUrl] = Field(
        default_factory=dict,
        description='Systems of departments: JSON {slug: "https://…"} (mode api), "sftp://user@host:22/folder" or "file:///folder"'
        " (mode files)",
    )
    department_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='JSON {slug: "whsec_…"}: webhook secrets of modes api and events; of mode files the SFTP password',
    )
    department_key_files: dict[str, Path] = Field(
        default_factory=dict,
        description='JSON {slug: "/path"}: private keys for SFTP, in OpenSSH form, instead of a password',
    )
    department_host_keys: dict[str, str] = Field(
        default_factory=dict,
        description='JSON {slug: "ssh-ed25519 AAAA…"}: the public key an SFTP server must have',
    )
    decision_poll_seconds: float = Field(
        5.0, gt=0, description="pause between asking a department that cannot call back for its decisions"
    )
    files_poll_seconds: float = Field(
        60.0, gt=0, description="pause between exchanging batch files with a department"
    )
    files_batch_rows: int = Field(1000, ge=1, le=10_000, description="most rows of a batch file we write")
    files_chunk_rows: int = Field(
        500, ge=1, le=2000, description="rows of a department's file that take effect in one transaction"
    )
    files_max_rows: int = Field(100_000, ge=1, description="most rows of a department's file")
    files_max_mb: int = Field(50, ge=1, le=2000, description="megabytes: largest file of a department")
    files_max_unpacked_mb: int = Field(
        200, ge=1, le=4000, description="megabytes: largest XLSX of a department when unpacked"
    )
    files_timeout_seconds: float = Field(
        60.0, gt=0, le=600, description="of one file, and of connecting, over SFTP"
    )
    files_lease_seconds: float = Field(
        120.0, ge=1, description="an exchange under way when its process died is taken over after this time"
    )
    files_manifest_patience_seconds: float = Field(
        600.0, ge=0, description="a file that is without its manifest for so long is told to its department"
    )
    public_url: AnyHttpUrl = Field(description="Where departments reach this service, for callback_url")
    intake_url: AnyHttpUrl
    client_id: str = Field("dept-adapter", description="OAuth 2.0 client with scope cases.read")
    client_secret: SecretStr
    source_urls: dict[str, AnyHttpUrl] = Field(
        default_factory=dict,
        description='Sources of facts: JSON {source id: "https://…"}; others stay unknown',
    )
    source_secrets: dict[str, SecretStr] = Field(
        default_factory=dict, description='Webhook secrets of the sources: JSON {source id: "whsec_…"}'
    )
    auto_grant: dict[str, AutoGrant] = Field(
        default_factory=dict,
        description='Departments at the desk that let verified items through: JSON {slug: {"tiers": ["minor"], "sample_percent": 10}}',
    )
    verify_batch: int = Field(100, ge=1, le=500, description="reviews verified at once")
    verify_timeout_seconds: float = Field(5.0, gt=0, le=60, description="of one question to a source")
    verify_poll_seconds: float = Field(1.0, gt=0, description="pause between looking for reviews to verify")
    verify_max_attempts: int = Field(
        5, ge=1, description="attempts at a source; after the last a person looks"
    )
    verify_backoff_base_seconds: float = Field(
        2.0, gt=0, description="before the second attempt; then it doubles"
    )
    verify_backoff_max_seconds: float = Field(60.0, gt=0, description="longest pause between attempts")
    push_batch: int = Field(50, ge=1, le=500, description="reviews of one department taken at once")
    push_concurrency: int = Field(8, ge=1, le=100, description="pushes under way to one department")
    push_timeout_seconds: float = Field(10.0, gt=0, le=120, description="of one push")
    push_lease_seconds: float = Field(
        15.0, ge=1, description="a push under way when its process died is taken over after this time"
    )
    push_poll_seconds: float = Field(1.0, gt=0, description="pause between looking for due pushes")
    push_backoff_base_seconds: float = Field(1.0, gt=0, description="before the second push; then it doubles")
    push_backoff_max_seconds: float = Field(
        300.0, gt=0, description="longest pause between pushes, also for Retry-After"
    )
    breaker_failures: int = Field(5, ge=1, description="failed pushes in a row that open the breaker")
    breaker_seconds: float = Field(
        20.0, gt=0, description="pause before an open breaker lets a probe through"
    )
    supplement_working_days: int = Field(
        15,
        ge=1,
        le=60,
        description="working days an applicant has to supplement (no text with a number was read); then the item ends",
    )
    letters_url: AnyHttpUrl | None = Field(
        None,
        description="Where the public reaches this service to check letters, printed on them; default: DEPT_ADAPTER_PUBLIC_URL",
    )
    letter_batch: int = Field(100, ge=1, le=500, description="letters composed at once, in one transaction")
    letter_poll_seconds: float = Field(
        1.0, gt=0, description="pause between looking for letters that are due"
    )
    letter_backoff_max_seconds: float = Field(
        60.0,
        gt=0,
        description="longest pause between attempts at a letter whose addressee intake does not tell",
    )
    max_letters_at_work: int = Field(
        64, ge=1, description="letters being printed or waiting in one process; one more is answered 429"
    )
    panel_size: int = Field(3, ge=1, le=21, description="experts of a panel: an odd number")
    panel_working_days: int = Field(5, ge=1, le=60, description="working days a panel has for its opinions")
    deadline_poll_seconds: float = Field(
        30.0,
        gt=0,
        description="pause between looking for deadlines that have passed and reminders that are due",
    )
    desk_url: AnyHttpUrl | None = Field(
        None, description="Where officers' browsers reach this service; by default DEPT_ADAPTER_PUBLIC_URL"
    )
    desk_client_id: str = Field("review-desk", description="OpenID Connect client of the review desk's pages")
    desk_client_secret: SecretStr | None = Field(
        None, description="Of that client; without it nobody can sign in to the pages"
    )
    desk_idle_minutes: int = Field(
        30, ge=1, le=480, description="minutes without a request after which an officer has to sign in again"
    )
    desk_session_hours: int = Field(
        10, ge=1, le=24, description="hours after which an officer has to sign in again in any case"
    )
    desk_page_items: int = Field(50, ge=10, le=200, description="items on a page of the queue")
    desk_search_subjects: int = Field(
        5000,
        ge=500,
        le=50_000,
        description="subjects whose names are looked through when a name is searched for",
    )
    remind_working_days: dict[ReminderLevel, list[Annotated[int, Field(ge=-60, le=60)]]] = Field(
        default_factory=lambda: {level: list(days) for level, days in DEFAULT_DAYS.items()},
        description="Working days from the last day of a step on which somebody is reminded, negative before it:"
        ' JSON {"officer": [-2, 0], "approver": [1], "supervisor": [3]}',
    )
    remind_in_person_working_days: dict[ReminderLevel, list[Annotated[int, Field(ge=-60, le=60)]]] = Field(
        default_factory=lambda: {level: list(days) for level, days in IN_PERSON_DAYS.items()},
        description="The same for what is handed over in person (不经系统), working days from the last day of a step",
    )
    remind_of_promise: bool = Field(
        True, description="Officers are reminded of the service promise too, before it and on its day"
    )
    remind_hour: int = Field(9, ge=0, le=23, description="hour of the day in China from which on is reminded")
    callback_retention_days: int = Field(
        60, ge=1, description="days for which a repeated callback is recognised by its webhook-id"
    )

    @cached_property
    def catalogue(self) -> Catalogue:
        """The checked catalogue. Raises CatalogueError."""
        return load_catalogue(self.catalogue_dir)

    @cached_property
    def served(self) -> tuple[Department, ...]:
        """The departments this process serves, in the catalogue's order."""
        chosen = self.departments
        return tuple(d for d in self.catalogue.departments if chosen == "all" or d.slug in chosen)

    @property
    def schedule(self) -> Schedule:
        """When and whom to remind."""

        def promised(requested_on: date) -> int | None:
            overlay = self.catalogue.promise(requested_on)
            return overlay.department_working_days if overlay else None

        schedule = Schedule(self.remind_working_days, in_person=self.remind_in_person_working_days)
        return replace(schedule, promised=promised) if self.remind_of_promise else schedule

    def callback_url(self, department: Department) -> str:
        """Where this department's system sends its decisions."""
        return f"{str(self.public_url).rstrip('/')}/v1/departments/{department.code}/decisions"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = [*self.department_urls, *self.department_secrets]
        named += [*self.department_key_files, *self.department_host_keys]
        named += [] if self.departments == "all" else self.departments
        for slug in named:
            if self.catalogue.by_slug(slug) is None:
                raise ValueError(f"department {slug} is not in the catalogue: use a slug of departments.yaml")
        if not self.served:
            raise ValueError("DEPT_ADAPTER_DEPARTMENTS names no department: name one, or write all")
        for department in self.served:
            self._check_department(department)
        self._check_verification()
        for name in ("remind_working_days", "remind_in_person_working_days"):
            if wrong := faults(getattr(self, name)):
                raise ValueError(f"DEPT_ADAPTER_{name.upper()}: {wrong[0]}")
        if self.panel_size % 2 == 0:
            raise ValueError(
                f"DEPT_ADAPTER_PANEL_SIZE is {self.panel_size}: use an odd number, so that there is a majority"
            )
        return self

    def _check_verification(self) -> None:
        known = {source.id for source in self.catalogue.sources}
        for source in {*self.source_urls, *self.source_secrets}:
            if source not in known:
                raise ValueError(f"source {source} is not in the catalogue: use an id of sources.yaml")
            if source not in self.source_urls or source not in self.source_secrets:
                raise ValueError(
                    f"source {source} needs both: a URL in DEPT_ADAPTER_SOURCE_URLS, a secret in DEPT_ADAPTER_SOURCE_SECRETS"
                )
            self._check_secret(self.source_secrets[source], f"source {source}", "DEPT_ADAPTER_SOURCE_SECRETS")
        for slug in self.auto_grant:
            department = self.catalogue.by_slug(slug)
            if department is None or department.mode != "desk":
                raise ValueError(
                    f"DEPT_ADAPTER_AUTO_GRANT: {slug} is no department of mode desk in departments.yaml"
                )
            if "grant" in department.four_eyes:
                raise ValueError(
                    f"DEPT_ADAPTER_AUTO_GRANT: {slug} has grants confirmed by a second officer (four_eyes in departments.yaml)"
                )

    def _check_department(self, department: Department) -> None:
        slug, mode = department.slug, department.mode
        url, secret = self.department_urls.get(slug), self.department_secrets.get(slug)
        if mode in ("api", "files") and url is None:
            raise ValueError(
                f"department {slug} has mode {mode} but no URL: add it to DEPT_ADAPTER_DEPARTMENT_URLS"
            )
        if mode in ("api", "events"):
            if secret is None:
                raise ValueError(
                    f"department {slug} has mode {mode} but no secret: add it to DEPT_ADAPTER_DEPARTMENT_SECRETS"
                )
            self._check_secret(secret, f"department {slug}", "DEPT_ADAPTER_DEPARTMENT_SECRETS")
        if url is not None:
            schemes = {"api": ("http", "https"), "files": ("sftp", "file")}.get(mode, ())
            if url.scheme not in schemes:
                raise ValueError(
                    f"department {slug} has mode {mode}: its URL in DEPT_ADAPTER_DEPARTMENT_URLS begins with"
                    f" {' or '.join(f'{scheme}://' for scheme in schemes) or 'nothing, take it away'}"
                )
            if url.scheme == "sftp":
                self._check_sftp(slug, url)

    def _check_sftp(self, slug: str, url: AnyUrl) -> None:
        if not url.username or url.password:
            raise ValueError(
                f"department {slug}: write its URL as sftp://user@host/folder, the password in DEPT_ADAPTER_DEPARTMENT_SECRETS"
            )
        if (slug in self.department_secrets) == (slug in self.department_key_files):
            raise ValueError(
                f"department {slug}: give a password in DEPT_ADAPTER_DEPARTMENT_SECRETS or a key in"
                " DEPT_ADAPTER_DEPARTMENT_KEY_FILES, not both"
            )
        key_file = self.department_key_files.get(slug)
        if key_file is not None and not key_file.is_file():
            raise ValueError(f"DEPT_ADAPTER_DEPARTMENT_KEY_FILES: the key of {slug} is not a file")
        try:
            import_public_key(self.department_host_keys.get(slug, ""))
        except KeyImportError:
            raise ValueError(
                f"department {slug} needs the public key of its server in DEPT_ADAPTER_DEPARTMENT_HOST_KEYS,"
                " as ssh-keyscan shows it without the host's name"
            ) from None

    @staticmethod
    def _check_secret(kept: SecretStr, owner: str, setting: str) -> None:
        secret = kept.get_secret_value()
        try:
            if not secret.startswith("whsec_"):
                raise ValueError("no prefix")
            sign(secret, "check", b"")
        except Exception:
            raise ValueError(f"the secret of {owner} in {setting} is not whsec_ followed by base64") from None
