"""From a domain to the addresses of its mail exchangers, in the order in which relay tries them.

RFC 5321 §5.1 (preference, equal ones shuffled, implicit MX, our own host), §4.1.3 (address literals), RFC 7505
(null MX), RFC 1035. A query without an answer is a temporary failure; a denial is permanent.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from paquebot.relay import metrics
from paquebot.relay.outcome import (
    BAD_DOMAIN,
    DNS_FAILED,
    NO_ROUTE,
    NOT_PUBLIC,
    NULL_MX,
    ROUTING_LOOP,
    Host,
    Unroutable,
    deferred,
    failed,
)
from paquebot.relay.routing.addresses import interface_addresses, is_within, may_connect
from paquebot.relay.routing.routes import Route
from paquebot.relay.settings import RoutingSettings
from paquebot.runtime.settings import Listen

Shuffle = Callable[[list["Exchanger"]], None]


@dataclass(frozen=True, slots=True)
class Exchanger:
    """An MX record; `name` lower case without its final dot."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class _Located:
    """An exchanger with its addresses; `temporary`: DNS did not answer for some; `refused`: relay may not connect to
    some."""

    exchanger: Exchanger
    addresses: tuple[str, ...]
    temporary: bool
    refused: bool = False


class _Denied(Exception):
    """DNS denies the name or the record."""


class _NoAnswer(Exception):
    """DNS does not answer now."""


class Resolver:
    """One for a process. `hostname`: our own; `port`: of mail exchangers; `shuffle` puts equals in random order."""

    def __init__(self, settings: RoutingSettings, hostname: str, port: int, shuffle: Shuffle) -> None:
        self._settings = settings
        self._port = port
        self._shuffle = shuffle
        self._own_names = {name.lower().rstrip(".") for name in (hostname, *settings.own_names)}
        self._own_addresses = (*settings.own_addresses, *interface_addresses())
        self._dns = _resolver(settings.dns, settings)

    async def hosts(self, route: Route) -> list[Host]:
        """The hosts to try, best first, up to the limit of the settings. Raises Unroutable."""
        port = route.port or self._port
        if (address := _literal(route.host)) is not None:
            return [self._at_literal(route, address, port)]
        exchangers = await self._exchangers(route)
        located = await asyncio.gather(*(self._locate(exchanger) for exchanger in exchangers))
        usable = [self._reachable(found, route) for found in self._better_than_us(located, route)]
        hosts = [
            Host(found.exchanger.name, address, port, found.exchanger.preference)
            for found in usable
            for address in found.addresses
        ]
        if hosts:
            return hosts[: self._settings.addresses]
        if any(found.temporary for found in located):
            raise Unroutable(deferred(DNS_FAILED, f"DNS does not answer for the hosts of {route.host}"))
        if any(found.refused for found in usable):
            raise Unroutable(failed(NOT_PUBLIC, f"the hosts of {route.host} are not on the public Internet"))
        implicit = len(exchangers) == 1 and exchangers[0].name == route.host
        status = BAD_DOMAIN if implicit else NO_ROUTE
        raise Unroutable(failed(status, f"the hosts of {route.host} have no address"))

    def _at_literal(self, route: Route, address: str, port: int) -> Host:
        """A static route may lead anywhere; an address that a sender wrote may not. Raises Unroutable."""
        if not route.static:
            if not self._settings.literals:
                raise Unroutable(failed(NOT_PUBLIC, "mail to address literals is not sent from here"))
            if is_within(ipaddress.ip_address(address), self._own_addresses):
                raise Unroutable(failed(ROUTING_LOOP, f"mail for {route.host} loops back to this host"))
            if not may_connect(address, self._settings.allow_networks):
                raise Unroutable(failed(NOT_PUBLIC, f"{route.host} is not on the public Internet"))
        return Host(route.host, address, port)

    def _reachable(self, located: _Located, route: Route) -> _Located:
        """Without the addresses that relay may not connect to. Relay connects to these addresses and does not resolve
        the name again, so the name cannot have another address by then."""
        if route.static:
            return located
        allowed = self._settings.allow_networks
        addresses = tuple(address for address in located.addresses if may_connect(address, allowed))
        return replace(located, addresses=addresses, refused=len(addresses) < len(located.addresses))

    # --- MX ---

    async def _exchangers(self, route: Route) -> list[Exchanger]:
        """In order of preference; the domain itself if it has no MX record. Raises Unroutable."""
        if not route.exchangers:
            return [Exchanger(0, route.host)]
        try:
            found = await self._mx(route.host)
        except _NoAnswer:
            raise Unroutable(deferred(DNS_FAILED, f"DNS does not answer for {route.host}")) from None
        except dns.resolver.NXDOMAIN:
            raise Unroutable(failed(BAD_DOMAIN, f"there is no domain {route.host}")) from None
        except _Denied:
            return [Exchanger(0, route.host)]  # RFC 5321 §5.1: the implicit MX
        if [exchanger.name for exchanger in found] == [""]:
            raise Unroutable(failed(NULL_MX, f"{route.host} accepts no mail"))  # RFC 7505 §3
        return self._in_order([exchanger for exchanger in found if exchanger.name])

    async def _mx(self, domain: str) -> list[Exchanger]:
        answer = await self._query(domain, "MX")
        # A set: a zone may name one host twice.
        return list({Exchanger(record.preference, _text(record.exchange)) for record in answer})

    def _in_order(self, exchangers: list[Exchanger]) -> list[Exchanger]:
        """RFC 5321 §5.1: by preference, equal ones at random."""
        exchangers.sort(key=lambda exchanger: exchanger.name)
        self._shuffle(exchangers)
        exchangers.sort(key=lambda exchanger: exchanger.preference)
        return exchangers[: self._settings.exchangers]

    def _better_than_us(self, located: Sequence[_Located], route: Route) -> list[_Located]:
        """RFC 5321 §5.1: the exchangers better than our own host in the list. A static route is not checked."""
        if route.static:
            return list(located)
        ours = [found.exchanger.preference for found in located if self._is_us(found)]
        if not ours:
            return list(located)
        better = [found for found in located if found.exchanger.preference < min(ours)]
        if not better:
            text = f"mail for {route.host} loops back to this host"
            raise Unroutable(failed(ROUTING_LOOP, text))
        return better

    def _is_us(self, located: _Located) -> bool:
        if located.exchanger.name in self._own_names:
            return True
        return any(is_within(ipaddress.ip_address(address), self._own_addresses) for address in located.addresses)

    # --- addresses ---

    async def _locate(self, exchanger: Exchanger) -> _Located:
        if (address := _literal(exchanger.name)) is not None:
            return _Located(exchanger, (address,), temporary=False)
        kinds = ("AAAA", "A") if self._settings.ipv6 else ("A",)
        answers = await asyncio.gather(*(self._addresses(exchanger.name, kind) for kind in kinds))
        found = tuple(address for answer in answers if answer is not None for address in answer)
        return _Located(exchanger, found, temporary=None in answers)

    async def _addresses(self, name: str, kind: str) -> list[str] | None:
        """None: DNS did not answer."""
        try:
            return [record.address for record in await self._query(name, kind)]
        except (_Denied, dns.resolver.NXDOMAIN):
            return []
        except _NoAnswer:
            return None

    async def _query(self, name: str, kind: str) -> list[Any]:
        """The records; aliases (CNAME) are followed. Raises NXDOMAIN, _Denied, _NoAnswer."""
        start = time.perf_counter()
        result = "no_answer"
        try:
            answer = await self._dns.resolve(_absolute(name), kind, search=False, lifetime=self._settings.dns_timeout)
            result = "ok"
            return list(answer)
        except dns.resolver.NXDOMAIN:
            result = "not_found"
            raise
        except (dns.resolver.NoAnswer, _Denied):
            result = "not_found"
            raise _Denied from None
        except (dns.exception.DNSException, OSError, TimeoutError) as error:
            raise _NoAnswer from error
        finally:
            metrics.DNS_SECONDS.labels(kind, result).observe(time.perf_counter() - start)


def _resolver(servers: Sequence[Listen], settings: RoutingSettings) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(server.host, server.port) for server in servers]
    resolver.cache = dns.resolver.LRUCache(settings.dns_entries)  # each answer for its time to live, also denials
    return resolver


def _absolute(name: str) -> dns.name.Name:
    """Raises _Denied for text that cannot be a name in DNS, and so has no record there."""
    try:
        return dns.name.from_text(name)
    except (dns.exception.DNSException, UnicodeError):
        raise _Denied from None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _literal(text: str) -> str | None:
    """RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`, or a bare IP address of a static route."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    inner = inner[5:] if inner[:5].lower() == "ipv6:" else inner
    try:
        return str(ipaddress.ip_address(inner))
    except ValueError:
        return None
