"""People who sign in with a page of the issuer: OpenID Connect, authorization code with PKCE, and a page to choose a test officer."""

import base64
import hashlib
import hmac
import html
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict

from contracts.tokens import Role, Scope
from sandbox.db import Database
from sandbox.settings import OidcClient

SCHEMA = """
CREATE TABLE IF NOT EXISTS oidc_officer (sub TEXT PRIMARY KEY, claims TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS oidc_grant (
    secret TEXT PRIMARY KEY, kind TEXT NOT NULL, client TEXT NOT NULL, sub TEXT NOT NULL, asked TEXT NOT NULL,
    expires_at REAL NOT NULL
);
"""
CODE_SECONDS, ACCESS_SECONDS, REFRESH_SECONDS = 60, 300, 43_200
SAMPLES: dict[str, tuple[str, tuple[str, ...], tuple[Role, ...]]] = {
    "wangmin": ("王敏", ("hz-jyj",), (Role.OFFICER,)),
    "zhaogang": ("赵刚", ("hz-jyj", "hz-czj"), (Role.OFFICER, Role.APPROVER)),
    "lina": ("李娜", ("hz-czj",), (Role.OFFICER,)),
    "chenjing": ("陈静", ("hz-czj",), (Role.APPROVER,)),
    "zhouhao": ("周浩", ("hz-jyj", "hz-kjj", "hz-fgw"), (Role.OFFICER,)),
    "sunwei": ("孙伟", (), (Role.SUPERVISOR,)),
    "expert-01": ("专家甲（示例）", (), (Role.EXPERT,)),
    "expert-02": ("专家乙（示例）", (), (Role.EXPERT,)),
}
"""sub -> name, slugs of departments, roles. Nobody of them is real."""
_ROLE_TEXT = {
    Role.OFFICER: "经办",
    Role.APPROVER: "复核",
    Role.EXPERT: "专家",
    Role.SUPERVISOR: "信用中心督办",
}
_STYLE = (
    "body{font:16px/1.6 'Microsoft YaHei','WenQuanYi Micro Hei',sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;"
    "color:#1c2733}button{font:inherit;width:100%;text-align:left;padding:.6rem .8rem;margin:.2rem 0;background:#fff;"
    "border:1px solid #6b7c8f;border-radius:4px;cursor:pointer}button:hover,button:focus{background:#e8f0f8}"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; frame-ancestors 'none'",
}


class Officer(BaseModel):
    """Body of PUT /oidc/sandbox/officers/{sub}: who somebody is from now on; without roles nobody's."""

    model_config = ConfigDict(extra="forbid")

    name: str
    departments: list[str] = []
    roles: list[Role] = []


class InvalidGrantError(ValueError):
    """The code or refresh token is not good (any more); the text is for developers."""


class OfficerSignIn:
    """The officers, the codes and the refresh tokens given to them."""

    def __init__(self, db: Database, codes: Mapping[str, str]) -> None:
        """``codes``: department slug -> code."""
        db.create(SCHEMA)
        self._db = db
        for sub, (name, slugs, roles) in SAMPLES.items():
            sample = Officer(name=name, departments=[codes[s] for s in slugs if s in codes], roles=[*roles])
            with db.transaction() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO oidc_officer VALUES (?, ?)", (sub, sample.model_dump_json())
                )

    def put(self, sub: str, officer: Officer) -> None:
        """Who somebody is from now on."""
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO oidc_officer VALUES (?, ?)", (sub, officer.model_dump_json())
            )

    def claims(self, sub: str) -> dict[str, Any] | None:
        """Who somebody is now. Whoever has no role has no scope."""
        rows = self._db.rows("SELECT claims FROM oidc_officer WHERE sub = ?", (sub,))
        if not rows:
            return None
        officer = Officer.model_validate_json(rows[0]["claims"])
        scopes = [Scope.DESK] if set(officer.roles) - {Role.EXPERT} else []
        scopes += [Scope.EXPERT] if Role.EXPERT in officer.roles else []
        return {"sub": sub, "scope": " ".join(["openid", *scopes]), **officer.model_dump(mode="json")}

    def everybody(self) -> list[dict[str, Any]]:
        """All officers, in the order of their subs."""
        subs = [row["sub"] for row in self._db.rows("SELECT sub FROM oidc_officer ORDER BY rowid")]
        return [claims for sub in subs if (claims := self.claims(sub))]

    def give(self, kind: str, client: str, sub: str, asked: Mapping[str, str], seconds: int) -> str:
        """A new code or refresh token."""
        secret = secrets.token_urlsafe(32)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM oidc_grant WHERE expires_at < ?", (time.time(),))
            connection.execute(
                "INSERT INTO oidc_grant VALUES (?, ?, ?, ?, ?, ?)",
                (_hash(secret), kind, client, sub, json.dumps(dict(asked)), time.time() + seconds),
            )
        return secret

    def take(self, kind: str, client: str, secret: str) -> tuple[str, dict[str, str]]:
        """(sub, what was asked for); the code or token is used up. Raises InvalidGrantError."""
        with self._db.transaction() as connection:
            row = connection.execute(
                "DELETE FROM oidc_grant WHERE secret = ? AND kind = ? AND client = ? AND expires_at > ?"
                " RETURNING sub, asked",
                (_hash(secret), kind, client, time.time()),
            ).fetchone()
        if row is None:
            raise InvalidGrantError(f"unknown, used or expired {kind}")
        return row["sub"], json.loads(row["asked"])

    def redeem(self, client: str, form: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """(sub, what was asked for) of a code. Raises InvalidGrantError."""
        sub, asked = self.take("code", client, form.get("code", ""))
        if asked["redirect_uri"] != form.get("redirect_uri"):
            raise InvalidGrantError("redirect_uri is not the one the code was given for")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not hmac.compare_digest(challenge, asked["code_challenge"]):
            raise InvalidGrantError("code_verifier does not fit the code_challenge (RFC 7636)")
        return sub, asked


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _asked(query: Mapping[str, str], clients: Mapping[str, OidcClient]) -> dict[str, str]:
    """The authorization request. A client that is not known is told nothing by redirect (RFC 6749, section 4.1.2.1)."""
    client = clients.get(query.get("client_id", ""))
    if client is None or query.get("redirect_uri") not in client.redirect_uris:
        raise HTTPException(
            400, "unknown client_id, or redirect_uri not registered: see SANDBOX_OIDC_CLIENTS"
        )
    if query.get("response_type") != "code" or "openid" not in query.get("scope", "").split():
        raise HTTPException(400, "response_type has to be code, scope has to hold openid")
    if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
        raise HTTPException(400, "PKCE is needed: code_challenge, and S256 as code_challenge_method")
    names = ("client_id", "redirect_uri", "state", "nonce", "code_challenge", "scope")
    return {name: query.get(name, "") for name in names}


def router(people: OfficerSignIn, clients: Mapping[str, OidcClient]) -> APIRouter:
    """The pages of people, under /oidc."""
    api = APIRouter(prefix="/oidc", tags=["oidc"])

    @api.get("/authorize", response_class=HTMLResponse)
    def authorize(request: Request) -> HTMLResponse:
        asked = _asked(request.query_params, clients)
        hidden = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
            for name, value in {**asked, "response_type": "code", "code_challenge_method": "S256"}.items()
        )
        choices = "".join(
            f'<li><button name="sub" value="{html.escape(claims["sub"])}">{html.escape(claims["name"])}'
            f" · {'、'.join(_ROLE_TEXT[role] for role in claims['roles']) or '没有角色'}</button></li>"
            for claims in people.everybody()
        )
        return HTMLResponse(
            '<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>统一身份认证（沙箱）</title>'
            f"<style>{_STYLE}</style><main><h1>统一身份认证（沙箱）</h1><p>选择一名测试人员登录。均为虚构人员，不需要密码。</p>"
            f'<form method="get" action="authorize/as">{hidden}<ul>{choices}</ul></form></main></html>',
            headers=_HEADERS,
        )

    @api.get("/authorize/as")
    def choose(request: Request, sub: str) -> RedirectResponse:
        asked = _asked(request.query_params, clients)
        if people.claims(sub) is None:
            raise HTTPException(400, "nobody has this sub")
        code = people.give("code", asked["client_id"], sub, asked, CODE_SECONDS)
        query = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(
            f"{asked['redirect_uri']}?{query}", 303, headers={"Cache-Control": "no-store"}
        )

    @api.get("/sign-out", response_class=HTMLResponse)
    def sign_out() -> HTMLResponse:
        return HTMLResponse(
            '<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>已退出</title><h1>已退出统一身份认证（沙箱）</h1></html>',
            headers=_HEADERS,
        )

    @api.put("/sandbox/officers/{sub}")
    def put(sub: str, body: Officer) -> dict[str, str]:
        people.put(sub, body)
        return {"sub": sub}

    return api
