"""How a target is treated."""

from dataclasses import dataclass
from datetime import timedelta

from contracts.working_days import LIBRARY_CALENDAR, WorkCalendar


@dataclass(frozen=True)
class Policy:
    """How one target is treated. ``recheck``: pauses between read-backs that see it right; the last one repeats for ever.

    ``reads_back`` false: nobody can look, so an acknowledgement has to do and TargetVerified is never told. ``receipt_wait``:
    how long after a push that is only taken (RepairStatus.RECEIVED) it is pushed again; None: that is no answer of this target.
    ``fetches``: what is pushed lies in its list until it asks. ``by_letter``: never pushed; letters tell it, and nobody waits for it. ``after``:
    told once these have acknowledged, at the latest when their time limit has passed. ``time_limit_working_days``: by when it has to
    show a decision, or show it again, of the catalogue.
    """

    target_id: str
    target_name: str
    reads_back: bool
    read_back_delay: timedelta
    recheck: tuple[timedelta, ...]
    backoff_base: timedelta
    backoff_max: timedelta
    time_limit_working_days: int = 3
    calendar: WorkCalendar = LIBRARY_CALENDAR
    receipt_wait: timedelta | None = None
    fetches: bool = False
    by_letter: bool = False
    after: tuple[str, ...] = ()
