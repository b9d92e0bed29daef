"""What offices are told: reminders to departments, and to the credit centre what it has to see to. Pure.

An office is a department, or the credit centre with its human queue. What is told is an item's number, the step and its day: no
record, nobody's name.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar

from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.events import (
    Event,
    ObjectionReferralOverdue,
    ObjectionReminded,
    ReferralOverdue,
    ReminderLevel,
    ReviewReminded,
    ReviewStep,
)

MAX_ITEMS = 500
"""Listed in one mail; the others are in the next."""
_STEPS = {ReviewStep.ACCEPT: "受理（或者不予受理、告知补正）", ReviewStep.DECIDE: "作出决定"}
_OBJECTION_STEPS = {ReviewStep.ACCEPT: "决定是否受理", ReviewStep.DECIDE: "作出决定"}


_Reminded = ReviewReminded | ObjectionReminded


@dataclass(frozen=True, slots=True)
class OfficeNotice:
    """One item of which an office has to be told. ``line`` (zh-CN): its line in the mail."""

    fact: str
    office_id: str
    level: ReminderLevel
    item_id: str
    line: str

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "_id": self.fact,
            "office_id": self.office_id,
            "level": self.level.value,
            "item_id": self.item_id,
            "line": self.line,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "OfficeNotice":
        """As it was stored."""
        level = ReminderLevel(document["level"])
        return cls(document["_id"], document["office_id"], level, document["item_id"], document["line"])


@dataclass(frozen=True, slots=True)
class OfficeMail:
    """To whom a mail goes, and which items it lists."""

    office_id: str
    office_name: str
    level: ReminderLevel
    item_ids: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "office_id": self.office_id,
            "office_name": self.office_name,
            "level": self.level.value,
            "item_ids": list(self.item_ids),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "OfficeMail":
        """As it was stored."""
        ids, level = tuple(document["item_ids"]), ReminderLevel(document["level"])
        return cls(document["office_id"], document["office_name"], level, ids)


class Offices:
    """The offices of the catalogue, and which of them is told what."""

    EVENTS: ClassVar[frozenset[type[Event]]] = frozenset(
        {ReviewReminded, ObjectionReminded, ReferralOverdue, ObjectionReferralOverdue}
    )

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._centre = catalogue.human_queue

    def notice(self, event: Event) -> OfficeNotice | None:
        """What has to be told because of an event; None for most."""
        match event:
            case ReviewReminded():
                counted = event.promised_on or event.due_on
                line = f"事项 {event.item_id}：{_due(event, _STEPS)}，{_review_state(event)}"
                return self._reminder(event, event.item_id, counted, f"{line}{_where(event)}。")
            case ObjectionReminded():
                line = f"异议 {event.objection_id}：{_due(event, _OBJECTION_STEPS)}，{_state(event)}"
                return self._reminder(event, event.objection_id, event.due_on, f"{line}{_where(event)}。")
            case ReferralOverdue():
                return self._unassigned(event, f"事项 {event.item_id}", event.item_id)
            case ObjectionReferralOverdue():
                return self._unassigned(event, f"异议 {event.objection_id}", event.objection_id)
        return None

    def _unassigned(
        self, event: ReferralOverdue | ObjectionReferralOverdue, what: str, number: str
    ) -> OfficeNotice:
        line = f"{what}：应于{_day(event.due_on)}前确定认定单位，现已超期，请在人工分派席指定。"
        level = ReminderLevel.SUPERVISOR
        return OfficeNotice(f"{event.TYPE}~{number}", self._centre.id, level, event.item_id, line)

    def _reminder(self, event: _Reminded, number: str, counted: date, line: str) -> OfficeNotice:
        fact = f"{event.TYPE}~{number}~{event.step}~{event.level}~{counted}~{china_date(event.reminded_at)}"
        office_id = self._centre.id if _above(event) else event.department.code
        return OfficeNotice(fact, office_id, event.level, event.item_id, line)

    def mail(self, office_id: str, level: ReminderLevel, notices: Sequence[OfficeNotice]) -> OfficeMail:
        """The mail that lists these."""
        department = self._catalogue.department(office_id)
        name = (
            self._centre.name
            if office_id == self._centre.id
            else department.name
            if department
            else office_id
        )
        return OfficeMail(office_id, name, level, tuple(dict.fromkeys(notice.item_id for notice in notices)))

    def address(self, mail: OfficeMail) -> str | None:
        """Where it goes, by the catalogue as it is now; None: not known."""
        if mail.office_id == self._centre.id:
            return self._centre.contact_email
        department = self._catalogue.department(mail.office_id)
        if department is None:
            return None
        above = mail.level is not ReminderLevel.OFFICER
        return department.approver_email if above else department.contact_email


def mail_fact(office_id: str, level: ReminderLevel, notices: Sequence[OfficeNotice]) -> str:
    """What makes a mail the same mail: whom it tells, and of what."""
    facts = "\n".join(sorted(notice.fact for notice in notices))
    return f"reminders~{office_id}~{level}~{hashlib.sha256(facts.encode()).hexdigest()[:32]}"


def _above(event: _Reminded) -> bool:
    return event.level is ReminderLevel.SUPERVISOR


def _due(event: _Reminded, steps: Mapping[ReviewStep, str]) -> str:
    whose = event.department.name if _above(event) else ""
    return f"{whose}应于{_day(event.due_on)}前{steps[event.step]}"


def _review_state(event: ReviewReminded) -> str:
    if event.promised_on is not None:
        return f"服务承诺（非法定期限）为{_day(event.promised_on)}前办结"
    return _state(event)


def _state(event: _Reminded) -> str:
    today = china_date(event.reminded_at)
    if today > event.due_on:
        return "现已超期"
    return "今天到期" if today == event.due_on else "即将到期"


def _where(event: _Reminded) -> str:
    if _above(event):
        return ""
    if event.in_person:
        return "，该事项线下办理：请当面或经机要渠道交接，在审核工作台只登记结果"
    at_desk = isinstance(event, ObjectionReminded) or event.at_desk
    return "，请在审核工作台办理" if at_desk else "，请在本单位系统中办理"


def _day(day: date | datetime) -> str:
    return f"{day.year}年{day.month}月{day.day}日"
