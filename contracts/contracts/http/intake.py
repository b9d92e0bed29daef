"""What intake tells other services over HTTP (client-credentials token with scope ``cases.read``)."""

from typing import Annotated

from pydantic import Field

from contracts.records import ApplicationId, ItemId, MaterialId, Shape, SubjectId, SubjectType, Timestamp


class Subject(Shape):
    """A subject with its identity: personal data for sole traders and natural persons."""

    subject_id: SubjectId
    subject_type: SubjectType
    code: str = Field(description="Unified social credit code, or ID number of a natural person")
    name: str


class ContactLookup(Shape):
    """Request of POST /v1/internal/contacts/lookup."""

    subject_ids: Annotated[list[SubjectId], Field(min_length=1, max_length=500)]


class ContactLookupResult(Shape):
    """Subject id -> the e-mail address it gave last; a subject that gave none is left out."""

    emails: dict[SubjectId, str]


class SubjectLookup(Shape):
    """Request of POST /v1/internal/subjects/lookup."""

    subject_ids: Annotated[list[SubjectId], Field(min_length=1, max_length=500)]


class SubjectLookupResult(Shape):
    """Known subjects only; an unknown id is left out."""

    subjects: list[Subject]


class SubjectIdentify(Shape):
    """Request of POST /v1/internal/subjects/identify: whose pseudonym is asked for, as in the sign-in token."""

    subject_type: SubjectType
    code: str = Field(min_length=1, max_length=64)


class SubjectIdentified(Shape):
    """The pseudonym of a subject. It is derived, not stored: every valid code has one, known to intake or not."""

    subject_id: SubjectId


class Contact(Shape):
    """Who filed the application."""

    name: str
    phone: str
    email: str | None = Field(description="From the sign-in token; None when the issuer gave none")


class Material(Shape):
    """A file an applicant handed in. ``media_type`` was read from its content; ``sha256``: hex digits.

    ``scanned``: a scanner has found nothing in it; false: there is none.
    """

    material_id: MaterialId
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    scanned: bool
    uploaded_at: Timestamp


class Commitment(Shape):
    """The applicant's 信用信息修复承诺书, as it was shown and confirmed. ``content_hash``: SHA-256 of what it says (its JSON)."""

    content_hash: str
    confirmed_at: Timestamp


class Case(Shape):
    """What a department or notify may see of an application."""

    application_id: ApplicationId
    subject: Subject
    contact: Contact
    statement: str
    materials: tuple[Material, ...] = ()
    commitment: Commitment | None = Field(
        default=None, description="Null: filed where no commitment was asked for"
    )
    supplements: dict[ItemId, str] = Field(
        default_factory=dict, description="What was provided later for an item, at its department's demand"
    )
    supplement_materials: dict[ItemId, tuple[MaterialId, ...]] = Field(
        default_factory=dict, description="Those of ``materials`` that came with the supplement of an item"
    )


class CaseLookup(Shape):
    """Request of POST /v1/internal/cases/lookup."""

    application_ids: Annotated[list[ApplicationId], Field(min_length=1, max_length=500)]


class CaseLookupResult(Shape):
    """Known applications only; an unknown id is left out."""

    cases: list[Case]
