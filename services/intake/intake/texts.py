"""What people read (zh-CN): the words for states, and the lines of a timeline."""

from collections import Counter

from contracts.events import (
    ApplicationCompleted,
    ItemEvent,
    ItemOutcome,
    ItemReferred,
    ItemRouted,
    PropagationCompleted,
    RepairGranted,
    RepairRefused,
    RepairRevoked,
    ReviewAccepted,
    TargetAcknowledged,
    TargetDrifted,
    TargetVerified,
)
from contracts.records import DisplayState
from intake.domain import ItemStatus, TargetState

ITEM_STATUS = {
    ItemStatus.SUBMITTED: "已提交",
    ItemStatus.REFERRED: "人工分派中",
    ItemStatus.ROUTED: "已分派",
    ItemStatus.ACCEPTED: "已受理",
    ItemStatus.GRANTED: "准予修复",
    ItemStatus.REFUSED: "不予修复",
    ItemStatus.SYNCING: "同步中",
    ItemStatus.REPAIRED: "已完成",
    ItemStatus.REVOKED: "已撤销修复",
}
TARGET_STATE = {
    TargetState.ACKNOWLEDGED: "已接收，待核验",
    TargetState.VERIFIED: "已核验一致",
    TargetState.DRIFTED: "展示不一致，重新同步中",
}
APPLICATION_STATUS = {"open": "办理中", "completed": "已完成"}
_SHOWN = {DisplayState.PUBLISHED: "公示中", DisplayState.PUBLICATION_ENDED: "已停止公示"}


def submitted(records: int) -> str:
    """The first line of a timeline."""
    return f"申请已提交，共{records}项。"


def ended(event: ApplicationCompleted) -> str:
    """The line that says that all items have ended."""
    number = Counter(item.outcome for item in event.items)
    revoked = f"，{number[ItemOutcome.REVOKED]}项修复被撤销" if number[ItemOutcome.REVOKED] else ""
    return f"申请已办结：{number[ItemOutcome.REPAIRED]}项完成修复，{number[ItemOutcome.REFUSED]}项不予修复{revoked}。"


def progress(document_number: str, event: ItemEvent) -> tuple[str, str] | None:
    """(machine name, text) of the line for an event about an item; None for an event that is not shown."""
    match event:
        case ItemReferred():
            kind = "referred"
            text = f"转入“{event.queue_name}”，{event.due_on.isoformat()}前确定认定单位。原因：{event.reason}"
        case ItemRouted():
            kind = "routed"
            text = f"已分派至{event.department.name}，{event.decide_due_on.isoformat()}前作出决定。"
        case ReviewAccepted():
            kind, text = "accepted", f"{event.department.name}已受理。"
        case RepairGranted():
            kind = "granted"
            text = f"{event.department.name}准予修复，决定书文号：{event.decision_number}。"
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
