"""The PROXY protocol, versions 1 and 2: the first octets from a proxy, which name the client of the connection.

Source: HAProxy, "The PROXY protocol, versions 1 & 2" (proxy-protocol.txt), here *spec*. Only the part that a receiver
of TCP connections needs: TLVs other than the checksum are skipped, and addresses of other families are ignored.
"""

import ipaddress
from dataclasses import dataclass

from paquebot.wire.cursor import Cursor, GrammarError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""Version 2 (spec §2.2). No line of SMTP, IMAP or POP3, and no TLS record, begins like this."""

MAX_LINE = 107
"""Longest header of version 1 in octets, CRLF included (spec §2.1)."""

MAX_HEADER = 536
"""Longest header of version 2 in octets: the smallest segment of TCP over IPv4 (spec §2.2), with room for TLVs."""

_KEYWORD = b"PROXY"
_LINES = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
_FIXED = 16  # signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESSES = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}  # octets
_CRC32C = 0x03  # PP2_TYPE_CRC32C
_TEXT = frozenset(range(0x20, 0x7F))
_WORD = _TEXT - {0x20}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of the connection that the proxy accepted. `address` as `ipaddress` writes it."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header of `length` octets. Without `source` the connection is the proxy's own, such as a health check
    (LOCAL), or its client is unknown (UNKNOWN, UNSPEC, AF_UNIX): use the address of the connection itself."""

    length: int
    source: Endpoint | None = None
    destination: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The octets are the beginning of a header."""


@dataclass(frozen=True, slots=True)
class NoHeader:
    """The octets do not begin a header."""


def read_header(octets: bytes) -> ProxyHeader | NeedMore | NoHeader:
    """Read the header from the first octets of a connection; more may follow it. Raises GrammarError for a bad header.

    Returns NeedMore for every proper prefix of a good header, and never for MAX_HEADER octets or more.
    """
    if octets.startswith(_KEYWORD):
        return _version_1(octets)
    if octets.startswith(SIGNATURE):
        return _version_2(octets)
    begun = _KEYWORD.startswith(octets) or SIGNATURE.startswith(octets)
    return NeedMore() if begun else NoHeader()


def begins_header(octets: bytes) -> bool:
    """Are these the first octets of a header?"""
    return octets.startswith((_KEYWORD + b" ", SIGNATURE))


def is_of_header(line: bytes) -> bool:
    """Is this line of a session part of a header that came where none is read? No command looks like this; in IMAP
    `PROXY` alone is a valid tag. The third line of SIGNATURE is its first that is not empty."""
    return line.startswith(_LINES) or line.rstrip(b"\r\n") == b"\x00"


# --- version 1: a line of text ---


def _version_1(octets: bytes) -> ProxyHeader | NeedMore:
    """Spec §2.1: "PROXY" SP ("TCP4" / "TCP6") SP src SP dst SP sport SP dport CRLF, or "PROXY" SP "UNKNOWN" ... CRLF"""
    cur = Cursor(octets[:MAX_LINE])
    cur.expect(_KEYWORD, "PROXY")
    if not cur.at_end():
        cur.space()
    cur.run(_TEXT)
    if cur.at_end() or (cur.data[cur.position :] == b"\r"):
        if len(octets) < MAX_LINE:
            return NeedMore()
        raise cur.failure(f"CRLF within {MAX_LINE} octets")
    end = cur.position
    cur.expect(b"\r\n", "CRLF")
    source, destination = _line(Cursor(octets[:end]))
    return ProxyHeader(end + 2, source, destination)


def _line(cur: Cursor) -> tuple[Endpoint | None, Endpoint | None]:
    cur.expect(_KEYWORD, "PROXY")
    cur.space()
    start = cur.position
    family = cur.run(_WORD)
    if family == b"UNKNOWN":
        if not cur.at_end():
            cur.space()
        return None, None  # the rest of the line is to be ignored
    if family not in (b"TCP4", b"TCP6"):
        raise cur.failure("TCP4, TCP6 or UNKNOWN", at=start)
    cur.space()
    source = _address(cur, family)
    cur.space()
    destination = _address(cur, family)
    cur.space()
    source_port = _port(cur)
    cur.space()
    destination_port = _port(cur)
    cur.end()
    return Endpoint(source, source_port), Endpoint(destination, destination_port)


def _address(cur: Cursor, family: bytes) -> str:
    start = cur.position
    word = cur.run(_WORD).decode("ascii")
    try:
        if family == b"TCP4":
            return str(ipaddress.IPv4Address(word))
        if "%" not in word:  # a zone belongs to the proxy's host and is not part of the grammar
            return str(ipaddress.IPv6Address(word))
    except ValueError:
        pass
    raise cur.failure("an IPv4 address" if family == b"TCP4" else "an IPv6 address", at=start)


def _port(cur: Cursor) -> int:
    """0 to 65535, without leading zeros."""
    start = cur.position
    port = cur.number("a port", high=0xFFFF)
    if cur.position - start != len(str(port)):
        raise cur.failure("a port without leading zeros", at=start)
    return port


# --- version 2: binary ---


def _version_2(octets: bytes) -> ProxyHeader | NeedMore:
    """Spec §2.2: signature, version and command, family and transport, length of the rest, addresses, TLVs"""
    if len(octets) > 12 and octets[12] not in (_LOCAL, _PROXY):
        raise GrammarError("version 2 with LOCAL or PROXY", 12)
    if len(octets) < _FIXED:
        return NeedMore()
    length = _FIXED + int.from_bytes(octets[14:16], "big")
    if length > MAX_HEADER:
        raise GrammarError(f"at most {MAX_HEADER} octets", 14)
    if len(octets) < length:
        return NeedMore()
    header, family = octets[:length], octets[13]
    if header[12] == _LOCAL or family == _UNSPEC:  # all that follows is to be ignored
        return ProxyHeader(length)
    if family not in _ADDRESSES:
        raise GrammarError("TCP over IPv4 or IPv6, a stream of AF_UNIX, or UNSPEC", 13)
    tlvs = _FIXED + _ADDRESSES[family]
    if length < tlvs:
        raise GrammarError("the addresses of the family", length)
    _check_tlvs(header, tlvs)
    if family == _UNIX_STREAM:
        return ProxyHeader(length)
    size = 4 if family == _TCP4 else 16
    ports = _FIXED + 2 * size
    return ProxyHeader(
        length,
        Endpoint(_packed(header[_FIXED : _FIXED + size]), int.from_bytes(header[ports : ports + 2], "big")),
        Endpoint(_packed(header[_FIXED + size : ports]), int.from_bytes(header[ports + 2 : ports + 4], "big")),
    )


def _packed(octets: bytes) -> str:
    return str(ipaddress.ip_address(octets))


def _check_tlvs(header: bytes, position: int) -> None:
    """Spec §2.2.1: type, length in two octets, value. Only the checksum is checked (§2.2.3)."""
    while position < len(header):
        value = position + 3
        end = value + int.from_bytes(header[position + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise GrammarError("a whole TLV", position)
        if header[position] == _CRC32C:
            without = header[:value] + bytes(4) + header[end:]
            if end - value != 4 or crc32c(without) != int.from_bytes(header[value:end], "big"):
                raise GrammarError("the CRC32C of the header", value)
        position = end


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _crc32c_table()


def crc32c(octets: bytes) -> int:
    """The checksum of Castagnoli (RFC 3720 §B.4 has examples)."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = _TABLE[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
