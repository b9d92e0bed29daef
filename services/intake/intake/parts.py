"""What the routes of intake work with, and who asks."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Depends, Request

from chassis.auth import require
from chassis.problems import Problem
from contracts.catalogue import Catalogue
from contracts.clock import china_date
from contracts.errors import ProblemCode
from contracts.http.intake import Subject
from contracts.identifiers import normalise_id_number, normalise_uscc
from contracts.records import SubjectType
from contracts.tokens import Claims, Scope
from intake.acts import Acts
from intake.domain import subject_id
from intake.guide_picture import Painter
from intake.importing import Importer
from intake.materials import Materials
from intake.pressure import Gate
from intake.settings import IntakeSettings
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
    importer: Importer
    wakeups: TimelineWakeups
    gate: Gate
    painter: Painter

    @property
    def subject_key(self) -> bytes:
        """Key of the pseudonyms."""
        return self.settings.subject_key.get_secret_value().encode()


def _intake(request: Request) -> Intake:
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
    claims: Annotated[Claims, Depends(require(Scope.APPLICANT))], intake: Parts
) -> Applicant:
    """The subject the token acts for. Raises Problem FORBIDDEN when the token does not say for whom."""
    if claims.subject_type is None or not claims.subject_code:
        raise Problem(ProblemCode.FORBIDDEN, "令牌没有说明代表哪个主体，请以企业或个人身份重新登录。")
    try:
        code = normalise_code(claims.subject_type, claims.subject_code)
    except ValueError as error:
        raise Problem(ProblemCode.FORBIDDEN, f"令牌中的主体代码有误：{error}。请重新登录。") from None
    identity = subject_id(intake.subject_key, claims.subject_type, code)
    name = (claims.subject_name or "").strip()
    if not name:
        known = await intake.store.subjects([identity])
        if identity not in known:
            raise Problem(ProblemCode.FORBIDDEN, "令牌中没有主体名称，请重新登录。")
        name = known[identity].name
    subject = Subject(subject_id=identity, subject_type=claims.subject_type, code=code, name=name)
    return Applicant(subject, claims.email)


CurrentApplicant = Annotated[Applicant, Depends(_applicant)]
