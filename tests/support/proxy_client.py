"""Writes headers of the PROXY protocol as a proxy does, after the specification, without the code of the parser."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tlv:
    kind: int
    value: bytes

    def encode(self) -> bytes:
        return struct.pack("!BH", self.kind, len(self.value)) + self.value


def v1(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    """Version 1."""
    family = f"TCP{ipaddress.ip_address(source).version}"
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def v2(source: str, destination: str, source_port: int, destination_port: int, *tlvs: Tlv) -> bytes:
    """Version 2, command PROXY, over TCP."""
    ends = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    rest = ends[0].packed + ends[1].packed + struct.pack("!HH", source_port, destination_port)
    rest += b"".join(tlv.encode() for tlv in tlvs)
    family = 0x11 if ends[0].version == 4 else 0x21
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(rest)) + rest


def v2_local() -> bytes:
    """Version 2, command LOCAL: the proxy's own health check."""
    return b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


def with_crc32c(source: str, destination: str, source_port: int, destination_port: int, *tlvs: Tlv) -> bytes:
    """Version 2 with a checksum as its last TLV."""
    header = v2(source, destination, source_port, destination_port, *tlvs, Tlv(3, bytes(4)))
    return header[:-4] + struct.pack("!I", _crc32c(header))


def _crc32c(data: bytes) -> int:
    """Bit by bit: the reflected polynomial of Castagnoli."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
