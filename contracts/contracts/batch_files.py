"""Batches of files exchanged with a platform or a department, in the manner of GB/T 39443: data files, and a manifest that comes last.

``<batch>.manifest.json`` names every file of the batch with its length, its SHA-256 and how many rows it has. Who receives a batch
takes it only once the manifest is there and every file is what the manifest says.
"""

import hashlib
from typing import Annotated

from pydantic import Field

from contracts.records import Shape, Timestamp

MANIFEST_SUFFIX = ".manifest.json"

BatchId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,119}$")]


class ManifestEntry(Shape):
    """One file. ``rows``: rows of data, without the header."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,119}$")
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0)

    @classmethod
    def of(cls, name: str, content: bytes, rows: int) -> "ManifestEntry":
        """The entry of a file."""
        return cls(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest(), rows=rows)

    def fault(self, content: bytes) -> str:
        """What is wrong with a file that should be this one (zh-CN); empty when it is."""
        if len(content) != self.size:
            return f"文件 {self.name} 有 {len(content)} 字节，清单为 {self.size} 字节"
        if hashlib.sha256(content).hexdigest() != self.sha256:
            return f"文件 {self.name} 的 SHA-256 与清单不符"
        return ""


class Manifest(Shape):
    """The manifest of a batch: written last. ``sequence``: where batches are numbered, from 1 without gaps."""

    batch_id: BatchId
    sequence: int | None = None
    created_at: Timestamp
    files: Annotated[list[ManifestEntry], Field(min_length=1, max_length=100)]
