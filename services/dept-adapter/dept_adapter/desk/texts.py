"""What the desk's forms say: names of what can be done, and texts an officer starts from. zh-CN."""

from enum import StrEnum

from dept_adapter.store import View


class Do(StrEnum):
    """What a form of the item page does; the first are the actions of a review."""

    CONFIRM = "confirm"
    SEND_BACK = "send_back"
    SPOT_CHECK = "spot_check"
    GRANT = "grant"
    ACCEPT = "accept"
    REQUEST_SUPPLEMENT = "request_supplement"
    REFUSE = "refuse"
    NOT_ACCEPT = "not_accept"
    EXTEND = "extend"
    REFER = "refer"
    REVOKE = "revoke"
    ACKNOWLEDGE = "acknowledge"


DO_TEXT = {
    Do.CONFIRM: "复核通过",
    Do.SEND_BACK: "退回经办",
    Do.SPOT_CHECK: "登记抽查",
    Do.GRANT: "准予修复",
    Do.ACCEPT: "受理",
    Do.REQUEST_SUPPLEMENT: "告知补正",
    Do.REFUSE: "不予修复",
    Do.NOT_ACCEPT: "不予受理",
    Do.EXTEND: "延期",
    Do.REFER: "提交专家",
    Do.REVOKE: "撤销修复",
    Do.ACKNOWLEDGE: "说明催办",
}
HINT = {
    Do.CONFIRM: "复核通过后决定立即生效并告知申请人。",
    Do.SEND_BACK: "退回后由经办人员重新处理，申请人不会收到通知。",
    Do.SPOT_CHECK: "登记对自动准予的抽查结果，只登记一次；结果有误的，另行撤销修复。",
    Do.GRANT: "准予后立即生效：申请人收到文书，各公示平台停止公示。",
    Do.ACCEPT: "受理后开始计算办理期限，申请人收到受理通知书。",
    Do.REQUEST_SUPPLEMENT: "需要补正的内容只能告知一次，请一次列全；补正期间办理期限停止计算。",
    Do.REFUSE: "不予修复须说明理由，申请人收到文书和救济途径。",
    Do.NOT_ACCEPT: "不予受理须说明理由，本次申请的该记录随即办结。",
    Do.EXTEND: "只能延期一次，须在期限届满前作出，理由将告知申请人。",
    Do.REFER: "抽取没有利益冲突的专家；专家意见供参考，办理期限不停止。",
    Do.REVOKE: "撤销后各平台恢复公示，须说明理由。",
    Do.ACKNOWLEDGE: "说明尚未办结的原因后，本级不再催办；仍未办结的，到期催办上一级。不告知申请人。",
}
TEXT_LABEL = {
    Do.SEND_BACK: "退回的理由",
    Do.SPOT_CHECK: "依据",
    Do.REFUSE: "不予修复的理由",
    Do.NOT_ACCEPT: "不予受理的理由",
    Do.EXTEND: "延期的理由",
    Do.REFER: "请专家评审的问题",
    Do.REVOKE: "撤销的理由",
    Do.ACKNOWLEDGE: "尚未办结的原因",
}
START = {
    Do.REFUSE: "经审核，该记录不符合信用修复条件：",
    Do.NOT_ACCEPT: "经审查，该申请不符合受理条件：",
    Do.EXTEND: "案情复杂，需进一步核实整改情况。",
    Do.REVOKE: "经查，申请人在申请信用修复时提供虚假材料：",
    Do.REFER: "请就该主体的整改是否到位、是否符合信用修复条件提出意见。",
}
DONE = {
    Do.CONFIRM: "复核已通过，决定已生效",
    Do.SEND_BACK: "已退回",
    Do.SPOT_CHECK: "已登记抽查结果",
    Do.GRANT: "已准予修复",
    Do.ACCEPT: "已受理",
    Do.REQUEST_SUPPLEMENT: "已告知补正",
    Do.REFUSE: "已不予修复",
    Do.NOT_ACCEPT: "已不予受理",
    Do.EXTEND: "已延期",
    Do.REFER: "已提交专家评审",
    Do.REVOKE: "已撤销修复",
    Do.ACKNOWLEDGE: "已说明催办",
}
VIEW_TEXT = {
    View.TODO: "待办",
    View.OVERDUE: "逾期",
    View.CONFIRM: "待复核",
    View.WAITING: "待补正",
    View.SPOT_CHECK: "待抽查",
    View.ENDED: "已办结",
    View.ALL: "全部",
}
