"""notify: one message per fact and channel in any order, texts, mail composition, settings."""

import json
import socket
from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default as default_policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.catalogue import load_catalogue
from contracts.events import (
    EVENTS,
    ApplicationCompleted,
    ApplicationSubmitted,
    Channel,
    Event,
    FollowUpDue,
    IssuedLetter,
    ItemClosed,
    ItemRouted,
    LetterChannel,
    ObjectionDecided,
    ObjectionKind,
    PropagationCompleted,
    PublicationChange,
    RecordLetterIssued,
    RepairNoticeServed,
    RepairRefused,
    RepairRevoked,
    ReviewClosed,
    ReviewExpired,
    ReviewNotAccepted,
    SupplementRequested,
    VendorLetterIssued,
)
from contracts.records import DisplayState
from notify.domain import (
    CHANNELS,
    Failure,
    MailState,
    Notice,
    application_of,
    distinct,
    notices,
    refused,
    state_after,
)
from notify.settings import NotifySettings
from notify.smtp import MailServer, compose
from notify.store import Mail
from notify.texts import Text, Texts, template_name

EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
TARGET_NAMES = {target.id: target.name for target in load_catalogue().targets}
TEXTS = Texts(TARGET_NAMES)
ACCENTED = Mail(
    id="f~email",
    fact=f"{ApplicationCompleted.TYPE}~app_{'0' * 32}",
    subject_id="sub_" + "0" * 32,
    application_id="app_" + "0" * 32,
    subject_line="您的信用修复申请已全部办结，各公示平台均已核验更新，请登录后查看每一项的办理结果",
    text=".\n..起首的点不能丢\n" + "长" * 2000,
    attempts=1,
    lease="",
    trace={},
)
SENDER = Address("信复", addr_spec="no-reply@credit.example.org")
NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)


def _example(event_type: str) -> Event:
    data = json.loads((EXAMPLES / f"{event_type}.json").read_text(encoding="utf-8"))["data"]
    return EVENTS[event_type].model_validate(data)


def _events() -> list[Event]:
    """All examples, once for each of two applications, and the propagation of two versions."""
    first = [_example(event_type) for event_type in EVENTS]
    other = {
        name: prefix + "f" * 32
        for name, prefix in (
            ("application_id", "app_"),
            ("item_id", "itm_"),
            ("record_id", "rec_"),
            ("letter_id", "vlt_"),
            ("objection_id", "obj_"),
        )
    }
    second = [
        event.model_copy(update={k: v for k, v in other.items() if hasattr(event, k)}) for event in first
    ]
    again = [
        event.model_copy(update={"version": 2, "state": DisplayState.PUBLISHED})
        for event in first
        if isinstance(event, PropagationCompleted)
    ]
    return [*first, *second, *again]


ALL = _events()


def _tell(batches: list[list[Event]]) -> dict[str, tuple[Notice, Text]]:
    """What is stored after these batches, as the handler does it: look up, then tell what is not there."""
    stored: dict[str, tuple[Notice, Text]] = {}
    for batch in batches:
        wanted = distinct(batch)
        for notice_id, (position, notice) in wanted.items():
            assert batch[position] == notice.event
            if notice_id not in stored:
                stored[notice_id] = (notice, TEXTS.render(notice.event, notice.channel))
    return stored


IN_ORDER = _tell([ALL])


@given(
    st.permutations(ALL),
    st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, len(ALL) * 2))),
    st.lists(st.integers(1, 7)),
)
def test_any_order_repetition_and_batching_tells_the_same(
    order: list[Event], repeated: list[tuple[Event, int]], sizes: list[int]
) -> None:
    events = list(order)
    for event, position in repeated:
        events.insert(position, event)
    batches = []
    for size in sizes:
        batches.append(events[:size])
        events = events[size:]
    assert _tell([*batches, events]) == IN_ORDER


def test_one_message_for_each_fact_and_channel() -> None:
    by_channel = {
        channel: [notice.fact for notice, _ in IN_ORDER.values() if notice.channel is channel]
        for channel in Channel
    }
    told = [event for event in ALL if type(event) in CHANNELS]
    mailed = (
        ApplicationSubmitted,
        FollowUpDue,
        SupplementRequested,
        ReviewExpired,
        ReviewClosed,
        ItemClosed,
        RepairNoticeServed,
        ReviewNotAccepted,
        RepairRefused,
        RepairRevoked,
        ObjectionDecided,
        ApplicationCompleted,
        IssuedLetter,
    )
    # each told event of ALL is a fact of its own
    assert len(by_channel[Channel.IN_APP]) == len(set(by_channel[Channel.IN_APP])) == len(told) == 31 * 2 + 1
    assert len(by_channel[Channel.EMAIL]) == sum(isinstance(event, mailed) for event in told) == 28
    assert set(by_channel[Channel.EMAIL]) < set(by_channel[Channel.IN_APP])


def test_a_vendor_letter_is_told_to_the_applicant_and_mailed_to_the_vendor_or_taken_by_hand() -> None:
    event = _example(VendorLetterIssued.TYPE)
    assert isinstance(event, VendorLetterIssued)
    told, mailed = (TEXTS.render(event, channel) for channel in (Channel.IN_APP, Channel.EMAIL))
    assert event.application_id in told.text
    assert event.application_id not in mailed.title + mailed.text
    assert event.number in mailed.title
    by_hand = event.model_copy(update={"channel": LetterChannel.DOWNLOAD})
    assert [notice.channel for notice in notices(by_hand)] == [Channel.IN_APP]
    second = by_hand.model_copy(update={"step": 2, "copy_channel": LetterChannel.EMAIL})
    _, copied = notices(second)
    assert (copied.channel, copied.to_supervisor) == (Channel.EMAIL, True)
    assert copied.id != notices(event)[1].id, "the copy is a mail of its own"
    text = TEXTS.render(second, Channel.EMAIL, to_supervisor=True)
    assert text.title.startswith("抄送：再次函告企查查")
    notice = event.model_copy(update={"notice": True})
    assert not [words for words in TEXTS.render(notice) if "仍" in words], "nobody has looked"


@pytest.mark.parametrize("cls", [VendorLetterIssued, RecordLetterIssued])
def test_a_letter_about_old_content_asks_for_the_correction_and_speaks_of_no_repair(
    cls: type[VendorLetterIssued | RecordLetterIssued],
) -> None:
    about = {"notice": False, "state": DisplayState.PUBLISHED, "channel": LetterChannel.EMAIL}
    changed = {"change": PublicationChange.CORRECTED} if cls is RecordLetterIssued else {}
    event = _example(cls.TYPE).model_copy(update={**about, **changed})
    assert isinstance(event, VendorLetterIssued | RecordLetterIssued)
    told, mailed = (TEXTS.render(event, channel) for channel in (Channel.IN_APP, Channel.EMAIL))
    assert "仍展示更正前的内容" in told.text
    assert "商请更正失信记录的展示内容" in mailed.title
    for text in (told.text, mailed.text):
        assert "照更正后的内容展示" in text
        assert not [
            words for words in ("已修复", "准予修复", "停止展示", "恢复展示", "只能以函") if words in text
        ]


def test_other_events_tell_nothing() -> None:
    assert notices(_example(ItemRouted.TYPE)) == []


@pytest.mark.parametrize("cls", CHANNELS, ids=template_name)
def test_texts_are_chinese_complete_and_hold_no_markup(cls: type[Event]) -> None:
    notice = notices(_example(cls.TYPE))[0]
    title, text = TEXTS.render(notice.event)
    assert title
    assert "\n" not in title
    assert any("\u4e00" <= c <= "\u9fff" for c in title)
    # what is about a record alone names the record
    known = application_of(notice.event) or _example(cls.TYPE).model_dump()["record"]["document_number"]
    assert known in text
    assert not any(left in title + text for left in ("{{", "{%", "None", "Undefined", "&#", "datetime"))


def test_a_day_is_a_day_in_china() -> None:
    submitted = _example(ApplicationSubmitted.TYPE).model_copy(update={"submitted_at": NOW})
    assert isinstance(submitted, ApplicationSubmitted)
    assert "2026年11月24日" in TEXTS.render(submitted).text


def test_refusal_gives_the_reason_as_it_is_and_the_remedies() -> None:
    reason = '罚款未缴清：{{ event }} <b>"&"</b> {% raw %}'
    refused_event = _example(RepairRefused.TYPE).model_copy(update={"reason": reason})
    assert isinstance(refused_event, RepairRefused)
    text = TEXTS.render(refused_event).text
    assert reason in text
    assert "行政复议" in text
    assert "行政诉讼" in text


def test_completion_counts_and_targets_have_names() -> None:
    completed = _example(ApplicationCompleted.TYPE)
    assert isinstance(completed, ApplicationCompleted)
    assert "共3项：已修复2项，不予修复1项" in TEXTS.render(completed).text
    propagated = _example(PropagationCompleted.TYPE)
    assert isinstance(propagated, PropagationCompleted)
    text = TEXTS.render(propagated).text
    assert [line[2:] for line in text.splitlines() if line.startswith("- ")] == [
        TARGET_NAMES[target_id] for target_id in propagated.target_ids
    ]
    unknown = propagated.model_copy(update={"target_ids": ("left-the-catalogue",)})
    assert "- left-the-catalogue" in TEXTS.render(unknown).text


def test_a_line_break_in_data_does_not_leave_the_title() -> None:
    event = _example(RepairRefused.TYPE)
    assert isinstance(event, RepairRefused)
    record = event.record.model_copy(update={"document_number": "杭环罚\r\nBcc: x@example.org\n号"})
    title, _ = TEXTS.render(event.model_copy(update={"record": record}))
    # the first line ends where the data breaks it: nothing can follow it as a header
    assert title.splitlines() == [title]


# --- mails


def test_mail_on_the_wire() -> None:
    message = compose(ACCENTED, SENDER, "applicant@example.org", NOW)
    raw = message.as_bytes()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    read = message_from_bytes(raw, policy=default_policy)
    assert f"Message-ID: <{ACCENTED.fact}@credit.example.org>\r\n".encode() in raw
    assert read["Subject"] == ACCENTED.subject_line
    assert read["From"].addresses[0].display_name == "信复"
    assert [address.addr_spec for address in read["To"].addresses] == ["applicant@example.org"]
    assert read.get_content().replace("\r\n", "\n").rstrip("\n") == ACCENTED.text


def test_the_same_fact_has_the_same_message_id() -> None:
    ids = {compose(ACCENTED, SENDER, "a@example.org", NOW)["Message-ID"] for _ in range(2)}
    assert len(ids) == 1


@given(st.text(max_size=80))
@example("a@example.org\r\nBcc: b@example.org")
@example("a@example.org, b@example.org")
@example("a@example.org> SIZE=1")
@example("<a@example.org>")
@example("=?utf-8?q?a?=@example.org")
@example("@")
@example("申请人@例子.中国")
def test_an_address_is_one_mailbox_or_refused(address: str) -> None:
    try:
        message = compose(ACCENTED, SENDER, address, NOW)
    except ValueError:
        return
    assert [each.addr_spec for each in message["To"].addresses] == [address]
    headers = message.as_bytes().partition(b"\r\n\r\n")[0].decode()
    names = [line.partition(":")[0] for line in headers.split("\r\n") if not line.startswith((" ", "\t"))]
    assert sorted(names) == sorted(message.keys())


def test_a_header_with_a_line_break_is_refused() -> None:
    broken = Mail(
        **{name: getattr(ACCENTED, name) for name in Mail.__slots__} | {"subject_line": "一\r\nBcc: b@c.d"}
    )
    with pytest.raises(ValueError, match="linefeed"):
        compose(broken, SENDER, "a@example.org", NOW)


@pytest.mark.parametrize(
    ("code", "message", "permanent", "shown"),
    [
        (550, "5.1.1 <a@example.org>: user unknown", True, "SMTP 550 5.1.1"),
        (552, "mailbox of a@example.org full", True, "SMTP 552"),
        (451, "4.3.0 try again", False, "SMTP 451 4.3.0"),
        (421, "", False, "SMTP 421"),
        (550, "a.b@example.org unknown", True, "SMTP 550"),
    ],
)
def test_replies_are_classified_and_hold_no_address(
    code: int, message: str, permanent: bool, shown: str
) -> None:
    failure = refused(code, message)
    assert failure.permanent is permanent
    assert failure.reason.endswith(f"（{shown}）")
    assert "@" not in failure.reason


def test_a_transient_failure_ends_with_the_last_attempt() -> None:
    transient = Failure("x", permanent=False)
    assert state_after(transient, 2, 3) is MailState.PENDING
    assert state_after(transient, 3, 3) is MailState.FAILED
    assert state_after(Failure("x", permanent=True), 1, 3) is MailState.FAILED


class _Moody:
    """Handler of a real SMTP server whose answer depends on the recipient."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def handle_RCPT(  # noqa: N802
        self, server: object, session: object, envelope: Any, address: str, options: object
    ) -> str:
        if address.startswith("gone"):
            return f"550 5.1.1 <{address}>: user unknown"
        if address.startswith("grey"):
            return "450 4.2.0 greylisted"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: object, envelope: Any) -> str:  # noqa: N802
        address = envelope.rcpt_tos[0]
        if address.startswith("spam"):
            return "554 5.7.1 rejected"
        if address.startswith("hangup"):
            server.transport.close()
        self.taken.append(address)
        return "250 2.0.0 taken"


async def test_one_connection_sends_what_it_can_and_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    mood = _Moody()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(mood, hostname="127.0.0.1", port=port)
    server.start()
    try:
        results: dict[str, Failure | None] = {}
        async with MailServer(_settings(monkeypatch, NOTIFY_SMTP_PORT=str(port))).connect() as connection:
            for name in ("first", "gone", "second", "grey", "spam", "third", "hangup"):
                results[name] = await connection.send(compose(ACCENTED, SENDER, f"{name}@example.org", NOW))
            assert not connection.usable
        assert mood.taken == [f"{name}@example.org" for name in ("first", "second", "third", "hangup")]
        assert [name for name, failure in results.items() if failure is None] == ["first", "second", "third"]
        permanent = [name for name, failure in results.items() if failure and failure.permanent]
        assert permanent == ["gone", "spam"]
        assert not any("@" in failure.reason for failure in results.values() if failure)
    finally:
        server.stop()


# --- settings

GOOD = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "MONGODB_URI": "mongodb://127.0.0.1:1",
    "XINFU_OIDC_ISSUER": "http://127.0.0.1:1",
    "NOTIFY_INTAKE_URL": "http://127.0.0.1:1",
    "NOTIFY_SYNC_URL": "http://127.0.0.1:1",
    "NOTIFY_CLIENT_SECRET": "s",
    "NOTIFY_SMTP_HOST": "127.0.0.1",
    "NOTIFY_SMTP_FROM": "信复 <no-reply@example.org>",
}


def _settings(monkeypatch: pytest.MonkeyPatch, **more: str) -> NotifySettings:
    for name, value in (GOOD | more).items():
        monkeypatch.setenv(name, value)
    return NotifySettings()


def test_settings_read_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = _settings(monkeypatch).sender
    assert (sender.display_name, sender.addr_spec) == ("信复", "no-reply@example.org")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"NOTIFY_SMTP_FROM": "nobody"}, "write one address"),
        ({"NOTIFY_SMTP_USERNAME": "u"}, "NOTIFY_SMTP_PASSWORD"),
        ({"NOTIFY_SMTP_USERNAME": "u", "NOTIFY_SMTP_PASSWORD": "p"}, "in clear"),
        ({"NOTIFY_SMTP_IMPLICIT_TLS": "true", "NOTIFY_SMTP_STARTTLS": "always"}, "not both"),
        ({"NOTIFY_EMAIL_LEASE_SECONDS": "60"}, "at least 4 times"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        _settings(monkeypatch, **more)


def test_an_objection_to_a_record_is_told_and_mailed_and_a_decision_made_again_is_told_again() -> None:
    event = _example(ObjectionDecided.TYPE).model_copy(update={"kind": ObjectionKind.RECORD})
    assert [notice.channel for notice in notices(event)] == [Channel.IN_APP, Channel.EMAIL]
    refused_event = _example(RepairRefused.TYPE)
    again = refused_event.model_copy(update={"round": 1})
    assert len({notice.id for each in (refused_event, again) for notice in notices(each)}) == 4
