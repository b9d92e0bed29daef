"""The sign-in service: an OpenID provider that issues access tokens for machines and, with or without a page, for people."""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from pydantic import ConfigDict, Field

from contracts.tokens import Claims
from sandbox.db import Database
from sandbox.faults import Faults
from sandbox.officers import ACCESS_SECONDS, REFRESH_SECONDS, InvalidGrantError, OfficerSignIn
from sandbox.settings import OidcClient

SCHEMA = """
CREATE TABLE IF NOT EXISTS oidc_key (seq INTEGER PRIMARY KEY, pem TEXT NOT NULL);
"""

ALGORITHM = "RS256"
AUDIENCE = "xinfu"
TOKEN_SECONDS = 3600
PART = "oidc"


class SignIn(Claims):
    """Body of POST /oidc/sandbox/sign-in: who signs in. A negative ``expires_in_seconds`` makes an expired token."""

    model_config = ConfigDict(extra="forbid")

    audience: str = AUDIENCE
    expires_in_seconds: int = Field(default=TOKEN_SECONDS, ge=-86_400, le=2_592_000)


class OAuthError(Exception):
    """An error of the token endpoint (RFC 6749, section 5.2), which has a form of its own: no problem details."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status

    def response(self) -> JSONResponse:
        """The answer of the token endpoint."""
        headers = {"cache-control": "no-store"}
        if self.status == 401:
            headers["www-authenticate"] = 'Basic realm="xinfu sandbox"'
        return JSONResponse(
            {"error": self.error, "error_description": self.description}, self.status, headers
        )


class Issuer:
    """Signing keys (the newest signs, all are published) and the tokens made with them."""

    def __init__(self, db: Database, issuer: str) -> None:
        db.create(SCHEMA)
        self._db = db
        self.issuer = issuer
        self._keys = [
            RSAKey.import_key(row["pem"]) for row in db.rows("SELECT pem FROM oidc_key ORDER BY seq")
        ]
        if not self._keys:
            self.rotate()

    def rotate(self) -> str:
        """Sign with a new key from now on; returns its kid."""
        key = RSAKey.generate_key(2048, private=True)
        pem = key.as_pem(private=True).decode()
        with self._db.transaction() as connection:
            connection.execute("INSERT INTO oidc_key (pem) VALUES (?)", (pem,))
        self._keys.append(key)
        return key.thumbprint()

    def subject(self, token: str) -> str | None:
        """Whose access token this is; None when it is not good."""
        try:
            decoded = jwt.decode(token, KeySet(list(self._keys)), algorithms=[ALGORITHM])
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(decoded.claims)
        except (JoseError, ValueError):
            return None
        return str(decoded.claims["sub"])

    def jwks(self) -> dict[str, Any]:
        """Public keys (RFC 7517); kid is the thumbprint (RFC 7638)."""
        keys = [
            RSAKey.import_key(
                {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}
            )
            for key in self._keys
        ]
        return dict(KeySet(list(keys)).as_dict(private=False))

    def sign(self, claims: Mapping[str, Any], audience: str, seconds: int, kind: str = "at+jwt") -> str:
        """A signed JWT."""
        now = int(time.time())
        payload = {
            "iss": self.issuer,
            "aud": audience,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_urlsafe(16),
            **claims,
        }
        header = {"alg": ALGORITHM, "kid": self._keys[-1].thumbprint(), "typ": kind}
        return jwt.encode(header, payload, self._keys[-1], algorithms=[ALGORITHM])

    def token(self, claims: Mapping[str, Any], audience: str, seconds: int) -> dict[str, Any]:
        """A token response (RFC 6749, section 5.1) with a JWT access token (RFC 9068)."""
        return {
            "access_token": self.sign(claims, audience, seconds),
            "token_type": "Bearer",
            "expires_in": seconds,
            "scope": claims.get("scope", ""),
        }


def _basic(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError("invalid_client", "authenticate with client_secret_basic or client_secret_post", 401)
    try:
        name, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = secret = ""
    if not colon:
        raise OAuthError("invalid_client", "Authorization holds no base64 of client_id:client_secret", 401)
    # Form-encoded inside the base64: RFC 6749, section 2.3.1.
    return unquote_plus(name), unquote_plus(secret)


def _client(
    request: Request, form: Mapping[str, str], clients: Mapping[str, OidcClient]
) -> tuple[str, OidcClient]:
    header = request.headers.get("authorization")
    if header and "client_secret" in form:
        raise OAuthError("invalid_request", "use one way of client authentication, not two")
    name, secret = _basic(header) if header else (form.get("client_id", ""), form.get("client_secret", ""))
    client = clients.get(name)
    if client is None or not hmac.compare_digest(client.secret.encode(), secret.encode()):
        raise OAuthError("invalid_client", "unknown client or wrong secret: see SANDBOX_OIDC_CLIENTS", 401)
    return name, client


def _scope(asked: str | None, client: OidcClient) -> str:
    if asked is None:
        return client.scope
    allowed = client.scope.split()
    if excess := [scope for scope in asked.split() if scope not in allowed]:
        raise OAuthError("invalid_scope", f"this client may not have {' '.join(excess)}")
    return " ".join(asked.split())


def router(
    db: Database,
    faults: Faults,
    clients: Mapping[str, OidcClient],
    issuer_url: str,
    people: OfficerSignIn,
) -> APIRouter:
    """Endpoints under /oidc."""
    issuer = Issuer(db, issuer_url)
    api = APIRouter(prefix="/oidc", tags=["oidc"])

    @api.get("/.well-known/openid-configuration")
    async def discovery(request: Request) -> dict[str, Any]:
        await faults.outage(PART, request)
        return {
            "issuer": issuer.issuer,
            "jwks_uri": f"{issuer.issuer}/jwks",
            "token_endpoint": f"{issuer.issuer}/token",
            "authorization_endpoint": f"{issuer.issuer}/authorize",
            "userinfo_endpoint": f"{issuer.issuer}/userinfo",
            "end_session_endpoint": f"{issuer.issuer}/sign-out",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "grant_types_supported": ["client_credentials", "authorization_code", "refresh_token"],
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": sorted(
                {scope for client in clients.values() for scope in client.scope.split()}
            ),
        }

    @api.get("/jwks")
    async def jwks(request: Request) -> dict[str, Any]:
        await faults.outage(PART, request)
        return issuer.jwks()

    def _of_person(client: str, form: Mapping[str, str]) -> dict[str, Any]:
        try:
            if form["grant_type"] == "refresh_token":
                sub, asked = people.take("refresh", client, form.get("refresh_token", ""))
            else:
                sub, asked = people.redeem(client, form)
        except InvalidGrantError as error:
            raise OAuthError("invalid_grant", str(error)) from None
        claims = people.claims(sub)
        if claims is None:
            raise OAuthError("invalid_grant", "nobody has this sub any more")
        answer = issuer.token({"client_id": client, **claims}, AUDIENCE, ACCESS_SECONDS)
        # a refresh token is good for one use: each answer brings the next (RFC 9700, section 4.14)
        answer["refresh_token"] = people.give("refresh", client, sub, asked, REFRESH_SECONDS)
        if form["grant_type"] == "authorization_code":
            identity = {"sub": sub, "name": claims["name"], "nonce": asked["nonce"]}
            answer["id_token"] = issuer.sign(identity, client, ACCESS_SECONDS, "JWT")
        return answer

    @api.get("/userinfo")
    async def userinfo(request: Request) -> JSONResponse:
        await faults.outage(PART, request)
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        sub = issuer.subject(value) if scheme.lower() == "bearer" else None
        claims = people.claims(sub) if sub else None
        if claims is None:
            headers = {"www-authenticate": 'Bearer error="invalid_token"'}
            return JSONResponse({"error": "invalid_token"}, 401, headers=headers)
        return JSONResponse(claims, headers={"cache-control": "no-store"})

    @api.post("/token")
    async def token(request: Request) -> JSONResponse:
        await faults.outage(PART, request)
        form = {key: value for key, value in (await request.form()).items() if isinstance(value, str)}
        try:
            name, client = _client(request, form, clients)
            if form.get("grant_type") in ("authorization_code", "refresh_token"):
                return JSONResponse(_of_person(name, form), headers={"cache-control": "no-store"})
            if form.get("grant_type") != "client_credentials":
                raise OAuthError("unsupported_grant_type", "see grant_types_supported")
            scope = _scope(form.get("scope"), client)
        except OAuthError as error:
            return error.response()
        claims = {"sub": name, "client_id": name, "scope": scope}
        return JSONResponse(
            issuer.token(claims, AUDIENCE, TOKEN_SECONDS), headers={"cache-control": "no-store"}
        )

    @api.post("/sandbox/sign-in")
    def sign_in(body: SignIn) -> dict[str, Any]:
        claims = body.model_dump(mode="json", exclude={"audience", "expires_in_seconds"}, exclude_none=True)
        return issuer.token({"client_id": "sandbox", **claims}, body.audience, body.expires_in_seconds)

    @api.post("/sandbox/rotate")
    def rotate() -> dict[str, str]:
        return {"kid": issuer.rotate()}

    return api
