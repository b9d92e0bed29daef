"""Parity against services of a few lines: what is missing is found and published again, whatever else is wrong."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from contracts.envelope import source_of
from contracts.events import ApplicationCompleted, ApplicationSubmitted
from contracts.topics import APPLICATIONS
from xinfu.client import Client, RefusedError
from xinfu.durations import duration
from xinfu.operators import Services
from xinfu.parity import GIVE_UP_AFTER, Report, compare

NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)
OWNER = "intake"
URLS = {name: f"http://{name}" for name in ("intake", "routing", "notify")}


class Books:
    """The operations interface of an owner and its consumers, in memory, and of a bus that delivers what is replayed."""

    def __init__(self, ids: Sequence[str], *, page: int = 2) -> None:
        self.rows = {
            id_: {
                "id": id_,
                "source": source_of(OWNER),
                "type": ApplicationSubmitted.TYPE,
                "key": "k",
                "created_at": NOW.isoformat(),
                "published_at": NOW.isoformat(),
                "replays": 0,
            }
            for id_ in ids
        }
        self.taken: dict[str, set[str]] = {"routing": set(ids), "notify": set(ids)}
        self.taken_until: dict[str, str | None] = dict.fromkeys(
            self.taken, (NOW + timedelta(seconds=1)).isoformat()
        )
        self.unreadable: list[dict[str, str]] = []
        self.down: set[str] = set()
        self.replayed: list[str] = []
        self.delivers = True
        self._page = page

    async def call(self, method: str, url: str, body: Any = None) -> Any:
        parts = urlsplit(url)
        service, path = str(parts.hostname), parts.path.removeprefix("/v1/operations/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if service in self.down or f"{service}/{path}" in self.down:
            raise RefusedError(method, url, 503, "")
        match path:
            case "consumers":
                return self._consumers(service)
            case "outbox/events":
                assert query["topic"] == APPLICATIONS.name
                start = int(query.get("after", 0))
                rows = list(self.rows.values())[start : start + self._page]
                more = start + self._page < len(self.rows)
                unreadable = self.unreadable if start == 0 else []
                end = str(start + self._page) if more else None
                return {"events": rows, "unreadable": unreadable, "pending": 0, "next": end}
            case "inbox/missing":
                assert body["source"] == source_of(OWNER)
                return {"ids": [i for i in body["ids"] if i not in self.taken[body["consumer"]]]}
            case "outbox/replay":
                for id_ in body["ids"]:
                    self.replayed.append(id_)
                    self.rows[id_]["replays"] = cast(int, self.rows[id_]["replays"]) + 1
                    if self.delivers:
                        for taken in self.taken.values():
                            taken.add(id_)
                return {"marked": len(body["ids"]), "next": None}
            case "inbox/ids":
                ids = sorted(self.taken[service]) if query["source"] == source_of(OWNER) else []
                return {"ids": ids, "next": None}
            case "outbox/unknown":
                return {"ids": [i for i in body["ids"] if i not in self.rows]}
        raise AssertionError(path)

    def _consumers(self, service: str) -> Any:
        own = {
            "name": service,
            "topics": [APPLICATIONS.name],
            "types": [ApplicationSubmitted.TYPE],
            "taken_until": self.taken_until.get(service),
        }
        return {"source": source_of(service), "consumers": [own] if service in self.taken else []}

    async def compare(self, *, repair: bool = True) -> Report:
        return await compare(
            Services(cast(Client, self), URLS), since=NOW, until=None, repair=repair, backwards=NOW
        )


@given(data=st.data(), number=st.integers(0, 12), page=st.integers(1, 5))
def test_exactly_what_is_missing_is_published_again(data: st.DataObject, number: int, page: int) -> None:
    books = Books([f"e{n}" for n in range(number)], page=page)
    lost = {
        name: set(data.draw(st.sets(st.sampled_from(sorted(taken))))) if taken else set()
        for name, taken in books.taken.items()
    }
    for name, ids in lost.items():
        books.taken[name] -= ids
    either = lost["routing"] | lost["notify"]

    seen = asyncio.run(books.compare(repair=False))
    assert books.replayed == []
    assert seen.agrees == (not either)
    assert {d.consumer: (d.emitted, d.missing) for d in seen.differences} == {
        name: (number, len(ids)) for name, ids in lost.items()
    }
    assert seen.complete == (set() if either else {APPLICATIONS.name})

    repaired = asyncio.run(books.compare())
    assert sorted(books.replayed) == sorted(either)
    assert repaired.agrees
    after = asyncio.run(books.compare())
    assert (after.total("missing"), sorted(books.replayed)) == (0, sorted(either))


async def test_what_may_still_be_on_its_way_waits() -> None:
    books = Books(["a", "b"])
    books.taken["routing"] = {"a"}
    for until in (None, NOW.isoformat()):
        books.taken_until["routing"] = until
        report = await books.compare()
        assert (report.total("missing"), report.total("late"), report.total("repaired")) == (1, 1, 0)
        assert not report.agrees
        assert report.complete == set()
    books.taken_until["routing"] = (NOW + timedelta(milliseconds=1)).isoformat()
    await books.compare()
    assert books.replayed == ["b"]


async def test_an_event_that_never_arrives_is_given_up_and_said_so() -> None:
    books = Books(["a", "b", "c"])
    books.taken["notify"] = {"a"}
    books.delivers = False
    for _ in range(GIVE_UP_AFTER):
        assert (await books.compare()).total("repaired") == 2
    report = await books.compare()
    assert len(books.replayed) == 2 * GIVE_UP_AFTER
    assert (report.total("missing"), report.total("given_up"), report.total("repaired")) == (2, 2, 0)
    assert not report.agrees
    # nothing is to be gained by looking at it every time
    assert report.complete == {APPLICATIONS.name}


async def test_types_a_consumer_does_not_know_are_not_missing() -> None:
    books = Books(["a", "b"])
    books.rows["b"]["type"] = ApplicationCompleted.TYPE
    books.taken["notify"] = {"a"}
    report = await books.compare()
    assert {d.consumer: (d.emitted, d.missing) for d in report.differences} == {
        "routing": (1, 0),
        "notify": (1, 0),
    }
    assert books.replayed == []


async def test_a_bad_row_and_a_service_that_is_down_stop_nothing() -> None:
    books = Books(["a", "b", "c", "d", "e"])
    books.unreadable = [{"id": "?", "problem": "lacks headers"}]
    books.taken["notify"] = {"a", "e"}
    books.down = {"routing/inbox/missing"}
    report = await books.compare()
    assert sorted(books.replayed) == ["b", "c", "d"]
    assert report.unreadable == {"intake/?": "lacks headers"}
    assert list(report.failures) == ["routing"]
    assert not report.agrees
    assert report.complete == set()

    books = Books(["a", "b"])
    books.taken["notify"] = set()
    books.down = {"routing"}
    assert list((await books.compare()).failures) == ["routing"]
    assert books.replayed == ["a", "b"]

    books.down = {"intake/outbox/replay"}
    books.taken["notify"] = set()
    report = await books.compare()
    assert (report.total("missing"), report.total("repaired")) == (2, 0)
    assert "intake" in report.failures


async def test_an_effect_without_a_cause_is_found() -> None:
    books = Books(["a"])
    books.taken["notify"].add("x")
    report = await books.compare()
    assert report.unexplained == ["notify/x"]
    assert not report.agrees
    assert books.replayed == []


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1.5h", "1w", "9999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="24h"):
        duration(text)
