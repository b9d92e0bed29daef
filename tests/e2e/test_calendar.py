"""Provisional deadlines are counted for good once the missing year is known: each is told once, and nothing lapsed before."""

from datetime import UTC, datetime, timedelta

from e2e.people import World
from e2e.test_flow import MISSING, item_of, kinds, until

from contracts.clock import china_date
from contracts.working_days import LIBRARY_CALENDAR
from support import eventually


async def test_provisional_days_are_counted_for_good_once_their_year_is_known(world: World) -> None:
    company = await world.company(world.row(), world.row(None))
    application_id = (await world.submit(company)).ok()["application_id"]

    async def by_status() -> dict[str, str]:
        items = (await world.application(company, application_id))["items"]
        return {item["status"]: item["item_id"] for item in items}

    async def routed_and_referred() -> bool:
        return set(await by_status()) == {"routed", "referred"}

    await eventually(routed_and_referred, 30)
    ids = await by_status()
    mine, queued = ids["routed"], ids["referred"]
    (await world.desk(mine, "request-supplement", {"missing": MISSING})).ok()
    await until(world, company, application_id, mine, "supplement")
    today = china_date(datetime.now(UTC))
    past = (today - timedelta(days=3)).isoformat()
    reviews, referrals = world.database("dept-adapter")["reviews"], world.database("routing")["referrals"]

    def counted_without(year: int) -> None:
        """As if the days had been counted before the notice of that year, and the guessed last one had passed since."""
        certain = {"supplement.due_on": past, "supplement.count.missing_year": year, "missing_year": year}
        reviews.update_one({"_id": mine}, {"$set": {**certain, "deadline_on": past}})
        referrals.update_one({"_id": queued}, {"$set": {"due_on": past, "count.missing_year": year}})

    counted_without(today.year + 100)
    assert (await item_of(world, company, application_id, mine))["status"] == "supplement"
    counted_without(today.year)

    async def told(item_id: str) -> bool:
        return (await kinds(world, company, application_id, item_id))["due_confirmed"] == 1

    await eventually(lambda: told(mine), 30)
    item = await item_of(world, company, application_id, mine)
    due = LIBRARY_CALENDAR.working_days_after(today, 15)
    assert (item["status"], item["due_on"], item["due_provisional"]) == (
        "supplement",
        due.on.isoformat(),
        due.provisional,
    )
    await eventually(lambda: told(queued), 30)
    waiting = await item_of(world, company, application_id, queued)
    assert (waiting["status"], waiting["queue_due_on"] > past) == ("referred", True)
    assert await told(mine), "once"
