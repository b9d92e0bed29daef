"""Settings of routing (environment prefix ``ROUTING_``)."""

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import ChassisSettings


class RoutingSettings(ChassisSettings):
    """What routing needs beyond the chassis."""

    model_config = SettingsConfigDict(env_prefix="ROUTING_")

    http_port: int = Field(8102, ge=1, le=65535)
    mongodb_database: str = "xinfu_routing"
    catalogue_dir: Path | None = Field(None, validation_alias=AliasChoices("XINFU_CATALOGUE_DIR"))
    referral_working_days: int = Field(
        2, ge=0, le=30, description="working days the human queue has to name a department"
    )
    deadline_poll_seconds: float = Field(
        30.0, gt=0, description="pause between looking for referrals whose last day has passed"
    )
