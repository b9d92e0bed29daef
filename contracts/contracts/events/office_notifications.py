"""Whether offices and vendors were told by mail (xinfu.office-notifications)."""

from typing import Annotated

from pydantic import Field

from contracts.events.base import Event
from contracts.events.decisions import ReminderLevel
from contracts.records import ItemOrObjectionId, Timestamp


class OfficeNotificationEvent(Event):
    """What both events about a mail to an office carry: never the text, never an address.

    An office is a department, or the credit centre with its human queue.
    """

    office_id: str = Field(description="Code of the department, or id of the human queue")
    office_name: str
    level: ReminderLevel
    notification_id: str
    item_ids: Annotated[
        tuple[ItemOrObjectionId, ...],
        Field(
            min_length=1,
            max_length=500,
            description="The items the mail lists; of an objection to a record, the objection's own id",
        ),
    ]


class OfficeNotified(OfficeNotificationEvent):
    """An office was told of the items and objections that wait there; one mail lists many."""

    TYPE = "cn.xinfu.office.notified.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    sent_at: Timestamp


class OfficeNotificationFailed(OfficeNotificationEvent):
    """An office could not be told by mail; no further attempt is made."""

    TYPE = "cn.xinfu.office.notificationfailed.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    reason: str
    failed_at: Timestamp


class VendorLetterMailEvent(Event):
    """What both events about the mail with a letter to a vendor carry: never the text, never an address."""

    office_id: str = Field(description="Id of the target whose office is written to")
    letter_id: str = Field(pattern=r"^vlt_[0-9a-f]{32}$")
    to_supervisor: bool = Field(False, description="The copy for the supervisor, not the letter itself")


class VendorLetterSent(VendorLetterMailEvent):
    """The mail server took the letter."""

    TYPE = "cn.xinfu.vendorletter.sent.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    sent_at: Timestamp


class VendorLetterUndelivered(VendorLetterMailEvent):
    """The letter could not be mailed, and no further attempt is made: a person has to take it there."""

    TYPE = "cn.xinfu.vendorletter.undelivered.v1"
    TOPIC = "xinfu.office-notifications"
    KEY = "office_id"

    reason: str
    failed_at: Timestamp
