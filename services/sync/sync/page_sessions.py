"""Who may see the operators' pages: a browser that was opened by a one-time link, for some hours. Tokens are kept as hashes.

The service has no sign-in of its own: whoever holds a token with scope ``operations`` asks for a link (``xinfu convergence --open``) and
opens it once, within a minute; the browser then holds a cookie. The pages change nothing, so nothing can be made to act by a cookie.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from pymongo import IndexModel

from chassis.db import CollectionSpec, Database

COOKIE = "xinfu_pages"
LINK_SECONDS = 60
SESSION_SECONDS = 8 * 3600
COLLECTIONS = [
    CollectionSpec(name, [IndexModel("expires_at", name="ttl", expireAfterSeconds=0)])
    for name in ("page_links", "page_sessions")
]


class PageSessions:
    """One-time links and the sessions they open."""

    def __init__(self, database: Database) -> None:
        self._links = database.collection("page_links")
        self._sessions = database.collection("page_sessions")

    async def link(self, by: str) -> tuple[str, datetime]:
        """A token that opens one session, and until when."""
        token, until = secrets.token_urlsafe(32), datetime.now(UTC) + timedelta(seconds=LINK_SECONDS)
        await self._links.insert_one({"_id": _hash(token), "by": by, "expires_at": until})
        return token, until

    async def open(self, token: str) -> str | None:
        """The token of a session; None for a link that was used, is too old, or never was."""
        found = await self._links.find_one_and_delete({"_id": _hash(token)})
        # the index removes what is too old within a minute or so, not at once
        if found is None or found["expires_at"] < datetime.now(UTC):
            return None
        session = secrets.token_urlsafe(32)
        until = datetime.now(UTC) + timedelta(seconds=SESSION_SECONDS)
        await self._sessions.insert_one({"_id": _hash(session), "by": found["by"], "expires_at": until})
        return session

    async def holds(self, token: str | None) -> bool:
        """Whether a session is open."""
        if not token:
            return False
        found = await self._sessions.find_one({"_id": _hash(token)})
        return found is not None and found["expires_at"] > datetime.now(UTC)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
