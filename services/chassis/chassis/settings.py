"""Settings every service has, read from the environment.

Names without prefix are the field's own (``KAFKA_BOOTSTRAP_SERVERS``, ``MONGODB_URI``, ``OTEL_*``); ``XINFU_*`` are common to
all services; a service's own carry its name (``INTAKE_*``).
"""

import sys
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


def _shared(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


class ChassisSettings(BaseSettings):
    """Base of every service's settings."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    # --- bus
    kafka_bootstrap_servers: str = Field(validation_alias=_shared("KAFKA_BOOTSTRAP_SERVERS"))
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", validation_alias=_shared("KAFKA_SECURITY_PROTOCOL")
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", validation_alias=_shared("KAFKA_SASL_MECHANISM")
    )
    kafka_sasl_username: str | None = Field(None, validation_alias=_shared("KAFKA_SASL_USERNAME"))
    kafka_sasl_password: SecretStr | None = Field(None, validation_alias=_shared("KAFKA_SASL_PASSWORD"))
    kafka_ssl_cafile: Path | None = Field(None, validation_alias=_shared("KAFKA_SSL_CAFILE"))
    kafka_enable_idempotence: bool = Field(
        True,
        validation_alias=_shared("KAFKA_ENABLE_IDEMPOTENCE"),
        description="Idempotent producer. The embedded broker cannot (docs: local stack); Apache Kafka can.",
    )
    kafka_replication_factor: int = Field(1, ge=1, validation_alias=_shared("KAFKA_REPLICATION_FACTOR"))
    kafka_fetch_max_wait_ms: int = Field(
        200,
        ge=1,
        le=5000,
        validation_alias=_shared("KAFKA_FETCH_MAX_WAIT_MS"),
        description="milliseconds an idle fetch waits at the broker. An event is fetched as it comes, unless one of the same partition"
        " was fetched just before: then it waits for the fetch that is under way",
    )
    kafka_session_timeout_ms: int = Field(
        10_000,
        ge=6000,
        validation_alias=_shared("KAFKA_SESSION_TIMEOUT_MS"),
        description="milliseconds until the group takes over the work of a consumer that was killed",
    )
    create_topics: bool = Field(
        True,
        validation_alias=_shared("XINFU_CREATE_TOPICS"),
        description="Create missing topics, at start-up and while running",
    )
    bus_watch_seconds: float = Field(
        10.0,
        gt=0,
        validation_alias=_shared("XINFU_BUS_WATCH_SECONDS"),
        description="How often to look whether the bus has lost topics",
    )

    # --- database
    mongodb_uri: SecretStr = Field(validation_alias=_shared("MONGODB_URI"))
    mongodb_pool_size: int = Field(20, ge=2, le=500, validation_alias=_shared("MONGODB_POOL_SIZE"))
    mongodb_timeout_ms: int = Field(
        10_000,
        ge=100,
        validation_alias=_shared("MONGODB_TIMEOUT_MS"),
        description="milliseconds to find a primary before an operation fails",
    )

    # --- HTTP
    http_host: str = Field("127.0.0.1", validation_alias=_shared("XINFU_HTTP_HOST"))
    max_body_bytes: int = Field(1_000_000, ge=1000, validation_alias=_shared("XINFU_MAX_BODY_BYTES"))
    max_concurrent_requests: int = Field(
        200,
        ge=1,
        validation_alias=_shared("XINFU_MAX_CONCURRENT_REQUESTS"),
        description="HTTP requests at work at once in one process; one more is answered 429",
    )
    graceful_timeout_seconds: float = Field(
        15.0, gt=0, validation_alias=_shared("XINFU_GRACEFUL_TIMEOUT_SECONDS")
    )
    log_level: str = Field("INFO", validation_alias=_shared("XINFU_LOG_LEVEL"))

    # --- tokens
    oidc_issuer: str = Field(validation_alias=_shared("XINFU_OIDC_ISSUER"))
    oidc_audience: str = Field("xinfu", validation_alias=_shared("XINFU_OIDC_AUDIENCE"))
    oidc_jwks_url: str | None = Field(
        None,
        validation_alias=_shared("XINFU_OIDC_JWKS_URL"),
        description="Where the issuer's keys are; by default taken from its discovery document",
    )
    oidc_leeway_seconds: int = Field(30, ge=0, le=300, validation_alias=_shared("XINFU_OIDC_LEEWAY_SECONDS"))

    # --- consuming
    batch_max_records: int = Field(
        200,
        ge=1,
        le=5000,
        validation_alias=_shared("XINFU_BATCH_MAX_RECORDS"),
        description="events in one transaction",
    )
    max_event_bytes: int = Field(900_000, ge=1000, validation_alias=_shared("XINFU_MAX_EVENT_BYTES"))
    handler_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=50,
        validation_alias=_shared("XINFU_HANDLER_TIMEOUT_SECONDS"),
        description="A handler that takes longer for a batch is stopped, and the batch divided; below MongoDB's"
        " transactionLifetimeLimitSeconds",
    )
    inbox_retention_days: int = Field(60, ge=1, validation_alias=_shared("XINFU_INBOX_RETENTION_DAYS"))
    stalled_after_seconds: float = Field(
        60.0,
        gt=0,
        validation_alias=_shared("XINFU_STALLED_AFTER_SECONDS"),
        description="A batch not done and committed, or a group not joined, for this long makes /readyz fail",
    )

    # --- parking of failing keys
    park_base_seconds: float = Field(5.0, gt=0, validation_alias=_shared("XINFU_PARK_BASE_SECONDS"))
    park_max_seconds: float = Field(3600.0, gt=0, validation_alias=_shared("XINFU_PARK_MAX_SECONDS"))
    park_max_attempts: int = Field(12, ge=1, validation_alias=_shared("XINFU_PARK_MAX_ATTEMPTS"))
    park_poll_seconds: float = Field(1.0, gt=0, validation_alias=_shared("XINFU_PARK_POLL_SECONDS"))

    park_max_events: int = Field(
        100_000,
        ge=1,
        validation_alias=_shared("XINFU_PARK_MAX_EVENTS"),
        description="Most events a consumer parks; then it takes no batch that would park more",
    )

    # --- dead letters
    dead_letter_quota_mb: int = Field(
        1000,
        ge=0,
        validation_alias=_shared("XINFU_DEAD_LETTER_QUOTA_MB"),
        description="Megabytes of stored dead letters of the service; above it they are stored without their value",
    )
    dead_letter_retention_days: int = Field(
        180, ge=1, validation_alias=_shared("XINFU_DEAD_LETTER_RETENTION_DAYS")
    )

    # --- outbox
    outbox_buckets: int = Field(
        16,
        ge=1,
        le=1024,
        validation_alias=_shared("XINFU_OUTBOX_BUCKETS"),
        description="Buckets that relays share by lease. Change it only while all replicas are stopped",
    )
    outbox_batch: int = Field(1000, ge=1, le=10_000, validation_alias=_shared("XINFU_OUTBOX_BATCH"))
    outbox_poll_ms: int = Field(
        200, ge=10, validation_alias=_shared("XINFU_OUTBOX_POLL_MS"), description="milliseconds"
    )
    outbox_lease_seconds: float = Field(10.0, gt=1, validation_alias=_shared("XINFU_OUTBOX_LEASE_SECONDS"))
    outbox_retention_days: int = Field(30, ge=1, validation_alias=_shared("XINFU_OUTBOX_RETENTION_DAYS"))

    @model_validator(mode="after")
    def _credentials_fit_the_protocol(self) -> "ChassisSettings":
        sasl = self.kafka_security_protocol.startswith("SASL_")
        if sasl != (self.kafka_sasl_username is not None and self.kafka_sasl_password is not None):
            raise ValueError(
                "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD go with KAFKA_SECURITY_PROTOCOL=SASL_SSL"
                " or SASL_PLAINTEXT: set all of them or none"
            )
        return self

    @model_validator(mode="after")
    def _inbox_outlives_outbox(self) -> "ChassisSettings":
        if self.inbox_retention_days <= self.outbox_retention_days:
            raise ValueError(
                "XINFU_INBOX_RETENTION_DAYS must be larger than XINFU_OUTBOX_RETENTION_DAYS:"
                " a replayed outbox would take effect twice"
            )
        return self


S = TypeVar("S", bound=BaseSettings)


def load_settings(cls: type[S]) -> S:
    """Read settings; on a bad or missing one print one line that names it and exit with status 78 (EX_CONFIG)."""
    try:
        return cls()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        prefix = cls.model_config.get("env_prefix", "")
        where = ".".join(str(part) for part in first["loc"])
        name = where if where.isupper() or not where else f"{prefix}{where}".upper()
        sys.stderr.write(f"bad setting {name}: {first['msg']}\n".replace("bad setting :", "bad settings:"))
        raise SystemExit(78) from None
    except (
        SettingsError
    ) as error:  # a list or mapping that is not JSON; the text names the field, not its value
        sys.stderr.write(f"bad settings: {error}: write it as JSON\n")
        raise SystemExit(78) from None
