"""Fuzz what a name server answers: the relay finds a bounded list of addresses, or says that the domain has none, or
that it does not know now; nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import dns.flags
import dns.message
import dns.nameserver
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from paquebot.relay.outcome import Unroutable
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Route
from paquebot.relay.settings import RoutingSettings
from paquebot.runtime.settings import load
from tests.fuzz.target import Samples, Target

_DOMAIN = "b.test."
_WORDS = (
    b"\x00\x0f\x00\x01", b"\x00\x01\x00\x01", b"\x00\x1c\x00\x01", b"\x00\x05\x00\x01", b"\xc0\x0c", b"\xc0\x00",
    b"\xff\xff", b"\x00", b"\x3f" + b"a" * 63, b"\x01b\x04test\x00", b"\x7f\x00\x00\x01", b"\x84\x00", b"\x81\x82",
)  # fmt: skip


def _answer(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, kind: str = "MX") -> bytes:
    """`records`: owner, type and data, such as `b.test. MX 10 mx.b.test.`"""
    answer = dns.message.make_response(dns.message.make_query(_DOMAIN, kind))
    answer.id = 0
    answer.set_rcode(rcode)
    fields = (record.split(" ", 2) for record in records)
    answer.answer = [dns.rrset.from_text(owner, 60, "IN", rdtype, data) for owner, rdtype, data in fields]
    return answer.to_wire()


def _made() -> Samples:
    return [
        ("mx", _answer("b.test. MX 10 mx.b.test.", "b.test. MX 20 [192.0.2.1].")),
        ("null mx", _answer("b.test. MX 0 .")),
        ("none", _answer()),
        ("no domain", _answer(rcode=dns.rcode.NXDOMAIN)),
        ("failed", _answer(rcode=dns.rcode.SERVFAIL)),
        ("refused", _answer(rcode=dns.rcode.REFUSED)),
        ("alias", _answer("b.test. CNAME c.test.", "c.test. MX 10 mx.c.test.")),
        ("circle", _answer("b.test. CNAME c.test.", "c.test. CNAME b.test.")),
        ("address", _answer("b.test. A 192.0.2.7", kind="A")),
        ("wide address", _answer("b.test. AAAA 2001:db8::7", kind="AAAA")),
        ("many", _answer(*(f"b.test. MX {n} mx{n}.b.test." for n in range(60)))),
        ("cut", _answer("b.test. MX 10 mx.b.test.")[:20]),
        ("nothing", b""),
    ]


class _Server(dns.nameserver.Nameserver):
    """Answers every question with the same bytes, but for the id and, where there is room, the question."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __str__(self) -> str:
        return "fuzz"

    def kind(self) -> str:
        return "fuzz"

    def is_always_max_size(self) -> bool:
        return True

    def answer_nameserver(self) -> str:
        return "192.0.2.53"

    def answer_port(self) -> int:
        return 53

    async def async_query(self, request: dns.message.QueryMessage, *args: Any, **kwargs: Any) -> dns.message.Message:
        wire = request.id.to_bytes(2, "big") + self._raw[2:]
        question = request.to_wire()[12:]
        if request.question[0].rdtype != dns.rdatatype.MX and len(wire) > 12 + len(question):
            wire = wire[:12] + question + wire[12 + len(question) :]
        answer = dns.message.from_wire(wire)
        if not request.is_response(answer):
            raise dns.query.BadResponse
        return answer


_SETTINGS = load(RoutingSettings, {"PAQUEBOT_RELAY_DNS_TIMEOUT": "50ms"})


def check(raw: bytes) -> None:
    resolver = Resolver(_SETTINGS, "relay.example.org", 25, lambda exchangers: None)
    resolver._dns.nameservers = [_Server(raw)]
    try:
        hosts = asyncio.run(resolver.hosts(Route(_DOMAIN.rstrip("."))))
    except Unroutable as error:
        assert error.outcome.text  # noqa: PT017
        return
    assert 0 < len(hosts) <= _SETTINGS.addresses
    for host in hosts:
        assert str(ipaddress.ip_address(host.address)) == host.address
        assert host.name == host.name.lower()


TARGET = Target("dns", check, _WORDS, _made)
