"""The view from outside, which trusts no service: what citizens, targets, departments and mailboxes hold, and whether it is right."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chaos.load import Citizens, Officers, Persistent, outcomes
from chaos.objections import Objections
from chaos.population import API, Company, Population, Record
from e2e.people import Document, World

from contracts.catalogue import Catalogue, Protocol, load_catalogue
from contracts.clock import china_date
from contracts.events import (
    ApplicationCompleted,
    ApplicationSubmitted,
    ObjectionDecided,
    RepairRefused,
    RepairRevoked,
    SupplementRequested,
)
from contracts.records import DisplayState, RecordContent

_CITIZENS_AT_ONCE = 16
_PAGE_ROWS = 2_000
_EXAMPLES = 5
_ENDED_AS = {"granted": "repaired", "refused": "refused", "revoked": "revoked", "withdrawn": "withdrawn"}
_ONCE = (
    *("submitted", "referred", "routed", "accepted", "granted", "refused", "revoked", "completed"),
    *("supplement_requested", "supplemented", "supplement_received", "withdrawal_requested", "withdrawn"),
)

_REMINDED = re.compile(r"^- 事项 (itm_[0-9a-f]{32})：", re.MULTILINE)
_CLOCK_JUMP = timedelta(minutes=3)
"""How wrong the clock of a service may be during a run, and a little more."""

Key = tuple[str, str]
"""Of a record at a target: subject code, 文号."""


@dataclass(frozen=True)
class Finding:
    """One invariant: how many things were looked at, and what breaks it."""

    name: str
    title: str
    checked: int
    broken: list[str]

    def __str__(self) -> str:
        examples = "".join(f"\n      {each}" for each in self.broken[:_EXAMPLES])
        return f"{'ok    ' if not self.broken else 'BROKEN'} {self.name}: {self.title} ({self.checked:,} looked at, {len(self.broken):,} broken){examples}"


@dataclass
class Evidence:
    """All that can be seen from outside, after the drain."""

    applications: dict[str, Document]
    shown: dict[str, dict[Key, Document]]
    """Target -> record -> what it shows."""
    log: dict[str, list[Document]]
    """Target -> what it was told and did, in order."""
    cases: dict[str, list[Document]]
    """Department with a system of its own -> its cases."""
    mails: list[Document]
    objections: list[Document]
    """As those who objected see them."""


async def gather_evidence(world: World, citizens: Citizens, population: Population) -> Evidence:
    """Ask everybody."""
    http, slots = Persistent(world), asyncio.Semaphore(_CITIZENS_AT_ONCE)

    async def application(application_id: str, company: Company) -> Document:
        url = world.url("intake", f"/v1/applications/{application_id}")
        async with slots:
            answer = await http.ask("GET", url, company.token)
        return (
            {"status": f"HTTP {answer.status}", "items": [], "timeline": []}
            if answer.status >= 400
            else answer.body
        )

    async def objections(company: Company) -> list[Document]:
        async with slots:
            answer = await http.ok("GET", world.url("intake", "/v1/objections"), company.token)
        return list(answer["objections"])

    async def pages(path: str, part: str | None, position: str) -> list[Document]:
        rows: list[Document] = []
        while True:
            after = rows[-1][position] if rows else 0
            answer = await http.ok("GET", world.url("sandbox", f"{path}?after={after}&limit={_PAGE_ROWS}"))
            page = answer[part] if part else answer
            rows += page
            if len(page) < _PAGE_ROWS:
                return rows

    targets = [t.id for t in world.catalogue.targets if t.protocol is not Protocol.LETTER]
    filed = citizens.acknowledged
    views = await asyncio.gather(*(application(*each) for each in filed.items()))
    return Evidence(
        applications=dict(zip(filed, views, strict=True)),
        shown={
            target: {
                _key(row): row for row in await pages(f"/targets/{target}/sandbox/records", "records", "seq")
            }
            for target in targets
        },
        log={target: await pages(f"/targets/{target}/sandbox/log", "pushes", "seq") for target in targets},
        cases={slug: await pages(f"/departments/{slug}/cases", None, "number") for slug in API},
        mails=await pages("/mail", None, "id"),
        objections=[
            each for found in await asyncio.gather(*map(objections, population.objecting())) for each in found
        ],
    )


def _key(row: Mapping[str, Any]) -> Key:
    return row["subject_code"], row["document_number"]


class Judge:
    """Compares the evidence with what was acknowledged and decided."""

    def __init__(
        self,
        population: Population,
        citizens: Citizens,
        officers: Officers,
        objections: Objections,
        evidence: Evidence,
    ) -> None:
        self.evidence = evidence
        self._population = population
        self._citizens = citizens
        self._officers = officers
        self._objections = objections
        self._item_of = {record.record_id: item_id for item_id, record in citizens.items.items()}
        self._cases: dict[str, list[Document]] = defaultdict(list)
        for slug, cases in evidence.cases.items():
            for case in cases:
                self._cases[case["item_id"]].append({**case, "slug": slug})
        self._lines = {target: _by_record(lines) for target, lines in evidence.log.items()}

    def findings(self) -> list[Finding]:
        """Every invariant."""
        return [
            self._all_answered(),
            self._nothing_lost(),
            self._as_decided(),
            self._objections_ended(),
            self._targets_right(),
            self._content_right(),
            self._one_effect(),
            self._never_back(),
            self._told_the_truth(),
            self._told_once(),
            self._one_case(),
            self._mails(),
        ]

    # --- what is true

    def decided(self, item_id: str) -> list[str]:
        """What those responsible decided on an item, in order. Withdrawn: its citizen did, before anybody had decided."""
        if self._citizens.items[item_id].slug in API:
            return outcomes(self._cases[item_id])
        before = ["withdrawn"] if item_id in self._citizens.withdrawn else []
        return self._officers.decided.get(item_id, before)

    def wanted(self, record: Record) -> DisplayState:
        """What every target has to show of a record."""
        item_id = self._item_of.get(record.record_id)
        ended = item_id is not None and self.decided(item_id)[-1:] == ["granted"]
        return DisplayState.PUBLICATION_ENDED if ended else DisplayState.PUBLISHED

    def waiting(self) -> Counter[str]:
        """Items that wait, by whom they wait for."""
        return Counter(
            f"{item['queue_name']} until {item['queue_due_on']}"
            for view in self.evidence.applications.values()
            for item in view["items"]
            if item["status"] == "referred"
        )

    def converged(self) -> dict[str, tuple[int, int]]:
        """By target: records shown right, of how many of the categories it shows."""
        records = [
            (self._at_target(record), self.wanted(record)) for record in self._population.records.values()
        ]
        right = {
            target: [shown[key]["state"] == state for key, state in records if key in shown]
            for target, shown in self.evidence.shown.items()
        }
        return {target: (sum(rows), len(rows)) for target, rows in right.items()}

    def _at_target(self, record: Record) -> Key:
        return self._population.owners[record.record_id].code, record.document_number

    # --- invariants

    def _all_answered(self) -> Finding:
        filed = {company.code for company in self._citizens.acknowledged.values()}
        broken = [f"{c.name}: never acknowledged" for c in self._population.companies if c.code not in filed]
        doubled = Counter(company.code for company in self._citizens.acknowledged.values())
        broken += [
            f"{code}: {number} applications for one key" for code, number in doubled.items() if number > 1
        ]
        broken += self._citizens.refused
        for people in (self._citizens, self._officers, self._objections):
            broken += people.works.problems
        title = "every application is taken in the end, once, and nobody is refused what is right"
        return Finding("answered", title, len(self._population.companies), broken)

    def _nothing_lost(self) -> Finding:
        broken = []
        for application_id, company in self._citizens.acknowledged.items():
            view = self.evidence.applications[application_id]
            got = {item["record_id"] for item in view["items"]}
            if got != {record.record_id for record in company.records}:
                broken.append(
                    f"{application_id}: {view['status']}, {len(got)} of {len(company.records)} records"
                )
        title = "every acknowledged application is there with all its records"
        return Finding("nothing-lost", title, len(self._citizens.acknowledged), broken)

    def _as_decided(self) -> Finding:
        broken = []
        for application_id, view in self.evidence.applications.items():
            open_items = 0
            for item in view["items"]:
                fault = self._item_fault(item)
                open_items += self._citizens.items[item["item_id"]].department is None
                if fault:
                    broken.append(f"{application_id} {item['item_id']}: {fault}")
            expected = "open" if open_items else "completed"
            if view["status"] != expected:
                broken.append(f"{application_id}: {view['status']}, should be {expected}")
        title = "every item ended as its department decided, or waits for a named party with a deadline"
        return Finding("ended-as-decided", title, len(self._citizens.items), broken)

    def _item_fault(self, item: Document) -> str | None:
        record = self._citizens.items[item["item_id"]]
        if record.department is None:
            waits = item["status"] == "referred" and item["queue_name"] and item["queue_due_on"]
            return None if waits else f"{item['status']}, should wait in the human queue"
        decided = self.decided(item["item_id"])
        if not decided:
            return f"{item['status']}: nobody has decided at {record.department}"
        expected = _ENDED_AS[decided[-1]]
        if expected == "withdrawn" and item["item_id"] not in self._citizens.withdrawn:
            return "refused as withdrawn, which nobody had asked for"
        return (
            None
            if item["status"] == expected
            else f"{item['status']}, but {record.department} decided {decided}"
        )

    def _objections_ended(self) -> Finding:
        filed = self._objections.filed
        seen = {each["objection_id"]: each["status"] for each in self.evidence.objections}
        broken = [f"{each}: nobody was told that it was filed" for each in seen.keys() - filed.keys()]
        times = Counter(filed.values())
        broken += [
            f"{each}: {times[each]} objections to it"
            for each in self._population.objections
            if times[each] != 1
        ]
        for objection_id, record_id in filed.items():
            status, expected = seen.get(objection_id, "missing"), self._objections.ended_as(objection_id)
            if status != expected:
                broken.append(f"{objection_id} to {record_id}: {status}, should be {expected}")
        title = "every objection ended as an officer decided, or as its citizen took it back"
        return Finding("objections-ended", title, len(self._population.objections), broken)

    def _targets_right(self) -> Finding:
        broken, checked = [], 0
        for record in self._population.records.values():
            wanted, key = self.wanted(record), self._at_target(record)
            for target, shown in self.evidence.shown.items():
                if key not in shown:  # of a category it does not show: what it was given once it never loses
                    continue
                checked += 1
                state = shown[key]["state"]
                if state != wanted:
                    item_id = self._item_of.get(record.record_id, "never applied for")
                    broken.append(
                        f"{target} {record.record_id} ({item_id}): shows {state}, decided was {wanted}"
                    )
        title = "every target shows of every record what was decided last"
        return Finding("targets-right", title, checked, broken)

    def _content_right(self) -> Finding:
        broken, checked = [], 0
        corrected = self._population.corrected | self._objections.corrected
        for record_id, content in self._population.as_corrected(corrected).items():
            key = self._at_target(self._population.records[record_id])
            for target, shown in self.evidence.shown.items():
                row = shown.get(key)
                if row is None or row["state"] != DisplayState.PUBLISHED:
                    continue
                checked += 1
                if row["content"] is None or RecordContent.model_validate_json(row["content"]) != content:
                    broken.append(f"{target} {key}: reads {row['content']}, corrected to {content}")
        title = "wherever a corrected record is shown, it reads as corrected"
        return Finding("content-right", title, checked, broken)

    def _one_effect(self) -> Finding:
        broken, checked = [], 0
        for target, records in self._lines.items():
            for key, lines in records.items():
                effective: set[int] = set()
                for line in lines:
                    if line["cause"] != "push":
                        effective.clear()
                    elif line["effect"]:
                        checked += 1
                        if line["version"] in effective:
                            broken.append(f"{target} {key}: version {line['version']} took effect twice")
                        effective.add(line["version"])
        return Finding("one-effect", "a version takes effect at a target once", checked, broken)

    def _never_back(self) -> Finding:
        broken, checked = [], 0
        for target, records in self._lines.items():
            for key, lines in records.items():
                highest = 0
                for line in lines:
                    if line["cause"] != "push":
                        highest = 0
                    elif line["effect"]:
                        checked += 1
                        if line["version"] < highest:
                            broken.append(f"{target} {key}: version {line['version']} after {highest}")
                        highest = max(highest, line["version"])
        title = "no older decision takes effect after a newer one, but by the target's own doing"
        return Finding("never-back", title, checked, broken)

    def _told_the_truth(self) -> Finding:
        broken, checked = [], 0
        for application_id, view in self.evidence.applications.items():
            told: Counter[tuple[str, Key, int]] = Counter()
            for entry in view["timeline"]:
                if not entry["type"].startswith("target_"):
                    continue
                checked += 1
                target, version = entry["facts"]["target_id"], entry["facts"]["version"]
                key = self._at_target(self._citizens.items[entry["item_id"]])
                lines = self._lines[target].get(key, [])
                if entry["type"] == "target_drifted":
                    true = any(line["cause"] != "push" or line["held"] for line in lines)
                else:
                    told[target, key, version] += entry["type"] == "target_acknowledged"
                    answers = sum(
                        line["status"] == "applied" and line["version"] == version for line in lines
                    )
                    true = answers >= max(told[target, key, version], 1)
                if not true:
                    broken.append(
                        f"{application_id} {target} {key}: told {entry['type']} of version {version}"
                    )
        title = "what is told of a target has happened there, each acknowledgement by an answer of its own"
        return Finding("told-the-truth", title, checked, broken)

    def _told_once(self) -> Finding:
        broken, checked = [], 0
        for application_id, view in self.evidence.applications.items():
            told = Counter((e["item_id"], e["type"]) for e in view["timeline"] if e["type"] in _ONCE)
            checked += len(told)
            broken += [
                f"{application_id} {what}: told {number} times" for what, number in told.items() if number > 1
            ]
            if [e["seq"] for e in view["timeline"]] != list(range(1, len(view["timeline"]) + 1)):
                broken.append(f"{application_id}: its timeline has gaps")
        return Finding("told-once", "every step of an item is told once", checked, broken)

    def _one_case(self) -> Finding:
        expected = Counter(
            (item_id, record.slug) for item_id, record in self._citizens.items.items() if record.slug in API
        )
        found = Counter((item_id, case["slug"]) for item_id, cases in self._cases.items() for case in cases)
        broken = [
            f"{item_id}: {found[item_id, slug]} cases at {slug}"
            for item_id, slug in expected
            if found[item_id, slug] != 1
        ]
        broken += [
            f"{item_id}: a case at {slug} that nobody applied for"
            for item_id, slug in found.keys() - expected.keys()
        ]
        broken += [
            f"{callback['webhook_id']}: answered {callback['last_status']}"
            for cases in self._cases.values()
            for case in cases
            for callback in case["callbacks"]
            if callback["last_status"] != 200
        ]
        title = "a department gets every item once, and its word is taken"
        return Finding("one-case", title, len(expected), broken)

    def _mails(self) -> Finding:
        expected = set(self._expected_mails())
        found = Counter(
            (mail["message_id"].strip("<>").rpartition("@")[0], to)
            for mail in self.evidence.mails
            for to in mail["recipients"]
        )
        began = {
            entry["item_id"]: datetime.fromisoformat(entry["at"])
            for view in self.evidence.applications.values()
            for entry in reversed(view["timeline"])
        }
        holders = {item_id: record.department for item_id, record in self._citizens.items.items()}
        reminders = {each for each in found if _is_reminder(each[0])}
        broken = [f"{fact} to {to}: missing" for fact, to in expected - found.keys()]
        broken += [
            f"{fact} to {to}: nobody should be told" for fact, to in found.keys() - expected - reminders
        ]
        broken += misguided(self.evidence.mails, holders, began, load_catalogue())
        broken += [f"{fact} to {to}: {number} mails" for (fact, to), number in found.items() if number > 1]
        title = "every fact that is mailed is one mail to the right mailbox (repeats of its Message-ID apart)"
        return Finding("one-mail", title, len(expected), broken)

    def _expected_mails(self) -> Iterator[tuple[str, str]]:
        mailed = {"refused": RepairRefused.TYPE, "revoked": RepairRevoked.TYPE}
        for application_id, company in self._citizens.acknowledged.items():
            yield f"{ApplicationSubmitted.TYPE}~{application_id}", company.email
            if all(record.department for record in company.records):
                yield f"{ApplicationCompleted.TYPE}~{application_id}", company.email
        for item_id, record in self._citizens.items.items():
            email = self._population.owners[record.record_id].email
            if item_id in self._officers.asked:
                yield f"{SupplementRequested.TYPE}~{item_id}", email
            for outcome in self.decided(item_id):
                if outcome in mailed:
                    yield f"{mailed[outcome]}~{item_id}", email
        for objection_id, record_id in self._objections.filed.items():
            if self._objections.ended_as(objection_id) != "withdrawn":
                yield f"{ObjectionDecided.TYPE}~{objection_id}", self._population.owners[record_id].email


def _is_reminder(fact: str) -> bool:
    return fact.startswith("reminders~")


def misguided(
    mails: Iterable[Document],
    holders: Mapping[str, str | None],
    began: Mapping[str, datetime],
    catalogue: Catalogue,
) -> Iterator[str]:
    """What is wrong with reminders: they come to the department that has the item, on a later day (in China) than it ``began``, and once
    a day. A run that lasts over midnight sees some.
    """
    named: Counter[tuple[str, str]] = Counter()
    for mail in mails:
        if not _is_reminder(mail["message_id"].strip("<>")):
            continue
        came = datetime.fromisoformat(mail["first_received_at"])
        for item_id in _REMINDED.findall(mail["text"]) or ["nothing"]:
            department = catalogue.by_slug(holders.get(item_id) or "")
            named[item_id, china_date(came).isoformat()] += 1
            if department is None or mail["recipients"] != [department.contact_email]:
                yield f"{item_id}: {mail['recipients']} is reminded of what is not theirs"
            elif china_date(began.get(item_id, came) - _CLOCK_JUMP) >= china_date(came + _CLOCK_JUMP):
                yield f"{item_id}: {mail['recipients']} is reminded on the day it came"
    for (item_id, day), times in named.items():
        if times > 1:
            yield f"{item_id}: reminded {times} times on {day}"


def _by_record(lines: Iterable[Document]) -> dict[Key, Sequence[Document]]:
    found: dict[Key, list[Document]] = defaultdict(list)
    for line in lines:
        found[_key(line)].append(line)
    return dict(found)
