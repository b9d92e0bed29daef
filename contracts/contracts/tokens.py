"""Claims of the access tokens xinfu accepts (JWT, RFC 9068 profile: iss, aud, exp, sub, scope)."""

from enum import StrEnum

from pydantic import Field

from contracts.records import Shape, SubjectType


class Scope(StrEnum):
    """What a token allows. A token holds them space separated in ``scope`` (RFC 6749, 3.3)."""

    APPLICANT = "applicant"
    AGENT = "agent"
    EXPERT = "expert"
    DESK = "desk"
    CASES_READ = "cases.read"
    LETTERS_READ = "letters.read"
    RECORDS_WRITE = "records.write"
    ROUTING_ASSIGN = "routing.assign"
    OPERATIONS = "operations"


class Claims(Shape):
    """The claims xinfu reads beyond those every JWT has.

    Applicants carry ``subject_type``, ``subject_code`` (USCC or ID number) and ``subject_name``: the subject they act for.
    Windows that act for subjects carry ``agent_code`` and ``agent_name``. Experts carry their id in the pool as ``sub``. Officers carry ``departments``: codes of the departments they decide for.
    """

    sub: str
    scope: str = ""
    subject_type: SubjectType | None = None
    subject_code: str | None = None
    subject_name: str | None = None
    email: str | None = None
    agent_code: str | None = None
    agent_name: str | None = None
    departments: tuple[str, ...] = Field(default=())

    def allows(self, scope: Scope) -> bool:
        """Whether the token holds this scope."""
        return scope in self.scope.split()
