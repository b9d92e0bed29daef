"""The port to where files are exchanged, and its two adapters: a shared folder, and SFTP."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import asyncssh

from contracts.department_files import FOLDERS, PART

T = TypeVar("T")
_BLOCK = 64 * 1024


class StoreUnavailableError(Exception):
    """The store cannot be reached, or went away in the middle of it: nothing is wrong with a file. The text is for logs."""


class FileTooLargeError(ValueError):
    """A file is larger than what is taken."""


@dataclass(frozen=True)
class Entry:
    """A file of a folder: ``look`` changes when it is written again, as far as its size and time tell."""

    name: str
    size: int
    look: str


class FileStore(Protocol):
    """The three folders of one department (contracts.department_files). Raises StoreUnavailableError."""

    async def entries(self, folder: str) -> dict[str, Entry]:
        """The files of a folder by name."""
        ...

    async def fetch(self, folder: str, name: str, to: Path, max_bytes: int) -> None:
        """Copy a file here. Raises FileTooLargeError, FileNotFoundError."""
        ...

    async def put(self, source: Path, folder: str, name: str) -> None:
        """Write a file: under a name of its own first, then renamed over what was there. Never seen half."""
        ...

    async def remove(self, folder: str, name: str) -> None:
        """Take a file away; it need not be there."""
        ...

    async def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        ...


class _GoneError(Exception):
    pass


class SharedFolder:
    """A folder of this machine, or mounted here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def entries(self, folder: str) -> dict[str, Entry]:
        """See FileStore."""

        def scan() -> dict[str, Entry]:
            found = {}
            with os.scandir(self._folder(folder)) as entries:
                for each in entries:
                    if each.is_file(follow_symlinks=False):
                        stat = each.stat(follow_symlinks=False)
                        found[each.name] = Entry(
                            each.name, stat.st_size, f"{stat.st_size}:{stat.st_mtime_ns}"
                        )
            return found

        return await self._run(scan)

    async def fetch(self, folder: str, name: str, to: Path, max_bytes: int) -> None:
        """See FileStore."""

        def copy() -> None:
            left = max_bytes
            path = self._folder(folder) / name
            if not path.is_file():
                raise _GoneError
            with path.open("rb") as source, to.open("wb") as target:
                while block := source.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise FileTooLargeError(name)
                    target.write(block)

        try:
            await self._run(copy)
        except _GoneError:
            raise FileNotFoundError(name) from None

    async def put(self, source: Path, folder: str, name: str) -> None:
        """See FileStore."""

        def write() -> None:
            target = self._folder(folder) / name
            part = target.with_name(name + PART)
            with source.open("rb") as content, part.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)

        await self._run(write)

    async def remove(self, folder: str, name: str) -> None:
        """See FileStore."""
        await self._run(lambda: (self._folder(folder) / name).unlink(missing_ok=True))

    async def close(self) -> None:
        """Nothing is open."""

    def _folder(self, folder: str) -> Path:
        # a root that is not there is a mount that is gone: nothing is created in its place
        if not self._root.is_dir():
            raise StoreUnavailableError("the shared folder is not there")
        path = self._root / folder
        path.mkdir(exist_ok=True)
        return path

    @staticmethod
    async def _run(work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreUnavailableError(f"{type(error).__name__}: {error.strerror}") from error


@dataclass(frozen=True)
class SftpAddress:
    """Where an SFTP server is and how to be let in. ``host_key``: the server's public key in OpenSSH form; no other is trusted.

    ``password`` or ``key_file``: the path of our private key.
    """

    host: str
    port: int
    username: str
    root: str
    host_key: str
    password: str | None
    key_file: Path | None
    timeout_seconds: float


class Sftp:
    """A folder on an SFTP server. One connection, made when it is needed and kept."""

    def __init__(self, address: SftpAddress) -> None:
        self._address = address
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None

    async def entries(self, folder: str) -> dict[str, Entry]:
        """See FileStore."""
        async with self._sftp() as sftp:
            found = {}
            async for each in sftp.scandir(self._path(folder)):
                attributes = each.attrs
                if attributes.type == asyncssh.FILEXFER_TYPE_REGULAR:
                    size, name = attributes.size or 0, str(each.filename)
                    found[name] = Entry(name, size, f"{size}:{attributes.mtime}:{attributes.mtime_ns}")
            return found

    async def fetch(self, folder: str, name: str, to: Path, max_bytes: int) -> None:
        """See FileStore."""
        async with self._sftp() as sftp:
            try:
                source = await sftp.open(self._path(folder, name), "rb")
            except asyncssh.SFTPNoSuchFile:
                raise FileNotFoundError(name) from None
            left = max_bytes
            async with source:
                with to.open("wb") as target:
                    while block := await source.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise FileTooLargeError(name)
                        target.write(bytes(block) if isinstance(block, bytes) else block.encode())

    async def put(self, source: Path, folder: str, name: str) -> None:
        """See FileStore."""
        part = self._path(folder, name + PART)
        async with self._sftp() as sftp:
            async with sftp.open(part, "wb") as target:
                with source.open("rb") as content:
                    while block := content.read(_BLOCK):
                        await target.write(block)
            try:
                await sftp.posix_rename(part, self._path(folder, name))
            except asyncssh.SFTPOpUnsupported:
                with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                    await sftp.remove(self._path(folder, name))
                await sftp.rename(part, self._path(folder, name))

    async def remove(self, folder: str, name: str) -> None:
        """See FileStore."""
        async with self._sftp() as sftp:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(self._path(folder, name))

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            connection.abort()

    def _path(self, *parts: str) -> str:
        return str(PurePosixPath(self._address.root, *parts))

    @contextlib.asynccontextmanager
    async def _sftp(self) -> AsyncIterator[asyncssh.SFTPClient]:
        try:
            async with asyncio.timeout(self._address.timeout_seconds):
                if self._client is None:
                    self._client = await self._connect()
                yield self._client
        except FileNotFoundError:
            raise
        except (asyncssh.Error, OSError, TimeoutError) as error:
            await self.close()
            raise StoreUnavailableError(f"{type(error).__name__}: {error}"[:300]) from error

    async def _connect(self) -> asyncssh.SFTPClient:
        address = self._address
        self._connection = await asyncssh.connect(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            client_keys=[str(address.key_file)] if address.key_file else None,
            known_hosts=([asyncssh.import_public_key(address.host_key)], [], []),
            # what this machine's user has for ssh is none of this service's business
            config=None,
            agent_path=None,
            keepalive_interval=15,
        )
        client = await self._connection.start_sftp_client()
        for folder in FOLDERS:
            if not await client.isdir(self._path(folder)):
                await client.mkdir(self._path(folder))
        return client
