"""``python -m xinfu``: the command line without its script."""

from xinfu.cli import app

app(prog_name="xinfu")
