"""Settings of intake (environment prefix ``INTAKE_``)."""

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, AnyHttpUrl, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.settings import ChassisSettings
from contracts.http.eligibility import Transition


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
    sync_url: AnyHttpUrl = Field(description="Base URL of sync, which issues repair certificates")
    dept_adapter_url: AnyHttpUrl = Field(
        description="Where letters are fetched for the applicants they are addressed to"
    )
    client_id: str = Field(
        "intake", min_length=1, description="OAuth 2.0 client with scopes letters.read and propagation.read"
    )
    client_secret: SecretStr
    require_commitment: bool = Field(
        True,
        description="Whether an application needs the commitment its applicant was shown (commitment_hash); false only where a"
        " front-end cannot show it yet: then the department has to ask for it",
    )
    transition: Transition = Field(
        Transition.EITHER,
        description="whose day the rules are of, for a record decided before they changed: either (refused only when both"
        " refuse), application_day or decision_day",
    )
    notice_within_days: int = Field(
        90,
        ge=0,
        le=36_500,
        description="days; of a record that was decided longer ago when it first comes, its subject is not told: an import of"
        " old records is no publication",
    )
    max_import_bytes: int = Field(200_000_000, ge=1000, description="bytes of one CSV file")
    follow_up_days: list[Annotated[int, Field(ge=1, le=3650)]] = Field(
        [30, 90],
        description="days after a repair on which its subject is asked whether it has lasted: JSON list",
    )
    follow_up_poll_seconds: float = Field(
        60.0, gt=0, description="pause between looking for follow-ups that are due"
    )
    expiry_poll_seconds: float = Field(
        60.0, gt=0, description="pause between looking for records whose publication period has passed"
    )
    max_material_bytes: int = Field(10_000_000, ge=1000, description="bytes of one uploaded material")
    max_uploads: int = Field(
        8, ge=1, description="uploads of materials at once in one process, each held in memory"
    )
    max_materials_per_subject: int = Field(300, ge=1, description="materials kept for one subject")
    scanner_url: AnyHttpUrl | None = Field(
        None,
        description='Scanner of uploads: POST of the content, answer {"clean": true}; empty: not scanned',
    )
    scanner_timeout_seconds: float = Field(
        20.0, gt=0, description="of one scan; not answering refuses the upload"
    )
    idempotency_retention_days: int = Field(30, ge=1, le=3650, description="days an Idempotency-Key is known")
    max_submissions_at_work: int = Field(
        100, ge=1, description="submissions at work at once in one process; one more is answered 429"
    )
    max_commit_seconds: float = Field(
        2.0,
        gt=0,
        description="seconds of a submission's transaction, moving average; twice as slow, half as many at work",
    )
    max_outbox_pending: int = Field(
        20_000, ge=1, description="events waiting to be published; from then on nothing is taken"
    )
    max_unrouted_items: int = Field(
        100_000, ge=1, description="items not routed yet; from then on no application is taken"
    )
    max_unshown_items: int = Field(
        100_000,
        ge=1,
        description="granted items not yet seen at every target; from then on no application is taken",
    )
    max_concurrent_imports: int = Field(
        2, ge=1, description="CSV imports at once in one process; one more is answered 429"
    )
    max_pictures_at_work: int = Field(
        16,
        ge=1,
        description="pictures of the guide, and commitments and notices, drawn or waited for at once in one process; one more is answered 429",
    )
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
