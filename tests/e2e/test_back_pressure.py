"""Intake says 429 before it takes more than it can hold; what it acknowledged is there, once. On a stack of its own, with tight limits."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from e2e.people import API, DESK, Answer, Company, World, csv_bytes, open_world

from contracts.errors import ProblemCode
from contracts.events import ApplicationSubmitted
from support import eventually
from xinfu.compose import compose
from xinfu_local import Broker, Stack

AT_WORK, UNSHOWN = 20, 3
TIGHT = {
    "intake": {
        "INTAKE_MAX_SUBMISSIONS_AT_WORK": str(AT_WORK),
        "INTAKE_MAX_UNSHOWN_ITEMS": str(UNSHOWN),
        # with the database frozen no commitment could be shown
        "INTAKE_REQUIRE_COMMITMENT": "false",
    },
    "sync": {"SYNC_BREAKER_SECONDS": "1", "SYNC_BACKOFF_MAX_SECONDS": "2"},
}
MORE_MEMORY_BYTES = 64_000_000


@pytest.fixture(scope="module")
async def tight(broker_kind: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    data_dir = tmp_path_factory.mktemp("tight")
    processes, endpoints = compose(data_dir, broker_kind, environment=TIGHT)
    with Stack(
        processes,
        broker_kind,
        data_dir,
        prepare=lambda _: endpoints.write(data_dir),
        ready_timeout_seconds=300,
    ) as stack:
        async with open_world(stack, endpoints) as world:
            yield world


@asynccontextmanager
async def crowd(world: World) -> AsyncIterator[World]:
    """The same world, asked over a connection for each request."""
    async with ClientSession(
        timeout=ClientTimeout(total=120), connector=TCPConnector(limit=0, force_close=True)
    ) as session:
        many = World(session, world.stack, world.endpoints)
        try:
            yield many
        finally:
            many.close()


async def answered(waiting: set[asyncio.Task[Answer]]) -> set[asyncio.Task[Answer]]:
    """Those of which the next is answered within five seconds; none: the rest hangs."""
    done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    return done


async def taken(world: World, company: Company) -> Answer:
    """Submit as somebody does who heeds Retry-After while the database is still slow."""
    for _ in range(10):
        answer = await world.submit(company)
        if answer.status != 429 or answer.body["cause"] != "database":
            break
        await asyncio.sleep(int(answer.headers["retry-after"]))
    return answer


def busy(answer: Answer, *causes: str) -> int:
    """Seconds to wait, of an answer that must be a 429 for one of these causes."""
    problem = answer.problem(ProblemCode.BUSY, "秒后重试")
    assert problem["cause"] in causes, problem
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 60
    return seconds


async def test_a_frozen_database_costs_429s_and_no_memory_and_no_application(tight: World) -> None:
    companies = [await tight.company(*(tight.row(DESK) for _ in range(100))) for _ in range(2)]
    wanted = {
        f"{company.code}-{record_id}": (company, record_id)
        for company in companies
        for record_id in company.ids
    }
    acknowledged: dict[str, str] = {}

    async with crowd(tight) as world:

        async def submit(key: str) -> Answer:
            company, record_id = wanted[key]
            answer = await world.submit(company, world.body([record_id], commitment_hash=None), key)
            if answer.status == 201:
                acknowledged[key] = answer.body["application_id"]
            return answer

        before = world.stack.memory()["intake"]
        world.stack.suspend("mongodb")
        try:
            waiting = {asyncio.create_task(submit(key)) for key in wanted}
            for _ in range(5):  # nobody heeds Retry-After
                done, waiting = await asyncio.wait(waiting, timeout=2)
                # on a busy machine the last of some hundred answers takes a while
                while len(waiting) > AT_WORK and (more := await answered(waiting)):
                    done, waiting = done | more, waiting - more
                for task in done:
                    busy(task.result(), "submissions", "requests")
                assert len(waiting) <= AT_WORK, "the others must be answered while the database stands still"
                waiting |= {asyncio.create_task(submit(key)) for key in list(wanted)[:100]}
            assert (await world.ask("GET", world.url("intake", "/livez"))).status == 200
            assert await world.metric("intake", "xinfu_intake_refused_total", cause="submissions") > 0
            assert world.stack.memory()["intake"] < before + MORE_MEMORY_BYTES
        finally:
            world.stack.resume("mongodb")
        for answer in await asyncio.gather(*waiting):
            assert answer.status in (201, 429, 503), answer.body
            assert answer.status == 201 or int(answer.headers["retry-after"]) >= 1

        async def until_taken(key: str) -> None:
            while (answer := await submit(key)).status != 201:
                assert answer.status in (429, 503), answer.body
                await asyncio.sleep(min(int(answer.headers["retry-after"]), 3))

        await asyncio.gather(*(until_taken(key) for key in wanted))

    assert len(set(acknowledged.values())) == len(wanted)
    database = tight.database("intake")
    taken = {each["_id"] for each in database["applications"].find()}
    assert taken == set(acknowledged.values()), "each once, and none that nobody was told of"
    submitted = database["outbox"].count_documents({"headers.ce_type": ApplicationSubmitted.TYPE})
    assert submitted == len(wanted)


async def test_a_target_that_is_down_stops_applications_until_it_is_back(tight: World) -> None:
    companies = [await tight.company() for _ in range(UNSHOWN + 1)]
    await tight.fault("credit-china", mode="fail")
    for company in companies[:UNSHOWN]:
        (item,) = (await taken(tight, company)).ok()["items"]
        (await tight.desk(item["item_id"], "grant")).ok()
    key = secrets.token_hex(8)

    async def refused() -> bool:
        return (await tight.submit(companies[-1], key=key)).status == 429

    async def goes_through() -> bool:
        return (await tight.submit(companies[-1], key=key)).status == 201

    # nothing but a new company shows the refusal: one that is taken holds its record
    await eventually(lambda: backlog(tight, "targets", UNSHOWN), 30)
    assert await refused()
    busy(await tight.submit(companies[-1], key=key), "targets")
    # what does not go to the targets goes on
    assert (await tight.import_answer(csv_bytes([]))).status == 200
    await tight.fault("credit-china", mode="ok")
    await eventually(goes_through, 60)


async def backlog(world: World, cause: str, at_least: int) -> bool:
    return await world.metric("intake", "xinfu_intake_backlog", cause=cause) >= at_least


async def test_a_third_import_waits_its_turn_and_a_broken_one_gives_up_its_place(tight: World) -> None:
    go_on = asyncio.Event()
    row = tight.row(API)

    async def slowly() -> AsyncIterator[bytes]:
        data = csv_bytes([row])
        yield data[:10]
        await go_on.wait()
        yield data[10:]

    async def importing(number: int) -> bool:
        return await tight.metric("intake", "xinfu_intake_at_work", kind="imports") == number

    token = await tight.ops()

    async def send() -> Answer:
        url = tight.url("intake", "/v1/records/imports")
        return await tight.ask("POST", url, token, data=slowly(), headers={"content-type": "text/csv"})

    first, second = asyncio.create_task(send()), asyncio.create_task(send())
    await eventually(lambda: importing(2))
    busy(await tight.import_answer(csv_bytes([row])), "imports")
    second.cancel()
    await eventually(lambda: importing(1))
    assert (await tight.import_answer(csv_bytes([row]))).status == 200
    go_on.set()
    assert (await first).status == 200
    await eventually(lambda: importing(0))
