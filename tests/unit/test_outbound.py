"""No connection leads to an address that is neither public nor listed, whatever a name resolves to."""

import ipaddress
import socket
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ClientSession, web
from aiohttp.abc import AbstractResolver, ResolveResult

from chassis.outbound import check_address, guarded_connect, guarded_connector

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "240.0.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "ff02::1",
    ],
)
def test_special_addresses_are_forbidden(address: str) -> None:
    with pytest.raises(OSError, match="neither a public address nor listed"):
        check_address(address, [])
    listed = ipaddress.ip_network(address.partition("%")[0].removeprefix("::ffff:"))
    check_address(address, [listed])
    check_address("223.5.5.5", [])
    check_address("2400:3200::1", [])


class _Changing(AbstractResolver):
    """A DNS that answers otherwise each time."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._answers.pop(0)
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_the_address_is_looked_at_on_every_connection() -> None:
    app = web.Application()

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    def client(allowed: Any, *answers: str) -> ClientSession:
        resolver = _Changing(*answers)
        return ClientSession(
            connector=guarded_connector(allowed, resolver=resolver, use_dns_cache=False, force_close=True)
        )

    only = [ipaddress.ip_network("127.0.0.1/32")]
    async with client(only, "127.0.0.1", "127.0.0.2") as http:
        async with http.get(f"http://target.example:{port}/") as answer:
            assert await answer.text() == "hello"
        with pytest.raises(
            ClientConnectorError, match=r"127\.0\.0\.2 is neither a public address nor listed"
        ):
            await http.get(f"http://target.example:{port}/")
    async with client([]) as http:
        for literal in ("127.0.0.1", "[::1]", "0.0.0.0"):
            with pytest.raises(ClientConnectorError, match="nor listed"):
                await http.get(f"http://{literal}:{port}/")
    with pytest.raises(OSError, match="nor listed"):
        await guarded_connect("localhost", port, [])
    made = await guarded_connect("127.0.0.1", port, LOOPBACK)
    made.close()
    await runner.cleanup()
