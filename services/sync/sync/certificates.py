"""Issues repair certificates, keeps them, and checks them again."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import ClientError
from pymongo import ASCENDING, IndexModel

from chassis.cases import CaseDirectory
from chassis.db import CollectionSpec, Database, Session
from chassis.letter import LetterPress
from chassis.outbox import Outbox
from chassis.problems import Problem
from chassis.typesetting import Attachment, TypesetterBusyError
from chassis.unit_of_work import UnitOfWork
from contracts.canonical import Digest, canonical
from contracts.catalogue import Catalogue
from contracts.errors import ProblemCode
from contracts.history import Kind
from contracts.http.certificate import (
    ATTACHMENT_NAME,
    Certificate,
    CertificateCheck,
    HeadReference,
    SignedCertificate,
)
from contracts.records import DisplayState
from contracts.signatures import KeySet, SigningKey, UnverifiedError
from sync.certificate import as_letter, code_of, compose, normal_code, same_claim, standings, targets_now
from sync.desired import Record, withdrawn
from sync.domain import delivery_id
from sync.history import Fact, rfc3339
from sync.policy import Policy
from sync.store import Store

COLLECTIONS = [
    CollectionSpec("certificates", [IndexModel([("code", ASCENDING)], name="by_code", unique=True)])
]


@dataclass(frozen=True)
class Issuer:
    """Who issues: name, public address of the pages of sync, key, and all keys that were ever used."""

    name: str
    public_url: str
    key: SigningKey
    keys: KeySet


class Certificates:
    """Certificates of one installation. ``_id``: what is claimed (``same_claim``), so that the same claim is made once."""

    def __init__(
        self,
        database: Database,
        store: Store,
        outbox: Outbox,
        directory: CaseDirectory,
        catalogue: Catalogue,
        policies: Mapping[str, Policy],
        issuer: Issuer,
    ) -> None:
        self._certificates = database.collection("certificates")
        self._store = store
        self._outbox = outbox
        self._directory = directory
        self._catalogue = catalogue
        self._policies = policies
        self._issuer = issuer
        self._press = LetterPress()

    async def issue(self, record_id: str) -> SignedCertificate:
        """The certificate of what is true now; the one of today when nothing has changed since. Raises Problem."""
        record = (await self._store.records([record_id])).get(record_id)
        _repaired(record)
        assert record is not None  # noqa: S101 (for the type checker: _repaired has looked)
        try:
            subject = (await self._directory.subjects([record.subject_id])).get(record.subject_id)
        except (ClientError, TimeoutError, OSError, ValueError):
            subject = None
        if subject is None:
            raise Problem(
                ProblemCode.UNAVAILABLE, "暂时查不到主体信息，请稍后再试。", headers={"Retry-After": "5"}
            )

        async def work(unit: UnitOfWork) -> SignedCertificate:
            current = (await self._store.records([record_id], unit.session))[record_id]
            _repaired(current)
            deliveries = await self._store.deliveries([current], unit.session)
            found = standings(current, deliveries, self._policies)
            identity = Digest.SHA256.of(canonical(same_claim(current, found, unit.now)))
            known = await self._certificates.find_one({"_id": identity}, session=unit.session)
            if known is not None:
                return SignedCertificate.model_validate_json(known["signed"])
            head = await self._store.history.last_head(unit.session)
            code = code_of(secrets.token_bytes(32))
            certificate = compose(
                current,
                deliveries,
                self._policies,
                await self._evidence(current, unit.session),
                subject,
                code=code,
                issuer=self._issuer.name,
                verify_url=f"{self._issuer.public_url}/v1/certificates/{code}",
                head=HeadReference(number=head.number, hash=head.hash) if head else None,
                now=unit.now,
            )
            body = certificate.model_dump(mode="json")
            payload = canonical(body)
            signed = SignedCertificate(certificate=body, signature=self._issuer.key.sign(payload))
            await self._certificates.insert_one(
                {
                    "_id": identity,
                    "code": code,
                    "record_id": record_id,
                    "issued_at": unit.now,
                    "signed": signed.model_dump_json(),
                },
                session=unit.session,
            )
            facts = {"certificate": Digest.SHA256.of(payload), "version": current.version}
            fact = Fact(record_id, record_id, Kind.CERTIFICATE, facts)
            await self._store.history.append([fact], unit.now, unit.session)
            return signed

        return await self._outbox.run(work)

    async def _evidence(self, record: Record, session: Session) -> dict[str, str]:
        found = {}
        for target in record.targets:
            reading = await self._store.history.last_reading(delivery_id(target, record.record_id), session)
            if reading is not None:
                found[target] = reading.hash
        return found

    async def find(self, code: str) -> SignedCertificate:
        """A certificate that was issued. Raises Problem NOT_FOUND."""
        found = await self._certificates.find_one({"code": normal_code(code)})
        if found is None:
            raise Problem(ProblemCode.NOT_FOUND, "没有这个验证码的证明：请核对证明上的验证码，或重新扫码。")
        return SignedCertificate.model_validate_json(found["signed"])

    async def check(self, code: str) -> CertificateCheck:
        """Whether a certificate is genuine and still true. Raises Problem NOT_FOUND."""
        signed = await self.find(code)
        certificate = Certificate.model_validate(signed.certificate)
        key_id, problem = None, None
        try:
            _, key = signed.checked(self._issuer.keys)
            key_id = key.kid
        except UnverifiedError as error:
            problem = str(error)
        record_id = certificate.record.record_id
        record = (await self._store.records([record_id])).get(record_id)
        deliveries = await self._store.deliveries([record]) if record else {}
        revoked, still_true, targets = targets_now(certificate, record, deliveries, self._policies)
        return CertificateCheck(
            code=certificate.code,
            signature_valid=problem is None,
            signature_problem=problem,
            key_id=key_id,
            revoked=revoked,
            still_true=still_true and problem is None,
            checked_at=rfc3339(datetime.now(UTC)),
            targets=targets,
            signed=signed,
        )

    async def print(self, signed: SignedCertificate) -> bytes:
        """The certificate as PDF/A-3 with its signed JSON inside. Raises Problem BUSY."""
        certificate = Certificate.model_validate(signed.certificate)
        category = self._catalogue.category(certificate.record.category)
        letter = as_letter(certificate, category.name if category else certificate.record.category)
        attachment = Attachment(
            ATTACHMENT_NAME, "application/json", "带数字签名的信用修复证明", signed.as_text()
        )
        try:
            return await self._press.print(letter, attachment)
        except TypesetterBusyError:
            raise Problem(
                ProblemCode.BUSY, "正在排版的证明太多，请稍后再试。", headers={"Retry-After": "5"}
            ) from None


def _repaired(record: Record | None) -> None:
    if record is None:
        raise Problem(ProblemCode.NOT_FOUND, "这条记录还没有修复决定：作出准予修复的决定之后才能出具证明。")
    if record.state is DisplayState.SHIELDED:
        raise Problem(
            ProblemCode.INVALID_TRANSITION,
            "这条记录因破产重整、和解临时屏蔽，尚未修复：计划执行完毕、终止公示之后才能出具证明。",
        )
    if withdrawn(record):
        raise Problem(
            ProblemCode.INVALID_TRANSITION, "这条记录已由其来源撤回，没有修复可以证明；各平台不再公示。"
        )
    if record.state is not DisplayState.PUBLICATION_ENDED:
        raise Problem(
            ProblemCode.INVALID_TRANSITION,
            "这条记录的修复已被撤销，不能出具修复证明；如有疑问请联系认定单位。",
        )
