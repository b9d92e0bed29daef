"""Materials: what an applicant uploads once and hands in with any of its applications. Kept in GridFS; read by content, not by name."""

import asyncio
import contextlib
import hashlib
import unicodedata
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import BaseModel, ConfigDict, ValidationError
from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from chassis.db import CollectionSpec, Database, Document, FileBucket
from chassis.logs import get_logger
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.http.intake import Material
from intake.settings import IntakeSettings

log = get_logger(__name__)
COLLECTIONS = [
    CollectionSpec("materials", [IndexModel([("subject_id", ASCENDING), ("sha256", ASCENDING)], unique=True)])
]
_BUCKET = "material_files"
_MAX_NAME = 100
_KINDS = {
    b"%PDF-": "application/pdf",
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
}


class _Verdict(BaseModel):
    """Answer of the scanner."""

    model_config = ConfigDict(extra="ignore")

    clean: bool


def sniff(content: bytes) -> str | None:
    """Media type by the first bytes (PDF, JPEG, PNG); None for everything else. What the name or the caller says does not count."""
    return next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)


def shown_name(name: str) -> str:
    """A file name as it is kept: without path, control and format characters, at most 100 characters.

    Raises ValueError (zh-CN) when nothing is left.
    """
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    if not kept.strip("."):
        raise ValueError("请在 name 中填写文件名")
    return kept[-_MAX_NAME:]


class Materials:
    """All materials. ``http``: for the scanner."""

    def __init__(self, database: Database, settings: IntakeSettings, http: ClientSession) -> None:
        self._materials = database.collection("materials")
        self._files: FileBucket = database.bucket(_BUCKET)
        self._settings = settings
        self._http = http
        # each upload is held in memory until it is scanned: so many at once, no more
        self._slots = asyncio.Semaphore(settings.max_uploads)

    async def upload(self, subject_id: str, name: str, chunks: AsyncIterator[bytes]) -> Material:
        """Take a file. The same content of the same subject is the same material, under its first name.

        Raises Problem: VALIDATION (name, kind, or refused by the scanner), TOO_LARGE, BUSY (too many uploads, or too many kept),
        UNAVAILABLE (the scanner does not answer).
        """
        try:
            name = shown_name(name)
        except ValueError as error:
            raise _refused("name", str(error)) from None
        if self._slots.locked():
            raise Problem(
                ProblemCode.BUSY, "正在上传的文件太多，请 2 秒后重试。", headers={"Retry-After": "2"}
            )
        async with self._slots:
            content = await self._read(chunks)
            kind = sniff(content)
            if kind is None:
                raise _refused("file", "只接受 PDF、JPEG、PNG 文件；请转换格式后重新上传（仅改文件名无效）")
            sha256 = hashlib.sha256(content).hexdigest()
            known = await self._materials.find_one({"subject_id": subject_id, "sha256": sha256})
            if known is not None:
                return _material(known)
            kept = await self._materials.count_documents({"subject_id": subject_id})
            if kept >= self._settings.max_materials_per_subject:
                raise Problem(
                    ProblemCode.INVALID_TRANSITION,
                    f"每个主体最多保存{self._settings.max_materials_per_subject}份材料，请使用已上传的材料。",
                )
            await self._scan(content)
            return await self._keep(subject_id, name, kind, sha256, content)

    async def _read(self, chunks: AsyncIterator[bytes]) -> bytes:
        limit = self._settings.max_material_bytes
        content = bytearray()
        async for chunk in chunks:
            content += chunk
            if len(content) > limit:
                megabytes = limit // 1_000_000
                raise Problem(
                    ProblemCode.TOO_LARGE,
                    f"文件超过{megabytes}MB，请降低扫描分辨率（200 dpi 即可）或拆分后重新上传。",
                )
        return bytes(content)

    async def _scan(self, content: bytes) -> None:
        """Ask the scanner, where there is one. Not answering is not a yes."""
        url = self._settings.scanner_url
        if url is None:
            return
        timeout = ClientTimeout(total=self._settings.scanner_timeout_seconds)
        try:
            async with self._http.post(
                str(url), data=content, allow_redirects=False, timeout=timeout
            ) as response:
                response.raise_for_status()
                verdict = _Verdict.model_validate_json(await response.content.read(10_000))
        except (ClientError, TimeoutError, OSError, ValidationError) as error:
            log.warning("scanner does not answer", error=type(error).__name__)
            raise Problem(ProblemCode.UNAVAILABLE, "文件安全检查暂时无法进行，请稍后重新上传。") from None
        if not verdict.clean:
            raise _refused("file", "文件未通过安全检查，不能接收；请检查本机后换一份文件")

    async def _keep(self, subject_id: str, name: str, kind: str, sha256: str, content: bytes) -> Material:
        """The file first, then the row that names it: a row never names a file that is not there."""
        file_id = await self._files.upload_from_stream(sha256, content)
        row: Document = {
            "_id": f"mat_{uuid.uuid4().hex}",
            "subject_id": subject_id,
            "file_id": file_id,
            "name": name,
            "media_type": kind,
            "size_bytes": len(content),
            "sha256": sha256,
            "scanned": self._settings.scanner_url is not None,
            "uploaded_at": datetime.now(UTC),
        }
        try:
            await self._materials.insert_one(row)
        except DuplicateKeyError:
            # the same file was uploaded twice at once: the other row stands
            with contextlib.suppress(Exception):
                await self._files.delete(file_id)
            found = await self._materials.find_one({"subject_id": subject_id, "sha256": sha256})
            if found is None:
                raise
            row = found
        return _material(row)

    async def of(self, subject_id: str, ids: list[str]) -> list[Material]:
        """Those of these materials that are the subject's, in the order asked for."""
        cursor = self._materials.find({"_id": {"$in": ids}, "subject_id": subject_id})
        found = {row["_id"]: _material(row) async for row in cursor}
        return [found[i] for i in ids if i in found]

    async def own(self, subject_id: str, ids: list[str]) -> list[Material]:
        """All of these materials. Raises Problem UNKNOWN_MATERIAL when one is not the subject's."""
        found = await self.of(subject_id, ids) if ids else []
        if unknown := sorted(set(ids) - {material.material_id for material in found}):
            raise Problem(
                ProblemCode.UNKNOWN_MATERIAL,
                "所附材料中有不存在或不属于当前主体的，请重新上传后再提交。",
                material_ids=unknown,
            )
        return found

    async def open(
        self, material_id: str, subject_id: str | None = None
    ) -> tuple[Material, AsyncIterator[bytes]] | None:
        """A material and its content, piece by piece. ``subject_id``: only if it is this subject's."""
        query = {"_id": material_id, **({} if subject_id is None else {"subject_id": subject_id})}
        row = await self._materials.find_one(query)
        if row is None:
            return None
        return _material(row), self._pieces(row["file_id"])

    async def _pieces(self, file_id: object) -> AsyncIterator[bytes]:
        stream = await self._files.open_download_stream(file_id)
        while piece := await stream.readchunk():
            yield piece


def _material(row: Document) -> Material:
    return Material.model_validate({**row, "material_id": row["_id"]})


def _refused(field: str, reason: str) -> Problem:
    return Problem(
        ProblemCode.VALIDATION,
        "请按 errors 中的说明更正后重新上传。",
        errors=[{"field": field, "reason": reason}],
    )
