"""What data can tell of a review before a person looks (数据智能核验): which conditions, what came of each, whether a person is needed. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

from contracts.catalogue import Catalogue, Source
from contracts.http.source import CheckAnswer, Fact
from contracts.records import SubjectType
from dept_adapter.domain import Review
from dept_adapter.states import State

NOT_CONNECTED = "没有接入能够说明该条件的数据来源，由人工核实。"
NATURAL_PERSON = "自然人的信息不作自动核验，由人工核实。"
NOT_TOLD = "数据来源没有答复该条件，由人工核实。"
UNREACHABLE = "数据来源多次未应答，由人工核实。"


@dataclass(frozen=True)
class Finding:
    """What is known of one condition. ``source``: id, None when no source can tell. ``as_of``: the time of the source's data.

    ``advisory``: no rule asks for it.
    """

    condition: str
    name: str
    fact: Fact | None
    source: str | None
    source_name: str | None
    detail: str
    as_of: datetime | None = None
    advisory: bool = False

    @property
    def is_open(self) -> bool:
        """Whether its source is still to be asked."""
        return self.fact is None


def questions(review: Review, catalogue: Catalogue, connected: frozenset[str], today: date) -> list[Finding]:
    """The conditions of the review's rule, and what connected sources advise of any item; each open, or ``unknown`` where nobody can be asked."""
    record = review.record
    rule = catalogue.rule_for(record.category, record.tier, None, today)
    natural = record.subject_type is SubjectType.NATURAL_PERSON

    def finding(condition: str, name: str, source: Source | None, *, advisory: bool = False) -> Finding:
        if source is None or source.id not in connected:
            return Finding(condition, name, Fact.UNKNOWN, None, None, NOT_CONNECTED)
        if natural:
            return Finding(
                condition, name, Fact.UNKNOWN, source.id, source.name, NATURAL_PERSON, advisory=advisory
            )
        return Finding(condition, name, None, source.id, source.name, "", advisory=advisory)

    asked = (
        [finding(c.id, c.name, catalogue.source_of(c.id)) for c in catalogue.conditions_of(rule)]
        if rule
        else []
    )
    told = [s for s in catalogue.sources if s.id in connected]
    return asked + [finding(each.id, each.name, s, advisory=True) for s in told for each in s.advises]


def answered(
    findings: Sequence[Finding], source: str, answers: Mapping[str, CheckAnswer] | None
) -> list[Finding]:
    """``findings`` with the answers of a source, by condition; None: it could not be reached for so long that a person looks."""

    def settle(finding: Finding) -> Finding:
        if finding.source != source or not finding.is_open:
            return finding
        if answers is None:
            return replace(finding, fact=Fact.UNKNOWN, detail=UNREACHABLE)
        answer = answers.get(finding.condition)
        if answer is None:
            return replace(finding, fact=Fact.UNKNOWN, detail=NOT_TOLD)
        return replace(finding, fact=answer.fact, detail=answer.detail, as_of=answer.as_of)

    return [settle(finding) for finding in findings]


def asked_again(kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored findings after a supplement: what has passed stands, of the rest each is open again that a source can tell."""
    findings = [finding_of(each) for each in kept]
    return [
        asdict(
            replace(each, fact=None, detail="", as_of=None)
            if each.source and each.fact is not Fact.PASS and each.detail != NATURAL_PERSON
            else each
        )
        for each in findings
    ]


def finding_of(kept: Mapping[str, Any]) -> Finding:
    """A finding from what is stored of it (``dataclasses.asdict``)."""
    return Finding(**{**kept, "fact": Fact(kept["fact"]) if kept["fact"] else None})


def all_pass(findings: Sequence[Finding]) -> bool:
    """Whether every condition, one at least that a rule asks for, has passed, and nothing else was found either."""
    asked = any(not finding.advisory for finding in findings)
    return asked and all(finding.fact is Fact.PASS for finding in findings)


def needs_nobody(review: Review, findings: Sequence[Finding], tiers: frozenset[str]) -> bool:
    """Whether a department that lets these tiers through has nothing left to look at."""
    passed = all_pass(findings)
    # once an officer has acted on it, officers finish it
    untouched = review.state in (State.RECEIVED, State.UNDELIVERABLE) and review.supplement is None
    return passed and untouched and review.at_desk and review.record.tier in tiers


def is_sampled(item_id: str, percent: int) -> bool:
    """Whether an automatic decision is looked at afterwards: the same for the same item, nobody can choose."""
    draw = int.from_bytes(hashlib.sha256(f"sample:{item_id}".encode()).digest()[:8], "big")
    return draw % 100 < percent
