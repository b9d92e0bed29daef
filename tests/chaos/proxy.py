"""A TCP proxy that breaks on request: the network between one service and the bus. A process of its own, on loopback.

    python -m chaos.proxy --control 18000 routing=19001:19002 sync=19003:19004

forwards 19001 to 19002 under the name routing, and so on. ``BusLinks`` starts it and tells it what to do.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from aiohttp import ClientSession, web

from xinfu_local import Listener, Process, free_port

HOST = "127.0.0.1"
# of one direction of one connection; more is left to the sender, whose socket fills
_BUFFER_BYTES = 64 * 1024


class State(StrEnum):
    """What a link does.

    BLACK_HOLE: connections stay open and are accepted, and nothing passes, as when packets are dropped; what was sent
        meanwhile arrives when the link is open again.
    REFUSE: connections are reset, and new ones too.
    """

    OPEN = "open"
    BLACK_HOLE = "black-hole"
    REFUSE = "refuse"


@dataclass
class Link:
    """One listening port and what becomes of its connections. ``delay_seconds`` holds up each 64 KiB at most, either way."""

    target_port: int
    state: State = State.OPEN
    delay_seconds: float = 0.0
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def set(self, state: State, delay_seconds: float) -> None:
        """Change what it does, for connections that exist too."""
        self.state, self.delay_seconds = state, delay_seconds
        if state is State.BLACK_HOLE:
            self._open.clear()
        else:
            self._open.set()
        if state is State.REFUSE:
            for writer in self.connections:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        ours = [writer]
        self.connections.add(writer)
        try:
            await self._open.wait()
            if self.state is State.REFUSE:
                return
            far_reader, far_writer = await asyncio.open_connection(
                HOST, self.target_port, limit=_BUFFER_BYTES
            )
            ours.append(far_writer)
            self.connections.add(far_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer)),
                asyncio.create_task(self._pump(far_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # the target is down: so is the link
            return
        finally:
            for end in ours:
                self.connections.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_BUFFER_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._open.wait()
            writer.write(data)
            await writer.drain()


async def _run(control_port: int, ports: Mapping[str, tuple[int, int]]) -> None:
    links: dict[str, Link] = {}
    for name, (port, target_port) in ports.items():
        link = links[name] = Link(target_port)
        link.set(State.OPEN, 0)
        await asyncio.start_server(link.serve, HOST, port, limit=_BUFFER_BYTES)

    async def get(_request: web.Request) -> web.Response:
        states = {
            name: {
                "state": link.state,
                "delay_seconds": link.delay_seconds,
                "connections": len(link.connections),
            }
            for name, link in links.items()
        }
        return web.json_response(states)

    async def put(request: web.Request) -> web.Response:
        try:
            link, body = links[request.match_info["name"]], await request.json()
            link.set(State(body["state"]), float(body["delay_seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=repr(error)) from error
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/links", get), web.put("/links/{name}", put)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, control_port).start()
    await asyncio.Event().wait()


class BusLinks:
    """The proxy as a process of a stack, with one link to Apache Kafka for each name.

        links = BusLinks(["routing", "sync"])
        Stack([links.process, *services], Broker.APACHE, kafka_listeners=links.listeners)

    A service goes through its link when its environment has ``links.environment("routing")``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Choose ports; start nothing."""
        self.listeners = {name: Listener(free_port(), free_port()) for name in names}
        control = free_port()
        self._url = f"http://{HOST}:{control}/links"
        pairs = [f"{name}={link.advertised_port}:{link.port}" for name, link in self.listeners.items()]
        self.process = Process(
            "bus-links",
            [sys.executable, str(Path(__file__)), "--control", str(control), *pairs],
            health_url=self._url,
        )

    def environment(self, name: str) -> dict[str, str]:
        """What makes a process use the link of this name."""
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{self.listeners[name].advertised_port}"}

    async def cut(self, name: str, state: State = State.BLACK_HOLE) -> None:
        """Cut the link."""
        await self._put(name, state, 0)

    async def delay(self, name: str, seconds: float) -> None:
        """Open the link and hold up all that passes."""
        await self._put(name, State.OPEN, seconds)

    async def heal(self, name: str) -> None:
        """Open the link, without delay."""
        await self._put(name, State.OPEN, 0)

    async def _put(self, name: str, state: State, delay_seconds: float) -> None:
        async with (
            ClientSession() as session,
            session.put(
                f"{self._url}/{name}", json={"state": state, "delay_seconds": delay_seconds}
            ) as response,
        ):
            if response.status != 200:
                raise ValueError(f"bus link {name}: {await response.text()}")


def _port_pair(text: str) -> tuple[str, tuple[int, int]]:
    name, _, pair = text.partition("=")
    port, _, target_port = pair.partition(":")
    return name, (int(port), int(target_port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", type=int, required=True, metavar="PORT")
    parser.add_argument("links", type=_port_pair, nargs="+", metavar="NAME=PORT:TARGET_PORT")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.control, dict(arguments.links)))
