"""Files exchanged with an outside system: a folder, or one on an SFTP server; one port for both.

A file is written as ``<name>.part`` and then renamed, so that nobody sees half of one; ``names`` shows no ``.part``. Paths are
relative, with ``/``. Whatever goes wrong on the way is FilesUnavailableError: the outcome is unknown, try again. What batches of
files look like: contracts.batch_files.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import asyncssh

PART = ".part"
_BLOCK = 64 * 1024

Connect = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to (host, port); for who wants to look at the address first. Raises OSError."""


class FilesUnavailableError(Exception):
    """The files cannot be reached, or not as asked; the text says why and holds no secret."""


class FileTooLargeError(Exception):
    """A file is longer than may be read."""


@dataclass(frozen=True)
class Entry:
    """A complete file of a folder: ``size`` in bytes; ``look`` changes when it is written again, as far as size and time tell."""

    name: str
    size: int
    look: str


class Files(Protocol):
    """What can be done in a store. All raise FilesUnavailableError; ``read`` and ``fetch`` also FileTooLargeError."""

    async def entries(self, folder: str) -> dict[str, Entry]:
        """The complete files in a folder by name; none when there is no such folder."""
        ...

    async def fetch(self, path: str, to: Path, max_bytes: int) -> None:
        """Copy a file here, block by block: for what is too large for the memory."""
        ...

    async def names(self, folder: str) -> list[str]:
        """Names of the complete files in a folder, sorted; none when there is no such folder."""
        ...

    async def read(self, path: str, max_bytes: int) -> bytes:
        """The content."""
        ...

    async def write(self, path: str, content: bytes) -> None:
        """Write it whole, in place of a file that is there; the folder is made."""
        ...

    async def move(self, path: str, to: str) -> None:
        """Rename, in place of a file that is there; the folder is made."""
        ...

    async def remove(self, path: str) -> None:
        """Remove it; nothing happens when it is gone already."""
        ...


@dataclass(frozen=True)
class SftpAccess:
    """How to sign in to an SFTP server. ``known_hosts``: lines as in OpenSSH's file; a server that is not among them is refused.

    ``private_key``: PEM or OpenSSH text.
    """

    known_hosts: str
    private_key: str | None = None
    password: str | None = None


def open_files(
    url: str,
    access: SftpAccess | None = None,
    *,
    timeout_seconds: float = 20.0,
    connect: Connect | None = None,
) -> AbstractAsyncContextManager[Files]:
    """The store at ``file:///folder`` or ``sftp://user@host[:port]/folder``, one connection for the time of the context.

    :param timeout_seconds: of connecting and signing in together, and of each operation
    :raises ValueError: for any other URL, and for SFTP without ``access``
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return contextlib.nullcontext(_Folder(Path(unquote(parts.path))))
    if parts.scheme == "sftp" and parts.hostname and parts.username and access is not None:
        return _sftp(url, access, timeout_seconds, connect)
    raise ValueError("write file:///folder, or sftp://user@host:port/folder together with how to sign in")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise FilesUnavailableError(f"{what}: no answer in time") from None
    except (OSError, asyncssh.Error, ValueError) as error:
        raise FilesUnavailableError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from None


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def names(self, folder: str) -> list[str]:
        def look() -> list[str]:
            path = self._root / folder
            if not path.is_dir():
                return []
            return sorted(each.name for each in path.iterdir() if each.is_file() and each.suffix != PART)

        with _told(folder):
            return await asyncio.to_thread(look)

    async def entries(self, folder: str) -> dict[str, Entry]:
        def look() -> dict[str, Entry]:
            # a root that is gone is a mount that is gone, and no empty folder
            if not self._root.is_dir():
                raise FileNotFoundError("the folder is not there")
            path = self._root / folder
            found = [each for each in path.iterdir() if each.is_file()] if path.is_dir() else []
            stats = {each.name: each.stat() for each in found if each.suffix != PART}
            return {n: Entry(n, s.st_size, f"{s.st_size}:{s.st_mtime_ns}") for n, s in stats.items()}

        with _told(folder):
            return await asyncio.to_thread(look)

    async def fetch(self, path: str, to: Path, max_bytes: int) -> None:
        def copy() -> None:
            with (self._root / path).open("rb") as source, to.open("wb") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    _within(path, target.tell(), max_bytes)

        with _told(path):
            await asyncio.to_thread(copy)

    async def read(self, path: str, max_bytes: int) -> bytes:
        def look() -> bytes:
            with (self._root / path).open("rb") as file:
                return file.read(max_bytes + 1)

        with _told(path):
            content = await asyncio.to_thread(look)
        return _short(path, content, max_bytes)

    async def write(self, path: str, content: bytes) -> None:
        def put() -> None:
            whole = self._root / path
            whole.parent.mkdir(parents=True, exist_ok=True)
            part = whole.with_name(whole.name + PART)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)

        with _told(path):
            await asyncio.to_thread(put)

    async def move(self, path: str, to: str) -> None:
        def rename() -> None:
            (self._root / to).parent.mkdir(parents=True, exist_ok=True)
            (self._root / path).replace(self._root / to)

        with _told(path):
            await asyncio.to_thread(rename)

    async def remove(self, path: str) -> None:
        with _told(path):
            await asyncio.to_thread((self._root / path).unlink, missing_ok=True)


@contextlib.asynccontextmanager
async def _sftp(
    url: str, access: SftpAccess, timeout_seconds: float, connect: Connect | None
) -> AsyncIterator[Files]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 22
    async with contextlib.AsyncExitStack() as stack:
        with _told(f"sftp {host}"):
            async with asyncio.timeout(timeout_seconds):
                connection = await stack.enter_async_context(
                    asyncssh.connect(
                        host,
                        port,
                        sock=await connect(host, port) if connect else None,
                        username=unquote(parts.username or ""),
                        # as text, so that nothing of this machine's own configuration counts
                        known_hosts=asyncssh.import_known_hosts(access.known_hosts),
                        client_keys=[asyncssh.import_private_key(access.private_key)]
                        if access.private_key
                        else None,
                        password=access.password,
                        agent_path=None,
                        config=None,
                    )
                )
                client = await stack.enter_async_context(connection.start_sftp_client())
        yield _Sftp(client, unquote(parts.path).rstrip("/"), timeout_seconds)


class _Sftp:
    def __init__(self, client: asyncssh.SFTPClient, root: str, timeout_seconds: float) -> None:
        self._client = client
        self._root = root
        self._timeout_seconds = timeout_seconds

    @contextlib.asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        with _told(what):
            async with asyncio.timeout(self._timeout_seconds):
                yield

    async def names(self, folder: str) -> list[str]:
        async with self._in_time(folder):
            try:
                found = await self._client.readdir(f"{self._root}/{folder}")
            except asyncssh.SFTPNoSuchFile:
                return []
        names = ((str(each.filename), each.attrs.type) for each in found)
        return sorted(
            n for n, kind in names if kind != asyncssh.FILEXFER_TYPE_DIRECTORY and not n.endswith(PART)
        )

    async def entries(self, folder: str) -> dict[str, Entry]:
        async with self._in_time(folder):
            try:
                found = await self._client.readdir(f"{self._root}/{folder}")
            except asyncssh.SFTPNoSuchFile:
                return {}
        entries = {}
        for each in found:
            name, attributes = str(each.filename), each.attrs
            if attributes.type == asyncssh.FILEXFER_TYPE_REGULAR and not name.endswith(PART):
                size = attributes.size or 0
                entries[name] = Entry(name, size, f"{size}:{attributes.mtime}:{attributes.mtime_ns}")
        return entries

    async def fetch(self, path: str, to: Path, max_bytes: int) -> None:
        async with self._in_time(path), self._client.open(f"{self._root}/{path}", "rb") as file:
            with to.open("wb") as target:
                while block := await file.read(_BLOCK):
                    target.write(block.encode() if isinstance(block, str) else block)
                    _within(path, target.tell(), max_bytes)

    async def read(self, path: str, max_bytes: int) -> bytes:
        async with self._in_time(path), self._client.open(f"{self._root}/{path}", "rb") as file:
            content = await file.read(max_bytes + 1)
        return _short(path, content.encode() if isinstance(content, str) else content, max_bytes)

    async def write(self, path: str, content: bytes) -> None:
        whole = f"{self._root}/{path}"
        async with self._in_time(path):
            await self._make_folder(whole)
            async with self._client.open(whole + PART, "wb") as file:
                await file.write(content)
            await self._replace(whole + PART, whole)

    async def move(self, path: str, to: str) -> None:
        async with self._in_time(path):
            await self._make_folder(f"{self._root}/{to}")
            await self._replace(f"{self._root}/{path}", f"{self._root}/{to}")

    async def remove(self, path: str) -> None:
        async with self._in_time(path):
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await self._client.remove(f"{self._root}/{path}")

    async def _make_folder(self, path: str) -> None:
        await self._client.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)

    async def _replace(self, path: str, to: str) -> None:
        """Rename over what is there: one step where the server can (posix-rename@openssh.com), else in two."""
        try:
            await self._client.posix_rename(path, to)
        except asyncssh.SFTPOpUnsupported:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await self._client.remove(to)
            await self._client.rename(path, to)


def _short(path: str, content: bytes, max_bytes: int) -> bytes:
    _within(path, len(content), max_bytes)
    return content


def _within(path: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise FileTooLargeError(f"{path} is longer than {max_bytes} bytes")
