"""The committed OpenAPI documents are what the services really serve."""

import json

from xinfu.compose import SERVICES
from xinfu.openapi import DIRECTORY, stale


def test_committed_documents_are_current() -> None:
    assert stale() == [], "run `make generate` and commit contracts/openapi/"


def test_every_service_has_one_and_every_route_says_what_it_may_answer() -> None:
    for service in SERVICES:
        document = json.loads((DIRECTORY / f"{service}.json").read_text("utf-8"))
        assert document["openapi"].startswith("3.1")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation.get("summary"), f"{service} {method} {path} has no summary"
                assert any(code.startswith("2") for code in operation["responses"])
