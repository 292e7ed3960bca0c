"""Static routes: mail that does not follow DNS, and where it goes.

`example.org=mx.example.net:25` (that domain, to the mail exchangers of mx.example.net), `.example.com=[192.0.2.1]`
(its subdomains, to that host; brackets: no MX lookup), `*=[smart.example]:587` (all else, to a smart host).
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from paquebot.wire.address import BadAddress, normal_domain


@dataclass(frozen=True, slots=True)
class Route:
    """`host`: a domain name or IP address; `exchangers`: search for its MX records first; `port` 0: the usual one.
    `static`: from the settings; `smart_host`: of the route `*`, the only one where relay logs in."""

    host: str
    port: int = 0
    exchangers: bool = True
    static: bool = False
    smart_host: bool = False

    @property
    def key(self) -> str:
        """The destination: concurrency and back-off are counted by this."""
        return f"{self.host}:{self.port}" if self.static else self.host


class Routes:
    """Raises ValueError for text that is not a route."""

    def __init__(self, routes: Iterable[str]) -> None:
        self._by_domain: dict[str, Route] = {}
        for text in routes:
            pattern, equals, target = text.partition("=")
            if not equals or not target:
                raise ValueError(f"{text!r} must be a route such as example.org=mx.example.net:25")
            self._by_domain[_pattern(pattern)] = _target(target, smart_host=pattern == "*")

    def route(self, domain: str) -> Route:
        """The most specific route: the domain itself, its nearest parent's `.parent`, `*`, or its own exchangers."""
        if found := self._by_domain.get(domain):
            return found
        at = domain.find(".")
        while at >= 0 and not domain.startswith("["):
            if found := self._by_domain.get(domain[at:]):
                return found
            at = domain.find(".", at + 1)
        return self._by_domain.get("*") or Route(domain)


def _pattern(text: str) -> str:
    if text == "*":
        return text
    dot = "." if text.startswith(".") else ""
    return dot + _name(text.removeprefix("."))


def _target(text: str, *, smart_host: bool) -> Route:
    """`host`, `host:port`, `[host]`, `[host]:port`; a host may be an IP address."""
    bracketed = text.startswith("[")
    if bracketed:
        host, close, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        wrong = not close or colon not in ("", ":")
    else:
        host, colon, port = text.partition(":")
        wrong = False
    if wrong or not host or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536)):
        raise ValueError(f"{text!r} must be a route's target such as [smart.example]:587")
    number = int(port) if colon else 0
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        return Route(_name(host), number, exchangers=not bracketed, static=True, smart_host=smart_host)
    return Route(address, number, exchangers=False, static=True, smart_host=smart_host)


def _name(text: str) -> str:
    try:
        return normal_domain(text)
    except BadAddress as error:
        raise ValueError(f"{text!r} is not a domain: {error}") from None
