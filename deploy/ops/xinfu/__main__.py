"""The command line: ``xinfu``, and ``python -m xinfu`` without its script."""

from chassis.starting import without_collecting

with without_collecting():
    from xinfu.cli import app


def main() -> None:
    """Run one command."""
    app(prog_name="xinfu")


if __name__ == "__main__":
    main()
