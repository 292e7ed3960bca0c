"""Whose a connection is: a client has one IPv4 address or one IPv6 network of 64 bits, a network one /24 or /48.

Within 64 bits an IPv6 host has as many addresses as it likes (RFC 4291 §2.5.4, RFC 8981); a site is given 48 bits
(RFC 6177), an IPv4 site often 24.
"""

import functools
import ipaddress
from typing import NamedTuple


class ClientNetwork(NamedTuple):
    """The keys under which a peer is counted, as text."""

    network: str
    client: str


@functools.lru_cache(maxsize=1024)
def client_network(address: str) -> ClientNetwork:
    """Of an address as the socket or a trusted proxy gave it; what is no address is a network of its own."""
    bare, _, scope = address.partition("%")
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return ClientNetwork(address, address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            number = int(found)
            client, network = _prefix(number, 64), _prefix(number, 48)
            return ClientNetwork(f"{network}%{scope}" if scope else network, f"{client}%{scope}" if scope else client)
        found = found.ipv4_mapped  # RFC 4291 §2.5.5.2: an IPv4 client on a listener for both
    return ClientNetwork(f"{ipaddress.IPv4Address(int(found) >> 8 << 8)}/24", str(found))


def _prefix(number: int, bits: int) -> str:
    return f"{ipaddress.IPv6Address(number >> (128 - bits) << (128 - bits))}/{bits}"
