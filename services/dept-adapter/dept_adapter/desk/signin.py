"""Officers sign in: OpenID Connect, authorization code with PKCE. The issuer says at every request who somebody is now."""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from aiohttp import ClientError, ClientSession
from pydantic import SecretStr, ValidationError

from chassis.auth import TokenVerifier
from chassis.problems import Problem
from chassis.settings import ChassisSettings
from contracts.errors import ProblemCode
from contracts.tokens import Claims, Scope

_SCOPES = f"openid profile offline_access {Scope.DESK} {Scope.EXPERT}"


class SignInRefusedError(Exception):
    """The issuer does not know the code, the token or the person any more: sign in again."""


@dataclass(frozen=True)
class Tokens:
    """What the issuer gave. ``access_until``: by ``time.time()``."""

    access: str
    access_until: float
    refresh: str | None


class Issuer:
    """The OpenID provider, as its client ``client_id``. Raises SignInRefusedError, and Problem UNAVAILABLE when it does not answer."""

    def __init__(
        self,
        settings: ChassisSettings,
        http: ClientSession,
        client_id: str,
        secret: SecretStr,
        redirect_uri: str,
    ) -> None:
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._http = http
        self._client_id = client_id
        self._secret = secret
        self._redirect_uri = redirect_uri
        self._verifier = TokenVerifier(settings, http, client_id)
        self._discovered: dict[str, Any] | None = None

    async def authorize_url(self, state: str, nonce: str, verifier: str) -> str:
        """Where the browser goes to sign in."""
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": _SCOPES,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{await self._endpoint('authorization_endpoint')}?{urlencode(asked)}"

    async def redeem(self, code: str, nonce: str, verifier: str) -> Tokens:
        """The tokens of a code. The id token has to be the issuer's, for this client and of this sign-in (``nonce``)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        answer = await self._token(form)
        try:
            identity = await self._verifier.claims(str(answer.get("id_token", "")))
        except Problem as error:
            if error.code is ProblemCode.UNAVAILABLE:
                raise
            raise SignInRefusedError("bad id token") from None
        if not hmac.compare_digest(str(identity.get("nonce", "")), nonce):
            raise SignInRefusedError("the id token is of another sign-in")
        return _tokens(answer)

    async def renew(self, refresh: str) -> Tokens:
        """Fresh tokens."""
        return _tokens(await self._token({"grant_type": "refresh_token", "refresh_token": refresh}), refresh)

    async def whoami(self, access: str) -> Claims:
        """Who it is now: name, roles and departments as they are at this moment (OpenID Connect Core, 5.3)."""
        url = await self._endpoint("userinfo_endpoint")
        try:
            async with self._http.get(url, headers={"Authorization": f"Bearer {access}"}) as response:
                if response.status == HTTPStatus.UNAUTHORIZED:
                    raise SignInRefusedError("the access token is not good any more")
                response.raise_for_status()
                return Claims.model_validate(await response.json())
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise _away(error) from None

    async def sign_out_url(self) -> str | None:
        """Where the person can also end the session at the issuer."""
        found = (await self._discover()).get("end_session_endpoint")
        return str(found) if found else None

    async def _token(self, form: dict[str, str]) -> dict[str, Any]:
        own = {"client_id": self._client_id, "client_secret": self._secret.get_secret_value()}
        url = await self._endpoint("token_endpoint")
        try:
            async with self._http.post(url, data={**form, **own}) as response:
                if response.status == HTTPStatus.BAD_REQUEST:
                    raise SignInRefusedError((await response.text())[:200])
                response.raise_for_status()
                answer: dict[str, Any] = await response.json()
                return answer
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise _away(error) from None

    async def _endpoint(self, name: str) -> str:
        found = (await self._discover()).get(name)
        if not found:
            raise Problem(ProblemCode.UNAVAILABLE, f"身份服务没有提供 {name}，请联系管理员。")
        return str(found)

    async def _discover(self) -> dict[str, Any]:
        if self._discovered is None:
            try:
                async with self._http.get(f"{self._issuer}/.well-known/openid-configuration") as response:
                    response.raise_for_status()
                    self._discovered = dict(await response.json())
            except (ClientError, TimeoutError, OSError, ValueError) as error:
                raise _away(error) from None
        return self._discovered


def _tokens(answer: dict[str, Any], refresh: str | None = None) -> Tokens:
    try:
        seconds = float(answer.get("expires_in", 60))
        return Tokens(
            str(answer["access_token"]), time.time() + seconds, answer.get("refresh_token", refresh)
        )
    except (KeyError, ValidationError, ValueError):
        raise SignInRefusedError("the issuer's answer has no access token") from None


def _away(error: Exception) -> Problem:
    return Problem(
        ProblemCode.UNAVAILABLE,
        f"统一身份认证暂时不可用，请稍后重试（{type(error).__name__}）。",
        headers={"Retry-After": "5"},
    )
