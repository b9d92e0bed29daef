"""函告: when a vendor that still shows a repaired record, or one as it was before its correction, is written to, and what the letters
say. Pure.

A finding is one stretch of time in which a vendor shows something else than what was decided; a later drift is another finding. A
finding has at most one letter of each step. A letter asks; it never threatens (domain notes, section 7).

A vendor that is told by letter alone gets a letter that tells the decision (``notice``): nobody has looked, so it claims nothing about
what is shown, and no report follows.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import IntEnum, StrEnum

from chassis.letter import Letter, LetterTable
from contracts.catalogue import LetterOffice, Protocol, Target
from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.events import LetterChannel, PublicationChange
from contracts.http.intake import Subject
from contracts.http.target import RecordView
from contracts.records import DisplayState, SubjectType
from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar
from sync.desired import Record, is_right
from sync.domain import Delivery


class LetterStep(IntEnum):
    """First letter; second, of which the supervisor gets a copy; report that prepares a decision to suspend sharing (暂停共享)."""

    FIRST = 1
    SECOND = 2
    REPORT = 3


STEP_TEXT = {
    LetterStep.FIRST: "函告",
    LetterStep.SECOND: "再次函告（抄送主管部门）",
    LetterStep.REPORT: "暂停共享建议报告",
}
_TITLES = {
    LetterStep.FIRST: "关于商请停止展示已修复失信记录的函",
    LetterStep.SECOND: "关于再次商请停止展示已修复失信记录的函",
    LetterStep.REPORT: "关于是否暂停共享信用信息的建议报告",
}
_CORRECTION_TITLES = {
    LetterStep.FIRST: "关于商请更正失信记录展示内容的函",
    LetterStep.SECOND: "关于再次商请更正失信记录展示内容的函",
    LetterStep.REPORT: _TITLES[LetterStep.REPORT],
}
_NOTICE_TITLES = {
    LetterStep.FIRST: "关于告知信用修复决定的函",
    LetterStep.SECOND: "关于再次告知信用修复决定的函",
}
_DECIDED = {
    DisplayState.PUBLICATION_ENDED: ("准予修复", "终止公示"),
    DisplayState.PUBLISHED: ("撤销修复", "恢复公示"),
}
_OTHERWISE = ("另作决定", "照该决定展示")
_CHANGED = {
    PublicationChange.WITHDRAWN: "已由其来源撤回，应当停止展示",
    PublicationChange.PUBLISHED_AGAIN: "重新公示，可以恢复展示",
    PublicationChange.SHIELDED: "在重整计划、和解协议执行期间临时屏蔽，应当暂停展示",
    PublicationChange.PLAN_PERFORMED: "因重整计划、和解协议已执行完毕，应当终止公示",
    PublicationChange.PLAN_FAILED: "因重整计划、和解协议未能执行，临时屏蔽结束，可以恢复展示",
    PublicationChange.REPAIRED_ELSEWHERE: "已在别处修复，应当终止公示",
    PublicationChange.CORRECTED: "内容已经更正，应当照更正后的内容展示",
}
_ASKED = {
    DisplayState.PUBLICATION_ENDED: "停止展示该记录（或将其标注为已修复）",
    DisplayState.PUBLISHED: "恢复展示该记录",
    DisplayState.SHIELDED: "暂停展示该记录，直至另行函告",
}
_ASKED_OF_CHANGED = {**_ASKED, DisplayState.PUBLICATION_ENDED: "停止展示该记录"}
_CHANGE_TITLES = {
    LetterStep.FIRST: "关于告知失信记录公示变动的函",
    LetterStep.SECOND: "关于再次告知失信记录公示变动的函",
}


class LetterState(StrEnum):
    """``draft`` waits for a person; ``released`` and ``discarded`` are what a person made of it; ``lapsed``: right before that."""

    DRAFT = "draft"
    RELEASED = "released"
    DISCARDED = "discarded"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class Sighting:
    """What the public was seen being shown, when; ``evidence``: hash of the reading's entry in the history; ``outdated``: with its
    content as it was before a correction.
    """

    shown: DisplayState | None
    at: datetime
    evidence: str
    outdated: bool = False


@dataclass(frozen=True)
class Answer:
    """What the vendor answered, as a person noted it. ``done``: it says that it shows what was decided; ``reference``: of its letter."""

    text: str
    received_on: date
    noted_by: str
    noted_at: datetime
    done: bool = False
    reference: str | None = None


@dataclass(frozen=True)
class Dispatch:
    """How a letter leaves. ``sent_by``: the mailer, or who took it there; ``reference``: of its posting; ``problem``: why it could not be mailed."""

    channel: LetterChannel
    sent_at: datetime | None = None
    sent_by: str | None = None
    reference: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class VendorLetter:
    """One letter of one finding. ``since``: from when on the vendor shows something else. ``printed``: the letter as it was released.

    ``item_id`` None: nobody decided on a repair, it tells what became of the record itself. ``due_on``: by when an answer is asked for.
    ``closed_at``: when the vendor was seen right, which ends the finding. ``seen`` None: it tells the decision alone. ``dispatch``: of a released letter, ``copy`` of the one for the supervisor; a report is not sent.
    """

    id: str
    finding: str
    step: LetterStep
    state: LetterState
    target_id: str
    record_id: str
    version: int
    application_id: str | None
    item_id: str | None
    subject_id: str
    since: datetime
    seen: Sighting | None
    official: Sighting | None
    drafted_at: datetime
    number: str | None = None
    released_at: datetime | None = None
    due_on: date | None = None
    decided_by: str | None = None
    reason: str | None = None
    printed: str | None = None
    answer: Answer | None = None
    closed_at: datetime | None = None
    dispatch: Dispatch | None = None
    copy: Dispatch | None = None

    @property
    def notice(self) -> bool:
        """Whether it tells the decision alone."""
        return self.seen is None


@dataclass(frozen=True)
class LetterPolicy:
    """``again_after``, ``report_after``: working days from a letter's sending to the next step, if the vendor still shows the record."""

    issuer: str
    contact: str | None
    series: str
    again_after: int
    report_after: int
    calendar: WorkCalendar = LIBRARY_CALENDAR


def finding_id(delivery: Delivery, record: Record) -> str:
    """The same as long as the vendor differs from the same decision without having been right in between."""
    since = delivery.differs_since
    return f"{delivery.id}|v{record.version}|{since:%Y%m%dT%H%M%S%f}"


def still_wrong(view: RecordView, record: Record) -> bool:
    """Whether a letter has something to say of what is seen: the record is shown, or shown as it was before its correction."""
    return view.state is DisplayState.PUBLISHED and not is_right(view, record)


def letter_id(finding: str, step: LetterStep) -> str:
    """``vlt_`` and 32 hex digits: there is one letter of each step of a finding."""
    return "vlt_" + hashlib.sha256(f"{finding}#{step.value}".encode()).hexdigest()[:32]


def next_step(
    delivery: Delivery,
    record: Record,
    target: Target,
    letters: Mapping[LetterStep, VendorLetter],
    policy: LetterPolicy,
    today: date,
) -> LetterStep | None:
    """Which letter of the finding is due to be drafted. Whether the vendor still shows the record has to be looked at then.

    A draft waits for a person, a letter that a person has to take there waits for that, and what a person discarded is not written again.
    """
    if delivery.differs_since is None:
        return None
    notice = target.protocol is Protocol.LETTER
    # one that can be looked at is asked to follow a decision, or to correct what it shows; of what a record's source told otherwise
    # nobody decided
    repaired = record.item_id is not None and record.state is DisplayState.PUBLICATION_ENDED
    outdated = delivery.seen_outdated and record.state is DisplayState.PUBLISHED
    if not (repaired or outdated or notice):
        return None
    if not letters:
        if notice:
            return LetterStep.FIRST
        if delivery.waits_for:  # those it has to agree with have not acknowledged themselves
            return None
        told = max(delivery.differs_since, record.decided_at)
        due = policy.calendar.working_days_after(china_date(told), target.time_limit_working_days)
        return LetterStep.FIRST if today > due.on else None
    last = letters[max(letters)]
    patient = patient_until(last, policy)
    return LetterStep(last.step + 1) if patient is not None and today > patient else None


def patient_until(letter: VendorLetter, policy: LetterPolicy) -> date | None:
    """The last day on which its answer is waited for before the next step is drafted; None: no step follows, or it has not left."""
    if letter.state is not LetterState.RELEASED or letter.dispatch is None or letter.dispatch.sent_at is None:
        return None
    if letter.notice and letter.step is LetterStep.SECOND:
        return None
    days = policy.again_after if letter.step is LetterStep.FIRST else policy.report_after
    return policy.calendar.working_days_after(china_date(letter.dispatch.sent_at), days).on


def again_at(letter: VendorLetter, policy: LetterPolicy) -> datetime | None:
    """When the next step is to be looked at: the beginning, in China, of the day after."""
    last = patient_until(letter, policy)
    return None if last is None else datetime.combine(last + timedelta(days=1), time(), CHINA_STANDARD_TIME)


def dispatches(step: LetterStep, office: LetterOffice) -> tuple[Dispatch | None, Dispatch | None]:
    """How a letter and its copy for the supervisor leave; a report goes to nobody."""
    if step is LetterStep.REPORT:
        return None, None
    copied = step is LetterStep.SECOND and office.supervisor is not None
    return Dispatch(_channel(office.email)), Dispatch(_channel(office.supervisor_email)) if copied else None


def _channel(address: str | None) -> LetterChannel:
    return LetterChannel.EMAIL if address else LetterChannel.DOWNLOAD


def closed(letter: VendorLetter, now: datetime) -> VendorLetter:
    """A letter whose finding is over; a draft has become pointless."""
    state = LetterState.LAPSED if letter.state is LetterState.DRAFT else letter.state
    return replace(letter, state=state, closed_at=now)


def ended(letter: VendorLetter, delivery: Delivery | None, record: Record | None) -> bool:
    """Whether the finding of a letter is over: the vendor was seen right, or something else was decided."""
    if delivery is None or record is None or delivery.differs_since is None:
        return True
    return finding_id(delivery, record) != letter.finding


def compose(
    letter: VendorLetter,
    record: Record,
    target: Target,
    office: LetterOffice,
    subject: Subject,
    official_name: str | None,
    before: Mapping[LetterStep, VendorLetter],
    policy: LetterPolicy,
    today: date,
) -> Letter:
    """The letter as it would be, or is, released. ``before``: the released letters of the finding."""
    report = letter.step is LetterStep.REPORT
    due = letter.due_on or answer_by(letter.step, policy, today)
    paragraphs = [_decided(record, subject)]
    if record.content is not None and record.state is DisplayState.PUBLISHED:
        paragraphs.append(
            f"该记录的内容经更正为：认定日期{_day(record.content.decided_on)}，"
            f"处罚类别“{record.content.penalty_kinds or '无'}”。请以此为准。"
        )
    what = "决定" if record.item_id else "变动"
    if letter.seen is None:
        paragraphs.append(f"贵单位（{target.name}）目前没有与我平台相连的接口，谨以函告知上述{what}。")
    else:
        pushed, seen = ("更正", "更正前的内容") if letter.seen.outdated else ("修复结果", "该记录")
        paragraphs.append(
            f"自{_time(max(letter.since, record.decided_at))}起，{target.name}的展示与上述{what}不一致，我平台持续推送{pushed}；"
            f"截至{_time(letter.seen.at)}查看，{target.name}仍向公众展示{seen}。"
        )
    written = [before[step] for step in sorted(before) if step < letter.step]
    if written:
        told = "、".join(f"{_day(each.released_at)}（{each.number}）" for each in written)
        answers = [each.answer for each in written if each.answer]
        said = f"，{target.name}答复：“{answers[-1].text}”" if answers else "，至今未收到答复"
        already = "已先后于" if len(written) > 1 else "已于"
        paragraphs.append(f"我平台{already}{told}函告{said}。")
    if report:
        closing = (
            f"建议：请研究是否由“信用中国”暂停向{target.name}共享信用信息，直至其展示与“信用中国”一致。"
            "是否暂停、何时恢复，由有权单位决定。"
        )
    elif letter.notice:
        asked = (_ASKED if record.item_id else _ASKED_OF_CHANGED).get(record.state, "按上述决定展示")
        if record.state is DisplayState.PUBLISHED and change_of(record) is PublicationChange.CORRECTED:
            asked = "照更正后的内容展示该记录"
        closing = (
            f"为使公众所见与上述{what}一致，商请贵单位于{_day(due)}前{asked}，将办理结果函复我平台，并写明本函文号。"
            "如所述与贵单位掌握的情况不符，也请函告，以便共同核实。"
        )
    else:
        corrected = letter.seen is not None and letter.seen.outdated
        asked = "照更正后的内容展示该记录" if corrected else "停止展示该记录（或将其标注为已修复）"
        closing = (
            f"为使公众所见与“信用中国”网站一致，商请贵单位核对，并于{_day(due)}前{asked}，"
            "将处理结果函复我平台。如所述与贵单位掌握的情况不符，也请函告，以便共同核实。"
        )
    return Letter(
        issuer=policy.issuer,
        title=_title(letter),
        number=letter.number or "（编号待签发）",
        addressee=(office.supervisor or "信用主管部门") if report else office.office,
        paragraphs=tuple(paragraphs),
        table=_evidence(letter, target, official_name),
        closing=(closing,),
        basis=()
        if report
        else (
            "《信用修复管理办法》（国家发展改革委令第36号）关于第三方信用服务机构与“信用中国”网站保持一致的规定",
        ),
        dated=china_date(letter.released_at) if letter.released_at else today,
        contact=policy.contact,
        copies_to=(office.supervisor,) if letter.step is LetterStep.SECOND and office.supervisor else (),
        note=_note(letter),
    )


def _title(letter: VendorLetter) -> str:
    if letter.seen is not None:
        return (_CORRECTION_TITLES if letter.seen.outdated else _TITLES)[letter.step]
    return (_NOTICE_TITLES if letter.item_id else _CHANGE_TITLES)[letter.step]


def _note(letter: VendorLetter) -> str | None:
    if letter.step is LetterStep.REPORT:
        return "本报告由平台根据事实整理，供负责人研究；未经负责人决定，不送任何单位。"
    if letter.notice:
        return None
    return (
        "时间均为北京时间。证据摘要是该次查看在我平台防篡改历史中的记录摘要（前16位），需要时可提供全文核对。"
    )


def answer_by(step: LetterStep, policy: LetterPolicy, released_on: date) -> date:
    """By when an answer is asked for: the last day before the next step."""
    days = policy.again_after if step is LetterStep.FIRST else policy.report_after
    return policy.calendar.working_days_after(released_on, days).on


def _decided(record: Record, subject: Subject) -> str:
    # a vendor is never told of natural persons (catalogue), and no ID number is ever written
    code = "" if subject.subject_type is SubjectType.NATURAL_PERSON else f"（统一社会信用代码{subject.code}）"
    decided_on = record.content.decided_on if record.content else record.facts.decided_on
    recorded = (
        f"{subject.name}{code}因{record.facts.authority_name}{_day(decided_on)}作出的"
        f"{record.facts.document_number}被记入失信记录，"
    )
    if record.item_id is None:
        changed = "公示期已届满，应当终止公示" if (change := change_of(record)) is None else _CHANGED[change]
        return f"{recorded}自{_day(record.decided_at)}起{changed}（依据：{record.decision_number}）。"
    decided, shown = _DECIDED.get(record.state, _OTHERWISE)
    return f"{recorded}已于{_day(record.decided_at)}经信用修复决定（{record.decision_number}）{decided}，应当{shown}。"


def change_of(record: Record) -> PublicationChange | None:
    """What became of a record on its own account, where that prevails; None: its period has passed, or a repair was decided on."""
    if record.item_id is not None or record.expired or record.word is None:
        return None
    return record.word.change


def _evidence(letter: VendorLetter, target: Target, official_name: str | None) -> LetterTable | None:
    if letter.seen is None:
        return None
    corrected = letter.seen.outdated
    rows = (
        []
        if letter.official is None
        else [_row(official_name or "信用中国", letter.official, corrected=corrected)]
    )
    rows.append(_row(target.name, letter.seen, corrected=corrected))
    return LetterTable(head=("网站", "查看时间", "所见", "证据摘要"), rows=tuple(rows))


def _row(name: str, sighting: Sighting, *, corrected: bool) -> tuple[str, str, str, str]:
    content = "更正前的内容" if sighting.outdated else "更正后的内容"
    published = content if corrected else "仍在公示"
    shown = published if sighting.shown is DisplayState.PUBLISHED else "已不公示"
    return name, _time(sighting.at), shown, sighting.evidence.rpartition(":")[2][:16]


def _time(moment: datetime) -> str:
    local = moment.astimezone(CHINA_STANDARD_TIME)
    return f"{_day(local)}{local:%H:%M}"


def _day(day: date | datetime | None) -> str:
    if day is None:
        return "—"
    if isinstance(day, datetime):
        day = china_date(day)
    return f"{day.year}年{day.month}月{day.day}日"
