"""The keys under which a client is counted: its own, and that of its network.

A client is one IPv4 address or one IPv6 /64, its network a /24 or a /48. Within 64 bits an IPv6 host takes any number
of addresses (RFC 4291 §2.5.4, RFC 8981); a site gets 48 bits (RFC 6177), an IPv4 site often 24.
"""

import functools
import ipaddress
from typing import NamedTuple


class ClientKeys(NamedTuple):
    """As text."""

    network: str
    client: str


@functools.lru_cache(maxsize=1024)
def client_keys(address: str) -> ClientKeys:
    """`address`: as the socket or a trusted proxy gives it. All texts that are no address have the empty keys."""
    bare, _, scope = address.partition("%")
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return ClientKeys("", "")
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            number = int(found)
            client, network = _prefix(number, 64), _prefix(number, 48)
            return ClientKeys(f"{network}%{scope}" if scope else network, f"{client}%{scope}" if scope else client)
        found = found.ipv4_mapped  # RFC 4291 §2.5.5.2: an IPv4 client on a listener for both
    return ClientKeys(f"{ipaddress.IPv4Address(int(found) >> 8 << 8)}/24", str(found))


def _prefix(number: int, bits: int) -> str:
    return f"{ipaddress.IPv6Address(number >> (128 - bits) << (128 - bits))}/{bits}"
