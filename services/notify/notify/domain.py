"""Pure decisions of notify: which facts are told, by which channels, and what a failed mail leads to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from contracts.events import (
    ApplicationCompleted,
    ApplicationSubmitted,
    Channel,
    Event,
    FollowUpDue,
    IssuedLetter,
    ItemClosed,
    ItemReferred,
    ItemReopened,
    ItemStarted,
    ItemWithdrawn,
    LetterChannel,
    ObjectionAccepted,
    ObjectionDecided,
    ObjectionDueConfirmed,
    ObjectionEvent,
    ObjectionReferralWithdrawn,
    ObjectionRouted,
    ObjectionWithdrawn,
    PropagationCompleted,
    PublicationChanged,
    RecordLetterIssued,
    RepairGranted,
    RepairNoticeServed,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewDueConfirmed,
    ReviewExpired,
    ReviewExtended,
    ReviewFact,
    ReviewNotAccepted,
    ReviewWithdrawn,
    SupplementRequested,
    VendorLetterIssued,
)

CHANNELS: dict[type[Event], tuple[Channel, ...]] = {
    RepairNoticeServed: (Channel.IN_APP, Channel.EMAIL),
    PublicationChanged: (Channel.IN_APP,),
    ApplicationSubmitted: (Channel.IN_APP, Channel.EMAIL),
    ItemReferred: (Channel.IN_APP,),
    ItemStarted: (Channel.IN_APP,),
    FollowUpDue: (Channel.IN_APP, Channel.EMAIL),
    ItemWithdrawn: (Channel.IN_APP,),
    ReviewAccepted: (Channel.IN_APP,),
    ReviewNotAccepted: (Channel.IN_APP, Channel.EMAIL),
    SupplementRequested: (Channel.IN_APP, Channel.EMAIL),
    ReviewDueConfirmed: (Channel.IN_APP,),
    ReviewExpired: (Channel.IN_APP, Channel.EMAIL),
    ReviewClosed: (Channel.IN_APP, Channel.EMAIL),
    ItemClosed: (Channel.IN_APP, Channel.EMAIL),
    ReviewExtended: (Channel.IN_APP,),
    ReviewWithdrawn: (Channel.IN_APP,),
    RepairGranted: (Channel.IN_APP,),
    RepairRecognised: (Channel.IN_APP,),
    RepairRefused: (Channel.IN_APP, Channel.EMAIL),
    RepairRevoked: (Channel.IN_APP, Channel.EMAIL),
    ItemReopened: (Channel.IN_APP,),
    ObjectionRouted: (Channel.IN_APP,),
    ObjectionAccepted: (Channel.IN_APP,),
    ObjectionDueConfirmed: (Channel.IN_APP,),
    ObjectionWithdrawn: (Channel.IN_APP,),
    ObjectionReferralWithdrawn: (Channel.IN_APP,),
    ObjectionDecided: (Channel.IN_APP, Channel.EMAIL),
    PropagationCompleted: (Channel.IN_APP,),
    ApplicationCompleted: (Channel.IN_APP, Channel.EMAIL),
    VendorLetterIssued: (Channel.IN_APP, Channel.EMAIL),
    RecordLetterIssued: (Channel.IN_APP, Channel.EMAIL),
}
"""The facts that are told. Everything is in the app; an e-mail goes out when a case begins, ends, when the
applicant has to act, or a right to object arises. The e-mail about a vendor letter is the letter itself, to the vendor."""

TellableEvent = (
    RepairNoticeServed
    | PublicationChanged
    | ApplicationSubmitted
    | ItemReferred
    | ItemStarted
    | FollowUpDue
    | ItemWithdrawn
    | ReviewAccepted
    | ReviewNotAccepted
    | SupplementRequested
    | ReviewDueConfirmed
    | ReviewExpired
    | ReviewClosed
    | ItemClosed
    | ReviewExtended
    | ReviewWithdrawn
    | RepairGranted
    | RepairRecognised
    | RepairRefused
    | RepairRevoked
    | ItemReopened
    | ObjectionRouted
    | ObjectionAccepted
    | ObjectionDueConfirmed
    | ObjectionWithdrawn
    | ObjectionReferralWithdrawn
    | ObjectionDecided
    | PropagationCompleted
    | ApplicationCompleted
    | VendorLetterIssued
    | RecordLetterIssued
)


@dataclass(frozen=True, slots=True)
class Notice:
    """One fact to be told to one subject by one channel; ``to_supervisor``: the copy of a vendor letter."""

    fact: str
    channel: Channel
    event: TellableEvent
    to_supervisor: bool = False

    @property
    def id(self) -> str:
        """Fact and channel: there is one message for each."""
        return notice_id(self.fact, self.channel)


def notice_id(fact: str, channel: Channel) -> str:
    """Id of the one notice of a fact by a channel."""
    return f"{fact}~{channel}"


def fact_id(event: TellableEvent) -> str:
    """What makes a fact the same fact, however often and under whatever event id it is reported.

    Event type and application, item, record or objection, and sync's version, or the round of a reopened item, where a fact can come again
    for the same item. All characters are
    both unreserved in URLs (RFC 3986, 2.3) and allowed in the left side of a Message-ID (atext, RFC 5322, 3.2.3).
    """
    match event:
        case RepairNoticeServed():
            return f"{event.TYPE}~{event.record_id}"
        case PublicationChanged():
            return f"{event.TYPE}~{event.record_id}~{event.revision}"
        case ApplicationSubmitted() | ApplicationCompleted():
            return f"{event.TYPE}~{event.application_id}"
        case PropagationCompleted():
            return f"{event.TYPE}~{event.item_id}~{event.version}"
        case IssuedLetter():
            return f"{event.TYPE}~{event.letter_id}"
        case FollowUpDue():
            return f"{event.TYPE}~{event.item_id}~{event.days}"
        case ObjectionDueConfirmed():
            return f"{event.TYPE}~{event.objection_id}~{event.decide_due_on}"
        case ObjectionEvent():
            return f"{event.TYPE}~{event.objection_id}"
        case ReviewDueConfirmed():
            return f"{event.TYPE}~{event.item_id}~{event.supplement_due_on or event.decide_due_on}"
        case ReviewFact() if event.round:
            return f"{event.TYPE}~{event.item_id}~r{event.round}"
        case _:
            return f"{event.TYPE}~{event.item_id}"


def notices(event: Event) -> list[Notice]:
    """What has to be told because of an event; nothing for most."""
    if not isinstance(event, TellableEvent):
        return []
    fact = fact_id(event)
    by_hand = isinstance(event, IssuedLetter) and event.channel is not LetterChannel.EMAIL
    # of a subject without an application intake knows whether it has left an address
    unknown = isinstance(event, RepairNoticeServed) and not event.by_email
    told = [
        Notice(fact, channel, event)
        for channel in CHANNELS[type(event)]
        if not ((by_hand or unknown) and channel is Channel.EMAIL)
    ]
    if isinstance(event, IssuedLetter) and event.copy_channel is LetterChannel.EMAIL:
        told.append(Notice(f"{fact}~copy", Channel.EMAIL, event, to_supervisor=True))
    return told


def application_of(event: TellableEvent) -> str | None:
    """The application of what is told; of an objection to a record its own id stands for one; None: about a record alone."""
    if isinstance(event, RepairNoticeServed | PublicationChanged | RecordLetterIssued):
        return None
    return event.application_id


def is_objection(application_id: str | None) -> bool:
    """Whether what stands for an application is an objection to a record."""
    return application_id is not None and application_id.startswith("obj_")


def distinct(events: Iterable[Event]) -> dict[str, tuple[int, Notice]]:
    """Notice id -> (position of the first event that asks for it, notice)."""
    found: dict[str, tuple[int, Notice]] = {}
    for position, event in enumerate(events):
        for notice in notices(event):
            found.setdefault(notice.id, (position, notice))
    return found


# --- what becomes of a mail


class MailState(StrEnum):
    """State of a mail. ``sending`` is held by a worker's lease; ``sent`` and ``failed`` are the ends."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a mail did not leave. ``reason`` (zh-CN) holds no address; ``permanent``: trying again is of no use."""

    reason: str
    permanent: bool


def state_after(failure: Failure, attempts: int, max_attempts: int) -> MailState:
    """Try again later, or give up. ``attempts`` counts the one that just failed."""
    return MailState.FAILED if failure.permanent or attempts >= max_attempts else MailState.PENDING


def refused(code: int, message: str) -> Failure:
    """A server's negative reply (RFC 5321, 4.2.1): 4yz is transient, 5yz permanent.

    Of its text only the enhanced status code (RFC 3463) is kept: the rest often repeats the address.
    """
    enhanced = message.split(maxsplit=1)[0] if message else ""
    digits = enhanced.replace(".", "")
    shown = f"SMTP {code}"
    if enhanced.count(".") == 2 and digits.isascii() and digits.isdigit() and len(digits) <= 7:
        shown += f" {enhanced}"
    permanent = 500 <= code < 600
    return Failure(f"{'邮件服务器拒收' if permanent else '邮件服务器暂不接收'}（{shown}）", permanent)
