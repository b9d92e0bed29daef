"""What `xinfu doctor` makes of letters that wait, of history without a signed head and of loops that fail."""

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.http.operations import BusStatus, DatabaseStatus, LoopStatus, ServiceStatus
from xinfu.doctor import Grade, _heads, _letters, _work


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


def heads(since: str | None) -> Grade:
    history = {"last_number": 7, "last_at": ago(days=3), "uncovered_since": since, "interval_seconds": 60}
    return _heads(history).grade


def test_an_old_head_is_well_while_nothing_grows_and_bad_once_something_stays_unsigned() -> None:
    assert heads(None) is Grade.GOOD
    assert heads(ago(seconds=500)) is Grade.GOOD
    assert heads(ago(seconds=700)) is Grade.BAD


def test_letters_are_told_once_they_wait_too_long() -> None:
    waiting: list[dict[str, Any]] = [
        {"waits_for": "release", "count": 2, "since": ago(hours=1)},
        {"waits_for": "sending", "count": 3, "since": ago(hours=30)},
        {"waits_for": "answer", "count": 1, "since": ago(hours=1)},
    ]
    found = list(_letters({"targets": [{"target_name": "某平台", "letters_waiting": waiting}]}))
    assert [(check.grade, check.found.split("，")[0]) for check in found] == [
        (Grade.NOTICE, "3 份待送出"),
        (Grade.NOTICE, "1 份逾期未答复"),
    ]
    assert all("xinfu letters" in check.todo for check in found)


def test_a_loop_that_keeps_failing_is_bad_and_one_that_failed_once_is_not() -> None:
    def grades(*failed: int) -> list[Grade]:
        loops = [
            LoopStatus(
                name="mailer", failed=number, last_failed_at=datetime.now(UTC), last_error="ValueError"
            )
            for number in failed
        ]
        status = ServiceStatus(
            service="notify",
            at=datetime.now(UTC),
            database=DatabaseStatus(problem=None),
            bus=BusStatus(problem=None, wanted_replicas=1),
            consumers=[],
            failing_loops=loops,
            outbox=None,
            open_dead_letters={},
        )
        return [check.grade for check in _work(status)]

    assert grades() == [Grade.GOOD]
    assert grades(2, 3) == [Grade.NOTICE, Grade.BAD]
