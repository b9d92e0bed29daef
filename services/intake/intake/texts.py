"""What people read (zh-CN): the words for states, and the lines of a timeline."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime

from contracts.events import (
    ApplicationCompleted,
    FalseMaterial,
    Ground,
    ItemClosed,
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemReopened,
    ItemRouted,
    ItemWithdrawn,
    ObjectionAccepted,
    ObjectionDecided,
    ObjectionDueConfirmed,
    ObjectionEvent,
    ObjectionOutcome,
    ObjectionOverdue,
    ObjectionReferralWithdrawn,
    ObjectionReferred,
    ObjectionRouted,
    ObjectionWithdrawn,
    PropagationCompleted,
    PublicationChange,
    PublicationChanged,
    PublicationExpired,
    ReferralDueConfirmed,
    ReferralOverdue,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewClosed,
    ReviewDueConfirmed,
    ReviewExpired,
    ReviewExtended,
    ReviewNotAccepted,
    ReviewOverdue,
    ReviewStep,
    ReviewWithdrawn,
    SupplementReceived,
    SupplementRequested,
    TargetAcknowledged,
    TargetDrifted,
    TargetOverdue,
    TargetVerified,
    WithdrawalReason,
)
from contracts.http.mandate import Assistance
from contracts.records import DisplayState
from intake.domain.item import ItemStatus, TargetState

ITEM_STATUS = {
    ItemStatus.QUEUED: "排队中",
    ItemStatus.SUBMITTED: "已提交",
    ItemStatus.REFERRED: "人工分派中",
    ItemStatus.ROUTED: "已分派",
    ItemStatus.SUPPLEMENT: "待补正",
    ItemStatus.ACCEPTED: "已受理",
    ItemStatus.EXTENDED: "已延期",
    ItemStatus.GRANTED: "准予修复",
    ItemStatus.REFUSED: "不予修复",
    ItemStatus.SYNCING: "同步中",
    ItemStatus.REPAIRED: "已完成",
    ItemStatus.REVOKED: "已撤销修复",
    ItemStatus.NOT_ACCEPTED: "不予受理",
    ItemStatus.WITHDRAWN: "已撤回",
    ItemStatus.RECOGNISED: "已认可",
    ItemStatus.EXPIRED: "公示期满",
    ItemStatus.CLOSED: "无须修复",
}
TARGET_STATE = {
    TargetState.ACKNOWLEDGED: "已接收，待核验",
    TargetState.VERIFIED: "已核验一致",
    TargetState.DRIFTED: "展示不一致，重新同步中",
}
_RARE = {
    ItemOutcome.REVOKED: "修复被撤销",
    ItemOutcome.NOT_ACCEPTED: "不予受理",
    ItemOutcome.WITHDRAWN: "已撤回",
    ItemOutcome.RECOGNISED: "认可别处的修复",
    ItemOutcome.EXPIRED: "公示期满",
    ItemOutcome.CLOSED: "无须修复",
}
_OBJECTION_OUTCOME = {
    ObjectionOutcome.UPHELD: "成立",
    ObjectionOutcome.DISMISSED: "不成立",
    ObjectionOutcome.NOT_ACCEPTED: "不予受理",
}
_STEP = {ReviewStep.ACCEPT: "受理", ReviewStep.DECIDE: "作出决定"}
APPLICATION_STATUS = {"open": "办理中", "completed": "已完成"}
REOPENED = "重新办理中"
"""Of an application that was completed and of which an item is open again."""
_SHOWN = {
    DisplayState.PUBLISHED: "公示中",
    DisplayState.SHIELDED: "已临时屏蔽",
    DisplayState.PUBLICATION_ENDED: "已停止公示",
}
_CHANGE = {
    PublicationChange.WITHDRAWN: "记录已由其来源撤回，各平台随之停止公示",
    PublicationChange.PUBLISHED_AGAIN: "记录重新公示",
    PublicationChange.SHIELDED: "因破产重整、和解临时屏蔽（{number}），各平台随之暂停公示；本事项照常办理",
    PublicationChange.PLAN_PERFORMED: "重整计划、和解协议执行完毕（{number}），各平台随之终止公示",
    PublicationChange.REPAIRED_ELSEWHERE: "屏蔽期间{number}，各平台随之终止公示",
    PublicationChange.PLAN_FAILED: "重整计划、和解协议未能执行（{number}），恢复公示；本事项照常办理",
    PublicationChange.CORRECTED: "记录已更正（认定日期{decided_on}，处罚类别{penalty_kinds}），各平台随之更正；本事项照常办理",
}


HANDED_OVER = "所选记录不经平台办理：请凭编号到认定单位当面提交说明和材料，结果以当面送达的文书为准。"
"""What is added where records are handed over in person."""


def submitted(records: int, by: Assistance | None = None, *, confirmed: bool = False) -> str:
    """The first line of a timeline. ``confirmed``: with the commitment."""
    promised = "，并已确认信用信息修复承诺书" if confirmed else ""
    return f"申请已提交，共{records}项{_by(by)}{promised}。"


def _by(assistance: Assistance | None) -> str:
    return f"（由{assistance.agent.name}代办）" if assistance else ""


def ended(event: ApplicationCompleted) -> str:
    """The line that says that all items have ended."""
    number = Counter(item.outcome for item in event.items)
    others = "".join(f"，{number[outcome]}项{text}" for outcome, text in _RARE.items() if number[outcome])
    return f"申请已办结：{number[ItemOutcome.REPAIRED]}项完成修复，{number[ItemOutcome.REFUSED]}项不予修复{others}。"


def queued(document_number: str, first: Sequence[str]) -> str:
    """The line of an item that waits for others: their document numbers."""
    return f"{document_number}：排队中，待{'、'.join(first)}办理后自动开始。"


def started(document_number: str, granted: bool) -> str:
    """The line of an item whose turn has come."""
    if granted:
        return f"{document_number}：前置事项已准予修复，本事项开始办理。"
    return f"{document_number}：前置事项已结束但未获准予，本事项仍送认定单位，由其判断。"


def repaired_elsewhere(document_number: str, platform_name: str) -> str:
    """The line of an item whose record another platform has repaired."""
    return f"{document_number}：{platform_name}已修复该记录，予以认可，不再重复办理。"


def publication_changed(document_number: str, event: PublicationChanged) -> str:
    """The line of an open item whose record is shown otherwise from now on."""
    said = event.record.content
    line = _CHANGE[event.change].format(
        number=event.number,
        decided_on=said.decided_on.isoformat(),
        penalty_kinds=f"“{said.penalty_kinds}”" if said.penalty_kinds else "无",
    )
    return f"{document_number}：{line}。"


def nothing_left(event: PublicationChanged) -> str:
    """Why there is nothing left to repair, as departments and applicants are told; one sentence."""
    if event.change is PublicationChange.WITHDRAWN:
        return f"{event.number.removesuffix('。')}。记录已不再公示，无须修复。"
    return f"重整计划、和解协议已执行完毕（{event.number}），记录终止公示，无须另行修复。"


def closed(document_number: str, reason: str) -> str:
    """The line of a queued item that ends: there is nothing left to repair."""
    return f"{document_number}：{reason}该事项随之结束，您无需操作。"


def no_longer_queued(document_number: str) -> str:
    """The line of a queued item that need not wait any longer."""
    return f"{document_number}：不再排队，开始办理。"


def follow_up_due(document_number: str, days: int) -> str:
    """The line of an item that is followed up."""
    return f"{document_number}：修复满{days}天，请在“我的回访”中说明整改是否保持。"


def follow_up_answered(document_number: str, days: int, *, failing: bool) -> str:
    """The line of an item whose follow-up was answered."""
    return f"{document_number}：{days}天回访已答复，{'又有失信或整改未保持' if failing else '情况良好'}。"


def disputed(document_number: str, ground: Ground, reason: str, *, lifted: bool) -> str:
    """The line of an item that rests on what was found false at another item, or no longer counts as false."""
    made = f"{ground.department.name}（{ground.decision_number}）"
    if lifted:
        return f"{document_number}：{made}关于材料虚假的认定已被推翻，不再影响本事项。"
    return f"{document_number}：{made}认定本事项所依据的材料虚假（{reason}），已告知办理本事项的认定单位。"


def _finding(found: FalseMaterial | None) -> str:
    if found is None:
        return ""
    barred = f"，至{found.blocked_until.isoformat()}不得申请信用修复" if found.blocked_until else ""
    return f"认定提供虚假材料{barred}；对本结果可以提出异议。"


def objection_filed(document_number: str, by: Assistance | None) -> str:
    """The line of an item whose result is objected to."""
    return f"{document_number}：已对结果提出异议{_by(by)}；结果和公示不因此中止。"


def objection(document_number: str, event: ObjectionEvent) -> tuple[str, str, datetime] | None:
    """(machine name, text, time) of the line for an event about the objection to a result; None: it is not shown."""
    match event:
        case ObjectionReferred():
            kind, at = "objection_referred", event.referred_at
            text = f"异议转入“{event.queue_name}”，{event.due_on.isoformat()}前确定认定单位。"
        case ObjectionRouted():
            kind, at = "objection_routed", event.routed_at
            text = (
                f"异议由{event.department.name}办理，{event.accept_due_on.isoformat()}前决定是否受理，"
                f"{event.decide_due_on.isoformat()}前作出决定。"
            )
        case ObjectionAccepted():
            kind, at = "objection_accepted", event.accepted_at
            text = f"{event.department.name}已受理异议，正在核查。"
        case ObjectionWithdrawn() | ObjectionReferralWithdrawn():
            kind, at, text = "objection_withdrawn", event.withdrawn_at, "异议已撤回，没有作出决定。"
        case ObjectionDueConfirmed():
            kind, at = "objection_due_confirmed", event.confirmed_at
            text = (
                f"放假安排已公布，异议的期限重新计算：{event.accept_due_on.isoformat()}前决定是否受理，"
                f"{event.decide_due_on.isoformat()}前作出决定。"
            )
        case ObjectionOverdue():
            kind, at = "objection_overdue", event.noticed_at
            text = f"{event.department.name}应于{event.due_on.isoformat()}前就异议{_STEP[event.step]}，现已超期。"
        case ObjectionDecided():
            kind, at = f"objection_{event.outcome.value}", event.decided_at
            text = f"{event.department.name}：异议{_OBJECTION_OUTCOME[event.outcome]}。理由：{event.reason}"
        case _:
            return None
    return kind, f"{document_number}：{text}", at


def supplemented(document_number: str, by: Assistance | None) -> str:
    """The line of an item for which what was missing has been provided."""
    return f"{document_number}：补正已提交{_by(by)}，转送认定单位。"


def withdrawal_requested(document_number: str, by: Assistance | None) -> str:
    """The line of an item that the applicant wants to withdraw; whoever has it answers."""
    return f"{document_number}：已请求撤回{_by(by)}，待确认；此前已作出决定的，以决定为准。"


def withdrawn(document_number: str, by: Assistance | None) -> str:
    """The line of an item that was withdrawn before anybody had it."""
    return f"{document_number}：已撤回{_by(by)}。"


def publication_expired(document_number: str, event: PublicationExpired) -> str:
    """The record of an open item is no longer shown."""
    return f"{document_number}：公示期已于{event.ended_on.isoformat()}届满，公示自动终止（{event.source}）。"


_Dated = (
    ItemReferred
    | ItemRouted
    | SupplementRequested
    | SupplementReceived
    | ReviewExtended
    | ReviewDueConfirmed
    | ReferralDueConfirmed
)


def _day(day: date, event: _Dated) -> str:
    """A day as people read it. What is provisional says so: nobody is late before it is certain."""
    return f"{day.isoformat()}（暂定，当年放假安排尚未公布）" if event.due_provisional else day.isoformat()


def progress(document_number: str, event: ItemEvent, *, was_revoked: bool = False) -> tuple[str, str] | None:
    """(machine name, text) of the line for an event about an item; None for an event that is not shown.

    ``was_revoked``: its repair stands revoked, so that a grant of a new round restores it.
    """
    match event:
        case ItemReferred():
            kind = "referred"
            text = (
                f"转入“{event.queue_name}”，{_day(event.due_on, event)}前确定认定单位。原因：{event.reason}"
            )
        case ItemRouted():
            kind = "routed"
            text = f"已分派至{event.department.name}，{_day(event.decide_due_on, event)}前作出决定。"
        case ReferralOverdue():
            kind = "overdue"
            text = f"{event.queue_name}应于{event.due_on.isoformat()}前确定认定单位，现已超期，已告知督办。您无需操作。"
        case ItemWithdrawn():
            kind, text = "withdrawn", "已撤回。"
        case SupplementRequested():
            kind = "supplement_requested"
            text = (
                f"{event.department.name}告知需要补正：{'；'.join(event.missing)}。"
                f"请在{_day(event.supplement_due_on, event)}（含）前补正，逾期视为撤回；补正期间办理期限中止。"
            )
        case SupplementReceived():
            kind = "supplement_received"
            text = f"{event.department.name}已收到补正，{_day(event.decide_due_on, event)}前作出决定。"
        case ReviewAccepted():
            kind, text = "accepted", f"{event.department.name}已受理。"
        case ReviewNotAccepted():
            kind = "not_accepted"
            text = f"{event.department.name}不予受理。理由：{event.reason}"
        case ReviewExtended():
            kind = "extended"
            text = f"{event.department.name}延长办理期限至{_day(event.decide_due_on, event)}。理由：{event.reason}"
        case ReferralDueConfirmed():
            kind = "due_confirmed"
            text = f"放假安排已公布，分派期限为{_day(event.due_on, event)}。"
        case ReviewDueConfirmed():
            kind = "due_confirmed"
            text = f"放假安排已公布，办理期限为{_day(event.decide_due_on, event)}。"
            if event.supplement_due_on is not None:
                text = f"放假安排已公布，补正期限为{_day(event.supplement_due_on, event)}。"
        case ReviewOverdue():
            kind = "overdue"
            text = f"{event.department.name}应于{event.due_on.isoformat()}前{_STEP[event.step]}，现已超期。"
        case ReviewWithdrawn():
            kind = "withdrawn"
            lapsed = event.reason_code is WithdrawalReason.SUPPLEMENT_OVERDUE
            text = "逾期未补正，视为撤回；可以重新申请。" if lapsed else "已撤回。"
        case ItemReopened():
            kind = "reopened"
            text = (
                f"异议成立，由{event.department.name}重新办理，{event.decide_due_on.isoformat()}前作出决定。"
            )
        case RepairGranted() if event.round and was_revoked:
            kind = "restored"
            text = f"{event.department.name}恢复修复，决定书文号：{event.decision_number}，各平台随之同步。"
        case ReviewExpired():
            kind = "expired"
            text = f"公示期已于{event.ended_on.isoformat()}届满，公示自动终止，无需修复，该事项结束。"
        case ReviewClosed() | ItemClosed():
            kind, text = "closed", f"{event.reason}该事项随之结束，您无需操作。"
        case RepairGranted():
            kind = "granted"
            text = f"{event.department.name}准予修复，决定书文号：{event.decision_number}。"
        case RepairRecognised():
            kind = "recognised"
            text = f"认可{event.platform_name}的修复，决定书文号：{event.decision_number}，各平台随之同步。"
        case RepairRefused():
            kind = "refused"
            text = (
                f"{event.department.name}不予修复，决定书文号：{event.decision_number}。理由：{event.reason}"
                f"{_finding(event.false_material)}"
            )
        case RepairRevoked():
            kind = "revoked"
            text = (
                f"{event.department.name}撤销修复，恢复公示，决定书文号：{event.decision_number}。"
                f"理由：{event.reason}{_finding(event.false_material)}"
            )
        case TargetAcknowledged():
            kind, text = "target_acknowledged", f"{event.target_name}已接收处理结果，待核验。"
        case TargetVerified():
            kind = "target_verified"
            text = f"{event.target_name}已核验：{_SHOWN[event.state]}。"
        case TargetDrifted():
            kind = "target_drifted"
            shown = "更正前的内容" if event.outdated else f"“{_SHOWN[event.seen_state]}”"
            text = f"{event.target_name}实际展示{shown}，与决定不一致，将重新同步。"
        case TargetOverdue():
            kind = "target_overdue"
            text = f"{event.target_name}应于{event.due_on.isoformat()}前更新展示，现已超期，继续推送并核验。"
        case PropagationCompleted():
            kind, text = "propagated", f"{len(event.target_ids)}个平台均已核验一致：{_SHOWN[event.state]}。"
        case _:
            return None
    return kind, f"{document_number}：{text}"
