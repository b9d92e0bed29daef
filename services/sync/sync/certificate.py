"""What a repair certificate says. Pure: the facts come in, what may be claimed of them goes out."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from chassis.letter import Letter, LetterTable, Verification
from contracts.clock import CHINA_STANDARD_TIME, china_date
from contracts.http.certificate import (
    CERTIFICATE_FORMAT,
    STANDING_TEXT,
    Certificate,
    CertifiedDecision,
    CertifiedRecord,
    CertifiedSubject,
    CertifiedTarget,
    HeadReference,
    Standing,
    TargetNow,
)
from contracts.http.intake import Subject
from contracts.records import DisplayState, SubjectType
from sync.desired import Record, shows
from sync.domain import Delivery, delivery_id
from sync.history import rfc3339
from sync.policy import Policy

STATE_TEXT = {
    DisplayState.PUBLISHED: "公示",
    DisplayState.SHIELDED: "临时屏蔽",
    DisplayState.PUBLICATION_ENDED: "终止公示",
}
SEEN = (Standing.RIGHT, Standing.SEEN_BY_PERSON)
"""What the public was seen being shown: read back, or by a person where that is not possible."""
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: nothing in it is mistaken for something else."""
CODE_LENGTH = 20
"""100 bits: a code cannot be guessed, and whoever has it may see what it stands for."""


def code_of(random: bytes) -> str:
    """A code from at least 20 random bytes: ``XXXXX-XXXXX-XXXXX-XXXXX``."""
    letters = "".join(_ALPHABET[byte % 32] for byte in random[:CODE_LENGTH])
    return "-".join(letters[i : i + 5] for i in range(0, CODE_LENGTH, 5))


def normal_code(text: str) -> str:
    """A code as somebody may type it: without hyphens, in lower case, O for 0, I or L for 1."""
    letters = "".join(text.upper().split()).replace("-", "").translate(str.maketrans("OIL", "011"))
    return "-".join(letters[i : i + 5] for i in range(0, len(letters), 5))


def standing(record: Record, delivery: Delivery | None, policy: Policy | None) -> Standing:
    """How one target stands to the decision, as far as anybody has looked."""
    if policy is None:
        return Standing.LEFT
    if delivery is None or delivery.desired_version != record.version:
        return Standing.PENDING
    right = shows(delivery.seen_state, record, outdated=delivery.seen_outdated)
    if delivery.seen_version == record.version and right:
        return Standing.RIGHT if policy.reads_back else Standing.SEEN_BY_PERSON
    if not policy.reads_back and delivery.acknowledged_version == record.version:
        return Standing.ACKNOWLEDGED
    looked = delivery.seen_at is not None and delivery.seen_at > record.decided_at
    if looked and not right:
        return Standing.DIFFERENT
    if policy.by_letter:
        return Standing.LETTER_SENT if delivery.sent_version == record.version else Standing.BY_LETTER
    return Standing.PENDING


def standings(
    record: Record, deliveries: Mapping[str, Delivery], policies: Mapping[str, Policy]
) -> dict[str, Standing]:
    """Target id -> how it stands, of all that have to follow."""
    return {
        target: standing(record, deliveries.get(delivery_id(target, record.record_id)), policies.get(target))
        for target in record.targets
    }


def certified_subject(subject: Subject) -> CertifiedSubject:
    """The subject as a certificate may name it."""
    if subject.subject_type is SubjectType.NATURAL_PERSON:
        return CertifiedSubject(subject_type=subject.subject_type, name=subject.name[:1] + "*")
    return CertifiedSubject(subject_type=subject.subject_type, name=subject.name, code=subject.code)


def compose(
    record: Record,
    deliveries: Mapping[str, Delivery],
    policies: Mapping[str, Policy],
    evidence: Mapping[str, str],
    subject: Subject,
    *,
    code: str,
    issuer: str,
    verify_url: str,
    head: HeadReference | None,
    now: datetime,
) -> Certificate:
    """The certificate of a record whose publication has ended. ``evidence``: by target, the hash of the reading it rests on."""
    found = standings(record, deliveries, policies)
    targets = []
    for target, each in found.items():
        delivery, policy = deliveries.get(delivery_id(target, record.record_id)), policies.get(target)
        seen_at = delivery.seen_at if delivery and each in SEEN else None
        targets.append(
            CertifiedTarget(
                target_id=target,
                target_name=policy.target_name if policy else target,
                desired=record.state,
                version=record.version,
                standing=each,
                standing_text=STANDING_TEXT[each],
                shown=delivery.seen_state if delivery and each is not Standing.PENDING else None,
                seen_right_at=rfc3339(seen_at) if seen_at else None,
                evidence=evidence.get(target) if each in (*SEEN, Standing.DIFFERENT) else None,
            )
        )
    return Certificate(
        format=CERTIFICATE_FORMAT,
        code=code,
        issuer=issuer,
        issued_at=rfc3339(now),
        verify_url=verify_url,
        subject=certified_subject(subject),
        record=CertifiedRecord(
            record_id=record.record_id,
            category=record.facts.category,
            document_number=record.facts.document_number,
            authority_name=record.facts.authority_name,
            decided_on=record.facts.decided_on.isoformat(),
        ),
        decision=CertifiedDecision(
            number=record.decision_number,
            decided_at=rfc3339(record.decided_at),
            state=record.state,
            version=record.version,
            recognised_from=record.source,
        ),
        targets=tuple(targets),
        complete=bool(targets) and all(each in SEEN for each in found.values()),
        history_head=head,
    )


def targets_now(
    certificate: Certificate,
    record: Record | None,
    deliveries: Mapping[str, Delivery],
    policies: Mapping[str, Policy],
) -> tuple[bool, bool, list[TargetNow]]:
    """(revoked or decided anew since, still true, each target now)."""
    current = standings(record, deliveries, policies) if record else {}
    targets = []
    for each in certificate.targets:
        now = current.get(each.target_id, Standing.LEFT)
        delivery = deliveries.get(delivery_id(each.target_id, certificate.record.record_id))
        seen_at = delivery.seen_at if delivery and now in SEEN else None
        targets.append(
            TargetNow(
                target_id=each.target_id,
                target_name=each.target_name,
                certified=each.standing,
                now=now,
                now_text=STANDING_TEXT[now],
                seen_right_at=rfc3339(seen_at) if seen_at else None,
            )
        )
    revoked = record is None or record.version != certificate.decision.version
    kept = all(t.now in (*SEEN, Standing.LEFT) for t in targets if t.certified in SEEN)
    return revoked, kept and not revoked, targets


def china_time(text: str | None) -> str:
    """A time of a certificate as a clock in China shows it; a dash for none."""
    if text is None:
        return "—"
    moment = datetime.fromisoformat(text).astimezone(CHINA_STANDARD_TIME)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def as_letter(certificate: Certificate, category: str) -> Letter:
    """The certificate as a letter to its subject. ``category``: its name."""
    record, decision = certificate.record, certificate.decision
    right = sum(each.standing in SEEN for each in certificate.targets)
    total = len(certificate.targets)
    summary = (
        f"截至{china_time(certificate.issued_at)}（北京时间），应同步的{total}个平台均已核验，展示与决定一致："
        if certificate.complete
        else f"截至{china_time(certificate.issued_at)}（北京时间），应同步的{total}个平台中，"
        f"{right}个已核验与决定一致，其余尚未核验到一致，如实列明："
    )
    facts = (
        f"{record.authority_name}于{_day(date.fromisoformat(record.decided_on))}作出的{record.document_number}（{category}）"
        f"所形成的失信记录，已于{_day(china_date(datetime.fromisoformat(decision.decided_at)))}"
        f"经信用修复决定（{decision.number}）修复，应当终止公示。"
    )
    code = f"（统一社会信用代码 {certificate.subject.code}）" if certificate.subject.code else ""
    return Letter(
        issuer=certificate.issuer,
        title="信用修复证明",
        addressee=f"{certificate.subject.name}{code}",
        paragraphs=(facts, summary),
        table=LetterTable(
            head=("平台", "应展示", "核验结果", "最近一次见到一致", "证据摘要"),
            rows=tuple(
                (
                    each.target_name,
                    STATE_TEXT[each.desired],
                    each.standing_text,
                    china_time(each.seen_right_at),
                    (each.evidence or "—").rpartition(":")[2][:16],
                )
                for each in certificate.targets
            ),
        ),
        closing=(
            "时间均为北京时间。“证据摘要”是该次核验在防篡改历史中的记录摘要（前16位），全文见随附的签名文件。",
        ),
        dated=china_date(datetime.fromisoformat(certificate.issued_at)),
        verification=Verification(code=certificate.code, url=certificate.verify_url),
        note="本证明附有带数字签名的 certificate.json（在本 PDF 之内）：扫码或打开查验地址可核对真伪、现在是否仍然如此、"
        "修复是否已被撤销；不联网时用 xinfu certificate verify 核对。平台展示会变化，请以查验结果为准。",
    )


def _day(day: date) -> str:
    return f"{day.year}年{day.month}月{day.day}日"


def same_claim(record: Record, found: Mapping[str, Standing], now: datetime) -> list[Any]:
    """What makes a certificate another one: decision, standings, and the day in China. The same is not issued twice."""
    claims: Sequence[list[str]] = sorted([target, each.value] for target, each in found.items())
    return [record.record_id, record.version, china_date(now).isoformat(), claims]
