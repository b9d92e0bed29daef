"""A ban for false material in force: the plan and the guide say until when, and offer nothing before it ends."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import load_catalogue
from contracts.http.eligibility import RepairStatus, Transition
from contracts.http.guide import RecordGroup
from contracts.records import DepartmentRef, RecordFacts, SubjectType
from intake.domain.record import Record
from intake.findings import Finding, barred_plan
from intake.guide import subject_guide
from intake.plan import plan

CATALOGUE = load_catalogue()
TODAY = date(2026, 11, 26)
SUBJECT = "sub_" + "2" * 32


def record(number: int, decided_on: date) -> Record:
    facts = RecordFacts(
        record_id=f"rec_{number:032x}",
        subject_id=SUBJECT,
        subject_type=SubjectType.LEGAL_PERSON,
        category="administrative_penalty",
        document_number=f"杭教罚〔2026〕{number}号",
        authority_name="杭州市教育局",
        authority_code=None,
        decided_on=decided_on,
        penalty_kinds="吊销许可证件",
        tier="serious",
    )
    return Record(
        record_id=facts.record_id,
        subject_id=SUBJECT,
        facts=facts,
        published_at=datetime(2026, 5, 1, tzinfo=UTC),
    )


def finding(until: date | None) -> Finding:
    return Finding(
        item_id="itm_" + "1" * 32,
        round=0,
        application_id="app_" + "1" * 32,
        subject_id=SUBJECT,
        record_id="rec_" + "f" * 32,
        document_number="杭科罚〔2025〕9号",
        department=DepartmentRef(code="11330100002489591C", slug="hz-kjj", name="杭州市科学技术局"),
        decision_number="市科技局撤销信修〔2026〕1号",
        reason="凭证系伪造",
        statement=False,
        sha256=(),
        until=until,
        found_at=datetime(2026, 6, 1, tzinfo=UTC),
    )


@given(
    st.lists(st.dates(date(2024, 1, 1), date(2026, 11, 25)), min_size=1, max_size=6),
    st.integers(0, 1500),
)
def test_nothing_can_be_applied_for_before_the_ban_ends(decided: list[date], days: int) -> None:
    records = [record(n, day) for n, day in enumerate(decided)]
    found = finding(TODAY + timedelta(days=days))
    assert found.until is not None
    without = plan(records, CATALOGUE, TODAY, Transition.EITHER)
    barred = barred_plan(without, found)
    assert barred.ban is not None
    assert (barred.ban.until, barred.steps) == (found.until, [])
    before = {r.record_id: r for r in (*(r for step in without.steps for r in step.records), *without.later)}
    assert sorted(r.record_id for r in barred.later) == sorted(before)
    for each in barred.later:
        assert not each.repair.status.may_apply
        assert each.repair.from_ is None or each.repair.from_ > found.until
        if before[each.record_id].repair.status.may_apply:
            assert each.repair.status is RepairStatus.BARRED
            assert found.until.isoformat() in each.repair.advice
    guide = subject_guide("甲公司", records, CATALOGUE, TODAY, Transition.EITHER, finding=found)
    assert guide.ban == barred.ban
    assert not {group.group for group in guide.groups} & {
        RecordGroup.TODAY,
        RecordGroup.ADVISED,
        RecordGroup.FIRST_ANOTHER,
    }
    assert "不得申请" in guide.summary


def test_a_finding_that_bars_nobody_changes_nothing() -> None:
    records = [record(1, date(2025, 1, 1))]
    without = plan(records, CATALOGUE, TODAY, Transition.EITHER)
    for none in (None, finding(None)):
        assert barred_plan(without, none) is without
        assert subject_guide("甲", records, CATALOGUE, TODAY, Transition.EITHER, finding=none).ban is None
