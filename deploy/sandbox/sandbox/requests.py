"""What every part does with a request: check its signature and read its body."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from contracts.errors import ProblemCode
from sandbox.problems import Problem

MAX_BODY_BYTES = 10_000_000

Model = TypeVar("Model", bound=BaseModel)


async def verified_body(request: Request, webhook: Webhook) -> bytes:
    """The body, its Standard Webhooks signature checked. Raises a 401 problem."""
    body = await request.body()
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        # ValueError: a signature that is not base64, or a body that is not UTF-8.
        raise Problem(
            401, ProblemCode.BAD_SIGNATURE, f"{error}: sign webhook-id.webhook-timestamp.body with the secret"
        ) from None
    return body


def parse(model: type[Model], body: bytes) -> Model:
    """Validate a JSON body. Raises a 413 problem for a list that is too long, 422 for all else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        if first["type"] == "too_long":
            raise Problem(413, ProblemCode.TOO_LARGE, f"{where}: {first['msg']}; send less at once") from None
        code = ProblemCode.MALFORMED_JSON if first["type"] == "json_invalid" else ProblemCode.VALIDATION
        raise Problem(422, code, f"{where}: {first['msg']}") from None
