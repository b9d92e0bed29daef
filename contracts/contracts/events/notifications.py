"""Whether subjects were told (xinfu.notifications)."""

from enum import StrEnum

from pydantic import Field

from contracts.events.base import Event
from contracts.records import ApplicationId, SubjectId, Timestamp


class Channel(StrEnum):
    """How a person is told."""

    IN_APP = "in_app"
    EMAIL = "email"


class NotificationEvent(Event):
    """What both notification events carry: never the text, never an address."""

    notification_id: str
    subject_id: SubjectId
    application_id: ApplicationId
    channel: Channel
    fact: str = Field(description="Id of the fact told: one notification per fact and channel")


class NotificationSent(NotificationEvent):
    """The recipient was told."""

    TYPE = "cn.xinfu.notification.sent.v1"
    TOPIC = "xinfu.notifications"
    KEY = "subject_id"

    sent_at: Timestamp


class NotificationFailed(NotificationEvent):
    """The recipient could not be told by this channel; no further attempt is made."""

    TYPE = "cn.xinfu.notification.failed.v1"
    TOPIC = "xinfu.notifications"
    KEY = "subject_id"

    reason: str
    failed_at: Timestamp
