"""Connections to public addresses alone, unless the user named the host and allowed it.

Names are looked up here and the address that was checked is the one connected to: a name server
that answers differently the next time, or a redirect, gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable

import httpcore2

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


class PrivateAddress(Exception):
    """A host whose address is not of the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable, also where IPv6 wraps an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return ip.is_global and not ip.is_multicast


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects as the library does, after the address has been checked."""

    def __init__(self, allowed: Collection[tuple[str, int]] = ()) -> None:
        """``allowed`` are hosts with their ports that may be private."""
        self._allowed = frozenset(allowed)
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers; raises `PrivateAddress` if one is private."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host}: {error}") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        private = [address for address in addresses if not is_public(address)]
        if private and (host, port) not in self._allowed:
            raise PrivateAddress(f"{host} is {private[0]}, which is not of the public internet")
        failed: Exception = httpcore2.ConnectError(f"{host}: no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed
