"""Which targets and departments the sandbox stands for: read from contracts/catalogue."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from standardwebhooks import Webhook

import contracts
from sandbox.settings import Settings

_UNUSED = "whsec_" + "A" * 32


class CatalogueError(ValueError):
    """The settings and the catalogue do not fit; the text says what to change."""


@dataclass(frozen=True)
class Target:
    """A target that is served. ``batch_size`` is the most pushes it takes in one request."""

    id: str
    name: str
    kind: str
    categories: frozenset[str]
    batch_size: int
    natural_persons: bool
    protocol: str
    webhook: Webhook


@dataclass(frozen=True)
class Department:
    """A department with a system of its own that is served. ``password``: of mode files, for SFTP; its ``webhook`` signs nothing."""

    slug: str
    code: str
    name: str
    webhook: Webhook
    mode: str = "api"
    callbacks: bool = True
    encoding: str = "utf-8"
    password: str = ""


def _load(settings: Settings, file: str, key: str) -> list[dict[str, Any]]:
    if settings.catalogue_dir:
        path = settings.catalogue_dir / file
    else:
        package = Path(contracts.__file__).parent
        # In a wheel the catalogue lies inside the package, in a checkout beside it.
        installed = package / "catalogue_data" / file
        path = installed if installed.exists() else package.parent / "catalogue" / file
    if not path.exists():
        raise CatalogueError(f"{path} does not exist: set SANDBOX_CATALOGUE_DIR to the folder of {file}")
    rows: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))[key]
    return rows


def _refuse_unknown(setting: str, given: set[str], known: set[str]) -> None:
    if unknown := sorted(given - known):
        raise CatalogueError(
            f"{setting} names {', '.join(unknown)}; the catalogue has {', '.join(sorted(known))}"
        )


def targets(settings: Settings) -> dict[str, Target]:
    """Targets with a secret, by id. Raises CatalogueError for a secret of an unknown target."""
    rows = {row["id"]: row for row in _load(settings, "targets.yaml", "targets")}
    _refuse_unknown("SANDBOX_TARGET_SECRETS", set(settings.target_secrets), set(rows))
    return {
        id_: Target(
            id_,
            rows[id_]["name"],
            rows[id_]["kind"],
            frozenset(rows[id_]["categories"]),
            rows[id_]["batch_size"],
            rows[id_]["natural_persons"],
            rows[id_]["protocol"],
            Webhook(secret),
        )
        for id_, secret in settings.target_secrets.items()
    }


def departments(settings: Settings) -> dict[str, Department]:
    """Departments with a system and a secret, by slug. Raises CatalogueError for a secret of any other."""
    rows = {row["slug"]: row for row in _load(settings, "departments.yaml", "departments")}
    signing = {slug for slug, row in rows.items() if row["mode"] in ("api", "events")}
    _refuse_unknown("SANDBOX_DEPARTMENT_SECRETS", set(settings.department_secrets), signing)
    exchanging = {slug for slug, row in rows.items() if row["mode"] == "files"}
    _refuse_unknown("SANDBOX_SFTP_PASSWORDS", set(settings.sftp_passwords), exchanging)
    secrets = {**settings.department_secrets, **dict.fromkeys(settings.sftp_passwords, _UNUSED)}
    return {
        slug: Department(
            slug,
            rows[slug]["code"],
            rows[slug]["name"],
            Webhook(secret),
            rows[slug]["mode"],
            rows[slug].get("callbacks", True),
            (rows[slug].get("files") or {}).get("encoding", "utf-8"),
            settings.sftp_passwords.get(slug, ""),
        )
        for slug, secret in secrets.items()
    }


def department_codes(settings: Settings) -> dict[str, str]:
    """Slug -> code of every department of the catalogue."""
    return {row["slug"]: row["code"] for row in _load(settings, "departments.yaml", "departments")}
