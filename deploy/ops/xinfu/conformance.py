"""``xinfu conformance``: whether a counterpart's system keeps to the protocol, checked against the real thing before it goes live."""

import typer

from xinfu.conformance_target import target

conformance_app = typer.Typer(no_args_is_help=True, help="对接自检：对方系统是否符合协议。")
conformance_app.command("target")(target)


@conformance_app.callback()
def _group() -> None:
    """Keeps ``target`` a command of its own name, however many there are."""
