"""Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over id.timestamp.body, 5 minutes tolerance."""

from collections.abc import Mapping
from datetime import UTC, datetime

from standardwebhooks import Webhook, WebhookVerificationError


def sign(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """Headers for a request. ``message_id`` stays the same over retries; the timestamp is that of the attempt."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
        "content-type": "application/json",
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """The webhook-id of a correctly signed request. Raises ValueError saying what is wrong."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError as error:
        raise ValueError(str(error)) from None
    except ValueError:  # the library splits and decodes what the caller sent without checking
        raise ValueError("malformed signature headers or body") from None
    return headers["webhook-id"]
