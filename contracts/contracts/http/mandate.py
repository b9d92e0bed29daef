"""Mandates (授权委托) and who acts under them (帮办代办): windows of province, city and county that file for a subject.

Services: intake. A window signs in with scope ``agent`` and claims ``agent_code`` and ``agent_name``; on every request for a subject it
names the mandate in the header ``Mandate-Id``. Paths: ``POST | GET /v1/subjects/me/mandates``, ``POST
/v1/subjects/me/mandates/{mandate_id}/revoke``, ``POST | GET /v1/agent/mandates``, ``POST /v1/applications/{application_id}/object``.
"""

from datetime import date
from enum import StrEnum
from typing import Literal

from pydantic import Field

from contracts.http.intake import Subject
from contracts.records import MandateId, Shape, Timestamp


class MandateAct(StrEnum):
    """What a mandate may allow beside looking."""

    FILE = "file"
    SUPPLEMENT = "supplement"
    WITHDRAW = "withdraw"
    OBJECT = "object"


class Agent(Shape):
    """A window (专窗). ``code``: as in its sign-in."""

    code: str = Field(min_length=1, max_length=64)
    name: str = Field(min_length=1, max_length=100)


class Mandate(Shape):
    """Who acts for whom, in what, until when (that day included). ``registered_by`` agent: with a signed paper, kept where ``paper`` says."""

    mandate_id: MandateId
    subject: Subject
    agent: Agent
    acts: tuple[MandateAct, ...]
    valid_until: date
    registered_by: Literal["subject", "agent"]
    paper: str | None
    created_at: Timestamp
    revoked_at: Timestamp | None


class Assistance(Shape):
    """Under which mandate an application was filed, and by whom."""

    mandate_id: MandateId
    agent: Agent
