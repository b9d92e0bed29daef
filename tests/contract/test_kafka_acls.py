"""deploy/kafka-acls: who may do what on the bus. On a bus that enforces it: integration/test_secured_bus.py."""

import itertools
import os
import subprocess
from collections import defaultdict
from pathlib import Path

from contract.architecture import REPOSITORY

from contracts.catalogue import load_catalogue
from xinfu.acls import script

SCRIPT = REPOSITORY / "deploy" / "kafka-acls" / "acls.sh"


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
        options: dict[str, list[str]] = defaultdict(list)
        for name, value in itertools.pairwise(words[1:]):
            if name.startswith("--"):
                options[name].append(value)
        (user,), (pattern,) = options["--allow-principal"], options["--resource-pattern-type"]
        for operation in options["--operation"]:
            granted |= {(user, operation, "topic", pattern, topic) for topic in options["--topic"]}
            granted |= {(user, operation, "group", pattern, group) for group in options["--group"]}
    departments = {each for each in granted if each[0].startswith("User:dept-")}
    wanted = set()
    for slug in (d.slug for d in load_catalogue().departments if d.mode == "events"):
        user, topics = f"User:dept-{slug}", (f"xinfu.reviews.{slug}", f"xinfu.inbound.{slug}")
        wanted |= {(user, each, "topic", "literal", topics[0]) for each in ("Read", "Describe")}
        wanted |= {(user, each, "topic", "literal", topics[1]) for each in ("Write", "Describe")}
        wanted |= {(user, "Read", "group", "literal", f"dept-{slug}")}
    assert departments == wanted
    writers = {(name, user) for user, operation, _, _, name in granted - departments if operation == "Write"}
    assert writers == {
        ("xinfu.records", "User:xinfu-intake"),
        ("xinfu.applications", "User:xinfu-intake"),
        ("xinfu.routing", "User:xinfu-routing"),
        ("xinfu.reviews.", "User:xinfu-routing"),
        ("xinfu.decisions", "User:xinfu-dept-adapter"),
        ("xinfu.propagation", "User:xinfu-sync"),
        ("xinfu.notifications", "User:xinfu-notify"),
        ("xinfu.office-notifications", "User:xinfu-notify"),
    }
    assert subprocess.run([str(SCRIPT)], env={"PATH": environment["PATH"]}, check=False).returncode != 0
