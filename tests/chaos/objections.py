"""Objections to records: citizens file them, some take them back, officers uphold or dismiss them. What was acknowledged is kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from chaos.load import (
    NO_REPLICAS,
    Citizens,
    Persistent,
    Replicas,
    UnexpectedAnswerError,
    Works,
    officer,
)
from chaos.population import API, CORRECTED_KINDS, DESKS, Company, Objecting, Population
from e2e.people import Document, World

_FILED_WITHIN_SECONDS = 20.0
_LOOK_SECONDS = 5.0
_AT_ONCE = 4
_WITHDRAWABLE = frozenset({"filed", "referred", "routed", "accepted"})
_REASON = "处罚类别填写有误，实际只有罚款"
_RULINGS: Mapping[Objecting, tuple[str, Document]] = {
    Objecting.UPHELD: (
        "uphold",
        {"reason": "经核查，处罚类别有误", "remedy": "corrected", "penalty_kinds": CORRECTED_KINDS},
    ),
    Objecting.DISMISSED: ("dismiss", {"reason": "经核查，记录无误"}),
}


class Objections:
    """Whoever objects does so once the application that holds the record was acknowledged."""

    def __init__(
        self,
        world: World,
        population: Population,
        citizens: Citizens,
        seed: int,
        replicas: Replicas = NO_REPLICAS,
    ) -> None:
        self.http = Persistent(world, replicas)
        self.filed: dict[str, str] = {}
        """Objection id -> record id, as acknowledged."""
        self.ruled: dict[str, str] = {}
        """Objection id -> what an officer was told it is now."""
        self.retracted: set[str] = set()
        """Objections whose withdrawal intake acknowledged."""
        self.works = Works()
        self._world = world
        self._population = population
        self._citizens = citizens
        self._seed = seed
        self._begun: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._token = ""

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """File and rule until the block ends."""
        slugs = (*API, *DESKS)
        self._token = await officer(self._world, "objections officer", slugs)
        async with self.works.repeating([self._filings, *(partial(self._desk, slug) for slug in slugs)]):
            yield

    @property
    def corrected(self) -> set[str]:
        """Records that were corrected because an objection was right."""
        return {
            self.filed[each] for each, state in self.ruled.items() if state == "upheld" and each in self.filed
        }

    def ended_as(self, objection_id: str) -> str:
        """The status its citizen has to see in the end."""
        ruled = self.ruled.get(objection_id, "withdrawn")
        if ruled == "withdrawn" and objection_id not in self.retracted:
            return "decided by an officer"
        return ruled

    async def _filings(self) -> None:
        for record in list(self._citizens.items.values()):
            record_id = record.record_id
            if record_id in self._population.objections and record_id not in self._begun:
                self._begun.add(record_id)
                self.works.begin(f"object to {record_id}", self._object(record_id))

    async def _object(self, record_id: str) -> None:
        """File it, sometimes twice at once, and take it back if that is what its citizen does."""
        rng = random.Random(f"{self._seed} object {record_id}")
        company, objecting = self._population.owners[record_id], self._population.objections[record_id]
        await asyncio.sleep(rng.random() * _FILED_WITHIN_SECONDS)
        clicks = 2 if rng.random() < 0.1 else 1
        async with self._slots:
            answers = await asyncio.gather(
                *(
                    self.http.ask(
                        "POST",
                        self._world.url("intake", "/v1/objections"),
                        company.token,
                        json={"record_id": record_id, "reason": _REASON},
                        headers={"idempotency-key": f"objection-{record_id}"},
                    )
                    for _ in range(clicks)
                )
            )
        for answer in answers:
            if answer.status != 201:
                raise UnexpectedAnswerError(f"object to {record_id} → {answer.status} {answer.body}")
            self.filed[answer.body["objection_id"]] = record_id
        if objecting is Objecting.RETRACTED:
            await self._retract(answers[0].body["objection_id"], company)

    async def _retract(self, objection_id: str, company: Company) -> None:
        url = self._world.url("intake", f"/v1/objections/{objection_id}")
        while True:
            answer = await self.http.ask("POST", f"{url}/withdraw", company.token)
            if answer.status == 200:
                self.retracted.add(objection_id)
                return
            if answer.status != 409:
                raise UnexpectedAnswerError(f"withdraw {objection_id} → {answer.status} {answer.body}")
            if (await self.http.ok("GET", url, company.token))["status"] not in _WITHDRAWABLE:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _desk(self, slug: str) -> None:
        code = self._world.department(slug).code
        for state in ("received", "accepted"):
            url = f"/v1/departments/{code}/objections?state={state}&limit=200"
            page = await self.http.ok("GET", self._world.url("dept-adapter", url), self._token)
            for objection in page["objections"]:
                objecting = self._population.objections[objection["record"]["record_id"]]
                if objection["objection_id"] not in self.ruled:
                    work = self._rule(objection["objection_id"], objecting)
                    self.works.begin(f"rule {objection['objection_id']}", work)

    async def _rule(self, objection_id: str, objecting: Objecting) -> None:
        """Accept and decide, sometimes twice at once; what its citizen takes back may be gone at any moment."""
        rng = random.Random(f"{self._seed} rule {objection_id}")
        retracted = objecting is Objecting.RETRACTED
        if retracted and rng.random() < 0.5:  # left for whoever took it back
            return
        if rng.random() < 0.7:
            await self._command(objection_id, "accept", None, 1, retracted)
        action, body = _RULINGS[Objecting.DISMISSED if retracted else objecting]
        state = await self._command(objection_id, action, body, 2 if rng.random() < 0.1 else 1, retracted)
        self.ruled[objection_id] = state or "withdrawn"

    async def _command(
        self, objection_id: str, action: str, body: Document | None, clicks: int, retracted: bool
    ) -> str | None:
        """The state it is in then; None: refused, because it was taken back."""
        url = self._world.url("dept-adapter", f"/v1/objections/{objection_id}/{action}")
        async with self._slots:
            answers = await asyncio.gather(
                *(self.http.ask("POST", url, self._token, json=body) for _ in range(clicks))
            )
        for answer in answers:
            if answer.status not in ({200, 409} if retracted else {200}):
                raise UnexpectedAnswerError(f"{action} {objection_id} → {answer.status} {answer.body}")
        return next((str(answer.body["state"]) for answer in answers if answer.status == 200), None)
