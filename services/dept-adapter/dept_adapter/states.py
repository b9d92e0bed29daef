"""The states of a review and everything that can happen to it, in one table; the diagram in docs/states.md is drawn from it."""

from enum import StrEnum


class State(StrEnum):
    """Where a review stands. ``undeliverable``: the department's system refuses to take it, so its officers decide."""

    RECEIVED = "received"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"
    SUPPLEMENT = "supplement"
    ACCEPTED = "accepted"
    EXTENDED = "extended"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    NOT_ACCEPTED = "not_accepted"
    WITHDRAWN = "withdrawn"
    RECOGNISED = "recognised"
    EXPIRED = "expired"
    CLOSED = "closed"


class Action(StrEnum):
    """What can happen to a review. ``supplement``: what was missing came; ``lapse``: it did not come in time.

    ``close``: there is nothing left to repair, the record being withdrawn, or repaired without a decision.
    ``reopen``, ``restore``: an objection to a refusal, to a revocation, was upheld.
    """

    DELIVER = "deliver"
    GIVE_UP = "give_up"
    ACCEPT = "accept"
    NOT_ACCEPT = "not_accept"
    REQUEST_SUPPLEMENT = "request_supplement"
    SUPPLEMENT = "supplement"
    LAPSE = "lapse"
    EXTEND = "extend"
    GRANT = "grant"
    REFUSE = "refuse"
    REVOKE = "revoke"
    WITHDRAW = "withdraw"
    RECOGNISE = "recognise"
    REOPEN = "reopen"
    RESTORE = "restore"
    EXPIRE = "expire"
    CLOSE = "close"


class Act(StrEnum):
    """What an officer does that is no change of state; in the history beside the state."""

    PROPOSE = "propose"
    CONFIRM = "confirm"
    SEND_BACK = "send_back"
    REFER = "refer"
    SPOT_CHECK = "spot_check"
    ACKNOWLEDGE = "acknowledge"


ACT_TEXT = {
    Act.PROPOSE: "提请复核",
    Act.CONFIRM: "复核通过",
    Act.SEND_BACK: "复核退回",
    Act.REFER: "提交专家评审",
    Act.SPOT_CHECK: "抽查",
    Act.ACKNOWLEDGE: "知悉催办",
}

DECIDED = frozenset({State.GRANTED, State.REFUSED, State.REVOKED})
"""The department decided on the repair."""
ENDED = DECIDED | {State.NOT_ACCEPTED, State.WITHDRAWN, State.RECOGNISED, State.EXPIRED, State.CLOSED}
"""Nothing is awaited any more; a grant, here or recognised, may still be revoked, and an upheld objection begins a new round."""
OBJECTIONABLE = frozenset({State.NOT_ACCEPTED, State.REFUSED, State.REVOKED})
"""Results that may be objected to, once each."""

_FORMAL = (State.RECEIVED, State.DELIVERED, State.UNDELIVERABLE)
_UNDECIDED = (*_FORMAL, State.SUPPLEMENT, State.ACCEPTED, State.EXTENDED)
AWAITS_OFFICER = frozenset({*_FORMAL, State.ACCEPTED, State.EXTENDED})
"""The department has to act: accept, or decide."""

CHANGES: dict[Action, dict[State, State]] = {
    # a push whose lease had run out may still be answered: the department has the review after all
    Action.DELIVER: dict.fromkeys((State.RECEIVED, State.UNDELIVERABLE), State.DELIVERED),
    Action.GIVE_UP: {State.RECEIVED: State.UNDELIVERABLE},
    # what was asked for may turn out to be unnecessary
    Action.ACCEPT: dict.fromkeys((*_FORMAL, State.SUPPLEMENT), State.ACCEPTED),
    Action.NOT_ACCEPT: dict.fromkeys((*_FORMAL, State.SUPPLEMENT), State.NOT_ACCEPTED),
    Action.REQUEST_SUPPLEMENT: dict.fromkeys(_FORMAL, State.SUPPLEMENT),
    # a department with a system is told again, with what was missing
    Action.SUPPLEMENT: {State.SUPPLEMENT: State.RECEIVED},
    Action.LAPSE: {State.SUPPLEMENT: State.WITHDRAWN},
    Action.EXTEND: {State.ACCEPTED: State.EXTENDED},
    Action.GRANT: dict.fromkeys(_UNDECIDED, State.GRANTED),
    Action.REFUSE: dict.fromkeys(_UNDECIDED, State.REFUSED),
    Action.REVOKE: dict.fromkeys((State.GRANTED, State.RECOGNISED), State.REVOKED),
    Action.WITHDRAW: dict.fromkeys(_UNDECIDED, State.WITHDRAWN),
    Action.RECOGNISE: dict.fromkeys(_UNDECIDED, State.RECOGNISED),
    Action.EXPIRE: dict.fromkeys(_UNDECIDED, State.EXPIRED),
    Action.CLOSE: dict.fromkeys(_UNDECIDED, State.CLOSED),
    # only an upheld objection leads back
    Action.REOPEN: {State.NOT_ACCEPTED: State.RECEIVED, State.REFUSED: State.ACCEPTED},
    Action.RESTORE: {State.REVOKED: State.GRANTED},
}
"""action -> state -> next state: everything that changes a review."""

REPEATED: dict[Action, frozenset[State]] = {
    # a department may call back before its answer to the push is here
    Action.DELIVER: frozenset(State),
    Action.GIVE_UP: frozenset(State),
    Action.ACCEPT: DECIDED | {State.ACCEPTED, State.EXTENDED, State.RECOGNISED, State.EXPIRED, State.CLOSED},
    Action.NOT_ACCEPT: frozenset({State.NOT_ACCEPTED}),
    Action.REQUEST_SUPPLEMENT: frozenset({State.SUPPLEMENT}),
    # these six are no department's word: what came first stands
    Action.SUPPLEMENT: frozenset(State),
    Action.LAPSE: frozenset(State),
    Action.WITHDRAW: frozenset(State),
    Action.RECOGNISE: frozenset(State),
    Action.EXPIRE: frozenset(State),
    Action.CLOSE: frozenset(State),
    Action.EXTEND: frozenset({State.EXTENDED}),
    # the grant that was revoked may be reported again, late; a department may have granted elsewhere what is recognised here;
    # what has expired, or needs no repair, is no longer shown either
    Action.GRANT: frozenset({State.GRANTED, State.REVOKED, State.RECOGNISED, State.EXPIRED, State.CLOSED}),
    Action.REFUSE: frozenset({State.REFUSED}),
    Action.REVOKE: frozenset({State.REVOKED}),
    # an objection is decided once: these two never come again
    Action.REOPEN: frozenset(),
    Action.RESTORE: frozenset(),
}
"""action -> states in which it changes nothing, being a repetition or overtaken. In all other states it is a contradiction."""


def after(state: State, action: Action) -> State | None:
    """The next state, the same for a repetition; None when ``action`` contradicts ``state``."""
    changed = CHANGES[action].get(state)
    if changed is not None:
        return changed
    return state if state in REPEATED[action] else None


def changed_by(action: Action) -> list[State]:
    """The states that ``action`` changes; for the conditions of bulk writes."""
    return [*CHANGES[action]]


STATE_TEXT = {
    State.RECEIVED: "待送达",
    State.DELIVERED: "已送达",
    State.UNDELIVERABLE: "转工作台",
    State.SUPPLEMENT: "待补正",
    State.ACCEPTED: "已受理",
    State.EXTENDED: "已延期",
    State.GRANTED: "准予修复",
    State.REFUSED: "不予修复",
    State.REVOKED: "已撤销修复",
    State.NOT_ACCEPTED: "不予受理",
    State.WITHDRAWN: "已撤回",
    State.RECOGNISED: "已认可",
    State.EXPIRED: "公示期满",
    State.CLOSED: "无须修复",
}
ACTION_TEXT = {
    Action.DELIVER: "送达",
    Action.GIVE_UP: "部门系统拒收",
    Action.ACCEPT: "受理",
    Action.NOT_ACCEPT: "不予受理",
    Action.REQUEST_SUPPLEMENT: "告知补正",
    Action.SUPPLEMENT: "收到补正",
    Action.LAPSE: "逾期未补正",
    Action.EXTEND: "延期",
    Action.GRANT: "准予",
    Action.REFUSE: "不予",
    Action.REVOKE: "撤销",
    Action.WITHDRAW: "申请人撤回",
    Action.RECOGNISE: "别处已修复",
    Action.REOPEN: "异议成立，重新办理",
    Action.RESTORE: "异议成立，恢复修复",
    Action.EXPIRE: "公示期满",
    Action.CLOSE: "记录撤回、最终修复",
}


_GROUPS = {
    "formal": ("受理之前", frozenset(_FORMAL)),
    "review": ("受理之后", frozenset({State.ACCEPTED, State.EXTENDED})),
}


def diagram() -> str:
    """The table as a Mermaid state diagram with zh-CN labels. What all states of a group lead to is one arrow of the group."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for action, changes in CHANGES.items():
        for then in dict.fromkeys(changes.values()):
            froms = {state for state, to in changes.items() if to is then}
            for group, (_, states) in _GROUPS.items():
                if states <= froms:
                    froms -= states
                    arrows.setdefault((group, then), []).append(ACTION_TEXT[action])
            for state in sorted(froms, key=list(State).index):
                arrows.setdefault((state, then), []).append(ACTION_TEXT[action])
    lines = ["stateDiagram-v2", "    direction LR"]
    for group, (title, states) in _GROUPS.items():
        inner = [f'        state "{STATE_TEXT[state]}" as {state}' for state in State if state in states]
        within = [pair for pair in arrows if pair[0] in states and pair[1] in states]
        inner += [
            f"        {state} --> {then}: {'、'.join(arrows.pop((state, then)))}" for state, then in within
        ]
        lines += [f'    state "{title}" as {group} {{', *inner, "    }"]
    grouped = frozenset().union(*(states for _, states in _GROUPS.values()))
    lines += [f'    state "{STATE_TEXT[state]}" as {state}' for state in State if state not in grouped]
    lines.append(f"    [*] --> {State.RECEIVED}")
    lines += [f"    {before} --> {then}: {'、'.join(texts)}" for (before, then), texts in arrows.items()]
    lines += [f"    {state} --> [*]" for state in State if state in ENDED]
    return "\n".join(lines) + "\n"


# --- objections ------------------------------------------------------------------------------------------


class ObjectionState(StrEnum):
    """Where an objection stands at its department."""

    RECEIVED = "received"
    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    UPHELD = "upheld"
    DISMISSED = "dismissed"
    WITHDRAWN = "withdrawn"


class ObjectionAction(StrEnum):
    """What an officer does with an objection, or its subject (``withdraw``)."""

    ACCEPT = "accept"
    NOT_ACCEPT = "not_accept"
    UPHOLD = "uphold"
    DISMISS = "dismiss"
    WITHDRAW = "withdraw"


_OPEN_OBJECTION = (ObjectionState.RECEIVED, ObjectionState.ACCEPTED)
OBJECTION_ENDED = frozenset(ObjectionState) - set(_OPEN_OBJECTION)
OBJECTION_CHANGES: dict[ObjectionAction, dict[ObjectionState, ObjectionState]] = {
    ObjectionAction.ACCEPT: {ObjectionState.RECEIVED: ObjectionState.ACCEPTED},
    ObjectionAction.NOT_ACCEPT: {ObjectionState.RECEIVED: ObjectionState.NOT_ACCEPTED},
    ObjectionAction.UPHOLD: dict.fromkeys(_OPEN_OBJECTION, ObjectionState.UPHELD),
    ObjectionAction.DISMISS: dict.fromkeys(_OPEN_OBJECTION, ObjectionState.DISMISSED),
    ObjectionAction.WITHDRAW: dict.fromkeys(_OPEN_OBJECTION, ObjectionState.WITHDRAWN),
}
"""action -> state -> next state: everything that changes an objection."""
OBJECTION_REPEATED: dict[ObjectionAction, frozenset[ObjectionState]] = {
    ObjectionAction.ACCEPT: frozenset(
        {ObjectionState.ACCEPTED, ObjectionState.UPHELD, ObjectionState.DISMISSED}
    ),
    ObjectionAction.NOT_ACCEPT: frozenset({ObjectionState.NOT_ACCEPTED}),
    ObjectionAction.UPHOLD: frozenset({ObjectionState.UPHELD}),
    ObjectionAction.DISMISS: frozenset({ObjectionState.DISMISSED}),
    # a decision that was made before stands
    ObjectionAction.WITHDRAW: OBJECTION_ENDED,
}
"""action -> states in which it changes nothing. In all other states it is a contradiction."""
OBJECTION_STATE_TEXT = {
    ObjectionState.RECEIVED: "待受理",
    ObjectionState.ACCEPTED: "核查中",
    ObjectionState.NOT_ACCEPTED: "不予受理",
    ObjectionState.UPHELD: "异议成立",
    ObjectionState.DISMISSED: "异议不成立",
    ObjectionState.WITHDRAWN: "已撤回",
}
OBJECTION_ACTION_TEXT = {
    ObjectionAction.ACCEPT: "受理",
    ObjectionAction.NOT_ACCEPT: "不予受理",
    ObjectionAction.UPHOLD: "认定成立",
    ObjectionAction.DISMISS: "认定不成立",
    ObjectionAction.WITHDRAW: "申请人撤回",
}


def objection_diagram() -> str:
    """The table of objections as a Mermaid state diagram with zh-CN labels."""
    lines = ["stateDiagram-v2", "    direction LR"]
    lines += [f'    state "{text}" as {state}' for state, text in OBJECTION_STATE_TEXT.items()]
    lines.append(f"    [*] --> {ObjectionState.RECEIVED}")
    lines += [
        f"    {before} --> {then}: {OBJECTION_ACTION_TEXT[action]}"
        for action, changes in OBJECTION_CHANGES.items()
        for before, then in changes.items()
    ]
    lines += [f"    {state} --> [*]" for state in ObjectionState if state in OBJECTION_ENDED]
    return "\n".join(lines) + "\n"
