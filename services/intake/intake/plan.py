"""In which order the records of a subject are repaired: what goes first, what beside it, what has to wait until when. Pure."""

from collections.abc import Mapping, Sequence
from datetime import date

from contracts.catalogue import Catalogue
from contracts.http.eligibility import Plan, PlannedRecord, PlanStep, Transition
from intake.domain.record import Record
from intake.eligibility import applicable, assess


def prerequisites(
    records: Sequence[Record], catalogue: Catalogue, on: date, transition: Transition
) -> dict[str, tuple[str, ...]]:
    """Record id -> ids of those of ``records`` that have to be granted before it, by the conditions of the rules that may hold.

    A rule that asks for "on no such list" (国市监信规〔2021〕3号 第六条) puts the subject's records on that list first. There are no
    circles: a catalogue with one is not loaded.
    """
    by_category: dict[str, list[str]] = {}
    for record in records:
        by_category.setdefault(record.facts.category, []).append(record.record_id)
    found: dict[str, tuple[str, ...]] = {}
    for record in records:
        lists = {
            condition.list_category
            for rule in applicable(record, catalogue, on, transition)
            for condition in catalogue.conditions_of(rule)
            if condition.list_category
        }
        found[record.record_id] = tuple(i for each in sorted(lists) for i in by_category.get(each, ()))
    return found


def plan(records: Sequence[Record], catalogue: Catalogue, on: date, transition: Transition) -> Plan:
    """The steps for those that may be applied for on that day, each step after the one before; then the others, the earliest first."""
    assessed = {record.record_id: assess(record, catalogue, on, transition) for record in records}
    ready = [record for record in records if assessed[record.record_id].status.may_apply]
    later = [record for record in records if not assessed[record.record_id].status.may_apply]
    later.sort(key=lambda record: assessed[record.record_id].from_ or date.max)
    first = prerequisites(ready, catalogue, on, transition)

    def planned(record: Record) -> PlannedRecord:
        category = catalogue.category(record.facts.category)
        return PlannedRecord(
            record_id=record.record_id,
            document_number=record.facts.document_number,
            category_name=category.name if category else record.facts.category,
            authority_name=record.facts.authority_name,
            after=[*first.get(record.record_id, ())],
            repair=assessed[record.record_id],
        )

    steps: dict[int, list[PlannedRecord]] = {}
    for record in ready:
        steps.setdefault(_step(record.record_id, first), []).append(planned(record))
    return Plan(
        on=on,
        steps=[PlanStep(step=number, records=steps[number]) for number in sorted(steps)],
        later=[planned(record) for record in later],
    )


def _step(record_id: str, first: Mapping[str, Sequence[str]]) -> int:
    return 1 + max((_step(other, first) for other in first[record_id]), default=0)
