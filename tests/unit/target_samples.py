"""Targets for the tests of sync's decisions: two that can be read back and one that cannot."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from contracts.http.target import RecordKey, RecordView, RepairStatus
from contracts.records import DisplayState, RecordContent, RecordFacts, SubjectType
from sync.desired import Record
from sync.policy import Policy

KEY = RecordKey(
    subject_code="91330100MA27XF1Q0T", document_number="杭测罚〔2026〕1号", authority_name="杭州市教育局"
)


def policy(target_id: str, *, reads_back: bool = True, **more: Any) -> Policy:
    """How a target is asked."""
    return Policy(
        target_id=target_id,
        target_name=target_id.upper(),
        reads_back=reads_back,
        read_back_delay=timedelta(seconds=0.5),
        recheck=(timedelta(seconds=60), timedelta(seconds=600)),
        backoff_base=timedelta(seconds=1),
        backoff_max=timedelta(seconds=300),
        **more,
    )


POLICIES = {"alpha": policy("alpha"), "beta": policy("beta"), "mute": policy("mute", reads_back=False)}


def decided(
    number: int, *targets: str, subject_type: SubjectType = SubjectType.LEGAL_PERSON, **changes: Any
) -> Record:
    """A record that was granted repair, in its first version. ``changes``: to the record."""
    facts = RecordFacts(
        record_id=f"rec_{number:032x}",
        subject_id="sub_" + "2" * 32,
        subject_type=subject_type,
        category="administrative_penalty",
        document_number=f"杭测罚〔2026〕{number}号",
        authority_code=None,
        authority_name="杭州市教育局",
        decided_on=date(2026, 1, 5),
    )
    values: dict[str, Any] = {
        "record_id": facts.record_id,
        "version": 1,
        "state": DisplayState.PUBLICATION_ENDED,
        "facts": facts,
        "application_id": "app_" + "1" * 32,
        "item_id": "itm_" + "1" * 32,
        "subject_id": facts.subject_id,
        "decided_at": datetime(2026, 3, 2, tzinfo=UTC),
        "decision_number": "修1",
        "targets": targets,
    }
    return Record(**values | changes)


@dataclass
class Site:
    """A target outside, by contracts.http.target: it applies what is newer, and may lose it again. ``content``: what is read of the
    record, which it ``tells`` or not.
    """

    state: DisplayState | None = DisplayState.PUBLISHED
    version: int = 0
    content: RecordContent | None = None
    tells: bool = False

    def take(self, record: Record) -> RepairStatus:
        """A push."""
        if record.version < self.version:
            return RepairStatus.SUPERSEDED
        self.state, self.version = record.state, record.version
        self.content = record.content or self.content
        return RepairStatus.APPLIED

    def view(self) -> RecordView:
        """A read-back."""
        told = self.content if self.tells else None
        return RecordView(record=KEY, state=self.state, version=self.version or None, content=told)
