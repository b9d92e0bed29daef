"""Targets for the tests of sync's decisions: two that can be read back and one that cannot."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contracts.http.target import RecordKey, RecordView, RepairStatus
from contracts.records import DisplayState
from sync.domain import Policy, Record

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


@dataclass
class Site:
    """A target outside, by contracts.http.target: it applies what is newer, and may lose it again."""

    state: DisplayState | None = DisplayState.PUBLISHED
    version: int = 0

    def take(self, record: Record) -> RepairStatus:
        """A push."""
        if record.version < self.version:
            return RepairStatus.SUPERSEDED
        self.state, self.version = record.state, record.version
        return RepairStatus.APPLIED

    def view(self) -> RecordView:
        """A read-back."""
        return RecordView(record=KEY, state=self.state, version=self.version or None)
