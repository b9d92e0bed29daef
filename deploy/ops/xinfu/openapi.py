"""`xinfu openapi`: the OpenAPI documents of the services, generated from their code into contracts/openapi/."""

import importlib
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from xinfu.compose import SERVICES, compose
from xinfu_local import Broker

DIRECTORY = Path(__file__).resolve().parents[3] / "contracts" / "openapi"


def documents() -> dict[str, str]:
    """File name -> document. Nothing is started; settings are those of a local stack."""
    found = {}
    with TemporaryDirectory() as folder:
        processes, _ = compose(Path(folder), Broker.EMBEDDED)
    for process in processes:
        if process.name not in SERVICES:
            continue
        environment = {name: value for name, value in process.environment.items() if value is not None}
        clients = {"KAFKA_BOOTSTRAP_SERVERS": "localhost:9092", "MONGODB_URI": "mongodb://localhost"}
        with patch.dict(os.environ, {**environment, **clients}):
            package = process.name.replace("-", "_")
            module = importlib.import_module(f"{package}.app")
            settings = importlib.import_module(f"{package}.settings")
            cls = getattr(settings, "".join(part.title() for part in package.split("_")) + "Settings")
            app: Any = module.build(cls())
        found[f"{process.name}.json"] = json.dumps(app.openapi(), ensure_ascii=False, indent=2) + "\n"
    return found


def stale() -> list[str]:
    """Names of committed documents that differ from the code, or are missing."""
    return [
        name
        for name, text in documents().items()
        if not (DIRECTORY / name).is_file() or (DIRECTORY / name).read_text("utf-8") != text
    ]


def write() -> None:
    """Write all documents."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (DIRECTORY / name).write_text(text, "utf-8")
