"""``python -m contracts.generate``: writes ``schemas/*.json`` and ``asyncapi.json`` from the event classes and the topic registry.

``--check`` writes nothing and exits with 1, naming every file that is missing, stale or left over.

An event version never changes in a way that old readers or writers would notice (``contracts.schemas.breaking_changes``): such a
change is refused, also with ``--check``. ``--breaking`` allows it, for a version that nobody has used yet.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from contracts.asyncapi import build
from contracts.catalogue import load_catalogue
from contracts.events import EVENTS
from contracts.schemas import breaking_changes, event_schema

CONTRACTS = Path(__file__).resolve().parents[1]


def generated(directory: Path) -> dict[str, str]:
    """Path in ``directory`` -> content. Reads ``examples/<type>.json``; raises FileNotFoundError for a missing one."""
    examples = {
        event_type: json.loads((directory / "examples" / f"{event_type}.json").read_text(encoding="utf-8"))
        for event_type in EVENTS
    }
    documents = {f"schemas/{event_type}.json": event_schema(cls) for event_type, cls in EVENTS.items()}
    documents["asyncapi.json"] = build(load_catalogue(), examples)
    return {
        path: json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        for path, document in documents.items()
    }


def stale_files(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Paths whose content is not what is generated, and schemas of events that are no more."""
    differing = [
        path
        for path, content in files.items()
        if not (directory / path).is_file() or (directory / path).read_text(encoding="utf-8") != content
    ]
    return sorted(differing + left_over(directory, files))


def left_over(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Schemas in ``directory`` of events that are no more."""
    return [
        path
        for found in (directory / "schemas").glob("*.json")
        if (path := f"schemas/{found.name}") not in files
    ]


def breaks(directory: Path, files: Mapping[str, str]) -> list[str]:
    """What the generated schemas would break of those in ``directory``, one line each. A version may go only as a whole."""
    found = [f"{path}: event removed" for path in left_over(directory, files)]
    for path, content in files.items():
        if path.startswith("schemas/") and (directory / path).is_file():
            old = json.loads((directory / path).read_text(encoding="utf-8"))
            found += [f"{path}: {change}" for change in breaking_changes(old, json.loads(content))]
    return found


def main(arguments: list[str] | None = None, directory: Path = CONTRACTS) -> int:
    """Exit status: 0 done, 1 stale (with ``--check``) or refused."""
    parser = argparse.ArgumentParser(prog="python -m contracts.generate")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is stale")
    parser.add_argument(
        "--breaking", action="store_true", help="allow changes that break a version nobody uses yet"
    )
    options = parser.parse_args(arguments)
    files = generated(directory)
    broken = [] if options.breaking else breaks(directory, files)
    if broken:
        lines = "\n  ".join(broken)
        sys.stderr.write(
            f"Breaking changes:\n  {lines}\nMake a new version of the event (....v2) beside the old one, "
            "or use --breaking if nobody has used it yet.\n"
        )
        return 1
    stale = stale_files(directory, files)
    if options.check:
        sys.stderr.writelines(
            f"stale: contracts/{path}; run python -m contracts.generate\n" for path in stale
        )
        return 1 if stale else 0
    (directory / "schemas").mkdir(exist_ok=True)
    for path in stale:
        if path in files:
            (directory / path).write_text(files[path], encoding="utf-8")
        else:
            (directory / path).unlink()
        sys.stdout.write(f"contracts/{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
