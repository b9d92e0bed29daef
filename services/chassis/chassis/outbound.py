"""Connections to systems outside: no private, loopback or otherwise special address unless it is listed, whatever a name resolves to.

The address is looked at when the socket is made, so neither a later answer of the DNS nor a literal address in a URL gets past.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Annotated, Any

from aiohttp import TCPConnector
from pydantic import BeforeValidator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: object) -> Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    return ipaddress.ip_network(str(value), strict=False)


AllowedNetwork = Annotated[Network, BeforeValidator(_network)]
"""For settings: an address, or a network such as 10.2.0.0/16."""


class ForbiddenAddressError(OSError):
    """The name leads to an address that is neither public nor listed."""


def check_address(address: str, allowed: Sequence[Network]) -> None:
    """Raises ForbiddenAddressError for an address that is not public, unless it is in one of ``allowed``."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip in network for network in allowed):
        return
    # is_global is false for private, loopback, link-local, shared and reserved ones; of multicast it says nothing
    if not ip.is_global or ip.is_multicast:
        raise ForbiddenAddressError(errno.EACCES, f"{ip} is neither a public address nor listed")


def guarded_connector(allowed: Sequence[Network], **options: Any) -> TCPConnector:
    """A connector for aiohttp that keeps to public and listed addresses."""

    def make_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        check_address(address[0], allowed)
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return TCPConnector(socket_factory=make_socket, **options)


async def guarded_connect(host: str, port: int, allowed: Sequence[Network]) -> socket.socket:
    """A connected socket to a public or listed address of the host. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    check_address(str(address[0]), allowed)
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        await loop.sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
