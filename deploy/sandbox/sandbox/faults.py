"""Misbehaviour on demand: each part can be told to be slow, to fail, to forget its answer, and so on."""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from enum import StrEnum

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from contracts.errors import ProblemCode
from sandbox.db import Database
from sandbox.problems import Problem

SCHEMA = """
CREATE TABLE IF NOT EXISTS fault (
  part TEXT PRIMARY KEY, body TEXT NOT NULL, remaining INTEGER, drawn INTEGER NOT NULL DEFAULT 0
);
"""


class Mode(StrEnum):
    """What a part does. Which part knows which mode: TARGET, DEPARTMENT, SMTP, OIDC below."""

    OK = "ok"
    SLOW = "slow"
    FAIL = "fail"
    TIMEOUT = "timeout"
    APPLY_THEN_FAIL = "apply_then_fail"
    ANSWER_TWICE = "answer_twice"
    PARTIAL = "partial"
    REFUSE = "refuse"
    SILENT = "silent"
    OUT_OF_ORDER = "out_of_order"
    FORGET = "forget"
    REORDER = "reorder"
    SUPPLEMENT = "supplement"
    IGNORE_SIGNATURE = "ignore_signature"
    CHANGE_MIND = "change_mind"
    TRUNCATED = "truncated"
    WRONG_COUNT = "wrong_count"
    TWICE = "twice"
    GONE = "gone"
    LATE = "late"
    IGNORE = "ignore"
    REDIRECT = "redirect"
    WRONG_CLOCK = "wrong_clock"
    FOREIGN_RECEIPT = "foreign_receipt"
    MIXED = "mixed"


OUTAGES = frozenset({Mode.SLOW, Mode.FAIL, Mode.TIMEOUT})
OIDC = OUTAGES | {Mode.OK}
SMTP = OIDC | {Mode.APPLY_THEN_FAIL}
TARGET_OUTAGES = OUTAGES | {Mode.REDIRECT, Mode.WRONG_CLOCK}
TARGET = (
    SMTP
    | TARGET_OUTAGES
    | {Mode.ANSWER_TWICE, Mode.PARTIAL, Mode.OUT_OF_ORDER, Mode.FORGET, Mode.IGNORE}
    | {Mode.SILENT, Mode.FOREIGN_RECEIPT, Mode.MIXED}
)
SOURCE = OUTAGES | {Mode.OK}
_OFFICE = frozenset({Mode.OK, Mode.REFUSE, Mode.SILENT, Mode.SUPPLEMENT, Mode.LATE, Mode.CHANGE_MIND})
DEPARTMENT = SMTP | _OFFICE | {Mode.ANSWER_TWICE, Mode.REORDER, Mode.IGNORE_SIGNATURE}
FILES = _OFFICE | {Mode.FAIL, Mode.TRUNCATED, Mode.WRONG_COUNT, Mode.TWICE, Mode.GONE}
EVENTS = _OFFICE | {Mode.ANSWER_TWICE}
DEPARTMENTS = {"api": DEPARTMENT, "files": FILES, "events": EVENTS}


class Fault(BaseModel):
    """A misbehaviour. Without ``count`` and ``rate`` it hits every request until cleared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode
    seconds: float | None = Field(
        default=None,
        ge=0,
        le=600,
        description="slow: delay (default 2); timeout: silence (default 30); out_of_order: longest time a push is held"
        " back (default 2); reorder: longest random delay (default 2); answer_twice of a department: longest random"
        " delay of the second time (default: at once)",
    )
    twice: bool = Field(
        default=False,
        description="reorder: each callback also comes a second time, after another random delay",
    )
    kinds: tuple[Mode, ...] = Field(
        default=(), description="mixed: the modes that may hit, each with the probability rate"
    )
    count: int | None = Field(default=None, ge=1, description="Hit this many requests, then behave")
    path: str | None = Field(
        default=None,
        description="slow, fail, timeout, redirect, wrong_clock: hit only requests whose path ends so",
    )
    rate: float | None = Field(default=None, gt=0, le=1, description="Probability to hit a request")
    seed: int = Field(default=0, description="Of the draws for rate: same seed, same draws")
    status: int = Field(default=503, ge=400, le=599, description="HTTP status of fail and apply_then_fail")

    @property
    def wait_seconds(self) -> float:
        """``seconds`` or its default."""
        default = 30.0 if self.mode is Mode.TIMEOUT else 2.0
        return default if self.seconds is None else self.seconds

    def failure(self) -> Problem:
        """The answer of fail and apply_then_fail."""
        return Problem(self.status, ProblemCode.UNAVAILABLE, f"fault {self.mode} is switched on")


class Faults:
    """At most one fault for each part, kept over a restart."""

    def __init__(self, db: Database, parts: Mapping[str, frozenset[Mode]]) -> None:
        db.create(SCHEMA)
        self._db = db
        self.parts = parts

    def set(self, part: str, fault: Fault) -> None:
        """Replace the fault of a part. Raises a 404 or 422 problem."""
        self._known(part)
        if not {fault.mode, *fault.kinds} <= self.parts[part]:
            modes = ", ".join(sorted(self.parts[part]))
            raise Problem(422, ProblemCode.VALIDATION, f"{part} knows the modes {modes}, not {fault.mode}")
        if fault.path is not None and fault.mode not in TARGET_OUTAGES:
            modes = ", ".join(sorted(TARGET_OUTAGES))
            raise Problem(422, ProblemCode.VALIDATION, f"path is for {modes}, not {fault.mode}")
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM fault WHERE part = ?", (part,))
            if fault.mode is not Mode.OK:
                connection.execute(
                    "INSERT INTO fault (part, body, remaining) VALUES (?, ?, ?)",
                    (part, fault.model_dump_json(), fault.count),
                )

    def clear(self, part: str | None = None) -> None:
        """Behave again: one part, or all."""
        if part is not None:
            self._known(part)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM fault WHERE part = coalesce(?, part)", (part,))

    def current(self) -> dict[str, dict[str, object]]:
        """Every part with its modes and, when one is on, its fault and how many hits remain."""
        rows = {row["part"]: row for row in self._db.rows("SELECT * FROM fault")}
        return {
            part: {
                "modes": sorted(modes),
                "fault": Fault.model_validate_json(rows[part]["body"]) if part in rows else None,
                "remaining": rows[part]["remaining"] if part in rows else None,
            }
            for part, modes in self.parts.items()
        }

    def take(self, part: str, modes: frozenset[Mode], path: str = "") -> Fault | None:
        """The fault that hits this request, if it is one of ``modes``; uses up its count. ``path``: of the request."""
        row = self._db.one("SELECT * FROM fault WHERE part = ?", (part,))
        if row is None:
            return None
        with self._db.transaction() as connection:
            row = connection.execute("SELECT * FROM fault WHERE part = ?", (part,)).fetchone()
            if row is None:
                return None
            fault = Fault.model_validate_json(row["body"])
            if not modes & {fault.mode, *fault.kinds} or not path.endswith(fault.path or ""):
                return None
            draw = row["drawn"] + 1
            # Not security: the draws have to be repeatable.
            drawn = random.Random(f"{fault.seed}/{draw}").random()  # noqa: S311
            if fault.mode is Mode.MIXED:
                place = int(drawn / (fault.rate or 1))
                kind = fault.kinds[place] if place < len(fault.kinds) else Mode.OK
                hit = kind in modes
                fault = fault.model_copy(update={"mode": kind})
            else:
                hit = fault.rate is None or drawn < fault.rate
            left = row["remaining"] - 1 if hit and row["remaining"] is not None else row["remaining"]
            if left == 0:
                connection.execute("DELETE FROM fault WHERE part = ?", (part,))
            else:
                connection.execute(
                    "UPDATE fault SET drawn = ?, remaining = ? WHERE part = ?", (draw, left, part)
                )
        return fault if hit else None

    async def outage(self, part: str, request: Request, modes: frozenset[Mode] = OUTAGES) -> None:
        """Suffer slow, fail, timeout and the like before anything else is done. Raises the problem to answer with."""
        fault = self.take(part, modes, request.url.path)
        if fault is None:
            return
        if fault.mode is Mode.REDIRECT:
            elsewhere = {"Location": "http://127.0.0.1:9/"}
            raise Problem(307, ProblemCode.UNAVAILABLE, "fault redirect is switched on", elsewhere)
        if fault.mode is Mode.WRONG_CLOCK:
            raise Problem(401, ProblemCode.BAD_SIGNATURE, "fault wrong_clock: message timestamp too new")
        if fault.mode is Mode.FAIL:
            raise fault.failure()
        if fault.mode is Mode.SLOW:
            await asyncio.sleep(fault.wait_seconds)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_disconnected(request), fault.wait_seconds)
        raise Problem(504, ProblemCode.UNAVAILABLE, "fault timeout is switched on: nothing was done")

    def _known(self, part: str) -> None:
        if part not in self.parts:
            raise Problem(404, ProblemCode.NOT_FOUND, f"no part {part}; there are {', '.join(self.parts)}")


async def _disconnected(request: Request) -> None:
    """Return when the client has given up, so that a silence does not outlive it."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def router(faults: Faults) -> APIRouter:
    """Endpoints under /sandbox/faults."""
    api = APIRouter(prefix="/sandbox/faults", tags=["faults"])

    @api.get("")
    def listing() -> dict[str, dict[str, object]]:
        return faults.current()

    @api.post("/{part}", status_code=204)
    def switch(part: str, fault: Fault) -> None:
        faults.set(part, fault)

    @api.delete("/{part}", status_code=204)
    def clear(part: str) -> None:
        faults.clear(part)

    @api.delete("", status_code=204)
    def clear_all() -> None:
        faults.clear()

    return api
