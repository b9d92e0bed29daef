"""deploy/kafka-acls: a department on the bus reads its reviews, writes its own decisions, and nothing else."""

import os
import subprocess
from pathlib import Path

from contract.architecture import REPOSITORY

from contracts.catalogue import load_catalogue
from xinfu.acls import script

SCRIPT = REPOSITORY / "deploy" / "kafka-acls" / "departments.sh"


def test_the_committed_script_is_current() -> None:
    assert SCRIPT.read_text(encoding="utf-8") == script(load_catalogue()), "run xinfu acls"


def test_what_the_script_asks_of_kafka(tmp_path: Path) -> None:
    """Run with Kafka's tools replaced by a program that notes how it was called."""
    for tool in ("kafka-acls.sh", "kafka-configs.sh"):
        program = tmp_path / tool
        program.write_text(f'#!/bin/sh\necho {tool} "$@" >> {tmp_path}/calls\n')
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BOOTSTRAP": "k:9093", "COMMAND_CONFIG": "c"}
    subprocess.run([str(SCRIPT)], env=environment, check=True)
    granted = set()
    for call in (tmp_path / "calls").read_text().splitlines():
        words = call.split()
        assert words[1:5] == ["--bootstrap-server", "k:9093", "--command-config", "c"]
        if words[0] != "kafka-acls.sh":
            continue
        assert "--add" in words
        assert words[words.index("--resource-pattern-type") + 1] == "literal"
        principal = words[words.index("--allow-principal") + 1]
        operations = {words[i + 1] for i, word in enumerate(words) if word == "--operation"}
        kind = "--topic" if "--topic" in words else "--group"
        granted |= {(principal, kind, words[words.index(kind) + 1], each) for each in operations}
    wanted = set()
    for slug in (d.slug for d in load_catalogue().departments if d.mode == "events"):
        user, topics = f"User:dept-{slug}", (f"xinfu.reviews.{slug}", f"xinfu.inbound.{slug}")
        wanted |= {(user, "--topic", topics[0], each) for each in ("Read", "Describe")}
        wanted |= {(user, "--topic", topics[1], each) for each in ("Write", "Describe")}
        wanted |= {(user, "--group", f"dept-{slug}", "Read")}
    assert granted == wanted
    assert subprocess.run([str(SCRIPT)], env={"PATH": environment["PATH"]}, check=False).returncode != 0
