"""两书同达: who is told of a record that comes. An import of old records is no publication."""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from unit.record_samples import record

from chassis.unit_of_work import UnitOfWork
from contracts.catalogue import load_catalogue
from contracts.clock import china_date
from contracts.http.eligibility import Transition
from intake.notices import Notices
from intake.store import Store

CATALOGUE = load_catalogue()
NOW = datetime(2026, 11, 26, 4, tzinfo=UTC)


class NoAddresses:
    """A store in which nobody has left an address."""

    async def emails(self, _ids: Collection[str], _session: Any) -> set[str]:
        return set()


class Unit:
    """What a unit of work is asked for: the time, and to tell."""

    now, session = NOW, None

    def __init__(self) -> None:
        self.told: list[Any] = []

    def emit(self, event: Any, *, cause: str) -> None:
        assert cause == f"notice:{event.record_id}"
        self.told.append(event)


@given(days=st.integers(0, 400), within=st.integers(0, 400))
async def test_only_who_was_decided_on_lately_is_told(days: int, within: int) -> None:
    decided_on: date = china_date(NOW) - timedelta(days=days)
    own = record(decided_on=decided_on)
    notices = Notices(cast(Store, NoAddresses()), CATALOGUE, Transition.EITHER, within_days=within)
    unit = Unit()
    (kept,) = await notices.serve(cast(UnitOfWork, unit), [own])
    assert [event.record_id for event in unit.told] == ([own.record_id] if days <= within else [])
    assert (kept.notice_served_at == NOW) == (days <= within)
    assert await notices.serve(cast(UnitOfWork, unit), [kept]) == [kept] or days > within
    assert len(unit.told) == (days <= within), "told once"
