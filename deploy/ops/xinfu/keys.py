"""`xinfu keys`: signing keys of sync, made and shown."""

from typing import Annotated

import typer

from contracts.signatures import SigningKey, new_secret
from xinfu.audit import published_keys
from xinfu.operators import Services, operate
from xinfu.terminal import DataDir, console
from xinfu_local import DEFAULT_DATA_DIR

keys_app = typer.Typer(no_args_is_help=True, help="签名密钥：历史的签名头、修复证明用它签名。")


@keys_app.command("new")
def new(
    sm2: Annotated[bool, typer.Option("--sm2", help="SM2（配 SM3），默认 Ed25519")] = False,
) -> None:
    """生成一把新的签名密钥：打印 SYNC_SIGNING_KEY 的值（秘密）和它的公钥。轮换的步骤见 docs/proof.md。"""
    secret = new_secret("sm2" if sm2 else "ed25519")
    print(f"SYNC_SIGNING_KEY={secret}")
    console.print("公钥（停用之后，放进 SYNC_RETIRED_KEYS 的数组）：", style="dim")
    print(SigningKey.read(secret).public.model_dump_json(exclude_none=True))


@keys_app.command("show")
def show(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """打印 sync 现在公布的公钥（GET /v1/keys）：保存成文件，供离线核验用。"""

    async def work(services: Services) -> bool:
        keys = await published_keys(services.client, services.urls["sync"])
        print(keys.model_dump_json(indent=2, exclude_none=True))
        return True

    operate(data_dir, work)
