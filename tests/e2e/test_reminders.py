"""Reminders and figures over the running stack: told once, acknowledged, escalated by mail, and seen by the credit centre."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from e2e.people import API, DESK, OTHER_DESK, Document, World
from e2e.test_objections import at_desk, objects

from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.events import ObjectionReminded, OfficeNotified, ReferralOverdue, ReviewReminded
from contracts.tokens import Role, Scope
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually


def emitted(world: World, service: str, event_type: str, **where: Any) -> list[Document]:
    """The outbox of a service: events of a type."""
    found = world.database(service)["outbox"].find({"headers.ce_type": event_type, **where})
    return sorted(found, key=lambda row: row["seq"])


def due(world: World, item_ids: Sequence[str], day: date) -> None:
    """The department's last day is another one, long after the request, and nobody has looked since."""
    moved = {
        "requested_at": datetime.combine(day - timedelta(days=20), time(4), UTC),
        **dict.fromkeys(("accept_due_on", "deadline_on", "reminder_on"), day.isoformat()),
    }
    reviews = world.database("dept-adapter")["reviews"]
    reviews.update_many({"_id": {"$in": list(item_ids)}}, {"$set": moved})


async def supervisor(world: World) -> str:
    return await world.sign_in(Scope.DESK, sub="supervisor", roles=[Role.SUPERVISOR])


async def test_reminders_rise_to_the_credit_centre_and_stop_when_the_item_moves(world: World) -> None:
    today = china_date(datetime.now(UTC))
    if not LIBRARY_CALENDAR.is_working_day(today):
        pytest.skip("nobody is reminded on a day that is no working day")
    await world.fault(API, mode="silent", count=1)
    company = await world.company(world.row(OTHER_DESK), world.row(OTHER_DESK), world.row(API))
    application = (await world.submit(company)).ok()
    items = [item["item_id"] for item in application["items"]]
    for item_id in items:
        await world.review(item_id)
    at_api = world.department(API).code
    mine = [i for i in items if (await world.review(i))["department"]["code"] != at_api]
    tomorrow = LIBRARY_CALENDAR.working_days_after(today, 1).on

    async def reminded(times: int, *item_ids: str) -> bool:
        found = [len(emitted(world, "dept-adapter", ReviewReminded.TYPE, key=id_)) for id_ in item_ids]
        return found == [times] * len(item_ids)

    due(world, items, today)
    await eventually(lambda: reminded(1, *items), 30)
    officer = await world.officer(OTHER_DESK)
    shown = (await world.ask("GET", world.url("dept-adapter", f"/v1/reviews/{mine[0]}"), officer)).ok()
    assert [(r["level"], r["step"], r["acknowledged"]) for r in shown["reminders"]] == [
        ("officer", "accept", None)
    ]
    answer = await world.desk(mine[0], "acknowledge-reminder", {"reason": " "}, OTHER_DESK)
    answer.problem(ProblemCode.VALIDATION)
    for reason in ("等待鉴定意见", "另一个理由"):
        seen = (await world.desk(mine[0], "acknowledge-reminder", {"reason": reason}, OTHER_DESK)).ok()
        assert seen["reminders"][0]["acknowledged"]["reason"] == "等待鉴定意见"
    (await world.desk(mine[0], "acknowledge-reminder", {"reason": "x"}, DESK)).problem(
        ProblemCode.WRONG_DEPARTMENT
    )

    # one mail to the department lists both of its items, and says nothing of what they are about
    async def mail_to(address: str, *item_ids: str) -> Document | None:
        url = world.url("sandbox", f"/mail?to={address}")
        for mail in (await world.ask("GET", url)).ok():
            if all(item_id in mail["text"] for item_id in item_ids):
                return dict(mail)
        return None

    async def mailed(address: str | None, *item_ids: str) -> bool:
        return await mail_to(str(address), *item_ids) is not None

    contact = world.department(OTHER_DESK).contact_email
    await eventually(lambda: mailed(contact, *mine), 30)
    mail = await mail_to(str(contact), *mine)
    assert mail is not None
    assert "信用修复事项待办" in mail["subject"]
    for secret in (company.name, company.code, "13812345678", *(row["CF_WSH"] for row in company.rows)):
        assert secret not in mail["text"]
    system = await mail_to(str(world.department(API).contact_email), *(set(items) - set(mine)))
    assert system is None or "请在本单位系统中办理" in system["text"]

    # ten days later, nobody having looked: one reminder, at the highest level
    late = LIBRARY_CALENDAR.working_days_after(today - timedelta(days=14), 1).on
    due(world, mine[:1], late)
    await eventually(lambda: reminded(2, mine[0]), 30)
    await eventually(lambda: mailed(world.catalogue.human_queue.contact_email, mine[0]), 30)
    overdue = world.url("dept-adapter", "/v1/overdue?level=supervisor&limit=200")
    (await world.ask("GET", overdue, officer)).problem(ProblemCode.FORBIDDEN, "督办")
    listed = (await world.ask("GET", overdue, await supervisor(world))).ok()["reviews"]
    (found,) = (each for each in listed if each["item_id"] == mine[0])
    assert (found["due_on"], found["step"]) == (late.isoformat(), "accept")
    assert [each["level"] for each in found["reminders"]] == ["officer", "supervisor"]
    assert "record" not in found
    (await world.desk(mine[0], "accept", slug=OTHER_DESK)).ok()
    moved = await world.review(mine[0])
    assert moved["reminder_level"] is None
    assert moved["reminder_on"] is None or moved["reminder_on"] >= tomorrow.isoformat()
    (await world.desk(mine[0], "acknowledge-reminder", {"reason": "x"}, OTHER_DESK)).problem(
        ProblemCode.INVALID_TRANSITION, "没有待确认的催办"
    )
    listed = (await world.ask("GET", overdue, await supervisor(world))).ok()["reviews"]
    assert mine[0] not in {each["item_id"] for each in listed}
    for item_id in mine:
        (await world.desk(item_id, "refuse", {"reason": "=未履行"}, OTHER_DESK)).ok()
        assert (await world.review(item_id))["reminder_on"] is None
    offices = [row["key"] for row in emitted(world, "notify", OfficeNotified.TYPE)]
    assert {world.department(OTHER_DESK).code, world.catalogue.human_queue.id} <= set(offices)

    # the figures of the department, for itself and for the credit centre
    code = world.department(OTHER_DESK).code
    since = (today - timedelta(days=60)).isoformat()
    url = world.url("dept-adapter", f"/v1/departments/{code}/figures?from={since}")
    figures = (await world.ask("GET", url, officer)).ok()
    assert figures["outcomes"]["refused"] >= 2
    assert {"reason": "=未履行", "number": 2} in figures["refused_why"]["shown"]
    (await world.ask("GET", url, await world.officer(DESK))).problem(ProblemCode.WRONG_DEPARTMENT)
    (await world.ask("GET", f"{url}&to=2030-01-01", officer)).problem(ProblemCode.VALIDATION, "366天")
    table = (await world.ask("GET", url, officer, headers={"accept": "text/csv"})).ok()
    assert ["不予修复的原因", "'=未履行", "2"] in list(csv.reader(io.StringIO(table)))
    everything = world.url("dept-adapter", f"/v1/figures?from={since}")
    (await world.ask("GET", everything, officer)).problem(ProblemCode.FORBIDDEN, "本部门")
    all_of_them = (await world.ask("GET", everything, await world.ops())).ok()["figures"]
    assert next(each for each in all_of_them if each["department"]["code"] == code) == figures
    rows = list(
        csv.reader(io.StringIO((await world.ask("GET", f"{everything}&format=csv", await world.ops())).ok()))
    )
    assert len(rows) == 1 + len(world.catalogue.departments)


async def test_a_referral_that_waits_too_long_is_told_once(world: World) -> None:
    company = await world.company(world.row(None))
    application = (await world.submit(company)).ok()
    item_id = application["items"][0]["item_id"]
    referrals = world.database("routing")["referrals"]

    async def referred() -> bool:
        return referrals.find_one({"_id": item_id}) is not None

    await eventually(referred, 30)
    referrals.update_one({"_id": item_id}, {"$set": {"deadline_on": "2026-01-05"}})

    async def told() -> bool:
        timeline = (await world.application(company, application["application_id"]))["timeline"]
        return [line["type"] for line in timeline].count("overdue") == 1

    await eventually(told, 30)
    outbox = world.database("routing")["outbox"].find({"headers.ce_type": ReferralOverdue.TYPE})
    assert sum(item_id.encode() in bytes(row["value"]) for row in outbox) == 1
    shown = referrals.find_one({"_id": item_id})
    assert shown is not None
    assert (shown["status"], shown["deadline_on"]) == ("open", None)
    url = world.url("intake", f"/v1/items/{item_id}/withdraw")
    (await world.ask("POST", url, company.token)).ok()


async def test_an_objection_is_reminded_of_until_it_moves(world: World) -> None:
    today = china_date(datetime.now(UTC))
    if not LIBRARY_CALENDAR.is_working_day(today):
        pytest.skip("nobody is reminded on a day that is no working day")
    company = await world.company()
    filed = (await objects(world, company, record_id=company.ids[0])).ok()
    objection_id = filed["objection_id"]
    await at_desk(world, objection_id)

    def due_on(day: date) -> None:
        moved = {
            "received_at": datetime.combine(day - timedelta(days=20), time(4), UTC).isoformat(),
            **dict.fromkeys(("accept_due_on", "due_on", "deadline_on", "reminder_on"), day.isoformat()),
        }
        world.database("dept-adapter")["objections"].update_one({"_id": objection_id}, {"$set": moved})

    async def reminded(times: int) -> bool:
        return len(emitted(world, "dept-adapter", ObjectionReminded.TYPE, key=objection_id)) == times

    async def mailed(address: str | None) -> bool:
        mails = (await world.ask("GET", world.url("sandbox", f"/mail?to={address}"))).ok()
        return any(f"异议 {objection_id}" in mail["text"] for mail in mails)

    due_on(today)
    await eventually(lambda: reminded(1), 30)
    await eventually(lambda: mailed(world.department(DESK).contact_email), 30)

    async def told() -> bool:
        events = [json.loads(bytes(row["value"])) for row in emitted(world, "notify", OfficeNotified.TYPE)]
        return [objection_id in event["item_ids"] for event in events].count(True) == 1

    await eventually(told, 30)
    (await at_desk(world, objection_id, "acknowledge-reminder", {"reason": " "})).problem(
        ProblemCode.VALIDATION
    )
    for reason in ("等待调取案卷", "另一个理由"):
        seen = (await at_desk(world, objection_id, "acknowledge-reminder", {"reason": reason})).ok()
        assert seen["reminders"][0]["acknowledged"]["reason"] == "等待调取案卷"
    # ten days later: at the highest level, before the credit centre
    due_on(LIBRARY_CALENDAR.working_days_after(today - timedelta(days=14), 1).on)
    await eventually(lambda: reminded(2), 30)
    await eventually(lambda: mailed(world.catalogue.human_queue.contact_email), 30)
    url = world.url("dept-adapter", "/v1/overdue/objections?level=supervisor&limit=200")
    (await world.ask("GET", url, await world.officer(DESK))).problem(ProblemCode.FORBIDDEN, "督办")

    async def late() -> list[Document]:
        listed = (await world.ask("GET", url, await supervisor(world))).ok()["objections"]
        return [each for each in listed if each["objection_id"] == objection_id]

    async def is_late() -> bool:
        return bool(await late())

    await eventually(is_late, 30)
    (found,) = await late()
    assert [each["level"] for each in found["reminders"]] == ["officer", "supervisor"]
    assert "record" not in found
    (await at_desk(world, objection_id, "accept")).ok()
    assert await late() == []
    (await at_desk(world, objection_id, "acknowledge-reminder", {"reason": "x"})).problem(
        ProblemCode.INVALID_TRANSITION, "没有待确认的催办"
    )
    (await at_desk(world, objection_id, "dismiss", {"reason": "查明属实"})).ok()


async def test_a_mail_whose_end_cannot_be_told_leaves_once_and_holds_up_no_other(world: World) -> None:
    emails = world.database("notify")["emails"]
    now = datetime.now(UTC)
    office = {"office_id": world.catalogue.human_queue.id, "office_name": "x", "level": "supervisor"}
    mails = [
        {
            "_id": f"{number}-{now.timestamp()}~email",
            "fact": f"{number}-{now.timestamp()}",
            "subject_id": None,
            "application_id": None,
            "office": {**office, "item_ids": item_ids},
            "created_at": now,
            "subject_line": "催办",
            "text": "催办",
            "state": "pending",
            "attempts": 0,
            "lease": None,
            "last_error": None,
            "next_attempt_at": now,
            "trace": {},
        }
        for number, item_ids in enumerate([["no such item"], ["itm_" + "0" * 32]])
    ]
    emails.insert_many(mails)
    ids = [mail["_id"] for mail in mails]

    async def ended() -> bool:
        return emails.count_documents({"_id": {"$in": ids}, "state": "sent", "attempts": 1}) == 2

    await eventually(ended, 30)
    url = world.url("sandbox", f"/mail?to={world.catalogue.human_queue.contact_email}")
    taken = {mail["message_id"]: mail["deliveries"] for mail in (await world.ask("GET", url)).ok()}
    assert [taken[f"<{mail['fact']}@xinfu.example>"] for mail in mails] == [1, 1]
    told = [
        json.loads(bytes(row["value"]))["notification_id"]
        for row in emitted(world, "notify", OfficeNotified.TYPE)
    ]
    assert [id_ in told for id_ in ids] == [False, True]
