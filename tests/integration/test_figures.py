"""The aggregation of figures over reviews as they are really stored, against the plain count over their histories."""

import random
import secrets
from collections.abc import AsyncIterator
from datetime import date
from itertools import pairwise

import pytest
from unit.review_lives import live, plainly
from unit.test_figures import TODAY, comparable

from chassis.db import Database, Session
from contracts.catalogue import load_catalogue
from contracts.clock import china_date
from contracts.records import DepartmentRef
from dept_adapter.figures import ReviewFigures, pipeline_of
from dept_adapter.store import Change, NewReview, Reviews, StoredReview, collections
from support import settings_for
from xinfu_local import Broker, Stack

DEPARTMENTS = {
    d.code: DepartmentRef(code=d.code, slug=d.slug, name=d.name) for d in load_catalogue().departments[:3]
}


@pytest.fixture
async def database(infra: Stack, broker_kind: Broker) -> AsyncIterator[Database]:
    settings = settings_for(infra, broker_kind)
    uri = settings.mongodb_uri.get_secret_value()
    made = Database(uri, f"test_{secrets.token_hex(6)}", pool_size=5, timeout_ms=10_000)
    await made.ensure(collections(60))
    yield made
    made.close()


async def test_the_aggregation_counts_what_the_histories_say(database: Database) -> None:
    rng = random.Random(7)
    reviews = Reviews(database, set())
    lives = [live(rng, rng.choice(list(DEPARTMENTS.values()))) for _ in range(240)]

    async def store(session: Session) -> None:
        for steps in lives:
            added = NewReview(steps[0].review, "desk", {})
            await reviews.add([added], steps[0].at, session)
            for before, step in pairwise(steps):
                assert step.command
                stored = StoredReview(before.review, "desk", {}, None, [])
                await reviews.save([Change(stored, step.review, step.command.by)], step.at, session)

    await database.transaction(store)
    first, last = date(2026, 9, 25), date(2026, 10, 20)
    figures = ReviewFigures(database)
    found = await figures.count(DEPARTMENTS, first, last, TODAY, lambda _day: 5)
    assert [each.department.code for each in found] == list(DEPARTMENTS)
    for each in found:
        mine = [s for s in lives if s[0].review.department == each.department]
        expected = plainly([s for s in mine if first <= china_date(s[0].at) <= last], TODAY, 5)
        assert comparable(each) == expected
        assert 0 < each.received < len(mine)
    plan = await database.collection("reviews").database.command(
        "explain",
        {"aggregate": "reviews", "pipeline": pipeline_of(list(DEPARTMENTS), first, last), "cursor": {}},
    )
    assert "'indexName': 'received'" in str(plan)
