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


class Role(StrEnum):
    """What an officer may do at the desk, beside preparing: approve (复核), advise (专家), oversee all departments (督办)."""

    OFFICER = "officer"
    APPROVER = "approver"
    EXPERT = "expert"
    SUPERVISOR = "supervisor"


class Claims(Shape):
    """The claims xinfu reads beyond those every JWT has.

    Applicants carry ``subject_type``, ``subject_code`` (USCC or ID number) and ``subject_name``: the subject they act for.
    Windows that act for subjects carry ``agent_code`` and ``agent_name``. Experts carry their id in the pool as ``sub``. Officers carry
    ``departments``: codes of the departments they decide for, and ``roles``; a supervisor of the credit centre looks at all
    departments.
    """

    sub: str
    name: str | None = None
    scope: str = ""
    subject_type: SubjectType | None = None
    subject_code: str | None = None
    subject_name: str | None = None
    email: str | None = None
    agent_code: str | None = None
    agent_name: str | None = None
    departments: tuple[str, ...] = Field(default=())
    roles: tuple[str, ...] = ()

    def allows(self, scope: Scope) -> bool:
        """Whether the token holds this scope."""
        return scope in self.scope.split()

    def holds(self, role: Role) -> bool:
        """Whether the officer has this role."""
        return role in self.roles
