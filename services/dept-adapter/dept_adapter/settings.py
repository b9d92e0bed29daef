"""Settings of dept-adapter (environment prefix ``DEPT_ADAPTER_``)."""

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, AnyHttpUrl, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from chassis.settings import ChassisSettings
from chassis.webhooks import sign
from contracts.catalogue import Catalogue, Department, load_catalogue


def _slugs(value: Any) -> Any:
    if not isinstance(value, str) or value == "all":
        return value
    if value.startswith("["):
        return json.loads(value)
    return [slug.strip() for slug in value.split(",") if slug.strip()]


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
    department_urls: dict[str, AnyHttpUrl] = Field(
        default_factory=dict, description='Systems of departments of mode api: JSON {slug: "https://…"}'
    )
    department_secrets: dict[str, SecretStr] = Field(
        default_factory=dict, description='Webhook secrets of departments of mode api: JSON {slug: "whsec_…"}'
    )
    public_url: AnyHttpUrl = Field(description="Where departments reach this service, for callback_url")
    intake_url: AnyHttpUrl
    client_id: str = Field("dept-adapter", description="OAuth 2.0 client with scope cases.read")
    client_secret: SecretStr
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
    deadline_poll_seconds: float = Field(
        30.0, gt=0, description="pause between looking for deadlines that have passed"
    )
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

    def callback_url(self, department: Department) -> str:
        """Where this department's system sends its decisions."""
        return f"{str(self.public_url).rstrip('/')}/v1/departments/{department.code}/decisions"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = [*self.department_urls, *self.department_secrets]
        named += [] if self.departments == "all" else self.departments
        for slug in named:
            if self.catalogue.by_slug(slug) is None:
                raise ValueError(f"department {slug} is not in the catalogue: use a slug of departments.yaml")
        if not self.served:
            raise ValueError("DEPT_ADAPTER_DEPARTMENTS names no department: name one, or write all")
        for department in self.served:
            if department.mode == "api":
                self._check_api_department(department)
        return self

    def _check_api_department(self, department: Department) -> None:
        slug = department.slug
        if slug not in self.department_urls:
            raise ValueError(
                f"department {slug} has mode api but no URL: add it to DEPT_ADAPTER_DEPARTMENT_URLS"
            )
        if slug not in self.department_secrets:
            raise ValueError(
                f"department {slug} has mode api but no secret: add it to DEPT_ADAPTER_DEPARTMENT_SECRETS"
            )
        secret = self.department_secrets[slug].get_secret_value()
        try:
            if not secret.startswith("whsec_"):
                raise ValueError("no prefix")
            sign(secret, "check", b"")
        except Exception:
            raise ValueError(
                f"the secret of department {slug} in DEPT_ADAPTER_DEPARTMENT_SECRETS is not whsec_ followed by base64"
            ) from None
