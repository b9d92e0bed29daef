"""Settings of the sandbox, read from the environment (prefix ``SANDBOX_``)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from standardwebhooks import Webhook


def _webhook_secret(value: str) -> str:
    if not value.startswith("whsec_"):
        raise ValueError("write the secret as whsec_ followed by base64 (Standard Webhooks)")
    try:
        Webhook(value)
    except Exception as error:
        raise ValueError(f"the secret after whsec_ is not usable base64: {error}") from None
    return value


WebhookSecret = Annotated[str, AfterValidator(_webhook_secret)]
Port = Annotated[int, Field(ge=1, le=65535)]


class OidcClient(BaseModel):
    """A client of the issuer; ``scope`` is what it may ask for, space separated. ``redirect_uris``: where people may be sent back."""

    secret: str = Field(min_length=1)
    scope: str = ""
    redirect_uris: list[str] = []


class Settings(BaseSettings):
    """Everything has a default but the secrets: a target or department without a secret is not served."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_", extra="ignore", hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on, HTTP and SMTP")
    http_port: Port = 8090
    smtp_port: Port = 8025
    data_dir: Path = Field(default=Path(".xinfu/sandbox"), description="Directory of sandbox.sqlite3")
    catalogue_dir: Path | None = Field(
        default=None, description="Directory of targets.yaml and departments.yaml; default: that of contracts"
    )
    department_secrets: dict[str, WebhookSecret] = Field(
        default_factory=dict,
        description='JSON {slug: "whsec_…"}; the slug has mode api or events in departments.yaml',
    )
    sftp_port: Port = 8022
    sftp_passwords: dict[str, str] = Field(
        default_factory=dict, description="JSON {slug: password}; the slug has mode files in departments.yaml"
    )
    target_sftp_passwords: dict[str, str] = Field(
        default_factory=dict,
        description="JSON {target id: password}; the target has protocol files and is reached by SFTP",
    )
    sftp_host_key: str = Field(
        default="",
        description="Private key of the SFTP server, OpenSSH form; default: a new one at each start",
    )
    kafka_bootstrap_servers: str = Field(
        default="",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="The bus of the departments of mode events; without it they are not served",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="How that bus is reached; SASL_…: by SCRAM-SHA-512 as dept-<slug>",
    )
    kafka_ssl_cafile: Path | None = Field(
        default=None, validation_alias="KAFKA_SSL_CAFILE", description="CA to trust; default: the system's"
    )
    bus_passwords: dict[str, str] = Field(
        default_factory=dict,
        description="JSON {slug: password} for SASL_…; the slug has mode events in departments.yaml",
    )
    dept_adapter_url: str = Field(
        default="", description="Where departments of mode events read what an event does not say"
    )
    target_secrets: dict[str, WebhookSecret] = Field(
        default_factory=dict, description='JSON {target id: "whsec_…"}'
    )
    source_secrets: dict[str, WebhookSecret] = Field(
        default_factory=dict, description='JSON {source id: "whsec_…"}'
    )
    oidc_clients: dict[str, OidcClient] = Field(
        default_factory=dict, description='JSON {client id: {"secret": "…", "scope": "cases.read"}}'
    )
    decision_delay_seconds: float = Field(
        default=1.0, ge=0, description="From receipt to accepted, and again from accepted to the decision"
    )
    target_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="How long every target takes before it does what a push or a query asks",
    )
    exchange_dir: Path | None = Field(
        default=None,
        description="Folder of targets that take files and are not reached by SFTP, one folder for each; default: in DATA_DIR",
    )
    list_urls: dict[str, str] = Field(
        default_factory=dict, description="JSON {target id: base URL where a target of protocol pull fetches}"
    )
    exchange_seconds: float = Field(
        default=0.5, gt=0, description="Pause between looks for files, and between fetches of lists"
    )
    issuer_url: str = Field(default="", description="iss of the tokens; default: derived from the port")

    def reaches_bus(self, slug: str) -> bool:
        """Whether the department of mode events can live on the bus: there is one, and it has its password where one is asked for."""
        sasl = self.kafka_security_protocol.startswith("SASL_")
        return bool(self.kafka_bootstrap_servers) and (not sasl or slug in self.bus_passwords)

    @property
    def base_url(self) -> str:
        """URL under which a browser on this machine finds the sandbox."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.http_port}"

    @property
    def issuer(self) -> str:
        """Issuer identifier (OpenID Connect Discovery 1.0, section 3): no slash at the end."""
        return self.issuer_url.rstrip("/") or f"{self.base_url}/oidc"
