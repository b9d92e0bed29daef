"""Problem responses (RFC 9457) in the OpenAPI description."""

from collections import defaultdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from chassis.problems import MEDIA_TYPE, Problem
from contracts.errors import ProblemCode


class ProblemDetails(BaseModel):
    """RFC 9457 问题详情；``detail`` 说明如何处理。"""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:xinfu:problem:not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = None
    trace_id: str | None = None


def problems(*codes: ProblemCode) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that may answer with these problems."""
    by_status: defaultdict[int, list[Problem]] = defaultdict(list)
    for code in codes:
        problem = Problem(code, "")
        by_status[problem.status].append(problem)
    schema = ProblemDetails.model_json_schema()
    return {
        status: {
            "description": "；".join(f"{p.body()['title']}（{p.body()['type']}）" for p in found),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, found in by_status.items()
    }
