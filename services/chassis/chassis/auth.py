"""Bearer tokens: verifying (JWT against a JWKS) and obtaining (client credentials) them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientError, ClientSession
from fastapi import Request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import SecretStr, ValidationError

from chassis.problems import Problem
from chassis.settings import ChassisSettings
from contracts.errors import ProblemCode
from contracts.tokens import Claims, Scope

_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
_MIN_REFRESH_SECONDS = 10.0
_MAX_AGE_SECONDS = 600.0


def _unauthenticated(detail: str) -> Problem:
    return Problem(ProblemCode.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": "Bearer"})


class TokenVerifier:
    """Verifies access tokens of one issuer: signature, iss, aud, exp, nbf.

    Keys are fetched from the issuer's JWKS, kept for 10 minutes, and fetched again (at most every 10 s) when a token names a key
    that is not there, so a key rotation needs no restart.
    """

    def __init__(self, settings: ChassisSettings, http: ClientSession, audience: str | None = None) -> None:
        """``audience``: instead of that of the settings, as for id tokens, which are for a client."""
        self._http = http
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._jwks_url = settings.oidc_jwks_url
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._lock = asyncio.Lock()
        self._registry = jwt.JWTClaimsRegistry(
            leeway=settings.oidc_leeway_seconds,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": audience or settings.oidc_audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def verify(self, token: str) -> Claims:
        """The claims of a valid token. Raises Problem (401, or 503 when the issuer cannot be reached)."""
        claims = await self.claims(token)
        try:
            return Claims.model_validate(claims)
        except ValidationError:
            raise _unauthenticated("令牌格式有误，请重新登录。") from None

    async def claims(self, token: str) -> dict[str, Any]:
        """The same with all claims, as they are."""
        try:
            decoded = await self._decode(token)
            self._registry.validate(decoded.claims)
            return dict(decoded.claims)
        except JoseError as error:
            raise _unauthenticated(f"令牌无效或已过期（{error.error}），请重新登录。") from None
        except ValueError:
            raise _unauthenticated("令牌格式有误，请重新登录。") from None

    async def _decode(self, token: str) -> jwt.Token:
        keys = await self._current_keys(max_age=_MAX_AGE_SECONDS)
        try:
            return jwt.decode(token, keys, algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            fresh = await self._current_keys(max_age=_MIN_REFRESH_SECONDS)
            if fresh is keys:
                raise
            return jwt.decode(token, fresh, algorithms=_ALGORITHMS)

    async def _current_keys(self, max_age: float) -> KeySet:
        async with self._lock:
            if self._keys is None or time.monotonic() - self._fetched_at > max_age:
                try:
                    self._keys = await self._fetch()
                except (ClientError, TimeoutError, ValueError, KeyError) as error:
                    if self._keys is None:
                        raise Problem(
                            ProblemCode.UNAVAILABLE,
                            f"身份服务暂时不可用，请稍后重试（{type(error).__name__}）。",
                            headers={"Retry-After": "5"},
                        ) from None
                self._fetched_at = time.monotonic()
            return self._keys

    async def _fetch(self) -> KeySet:
        if self._jwks_url is None:
            async with self._http.get(f"{self._issuer}/.well-known/openid-configuration") as response:
                response.raise_for_status()
                self._jwks_url = (await response.json())["jwks_uri"]
        async with self._http.get(self._jwks_url) as response:
            response.raise_for_status()
            return KeySet.import_key_set(await response.json())


def require(*scopes: Scope) -> Callable[[Request], Awaitable[Claims]]:
    """A FastAPI dependency: the caller's claims, or a 401/403 problem when the token has none of ``scopes``."""

    async def dependency(request: Request) -> Claims:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthenticated("请在 Authorization 头中携带 Bearer 令牌。")
        verifier: TokenVerifier = request.app.state.runtime.tokens
        claims = await verifier.verify(token.strip())
        if not any(claims.allows(scope) for scope in scopes):
            raise Problem(ProblemCode.FORBIDDEN, f"令牌缺少权限 {' 或 '.join(scopes)}。")
        return claims

    return dependency


class ServiceToken:
    """An access token of this service's own (OAuth 2.0 client credentials, RFC 6749 4.4), renewed before it expires."""

    def __init__(
        self, http: ClientSession, issuer: str, client_id: str, client_secret: SecretStr, scope: Scope
    ) -> None:
        self._http = http
        self._issuer = issuer.rstrip("/")
        self._client_id = client_id
        self._secret = client_secret
        self._scope = scope
        self._token = ""
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """The Authorization header. Raises aiohttp.ClientError when the issuer refuses or cannot be reached."""
        async with self._lock:
            if time.monotonic() >= self._renew_at:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._client_id,
                    "client_secret": self._secret.get_secret_value(),
                    "scope": self._scope.value,
                }
                async with self._http.post(f"{self._issuer}/token", data=form) as response:
                    response.raise_for_status()
                    answer: dict[str, Any] = await response.json()
                self._token = answer["access_token"]
                self._renew_at = time.monotonic() + max(float(answer.get("expires_in", 60)) - 30, 5)
            return {"Authorization": f"Bearer {self._token}"}
