"""What the routes of the desk's pages share: who is signed in, whose departments these are, what a form says."""

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from starlette.datastructures import FormData

from chassis.cases import CaseDirectory
from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.catalogue import Department
from contracts.errors import ProblemCode
from contracts.http.intake import Subject
from contracts.tokens import Claims, Role
from dept_adapter.desk import presenters
from dept_adapter.desk.pages import SignInNeededError
from dept_adapter.desk.sessions import Session, Sessions
from dept_adapter.intake_side import AWAY
from dept_adapter.officers import Officers, StaleError, holds, own
from dept_adapter.store import Reviews

log = get_logger(__name__)


async def signed_in_officer(request: Request) -> Session:
    """Whose session the browser has. Raises SignInNeededError."""
    cookie = request.cookies.get(cookie_name(request))
    session = await sessions_of(request).current(cookie) if cookie else None
    if session is None:
        raise SignInNeededError
    request.state.desk_session = session
    return session


async def posted_form(request: Request) -> FormData:
    """The form of a POST, sent by a page of this session."""
    session = await signed_in_officer(request)
    form = await request.form()
    if not session.wrote(str(form.get("csrf", ""))):
        raise Problem(
            ProblemCode.FORBIDDEN,
            "这张表单不是从您当前的登录中打开的，为安全起见没有受理；请回到工作台，从页面上重新操作。",
        )
    return form


SignedIn = Annotated[Session, Depends(signed_in_officer)]
Posted = Annotated[FormData, Depends(posted_form)]


def is_secure(request: Request) -> bool:
    """Whether browsers reach the desk by TLS."""
    return bool(request.app.state.desk_url.startswith("https://"))


def cookie_name(request: Request, name: str = "desk") -> str:
    """The name of a cookie of the desk."""
    # the prefix has the browser refuse the cookie from a sibling host or without TLS (RFC 6265bis, 4.1.3.2)
    return f"__Host-xinfu_{name}" if is_secure(request) else f"xinfu_{name}"


def sessions_of(request: Request) -> Sessions:
    """The sessions. Raises Problem UNAVAILABLE where nobody can sign in."""
    found: Sessions | None = request.app.state.desk_sessions
    if found is None:
        raise Problem(
            ProblemCode.UNAVAILABLE, "工作台没有配置登录，请管理员设置 DEPT_ADAPTER_DESK_CLIENT_SECRET。"
        )
    return found


def reader(officer: Claims) -> None:
    """Officers and approvers look at items."""
    if not officer.holds(Role.APPROVER):
        holds(officer, Role.OFFICER)


def own_departments(request: Request, officer: Claims) -> list[Department]:
    """The officer's departments, as far as they are served here."""
    served: Mapping[str, Department] = request.app.state.departments
    return [served[code] for code in officer.departments if code in served]


def codes_of(request: Request, officer: Claims, chosen: str) -> list[str]:
    """The departments of a list: the chosen one, or all of the officer's."""
    reader(officer)
    mine = [department.code for department in own_departments(request, officer)]
    if chosen:
        own(officer, chosen)
        return [chosen] if chosen in mine else []
    return mine


def position_of(text: str) -> tuple[str, str] | None:
    """The (day, id) in a page's ``after``."""
    day, separator, item_id = text.partition("~")
    return (day, item_id) if separator else None


def link_to(path: str, query: Mapping[str, str | None]) -> str:
    """An address with those of the fields that hold something."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


async def subjects_of(
    request: Request, subject_ids: Collection[str]
) -> tuple[dict[str, Subject], str | None]:
    """Who the subjects of a list are, as far as intake tells."""
    cases: CaseDirectory = request.app.state.cases
    if not subject_ids:
        return {}, None
    try:
        return await cases.subjects(subject_ids), None
    except AWAY as error:
        log.warning("intake does not answer", error=type(error).__name__)
        return {}, "受理端未应答，主体名称暂时无法显示，请稍后刷新；不影响查看其他内容。"


def version_of(text: str) -> int:
    """The version a form says. Raises Problem VALIDATION."""
    if not text.isdigit():
        raise Problem(ProblemCode.VALIDATION, "表单缺少版本，请返回事项页面重新操作。")
    return int(text)


async def trouble_of(
    request: Request,
    error: StaleError | Problem,
    what: str,
    step: Callable[[Mapping[str, Any], Mapping[str, str]], presenters.Step],
) -> tuple[dict[str, Any], int]:
    """What the form's page says when nothing was done, and its status; the form keeps what was typed.

    ``what``: the matter, in words; ``step``: a line of its history, with the names of officers. Raises a Problem again that is
    not about the form.
    """
    if isinstance(error, Problem):
        if error.code in (ProblemCode.FORBIDDEN, ProblemCode.WRONG_DEPARTMENT, ProblemCode.UNAVAILABLE):
            raise error
        return {"title": "没有提交", "steps": [], "text": error.detail}, error.status
    names = await sessions_of(request).names(each["by"] for each in error.steps)
    trouble = {
        "title": f"在您查看之后，{what}已有变化，您的操作没有提交",
        "steps": [step(each, names) for each in error.steps],
        "text": "请核对下面的变化。您填写的内容没有丢；还能办理的，再次提交即可。",
    }
    return trouble, HTTPStatus.CONFLICT


def typed_lines(form: FormData, *names: str) -> dict[str, str]:
    """What was typed, by field; browsers send line ends as CR LF."""
    return {name: str(form.get(name, "")).replace("\r\n", "\n").strip() for name in names}


def reviews_of(request: Request) -> Reviews:
    """All reviews."""
    reviews: Reviews = request.app.state.reviews
    return reviews


def officers_of(request: Request) -> Officers:
    """What officers may do."""
    officers: Officers = request.app.state.officers
    return officers
