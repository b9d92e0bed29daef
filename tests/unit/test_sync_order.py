"""Who is told after whom, receipts that come late, and letters: sync's pure decisions for targets that are not simply pushed to."""

from dataclasses import replace
from datetime import timedelta

import pytest
from unit.target_samples import KEY, policy
from unit.test_sync_domain import RECORD_ID, START, granted, revoked
from unit.test_sync_properties import changed, expiry

from contracts.clock import china_date
from contracts.events import (
    PropagationCompleted,
    PublicationChange,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
)
from contracts.http.target import RecordView, RepairResult, RepairStatus
from contracts.records import DisplayState
from contracts.working_days import LIBRARY_CALENDAR
from sync.desired import Record, idempotency_key, on_change, on_decision, on_expiry, parse_idempotency_key
from sync.domain import (
    Action,
    Delivery,
    after_letter,
    after_push,
    after_read_back,
    after_sending,
    after_visit,
    clocked,
    complete,
    hold,
    join,
    next_action,
    reading_of,
    redirect,
    release,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
POLICIES = {
    "nation": policy("nation", time_limit_working_days=3),
    "vendor": policy("vendor", after=("nation",)),
    "later": policy("later", receipt_wait=timedelta(seconds=60), reads_back=False),
    "fetcher": policy("fetcher", fetches=True),
    "paper": policy("paper", by_letter=True, reads_back=False),
}


def decided(*targets: str, before: Record | None = None, revoke: bool = False) -> Record:
    event = revoked(1) if revoke else granted(1)
    record = on_decision(before, event, targets, POLICIES, {})
    assert record is not None
    return record


def delivery(target: str, record: Record, before: Delivery | None = None) -> Delivery:
    clocks = clocked(redirect(before, record, target, START), POLICIES[target], START)
    return hold(clocks, record, POLICIES, START)


def answer(target: str, status: RepairStatus, version: int = 1) -> RepairResult:
    return RepairResult(idempotency_key=idempotency_key(target, RECORD_ID, version), status=status)


def test_a_vendor_is_told_once_the_nation_has_acknowledged_and_never_waits_beyond_its_time_limit() -> None:
    record = decided("nation", "vendor")
    nation, vendor = delivery("nation", record), delivery("vendor", record)
    assert nation.next_action_at == START
    assert vendor.waits_for == ("nation",)
    last_day = LIBRARY_CALENDAR.working_days_after(china_date(START), 3).on
    assert vendor.next_action_at is not None
    assert china_date(vendor.next_action_at - timedelta(seconds=1)) == last_day
    assert china_date(vendor.next_action_at) > last_day
    assert nation.due_on == last_day
    assert vendor.due_on is not None
    assert vendor.due_on > LIBRARY_CALENDAR.working_days_after(last_day, 2).on, "counted from when it is told"
    assert next_action(vendor) is Action.PUSH, "told all the same, once the limit has passed"
    acknowledged, events = after_push(
        nation, record, answer("nation", RepairStatus.APPLIED), POLICIES["nation"], START + HOUR
    )
    assert [type(event) for event in events] == [TargetAcknowledged]
    freed = release(vendor, "nation", acknowledged.desired_version, START + HOUR)
    assert freed is not None
    assert (freed.waits_for, freed.next_action_at) == ((), START + HOUR)
    assert release(freed, "nation", 1, START + HOUR) is None
    assert release(vendor, "nation", 2, START + HOUR) is None, "of another decision"
    # told before its turn, the limit having passed: the late word of the nation changes no plan
    told, _ = after_push(
        vendor, record, answer("vendor", RepairStatus.APPLIED), POLICIES["vendor"], START + HOUR
    )
    late = release(told, "nation", 1, START + 2 * HOUR)
    assert late is not None
    assert late.next_action_at == told.next_action_at


def test_nobody_waits_for_a_target_that_does_not_show_the_record_or_told_it_itself() -> None:
    assert delivery("vendor", decided("vendor")).next_action_at == START
    recognised = replace(decided("nation", "vendor"), source="nation")
    assert delivery("vendor", recognised).waits_for == ()
    # a newer decision is held back anew
    first = decided("nation", "vendor")
    second = decided("nation", "vendor", before=first, revoke=True)
    again = delivery("vendor", second, delivery("vendor", first))
    assert (again.waits_for, again.desired_version) == (("nation",), 2)


def test_what_is_only_received_is_told_again_without_a_receipt_and_a_receipt_counts_as_an_answer() -> None:
    record = decided("later")
    received = answer("later", RepairStatus.RECEIVED)
    sent, events = after_push(delivery("later", record), record, received, POLICIES["later"], START)
    assert (sent.sent_version, sent.acknowledged_version, events) == (1, 0, ())
    assert sent.next_action_at == START + timedelta(seconds=60)
    assert next_action(sent) is Action.PUSH
    again, _ = after_push(sent, record, received, POLICIES["later"], START + HOUR)
    assert (again.attempts, again.last_error) == (1, "no receipt in time: pushed again")
    done, events = after_push(again, record, answer("later", RepairStatus.APPLIED), POLICIES["later"], START)
    assert [type(event) for event in events] == [TargetAcknowledged]
    # the answer 202 is taken in after the receipt: it changes nothing
    assert after_push(done, record, received, POLICIES["later"], START) == (done, ())
    # a refusal in the receipt is pushed again by the backoff, and is no missing receipt
    refused, _ = after_push(sent, record, answer("later", RepairStatus.REJECTED), POLICIES["later"], START)
    after, _ = after_push(refused, record, received, POLICIES["later"], START)
    assert (after.sent_version, after.last_error) == (1, None)


def test_a_receipt_of_an_older_version_and_a_promise_nobody_agreed_on_change_nothing() -> None:
    first = decided("nation")
    second = decided("nation", before=first, revoke=True)
    redirected = delivery("nation", second, delivery("nation", first))
    assert after_push(
        redirected, first, answer("nation", RepairStatus.APPLIED), POLICIES["nation"], START
    ) == (
        redirected,
        (),
    )
    promised, _ = after_push(
        redirected, second, answer("nation", RepairStatus.RECEIVED, 2), POLICIES["nation"], START
    )
    assert promised.sent_version == 0
    assert promised.next_action_at is not None
    assert "no receipts are agreed" in (promised.last_error or "")


def test_what_lies_in_a_list_waits_for_the_target_and_comes_again_after_a_drift() -> None:
    record = decided("fetcher")
    fetcher = POLICIES["fetcher"]
    listed, _ = after_push(
        delivery("fetcher", record), record, answer("fetcher", RepairStatus.RECEIVED), fetcher, START
    )
    assert listed.next_action_at is None
    taken, _ = after_push(listed, record, answer("fetcher", RepairStatus.APPLIED), fetcher, START)
    shown = RecordView(record=KEY, state=DisplayState.PUBLISHED)
    drifted, events = after_read_back(taken, record, shown, fetcher, START)
    assert [type(event) for event in events] == [TargetDrifted]
    reading = reading_of(drifted, events, "0" * 64)
    assert reading is not None
    assert (reading.right, reading.drifts, reading.seen_state) == (False, 1, DisplayState.PUBLISHED)
    assert reading_of(taken, (), "0" * 64) is None
    assert (next_action(drifted), drifted.sent_version) == (Action.PUSH, 0)
    again, _ = after_push(drifted, record, answer("fetcher", RepairStatus.RECEIVED), fetcher, START)
    assert again.next_action_at is None


def test_letters_are_never_pushed_and_nobody_waits_for_them() -> None:
    record = decided("nation", "paper")
    paper = delivery("paper", record)
    assert (paper.next_action_at, paper.differs_since) == (START, START), "a letter is to be drafted"
    nation, _ = after_push(
        delivery("nation", record), record, answer("nation", RepairStatus.APPLIED), POLICIES["nation"], START
    )
    ended = RecordView(record=KEY, state=DisplayState.PUBLICATION_ENDED)
    nation, _ = after_read_back(nation, record, ended, POLICIES["nation"], START)
    completed, events = complete(record, [nation, paper], POLICIES, START)
    assert completed.completed_version == 1
    (told,) = events
    assert isinstance(told, PropagationCompleted)
    assert told.target_ids == ("nation",)
    assert paper.due_on is None, "no letter has told it yet"
    sent = after_sending(paper, record, POLICIES["paper"], START + HOUR, START + 9 * DAY)
    assert (sent.sent_version, sent.next_action_at) == (1, START + 9 * DAY)
    assert sent.due_on == LIBRARY_CALENDAR.working_days_after(china_date(START + HOUR), 3).on
    again = after_sending(sent, record, POLICIES["paper"], START + 9 * DAY, None)
    assert (again.due_on, again.next_action_at) == (sent.due_on, None), (
        "the first letter has started the clock"
    )
    done, events = after_letter(sent, record, POLICIES["paper"], START + HOUR)
    assert [type(event) for event in events] == [TargetAcknowledged]
    assert (done.differs_since, done.due_on, done.next_action_at) == (None, None, None)
    assert after_letter(done, record, POLICIES["paper"], START + HOUR) == (done, ())
    assert after_sending(done, record, POLICIES["paper"], START, START) == done
    assert after_letter(nation, record, POLICIES["nation"], START) == (nation, ()), "it is pushed to"


def test_whoever_is_told_by_letter_hears_of_a_shield_and_of_its_end_but_of_a_period_that_passed_only_if_told_before() -> (
    None
):
    expired = on_expiry(None, expiry(1), ["nation", "paper"], POLICIES, {})
    assert expired is not None
    assert expired.targets == ("nation",)
    assert on_expiry(None, expiry(1), ["paper"], POLICIES, {}) is None
    shielded = on_change(None, changed(1, 1, PublicationChange.SHIELDED), ["paper"], POLICIES, {})
    assert shielded is not None
    paper = delivery("paper", shielded)
    assert (paper.next_action_at, paper.differs_since) == (START, START), "a letter is to be drafted"
    over = on_expiry(shielded, expiry(1), ["nation", "paper"], POLICIES, {})
    assert over is not None
    assert over.targets == ("nation", "paper")
    failed = on_change(shielded, changed(1, 2, PublicationChange.PLAN_FAILED), ["paper"], POLICIES, {})
    assert failed is not None
    assert (failed.version, failed.state, failed.targets) == (2, DisplayState.PUBLISHED, ("paper",))
    assert join(shielded, "paper", {}, POLICIES, START) is not None
    for nothing_to_hide in (failed, expired):
        assert join(nothing_to_hide, "paper", {}, POLICIES, START) is None


def test_what_a_person_saw_counts_where_nobody_else_can_look() -> None:
    record = decided("paper", "later", "nation")
    paper, policy_ = delivery("paper", record), POLICIES["paper"]
    still, events = after_visit(paper, record, DisplayState.PUBLISHED, START + HOUR, policy_, START + HOUR)
    assert (still.seen_state, still.seen_at, events) == (DisplayState.PUBLISHED, START + HOUR, ())
    assert still.next_action_at == START, "what is to be done about it stays"
    right, events = after_visit(still, record, None, START + 2 * HOUR, policy_, START + 3 * HOUR)
    assert [type(event) for event in events] == [TargetVerified]
    assert (right.acknowledged_version, right.seen_version, right.differs_since) == (1, 1, None)
    reading = reading_of(right, events, "0" * 64)
    assert reading is not None
    assert reading.right
    old = after_visit(right, record, DisplayState.PUBLISHED, START + HOUR, policy_, START + 4 * HOUR)
    assert old == (right, ()), "an older look than the last one"
    assert after_visit(right, record, None, START + 5 * HOUR, policy_, START + 5 * HOUR)[1] == ()
    gone, events = after_visit(right, record, DisplayState.PUBLISHED, START + DAY, policy_, START + DAY)
    assert [type(event) for event in events] == [TargetDrifted]
    assert (gone.drifts, gone.differs_since, gone.next_action_at) == (1, START + DAY, START + DAY)
    assert (gone.acknowledged_version, gone.sent_version, gone.due_on) == (0, 0, None)
    pushed, _ = after_push(
        delivery("later", record), record, answer("later", RepairStatus.APPLIED), POLICIES["later"], START
    )
    wrong, _ = after_visit(
        pushed, record, DisplayState.PUBLISHED, START + DAY, POLICIES["later"], START + DAY
    )
    assert (next_action(wrong), wrong.next_action_at) == (Action.PUSH, START + DAY)
    nation = delivery("nation", record)
    assert after_visit(nation, record, None, START + DAY, POLICIES["nation"], START + DAY) == (nation, ())


@pytest.mark.parametrize("key", ["", "a:b", "a:b:c", "a:b:-1", "a:b:²", "x"])
def test_what_is_no_key_of_ours_is_not_read_as_one(key: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_idempotency_key(key)
    assert parse_idempotency_key(idempotency_key("t", RECORD_ID, 12)) == ("t", RECORD_ID, 12)
