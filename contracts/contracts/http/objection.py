"""What a subject wrote when it objected to a record or a result: asked of intake, never in an event (scope ``cases.read``).

Services: intake. Paths: ``POST | GET /v1/objections``, ``GET /v1/objections/{objection_id}`` (applicants);
``POST /v1/internal/objections/lookup``.
"""

from typing import Annotated

from pydantic import Field

from contracts.http.intake import Material, Subject
from contracts.records import ObjectionId, Shape


class ObjectionCase(Shape):
    """What a department may see of an objection."""

    objection_id: ObjectionId
    subject: Subject
    reason: str
    materials: tuple[Material, ...] = ()
    email: str | None = Field(
        default=None, description="From the sign-in token; None when the issuer gave none"
    )


class ObjectionLookup(Shape):
    """Request of POST /v1/internal/objections/lookup."""

    objection_ids: Annotated[list[ObjectionId], Field(min_length=1, max_length=500)]


class ObjectionLookupResult(Shape):
    """Known objections only; an unknown id is left out."""

    objections: list[ObjectionCase]
