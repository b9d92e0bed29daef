"""The expert pool (信用修复专家库): a panel for a complex or disputed item. It advises; the department decides. Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Literal

from contracts.catalogue import Expert
from contracts.working_days import Count

Vote = Literal["grant", "refuse"]


@dataclass(frozen=True)
class Opinion:
    """What one expert holds, and why."""

    expert_id: str
    vote: Vote
    text: str
    given_at: datetime


@dataclass(frozen=True)
class Panel:
    """An odd number of experts for one item. ``excluded``: expert id -> why that expert was not, or is no longer, drawn (zh-CN);
    ``count``: how ``due_on`` was counted.
    """

    item_id: str
    department_code: str
    subject_id: str
    question: str
    referred_by: str
    experts: tuple[str, ...]
    due_on: date
    referred_at: datetime
    opinions: tuple[Opinion, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    count: Count | None = None

    def is_over(self, today: date) -> bool:
        """Whether the day for opinions has passed; a provisional day has not."""
        return today > self.due_on and (self.count is None or self.count.missing_year is None)

    @property
    def is_complete(self) -> bool:
        """Whether everybody has spoken."""
        return {opinion.expert_id for opinion in self.opinions} >= set(self.experts)


class TooFewExpertsError(ValueError):
    """Not enough experts without a conflict. The message (zh-CN) can be shown."""


def conflicts(
    pool: Iterable[Expert], department_code: str, prior: Iterable[str], declared: Mapping[str, str]
) -> dict[str, str]:
    """Expert id -> why that expert may not be drawn: own department, an earlier case of the same subject, or declared."""
    before = set(prior)
    found: dict[str, str] = {}
    for expert in pool:
        if expert.id in declared:
            found[expert.id] = declared[expert.id]
        elif expert.organisation == department_code:
            found[expert.id] = "属于作出认定的部门"
        elif expert.id in before:
            found[expert.id] = "曾评审同一主体的事项"
    return found


def draw(
    pool: Sequence[Expert], excluded: Mapping[str, str], number: int, seed: str, kept: Sequence[str] = ()
) -> tuple[str, ...]:
    """``number`` experts without a conflict, those of ``kept`` first. The same ``seed`` draws the same: anybody can check it.

    Raises TooFewExpertsError.
    """
    eligible = [expert.id for expert in pool if expert.id not in excluded]
    order = sorted(eligible, key=lambda id_: hashlib.sha256(f"{seed}:{id_}".encode()).digest())
    chosen = [id_ for id_ in kept if id_ in eligible]
    chosen += [id_ for id_ in order if id_ not in chosen][: number - len(chosen)]
    if len(chosen) < number:
        raise TooFewExpertsError(
            f"没有利益冲突的专家只有{len(chosen)}名，不足{number}名，请补充专家库后再提交评审。"
        )
    return tuple(chosen[:number])


def give(panel: Panel, opinion: Opinion) -> Panel:
    """The panel with an opinion; a second one of the same expert changes nothing."""
    if any(given.expert_id == opinion.expert_id for given in panel.opinions):
        return panel
    return replace(panel, opinions=(*panel.opinions, opinion))


def redraw(panel: Panel, pool: Sequence[Expert], excluded: Mapping[str, str]) -> Panel:
    """Without those who now have a conflict, and others in their place. Raises TooFewExpertsError."""
    kept = [id_ for id_ in panel.experts if id_ not in excluded]
    experts = draw(pool, excluded, len(panel.experts), panel.item_id, kept)
    opinions = tuple(opinion for opinion in panel.opinions if opinion.expert_id in experts)
    return replace(panel, experts=experts, opinions=opinions, excluded=dict(excluded))


@dataclass(frozen=True)
class Outcome:
    """What a panel holds once everybody has spoken, or its day is over. ``majority`` None: none, too few spoke."""

    votes: Mapping[Vote, int]
    majority: Vote | None
    dissent: tuple[Opinion, ...]
    silent: tuple[str, ...]


def outcome(panel: Panel, today: date) -> Outcome | None:
    """None while opinions are awaited. A majority is one of all who were drawn, not of those who spoke."""
    if not panel.is_complete and not panel.is_over(today):
        return None
    votes = Counter(opinion.vote for opinion in panel.opinions)
    majority = next((vote for vote, number in votes.items() if number * 2 > len(panel.experts)), None)
    spoke = {opinion.expert_id for opinion in panel.opinions}
    return Outcome(
        votes=dict(votes),
        majority=majority,
        dissent=tuple(o for o in panel.opinions if majority and o.vote != majority),
        silent=tuple(id_ for id_ in panel.experts if id_ not in spoke),
    )
