"""`xinfu certificate`: is a repair certificate genuine, offline or against the running sync."""

import asyncio
import io
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import ClientError, ClientSession, ClientTimeout
from pypdf import PdfReader
from pypdf.errors import PyPdfError
from rich.table import Table

from contracts.http.certificate import ATTACHMENT_NAME, Certificate, CertificateCheck, SignedCertificate
from contracts.signatures import KeySet, UnverifiedError
from xinfu.audit import Keys, keys_from, published_keys
from xinfu.client import Client, RefusedError
from xinfu.compose import Endpoints
from xinfu.terminal import DataDir, console, fail, plain
from xinfu_local import DEFAULT_DATA_DIR, StackError

certificate_app = typer.Typer(no_args_is_help=True, help="修复证明。")
_MAX_BYTES = 20_000_000


@certificate_app.callback()
def _group() -> None:
    """Keeps ``verify`` a command of its own while it is the only one."""


def read_certificate(path: Path) -> SignedCertificate:
    """From the JSON, or from the PDF it is attached to. Raises ValueError (zh-CN)."""
    data = path.read_bytes()[:_MAX_BYTES]
    if data.startswith(b"%PDF"):
        try:
            attached = PdfReader(io.BytesIO(data)).attachments.get(ATTACHMENT_NAME, [])
        except (PyPdfError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"这个 PDF 读不出来：{error}") from None
        if len(attached) != 1:
            raise ValueError(f"这个 PDF 里没有 {ATTACHMENT_NAME}：可能是打印或另存的，请用原文件，或扫码查验")
        data = attached[0]
    try:
        return SignedCertificate.model_validate_json(data)
    except ValueError:
        raise ValueError("这不是修复证明的 JSON 或 PDF") from None


@certificate_app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="证明：JSON 或 PDF")],
    keys: Keys = None,
    now: Annotated[
        bool, typer.Option("--now", help="还要联网查：现在是否仍然如此、修复是否已被撤销")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """核对修复证明的签名。真且（--now 时）仍然如此为 0，否则为 1。给了 --keys 就不连接任何服务。"""
    given = keys_from(keys)

    async def ask() -> tuple[KeySet, CertificateCheck | None]:
        sync = Endpoints.read(data_dir).services["sync"]
        async with ClientSession(timeout=ClientTimeout(total=30)) as session:
            client = Client(session, patience_seconds=3)
            published = given or await published_keys(client, sync)
            code = signed.certificate.get("code") if now else None
            found = await client.call("GET", f"{sync}/v1/certificates/{code}?format=json") if code else None
            return published, CertificateCheck.model_validate(found) if found else None

    try:
        signed = read_certificate(file)
        trusted, check = (given, None) if given and not now else asyncio.run(ask())
        assert trusted is not None  # noqa: S101 (given, or asked for)
        certificate, key = signed.checked(trusted)
    except (UnverifiedError, ValueError) as error:
        fail(f"✗ {plain(str(error))[:500]}")
    except (StackError, RefusedError, ClientError, TimeoutError, OSError) as error:
        fail(error or type(error).__name__)
    show(certificate, check)
    console.print(f"[green]✓ 签名有效[/green]（密钥 {key.kid}，{key.status}）", soft_wrap=True)
    if check and not check.still_true:
        fail("✗ 现在不再如此：" + ("修复已被撤销或另有决定" if check.revoked else "有平台的展示又变了"))
    if check:
        console.print("[green]✓ 现在仍然如此[/green]")


def show(certificate: Certificate, check: CertificateCheck | None) -> None:
    """What it certifies, as people read it."""
    record, decision = certificate.record, certificate.decision
    console.print(
        f"[bold]{plain(certificate.subject.name)}[/bold]  {plain(record.document_number)}"
        f"（{plain(record.authority_name)}），修复决定 {plain(decision.number)}，{certificate.issued_at} 出具",
        soft_wrap=True,
    )
    table = Table("平台", "应展示", "出具时", "最近见到一致", *(["现在"] if check else []))
    current = {each.target_id: each.now_text for each in check.targets} if check else {}
    for each in certificate.targets:
        more = [current.get(each.target_id, "—")] if check else []
        table.add_row(
            plain(each.target_name), each.desired, each.standing_text, each.seen_right_at or "—", *more
        )
    console.print(table)
