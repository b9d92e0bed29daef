"""What may cross a boundary about a dishonesty record (失信记录) and the subject (信用主体) it is about.

No ID number, phone or address: a subject is a pseudonymous ``subject_id``. Who may see more asks intake
over HTTP with a token (``contracts.http.intake``).
"""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SubjectId = Annotated[str, Field(pattern=r"^sub_[0-9a-f]{32}$", examples=["sub_" + "0" * 31 + "1"])]
RecordId = Annotated[str, Field(pattern=r"^rec_[0-9a-f]{32}$", examples=["rec_" + "0" * 31 + "1"])]
ItemId = Annotated[str, Field(pattern=r"^itm_[0-9a-f]{32}$", examples=["itm_" + "0" * 31 + "1"])]
ApplicationId = Annotated[str, Field(pattern=r"^app_[0-9a-f]{32}$", examples=["app_" + "0" * 31 + "1"])]
MaterialId = Annotated[str, Field(pattern=r"^mat_[0-9a-f]{32}$", examples=["mat_" + "0" * 31 + "1"])]
LetterId = Annotated[str, Field(pattern=r"^let_[0-9a-f]{32}$", examples=["let_" + "0" * 31 + "1"])]
MandateId = Annotated[str, Field(pattern=r"^man_[0-9a-f]{32}$", examples=["man_" + "0" * 31 + "1"])]
# what stands as the item of an objection: the item whose result it is about, or of an objection to a record its own id
ItemOrObjectionId = Annotated[
    str, Field(pattern=r"^(itm|obj)_[0-9a-f]{32}$", examples=["itm_" + "0" * 31 + "1"])
]
ObjectionId = Annotated[str, Field(pattern=r"^obj_[0-9a-f]{32}$", examples=["obj_" + "0" * 31 + "1"])]
# near the ends of the calendar a conversion to UTC overflows
Timestamp = Annotated[
    AwareDatetime,
    Field(
        description="RFC 3339 time with offset",
        ge=datetime(1900, 1, 1, tzinfo=UTC),
        lt=datetime(3000, 1, 1, tzinfo=UTC),
    ),
]


class SubjectType(StrEnum):
    """Kind of 信用主体 (双公示 column CF_XDR_LB)."""

    LEGAL_PERSON = "legal_person"
    SOLE_TRADER = "sole_trader"
    NATURAL_PERSON = "natural_person"


class DisplayState(StrEnum):
    """What a target shows of a record. ``shielded``: hidden for the time being (临时屏蔽), while a bankruptcy plan is performed."""

    PUBLISHED = "published"
    SHIELDED = "shielded"
    PUBLICATION_ENDED = "publication_ended"


class Shape(BaseModel):
    """Base of all shapes: immutable, and tolerant of fields it does not know (forward compatibility)."""

    model_config = ConfigDict(frozen=True, extra="ignore")


IN_PERSON = "线下办理"
"""The only words the platform takes about a record that is handed over in person."""


class RecordFacts(Shape):
    """The facts of one record that routing, departments and targets need."""

    record_id: RecordId
    subject_id: SubjectId
    subject_type: SubjectType
    category: str = Field(description="Record category id in catalogue/rules.yaml", max_length=64)
    document_number: str = Field(description="Normalised 文号 of the decision", min_length=1, max_length=128)
    authority_code: str | None = Field(description="USCC of the issuing authority, when the feed has it")
    authority_name: str = Field(description="Name of the issuing authority as published", max_length=200)
    decided_on: date = Field(description="Date of the decision document")
    penalty_kinds: str = Field(default="", description="处罚类别 as published", max_length=200)
    tier: str | None = Field(default=None, description="minor 轻微, general 一般 or serious 严重, when known")
    in_person: bool = Field(
        default=False,
        description="Not to go by system (涉密, or the law says so): handed over in person, nothing of its content is here",
    )

    @property
    def content(self) -> "RecordContent":
        """What of it may have to be corrected."""
        return RecordContent(decided_on=self.decided_on, penalty_kinds=self.penalty_kinds)

    def reduced(self) -> "RecordFacts":
        """The record as one that is handed over in person: a number to name it by, and who decided it; nothing of what it says."""
        number = f"{IN_PERSON}〔{self.record_id[4:12].upper()}〕"
        return self.model_copy(update={"document_number": number, "penalty_kinds": "", "in_person": True})


class RecordContent(Shape):
    """What the public sees of a record that its authority may have to correct (信用信息异议成立, or by itself), as it is corrected."""

    decided_on: date = Field(description="Date of the decision document")
    penalty_kinds: str = Field(description="处罚类别 as published", max_length=200)


class DepartmentRef(Shape):
    """A department of the catalogue."""

    code: str = Field(description="Unified social credit code of the department", pattern=r"^[0-9A-Z]{18}$")
    slug: str = Field(description="Short id, part of the topic name", pattern=r"^[a-z0-9][a-z0-9-]{1,40}$")
    name: str
