"""Load: citizens who apply and do not give up, officers and operators who decide. What was acknowledged to them is kept."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import ClientError
from chaos.population import API, DESKS, Company, Population, Record
from e2e.people import Answer, Document, World

from contracts.tokens import Role, Scope

_REQUEST_SECONDS = 10.0
_CITIZENS_AT_ONCE = 16
_OFFICERS_AT_ONCE = 8
_LOOK_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 5.0
_OFFICE_HOURS_SECONDS = 86_400
_LATEST_REVOCATION_SECONDS = 20.0
_REVOCATION = "经查，修复申请材料不实"
_MISSING = ["罚款缴纳凭证", "整改完成的证明（加盖公章）"]
_SUPPLEMENT = "凭证号 0001，证明已附"
_CITIZEN_LOOK_SECONDS = 5.0
_SECOND_THOUGHTS_SECONDS = 10.0
ENDED = frozenset({"syncing", "repaired", "refused", "revoked", "not_accepted", "withdrawn"})
"""Of an item: its citizen can do nothing about it any more."""
_AGAIN = frozenset({401, 408, 425, 429})
"""401: a service whose clock is wrong refuses good tokens."""


Replicas = Mapping[str, Sequence[str]]
NO_REPLICAS: Replicas = {}


class UnexpectedAnswerError(Exception):
    """A definite answer that should not have been given."""


class Persistent:
    """HTTP as good clients do it: the same request again, after a pause, until there is a definite answer.

    ``replicas``: where those of a service answer, by the address of its first; each try goes to any, as through a load balancer.
    """

    def __init__(self, world: World, replicas: Replicas = NO_REPLICAS) -> None:
        self._world = world
        self._replicas = replicas
        self.again: Counter[str] = Counter()
        """Why requests were repeated."""

    async def ask(
        self,
        method: str,
        url: str,
        token: str | None = None,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The first answer that is neither a 5xx nor one of ``_AGAIN``."""
        pause = 0.2
        while True:
            wait = pause * random.uniform(0.5, 1)
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    answer = await self._world.ask(
                        method, self._any(url), token, json=json, data=data, headers=headers
                    )
                if answer.status < 500 and answer.status not in _AGAIN:
                    return answer
                self.again[str(answer.status)] += 1
                wait = max(wait, float(answer.headers.get("retry-after") or 0))
            except (ClientError, OSError) as error:  # OSError holds TimeoutError
                self.again[type(error).__name__] += 1
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _any(self, url: str) -> str:
        for first, all_ in self._replicas.items():
            if url.startswith(f"{first}/"):
                return random.choice(all_) + url.removeprefix(first)
        return url

    async def ok(self, method: str, url: str, token: str | None = None, *, json: Any = None) -> Any:
        """The body of a 2xx. Raises UnexpectedAnswerError for a 4xx."""
        answer = await self.ask(method, url, token, json=json)
        if answer.status >= 400:
            raise UnexpectedAnswerError(f"{method} {url} → {answer.status} {answer.body}")
        return answer.body


class Works:
    """What people have begun, each under a key of its own; why some of it failed is kept as ``problems``."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """Answers they should not have been given."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it in a task of its own, unless what has this key is still being done."""
        if key in self._tasks:
            work.close()
            return

        async def run() -> None:
            try:
                await self.noting(work)
            finally:
                del self._tasks[key]

        self._tasks[key] = asyncio.create_task(run())

    async def noting(self, work: Awaitable[None]) -> None:
        """Do it; its failure is a problem."""
        try:
            await work
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    @asynccontextmanager
    async def repeating(self, looks: Sequence[Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
        """Look again and again until the block ends; then what is begun is given up."""

        async def again(look: Callable[[], Awaitable[None]]) -> None:
            while True:
                await self.noting(look())
                await asyncio.sleep(_LOOK_SECONDS)

        loops = [asyncio.create_task(again(look)) for look in looks]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self.stop()

    async def stop(self) -> None:
        """Give up what is begun."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Citizens:
    """Each company files one application for all its records, under one Idempotency-Key, and does afterwards what is asked of it."""

    def __init__(
        self, world: World, population: Population, seed: int, replicas: Replicas = NO_REPLICAS
    ) -> None:
        self.http = Persistent(world, replicas)
        self.acknowledged: dict[str, Company] = {}
        """Application id -> who filed it."""
        self.items: dict[str, Record] = {}
        """Item id -> its record, of everything acknowledged."""
        self.refused: list[str] = []
        """Definite answers other than 201."""
        self.replayed = 0
        """Repetitions that intake recognised."""
        self.withdrawn: set[str] = set()
        """Items whose withdrawal intake acknowledged."""
        self.works = Works()
        self._world = world
        self._population = population
        self._seed = seed
        self._rng = random.Random(f"citizens {seed}")

    async def apply_all(self, seconds: float) -> None:
        """File everything, spread over so many seconds; returns when all is answered. 0: as fast as intake takes it."""
        slots = asyncio.Semaphore(_CITIZENS_AT_ONCE)
        pause = seconds / max(len(self._population.companies), 1)
        async with asyncio.TaskGroup() as group:
            for company in self._population.companies:
                await slots.acquire()
                clicks = 2 if self._rng.random() < 0.03 else 1
                task = group.create_task(self._apply(company, clicks))
                task.add_done_callback(lambda _: slots.release())
                await asyncio.sleep(pause)

    async def _apply(self, company: Company, clicks: int) -> None:
        body = self._world.body([record.record_id for record in company.records], statement=company.statement)
        url, headers = self._world.url("intake", "/v1/applications"), {"idempotency-key": company.code}
        shown = await self.http.ask(
            "POST", f"{url}/commitment-preview", company.token, json={"record_ids": body["record_ids"]}
        )
        body["commitment_hash"] = shown.body.get("commitment_hash")
        answers = await asyncio.gather(
            *(self.http.ask("POST", url, company.token, json=body, headers=headers) for _ in range(clicks))
        )
        for answer in answers:
            if answer.status != 201:
                self.refused.append(f"{company.name}: {answer.status} {answer.body}")
                continue
            self.replayed += answer.headers.get("idempotency-replayed") == "true"
            self.acknowledged[answer.body["application_id"]] = company
            for item in answer.body["items"]:
                self._see_to(answer.body["application_id"], item["item_id"], item["record_id"], company)

    def _see_to(self, application_id: str, item_id: str, record_id: str, company: Company) -> None:
        if item_id in self.items:
            return
        record = self.items[item_id] = self._population.records[record_id]
        if record.supplemented:
            self.works.begin(f"supplement {item_id}", self._supplement(application_id, item_id, company))
        if record.withdrawn:
            self.works.begin(f"withdraw {item_id}", self._withdraw(application_id, item_id, record, company))

    async def _status(self, application_id: str, item_id: str, company: Company) -> str:
        url = self._world.url("intake", f"/v1/applications/{application_id}")
        items = (await self.http.ok("GET", url, company.token))["items"]
        return next(str(item["status"]) for item in items if item["item_id"] == item_id)

    async def _supplement(self, application_id: str, item_id: str, company: Company) -> None:
        """Provide what is missing, once it is asked for."""
        while (status := await self._status(application_id, item_id, company)) not in ENDED:
            if status == "supplement":
                url = self._world.url("intake", f"/v1/items/{item_id}/supplement")
                answer = await self.http.ask("POST", url, company.token, json={"text": _SUPPLEMENT})
                if answer.status == 202:
                    return
                if not self.items[item_id].withdrawn:
                    raise UnexpectedAnswerError(f"supplement {item_id} → {answer.status} {answer.body}")
            await asyncio.sleep(_CITIZEN_LOOK_SECONDS)

    async def _withdraw(self, application_id: str, item_id: str, record: Record, company: Company) -> None:
        """Withdraw after a while, unless it has been decided: before it is routed there is nobody to withdraw it from."""
        later = random.Random(f"{self._seed} withdraw {record.record_id}").random()
        await asyncio.sleep(later * _SECOND_THOUGHTS_SECONDS)
        url = self._world.url("intake", f"/v1/items/{item_id}/withdraw")
        while True:
            answer = await self.http.ask("POST", url, company.token)
            if answer.status == 202:
                self.withdrawn.add(item_id)
                return
            if answer.status != 409:
                raise UnexpectedAnswerError(f"withdraw {item_id} → {answer.status} {answer.body}")
            if await self._status(application_id, item_id, company) in ENDED:
                return
            await asyncio.sleep(_CITIZEN_LOOK_SECONDS)


async def officer(world: World, sub: str, slugs: Sequence[str]) -> str:
    """The token of an officer of these departments, good for the whole run."""
    return await world.sign_in(
        Scope.DESK,
        sub=sub,
        departments=[world.department(slug).code for slug in slugs],
        roles=[Role.OFFICER],
        expires_in_seconds=_OFFICE_HOURS_SECONDS,
    )


class Officers:
    """Those who decide: officers at desks, an operator who assigns, departments that take back what they granted."""

    def __init__(
        self,
        world: World,
        population: Population,
        citizens: Citizens,
        seed: int,
        replicas: Replicas = NO_REPLICAS,
    ) -> None:
        self.http = Persistent(world, replicas)
        self.decided: dict[str, list[str]] = {}
        """Item id -> what a desk decided on it, in order, as acknowledged: granted, refused, revoked; or that it was withdrawn."""
        self.asked: set[str] = set()
        """Items of which a desk told what was missing."""
        self.assigned: dict[str, str] = {}
        """Item id -> slug of the department an operator named."""
        self.works = Works()
        self._world = world
        self._population = population
        self._citizens = citizens
        self._seed = seed
        self._slots = asyncio.Semaphore(_OFFICERS_AT_ONCE)
        self._revoking: set[str] = set()
        self._token = self._clerk = ""

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work until the block ends."""
        self._token = await officer(self._world, "officer", DESKS)
        self._clerk = await self._world.sign_in(
            Scope.ROUTING_ASSIGN, sub="operator", expires_in_seconds=_OFFICE_HOURS_SECONDS
        )
        looks: list[Callable[[], Awaitable[None]]] = [
            partial(self._desk, slug, state) for slug in DESKS for state in ("received", "accepted")
        ]
        looks += [self._referrals, self._revocations]
        async with self.works.repeating(looks):
            yield

    # --- what they see

    async def _desk(self, slug: str, state: str) -> None:
        code = self._world.department(slug).code
        url = self._world.url("dept-adapter", f"/v1/departments/{code}/reviews?state={state}&limit=200")
        for review in (await self.http.ok("GET", url, self._token))["reviews"]:
            item_id = review["item_id"]
            if item_id not in self.decided:
                record = self._population.records[review["record"]["record_id"]]
                self.works.begin(item_id, self._decide(item_id, record))

    async def _referrals(self) -> None:
        url = self._world.url("routing", "/v1/referrals?status=open&limit=200")
        for referral in (await self.http.ok("GET", url, self._clerk))["referrals"]:
            record = self._population.records[referral["record"]["record_id"]]
            if record.assigned_to is not None:
                self.works.begin(referral["item_id"], self._assign(referral["item_id"], record.assigned_to))

    async def _revocations(self) -> None:
        for item_id, record in list(self._citizens.items.items()):
            if record.revoked and record.slug in API and item_id not in self._revoking:
                self._revoking.add(item_id)
                self.works.begin(item_id, self._revoke_at_department(item_id, record, record.slug))

    # --- what they do

    async def _decide(self, item_id: str, record: Record) -> None:
        rng = random.Random(f"{self._seed} {record.record_id}")
        hasty, double, contrary, later = (
            rng.random() < 0.1,
            rng.random() < 0.1,
            rng.random() < 0.05,
            rng.random(),
        )
        clicks = 2 if double else 1
        # what its citizen withdraws may be gone at any moment
        expected = {200, 409} if record.withdrawn else {200}
        if record.supplemented and item_id not in self.asked:
            if await self._command(item_id, "request-supplement", {"missing": _MISSING}, clicks, expected):
                self.asked.add(item_id)
            await self._until_supplemented(item_id)
        if not hasty:
            await self._command(item_id, "accept", None, clicks, expected)
        refusal = {"reason": "经核查，整改未到位，不符合信用修复条件"}
        action, body, word = ("grant", None, "granted") if record.granted else ("refuse", refusal, "refused")
        taken = await self._command(item_id, action, body, clicks, expected)
        self.decided[item_id] = [word if taken else "withdrawn"]
        if self.decided[item_id] != ["granted"]:
            return
        if contrary:
            await self._command(item_id, "refuse", refusal, 1, {409})
        if record.revoked:
            await asyncio.sleep(_revocation_pause(later))
            await self._command(item_id, "revoke", {"reason": _REVOCATION}, clicks, {200})
            self.decided[item_id].append("revoked")

    async def _until_supplemented(self, item_id: str) -> None:
        url = self._world.url("dept-adapter", f"/v1/reviews/{item_id}")
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if (await self.http.ok("GET", url, self._token))["state"] != "supplement":
                return

    async def _command(self, item_id: str, action: str, body: Any, clicks: int, expected: set[int]) -> bool:
        """Whether it was taken."""
        url = self._world.url("dept-adapter", f"/v1/reviews/{item_id}/{action}")
        async with self._slots:
            answers = await asyncio.gather(
                *(self.http.ask("POST", url, self._token, json=body) for _ in range(clicks))
            )
        for answer in answers:
            if answer.status not in expected:
                raise UnexpectedAnswerError(f"{action} {item_id} → {answer.status} {answer.body}")
        return any(answer.status == 200 for answer in answers)

    async def _assign(self, item_id: str, slug: str) -> None:
        url = self._world.url("routing", f"/v1/referrals/{item_id}/assign")
        body = {"department_code": self._world.department(slug).code}
        await self.http.ok("POST", url, self._clerk, json=body)
        self.assigned[item_id] = slug

    async def _revoke_at_department(self, item_id: str, record: Record, slug: str) -> None:
        """A department's own system revokes once its grant was answered, as the protocol asks for."""
        url = self._world.url("sandbox", f"/departments/{slug}")
        while True:
            said = outcomes(await self.http.ok("GET", f"{url}/cases?item_id={item_id}"))
            if said:
                break
            await asyncio.sleep(2)
        if said != ["granted"]:
            return
        later = random.Random(f"{self._seed} {record.record_id}").random()
        await asyncio.sleep(_revocation_pause(later))
        decision = {"item_id": item_id, "outcome": "revoked", "reason": _REVOCATION}
        await self.http.ok("POST", f"{url}/sandbox/decisions", json=decision)


def _revocation_pause(draw: float) -> float:
    """Seconds between a grant and its revocation, mostly few: while the targets are still being told of the grant."""
    return draw**3 * _LATEST_REVOCATION_SECONDS


def outcomes(cases: Iterable[Document]) -> list[str]:
    """What departments decided in these cases, in order, as far as dept-adapter has taken it: granted, refused, revoked."""
    said = [
        (json.loads(callback["body"])["outcome"], callback["last_status"])
        for case in cases
        for callback in case["callbacks"]
        if callback["settled_at"]
    ]
    return [outcome for outcome, status in said if outcome != "accepted" and status == 200]
