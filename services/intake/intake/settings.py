"""Settings of intake (environment prefix ``INTAKE_``)."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.settings import ChassisSettings


class IntakeSettings(ChassisSettings):
    """What intake needs beyond the chassis."""

    model_config = SettingsConfigDict(env_prefix="INTAKE_")

    http_port: int = Field(8101, ge=1, le=65535)
    mongodb_database: str = "xinfu_intake"
    catalogue_dir: Path | None = Field(None, validation_alias=AliasChoices("XINFU_CATALOGUE_DIR"))
    subject_key: SecretStr = Field(
        min_length=32,
        description="Key of the pseudonyms (HMAC-SHA256). Changing it gives every subject another id: never change it",
    )
    max_import_bytes: int = Field(200_000_000, ge=1000, description="bytes of one CSV file")
    idempotency_retention_days: int = Field(30, ge=1, le=3650, description="days an Idempotency-Key is known")
    max_event_streams: int = Field(1000, ge=1, description="open event streams of one process")
    event_heartbeat_seconds: float = Field(
        15.0, gt=0, description="seconds between comments on an idle stream"
    )
    event_recheck_seconds: float = Field(
        5.0, gt=0, description="seconds after which a stream looks for entries without being woken"
    )
    event_stream_max_seconds: float = Field(
        900.0,
        gt=0,
        description="seconds after which a stream ends and the client comes again, with a token that is still valid",
    )
