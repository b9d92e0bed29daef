"""``python -m sandbox``: run until SIGTERM or SIGINT, then stop cleanly (exit status 0)."""

import signal
import sys

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError

from sandbox.app import create_app
from sandbox.catalogue import CatalogueError
from sandbox.db import DatabaseError
from sandbox.settings import Settings

SHUTDOWN_SECONDS = 3
"""Requests held by a timeout fault are cut off after this many seconds."""

KEEP_ALIVE_SECONDS = 75
"""As reverse proxies do (nginx, ``keepalive_timeout``): longer than its clients keep an idle connection."""


def main() -> None:
    """Read the settings and serve. Exits with 2 and a sentence when they are wrong."""
    # uvicorn raises the signal again after it has shut down; without this the exit status would tell of a kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        settings = Settings()
        app = create_app(settings)
    except (ValidationError, SettingsError, CatalogueError, DatabaseError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        sys.exit(2)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.http_port,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        loop="asyncio",  # not uvloop: docs/decisions/0031
    )


if __name__ == "__main__":
    main()
