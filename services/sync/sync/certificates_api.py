"""HTTP for repair certificates: issued for services that ask for a subject, checked by everybody."""

from enum import StrEnum
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from chassis.auth import require
from contracts.http.certificate import Certificate, CertificateCheck, SignedCertificate
from contracts.records import RecordId
from contracts.tokens import Claims, Scope
from sync.certificate import STATE_TEXT, china_time
from sync.certificates import Certificates
from sync.pages import page

router = APIRouter(prefix="/v1", tags=["修复证明"])
Reader = Annotated[Claims, Depends(require(Scope.PROPAGATION_READ, Scope.OPERATIONS))]
_PDF = {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}


class CheckFormat(StrEnum):
    """How a check is answered."""

    HTML = "html"
    JSON = "json"
    PDF = "pdf"


async def _certificates(request: Request) -> Certificates:
    found: Certificates = request.app.state.certificates
    return found


Desk = Annotated[Certificates, Depends(_certificates)]


@router.get(
    "/records/{record_id}/certificate",
    summary="出具修复证明",
    response_model=SignedCertificate,
    responses={200: {"content": _PDF}},
)
async def issue(
    record_id: Annotated[RecordId, Path()],
    _reader: Reader,
    certificates: Desk,
    form: Annotated[Literal["json", "pdf"], Query(alias="format")] = "json",
) -> Response:
    """Of what is true now. Asked again on the same day it is the same certificate, unless something has changed."""
    signed = await certificates.issue(record_id)
    return await _answer(certificates, signed, pdf=form == "pdf")


@router.get(
    "/certificates/{code}",
    summary="查验修复证明",
    response_model=CertificateCheck,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}, **_PDF}}},
)
async def check(
    request: Request,
    code: Annotated[str, Path(max_length=60)],
    certificates: Desk,
    form: Annotated[CheckFormat | None, Query(alias="format")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """真伪、现在是否仍然如此、修复是否已被撤销。不需要登录；验证码猜不出来，知道它的人才看得到。"""
    if form is CheckFormat.PDF:
        return await _answer(certificates, await certificates.find(code), pdf=True)
    found = await certificates.check(code)
    wants_page = form is CheckFormat.HTML or (form is None and "text/html" in accept)
    if not wants_page:
        return Response(
            found.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"}
        )
    certificate = Certificate.model_validate(found.signed.certificate)
    category = request.app.state.catalogue.category(certificate.record.category)
    return page(
        "certificate.html.j2",
        title="信用修复证明查验",
        kicker=certificate.issuer,
        check=found,
        certificate=certificate,
        category=category.name if category else certificate.record.category,
        rows=list(zip(certificate.targets, found.targets, strict=True)),
        time=china_time,
        state=STATE_TEXT.__getitem__,
    )


async def _answer(certificates: Certificates, signed: SignedCertificate, *, pdf: bool) -> Response:
    code = signed.certificate["code"]
    headers = {
        "Content-Disposition": f'inline; filename="certificate-{code}.{"pdf" if pdf else "json"}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    if pdf:
        return Response(await certificates.print(signed), media_type="application/pdf", headers=headers)
    return Response(signed.as_text(), media_type="application/json", headers=headers)
