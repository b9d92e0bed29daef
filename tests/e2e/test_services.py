"""What the demonstration does not show, on the running stack: people who assign and refuse, streams, replays, bad days of targets."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import ClientTimeout
from e2e.people import API, DESK, OTHER_DESK, Company, World

from contracts.errors import ProblemCode
from contracts.tokens import Scope
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually
from xinfu.compose import SERVICES

LETTER = "shili-zhengxin"
"""The target that is told by letter alone."""

Entry = tuple[str, str, dict[str, Any]]
"""An event of a stream: id, event, data."""


# --- assigning


async def test_a_person_assigns_what_no_department_is_known_for(world: World) -> None:
    company = await world.company(world.row(None))
    application = (await world.submit(company)).ok()
    (item,) = application["items"]
    await world.until_item(company, application["application_id"], "referred")
    clerk = await world.sign_in(Scope.ROUTING_ASSIGN, sub="clerk")

    async def referral(status: str) -> dict[str, Any] | None:
        """The item's line in the queue, looked for page by page."""
        after = ""
        while True:
            url = world.url("routing", f"/v1/referrals?status={status}&limit=2{after}")
            page = (await world.ask("GET", url, clerk)).ok()
            for each in page["referrals"]:
                if each["item_id"] == item["item_id"]:
                    return dict(each)
            if page["next"] is None:
                return None
            after = f"&after={page['next']}"

    waiting = await referral("open")
    assert waiting is not None
    assert waiting["reason_code"] == "unknown_department"
    assert waiting["queue_name"] == world.catalogue.human_queue.name
    assert "杭州市示例无此机关" in waiting["reason"]

    url = world.url("routing", f"/v1/referrals/{item['item_id']}/assign")

    async def assign(code: str) -> Any:
        return await world.ask("POST", url, clerk, json={"department_code": code})

    (await assign("0" * 18)).problem(ProblemCode.NOT_FOUND, "部门目录")
    # market supervision decides another category
    (await assign(world.department("hz-samr").code)).problem(ProblemCode.INVALID_TRANSITION, "另选部门")
    code = world.department(DESK).code
    first, second = await asyncio.gather(assign(code), assign(code))
    assert first.ok() == second.ok()
    assert first.body["department"]["slug"] == DESK
    (await assign(world.department(OTHER_DESK).code)).problem(ProblemCode.DECISION_CONFLICT, "已分派")
    assert await referral("open") is None
    assert await referral("assigned") is not None

    (await world.desk(item["item_id"], "accept")).ok()
    (await world.desk(item["item_id"], "grant")).ok()
    done = await world.until_completed(company, application["application_id"])
    types = [entry["type"] for entry in done["timeline"]]
    assert types[:5] == ["submitted", "referred", "routed", "accepted", "granted"]
    assert types[-2:] == ["propagated", "completed"]
    assert done["items"][0]["department"]["slug"] == DESK
    assert all([await world.public(t.id, company) == set() for t in world.told(company)])


# --- refusing


async def test_a_refusal_is_told_with_its_reason_and_targets_stay_as_they_are(world: World) -> None:
    company = await world.company()
    shown = {target.id: await world.public(target.id, company) for target in world.told(company)}
    assert all(shown.values())
    application = (await world.submit(company)).ok()
    reason = "尚未缴清罚款 <请缴清后重新申请>"
    refused = (await world.desk(application["items"][0]["item_id"], "refuse", {"reason": reason})).ok()
    assert refused["state"] == "refused"
    done = await world.until_completed(company, application["application_id"])
    (item,) = done["items"]
    assert (item["status"], item["decision"], item["reason"]) == ("refused", "refused", reason)
    assert [entry["type"] for entry in done["timeline"]] == [
        "submitted",
        "routed",
        "accepted",
        "refused",
        "completed",
    ]

    async def mailed() -> bool:
        return len(await world.mails(company)) == 3

    await eventually(mailed)
    assert sum(reason in mail["text"] for mail in await world.mails(company)) == 1
    for target in world.told(company):
        assert await world.public(target.id, company) == shown[target.id]
        assert await world.pushes(target.id, company) == []
    # the record is free again, for a better application
    (record,) = await world.records(company)
    assert record["repair"]["status"] == "repairable"
    again = await world.repaired(company)
    assert again["application_id"] != application["application_id"]
    assert await world.public("credit-china", company) == set()


# --- revoking


async def until_shown(world: World, company: Company, version: int) -> None:
    """Wait until sync has seen that every target shows this version of the company's only record, and see it there."""
    (record_id,) = company.ids
    ops = await world.ops()

    async def seen() -> bool:
        answer = await world.ask("GET", world.url("sync", f"/v1/records/{record_id}"), ops)
        return answer.status == 200 and (answer.body["version"], answer.body["completed"]) == (version, True)

    await eventually(seen, 40)
    for target in world.told(company):
        assert await world.public(target.id, company) == set(company.record_ids), target.id
        *_, last = await world.pushes(target.id, company)
        assert (last["version"], last["state"], last["status"]) == (version, "published", "applied")


async def test_a_repair_that_is_revoked_is_shown_again_everywhere(world: World) -> None:
    company = await world.company()
    repaired = await world.repaired(company)
    (item,) = repaired["items"]
    reason = "申请时提交的验收证明系伪造 <虚假材料>"
    (await world.desk(item["item_id"], "revoke", {"reason": ""})).problem(ProblemCode.VALIDATION)
    revoked = (await world.desk(item["item_id"], "revoke", {"reason": reason})).ok()
    assert (revoked["state"], revoked["revocation"]["reason"]) == ("revoked", reason)
    again = (await world.desk(item["item_id"], "revoke", {"reason": "另一理由"})).ok()
    assert again["revocation"] == revoked["revocation"]
    (await world.desk(item["item_id"], "refuse", {"reason": reason})).problem(
        ProblemCode.DECISION_CONFLICT, "撤销修复"
    )
    await until_shown(world, company, 2)
    await world.until_item(company, repaired["application_id"], "revoked")

    async def told() -> bool:
        timeline = (await world.application(company, repaired["application_id"]))["timeline"]
        return timeline[-1]["type"] == "propagated" and len(await world.mails(company)) == 3

    await eventually(told)
    after = await world.application(company, repaired["application_id"])
    assert (after["status"], after["completed_at"]) == ("completed", repaired["completed_at"])
    assert after["items"][0]["revocation_number"] == revoked["revocation"]["number"]
    types = [entry["type"] for entry in after["timeline"]]
    assert (types.count("completed"), types.count("revoked"), types.count("propagated")) == (1, 1, 2)
    subjects = [mail["subject"] for mail in await world.mails(company)]
    assert [sum(word in subject for subject in subjects) for word in ("办结", "撤销")] == [1, 1]
    # the law bars the record from another application
    (record,) = await world.records(company)
    assert record["repair"]["status"] == "revoked"
    (await world.submit(company)).problem(ProblemCode.RECORD_NOT_REPAIRABLE)


async def test_a_departments_own_system_revokes_whatever_order_its_callbacks_come_in(world: World) -> None:
    company = await world.company(world.row(API))
    await world.fault(API, mode="reorder", twice=True, count=1)
    application = (await world.submit(company)).ok()
    await world.until_completed(company, application["application_id"])
    revocation = {"item_id": application["items"][0]["item_id"], "outcome": "revoked"}
    url = world.url("sandbox", f"/departments/{API}/sandbox/decisions")
    sent = (await world.ask("POST", url, json=revocation)).ok()
    await world.until_item(company, application["application_id"], "revoked")
    (item,) = (await world.application(company, application["application_id"]))["items"]
    assert (item["revocation_number"], item["revocation_reason"]) == (
        sent["decision_number"],
        sent["reason"],
    )
    await until_shown(world, company, 2)


async def test_a_repair_revoked_before_any_target_took_it_ends_shown_everywhere(world: World) -> None:
    company = await world.company()
    for target in world.told(company):
        await world.fault(target.id, mode="fail")
    application = (await world.submit(company)).ok()
    item_id = application["items"][0]["item_id"]
    (await world.desk(item_id, "revoke", {"reason": "材料虚假"})).problem(
        ProblemCode.DECISION_CONFLICT, "尚未准予"
    )
    (await world.desk(item_id, "grant")).ok()
    (await world.desk(item_id, "revoke", {"reason": "材料虚假"})).ok()
    done = await world.until_completed(company, application["application_id"])
    assert [item["status"] for item in done["items"]] == ["revoked"]
    for target in world.told(company):
        await world.fault(target.id, mode="ok")
    await until_shown(world, company, 2)
    assert (await world.application(company, application["application_id"]))["items"][0][
        "repaired_at"
    ] is None


# --- records


async def test_the_list_of_records_says_what_can_be_done(world: World) -> None:
    young = world.row(months=1)
    free, taken = world.row(), world.row()
    company = await world.company(young, free, taken)
    young_id, free_id, taken_id = company.ids
    (await world.submit(company, world.body([taken_id]))).ok()
    records = {record["record_id"]: record for record in await world.records(company)}
    assert {i: record["repair"]["status"] for i, record in records.items()} == {
        young_id: "not_yet",
        free_id: "repairable",
        taken_id: "under_application",
    }
    assert records[young_id]["repair"]["from"] > young["CF_JDRQ"]
    problem = (await world.submit(company, world.body([young_id, free_id]))).problem(
        ProblemCode.RECORD_NOT_REPAIRABLE, "去掉"
    )
    (refused,) = problem["records"]
    assert (refused["record_id"], refused["status"]) == (young_id, "not_yet")
    assert refused["from"] == records[young_id]["repair"]["from"]
    assert refused["from"] in refused["reason"]
    # page by page, the same
    listed, after = [], ""
    while True:
        url = world.url("intake", f"/v1/subjects/me/records?limit=1{after}")
        page = (await world.ask("GET", url, company.token)).ok()
        listed += [record["record_id"] for record in page["records"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(listed) == sorted(company.ids)


# --- the event stream


async def stream(world: World, company: Company, application_id: str, last: str = "") -> AsyncIterator[Entry]:
    """Events of an application until the server ends the stream."""
    headers = {"authorization": f"Bearer {company.token}", **({"last-event-id": last} if last else {})}
    url = world.url("intake", f"/v1/applications/{application_id}/events")
    async with world.http.get(url, headers=headers, timeout=ClientTimeout(total=60)) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        id_ = kind = ""
        async for raw in response.content:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name == "id":
                id_ = value
            elif name == "event":
                kind = value
            elif name == "data":
                yield id_, kind, json.loads(value)
                id_ = kind = ""


async def test_an_event_stream_goes_on_where_it_broke_off(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    application_id = application["application_id"]
    seen: list[Entry] = []

    async def read(number: int) -> None:
        """Read so many events in one connection, then break it off."""
        events = stream(world, company, application_id, seen[-1][0] if seen else "")
        async for event in events:
            seen.append(event)
            if len(seen) == number:
                await events.aclose()  # type: ignore[attr-defined]
                return

    await read(2)
    assert [data["type"] for _, _, data in seen] == ["submitted", "routed"]
    reading = asyncio.create_task(read(4))
    (await world.desk(application["items"][0]["item_id"], "grant")).ok()
    await reading
    seen += [event async for event in stream(world, company, application_id, seen[-1][0])]
    *entries, (last_id, kind, data) = seen
    assert (last_id, kind, data["status"]) == ("", "completed", "completed")
    assert {kind for _, kind, _ in entries} == {"timeline"}
    assert [int(id_) for id_, _, _ in entries] == list(range(1, len(entries) + 1))
    assert [entry for _, _, entry in entries] == (await world.application(company, application_id))[
        "timeline"
    ]
    # once more, from every place, now that it is over
    for last in (0, 1, len(entries) - 1, len(entries), len(entries) + 7):
        rest = [event async for event in stream(world, company, application_id, str(last))]
        assert [kind for _, kind, _ in rest] == ["timeline"] * max(len(entries) - last, 0) + ["completed"]
    url = world.url("intake", f"/v1/applications/{application_id}/events")
    answer = await world.ask("GET", url, company.token, headers={"last-event-id": "-1"})
    answer.problem(ProblemCode.VALIDATION, "Last-Event-ID")


# --- exactly once


async def snapshot(world: World) -> dict[str, Any]:
    """All that must happen once: at the targets, in the mailboxes, in the timelines, in the in-app messages."""
    targets = {}
    for target in world.catalogue.targets:
        url = world.url("sandbox", f"/targets/{target.id}/sandbox/log?limit=0")
        targets[target.id] = (await world.ask("GET", url)).ok()["summary"]
    mails = (await world.ask("GET", world.url("sandbox", "/mail?limit=10000"))).ok()
    intake, notify, sync = (world.database(name) for name in ("intake", "notify", "sync"))
    return {
        "targets": targets,
        "pushes": world.database("sync")["attempts"].count_documents({"action": "push"}),
        "mails": {mail["message_id"]: mail["deliveries"] for mail in mails},
        "timelines": sorted(str(each["_id"]) for each in intake["timeline"].find()),
        "items": {each["_id"]: each for each in intake["items"].find()},
        "applications": {each["_id"]: each for each in intake["applications"].find()},
        "reviews": {each["_id"]: each["state"] for each in world.database("dept-adapter")["reviews"].find()},
        "referrals": {each["_id"]: each for each in world.database("routing")["referrals"].find()},
        "records": {each["_id"]: each["version"] for each in sync["records"].find()},
        "messages": {each["_id"]: each for each in notify["messages"].find()},
        "events": {name: world.database(name)["outbox"].count_documents({}) for name in SERVICES},
    }


async def quiet(look: Callable[[], Awaitable[Any]]) -> Any:
    """What one sees once it stays the same for two seconds."""
    before = await look()

    async def unchanged() -> bool:
        nonlocal before
        last, before = before, None
        await asyncio.sleep(2)
        before = await look()
        return bool(before == last)

    await eventually(unchanged, 40)
    return before


async def test_publishing_the_whole_outbox_again_changes_nothing(world: World) -> None:
    """Every event of every service once more, as after a restored backup: recognised one by one, without any effect."""
    company = await world.company(world.row(), world.row(), world.row(OTHER_DESK))
    application = (await world.submit(company)).ok()
    one, two, three = application["items"]
    for item, action in ((one, "grant"), (two, "grant"), (three, "refuse")):
        slug = DESK if item["authority_name"] == world.department(DESK).name else OTHER_DESK
        body = {"reason": "未整改"} if action == "refuse" else None
        (await world.desk(item["item_id"], action, body, slug)).ok()
    await world.until_completed(company, application["application_id"])
    before = await quiet(lambda: snapshot(world))
    assert before["events"]["notify"] > 0
    again: Counter[str] = Counter()
    for service in SERVICES:
        for each in world.database(service)["outbox"].aggregate(
            [{"$group": {"_id": "$headers.ce_type", "number": {"$sum": 1}}}]
        ):
            again[each["_id"]] += each["number"]
    concerned: dict[str, list[str]] = {}
    for service in SERVICES:
        url = world.url(service, "/v1/operations/consumers")
        found = (await world.ask("GET", url, await world.ops())).ok()["consumers"]
        concerned[service] = [type_ for each in found for type_ in each["types"]]
    assert "cn.xinfu.target.verified.v1" in concerned["intake"]
    assert "cn.xinfu.target.verified.v1" not in concerned["notify"], "it tells nobody anything"
    name = "xinfu_events_duplicate_total"
    recognised = {service: await world.metric(service, name) for service in SERVICES}
    for service in SERVICES:
        world.database(service)["outbox"].update_many({}, {"$set": {"pending": True}})
    for service in SERVICES:
        expected = recognised[service] + sum(again[type_] for type_ in concerned[service])

        async def came_again(service: str = service, expected: float = expected) -> bool:
            return await world.metric(service, name) >= expected

        assert expected > recognised[service]
        await eventually(came_again, 40)
    after = await quiet(lambda: snapshot(world))
    for part, value in before.items():
        assert after[part] == value, part


# --- bad days of targets


async def test_targets_converge_whatever_they_do(world: World) -> None:
    """One fails three times, one does it but answers 500, one answers twice, one does it but answers too late."""
    company = await world.company(world.row(), world.row())
    application = (await world.submit(company)).ok()
    for item in application["items"]:
        await world.review(item["item_id"])
    timeout = {target.id: target.timeout_seconds for target in world.catalogue.targets}
    await world.fault("credit-china", mode="fail", count=3)
    await world.fault("credit-zhejiang", mode="apply_then_fail", status=500, count=1)
    await world.fault("qichacha", mode="answer_twice", count=1)
    # not a look at a record of somebody else
    late = timeout["tianyancha"] + 1
    await world.fault("tianyancha", mode="slow", seconds=late, path="/v1/repairs", count=1)
    for item in application["items"]:
        (await world.desk(item["item_id"], "grant")).ok()
    await world.until_completed(company, application["application_id"], 60)
    faults = (await world.ask("GET", world.url("sandbox", "/sandbox/faults"))).ok()
    received = {}
    for target in world.told(company):
        assert faults[target.id]["fault"] is None, target.id
        assert await world.public(target.id, company) == set()
        pushes = await world.pushes(target.id, company)
        received[target.id] = len(pushes)
        for record in company.rows:
            effects = [push["effect"] for push in pushes if push["document_number"] == record["CF_WSH"]]
            assert effects.count(True) == 1, (target.id, effects)
        assert {push["status"] for push in pushes} == {"applied"}
        assert len({push["idempotency_key"] for push in pushes}) == 2
    # what had its effect without a usable answer was pushed again
    assert received["credit-zhejiang"] > 2
    assert received["tianyancha"] > 2


async def test_a_vendor_that_forgets_is_found_and_repaired(world: World) -> None:
    company = await world.company()
    application = await world.repaired(company)
    url = world.url("sandbox", "/targets/qichacha/sandbox/forget")
    assert (await world.ask("POST", url, json={"subject_code": company.code})).ok() == {"forgotten": 1}
    number = company.rows[0]["CF_WSH"]
    assert await world.public("qichacha", company) == {number}

    async def repaired() -> bool:
        return await world.public("qichacha", company) == set()

    await eventually(repaired, 30)

    async def told() -> bool:
        entries = (await world.application(company, application["application_id"]))["timeline"]
        types = [entry["type"] for entry in entries]
        return types[types.index("completed") + 1 :] == [
            "target_drifted",
            "target_acknowledged",
            "target_verified",
        ]

    await eventually(told)
    shown = await world.application(company, application["application_id"])
    assert (shown["status"], shown["items"][0]["status"]) == ("completed", "repaired")
    states = {target["target_id"]: target["state"] for target in shown["items"][0]["targets"]}
    assert states == {t.id: "verified" if t.read_back else "acknowledged" for t in world.told(company)}
    # nobody writes to the applicant a second time
    assert len(await world.mails(company)) <= 2


# --- telling


async def test_one_message_for_each_fact(world: World) -> None:
    company, stranger = await world.company(), await world.company()
    application = await world.repaired(company)
    base = world.url("notify", "/v1")

    async def messages(who: Company = company, query: str = "") -> list[dict[str, Any]]:
        url = f"{base}/subjects/me/messages?limit=100{query}"
        return list((await world.ask("GET", url, who.token)).ok()["messages"])

    async def all_told() -> bool:
        return len(await messages()) >= 6 and len(await world.mails(company)) >= 2

    await eventually(all_told)
    kinds = ["submitted", "accepted", "granted", "propagation.completed", "application.completed"]
    kinds.append("repairnotice.served")
    facts = [message["fact"] for message in await messages()]
    assert len(facts) == len(set(facts)) == len(kinds)
    for kind in kinds:
        assert sum(f"{kind}.v1" in fact for fact in facts) == 1, facts
    about = {message["application_id"] for message in await messages()}
    assert about == {application["application_id"], None}, "the notice is about a record alone"
    mails = await world.mails(company)
    assert [mail["deliveries"] for mail in mails] == [1, 1]
    assert all("repairnotice" in message["fact"] for message in await messages(stranger))

    listed, after = [], ""
    while True:
        url = f"{base}/subjects/me/messages?limit=2{after}"
        page = (await world.ask("GET", url, company.token)).ok()
        listed += [message["id"] for message in page["messages"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert listed == [message["id"] for message in await messages()]

    chosen = listed[0]
    read = f"{base}/messages/{chosen}/read"
    (await world.ask("POST", read, stranger.token)).problem(ProblemCode.NOT_FOUND, "没有这条消息")
    (await world.ask("POST", f"{base}/messages/nothing/read", company.token)).problem(ProblemCode.NOT_FOUND)
    assert len(await messages(query="&unread=true")) == len(listed)
    first = (await world.ask("POST", read, company.token)).ok()
    again = (await world.ask("POST", read, company.token)).ok()
    assert first["read_at"] is not None
    assert first == again
    assert chosen not in [message["id"] for message in await messages(query="&unread=true")]
    assert len(await messages(query="&unread=true")) == len(listed) - 1


# --- operating


async def test_operators_see_how_far_targets_are(world: World) -> None:
    company = await world.company()
    application = (await world.submit(company)).ok()
    operator = await world.sign_in(Scope.OPERATIONS, sub="operator")
    record = world.url("sync", f"/v1/records/{company.ids[0]}")
    (await world.ask("GET", record, operator)).problem(ProblemCode.NOT_FOUND, company.ids[0])

    async def convergence() -> dict[str, dict[str, Any]]:
        answer = await world.ask("GET", world.url("sync", "/v1/convergence"), operator)
        return {target["target_id"]: target for target in answer.ok()["targets"]}

    before = await convergence()
    assert list(before) == [target.id for target in world.catalogue.targets]
    (await world.desk(application["items"][0]["item_id"], "grant")).ok()
    await world.until_completed(company, application["application_id"])
    after = await convergence()
    told = {target.id: target for target in world.told(company)}
    for id_, target in after.items():
        more = id_ in told
        assert target["desired"] == before[id_]["desired"] + (more or id_ == LETTER)
        assert target["acknowledged"] == before[id_]["acknowledged"] + more
        assert target["seen"] == before[id_]["seen"] + more
        assert (target["breaker"] and target["breaker"]["state"]) == (None if id_ == LETTER else "closed")
    matrix = (await world.ask("GET", record, operator)).ok()
    assert (matrix["completed"], matrix["version"], matrix["state"]) == (True, 1, "publication_ended")
    assert {target["target_id"] for target in matrix["targets"]} == {*told, LETTER}
    for target in matrix["targets"]:
        id_ = target["target_id"]
        assert target["settled"] == (id_ != LETTER)
        assert ("函告" in (target["note"] or "")) == (id_ == LETTER)
        seen = "publication_ended" if id_ in told and told[id_].read_back else None
        assert target["seen_state"] == seen
    assert {target["due_on"] for target in matrix["targets"]} == {None}
    # a week ago one of them had lost it, and has not answered since
    late, day = "credit-china", (datetime.now(UTC) - timedelta(days=9)).date()
    due = LIBRARY_CALENDAR.working_days_after(day, 3)
    deliveries = world.database("sync")["deliveries"]
    lost = {
        "differs_since": datetime.now(UTC) - timedelta(days=9),
        "due_on": due.on.isoformat(),
        "due_count": {**asdict(due.count), "start": day.isoformat()},
        "acknowledged_version": 0,
        "seen_version": 0,
        "drifts": 1,
        "next_action_at": datetime.now(UTC) + timedelta(days=1),
    }
    deliveries.update_one({"_id": f"{late}|{company.ids[0]}"}, {"$set": lost})

    async def overdue_told() -> bool:
        case = await world.application(company, application["application_id"])
        return [line["type"] for line in case["timeline"]].count("target_overdue") == 1

    await eventually(overdue_told, 30)
    target = (await convergence())[late]
    assert (target["overdue"], target["time_limit_working_days"]) == (1, 3)
    (shown,) = [
        t for t in (await world.ask("GET", record, operator)).ok()["targets"] if t["target_id"] == late
    ]
    assert (shown["overdue"], shown["due_on"]) == (True, due.on.isoformat())
    deliveries.update_one(
        {"_id": f"{late}|{company.ids[0]}"}, {"$set": {"next_action_at": datetime.now(UTC)}}
    )

    async def in_time_again() -> bool:
        return bool((await convergence())[late]["overdue"] == 0)

    await eventually(in_time_again, 20)
    assert await overdue_told(), "once"


async def test_a_department_with_its_own_system_refuses(world: World) -> None:
    """The same end by the other way: the department's callbacks, each sent twice."""
    company = await world.company(world.row(API))
    await world.fault(API, mode="answer_twice", count=1)
    body = world.body(company.ids, statement="请求尽快修复。" + secrets.token_hex(4))
    application = (await world.submit(company, body)).ok()
    done = await world.until_completed(company, application["application_id"])
    (item,) = done["items"]
    assert item["status"] == "refused"
    assert "义务" in item["reason"]
    types = [entry["type"] for entry in done["timeline"]]
    assert types == ["submitted", "routed", "accepted", "refused", "completed"]
    assert await world.public("tianyancha", company) == {company.rows[0]["CF_WSH"]}
