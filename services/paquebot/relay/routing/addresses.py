"""The addresses that relay may connect to when only DNS or a sender names them: those of the public Internet.

The owner of a domain can point it at any address, and any sender can make relay connect to it: to loopback, to pods
and nodes, to a cloud's metadata service. So relay refuses what IANA's registries call not globally reachable (RFC
6890, RFC 8190), and addresses that embed such an address (RFC 4291 §2.5.5, RFC 6052, RFC 3056, RFC 4380).
"""

import contextlib
import ipaddress
import itertools
from collections.abc import Sequence
from pathlib import Path

from paquebot.runtime.settings import Network

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 §2.1
_6TO4 = ipaddress.ip_network("2002::/16")  # RFC 3056 §2
_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291 §2.4: the global unicast addresses of IPv6
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # RFC 6598: shared behind a provider's NAT
        "192.0.0.0/24",  # RFC 6890: protocol assignments
        "192.88.99.0/24",  # RFC 7526: 6to4 relays, deprecated
        "198.18.0.0/15",  # RFC 2544: benchmarks
        "2001::/23",  # RFC 2928: protocol assignments, Teredo among them
        "2001:db8::/32",  # RFC 3849: documentation
        "3fff::/20",  # RFC 9637: documentation
        "5f00::/16",  # RFC 9602: SRv6
    )
)
_PROC = Path("/proc/net")


def is_public(address: IpAddress) -> bool:
    """A unicast address that is globally reachable, and so is any address that it embeds."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _6TO4:
            inner = ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
            return is_public(inner)
        if address.scope_id or address not in _UNICAST:  # IPv4-mapped ones, too
            return False
    if is_within(address, _NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def may_connect(text: str, allowed: Sequence[Network]) -> bool:
    """The IP address `text` is public, or the operator allows its network."""
    address = ipaddress.ip_address(text)
    return is_public(address) or is_within(address, allowed)


def is_within(address: IpAddress, networks: Sequence[Network]) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    one = mapped or address
    return any(one.version == network.version and one in network for network in networks)


def interface_addresses(proc: Path = _PROC) -> tuple[Network, ...]:
    """The addresses of this host's interfaces, without loopback: mail that is routed there would come back. Empty
    where there is no /proc (it is Linux's)."""
    found: set[IpAddress] = set()
    with contextlib.suppress(OSError, ValueError):
        found.update(_ipv4((proc / "fib_trie").read_text()))
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(ipaddress.IPv6Address(int(line.split()[0], 16)))
    outside = (address for address in found if not (address.is_loopback or address.is_link_local))
    return tuple(ipaddress.ip_network(address) for address in sorted(outside, key=str))


def _ipv4(trie: str) -> set[IpAddress]:
    """From the kernel's routing trie: each line `|-- 192.0.2.1` that is followed by `/32 host LOCAL`."""
    lines = trie.splitlines()
    return {
        ipaddress.ip_address(line.rpartition("|-- ")[2].strip())
        for line, after in itertools.pairwise(lines)
        if "|-- " in line and "/32 host LOCAL" in after
    }
