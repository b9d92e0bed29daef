"""The running stack as the end-to-end tests see it."""

from collections.abc import AsyncIterator

import pytest
from e2e.people import World, open_world

from xinfu.compose import Endpoints
from xinfu_local import Stack


@pytest.fixture(scope="session")
async def world(full_stack: tuple[Stack, Endpoints]) -> AsyncIterator[World]:
    """All five services, and people to act on them."""
    async with open_world(*full_stack) as world:
        yield world
