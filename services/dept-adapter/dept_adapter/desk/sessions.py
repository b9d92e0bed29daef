"""Sessions of officers' browsers, kept here; the browser has an opaque cookie. And the names officers have."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from pymongo import IndexModel

from chassis.db import CollectionSpec, Database, Document
from contracts.tokens import Claims, Role, Scope
from dept_adapter.desk.signin import Issuer, SignInRefusedError, Tokens

COLLECTIONS = [
    CollectionSpec("desk_sessions", [IndexModel("ends_at", name="ttl", expireAfterSeconds=0)]),
    CollectionSpec("desk_sign_ins", [IndexModel("ends_at", name="ttl", expireAfterSeconds=0)]),
    CollectionSpec("desk_officers"),
]
SIGN_IN_SECONDS = 600
_RENEW_BEFORE_SECONDS = 20


@dataclass(frozen=True)
class Session:
    """A signed-in officer. ``csrf``: what every form of this session carries."""

    id: str
    officer: Claims
    csrf: str

    def wrote(self, token: str) -> bool:
        """Whether a form is of this session."""
        return hmac.compare_digest(token.encode(), self.csrf.encode())


@dataclass(frozen=True)
class SignIn:
    """A sign-in under way."""

    nonce: str
    verifier: str
    then: str


class Sessions:
    """All sessions. ``idle``, ``whole``: after which time, without a request and in any case, a session is over."""

    def __init__(self, database: Database, issuer: Issuer, idle: timedelta, whole: timedelta) -> None:
        self._sessions = database.collection("desk_sessions")
        self._sign_ins = database.collection("desk_sign_ins")
        self._officers = database.collection("desk_officers")
        self._issuer = issuer
        self._idle = idle
        self._whole = whole
        self._renewing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin(self, then: str) -> tuple[str, str]:
        """Begin a sign-in: (its state, where the browser goes). ``then``: the page that was wanted."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        url = await self._issuer.authorize_url(state, nonce, verifier)
        ends_at = datetime.now(UTC) + timedelta(seconds=SIGN_IN_SECONDS)
        known = {"nonce": nonce, "verifier": verifier, "then": then}
        await self._sign_ins.insert_one({"_id": _hash(state), **known, "ends_at": ends_at})
        return state, url

    async def complete(self, state: str, code: str) -> tuple[str, str]:
        """(the new cookie, the page that was wanted). Raises SignInRefusedError and Problem."""
        found = await self._sign_ins.find_one_and_delete(
            {"_id": _hash(state), "ends_at": {"$gt": datetime.now(UTC)}}
        )
        if found is None:
            raise SignInRefusedError("this sign-in was not begun, is over, or took too long")
        tokens = await self._issuer.redeem(code, found["nonce"], found["verifier"])
        officer = await self._issuer.whoami(tokens.access)
        cookie, now = secrets.token_urlsafe(32), datetime.now(UTC)
        await self._sessions.insert_one(
            {
                "_id": _hash(cookie),
                **_of_officer(officer),
                **_of_tokens(tokens),
                "csrf": secrets.token_urlsafe(32),
                "begun_at": now,
                "seen_at": now,
                "ends_at": now + min(self._idle, self._whole),
                "notice": None,
            }
        )
        await self._officers.update_one(
            {"_id": officer.sub}, {"$set": {"name": officer.name or officer.sub}}, upsert=True
        )
        return cookie, str(found["then"])

    async def current(self, cookie: str) -> Session | None:
        """The session of a cookie, with the roles and departments the officer has at this moment; None: there is none any more.

        Raises Problem UNAVAILABLE when the issuer does not answer: who might have lost a role does not go on.
        """
        now = datetime.now(UTC)
        found = await self._sessions.find_one({"_id": _hash(cookie), "ends_at": {"$gt": now}})
        if found is None:
            return None
        try:
            officer = await self._whoami(found)
        except SignInRefusedError:
            await self.end(found["_id"])
            return None
        if officer.sub != found["sub"]:
            await self.end(found["_id"])
            return None
        officer = officer.model_copy(update={"scope": _scope(officer)})
        ends_at = min(now + self._idle, found["begun_at"] + self._whole)
        changed = {"seen_at": now, "ends_at": ends_at, **_of_officer(officer)}
        await self._sessions.update_one({"_id": found["_id"]}, {"$set": changed})
        return Session(found["_id"], officer, found["csrf"])

    async def notify(self, session: Session, text: str) -> None:
        """Show ``text`` on the next page of this session."""
        await self._sessions.update_one({"_id": session.id}, {"$set": {"notice": text}})

    async def notice(self, session: Session) -> str | None:
        """What is to be shown; once."""
        found = await self._sessions.find_one_and_update({"_id": session.id}, {"$set": {"notice": None}})
        return found["notice"] if found else None

    async def end(self, session_id: str) -> None:
        """Sign out."""
        await self._sessions.delete_one({"_id": session_id})

    async def names(self, subs: Iterable[str]) -> dict[str, str]:
        """sub -> name of those who have ever signed in here."""
        cursor = self._officers.find({"_id": {"$in": sorted(set(subs))}})
        return {document["_id"]: document["name"] async for document in cursor}

    async def _whoami(self, found: Document) -> Claims:
        if found["access_until"] - time.time() > _RENEW_BEFORE_SECONDS:
            try:
                return await self._issuer.whoami(found["access"])
            except SignInRefusedError:
                pass  # withdrawn before its time: the refresh token tells whether the session is over
        return await self._issuer.whoami(await self._renew(found))

    async def _renew(self, found: Document) -> str:
        """A fresh access token. Of requests at the same time one renews it; a refresh token may be good for one use only."""
        lock = self._renewing.setdefault(found["_id"], asyncio.Lock())
        async with lock:
            now = await self._sessions.find_one({"_id": found["_id"]})
            if now is None:
                raise SignInRefusedError("signed out meanwhile")
            if now["access"] != found["access"]:
                return str(now["access"])
            if not now["refresh"]:
                raise SignInRefusedError("no refresh token")
            try:
                tokens = await self._issuer.renew(now["refresh"])
            except SignInRefusedError:
                # another replica may have been first
                await asyncio.sleep(0.3)
                now = await self._sessions.find_one({"_id": found["_id"]})
                if now is None or now["access"] == found["access"]:
                    raise
                return str(now["access"])
            await self._sessions.update_one({"_id": found["_id"]}, {"$set": _of_tokens(tokens)})
            return tokens.access


def _scope(officer: Claims) -> str:
    """What the roles allow, in the words of the API's tokens."""
    desk = any(officer.holds(role) for role in Role if role is not Role.EXPERT)
    return " ".join(
        [*([Scope.DESK] if desk else []), *([Scope.EXPERT] if officer.holds(Role.EXPERT) else [])]
    )


def _of_officer(officer: Claims) -> Document:
    return {
        "sub": officer.sub,
        "name": officer.name,
        "roles": list(officer.roles),
        "departments": list(officer.departments),
    }


def _of_tokens(tokens: Tokens) -> Document:
    return {"access": tokens.access, "access_until": tokens.access_until, "refresh": tokens.refresh}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
