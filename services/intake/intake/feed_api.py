"""HTTP for those who bring records (scope ``records.write``) and for other services (scope ``cases.read``)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import (
    Case,
    CaseLookup,
    CaseLookupResult,
    Commitment,
    ContactLookup,
    ContactLookupResult,
    Subject,
    SubjectIdentified,
    SubjectIdentify,
    SubjectLookup,
    SubjectLookupResult,
)
from contracts.records import Shape, SubjectType
from contracts.tokens import Claims, Scope
from intake.csv_import import RowChecker
from intake.domain.application import Application
from intake.domain.item import Item
from intake.domain.subject import subject_id
from intake.importing import open_csv, spool
from intake.parts import Parts, normalise_code, today
from intake.responses import problems
from intake.views import Registered

IMPORT_PATH = "/v1/records/imports"
_COMMON = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.FORBIDDEN,
    ProblemCode.VALIDATION,
    ProblemCode.UNAVAILABLE,
)
router = APIRouter(tags=["记录与内部查询"], responses=problems(*_COMMON))
Writer = Annotated[Claims, Depends(require(Scope.RECORDS_WRITE))]
Reader = Annotated[Claims, Depends(require(Scope.CASES_READ))]


async def _import_place(_writer: Writer, intake: Parts) -> AsyncIterator[None]:
    # left when the whole report is sent, or when nobody reads it any more
    with intake.gate.importing():
        yield


@router.post(
    IMPORT_PATH,
    summary="导入行政处罚记录（双公示 CSV）",
    response_class=StreamingResponse,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses={
        200: {
            "description": "逐行 JSON：若干 progress 行，最后一行为 report；中途失败时最后一行为 error（问题详情）",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problems(
            *_COMMON,
            ProblemCode.TOO_LARGE,
            ProblemCode.UNKNOWN_ENCODING,
            ProblemCode.MISSING_COLUMNS,
            ProblemCode.BUSY,
        ),
    },
)
async def import_records(
    request: Request, _writer: Writer, intake: Parts, _place: Annotated[None, Depends(_import_place)]
) -> StreamingResponse:
    """请求正文即 CSV 文件（UTF-8 或 GB18030，2018 版双公示列名）。合格的行入库并发布，不合格的行逐条说明原因；重复导入不产生变化。"""
    spooled = await spool(request, intake.settings.max_import_bytes)
    try:
        file = await asyncio.to_thread(open_csv, spooled)
    except BaseException:
        spooled.close()
        raise
    checker = RowChecker(file.columns, intake.catalogue, intake.subject_key, today())
    return StreamingResponse(intake.importer.run(file, checker), media_type="application/x-ndjson")


class Identity(Shape):
    """一个信用主体。"""

    subject_type: SubjectType
    code: str = Field(max_length=64, description="统一社会信用代码；自然人为身份证件号码")
    name: str = Field(min_length=1, max_length=200)


def _wrong(errors: list[dict[str, str]]) -> Problem:
    return Problem(ProblemCode.VALIDATION, "请按 errors 中各字段的说明更正后重新提交。", errors=errors)


@router.put("/v1/internal/subjects", summary="登记信用主体，取得其假名")
async def register_subject(body: Identity, _writer: Writer, intake: Parts) -> Registered:
    """供向 xinfu.records 发布记录的外部系统使用：事件中只能出现假名。重复登记得到同一假名，名称以最近一次为准。"""
    name = body.name.strip()
    errors = [] if name else [{"field": "name", "reason": "不能为空"}]
    code = ""
    try:
        code = normalise_code(body.subject_type, body.code)
    except ValueError as error:
        errors.append({"field": "code", "reason": str(error)})
    if errors:
        raise _wrong(errors)
    identity = subject_id(intake.subject_key, body.subject_type, code)
    await intake.store.save_subjects(
        [Subject(subject_id=identity, subject_type=body.subject_type, code=code, name=name)]
    )
    return Registered(subject_id=identity)


@router.post("/v1/internal/subjects/identify", summary="查询主体代码对应的假名（内部）")
async def identify_subject(body: SubjectIdentify, _reader: Reader, intake: Parts) -> SubjectIdentified:
    """假名由主体类型和代码算出，未登记的主体也有；不作任何登记。"""
    try:
        code = normalise_code(body.subject_type, body.code)
    except ValueError as error:
        raise _wrong([{"field": "code", "reason": str(error)}]) from None
    return SubjectIdentified(subject_id=subject_id(intake.subject_key, body.subject_type, code))


@router.post("/v1/internal/subjects/lookup", summary="查询信用主体身份（内部）")
async def look_up_subjects(body: SubjectLookup, _reader: Reader, intake: Parts) -> SubjectLookupResult:
    """未知的假名不出现在结果中。"""
    found = await intake.store.subjects(set(body.subject_ids))
    return SubjectLookupResult(subjects=list(found.values()))


@router.post("/v1/internal/contacts/lookup", summary="查询信用主体最近留下的电子邮箱（内部）")
async def look_up_contacts(body: ContactLookup, _reader: Reader, intake: Parts) -> ContactLookupResult:
    """从未留下邮箱的主体不出现在结果中。"""
    return ContactLookupResult(emails=await intake.store.emails(body.subject_ids))


@router.post("/v1/internal/cases/lookup", summary="查询申请（内部）")
async def look_up_cases(body: CaseLookup, _reader: Reader, intake: Parts) -> CaseLookupResult:
    """未知的申请不出现在结果中。"""
    applications = await intake.store.applications(set(body.application_ids))
    subjects = await intake.store.subjects({a.subject_id for a in applications.values()})
    supplemented = await intake.store.supplemented(applications)
    return CaseLookupResult(
        cases=[
            _case(
                application,
                subjects[application.subject_id],
                supplemented.get(application.application_id, []),
            )
            for application in applications.values()
        ]
    )


def _case(application: Application, subject: Subject, supplemented: Sequence[Item]) -> Case:
    """One material may have been handed in several times: it is listed once."""
    later = [material for item in supplemented for material in item.supplement_materials]
    promised = application.commitment
    return Case(
        application_id=application.application_id,
        subject=subject,
        contact=application.contact,
        statement=application.statement,
        materials=tuple({each.material_id: each for each in (*application.materials, *later)}.values()),
        commitment=Commitment(content_hash=promised.content_hash, confirmed_at=promised.confirmed_at)
        if promised
        else None,
        supplements={item.item_id: item.supplement_text or "" for item in supplemented},
        supplement_materials={
            item.item_id: tuple(each.material_id for each in item.supplement_materials)
            for item in supplemented
            if item.supplement_materials
        },
    )
