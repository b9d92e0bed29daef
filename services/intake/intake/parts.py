"""What the routes of intake work with, and who asks."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Depends, Header, Request

from chassis.auth import require
from chassis.letter import LetterPress
from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.http.intake import Subject
from contracts.http.mandate import Agent
from contracts.identifiers import normalise_id_number, normalise_uscc
from contracts.records import SubjectType
from contracts.tokens import Claims, Scope
from intake.acts import Acts
from intake.certificates import CertificateClient
from intake.domain.subject import subject_id
from intake.findings import Findings
from intake.follow_ups import FollowUps
from intake.guide_picture import Painter
from intake.importing import Importer
from intake.letters import LetterFetcher
from intake.mandates import Mandates, fault
from intake.materials import Materials
from intake.objections import Objections
from intake.pressure import Gate
from intake.settings import IntakeSettings
from intake.shields import Shields
from intake.store import Store
from intake.streaming import TimelineWakeups
from intake.submission import Applicant, Submission


@dataclass(frozen=True)
class Intake:
    """The parts of a running intake."""

    settings: IntakeSettings
    catalogue: Catalogue
    store: Store
    submission: Submission
    acts: Acts
    materials: Materials
    mandates: Mandates
    follow_ups: FollowUps
    findings: Findings
    objections: Objections
    shields: Shields
    importer: Importer
    wakeups: TimelineWakeups
    gate: Gate
    painter: Painter
    certificates: CertificateClient
    letters: LetterFetcher
    press: LetterPress

    @property
    def subject_key(self) -> bytes:
        """Key of the pseudonyms."""
        return self.settings.subject_key.get_secret_value().encode()


async def _intake(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


Parts = Annotated[Intake, Depends(_intake)]


def today() -> date:
    """The day in China."""
    return china_date(datetime.now(UTC))


def normalise_code(subject_type: SubjectType, code: str) -> str:
    """USCC or ID number in its normal form. Raises ValueError (zh-CN)."""
    if subject_type is SubjectType.NATURAL_PERSON:
        return normalise_id_number(code, today=today())
    return normalise_uscc(code)


async def _applicant(
    claims: Annotated[Claims, Depends(require(Scope.APPLICANT, Scope.AGENT))],
    intake: Parts,
    under: Annotated[
        str | None,
        Header(alias="Mandate-Id", max_length=100, description="窗口代办时必填：依据哪一份委托"),
    ] = None,
) -> Applicant:
    """The subject that is acted for: that of the token, or of the mandate a window acts under.

    Raises Problem FORBIDDEN when the token does not say for whom, MANDATE_NOT_VALID.
    """
    if not claims.allows(Scope.APPLICANT):
        return await _by_mandate(intake, agent_of(claims), under)
    if claims.subject_type is None or not claims.subject_code:
        raise Problem(ProblemCode.FORBIDDEN, "令牌没有说明代表哪个主体，请以企业或个人身份重新登录。")
    subject = await identified(intake, claims.subject_type, claims.subject_code, claims.subject_name)
    return Applicant(subject, claims.email)


async def identified(intake: Intake, subject_type: SubjectType, code: str, name: str | None) -> Subject:
    """A subject of a token. Raises Problem FORBIDDEN for a wrong code, or when nobody knows its name."""
    try:
        code = normalise_code(subject_type, code)
    except ValueError as error:
        raise Problem(ProblemCode.FORBIDDEN, f"令牌中的主体代码有误：{error}。请重新登录。") from None
    identity = subject_id(intake.subject_key, subject_type, code)
    name = (name or "").strip()
    if not name:
        known = await intake.store.subjects([identity])
        if identity not in known:
            raise Problem(ProblemCode.FORBIDDEN, "令牌中没有主体名称，请重新登录。")
        name = known[identity].name
    return Subject(subject_id=identity, subject_type=subject_type, code=code, name=name)


def agent_of(claims: Claims) -> Agent:
    """The window of a token with scope ``agent``. Raises Problem FORBIDDEN when it does not say which."""
    if not claims.agent_code or not claims.agent_name:
        raise Problem(ProblemCode.FORBIDDEN, "令牌没有说明是哪个窗口，请以窗口身份重新登录。")
    return Agent(code=claims.agent_code, name=claims.agent_name)


async def _by_mandate(intake: Intake, agent: Agent, mandate_id: str | None) -> Applicant:
    if mandate_id is None:
        raise Problem(ProblemCode.MANDATE_NOT_VALID, "窗口代办请在 Mandate-Id 头中填写委托编号。")
    mandate = await intake.mandates.get(mandate_id)
    if mandate is None or mandate.agent.code != agent.code:
        # the same answer for a mandate of another window: nobody learns which ids exist
        raise Problem(ProblemCode.MANDATE_NOT_VALID, "没有给本窗口的这份委托，请核对委托编号。")
    if problem := fault(mandate, agent, None, today()):
        raise Problem(ProblemCode.MANDATE_NOT_VALID, problem)
    return Applicant(mandate.subject, None, mandate)


CurrentApplicant = Annotated[Applicant, Depends(_applicant)]
