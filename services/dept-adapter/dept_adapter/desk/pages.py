"""Pages as responses: templates, headers, and what becomes of a request that cannot be served; no typed text is lost."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData

from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.tokens import Role
from dept_adapter.desk import presenters
from dept_adapter.desk.sessions import Session, Sessions
from dept_adapter.officers import ROLE_TEXT

_STATIC = {
    name: files("dept_adapter").joinpath("desk", "static", name).read_bytes()
    for name in ("desk.css", "desk.js", "desk.svg")
}
_DIGEST = hashlib.sha256(b"".join(_STATIC.values())).hexdigest()[:12]
_MEDIA_TYPES = {
    "desk.css": "text/css; charset=utf-8",
    "desk.js": "text/javascript; charset=utf-8",
    "desk.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
TYPED = {
    "text": "文书正文或理由",
    "free": "其他需要补正的内容",
    "reason": "理由",
    "note": "依据",
}
"""Fields of forms in which people type."""

templates = Environment(
    loader=PackageLoader("dept_adapter.desk"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters |= {
    "day": presenters.day_text,
    "time": presenters.time_text,
    "size": presenters.size_text,
}
templates.globals |= {"assets": f"/desk/static/{_DIGEST}", "Role": Role, "ROLE_TEXT": ROLE_TEXT}


class SignInNeededError(Exception):
    """Nobody is signed in, or not any more."""


def asset(name: str) -> Response | None:
    """A style sheet or script. Its address has the digest of its content, so that a browser keeps it."""
    if name not in _STATIC:
        return None
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_STATIC[name], media_type=_MEDIA_TYPES[name], headers=headers)


async def page(
    request: Request, session: Session | None, name: str, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page of ours."""
    sessions: Sessions = request.app.state.desk_sessions
    # shown once: a part of a page does not use it up
    notice = await sessions.notice(session) if session else None
    body = templates.get_template(name).render(
        session=session, officer=session.officer if session else None, notice=notice, **context
    )
    return HTMLResponse(body, status, headers=HEADERS)


async def message(
    request: Request,
    session: Session | None,
    title: str,
    text: str,
    status: int,
    *,
    link: tuple[str, str] = ("/desk", "回到工作台"),
    typed: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page that says what is the matter and what to do; with what the officer had typed."""
    return await page(
        request, session, "message.html.j2", status, title=title, text=text, link=link, typed=typed or {}
    )


async def typed_text(request: Request) -> dict[str, str]:
    """What was typed into the form of this request, by what it is."""
    if request.method != "POST":
        return {}
    form: FormData = await request.form()
    found = {words: str(form.get(name, "")).strip() for name, words in TYPED.items()}
    found["需要补正的内容"] = "\n".join(str(line) for line in form.getlist("missing"))
    return {words: text for words, text in found.items() if text}


class DeskRoute(APIRoute):
    """Answers with pages: a browser that is not signed in is sent to sign in, a problem is told in words."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, with errors as pages."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeededError:
                return await _sign_in_first(request)
            except Problem as problem:
                return await _told(request, problem)
            except RequestValidationError:
                return await _told(
                    request, Problem(ProblemCode.VALIDATION, "地址或表单内容有误，请返回后重试。")
                )

        return handler


async def _sign_in_first(request: Request) -> Response:
    if request.method == "GET":
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/desk/sign-in?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)
    back = request.url.path.rsplit("/", 1)[0]
    return await message(
        request,
        None,
        "登录已结束，本次没有提交",
        "您长时间没有操作，或者已在别处退出，需要重新登录。您刚才填写的内容在下面，可以复制；重新登录后再提交。",
        HTTPStatus.UNAUTHORIZED,
        link=(f"/desk/sign-in?next={quote(back, safe='')}", "重新登录"),
        typed=await typed_text(request),
    )


async def _told(request: Request, problem: Problem) -> Response:
    session: Session | None = getattr(request.state, "desk_session", None)
    typed = await typed_text(request)
    title = str(problem.body()["title"])
    if problem.code in (ProblemCode.FORBIDDEN, ProblemCode.WRONG_DEPARTMENT):
        title = "您现在没有这项权限，本次没有提交" if request.method == "POST" else "您现在没有这项权限"
    text = problem.detail
    if typed:
        text += "您刚才填写的内容没有提交，也没有丢失，在下面，可以复制。"
    response = await message(request, session, title, text, problem.status, typed=typed)
    response.headers.update(problem.headers or {})
    return response
