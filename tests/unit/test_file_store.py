"""One port for files in a folder and on an SFTP server: the same tests on both, the server a real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncssh
import pytest

from chassis.file_store import Files, FilesUnavailableError, FileTooLargeError, SftpAccess, open_files
from contracts.batch_files import Manifest, ManifestEntry


class _Server(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("xinfu", "secret")


@pytest.fixture
async def sftp(tmp_path: Path) -> AsyncIterator[tuple[str, SftpAccess]]:
    """An SFTP server over ``tmp_path``: URL and access."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        _Server,
        "127.0.0.1",
        0,
        server_host_keys=[key],
        sftp_factory=partial(asyncssh.SFTPServer, chroot=str(tmp_path).encode()),
    )
    port = server.get_port()
    known = f"[127.0.0.1]:{port} {key.export_public_key().decode()}"
    yield f"sftp://xinfu@127.0.0.1:{port}/exchange", SftpAccess(known, password="secret")
    server.close()
    await server.wait_closed()


@pytest.fixture(params=["folder", "sftp"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, sftp: tuple[str, SftpAccess]
) -> AbstractAsyncContextManager[Files]:
    """The store at ``tmp_path/exchange``, by either way."""
    if request.param == "folder":
        return open_files(f"file://{tmp_path}/exchange")
    return open_files(*sftp)


async def test_files_appear_whole_and_move(
    opened: AbstractAsyncContextManager[Files], tmp_path: Path
) -> None:
    async with opened as files:
        assert await files.names("in") == []
        await files.write("in/二.csv", b"first")
        await files.write("in/二.csv", b"second")
        await files.write("in/a.csv", b"")
        (tmp_path / "exchange" / "in" / "half.csv.part").write_bytes(b"ha")
        (tmp_path / "exchange" / "in" / "folder").mkdir()
        assert await files.names("in") == ["a.csv", "二.csv"]
        assert await files.read("in/二.csv", 100) == b"second"
        await files.write("done/a.csv", b"older")
        await files.move("in/a.csv", "done/a.csv")
        assert (await files.names("in"), await files.read("done/a.csv", 1)) == (["二.csv"], b"")
        await files.remove("in/二.csv")
        await files.remove("in/二.csv")
        assert await files.names("in") == []


async def test_what_cannot_be_read_is_told(opened: AbstractAsyncContextManager[Files]) -> None:
    async with opened as files:
        with pytest.raises(FilesUnavailableError, match=r"in/none\.csv"):
            await files.read("in/none.csv", 10)
        await files.write("in/long.csv", b"x" * 11)
        with pytest.raises(FileTooLargeError):
            await files.read("in/long.csv", 10)


async def test_a_server_nobody_knows_and_a_wrong_password_are_refused(sftp: tuple[str, SftpAccess]) -> None:
    url, access = sftp
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    stranger = SftpAccess(f"{access.known_hosts.split()[0]} {other}", password="secret")
    for wrong in (stranger, SftpAccess(access.known_hosts, password="guessed")):
        with pytest.raises(FilesUnavailableError) as told:
            async with open_files(url, wrong):
                pass
        assert "guessed" not in str(told.value)


async def test_a_silent_server_does_not_hold_us(tmp_path: Path) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(FilesUnavailableError, match="no answer in time"):
        async with open_files(f"sftp://x@127.0.0.1:{port}/", SftpAccess(""), timeout_seconds=0.3):
            pass
    server.close()
    for url in ("sftp://host/without-user", "file://host/x", "https://x/y"):
        with pytest.raises(ValueError, match="file:///"):
            open_files(url, SftpAccess(""))


def test_a_manifest_tells_a_changed_file() -> None:
    content = "甲,1\r\n".encode()
    entry = ManifestEntry.of("a.csv", content, 1)
    manifest = Manifest(batch_id="b1", created_at=datetime(2026, 3, 2, tzinfo=UTC), files=[entry])
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert entry.fault(content) == ""
    assert "字节" in entry.fault(content + b" ")
    assert "SHA-256" in entry.fault(content.replace(b"1", b"2"))
