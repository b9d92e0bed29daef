"""What people read (zh-CN): the words for states, and the lines of a timeline."""

from collections import Counter
from collections.abc import Sequence

from contracts.events import (
    ApplicationCompleted,
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemRouted,
    ItemWithdrawn,
    PropagationCompleted,
    ReferralOverdue,
    RepairGranted,
    RepairRecognised,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    ReviewExtended,
    ReviewNotAccepted,
    ReviewOverdue,
    ReviewStep,
    ReviewWithdrawn,
    SupplementReceived,
    SupplementRequested,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
    WithdrawalReason,
)
from contracts.http.mandate import Assistance
from contracts.records import DisplayState
from intake.domain import ItemStatus, TargetState

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
}
_STEP = {ReviewStep.ACCEPT: "受理", ReviewStep.DECIDE: "作出决定"}
APPLICATION_STATUS = {"open": "办理中", "completed": "已完成"}
_SHOWN = {DisplayState.PUBLISHED: "公示中", DisplayState.PUBLICATION_ENDED: "已停止公示"}


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


def no_longer_queued(document_number: str) -> str:
    """The line of a queued item that need not wait any longer."""
    return f"{document_number}：不再排队，开始办理。"


def follow_up_due(document_number: str, days: int) -> str:
    """The line of an item that is followed up."""
    return f"{document_number}：修复满{days}天，请在“我的回访”中说明整改是否保持。"


def follow_up_answered(document_number: str, days: int, *, failing: bool) -> str:
    """The line of an item whose follow-up was answered."""
    return f"{document_number}：{days}天回访已答复，{'又有失信或整改未保持' if failing else '情况良好'}。"


def supplemented(document_number: str, by: Assistance | None) -> str:
    """The line of an item for which what was missing has been provided."""
    return f"{document_number}：补正已提交{_by(by)}，转送认定单位。"


def withdrawal_requested(document_number: str, by: Assistance | None) -> str:
    """The line of an item that the applicant wants to withdraw; whoever has it answers."""
    return f"{document_number}：已请求撤回{_by(by)}，待确认；此前已作出决定的，以决定为准。"


def withdrawn(document_number: str, by: Assistance | None) -> str:
    """The line of an item that was withdrawn before anybody had it."""
    return f"{document_number}：已撤回{_by(by)}。"


def progress(document_number: str, event: ItemEvent) -> tuple[str, str] | None:
    """(machine name, text) of the line for an event about an item; None for an event that is not shown."""
    match event:
        case ItemReferred():
            kind = "referred"
            text = f"转入“{event.queue_name}”，{event.due_on.isoformat()}前确定认定单位。原因：{event.reason}"
        case ItemRouted():
            kind = "routed"
            text = f"已分派至{event.department.name}，{event.decide_due_on.isoformat()}前作出决定。"
        case ReferralOverdue():
            kind = "overdue"
            text = f"{event.queue_name}应于{event.due_on.isoformat()}前确定认定单位，现已超期，已告知督办。您无需操作。"
        case ItemWithdrawn():
            kind, text = "withdrawn", "已撤回。"
        case SupplementRequested():
            kind = "supplement_requested"
            text = (
                f"{event.department.name}告知需要补正：{'；'.join(event.missing)}。"
                f"请在{event.supplement_due_on.isoformat()}（含）前补正，逾期视为撤回；补正期间办理期限中止。"
            )
        case SupplementReceived():
            kind = "supplement_received"
            text = f"{event.department.name}已收到补正，{event.decide_due_on.isoformat()}前作出决定。"
        case ReviewAccepted():
            kind, text = "accepted", f"{event.department.name}已受理。"
        case ReviewNotAccepted():
            kind = "not_accepted"
            text = f"{event.department.name}不予受理。理由：{event.reason}"
        case ReviewExtended():
            kind = "extended"
            text = f"{event.department.name}延长办理期限至{event.decide_due_on.isoformat()}。理由：{event.reason}"
        case ReviewOverdue():
            kind = "overdue"
            text = f"{event.department.name}应于{event.due_on.isoformat()}前{_STEP[event.step]}，现已超期。"
        case ReviewWithdrawn():
            kind = "withdrawn"
            lapsed = event.reason_code is WithdrawalReason.SUPPLEMENT_OVERDUE
            text = "逾期未补正，视为撤回；可以重新申请。" if lapsed else "已撤回。"
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
            )
        case RepairRevoked():
            kind = "revoked"
            text = (
                f"{event.department.name}撤销修复，恢复公示，决定书文号：{event.decision_number}。"
                f"理由：{event.reason}"
            )
        case TargetAcknowledged():
            kind, text = "target_acknowledged", f"{event.target_name}已接收处理结果，待核验。"
        case TargetVerified():
            kind = "target_verified"
            text = f"{event.target_name}已核验：{_SHOWN[event.state]}。"
        case TargetDrifted():
            kind = "target_drifted"
            text = f"{event.target_name}实际展示“{_SHOWN[event.seen_state]}”，与决定不一致，将重新同步。"
        case PropagationCompleted():
            kind, text = "propagated", f"{len(event.target_ids)}个平台均已核验一致：{_SHOWN[event.state]}。"
        case _:
            return None
    return kind, f"{document_number}：{text}"
