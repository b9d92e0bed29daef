"""Decided records and six targets: how long until all show what was decided, what it costs, and what is wrong afterwards.

calm     no faults: pushes per record and target should be 1.0
faults   5 % of the calls to every target do each of: answer 200 and do nothing, take effect and answer 500, answer for half a batch,
         take effect late and out of order, fail, redirect to loopback, refuse by a wrong clock; and receipts of others come along
bare     a loop of a plain HTTP client, as many calls at once, the same sandbox: it pushes and looks, and keeps nothing

The decisions come in over Kafka. Only sandbox, intake (who looks up subjects) and sync run; the applications do not exist, so
intake puts what it hears of them aside. Run by `make bench-targets`.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession, ClientTimeout
from e2e.people import World, csv_bytes, open_world, uscc

import contracts
from chassis.webhooks import sign
from contracts.events import RepairGranted
from contracts.http.target import RecordKey, RecordQuery, RepairBatch, RepairPush
from contracts.identifiers import normalise_document_number
from contracts.records import DepartmentRef, DisplayState, RecordFacts
from contracts.topics import DECISIONS
from support import message, produce
from xinfu.compose import Endpoints, compose
from xinfu_local import Broker, Stack

TARGETS = ("credit-china", "credit-zhejiang", "credit-hangzhou", "qichacha", "tianyancha", "qixinbao")
FAULTS = ["ignore", "apply_then_fail", "partial", "out_of_order", "fail", "redirect", "wrong_clock"]
SHARE = 0.05
BARE_BATCH, BARE_AT_ONCE = 100, 4


def six_targets(folder: Path) -> Path:
    """The catalogue, with six of its targets alone."""
    shutil.copytree(Path(contracts.__file__).parent.parent / "catalogue", folder)
    path = folder / "targets.yaml"
    rows = yaml.safe_load(path.read_text())["targets"]
    path.write_text(yaml.safe_dump({"targets": [row for row in rows if row["id"] in TARGETS]}))
    path = folder / "rules.yaml"
    content = yaml.safe_load(path.read_text())
    for rule in content["rules"]:
        rule["targets"] = [target for target in rule["targets"] if target in TARGETS]
    path.write_text(yaml.safe_dump(content))
    return folder


class Records:
    """Published records of as many companies, known to intake and shown at every target."""

    def __init__(self, keys: Sequence[RecordKey], facts: Sequence[RecordFacts]) -> None:
        self.keys = keys
        self.facts = facts

    @classmethod
    async def publish(cls, world: World, number: int, first: int) -> "Records":
        rows = []
        for n in range(first, first + number):
            row = world.row(CF_XDR_MC=f"杭州示例{n}科技有限公司", CF_XDR_SHXYM=uscc(n))
            rows.append({**row, "CF_WSH": f"示罚〔2025〕{n}号"})
        keys = [
            RecordKey(
                subject_code=row["CF_XDR_SHXYM"],
                document_number=normalise_document_number(row["CF_WSH"]),
                authority_name=row["CF_CFJG"],
            )
            for row in rows
        ]
        category = world.catalogue.penalty_category(rows[0]["CF_CFJGDM"], rows[0]["CF_CFJG"])
        published = [
            {"record": key.model_dump(), "subject_name": "示例", "category": category} for key in keys
        ]
        for target in TARGETS:
            url = world.url("sandbox", f"/targets/{target}/sandbox/records")
            for start in range(0, number, 5000):
                (await world.ask("POST", url, json={"records": published[start : start + 5000]})).ok()
        for start in range(0, number, 2000):
            report = await world.import_csv(csv_bytes(rows[start : start + 2000]))
            assert report["rejected"] == [], report["rejected"][:3]
        wanted = {key.document_number for key in keys}
        stored = world.database("intake")["records"].find({"facts.document_number": {"$in": list(wanted)}})
        facts = [RecordFacts.model_validate(document["facts"]) for document in stored]
        assert len(facts) == number
        return cls(keys, facts)

    def granted(self) -> list[RepairGranted]:
        """A decision about each."""
        now = datetime.now(UTC) - timedelta(minutes=1)
        return [
            RepairGranted(
                application_id=f"app_{secrets.token_hex(16)}",
                item_id=f"itm_{secrets.token_hex(16)}",
                record_id=facts.record_id,
                subject_id=facts.subject_id,
                department=DepartmentRef(code="11330100002489591C", slug="hz-jyj", name="杭州市教育局"),
                record=facts,
                decision_number=f"杭教信修〔2026〕{number}号",
                decided_at=now,
            )
            for number, facts in enumerate(self.facts)
        ]


async def shown(world: World, target: str, keys: Sequence[RecordKey]) -> dict[str, dict[str, Any]]:
    """What a target shows of these records, by 文号."""
    rows: list[dict[str, Any]] = []
    while True:
        after = rows[-1]["seq"] if rows else 0
        url = world.url("sandbox", f"/targets/{target}/sandbox/records?limit=10000&after={after}")
        page = (await world.ask("GET", url)).ok()["records"]
        rows += page
        if len(page) < 10_000:
            wanted = {key.document_number for key in keys}
            return {row["document_number"]: row for row in rows if row["document_number"] in wanted}


async def log_of(world: World, target: str, after: int) -> list[dict[str, Any]]:
    """Lines of a target's push log."""
    lines: list[dict[str, Any]] = []
    while True:
        last = lines[-1]["seq"] if lines else after
        url = world.url("sandbox", f"/targets/{target}/sandbox/log?limit=10000&after={last}")
        page = (await world.ask("GET", url)).ok()["pushes"]
        lines += page
        if len(page) < 10_000:
            return lines


async def ours(world: World, records: Records, name: str) -> float:
    """Tell the decisions; until every target has been seen right. Prints what it took; pushes a second."""
    before = {target: ((await log_of(world, target, 0)) or [{"seq": 0}])[-1]["seq"] for target in TARGETS}
    messages = [message(event) for event in records.granted()]
    ids = [facts.record_id for facts in records.facts]
    sync = world.database("sync")
    started = time.monotonic()
    await produce(world.stack, DECISIONS.name, messages)
    after: dict[str, float] = {}
    while True:
        # the filter is the one of the index: what differs
        left = set(sync["deliveries"].distinct("target_id", {"differs_since": {"$type": "date"}}))
        if sync["records"].count_documents({"_id": {"$in": ids}}) == len(ids):
            for target in set(TARGETS) - left - set(after):
                after[target] = time.monotonic() - started
            if not left:
                break
        await asyncio.sleep(0.25)
    seconds = time.monotonic() - started
    pushes = Counter[str]()
    wrong = regressions = 0
    for target in TARGETS:
        state = await shown(world, target, records.keys)
        wrong += sum(row["state"] != "publication_ended" for row in state.values())
        highest: dict[str, int] = {}
        for line in await log_of(world, target, before[target]):
            if line["cause"] != "push":
                highest.pop(line["document_number"], None)
                continue
            pushes[target] += 1
            if line["effect"]:
                version = line["version"]
                regressions += version < highest.get(line["document_number"], 0)
                highest[line["document_number"]] = version
    total, pairs = sum(pushes.values()), len(ids) * len(TARGETS)
    rate = pairs / seconds
    print(
        f"{name:7} {len(ids)} records x {len(TARGETS)} targets: all seen after {seconds:.1f} s;"
        f" {total / pairs:.3f} pushes per record and target; wrong {wrong}; regressions {regressions};"
        f" {rate:.0f} records shown/s",
        flush=True,
    )
    print("        " + ", ".join(f"{target} {after[target]:.1f} s" for target in TARGETS), flush=True)
    return rate


async def bare(world: World, records: Records) -> float:
    """Push and look, as many calls at once as ours may have, and nothing else."""
    now = datetime.now(UTC)

    async def post(http: ClientSession, target: str, path: str, body: bytes) -> None:
        secret, identity = world.secrets[f"target:{target}"], secrets.token_hex(8)
        headers = {**sign(secret, identity, body), "Idempotency-Key": identity}
        url = world.url("sandbox", f"/targets/{target}{path}")
        async with http.post(url, data=body, headers=headers) as answer:
            assert answer.status in (200, 202), answer.status
            await answer.read()

    async def one(
        http: ClientSession, target: str, slots: asyncio.Semaphore, keys: Sequence[RecordKey]
    ) -> None:
        pushes = [
            RepairPush(
                idempotency_key=f"{target}:bare:{key.document_number}",
                record=key,
                subject_name="示例",
                state=DisplayState.PUBLICATION_ENDED,
                version=1,
                decision_number="x",
                decided_at=now,
            )
            for key in keys
        ]
        async with slots:
            await post(http, target, "/v1/repairs", RepairBatch(pushes=pushes).model_dump_json().encode())
            await post(
                http, target, "/v1/records/query", RecordQuery(records=list(keys)).model_dump_json().encode()
            )

    size = {target.id: target.batch_size for target in world.catalogue.targets}
    started = time.monotonic()
    async with ClientSession(timeout=ClientTimeout(total=120)) as http, asyncio.TaskGroup() as group:
        for target in TARGETS:
            slots = asyncio.Semaphore(BARE_AT_ONCE)
            for start in range(0, len(records.keys), size[target]):
                group.create_task(one(http, target, slots, records.keys[start : start + size[target]]))
    seconds = time.monotonic() - started
    rate = len(records.keys) * len(TARGETS) / seconds
    print(
        f"bare    {len(records.keys)} records x {len(TARGETS)} targets in {seconds:.1f} s; {rate:.0f} records shown/s"
    )
    return rate


async def with_faults(world: World, work: Callable[[], Awaitable[float]]) -> float:
    """Every target misbehaves while it lasts."""
    for number, target in enumerate(TARGETS):
        kinds = [*FAULTS, "foreign_receipt"] if target == "qixinbao" else FAULTS
        await world.fault(target, mode="mixed", kinds=kinds, rate=SHARE, seed=number)
    try:
        return await work()
    finally:
        for target in TARGETS:
            await world.fault(target, mode="ok")


async def bench(stack: Stack, endpoints: Endpoints, number: int) -> None:
    async with open_world(stack, endpoints) as world:
        print("publishing the records", flush=True)
        few = max(number // 5, 100)
        first = [await Records.publish(world, n, start) for n, start in ((number, 1), (number, number + 1))]
        third = await Records.publish(world, few, 2 * number + 1)
        calm = await ours(world, first[0], "calm")
        await with_faults(world, lambda: ours(world, first[1], "faults"))
        limit = await bare(world, third)
        print(f"ours_vs_bare={calm / limit:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--broker", default=os.environ.get("BROKER", "embedded"))
    parser.add_argument("--profile", type=Path, help="file for a cProfile of sync, which makes it slower")
    args = parser.parse_args()
    broker = Broker(args.broker)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalogue = str(six_targets(folder / "catalogue"))
        data = folder / "data"
        processes, endpoints = compose(
            data,
            broker,
            parity=False,
            environment={
                "sync": {
                    "XINFU_CATALOGUE_DIR": catalogue,
                    # what is right is looked at again after the bench; what failed is tried again soon
                    "SYNC_RECHECK_SCHEDULE_SECONDS": json.dumps([3600]),
                    "SYNC_BACKOFF_MAX_SECONDS": "10",
                    "SYNC_BREAKER_SECONDS": "1",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": "",  # the sandbox is the trace store as well
                },
                "intake": {"XINFU_DEAD_LETTER_QUOTA_MB": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            },
        )
        needed = [process for process in processes if process.name in ("sandbox", "intake", "sync")]
        if args.profile:
            command = [sys.executable, "-m", "cProfile", "-o", str(args.profile.resolve()), "-m", "sync"]
            needed = [replace(p, command=command) if p.name == "sync" else p for p in needed]
        with Stack(
            needed, broker, data, prepare=lambda _: endpoints.write(data), ready_timeout_seconds=240
        ) as stack:
            asyncio.run(bench(stack, endpoints, args.records))


if __name__ == "__main__":
    main()
