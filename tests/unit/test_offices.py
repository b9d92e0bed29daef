"""notify: what offices are told of reminders: to whom, in one mail, and nothing of what an item is about."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from contracts.catalogue import load_catalogue
from contracts.events import (
    Event,
    ObjectionKind,
    ObjectionReferralOverdue,
    ObjectionReminded,
    OfficeNotified,
    ReferralOverdue,
    ReminderLevel,
    ReviewReminded,
    ReviewStep,
)
from contracts.records import DepartmentRef
from notify.offices import OfficeMail, OfficeNotice, Offices, mail_fact
from notify.texts import Texts

CATALOGUE = load_catalogue()
OFFICES = Offices(CATALOGUE)
DEPARTMENT = CATALOGUE.departments[0]
REMINDED = ReviewReminded(
    application_id="app_" + "1" * 32,
    item_id="itm_" + "2" * 32,
    record_id="rec_" + "3" * 32,
    subject_id="sub_" + "4" * 32,
    department=DepartmentRef(code=DEPARTMENT.code, slug=DEPARTMENT.slug, name=DEPARTMENT.name),
    step=ReviewStep.DECIDE,
    level=ReminderLevel.OFFICER,
    due_on=date(2026, 12, 10),
    at_desk=True,
    reminded_at=datetime(2026, 12, 8, 1, tzinfo=UTC),
)

ABOUT = ("application_id", "item_id", "record_id", "subject_id")
QUEUE = {
    "queue_id": CATALOGUE.human_queue.id,
    "queue_name": CATALOGUE.human_queue.name,
    "due_on": date(2026, 12, 7),
    "noticed_at": REMINDED.reminded_at,
}
OVERDUE = ReferralOverdue(**{name: getattr(REMINDED, name) for name in ABOUT}, **QUEUE)
OBJECTION_ID = "obj_" + "5" * 32
OBJECTION = {
    "objection_id": OBJECTION_ID,
    "kind": ObjectionKind.RECORD,
    "application_id": OBJECTION_ID,
    "item_id": OBJECTION_ID,
    **{name: getattr(REMINDED, name) for name in ("record_id", "subject_id")},
}
SAME = ("department", "step", "level", "due_on", "reminded_at")
OBJECTED = ObjectionReminded(**OBJECTION, **{name: getattr(REMINDED, name) for name in SAME})


def notice(**changes: object) -> OfficeNotice:
    found = OFFICES.notice(REMINDED.model_copy(update=changes))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("level", "address"),
    [
        (ReminderLevel.OFFICER, DEPARTMENT.contact_email),
        (ReminderLevel.APPROVER, DEPARTMENT.approver_email),
        (ReminderLevel.SUPERVISOR, CATALOGUE.human_queue.contact_email),
    ],
)
def test_each_level_goes_to_its_own_address_with_item_numbers_alone(
    level: ReminderLevel, address: str
) -> None:
    found = notice(level=level)
    mail = OFFICES.mail(found.office_id, level, [found])
    assert OFFICES.address(mail) == address
    title, text = Texts({}).office(mail, [found.line])
    assert "1项" in title
    assert REMINDED.item_id in text
    assert (DEPARTMENT.name in found.line) == (level is ReminderLevel.SUPERVISOR)
    for secret in (REMINDED.subject_id, REMINDED.record_id, REMINDED.application_id):
        assert secret not in title + text


def test_the_line_says_how_late_it_is_and_where_to_act() -> None:
    assert "即将到期，请在审核工作台办理" in notice().line
    assert "今天到期" in notice(due_on=date(2026, 12, 8)).line
    assert "现已超期，请在本单位系统中办理" in notice(due_on=date(2026, 12, 7), at_desk=False).line
    # 16:30 UTC is the next day in China
    assert "今天到期" in notice(reminded_at=datetime(2026, 12, 9, 16, 30, tzinfo=UTC)).line
    promised = notice(promised_on=date(2026, 12, 9)).line
    assert "服务承诺（非法定期限）为2026年12月9日" in promised


def test_the_same_reminder_is_the_same_fact_and_another_is_not() -> None:
    same = {notice().fact, notice(at_desk=False).fact}
    others = [
        notice(level=ReminderLevel.APPROVER),
        notice(step=ReviewStep.ACCEPT),
        notice(due_on=date(2026, 12, 24)),
        notice(promised_on=date(2026, 12, 9)),
        notice(reminded_at=datetime(2026, 12, 10, 1, tzinfo=UTC)),
    ]
    assert len(same) == 1
    assert len(same | {each.fact for each in others}) == 6


def test_an_overdue_referral_goes_to_the_credit_centre() -> None:
    found = OFFICES.notice(OVERDUE)
    assert found is not None
    mail = OFFICES.mail(found.office_id, found.level, [found])
    assert OFFICES.address(mail) == CATALOGUE.human_queue.contact_email
    assert "人工分派席" in found.line


@pytest.mark.parametrize(
    "event",
    [
        REMINDED,
        OVERDUE,
        OBJECTED,
        OBJECTED.model_copy(update={"kind": ObjectionKind.RESULT, "item_id": REMINDED.item_id}),
        ObjectionReferralOverdue(**OBJECTION, **QUEUE),
    ],
    ids=lambda event: event.TYPE,
)
def test_what_became_of_its_mail_can_be_told_whatever_the_mail_is_about(event: Event) -> None:
    """An objection to a record has no item: its mail left again and again, because its end was refused."""
    found = OFFICES.notice(event)
    assert found is not None
    mail = OFFICES.mail(found.office_id, found.level, [found])
    told = OfficeNotified.model_validate(
        {**mail.document(), "notification_id": "x~email", "sent_at": REMINDED.reminded_at}
    )
    assert told.item_ids == (found.item_id,)


def test_every_event_that_offices_are_told_of_is_tried_here() -> None:
    assert {type(event) for event in (REMINDED, OVERDUE, OBJECTED)} | {
        ObjectionReferralOverdue
    } == Offices.EVENTS


def test_a_mail_is_named_by_what_it_tells_and_reads_back_as_it_was_kept() -> None:
    one, two = notice(), notice(item_id="itm_" + "9" * 32)
    level, office = ReminderLevel.OFFICER, DEPARTMENT.code
    assert mail_fact(office, level, [one, two]) == mail_fact(office, level, [two, one])
    assert mail_fact(office, level, [one]) != mail_fact(office, level, [one, two])
    mail = OFFICES.mail(office, level, [one, two])
    assert mail.item_ids == (one.item_id, two.item_id)
    assert OfficeMail.read(mail.document()) == mail
    assert OfficeNotice.read(one.document()) == one
    assert OFFICES.address(replace(mail, office_id="left the catalogue")) is None
