"""Departments correct what they have published: files to intake, sent again until there is a report."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from chaos.load import Persistent, Replicas
from chaos.population import CORRECTED_KINDS, TOKEN_SECONDS, Population
from e2e.people import World, csv_bytes

from contracts.tokens import Scope

_FILES = 10
_PAUSE_SECONDS = 2.0


class Sources:
    """Corrects the records the population names, in ten files spread over the window."""

    def __init__(self, world: World, population: Population, replicas: Replicas) -> None:
        self._world = world
        self._population = population
        self._http = Persistent(world, replicas)

    async def correct_all(self, window_seconds: float) -> None:
        """Until every file has its report."""
        token = await self._world.sign_in(Scope.RECORDS_WRITE, expires_in_seconds=TOKEN_SECONDS)
        ids = sorted(self._population.corrected)
        for start in range(_FILES):
            await asyncio.sleep(window_seconds / _FILES)
            if part := ids[start::_FILES]:
                await self._correct(part, token)

    async def _correct(self, ids: Sequence[str], token: str) -> None:
        rows = [{**self._population.rows[each], "CF_CFLB": CORRECTED_KINDS} for each in ids]
        url, kind = self._world.url("intake", "/v1/records/imports"), {"content-type": "text/csv"}
        while True:
            answer = await self._http.ask("POST", url, token, data=csv_bytes(rows), headers=kind)
            report = _report(answer.body)
            if report is not None:
                if report["rejected"]:
                    raise ValueError(f"intake refuses corrections: {report['rejected'][:3]}")
                return
            await asyncio.sleep(_PAUSE_SECONDS)


def _report(body: Any) -> dict[str, Any] | None:
    """The end of an import's answer; None: it was broken off."""
    try:
        last = body if isinstance(body, dict) else json.loads(str(body).splitlines()[-1])
    except (ValueError, IndexError):
        return None
    report: dict[str, Any] | None = last.get("report")
    return report
