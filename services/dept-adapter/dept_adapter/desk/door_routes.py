"""Signing in and out at the review desk, and where everybody's work is."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.tokens import Role
from dept_adapter.desk.common import (
    Posted,
    SignedIn,
    cookie_name,
    is_secure,
    sessions_of,
)
from dept_adapter.desk.pages import DeskRoute, asset, message, page
from dept_adapter.desk.sessions import SIGN_IN_SECONDS
from dept_adapter.desk.signin import Issuer, SignInRefusedError

log = get_logger(__name__)


router = APIRouter(prefix="/desk", include_in_schema=False, route_class=DeskRoute)


@router.get("/sign-in")
async def sign_in(
    request: Request, then: Annotated[str, Query(alias="next", max_length=1000)] = "/desk"
) -> Response:
    """Send the browser to the issuer."""
    if not re.fullmatch(r"/desk(?:[/?][^\\]*)?", then):
        then = "/desk"
    state, url = await sessions_of(request).begin(then)
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        cookie_name(request, "sign_in"),
        state,
        max_age=SIGN_IN_SECONDS,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


@router.get("/callback")
async def signed_in(request: Request, state: str = "", code: str = "") -> Response:
    """The browser comes back from the issuer."""
    begun = request.cookies.get(cookie_name(request, "sign_in"))
    refused = "登录没有完成", "这次登录已失效（超过 10 分钟，或不是从本浏览器开始的），请重新登录。"
    if not begun or begun != state or not code:
        return await message(
            request, None, *refused, HTTPStatus.BAD_REQUEST, link=("/desk/sign-in", "重新登录")
        )
    try:
        cookie, then = await sessions_of(request).complete(state, code)
    except SignInRefusedError as error:
        log.warning("a sign-in was refused", error=str(error))
        return await message(
            request, None, *refused, HTTPStatus.BAD_REQUEST, link=("/desk/sign-in", "重新登录")
        )
    response = RedirectResponse(then, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.delete_cookie(
        cookie_name(request, "sign_in"), httponly=True, samesite="lax", secure=is_secure(request)
    )
    # no max-age: the browser forgets it when it is closed; lax, so that links in mails lead to the page they name
    response.set_cookie(
        cookie_name(request), cookie, httponly=True, samesite="lax", secure=is_secure(request)
    )
    return response


@router.post("/sign-out")
async def sign_out(request: Request, session: SignedIn, _form: Posted) -> Response:
    """End the session here; the page links to the issuer's own."""
    await sessions_of(request).end(session.id)
    response = RedirectResponse("/desk/signed-out", HTTPStatus.SEE_OTHER)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="lax", secure=is_secure(request))
    return response


@router.get("/signed-out")
async def signed_out(request: Request) -> Response:
    """What is left to do after signing out."""
    issuer: Issuer | None = request.app.state.desk_issuer
    try:
        url = await issuer.sign_out_url() if issuer else None
    except Problem:
        url = None  # the issuer does not answer: signed out here all the same
    return await page(request, None, "signed_out.html.j2", url=url)


@router.get("/static/{_digest}/{name}")
async def static(_digest: str, name: str) -> Response:
    """Style sheet and script."""
    found = asset(name)
    if found is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这个文件。")
    return found


@router.get("")
async def home(request: Request, session: SignedIn) -> Response:
    """Where the officer's work is."""
    officer = session.officer
    for role, path in (
        (Role.OFFICER, "queue"),
        (Role.APPROVER, "queue?view=confirm"),
        (Role.SUPERVISOR, "overdue"),
        (Role.EXPERT, "experts"),
    ):
        if officer.holds(role):
            return RedirectResponse(f"/desk/{path}", HTTPStatus.SEE_OTHER)
    return await message(
        request,
        session,
        "您的账号没有工作台角色",
        "请联系本部门管理员，在统一身份认证中授予经办、复核、专家或督办角色，然后刷新本页；不需要重新登录。",
        HTTPStatus.FORBIDDEN,
        link=("/desk", "刷新"),
    )


@router.get("/help")
async def help_page(request: Request, session: SignedIn) -> Response:
    """Shortcuts, and how the desk works."""
    return await page(request, session, "help.html.j2")
