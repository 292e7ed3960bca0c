"""A small authoritative DNS server for tests: zones given as text, answers over UDP and TCP on loopback.

    async with DnsServer({"example.org": "@ MX 10 mx\\nmx A 127.0.0.1"}) as dns:
        ...  # PAQUEBOT_RELAY_DNS=127.0.0.1:{dns.port}

An SOA and NS record are added to each zone. It can misbehave: `failing` names get SERVFAIL, `silent` ones nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

_PREAMBLE = "@ 60 IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 1\n@ 60 IN NS ns.invalid.\n"
_MAX_UDP = 1232
_MAX_CHAIN = 8


class DnsServer:
    """`port` is the same for UDP and TCP; `questions` are ("name", "TYPE") in the order they came."""

    def __init__(self, zones: Mapping[str, str], *, address: str = "127.0.0.1") -> None:
        self._zones: dict[dns.name.Name, dns.zone.Zone] = {}
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.port = 0
        self.questions: list[tuple[str, str]] = []
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        for origin, text in zones.items():
            self.set_zone(origin, text)

    def set_zone(self, origin: str, text: str) -> None:
        """Add a zone, or replace it whole. Lines of `text` need no TTL (60 s) and no class."""
        zone = dns.zone.from_text(_PREAMBLE + "$TTL 60\n" + text, origin=dns.name.from_text(origin), relativize=False)
        self._zones[dns.name.from_text(origin)] = zone

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._server = await asyncio.start_server(self._serve_tcp, self._address, 0)
            self.port = self._server.sockets[0].getsockname()[1]
            try:
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=(self._address, self.port)
                )
            except OSError:  # another process has this UDP port
                self._server.close()
                continue
            return self
        raise RuntimeError("no port that is free for UDP and TCP")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._transport is not None
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), most=65535)
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        writer.close()

    def answer(self, wire: bytes, *, most: int) -> bytes | None:
        """Return the answer to one question, truncated above `most` bytes; None: send no answer."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.questions.append((name, dns.rdatatype.to_text(question.rdtype)))
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        else:
            self._fill(response, question.name, question.rdtype)
        answer = response.to_wire(max_size=65535)
        if len(answer) > most:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()
        return answer

    def _fill(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> None:
        zone = self._zone(name)
        if zone is None:
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        last = name
        for records in self._chain(name, kind):
            response.answer.append(records)
            last = records.name if records.rdtype == kind else records[0].target
        zone = self._zone(last)
        if zone is not None and not any(records.rdtype == kind for records in response.answer):
            response.authority.append(zone.find_rrset("@", "SOA"))
            known = [node for node in zone.nodes if node.is_subdomain(last)]
            if not known:
                response.set_rcode(dns.rcode.NXDOMAIN)

    def _chain(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Iterator[dns.rrset.RRset]:
        """Return the records and the CNAME records of our zones that lead to them."""
        for _ in range(_MAX_CHAIN):
            zone = self._zone(name)
            if zone is None:
                return
            if (records := zone.get_rrset(name, kind)) is not None:
                yield records
                return
            if (alias := zone.get_rrset(name, "CNAME")) is None:
                return
            yield alias
            name = alias[0].target

    def _zone(self, name: dns.name.Name) -> dns.zone.Zone | None:
        found = [origin for origin in self._zones if name.is_subdomain(origin)]
        return self._zones[max(found, key=lambda origin: len(origin.labels))] if found else None


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, most=_MAX_UDP)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)
