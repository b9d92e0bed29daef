"""A certificate claims nothing that was not seen."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.target_samples import POLICIES

from contracts.canonical import canonical
from contracts.http.certificate import Certificate, HeadReference, SignedCertificate, Standing
from contracts.http.intake import Subject
from contracts.records import DisplayState, RecordFacts, SubjectType
from contracts.signatures import SigningKey, UnverifiedError, key_set, new_secret
from sync.certificate import code_of, compose, normal_code, standing, targets_now
from sync.desired import Record
from sync.domain import Delivery

NOW = datetime(2026, 11, 25, 4, tzinfo=UTC)
ID_NUMBER = "330102199001011234"
SUBJECT = "sub_" + "0" * 32
RECORD = Record(
    record_id="rec_" + "0" * 32,
    version=2,
    state=DisplayState.PUBLICATION_ENDED,
    facts=RecordFacts(
        record_id="rec_" + "0" * 32,
        subject_id=SUBJECT,
        subject_type=SubjectType.NATURAL_PERSON,
        category="administrative_penalty",
        document_number="杭测罚〔2026〕1号",
        authority_code=None,
        authority_name="杭州市教育局",
        decided_on=date(2025, 1, 1),
    ),
    application_id="app_" + "0" * 32,
    item_id="itm_" + "0" * 32,
    subject_id=SUBJECT,
    decided_at=NOW - timedelta(days=1),
    decision_number="信修〔2026〕1号",
    targets=("alpha", "mute"),
)

deliveries = st.builds(
    Delivery,
    target_id=st.just("alpha"),
    record_id=st.just(RECORD.record_id),
    desired_version=st.integers(1, 2),
    differs_since=st.none() | st.just(NOW),
    next_action_at=st.just(NOW),
    trace=st.just({}),
    acknowledged_version=st.integers(0, 2),
    seen_version=st.integers(0, 2),
    seen_state=st.sampled_from([None, *DisplayState]),
    seen_at=st.none() | st.sampled_from([NOW - timedelta(days=2), NOW]),
)


def certificate(*found: Delivery, person: bool = True, record: Record = RECORD) -> Certificate:
    subject = Subject(
        subject_id=SUBJECT,
        subject_type=SubjectType.NATURAL_PERSON if person else SubjectType.LEGAL_PERSON,
        code=ID_NUMBER if person else "91330100MA27XF1Q0T",
        name="张三丰" if person else "杭州示例科技有限公司",
    )
    return compose(
        record,
        {d.id: d for d in found},
        POLICIES,
        {"alpha": "sha256:00"},
        subject,
        code="0",
        issuer="平台",
        verify_url="https://example.org",
        head=HeadReference(number=1, hash="sha256:00"),
        now=NOW,
    )


@given(deliveries)
def test_right_is_only_what_was_seen_right_in_the_decided_version(delivery: Delivery) -> None:
    alpha, mute = certificate(delivery).targets
    if alpha.standing is Standing.RIGHT:
        assert delivery.seen_version == delivery.desired_version == RECORD.version
        assert delivery.seen_state in (None, DisplayState.PUBLICATION_ENDED)
    else:
        assert alpha.seen_right_at is None
    if delivery.seen_state is DisplayState.PUBLISHED:
        assert alpha.standing is not Standing.RIGHT
    # nobody can look at it: whatever it answered, nothing is said to have been seen
    assert mute.standing in (Standing.PENDING, Standing.ACKNOWLEDGED)
    assert not certificate(delivery).complete


def test_no_personal_id_and_no_full_name_of_a_person() -> None:
    text = certificate().model_dump_json()
    assert ID_NUMBER not in text
    assert "张三丰" not in text
    assert "张*" in text
    assert certificate(person=False).subject.code == "91330100MA27XF1Q0T"


def test_a_revocation_and_a_drift_are_told_when_it_is_checked() -> None:
    right = Delivery("alpha", RECORD.record_id, 2, None, NOW, {}, 2, 2, DisplayState.PUBLICATION_ENDED, NOW)
    assert certificate(right, record=replace(RECORD, targets=("alpha",))).complete
    issued = certificate(right)
    assert targets_now(issued, RECORD, {right.id: right}, POLICIES)[:2] == (False, True)
    paper = replace(POLICIES["mute"], by_letter=True)
    told = replace(right, target_id="mute", acknowledged_version=0)
    assert standing(RECORD, told, paper) is Standing.SEEN_BY_PERSON
    unseen = replace(told, seen_version=0, seen_at=None)
    assert standing(RECORD, unseen, paper) is Standing.BY_LETTER
    assert standing(RECORD, replace(unseen, sent_version=2), paper) is Standing.LETTER_SENT
    assert standing(RECORD, replace(unseen, acknowledged_version=2), paper) is Standing.ACKNOWLEDGED
    published = replace(told, seen_version=0, seen_state=DisplayState.PUBLISHED)
    assert standing(RECORD, published, paper) is Standing.DIFFERENT
    assert standing(RECORD, unseen, POLICIES["mute"]) is Standing.PENDING
    drifted = replace(right, seen_version=0, seen_state=DisplayState.PUBLISHED)
    assert targets_now(issued, RECORD, {right.id: drifted}, POLICIES)[:2] == (False, False)
    revoked = replace(RECORD, version=3, state=DisplayState.PUBLISHED)
    assert targets_now(issued, revoked, {right.id: right}, POLICIES)[:2] == (True, False)
    assert standing(revoked, right, POLICIES["alpha"]) is Standing.PENDING


@pytest.mark.parametrize("kind", ["ed25519", "sm2"])
def test_a_signed_certificate_is_checked_with_every_member_that_came(kind: str) -> None:
    key = SigningKey.read(new_secret("sm2" if kind == "sm2" else "ed25519"))
    body = {**certificate().model_dump(mode="json"), "of_a_later_version": {"unknown": [1, None]}}
    signed = SignedCertificate(certificate=body, signature=key.sign(canonical(body)))
    read = SignedCertificate.model_validate_json(signed.as_text())
    assert read.checked(key_set(key))[0].code == "0"
    changed = read.model_copy(update={"certificate": {**body, "complete": True}})
    with pytest.raises(UnverifiedError):
        changed.checked(key_set(key))
    with pytest.raises(ValueError, match="float"):
        read.model_copy(update={"certificate": {**body, "x": 0.5}}).checked(key_set(key))


@given(st.binary(min_size=20, max_size=32))
def test_a_code_is_found_however_it_is_typed(random: bytes) -> None:
    code = code_of(random)
    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert normal_code(typed) == normal_code(code) == code
