"""What `xinfu doctor` makes of letters that wait and of history without a signed head."""

from datetime import UTC, datetime, timedelta
from typing import Any

from xinfu.doctor import Grade, _heads, _letters


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
